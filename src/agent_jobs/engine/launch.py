"""Launch a turn: send its POST once, and store the id of its response."""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from math import inf
from typing import TypeVar

import anyio

from agent_jobs.backoff import calculate_backoff_s, with_jitter
from agent_jobs.clock import Clock
from agent_jobs.engine.background_check import BackgroundCheck
from agent_jobs.engine.finalize import Finalizer
from agent_jobs.engine.key_pause import KeyPause
from agent_jobs.engine.read_again import reread_job
from agent_jobs.engine.request_adapter import RequestAdapter
from agent_jobs.engine.resend import Resender
from agent_jobs.engine.run_limits import PENDING_MAX_S, RunLimits
from agent_jobs.engine.step_result import Done, LostRace, RunAgain, WaitForSlot
from agent_jobs.engine.stream import StreamReader
from agent_jobs.engine.stream_step import StreamStep
from agent_jobs.errors import (
    AccountError,
    BusyError,
    RefusedError,
    RequestError,
    StoreError,
    UnclearError,
    UnsentError,
    UpstreamError,
)
from agent_jobs.jobs.job import TRYING_AGAIN, Job
from agent_jobs.jobs.response import JSON
from agent_jobs.jobs.status import Status
from agent_jobs.request.body import add_uploaded_files, describe_refusal, shape_for_mode
from agent_jobs.request.hosted_tools import Secret, fill_in_secrets
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ANSWERED_JSON, ResponsesClient, find_background_flag

logger = logging.getLogger(__name__)

T = TypeVar("T")

CREATE_LIMIT_S = 900.0  # until the id is read: a server sent only keepalives for 301 s
CREATE_GRACE_S = 1.5  # for ids on their way at shutdown: hosts kill the process soon after
RELAUNCH_FIRST_S = 2.0  # most refusals for load are over by then
RELAUNCH_MOST_S = 60.0  # a job that waits for upstream starts within a minute of its return
LOST_SLOT_RETRY_S = 5.0  # a later turn keeps its slot, so nothing else wakes it
STORE_RETRY_S = 1.0  # a locked database is free again within seconds
#: Upstream's codes for faults of an account, if the code shows the user what to fix.
ACCOUNT_CODES = frozenset({"invalid_api_key", "insufficient_quota"})


