"""Poll a running response: its GETs, its deadline and its cancel."""

import logging
from contextlib import suppress

from agent_jobs.clock import Clock
from agent_jobs.engine.finalize import Finalizer
from agent_jobs.engine.key_pause import KeyPause
from agent_jobs.engine.poll_planner import PollPlanner
from agent_jobs.engine.resend import Resender
from agent_jobs.engine.retrieve import retrieve
from agent_jobs.engine.run_limits import PENDING_MAX_S, RunLimits
from agent_jobs.engine.step_result import Done, RunAgain
from agent_jobs.engine.stream import StreamReader
from agent_jobs.engine.stream_step import StreamStep
from agent_jobs.errors import AccountError, MissingError, UpstreamError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.status import Status
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient
from agent_jobs.upstream.endpoint import redact_url

logger = logging.getLogger(__name__)

OVERTAKEN_S = 1.0  # after a GET whose answer arrived later than that of a newer GET
CANCEL_AGAIN_S = 30.0  # between cancels that upstream accepted and did not obey
CANCEL_RETRY_S = 5.0  # between failed cancels, and between polls of a run that has to stop
OVERDUE_POLL_S = 300.0  # between polls past the deadline while upstream cannot be reached
COLLECT_S = 86_400.0  # after the deadline polls continue for a day: the result is paid
OTHER_KEY_S = 60.0  # for which a job of another key is left to processes that have that key


