"""Stream a running job as one step, and decide from a GET what the stream left open."""

import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from math import inf

from agent_jobs.backoff import calculate_backoff_s, with_jitter
from agent_jobs.clock import Clock
from agent_jobs.engine.poll_planner import PollPlanner
from agent_jobs.engine.read_again import reread_job
from agent_jobs.engine.resend import Resender
from agent_jobs.engine.run_limits import RunLimits
from agent_jobs.engine.step_result import RunAgain
from agent_jobs.engine.stream import FAR_POLL_S, StreamReader
from agent_jobs.errors import MissingError, StoreError, UpstreamError
from agent_jobs.jobs.job import MAX_EMPTY_COMPLETIONS, Job
from agent_jobs.jobs.response import JSON
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

REATTACH_FIRST_S = 2.0  # a stream that was cut is often cut again at once
REATTACH_MOST_S = 8.0  # later ones are left to polls, which are as quick


class StreamStep:
    """The step of a job whose stream this process reads."""

    def __init__(
        self,
        store: Store,
        client: ResponsesClient,
        clock: Clock,
        limits: RunLimits,
        reader: StreamReader,
        resender: Resender,
        planner: PollPlanner,
    ) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._limits = limits
        self._reader = reader
        self._resender = resender
        self._planner = planner

    async def run(self, job: Job, events: AsyncGenerator[JSON], *, attached: bool = False) -> RunAgain:
        """Read the job's stream to its end, and return the time of the next poll."""
        job = await self._mark_streaming(job)
        limit_s = inf
        if job.turn.mode == "foreground":
            limit_s = max(0.0, -job.overdue_s(self._clock.now(), self._limits.job_timeout_s))
        else:
            # A stream may live and miss the end. GETs of a foreground response may not be served.
            far_s = self.seconds_until_far_poll(job)
            await self._store.schedule(job.id, self._clock.now(), far_s, far_s, lost_claims=job.lost_claims)
        job = await self._reader.read_stream(job, events, limit_s, attached=attached)
        if job.is_terminal:
            logger.info("%s: finished, %s", job.id, job.status)
        if job.has_ended_turn or await self._is_sent_again(job):
            return RunAgain(0)
        if job.turn.mode == "foreground":
            return await self._end_held_run(job)
        if job.turn.stream_failures == 0:
            return await self.poll_instead(job, 0)
        wait_s = with_jitter(
            calculate_backoff_s(job.turn.stream_failures, first_s=REATTACH_FIRST_S, most_s=REATTACH_MOST_S)
        )
        return replace(await self.poll_instead(job, wait_s), not_before_s=wait_s)

    async def poll_instead(self, job: Job, after_s: float | None = None) -> RunAgain:
        """Have the job polled from now on, first after `after_s`."""
        now = self._clock.now()
        await self._store.save(replace(job, observed_by="polling"))
        if job.observed_by != "polling":
            await self._store.record_event(job.id, now, "polling")
        if after_s is None:
            return await self._planner.plan(job)
        return RunAgain(after_s)

    def seconds_until_far_poll(self, job: Job) -> float:
        """Return the seconds until a streamed job is polled: many, but not past its deadline."""
        left_s = -job.overdue_s(self._clock.now(), self._limits.job_timeout_s)
        return min(FAR_POLL_S, max(1.0, left_s))

    async def _mark_streaming(self, job: Job) -> Job:
        if job.observed_by == "following":
            return job
        with suppress(StoreError):  # a failed note must not end the stream
            await self._store.record_event(job.id, self._clock.now(), "following")
        return replace(job, observed_by="following")

    async def _is_sent_again(self, job: Job) -> bool:
        """Return True if the stream ended with an error event for which the turn is sent again."""
        error = self._reader.take_error(job.id)
        if not error:
            return False
        return await self._reader.retry_until_stored(job, lambda: self._resender.after_stream_error(job, error))

    async def _end_held_run(self, job: Job) -> RunAgain:
        """Store the end of a held run with its connection: by a cancel, by its deadline, or by upstream."""
        row = await self._reader.retry_until_stored(job, lambda: reread_job(self._store, job))
        if row.cancel_requested_at is not None:
            ended = job.with_partial().mark_cancelled(self._clock.now())
        elif job.turn.timed_out_at is not None:
            ended = job.end_at_deadline(self._clock.now())
        else:
            ended = await self._retrieve_rest(job.mark_stream_failed())
        if not ended.has_ended_turn:
            return await self.poll_instead(ended)
        await self._reader.retry_until_stored(ended, lambda: self._resender.save_or_resend(ended))
        logger.info("%s: finished with its connection, %s", job.id, ended.status)
        return RunAgain(0)

    async def _retrieve_rest(self, job: Job) -> Job:
        """Return a held run that upstream cut as a GET shows it, else with what was read of it."""
        try:
            retrieved = await self._client.retrieve(job.turn.get_response_id())
        except UpstreamError as error:
            if job.counted:
                return self._use_stream_answer(job, job)
            if isinstance(error, MissingError):
                return job.mark_not_found(self._clock.now())
            return job
        seen = job.apply_response(retrieved.response, self._clock.now())
        if seen.turn.empty_completions:
            return self._use_stream_answer(job, seen)
        return seen

    def _use_stream_answer(self, job: Job, seen: Job) -> Job:
        """Return the job as its stream answered it, if the answer was read in full; else as a GET shows it."""
        if not job.counted:
            return seen
        full = replace(job, turn=replace(job.turn, empty_completions=MAX_EMPTY_COMPLETIONS))
        return full.apply_response(job.counted, self._clock.now())
