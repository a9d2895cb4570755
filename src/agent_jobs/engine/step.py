"""One step of a job: read its row, do one thing upstream, write down what it showed, say when to come back.

A step may be cut off anywhere by the death of the process. What another process then needs is in the row.
"""

import logging
import random
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf

import anyio

from agent_jobs.clock import Clock
from agent_jobs.engine.background_check import BackgroundCheck
from agent_jobs.engine.finalize import Finalizer
from agent_jobs.engine.resend import Resender
from agent_jobs.engine.retrieve import retrieve
from agent_jobs.engine.step_result import Done, RunAgain, WaitForSlot
from agent_jobs.engine.stream import StreamReader
from agent_jobs.engine.tool_loop import ToolLoop
from agent_jobs.errors import (
    AccountError,
    BusyError,
    MissingError,
    RefusedError,
    RequestError,
    StoreError,
    UnclearError,
    UnsentError,
    UpstreamError,
)
from agent_jobs.jobs.job import MAX_EMPTY_COMPLETIONS, MAX_STREAM_FAILURES, Job, Mode, Turn
from agent_jobs.jobs.poll_schedule import next_retrieve_s
from agent_jobs.jobs.response import JSON
from agent_jobs.jobs.status import Status
from agent_jobs.request.added_parameters import ASKED, OF_A_MODEL, THIS_SCHEMA, lenient, refused_of, without
from agent_jobs.request.body import sent_as, sentence_for, with_files
from agent_jobs.request.hosted_tools import Secret, resolved
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ANSWERED_JSON, ResponsesClient, in_background
from agent_jobs.upstream.endpoint import redacted_url

logger = logging.getLogger(__name__)

