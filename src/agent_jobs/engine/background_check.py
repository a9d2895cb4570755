"""Check whether a run continues without its connection if upstream accepts `background` without confirming it.

Until a GET shows the response, the run counts as held open by this process. One GET does not decide what is remembered
of an endpoint: some answer 404 for half a minute after a create.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio

from agent_jobs.clock import Clock
from agent_jobs.engine.retrieve import is_not_served
from agent_jobs.engine.step_result import RunAgain
from agent_jobs.engine.stream import FAR_POLL_S, StreamReader
from agent_jobs.errors import StoreError, UnclearError, UpstreamError, ungroup
from agent_jobs.jobs.job import Job
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

DECIDE_S = 10.0  # limit on the first GET, because the stream is not read before its answer
RETRY_AFTER_S = (2.0, 6.0, 27.0)  # between the GETs beside the stream: a new response was not found for up to 33 s
NO_RETRIEVE = (405, 501)  # statuses of servers on which no response at all can be retrieved


@dataclass(slots=True)
class _Doubt:
    """A held run that may continue without its connection after all."""

    job: Job  #: as it was sent
    why: str
    is_missing: bool  #: the last GET was answered with "no such response"
    is_over: bool = False


class BackgroundCheck:
    """Checks the runs of one endpoint."""

    def __init__(self, store: Store, client: ResponsesClient, clock: Clock, reader: StreamReader) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._reader = reader
        self._deciding: set[str] = set()
        self._doubts: dict[str, _Doubt] = {}

    def is_deciding(self, job_id: str) -> bool:
        """Return True while it is unknown whether the job's run continues without this process."""
        return job_id in self._deciding

    def begin(self, job_id: str) -> None:
        """Register a run for the check, before the response's id is stored."""
        self._deciding.add(job_id)

    async def decide(self, job: Job) -> Job:
        """Return the job as held open unless a GET shows its response. Jobs that `begin` did not get stay as sent."""
        if job.id not in self._deciding:
            return job
        error: UpstreamError = UnclearError("no answer")
        try:
            with anyio.move_on_after(DECIDE_S) as limit:
                await self._client.retrieve(job.turn.get_response_id())
            if not limit.cancelled_caught:
                return job
        except UpstreamError as failed:
            error = failed
        finally:
            self._deciding.discard(job.id)
        return await self._hold_open(job, error)

    async def stream_and_ask(self, job_id: str, stream: Callable[[], Awaitable[RunAgain]]) -> RunAgain:
        """Stream a job; if its run is in doubt, retrieve it again beside the stream and once after it."""
        doubt = self._doubts.pop(job_id, None)
        if doubt is None:
            return await stream()
        outcome = RunAgain(0)
        with ungroup():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._retrieve_again, doubt)
                outcome = await stream()
                tasks.cancel_scope.cancel()
        if not doubt.is_over and not await self._can_retrieve(doubt) and doubt.is_missing:
            await self._learn_foreground(doubt.job, doubt.why)
        return outcome

    async def _hold_open(self, job: Job, error: UpstreamError) -> Job:
        """Return the job as held open, after a GET that did not show its response."""
        why = f"it accepts background and does not mention it, and the response cannot be retrieved ({error})"
        logger.warning("%s: %s; its run may end with this process", job.id, why)
        held = replace(job, turn=replace(job.turn, mode="foreground"))
        with suppress(StoreError):  # a failed note must not end the stream
            await self._store.save(held)
            await self._store.record_event(job.id, self._clock.now(), "foreground", why)
        if _is_never_served(error):
            await self._learn_foreground(job, why)
        else:
            self._doubts[job.id] = _Doubt(job, why, is_not_served(error))
        return held

    async def _retrieve_again(self, doubt: _Doubt) -> None:
        for wait_s in RETRY_AFTER_S:
            await self._clock.sleep(wait_s)
            if await self._can_retrieve(doubt):
                doubt.is_over = True
                return await self._mark_background(doubt.job)
        if doubt.is_missing:
            doubt.is_over = True
            await self._learn_foreground(doubt.job, doubt.why)

    async def _can_retrieve(self, doubt: _Doubt) -> bool:
        try:
            await self._client.retrieve(doubt.job.turn.get_response_id())
        except UpstreamError as error:
            doubt.is_missing = is_not_served(error)
            return False
        return True

    async def _mark_background(self, job: Job) -> None:
        """Mark the run as one that continues without its connection, as it was sent."""
        with suppress(StoreError):
            if not await self._reader.mark_background(job.id, job.turn.mode):
                return
            now = self._clock.now()
            await self._store.record_event(job.id, now, "background", "a later GET shows the response")
            await self._store.schedule(job.id, self._clock.now(), FAR_POLL_S, FAR_POLL_S, lost_claims=job.lost_claims)

    async def _learn_foreground(self, job: Job, why: str) -> None:
        model = str(job.turn.request.get("model"))
        with suppress(StoreError):
            await self._store.learn_mode(job.turn.base_url, model, "foreground", self._clock.now(), why)


def _is_never_served(error: UpstreamError) -> bool:
    return error.status in NO_RETRIEVE or error.code == "not_a_responses_api"
