"""Run one step of a job: read its row and do the one thing that it asks for.

The process may die anywhere in a step. The row then has all that another process needs.
"""

from collections.abc import Mapping
from dataclasses import replace

from agent_jobs.clock import Clock
from agent_jobs.engine.finalize import Finalizer
from agent_jobs.engine.key_pause import KeyPause
from agent_jobs.engine.launch import Launcher
from agent_jobs.engine.live_text import LiveText
from agent_jobs.engine.poll import Poller
from agent_jobs.engine.poll_planner import PollPlanner
from agent_jobs.engine.resend import Resender
from agent_jobs.engine.run_limits import RunLimits
from agent_jobs.engine.step_result import Done, RunAgain, WaitForSlot
from agent_jobs.engine.stream import StreamReader
from agent_jobs.engine.stream_step import StreamStep
from agent_jobs.engine.tool_loop import ToolLoop
from agent_jobs.jobs.job import Job
from agent_jobs.request.hosted_tools import Secret
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient

FINALIZE_AGAIN_S = 30.0  # a failed upload's deletion or a full disk is not fixed sooner


class JobStepper:
    """The steps of jobs at one endpoint."""

    def __init__(
        self,
        store: Store,
        client: ResponsesClient,
        clock: Clock,
        limits: RunLimits,
        finalizer: Finalizer,
        tool_loop: ToolLoop,
        secrets: Mapping[str, Secret],
    ) -> None:
        self._finalizer = finalizer
        self._tool_loop = tool_loop
        self._pause = KeyPause(clock)
        resender = Resender(store, client, clock, finalizer)
        self._reader = StreamReader(store, clock, limits.streams, resender.save_or_resend)
        planner = PollPlanner(store, clock, limits)
        stream_step = StreamStep(store, client, clock, limits, self._reader, resender, planner)
        self._launcher = Launcher(
            store,
            client,
            clock,
            limits,
            finalizer=finalizer,
            resender=resender,
            reader=self._reader,
            stream_step=stream_step,
            pause=self._pause,
            secrets=secrets,
        )
        self._poller = Poller(
            store,
            client,
            clock,
            limits,
            finalizer=finalizer,
            resender=resender,
            reader=self._reader,
            stream_step=stream_step,
            planner=planner,
            pause=self._pause,
        )

    @property
    def pause_reason(self) -> str | None:
        """Return why nothing new should be sent with this key now; None if it may be tried."""
        return self._pause.reason

    def end_pause(self) -> None:
        """Allow new POSTs: there is another key."""
        self._pause.end()

    def is_deciding(self, job_id: str) -> bool:
        """Return True while it is unknown whether the job's run continues without this process."""
        return self._launcher.is_deciding(job_id)

    def is_streaming(self, job_id: str) -> bool:
        """Return True if this process reads the job's stream."""
        return self._reader.is_streaming(job_id)

    def follow_text(self, job_id: str) -> LiveText:
        """Return the text of a job, which grows while this process reads its stream."""
        return self._reader.follow_text(job_id)

    def begin_shutdown(self) -> None:
        """Wait a last moment for response ids that have not arrived yet."""
        self._launcher.begin_shutdown()

    async def write_progress(self) -> None:
        """Write the progress of all streams until cancelled."""
        await self._reader.write_progress()

    async def end_abandoned(self) -> None:
        """End the jobs of other endpoints that no process worked on until a day past their deadline."""
        await self._poller.end_abandoned()

    async def cancel(self, job: Job) -> Done | RunAgain:
        """Ask upstream to stop the run, then poll it. The job is not claimed for this."""
        return await self._poller.cancel(job)

    async def run_job_step(self, job: Job) -> Done | RunAgain | WaitForSlot:
        """Run the one step that a job asks for, whose row was just read."""
        outcome = await self._take_step(job)
        if isinstance(outcome, RunAgain):
            return replace(outcome, lost_claims=job.lost_claims)
        return outcome

    async def _take_step(self, job: Job) -> Done | RunAgain | WaitForSlot:
        if job.is_terminal:
            return await self._finalize_job(job)
        if job.turn.has_open_calls:
            return await self._tool_loop.run_tools(job)
        if job.turn.response_id is None:
            return await self._begin_turn(job)
        if _must_be_cancelled(job):
            return await self._poller.cancel(job)
        return await self._poller.poll(job)

    async def _begin_turn(self, job: Job) -> Done | RunAgain | WaitForSlot:
        if job.has_unsent_turn:
            return await self._launcher.launch(job)
        return await self._launcher.end_orphaned(job)

    async def _finalize_job(self, job: Job) -> Done | RunAgain:
        if not job.needs_finalizing or await self._finalizer.finalize(job):
            return Done()
        return RunAgain(FINALIZE_AGAIN_S)


def _must_be_cancelled(job: Job) -> bool:
    """Return True if a cancel has to be sent to upstream."""
    return job.is_stopping and job.turn.mode != "foreground"
