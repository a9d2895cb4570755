"""Whether a run goes on without its connection, where upstream accepts `background` and says nothing of it.

Until a GET shows the response, the run counts as held open by this process. What an endpoint is remembered for is not
decided by one GET: some answer 404 for half a minute after a create.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio

from agent_jobs.clock import Clock
from agent_jobs.engine.retrieve import is_not_served
from agent_jobs.engine.step_result import RunAgain
from agent_jobs.engine.stream import StreamReader
from agent_jobs.errors import StoreError, UpstreamError
from agent_jobs.jobs.job import Job
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

#: How long the first GET may take; the stream is not read before its answer.
DECIDE_S = 10.0
#: Seconds between the GETs that follow beside the stream: reads after a create were seen to miss for 33 s.
AGAIN_S = (2.0, 6.0, 27.0)
#: Answers that say that no response at all can be retrieved.
NO_RETRIEVE = (405, 501)
#: A run that turns out to go on by itself is looked at beside its stream, seldom.
FAR_LOOK_S = 290.0


def _is_never_served(error: UpstreamError) -> bool:
    return error.status in NO_RETRIEVE or error.code == "not_a_responses_api"


@dataclass(slots=True)
class _Doubt:
    """A held run that may go on by itself after all."""

    job: Job  #: as it was sent
    why: str
    is_missing: bool  #: the last answer was that there is no such response
    is_over: bool = False


class BackgroundCheck:
    """Decides it for the runs of one endpoint."""

    def __init__(self, store: Store, client: ResponsesClient, clock: Clock, follower: StreamReader) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._follower = follower
        self._deciding: set[str] = set()
        self._doubts: dict[str, _Doubt] = {}

    def is_deciding(self, job_id: str) -> bool:
        """Return True while it is not known yet whether the job's run goes on without this process."""
        return job_id in self._deciding

    def begin(self, job_id: str) -> None:
        """Note that it is to be decided, before the response's id is written down."""
        self._deciding.add(job_id)

    async def decide(self, job: Job) -> Job:
        """Return the job as held open unless a GET shows its response."""
        if job.id not in self._deciding:
            return job
        error: UpstreamError | None = None
        try:
            with anyio.move_on_after(DECIDE_S) as limit:
                await self._client.retrieve(job.turn.response_id or "")
            if not limit.cancelled_caught:
                return job
        except UpstreamError as failed:
            error = failed
        finally:
            self._deciding.discard(job.id)
        answer = error or "no answer"
        why = f"it accepts background and does not mention it, and the response cannot be retrieved ({answer})"
        logger.warning("%s: %s; its run may end with this process", job.id, why)
        held = replace(job, turn=replace(job.turn, mode="foreground"))
        with suppress(StoreError):  # a note must not cost the stream
            await self._store.save(held)
            await self._store.record_event(job.id, self._clock.now(), "foreground", why)
        if error is not None and _is_never_served(error):
            await self._learn(job, why)
        else:
            self._doubts[job.id] = _Doubt(job, why, error is not None and is_not_served(error))
        return held

    async def stream_and_ask(self, job_id: str, follow: Callable[[], Awaitable[RunAgain]]) -> RunAgain:
        """Follow a job; where its run is in doubt, ask again beside that and once after it."""
        doubt = self._doubts.pop(job_id, None)
        if doubt is None:
            return await follow()
        outcome: RunAgain | None = None
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ask_again, doubt)
            try:
                outcome = await follow()
            except Exception as error:  # not to come out in a group
                failure = error
            tasks.cancel_scope.cancel()
        if outcome is None:
            assert failure is not None
            raise failure
        if not doubt.is_over and not await self._is_shown(doubt) and doubt.is_missing:
            await self._learn(doubt.job, doubt.why)
        return outcome

    async def _ask_again(self, doubt: _Doubt) -> None:
        for wait_s in AGAIN_S:
            await self._clock.sleep(wait_s)
            if await self._is_shown(doubt):
                doubt.is_over = True
                return await self._mark_background(doubt.job)
        if doubt.is_missing:
            doubt.is_over = True
            await self._learn(doubt.job, doubt.why)

    async def _is_shown(self, doubt: _Doubt) -> bool:
        try:
            await self._client.retrieve(doubt.job.turn.response_id or "")
        except UpstreamError as error:
            doubt.is_missing = is_not_served(error)
            return False
        return True

    async def _mark_background(self, job: Job) -> None:
        """Take the run for one that goes on without its connection, as it was sent."""
        with suppress(StoreError):
            if await self._follower.mark_background(job.id, job.turn.mode):
                await self._store.record_event(
                    job.id, self._clock.now(), "background", "a later GET shows the response"
                )
                await self._store.schedule(job.id, self._clock.now(), FAR_LOOK_S, FAR_LOOK_S)

    async def _learn(self, job: Job, why: str) -> None:
        model = str(job.turn.request.get("model"))
        with suppress(StoreError):
            await self._store.learn_mode(job.turn.base_url, model, "foreground", self._clock.now(), why)