class Launcher:
    """Launches the turns of jobs at one endpoint."""

    def __init__(
        self,
        store: Store,
        client: ResponsesClient,
        clock: Clock,
        limits: RunLimits,
        *,
        finalizer: Finalizer,
        resender: Resender,
        reader: StreamReader,
        stream_step: StreamStep,
        pause: KeyPause,
        secrets: Mapping[str, Secret],
    ) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._limits = limits
        self._finalizer = finalizer
        self._resender = resender
        self._reader = reader
        self._stream_step = stream_step
        self._pause = pause
        self._secrets = secrets
        self._adapter = RequestAdapter(store, client, clock, limits)
        self._check = BackgroundCheck(store, client, clock, reader)
        self._creates: set[anyio.CancelScope] = set()
        self._is_shutting_down = False
        #: When POSTs that were not sent were to be sent, by job: the database may have noted their beginning.
        self._unsent_at: dict[str, float | None] = {}
        self._failed_attempts = Counter[str]()  #: POSTs in a row that upstream did not accept, by job

    def is_deciding(self, job_id: str) -> bool:
        """Return True while it is unknown whether the job's run continues without this process."""
        return self._check.is_deciding(job_id)

    def begin_shutdown(self) -> None:
        """Wait a last moment for response ids that have not arrived yet."""
        self._is_shutting_down = True
        for scope in self._creates:
            scope.deadline = min(scope.deadline, anyio.current_time() + CREATE_GRACE_S)

    async def launch(self, job: Job) -> Done | RunAgain | WaitForSlot:
        """Send the POST, if this process wins the right to, and stay until the response has an id."""
        if await self._end_before_sending(job):
            self._failed_attempts.pop(job.id, None)
            return Done()
        # Shielded: a run that is cancelled between the first byte and the id is paid and lost.
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CREATE_LIMIT_S) as scope:
            self._creates.add(scope)
            try:
                return await self._send_turn(job, scope)
            finally:
                self._creates.discard(scope)
        return RunAgain(0)  # the limit ended it: the job's row shows whether anything was sent

    async def end_orphaned(self, job: Job) -> Done | RunAgain:
        """End a start whose first byte was sent by a dead process; repeat one that was not sent at all."""
        if job.id in self._unsent_at and self._unsent_at.pop(job.id) == job.turn.sent_at:
            await self._store.save(job.mark_not_sent("The database could not be reached; trying again."))
            return RunAgain(0)
        return await self._leave_unconfirmed(job, "The process that sent it ended before the provider returned an id.")

    async def _end_before_sending(self, job: Job) -> bool:
        """End a job that must not be sent any more; return True if it ended."""
        now, turn = self._clock.now(), job.turn.number
        if job.cancel_requested_at is not None:
            await self._finalizer.save_job(job.mark_cancelled(now))
        elif job.status is Status.PENDING and now - job.created_at > PENDING_MAX_S:
            why = "The provider could not be reached for a week, so nothing was sent."
            await self._finalizer.fail_job(job, "deadline_exceeded", why)
        elif turn > 1 and job.overdue_s(now, self._limits.job_timeout_s) >= 0:
            await self._finalizer.fail_job(job, "deadline_exceeded", f"Its time limit passed before turn {turn} began.")
        else:
            return False
        return True

    async def _send_turn(self, job: Job, scope: anyio.CancelScope) -> Done | RunAgain | WaitForSlot:
        """Send a turn with what must exist before it: its conversation and its uploads."""
        try:
            job = await self._open_conversation(job)
            return await self._create_response(job, await self._upload_files(job), scope)
        except LostRace:
            # Only a pending job can wait for a slot; a later turn has one.
            if job.turn.number == 1:
                return WaitForSlot()
            return RunAgain(LOST_SLOT_RETRY_S)
        except (RequestError, UpstreamError) as error:
            return await self._handle_failure(job, error)

    async def _handle_failure(self, job: Job, error: RequestError | UpstreamError) -> Done | RunAgain:
        """Store that a POST failed; say when it may be sent again, if at all."""
        match error:
            case UnsentError() | BusyError():
                return await self._relaunch_later(job, error)
            case AccountError():
                self._pause.begin(error)
                code = "account_refused"
                if error.code in ACCOUNT_CODES:
                    code = error.code
                await self._finalizer.fail_job(job, code, str(error))
            case RefusedError():
                if await self._adapter.learn_from(job, error) or await self._resender.after_refusal(job, error):
                    return RunAgain(0)
                why = describe_refusal(error.code, error.param, str(error), job.turn.request)
                await self._finalizer.fail_job(job, error.code or "upstream_rejected", why)
            case RequestError():
                await self._finalizer.fail_job(job, "missing_secret", str(error))
            case UnclearError():
                # A gateway's 500 may hide another server's "not found".
                if error.status is not None and await self._resender.after_refusal(job, error):
                    return RunAgain(0)
                return await self._leave_unconfirmed(job, str(error))
            case _:
                raise error
        self._failed_attempts.pop(job.id, None)
        return Done()

    async def _create_response(self, job: Job, file_ids: Sequence[str], scope: anyio.CancelScope) -> Done | RunAgain:
        """POST, and continue with the response once an event names its id."""

        async def before_sending() -> None:
            nonlocal job
            job = job.mark_sending(self._clock.now())
            self._unsent_at[job.id] = job.turn.sent_at
            if not await self._store.begin_sending(job, self._limits.concurrent, self._limits.owner_concurrent):
                raise LostRace
            del self._unsent_at[job.id]

        # The job may have been started with another key, but its response belongs to this one.
        ours = self._client.endpoint.fingerprint
        mode = await self._adapter.choose_mode(job)
        job = replace(job, turn=replace(job.turn, mode=mode, fingerprint=ours))
        # Only the sent copy gets secrets and upload ids: neither belongs into the database.
        body = add_uploaded_files(fill_in_secrets(job.turn.request, self._secrets), file_ids)
        body = await self._adapter.remove_refused(shape_for_mode(body, mode), job.turn)
        create = self._client.create(body, request_id=job.turn.request_id, before_sending=before_sending)
        async with aclosing(create) as events:
            async for event in events:
                job = job.apply_event(event, self._clock.now())
                if job.turn.response_id is not None:
                    return await self._continue_with_id(job, event, events, scope)
        raise UnclearError("the provider ended its answer before it returned an id", code="no_id")

    async def _continue_with_id(
        self, job: Job, event: JSON, events: AsyncGenerator[JSON], scope: anyio.CancelScope
    ) -> RunAgain:
        """Store the response's id, then read on, for speed or because the run ends with the connection."""
        self._failed_attempts.pop(job.id, None)
        if find_background_flag(event) is False:
            job = replace(job, turn=replace(job.turn, mode="foreground"))
        if not self._is_shutting_down:
            scope.deadline = inf  # this process never abandons an id while it runs
        if self._must_check_background(job, event):
            self._check.begin(job.id)
        is_cancelling = await self._record_response_id(job)
        job = await self._check.decide(job)
        self._creates.discard(scope)
        scope.shield, scope.deadline = False, inf
        if job.is_terminal or is_cancelling:
            return RunAgain(0)
        if self._should_stream(event):
            return await self._check.stream_and_ask(job.id, partial(self._stream_step.run, job, events))
        return await self._stream_step.poll_instead(job)

    def _should_stream(self, event: JSON) -> bool:
        """Return True if the answer is a stream, and there is room for it or the run may end without it."""
        if event.get("type") == ANSWERED_JSON:
            return False
        return self._reader.has_room or find_background_flag(event) is not True

    def _must_check_background(self, job: Job, event: JSON) -> bool:
        """Return True if upstream did not say whether the run continues without this connection."""
        if find_background_flag(event) is not None or event.get("type") == ANSWERED_JSON:
            return False
        return not job.is_terminal and job.turn.mode != "foreground" and self._limits.mode is None

    async def _open_conversation(self, job: Job) -> Job:
        """Return the job with a conversation of its own, if it asked for one."""
        if job.turn.request.get("conversation") is not True:
            return job
        conversation = await _send_repeatably(self._client.create_conversation())
        job = replace(job, turn=replace(job.turn, request={**job.turn.request, "conversation": conversation}))
        if not await self._store.rewrite_request(job):
            raise LostRace
        return job

    async def _upload_files(self, job: Job) -> list[str]:
        """Upload the job's files that the provider does not have yet; return the provider's ids of all."""
        file_ids: list[str] = []
        for upload in await self._store.get_uploads(job.id):
            file_id = upload.file_id
            if file_id is None:
                file_id = await _send_repeatably(self._client.upload(upload.name, upload.data))
                await self._store.record_upload(job.id, upload.name, file_id)
            file_ids.append(file_id)
        return file_ids

    async def _record_response_id(self, job: Job) -> bool:
        """Store the id before any caller sees it; return True if a cancel was requested in the meantime."""
        while True:
            try:
                row = await self._try_to_record(job)
            except StoreError as error:
                # The log is the last place that can keep a paid run findable.
                message = "%s: cannot store its response id %s: %s"
                logger.error(message, job.id, job.turn.response_id, error)
                await self._clock.sleep(STORE_RETRY_S)
                continue
            if row is not None:
                logger.info("%s: has response %s", job.id, job.turn.response_id)
                return row.cancel_requested_at is not None

    async def _try_to_record(self, job: Job) -> Job | None:
        """Store the response's id; return None if the job's row was lost and had to be written again."""
        row = await self._store.record_response_id(
            job.id,
            job.turn.number,
            job.turn.get_response_id(),
            self._clock.now(),
            mode=job.turn.mode,
            fingerprint=self._client.endpoint.fingerprint,  # another key may have been read after a refusal
        )
        if row is None:
            await self._restore_row(job)
        elif job.status is not Status.QUEUED:
            await self._resender.save_or_resend(job)
        return row

    async def _restore_row(self, job: Job) -> None:
        """Write a job that was sent into a database that replaced the one with its row."""
        unsent = replace(job, status=Status.PENDING, key=None, turn=replace(job.turn, response_id=None))
        await self._store.add(unsent, allow_duplicate=True)
        await self._store.begin_sending(job)

    async def _relaunch_later(self, job: Job, error: UpstreamError) -> RunAgain:
        """Have a POST sent again that upstream provably did not accept, after a longer wait each time."""
        self._failed_attempts[job.id] += 1
        await self._store.save(job.mark_not_sent(f"{error}{TRYING_AGAIN}"))
        wait_s = calculate_backoff_s(self._failed_attempts[job.id], first_s=RELAUNCH_FIRST_S, most_s=RELAUNCH_MOST_S)
        wait_s = with_jitter(max(wait_s, error.retry_after_s or 0.0))
        return RunAgain(wait_s, wait_s)

    async def _leave_unconfirmed(self, job: Job, why: str) -> Done | RunAgain:
        """End a start that upstream may have accepted. Only a setting of the user allows a second POST."""
        row = await reread_job(self._store, job)
        if row.turn.response_id is not None:
            return RunAgain(0)  # the user adopted a response in the meantime
        if self._limits.resubmit and row.turn.attempt < 2 and row.cancel_requested_at is None:
            await self._store.record_event(job.id, self._clock.now(), "resubmitted", why)
            await self._store.save(row.mark_not_sent(f"{why.rstrip('.')}; trying once more"))
            return RunAgain(RELAUNCH_FIRST_S)
        self._failed_attempts.pop(job.id, None)
        await self._finalizer.fail_job(job, "start_unconfirmed", why)
        return Done()


async def _send_repeatably(request: Awaitable[T]) -> T:
    """Return the answer to a request that may be sent twice: without one, nothing of the job counts as sent."""
    try:
        return await request
    except UnclearError as error:
        raise UnsentError(str(error), code=error.code, retry_after_s=error.retry_after_s) from error