#: A connection that sends anything is read on for the id so long (seen: 301 s of nothing but keepalives).
CREATE_LIMIT_S = 900.0
#: At shutdown an id that is on its way gets so long to arrive; hosts kill soon after.
CREATE_GRACE_S = 1.5
RELAUNCH_MIN_S, RELAUNCH_MAX_S = 2.0, 60.0
#: A stream that lives may still miss the end, so a followed job is looked at all the same, seldom.
FAR_RETRIEVE_S = 290.0
#: A look whose answer came after that of a newer one is repeated.
OVERTAKEN_S = 1.0
CANCEL_AGAIN_S, CANCEL_RETRY_S = 30.0, 5.0
#: Nothing was sent in so long: the work is not wanted any more.
PENDING_MAX_S = 7 * 86_400.0
#: Past its limit a run that cannot be asked about is asked about so often, and so long.
OVERDUE_POLL_S, COLLECT_S = 300.0, 86_400.0
STORE_RETRY_S = 1.0
#: After a refused key or an empty account, new work is refused for so long; looks go on and end it sooner.
PAUSE_S = 60.0
#: A job of a key that this process lacks is left to others for so long.
LET_GO_S = 60.0
#: What follows a job's end is tried again so often.
FINALIZE_AGAIN_S = 30.0
#: What an endpoint taught is kept for a day.
MODE_KEPT_S = 86_400.0
#: What to try where an endpoint refuses a way of sending.
FALLBACK_MODE: Mapping[Mode, Mode] = {"background_stream": "background", "background": "foreground"}
WAY_OF_SENDING = re.compile(r"\b(background|stream|streaming|store)\b")
#: What is wrong with an account, where upstream's code tells a person what to mend.
ACCOUNT_CODES = frozenset({"invalid_api_key", "insufficient_quota"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """How much is done at once, and how long a run may take.

    Args:
        follow: Streams that this process reads at once.
        concurrent: Runs upstream at once, over all processes on the database.
        job_timeout_s: Seconds from the first byte of a job's first POST until its run is cancelled; those in which
            somebody was waited for do not count.
        resubmit: Send a POST a second time after an answer that leaves open whether it was accepted. May cost twice.
        mode: How to send, whatever the endpoint teaches; None lets it teach.
    """

    follow: int = 200
    concurrent: int = 10
    job_timeout_s: float = 10_800.0
    resubmit: bool = False
    mode: Mode | None = None


class JobStepper:
    """The steps of jobs at one endpoint."""

    def __init__(
        self,
        store: Store,
        client: ResponsesClient,
        clock: Clock,
        limits: RunLimits,
        settler: Finalizer,
        loop: ToolLoop,
        secrets: Mapping[str, Secret],
    ) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._limits = limits
        self._settler = settler
        self._loop = loop
        self._secrets = secrets
        self._resender = Resender(store, client, clock, settler)
        self._follower = StreamReader(store, clock, limits.follow, settler.prepare_end, self._resender.after_failure)
        self._births: set[anyio.CancelScope] = set()
        self._hurried = False
        self._holds = BackgroundCheck(store, client, clock, self._follower)
        self._paused: tuple[float, str] | None = None

    @property
    def paused(self) -> str | None:
        """Why nothing new should be sent with this key just now; None when it may be tried."""
        return self._paused[1] if self._paused is not None and self._clock.now() < self._paused[0] else None

    def is_deciding(self, job_id: str) -> bool:
        """Return True while it is not known yet whether the job's run goes on without this process."""
        return self._holds.is_deciding(job_id)

    async def keep(self) -> None:
        """Write down what followed jobs tell on their way, for ever."""
        await self._follower.keep()

    async def run_step(self, job_id: str) -> Done | RunAgain | WaitForSlot:
        """Take the one step that the job's row asks for: launch, cancel or look."""
        job = await self._store.get(job_id)
        if job is None or job.is_terminal:
            settled = job is None or not job.needs_finalizing or await self._settler.finalize(job)
            return Done() if settled else RunAgain(FINALIZE_AGAIN_S)
        if job.turn.has_open_calls:
            return await self._loop.run_tools(job)
        if job.turn.response_id is None:
            return await (self._launch(job) if job.has_unsent_turn else self._orphaned(job))
        stopping = job.cancel_requested_at is not None or job.turn.timed_out_at is not None
        if stopping and job.turn.mode != "foreground":
            return await self.cancel(job)
        return await self._retrieve(job)

    async def cancel(self, job: Job) -> Done | RunAgain:
        """Have upstream stop, and read how the response stands after it. Takes no claim on the job."""
        response_id = job.turn.response_id
        if response_id is None or job.turn.has_open_calls:
            return Done()  # its launcher sees the request as soon as there is an id
        if job.turn.mode == "foreground":
            self._follower.leave(job.id)  # its run ends with its connection; the process that holds it sees the request
            return Done()
        if await self._store.claim_cancel(job.id, self._clock.now(), CANCEL_AGAIN_S):
            try:
                await self._client.cancel(response_id)
            except MissingError:
                pass  # the look counts it
            except UpstreamError as error:
                await self._store.clear_cancel_claim(job.id)
                await self._store.save(job.mark_unreachable(f"cannot cancel: {error}", self._clock.now()), held=False)
                return await self._overdue(job) or RunAgain(error.retry_after_s or CANCEL_RETRY_S)
        return await self._retrieve(job, held=False)

    async def give_up_lost(self) -> None:
        """End the jobs at other endpoints that no process came to work on, for a day past their limit."""
        now = self._clock.now()
        sent_before = now - self._limits.job_timeout_s - COLLECT_S
        base_url = self._client.endpoint.base_url
        for job_id in await self._store.claim_lost(
            base_url, sent_before=sent_before, created_before=now - PENDING_MAX_S
        ):
            job = await self._store.get(job_id)
            if job is not None:
                await self._give_up(job, "no server ran")

    def begin_shutdown(self) -> None:
        """Give the ids that are on their way a last moment to arrive."""
        self._hurried = True
        for birth in self._births:
            birth.deadline = min(birth.deadline, anyio.current_time() + CREATE_GRACE_S)

    async def _launch(self, job: Job) -> Done | RunAgain | WaitForSlot:
        """Send the POST, if this caller wins the right to, and stay until the response has an id."""
        now = self._clock.now()
        if job.cancel_requested_at is not None:
            await self._save(job.mark_cancelled(now))
            return Done()
        if job.status is Status.PENDING and now - job.created_at > PENDING_MAX_S:
            await self._fail(job, "deadline_exceeded", "upstream could not be reached for a week; nothing was sent")
            return Done()
        if job.turn.number > 1 and job.overdue_s(now, self._limits.job_timeout_s) >= 0:
            await self._fail(job, "deadline_exceeded", f"its time limit passed before turn {job.turn.number} was taken")
            return Done()
        # Not to be cancelled between the first byte and the id: the run would be paid and lost.
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CREATE_LIMIT_S) as birth:
            self._births.add(birth)
            try:
                job = await self._in_conversation(job)
                return await self._create(job, await self._uploaded(job), birth)
            except (UnsentError, BusyError) as error:
                return await self._relaunch(job, error)
            except AccountError as error:
                self._pause(error)
                code = error.code if error.code in ACCOUNT_CODES else "account_refused"
                await self._fail(job, code, str(error))
            except RefusedError as error:
                if await self._drop(job, error) or await self._fall_back_mode(job, error):
                    return RunAgain(0)
                if await self._resender.after_refusal(job, error):
                    return RunAgain(0)
                why = sentence_for(error.code, error.param, str(error), job.turn.request)
                await self._fail(job, error.code or "upstream_rejected", why)
            except RequestError as error:
                await self._fail(job, "missing_secret", str(error))
            except UnclearError as error:
                # A gateway's 500 may be another server's "not found".
                if error.status is not None and await self._resender.after_refusal(job, error):
                    return RunAgain(0)
                return await self._unconfirmed(job, str(error))
            except _NotOursError:
                # Parks nothing but a job that is still pending and ours; a later turn has its slot.
                return WaitForSlot() if job.turn.number == 1 else RunAgain(CANCEL_RETRY_S)
            finally:
                self._births.discard(birth)
            return Done()
        return RunAgain(0)  # the limit ended it: the row says whether anything was sent

    async def _create(self, job: Job, file_ids: Sequence[str], birth: anyio.CancelScope) -> Done | RunAgain:
        """POST, write the id down, and read on: for speed, or because the run would end with the connection."""

        async def before_sending() -> None:
            nonlocal job
            job = job.mark_sending(self._clock.now())
            if not await self._store.begin_sending(job, self._limits.concurrent):
                raise _NotOursError

        # Another key may have written the job down; the response will be this one's.
        ours = self._client.endpoint.fingerprint
        job = replace(job, turn=replace(job.turn, mode=await self._mode(job), fingerprint=ours))
        # Neither secrets nor what is removed after the job belong into what is kept.
        body = with_files(resolved(job.turn.request, self._secrets), file_ids)
        body = await self._without_refused(sent_as(body, job.turn.mode), job.turn)
        create = self._client.create(body, request_id=job.turn.request_id, before_sending=before_sending)
        async with aclosing(create) as events:
            async for event in events:
                job = job.apply_event(event, self._clock.now())
                if (response_id := job.turn.response_id) is None:
                    continue
                if in_background(event) is False:
                    job = replace(job, turn=replace(job.turn, mode="foreground"))
                if not self._hurried:
                    birth.deadline = inf  # an id is not given up while this process lives
                unsaid = in_background(event) is None and event.get("type") != ANSWERED_JSON
                is_open = not job.is_terminal and job.turn.mode != "foreground" and self._limits.mode is None
                if unsaid and is_open:
                    self._holds.begin(job.id)
                cancelling = await self._record_response_id(job, response_id)
                job = await self._holds.decide(job)
                self._births.discard(birth)
                birth.shield, birth.deadline = False, inf
                if job.is_terminal or cancelling:
                    return RunAgain(0)
                if event.get("type") == ANSWERED_JSON:
                    return await self._poll(job)
                if self._follower.has_room or in_background(event) is not True:
                    return await self._holds.stream_and_ask(job.id, partial(self._follow, job, events))
                return await self._poll(job)
        raise UnclearError("upstream ended its answer before it named an id", code="no_id")

    async def _mode(self, job: Job) -> Mode:
        """How to send this turn: as a person said, else as its endpoint taught us, else in the best way."""
        if self._limits.mode is not None:
            return self._limits.mode
        since = self._clock.now() - MODE_KEPT_S
        taught = await self._store.learned_mode(job.turn.base_url, str(job.turn.request.get("model")), since)
        return taught or ("background" if self._client.endpoint.azure else "background_stream")

    async def _without_refused(self, body: JSON, turn: Turn) -> JSON:
        """Return the body without what only we added and the endpoint refuses."""
        refused = await self._store.refused_parameters(turn.base_url, self._clock.now() - MODE_KEPT_S)
        of_model = f"@{body.get('model')}"
        asked = {name: turn.request[name] for name in (ASKED,) if name in turn.request}
        return without({**body, **asked}, {name.removesuffix(of_model) for name in refused})

    async def _drop(self, job: Job, error: RefusedError) -> bool:
        """If upstream refused what only we added, remember to leave it out there and return True, once for each."""
        body, base_url, now = job.turn.request, job.turn.base_url, self._clock.now()
        learned = await self._store.refused_parameters(base_url, now - MODE_KEPT_S)
        names = refused_of(error.code, error.param, str(error), body)
        new = [name for name in names if _kept_as(name, body) not in learned and self._can_drop(name)]
        if not new:
            return False
        for name in new:
            if name == "store":  # what is not stored does not run in the background
                await self._store.learn_mode(base_url, str(body.get("model")), "foreground", now, str(error))
            if name != THIS_SCHEMA:
                await self._store.learn_refused_parameter(base_url, _kept_as(name, body), now, str(error))
            await self._store.record_event(job.id, now, "dropped", f"{name}: {error}")
        if await self._store.save(job.mark_not_sent("")) is None:
            return False
        if THIS_SCHEMA in new:
            return await self._store.rewrite_request(replace(job, turn=replace(job.turn, request=lenient(body))))
        return True

    def _can_drop(self, name: str) -> bool:
        return name != "store" or self._limits.mode in (None, "foreground")

    async def _fall_back_mode(self, job: Job, error: RefusedError) -> bool:
        """Whether a refusal names the way of sending and there is a lesser one, which is kept and tried next."""
        mode = await self._mode(job)
        named = WAY_OF_SENDING.search(f"{error.param} {error}".lower())
        lesser = FALLBACK_MODE.get(mode)
        if self._limits.mode is not None or lesser is None or not named:
            return False
        model, now = str(job.turn.request.get("model")), self._clock.now()
        await self._store.learn_mode(job.turn.base_url, model, lesser, now, str(error))
        await self._store.record_event(job.id, now, lesser, str(error))
        return await self._store.save(job.mark_not_sent("")) is not None

    async def _in_conversation(self, job: Job) -> Job:
        """The job with a conversation of its own, if it asked for one."""
        if job.turn.request.get("conversation") is not True:
            return job
        try:
            body = {**job.turn.request, "conversation": await self._client.create_conversation()}
        except UnclearError as error:
            raise _unsent(error) from error
        job = replace(job, turn=replace(job.turn, request=body))
        if not await self._store.rewrite_request(job):
            raise _NotOursError
        return job

    async def _uploaded(self, job: Job) -> list[str]:
        """The provider's ids of the files that go with the job, those that are not there yet handed over first."""
        file_ids: list[str] = []
        for upload in await self._store.get_uploads(job.id):
            file_id = upload.file_id
            if file_id is None:
                try:
                    file_id = await self._client.upload(upload.name, upload.data)
                except UnclearError as error:
                    raise _unsent(error) from error
                await self._store.record_upload(job.id, upload.name, file_id)
            file_ids.append(file_id)
        return file_ids

    def _pause(self, error: AccountError) -> None:
        """Send nothing new for a while: every job would fail the same way."""
        self._paused = (self._clock.now() + PAUSE_S, str(error))

    async def _record_response_id(self, job: Job, response_id: str) -> bool:
        """Write the id down before anybody is told of it; returns whether a cancel waited for it."""
        while True:
            try:
                row = await self._store.record_response_id(
                    job.id, job.turn.number, response_id, self._clock.now(), mode=job.turn.mode
                )
                if row is None:
                    await self._write_anew(job)  # its row went with a database that could not be read any more
                    continue
                if job.status is not Status.QUEUED:
                    await self._save_seen(job)
                break
            except StoreError as error:
                # The log is the last place that can keep a paid run findable.
                logger.error("%s: cannot write down its response id %s: %s", job.id, response_id, error)
                await self._clock.sleep(STORE_RETRY_S)
        logger.info("%s: is response %s", job.id, response_id)
        return row.cancel_requested_at is not None

    async def _write_anew(self, job: Job) -> None:
        """Write down a job that was sent, in a database that does not know it."""
        unsent = replace(job, status=Status.PENDING, key=None, turn=replace(job.turn, response_id=None))
        await self._store.add(unsent, allow_duplicate=True)
        await self._store.begin_sending(job)

    async def _follow(self, job: Job, events: AsyncGenerator[JSON], *, attached: bool = False) -> RunAgain:
        """Read the job's stream; what it leaves open, a GET decides."""
        if job.observed_by != "following":
            with suppress(StoreError):  # a note must not cost the stream
                await self._store.record_event(job.id, self._clock.now(), "following")
            job = replace(job, observed_by="following")
        held = job.turn.mode == "foreground"
        if not held:
            # A stream may live on and say nothing of an end; GETs of a foreground response may not be served.
            await self._store.schedule(job.id, self._clock.now(), *[self._far_look_s(job)] * 2)
        overdue_s = job.overdue_s(self._clock.now(), self._limits.job_timeout_s)
        job = await self._follower.read_stream(job, events, max(0.0, -overdue_s) if held else inf, attached=attached)
        if job.turn.has_open_calls:
            return RunAgain(0)
        if job.is_terminal:
            logger.info("%s: ended, %s", job.id, job.status)
            return RunAgain(0)
        error = self._follower.take_error(job.id)
        if error and await self._follower.insist(job, lambda: self._resender.after_stream_error(job, error)):
            return RunAgain(0)
        if job.turn.mode == "foreground":
            return await self._end_held(job)
        if job.turn.stream_failures == 0:
            return await self._poll(job, 0)
        wait_s = 2.0 ** min(job.turn.stream_failures, MAX_STREAM_FAILURES)
        return replace(await self._poll(job, wait_s), not_before_s=wait_s)

    async def _end_held(self, job: Job) -> RunAgain:
        """Write down how a held run ended whose connection is over: by a cancel, by its limit, or by upstream."""
        row = await self._follower.insist(job, lambda: self._store.get(job.id))
        if row is not None and row.cancel_requested_at is not None:
            ended = job.with_partial().mark_cancelled(self._clock.now())
        elif job.turn.timed_out_at is not None:
            ended = job.end_at_deadline(self._clock.now())
        else:
            ended = await self._ask_for_rest(job.mark_stream_failed())
        if not (ended.is_terminal or ended.turn.has_open_calls):
            return await self._poll(ended)
        await self._follower.insist(ended, lambda: self._save_seen(ended))
        logger.info("%s: ended with its connection, %s", job.id, ended.status)
        return RunAgain(0)

    async def _ask_for_rest(self, job: Job) -> Job:
        """Return a held run that upstream cut as a GET shows it, else with what was read of it."""
        try:
            look = await self._client.retrieve(job.turn.response_id or "")
            seen = job.apply_response(look.response, self._clock.now())
            asked_for_more = not seen.turn.empty_completions
        except UpstreamError as error:
            now = self._clock.now()
            seen = job.mark_not_found(now) if isinstance(error, MissingError) and job.counted is None else job
            asked_for_more = job.counted is None
        if not asked_for_more and job.counted is not None:
            now = self._clock.now()
            seen = replace(job, turn=replace(job.turn, empty_completions=MAX_EMPTY_COMPLETIONS)).apply_response(
                job.counted, now
            )
        return seen

    async def _poll(self, job: Job, after_s: float | None = None) -> RunAgain:
        """From here on the job is looked at."""
        now = self._clock.now()
        await self._store.save(replace(job, observed_by="polling"))
        if job.observed_by != "polling":
            await self._store.record_event(job.id, now, "polling")
        return RunAgain(next_retrieve_s(job, now) if after_s is None else after_s)

    async def _relaunch(self, job: Job, error: UpstreamError) -> RunAgain:
        """Upstream provably did not accept the POST: it is sent again, less often as the job gets older."""
        now = self._clock.now()
        await self._store.save(job.mark_not_sent(f"{error}; trying again"))
        wait_s = min(RELAUNCH_MAX_S, max(RELAUNCH_MIN_S, (now - job.created_at) / 4))
        wait_s = max(wait_s, error.retry_after_s or 0.0)
        return RunAgain(wait_s, wait_s)

    async def _orphaned(self, job: Job) -> Done | RunAgain:
        """The first byte of the POST left, and nobody listens for its id any more."""
        return await self._unconfirmed(job, "the process that sent it ended before upstream named an id")

    async def _unconfirmed(self, job: Job, why: str) -> Done | RunAgain:
        """Nobody knows whether upstream accepted the POST: it is not sent again, unless a person chose that risk."""
        row = await self._store.get(job.id) or job
        if row.turn.response_id is not None:
            return RunAgain(0)  # it was adopted meanwhile
        if self._limits.resubmit and row.turn.attempt < 2 and row.cancel_requested_at is None:
            await self._store.record_event(job.id, self._clock.now(), "resubmitted", why)
            await self._store.save(row.mark_not_sent(f"{why}; trying once more"))
            return RunAgain(RELAUNCH_MIN_S)
        await self._fail(job, "start_unconfirmed", why)
        return Done()

    async def _give_up(self, job: Job, why: str) -> None:
        """End a job that nobody could work on, with how its result may yet be had."""
        where = f"{why} with OPENAI_BASE_URL={redacted_url(job.turn.base_url)}"
        if job.status is Status.PENDING:
            await self._fail(job, "endpoint_lost", f"{where} for a week; nothing was sent")
        elif job.turn.response_id is None:
            await self._fail(job, "start_unconfirmed", f"its process ended before upstream named an id, and {where}")
        else:
            await self._fail(
                job, "endpoint_lost", f"{where} until a day past its limit; there {job.turn.response_id} may be read"
            )

    async def _save(self, job: Job, *, held: bool = True) -> Job | None:
        """Write down what may be the job's end, with what it cost."""
        return await self._store.save(await self._settler.prepare_end(job), held=held)

    async def _save_seen(self, job: Job, *, held: bool = True) -> Job | None:
        """Write down what upstream showed of a job; None also where its turn is to be sent again instead."""
        if held and await self._resender.after_failure(job):
            return None
        return await self._save(job, held=held)

    async def _fail(self, job: Job, code: str, why: str) -> None:
        logger.info("%s: failed, %s", job.id, code)
        await self._save(job.mark_failed(code, why, self._clock.now()))

    async def _retrieve(self, job: Job, *, held: bool = True) -> Done | RunAgain:
        """GET the response and take in what it says; no failure of a look ends a job."""
        seen, not_before_s, error = await retrieve(self._client, self._clock, job)
        now = self._clock.now()
        if seen is None:
            # Another key's response: whoever has that key can see it.
            if job.overdue_s(now, self._limits.job_timeout_s) > COLLECT_S:
                await self._give_up(job, "no server with its key ran")
            else:
                await self._store.release_claim(job.id, now + LET_GO_S)
            return Done()
        if error is None:
            self._paused = None
        elif isinstance(error, AccountError):
            self._pause(error)
        saved = await self._save_seen(seen, held=held)
        if saved is None and (row := await self._store.get(job.id)) is not None and not row.is_terminal:
            return RunAgain(OVERTAKEN_S)  # where the job is held elsewhere that schedules nothing
        if saved is None or saved.is_terminal:
            self._follower.leave(job.id)
            logger.info("%s: ended, %s", job.id, saved.status if saved else "as another look saw")
            return Done()
        if saved.turn.has_open_calls:
            return RunAgain(0)
        if (overdue := await self._overdue(saved)) is not None:
            return overdue
        if self._follower.is_streaming(job.id):
            return RunAgain(*[self._far_look_s(saved)] * 2)
        if held and self._follower.has_room and saved.can_stream(now):
            events = self._client.stream(saved.turn.response_id or "", starting_after=saved.turn.sequence_number)
            return await self._follow(saved, events, attached=True)
        return RunAgain(next_retrieve_s(saved, now) * random.uniform(1.0, 1.1), not_before_s)

    def _far_look_s(self, job: Job) -> float:
        """When to look at a followed job: seldom, but not after its deadline."""
        return min(FAR_RETRIEVE_S, max(1.0, -job.overdue_s(self._clock.now(), self._limits.job_timeout_s)))

    async def _overdue(self, job: Job) -> Done | RunAgain | None:
        """What is due for a run past its limit, which was just looked at: have it cancelled, or give it up at last.

        A deadline ends spending, never collecting: what upstream cannot be asked about is asked about for a day more.
        """
        now = self._clock.now()
        overdue_s = job.overdue_s(now, self._limits.job_timeout_s)
        if overdue_s > COLLECT_S:
            await self._fail(
                job, "deadline_exceeded", "its time limit passed, and upstream could not be asked about it"
            )
            return Done()
        if overdue_s < 0 or job.cancel_requested_at is not None:
            return None
        if job.turn.timed_out_at is None:
            self._follower.leave(job.id)
            await self._store.save(job.mark_timed_out(now))
            await self._store.record_event(job.id, now, "deadline")
            return RunAgain(0)
        return RunAgain(OVERDUE_POLL_S, OVERDUE_POLL_S) if job.activity else RunAgain(CANCEL_RETRY_S)


def _kept_as(name: str, body: JSON) -> str:
    """Return under which name a refused parameter is remembered: for the endpoint, or for a model of it."""
    return f"{name}@{body.get('model')}" if name in OF_A_MODEL else name


def _unsent(error: UnclearError) -> UnsentError:
    """What goes before the POST may be done twice."""
    return UnsentError(str(error), code=error.code, retry_after_s=error.retry_after_s)


class _NotOursError(Exception):
    """Somebody cancelled the job or took it before its POST began."""
