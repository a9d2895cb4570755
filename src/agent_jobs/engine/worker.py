"""Run the jobs that are due: one loop over the store's due times, in one task group."""

import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain

import anyio
from anyio.abc import TaskGroup

from agent_jobs.clock import Clock
from agent_jobs.engine.live_text import LiveText
from agent_jobs.engine.owner_clients import OwnerClients, OwnerSteppers
from agent_jobs.engine.run_limits import RunLimits
from agent_jobs.engine.step_result import Done, RunAgain, WaitForSlot
from agent_jobs.engine.stored_jobs import delete_responses
from agent_jobs.errors import StoreError
from agent_jobs.jobs.job import WAITING, Job
from agent_jobs.jobs.queries import Pruned
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

TICK_S = 0.8  # between checks of other processes' jobs: a dead process is noticed within two of these
RECLAIM_SHARE = 0.9  # of a tick: one that ends a moment early must not skip the look
STORE_RETRY_S = 1.0  # a locked database is free again within seconds
CRASH_RETRY_S = 30.0  # a step crashed because of a defect here; the run itself continues upstream
PURGE_EVERY_S = 3600.0  # retention counts in days
SHELVED_S = 86_400.0  # an upload of an owner is attached within a day, or never
EVENTS_KEPT_S = 7 * 86_400.0  # in the feeds of owners; a host that was away for longer reads its jobs again


