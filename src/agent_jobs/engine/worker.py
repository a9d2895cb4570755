"""Who advances a job, and when: one loop over the store's due times, in one task group."""

import logging
from contextlib import suppress
from itertools import chain

import anyio
from anyio.abc import TaskGroup

from agent_jobs.clock import Clock
from agent_jobs.engine.step import JobStepper
from agent_jobs.engine.step_result import Done, RunAgain, WaitForSlot
from agent_jobs.errors import StoreError, UpstreamError
from agent_jobs.jobs.job import WAITING, Job
from agent_jobs.jobs.queries import Pruned
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient
from agent_jobs.upstream.endpoint import Endpoint

logger = logging.getLogger(__name__)

#: How often to look for what other processes left or pulled nearer; a dead one is noticed within two of these.
TICK_S = 0.8
STORE_RETRY_S = 1.0
#: A step that crashed is a defect of ours; the job itself goes on upstream.
CRASH_RETRY_S = 30.0
PURGE_EVERY_S = 3600.0


class Worker:
    """Runs `JobStepper.run_step` for the jobs of one endpoint until its task group is cancelled.

    Args:
        retention_s: Seconds after which an ended job that was read is deleted; None keeps all jobs.
        delete_upstream: Where deleted jobs are deleted, too; None leaves the provider's copies.
    """

    def __init__(
        self,
        store: Store,
        advancer: JobStepper,
        clock: Clock,
        tasks: TaskGroup,
        *,
        endpoint: Endpoint,
        concurrent: int,
        retention_s: float | None,
        delete_upstream: ResponsesClient | None = None,
    ) -> None:
        self._store = store
        self._advancer = advancer
        self._clock = clock
        self._identity = (endpoint.base_url, endpoint.fingerprint)
        self._retention_s = retention_s
        self._delete_upstream = delete_upstream
        self._concurrent = concurrent
        self._tasks = tasks
        self._woken = anyio.Event()

    async def run(self, what: str) -> None:
        """Advance whatever is due, take over what the dead left, for ever; others are told what this process is."""
        with suppress(StoreError):
            await self._store.announce(what, self._identity[0])
        while True:
            woken = self._woken = anyio.Event()
            wait_s = TICK_S
            try:
                await self._store.reclaim_from_dead(self._clock.now())
                wait_s = min(wait_s, await self._sweep())
            except StoreError as error:
                logger.warning("cannot read the jobs: %s", error)
            except Exception:
                logger.exception("the loop failed; it goes on")
            with anyio.move_on_after(wait_s):
                await woken.wait()

    async def purge(self) -> None:
        """Delete what is older than its retention, now and every hour; give up what no process works on any more."""
        while True:
            try:
                if self._retention_s is not None:
                    await prune(self._store, self._clock.now() - self._retention_s, self._delete_upstream)
                # Not at once: the server of another endpoint may start a moment after this one.
                await self._clock.sleep(PURGE_EVERY_S)
                await self._advancer.give_up_lost()
            except Exception:
                logger.exception("cannot purge; an hour later it is tried again")
                await self._clock.sleep(PURGE_EVERY_S)

    @property
    def paused(self) -> str | None:
        """Why nothing new should be sent just now; None when it may be tried."""
        return self._advancer.paused

    def is_deciding(self, job_id: str) -> bool:
        """Return True while it is not known yet whether the job's run goes on without this process."""
        return self._advancer.is_deciding(job_id)

    def wake(self) -> None:
        """Somebody pulled a job nearer: look at the due times now."""
        self._woken.set()

    def launch(self, job_id: str) -> None:
        """Advance a job that this process has just written down."""
        self._tasks.start_soon(self._advance, job_id)

    def cancel(self, job: Job) -> None:
        """Send a cancel from here, whoever holds the job; a caller that goes away does not stop it."""
        self._tasks.start_soon(self._cancel, job.id)

    async def _sweep(self) -> float:
        """Start a step for each job that is due; returns how long nothing more will be, in real seconds."""
        for job_id in await self._store.claim_free_slots(self._identity[0], self._concurrent):
            self._tasks.start_soon(self._advance, job_id)
        next_at = await self._store.next_due_at(*self._identity)
        if next_at is not None and next_at <= self._clock.now():
            for job_id in await self._store.find_due(self._clock.now(), *self._identity):
                self._tasks.start_soon(self._advance, job_id)
            next_at = await self._store.next_due_at(*self._identity)
        return TICK_S if next_at is None else max(0.0, next_at - self._clock.now()) / self._clock.speed

    async def _advance(self, job_id: str) -> None:
        try:
            outcome = await self._advancer.run_step(job_id)
        except StoreError as error:
            logger.warning("%s: %s", job_id, error)
            outcome = RunAgain(STORE_RETRY_S)
        except Exception:
            logger.exception("%s: a step failed", job_id)
            outcome = RunAgain(CRASH_RETRY_S)
        await self._come_back(job_id, outcome)

    async def _come_back(self, job_id: str, outcome: Done | RunAgain | WaitForSlot) -> None:
        """Write down when the job is next due; a database that does not take it is asked until it does."""
        while not isinstance(outcome, Done):
            try:
                if isinstance(outcome, WaitForSlot):
                    return await self._store.wait_for_slot(job_id, WAITING)
                await self._store.schedule(job_id, self._clock.now(), outcome.s, outcome.not_before_s)
                return self.wake()
            except StoreError as error:
                logger.warning("%s: %s", job_id, error)
                await self._clock.sleep(STORE_RETRY_S)
        self.wake()  # a slot may be free

    async def _cancel(self, job_id: str) -> None:
        try:
            # The holder of a followed job looks seldom, so who was asked to cancel stays until it is over.
            while (job := await self._store.get(job_id)) is not None and not job.is_terminal:
                if not isinstance(outcome := await self._advancer.cancel(job), RunAgain):
                    return
                await self._clock.sleep(outcome.s)
        except Exception:  # the holder sees the request at its next look
            logger.exception("%s: its cancel was not sent from here", job_id)


async def prune(
    store: Store, before: float, delete_upstream: ResponsesClient | None, *, unread: bool = False
) -> Pruned:
    """Delete the jobs that ended before this time, and keep those whose results were delivered to no reader.

    Args:
        store: Where the jobs are kept.
        before: In epoch seconds.
        delete_upstream: Where their responses are deleted, too; None leaves them. Responses of other endpoints stay.
        unread: Delete undelivered results as well.
    """
    jobs = responses = deleted_upstream = 0
    while purged := await store.purge(before, unread=unread):
        jobs += len(purged)
        for place in chain.from_iterable(purged.values()):
            responses += 1
            if delete_upstream is None or place.base_url != delete_upstream.endpoint.base_url:
                continue
            with suppress(UpstreamError):  # one that cannot be deleted must not keep the others
                await delete_upstream.delete(place.response_id)
                deleted_upstream += 1
    return Pruned(jobs, await store.count_unread(before), responses, deleted_upstream)