class Poller:
    """Polls and cancels the runs of one endpoint."""

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
        planner: PollPlanner,
        pause: KeyPause,
    ) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._limits = limits
        self._finalizer = finalizer
        self._resender = resender
        self._reader = reader
        self._stream_step = stream_step
        self._planner = planner
        self._pause = pause

    async def poll(self, job: Job, *, held: bool = True) -> Done | RunAgain:
        """Retrieve the response and store what it shows; a failed GET never ends a job.

        Args:
            job: It has a response id.
            held: True if this process has claimed the job.
        """
        outcome = await retrieve(self._client, self._clock, job)
        if outcome.job is None:
            return await self._leave_to_key_owner(job)
        self._update_pause(outcome.error)
        saved = await self._resender.save_or_resend(outcome.job, held=held)
        if saved is None:
            return await self._check_overtaken(job)
        if saved.is_terminal:
            self._reader.stop_reading(job.id)
            logger.info("%s: finished, %s", job.id, saved.status)
            return Done()
        if saved.turn.has_open_calls:
            return RunAgain(0)
        return await self.check_deadline(saved) or await self._continue_running(saved, outcome.not_before_s, held=held)

    async def cancel(self, job: Job) -> Done | RunAgain:
        """Ask upstream to stop the run, then poll it. The job is not claimed for this."""
        response_id = job.turn.response_id
        if response_id is None or job.turn.has_open_calls:
            return Done()  # the step that launches it or runs its calls sees the request
        if job.turn.mode == "foreground":
            # The run ends with its connection; the process that has the connection sees the request.
            self._reader.stop_reading(job.id)
            return Done()
        if await self._store.claim_cancel(job.id, self._clock.now(), CANCEL_AGAIN_S):
            try:
                with suppress(MissingError):  # the poll below counts it
                    await self._client.cancel(response_id)
            except UpstreamError as error:
                return await self._retry_cancel(job, error)
        return await self.poll(job, held=False)

    async def check_deadline(self, job: Job) -> Done | RunAgain | None:
        """Have a run that was just polled cancelled once its time limit passed; None before that.

        A deadline ends spending, never collecting: a run that cannot be polled is polled for a day more.
        """
        now = self._clock.now()
        overdue_s = job.overdue_s(now, self._limits.job_timeout_s)
        if overdue_s > COLLECT_S:
            why = "Its time limit passed, and the provider could not be reached for a day."
            await self._finalizer.fail_job(job, "deadline_exceeded", why)
            return Done()
        if overdue_s < 0 or job.cancel_requested_at is not None:
            return None
        if job.turn.timed_out_at is None:
            self._reader.stop_reading(job.id)
            await self._store.save(job.mark_timed_out(now))
            await self._store.record_event(job.id, now, "deadline")
            return RunAgain(0)
        if job.activity:  # upstream could not be reached
            return RunAgain(OVERDUE_POLL_S, OVERDUE_POLL_S)
        return RunAgain(CANCEL_RETRY_S)

    async def end_abandoned(self) -> None:
        """End the jobs of other endpoints that no process worked on until a day past their deadline."""
        now = self._clock.now()
        job_ids = await self._store.claim_lost(
            self._client.endpoint.base_url,
            sent_before=now - self._limits.job_timeout_s - COLLECT_S,
            created_before=now - PENDING_MAX_S,
        )
        for job_id in job_ids:
            job = await self._store.get(job_id)
            if job is not None:
                await self._end_unreachable(job, "No server ran")

    async def _continue_running(self, job: Job, not_before_s: float, *, held: bool) -> RunAgain:
        """Say when a running job is polled next, or read its stream until then."""
        if self._reader.is_streaming(job.id):
            if job.cancel_requested_at is not None:
                return RunAgain(CANCEL_RETRY_S)  # upstream may have ignored it, and then nothing ends the stream
            far_s = self._stream_step.seconds_until_far_poll(job)
            return RunAgain(far_s, far_s)
        now = self._clock.now()
        if held and self._reader.has_room and job.can_stream(now):
            events = self._client.stream(job.turn.get_response_id(), starting_after=job.turn.sequence_number)
            return await self._stream_step.run(job, events, attached=True)
        return await self._planner.plan(job, not_before_s)

    async def _check_overtaken(self, job: Job) -> Done | RunAgain:
        """Poll again if another write was stored in the meantime, unless it ended the job."""
        row = await self._store.get(job.id)
        if row is not None and not row.is_terminal:
            return RunAgain(OVERTAKEN_S)  # schedules nothing if another process has claimed the job
        self._reader.stop_reading(job.id)
        logger.info("%s: finished, as another poll saw", job.id)
        return Done()

    def _update_pause(self, error: UpstreamError | None) -> None:
        """Begin or end the pause of new POSTs by what upstream answered to this key."""
        if error is None:
            self._pause.end()
        elif isinstance(error, AccountError):
            self._pause.begin(error)

    async def _leave_to_key_owner(self, job: Job) -> Done:
        """Leave a job that only another key can retrieve to processes with that key, and end it at last."""
        now = self._clock.now()
        if job.overdue_s(now, self._limits.job_timeout_s) > COLLECT_S:
            await self._end_unreachable(job, "No server with its key ran")
        else:
            await self._store.release_claim(job.id, now + OTHER_KEY_S)
        return Done()

    async def _retry_cancel(self, job: Job, error: UpstreamError) -> Done | RunAgain:
        """Store that a cancel failed, and say when the next one is due."""
        await self._store.clear_cancel_claim(job.id)
        await self._store.save(job.mark_unreachable(f"cannot cancel: {error}", self._clock.now()), held=False)
        return await self.check_deadline(job) or RunAgain(error.retry_after_s or CANCEL_RETRY_S)

    async def _end_unreachable(self, job: Job, why: str) -> None:
        """End a job that no process could work on; the message says how its result can still be read."""
        where = f"{why} with OPENAI_BASE_URL={redact_url(job.turn.base_url)}"
        response_id = job.turn.response_id
        if job.status is Status.PENDING:
            await self._finalizer.fail_job(job, "endpoint_lost", f"{where} for a week, so nothing was sent.")
        elif response_id is None:
            message = f"Its process ended before the provider returned an id. {where}."
            await self._finalizer.fail_job(job, "start_unconfirmed", message)
        else:
            message = f"{where} until a day past its time limit. The response {response_id} may still be there."
            await self._finalizer.fail_job(job, "endpoint_lost", message)