class Worker:
    """Runs the steps of the jobs of one endpoint until its task group is cancelled.

    Args:
        retention_s: Seconds after which a finished job that was read is deleted; None keeps all jobs.
        client: Of the endpoint; its key may be renewed.
        delete_upstream: Clients with which deleted jobs are deleted upstream, too; None leaves the provider's copies.
    """

    def __init__(
        self,
        store: Store,
        stepper: OwnerSteppers,
        clock: Clock,
        tasks: TaskGroup,
        *,
        client: ResponsesClient,
        limits: RunLimits,
        retention_s: float | None,
        delete_upstream: OwnerClients | None = None,
    ) -> None:
        self._store = store
        self._stepper = stepper
        self._clock = clock
        self._client = client
        self._retention_s = retention_s
        self._delete_upstream = delete_upstream
        self._limits = limits
        self._tasks = tasks
        self._woken = anyio.Event()
        self._reclaim_at = 0.0  # by the clock of the event loop
        self._running = Counter[str]()  # steps of this process, by job
        self._may_have_lost_claims = False  # a connection may have taken the answer to a claim with it

    @property
    def _identity(self) -> tuple[str, str]:
        """Return the endpoint and the key of this process, by which it finds the jobs that it can poll."""
        endpoint = self._client.endpoint
        return endpoint.base_url, endpoint.fingerprint

    async def run(self, what: str) -> None:
        """Run due jobs and take over the jobs of dead processes, until cancelled.

        Args:
            what: This process, as other processes report it.
        """
        with suppress(StoreError):
            await self._store.announce(what, self._identity[0])
        while True:
            woken = self._woken = anyio.Event()
            wait_s = TICK_S
            try:
                await self._reclaim_now_and_then()
                await self._renew_lost_claims()
                wait_s = min(wait_s, await self._start_due_steps())
            except StoreError as error:
                self._may_have_lost_claims = True
                logger.warning("cannot read the jobs: %s", error)
            except Exception:
                logger.exception("the worker's loop failed; it continues")
            with anyio.move_on_after(wait_s):
                await woken.wait()

    async def purge(self) -> None:
        """Delete jobs past their retention and end abandoned ones, now and every hour."""
        while True:
            try:
                if self._retention_s is not None:
                    await prune(self._store, self._clock.now() - self._retention_s, self._delete_upstream)
                await self._store.forget_shelved_files(self._clock.now() - SHELVED_S)
                await self._store.forget_events(self._clock.now() - EVENTS_KEPT_S)
                # Not at once: the server of another endpoint may start a moment after this one.
                await self._clock.sleep(PURGE_EVERY_S)
                await self._stepper.end_abandoned()
            except Exception:
                logger.exception("cannot purge; the next attempt is in an hour")
                await self._clock.sleep(PURGE_EVERY_S)

    @property
    def pause_reason(self) -> str | None:
        """Return why nothing new should be sent now; None if it may be tried."""
        return self._stepper.pause_reason

    def end_pause(self) -> None:
        """Allow new POSTs: the user has replaced the key."""
        self._stepper.end_pause()

    def is_deciding(self, job_id: str) -> bool:
        """Return True while it is unknown whether the job's run continues without this process."""
        return self._stepper.is_deciding(job_id)

    def follow_text(self, job_id: str) -> LiveText:
        """Return the text of a job, which grows while this process reads its stream."""
        return self._stepper.follow_text(job_id)

    def wake(self) -> None:
        """Read the due times now: a job may have become due."""
        self._woken.set()

    def launch(self, jobs: Iterable[Job]) -> None:
        """Run the first step of jobs that this process has just stored."""
        self._start_steps(job.id for job in jobs)

    def _start_steps(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            self._tasks.start_soon(self._run_step, job_id)

    def cancel(self, job: Job) -> None:
        """Send a cancel from this process, even if another one has claimed the job.

        A caller that goes away does not stop it.
        """
        self._tasks.start_soon(self._cancel_until_over, job.id)

    async def _start_due_steps(self) -> float:
        """Start a step for each job that is due; return the real seconds until the next one is."""
        limits = self._limits
        self._start_steps(
            await self._store.claim_free_slots(self._identity[0], limits.concurrent, limits.owner_concurrent)
        )
        next_at = await self._store.next_due_at(*self._identity)
        if next_at is not None and next_at <= self._clock.now():
            self._start_steps(await self._store.find_due(self._clock.now(), *self._identity))
            next_at = await self._store.next_due_at(*self._identity)
        if next_at is None:
            return TICK_S
        return max(0.0, next_at - self._clock.now()) / self._clock.speed

    async def _reclaim_now_and_then(self) -> None:
        """Take over the jobs of dead processes, once in each tick: each step that ends wakes the loop."""
        now = anyio.current_time()
        if now >= self._reclaim_at:
            await self._store.reclaim_from_dead(self._clock.now())
            self._reclaim_at = now + TICK_S * RECLAIM_SHARE

    async def _renew_lost_claims(self) -> None:
        """Run the jobs that this process has claimed without knowing it."""
        if self._may_have_lost_claims:
            await self._store.renew_claims([*self._running], self._clock.now())
            self._may_have_lost_claims = False

    async def _run_step(self, job_id: str) -> None:
        self._running[job_id] += 1
        try:
            await self._run_and_schedule(job_id)
        finally:
            self._running[job_id] -= 1
            if not self._running[job_id]:
                del self._running[job_id]

    async def _run_and_schedule(self, job_id: str) -> None:
        try:
            outcome = await self._stepper.run_step(job_id)
        except StoreError as error:
            logger.warning("%s: %s", job_id, error)
            outcome = RunAgain(STORE_RETRY_S)
        except Exception:
            logger.exception("%s: a step failed", job_id)
            outcome = RunAgain(CRASH_RETRY_S)
        await self._schedule_next(job_id, outcome)

    async def _schedule_next(self, job_id: str, outcome: Done | RunAgain | WaitForSlot) -> None:
        """Store when the job is next due; repeat that until the database accepts it."""
        while not isinstance(outcome, Done):
            try:
                if isinstance(outcome, WaitForSlot):
                    return await self._store.wait_for_slot(job_id, WAITING)
                await self._store.schedule(
                    job_id,
                    self._clock.now(),
                    outcome.after_s,
                    outcome.not_before_s,
                    lost_claims=outcome.lost_claims,
                    releases=not self._stepper.is_streaming(job_id),
                )
                return self.wake()
            except StoreError as error:
                logger.warning("%s: %s", job_id, error)
                await self._clock.sleep(STORE_RETRY_S)
        self.wake()  # a slot may be free

    async def _cancel_until_over(self, job_id: str) -> None:
        try:
            # The process that streams the job polls it seldom, so this one stays until the job is over.
            while (job := await self._store.get(job_id)) is not None and not job.is_terminal:
                if not isinstance(outcome := await self._stepper.cancel(job), RunAgain):
                    return
                await self._clock.sleep(outcome.after_s)
        except Exception:  # the process that has claimed the job sees the request at its next poll
            logger.exception("%s: its cancel was not sent from here", job_id)


async def prune(store: Store, before: float, delete_upstream: OwnerClients | None, *, unread: bool = False) -> Pruned:
    """Delete the jobs that finished before this time, and keep those whose results no reader received.

    Args:
        store: The jobs.
        before: In epoch seconds.
        delete_upstream: Clients with which their responses are deleted; None leaves them. Responses of other endpoints
            stay.
        unread: Delete undelivered results as well.
    """
    jobs = responses = deleted_upstream = 0
    while purged := await store.purge(before, unread=unread):
        jobs += len(purged)
        places = list(chain.from_iterable(purged.values()))
        responses += len(places)
        deleted_upstream += await delete_responses(places, delete_upstream)
    return Pruned(jobs, await store.count_unread(before), responses, deleted_upstream)
