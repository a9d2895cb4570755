"""Wait until a job or a group of jobs has something to report."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from math import inf
from operator import attrgetter

from agent_jobs.clock import Clock
from agent_jobs.engine.read_again import reread_job
from agent_jobs.engine.waits import Waits
from agent_jobs.errors import JobNotFoundError
from agent_jobs.jobs.job import WAITING, Job
from agent_jobs.jobs.queries import GATHERED_MAX, UNSETTLED, BatchState, JobFilter
from agent_jobs.jobs.status import ACTIVE, RUNNING, Status
from agent_jobs.store.base import Store
from agent_jobs.store.values import Mark

WATCHED_S = 60.0  # for which a job counts as watched after a wait: the next call is usually sooner
FINALIZE_WAIT_S = 3.0  # for the files of a finished job; a longer wait would delay its result
UNREAD_MAX_S = 7 * 86_400.0  # a job that finished longer ago is not reported unasked; agent_list shows it
ECHO_CHARS = 40  # of a wrong batch that are repeated in an error


def has_question(job: Job) -> bool:
    """Return True if the job waits for an answer."""
    return job.status is Status.INPUT_REQUIRED


class JobWaiter:
    """Waits on one store.

    Args:
        store: The jobs.
        clock: The time.
        wake: Has this process's worker read the due times now.
    """

    def __init__(self, store: Store, clock: Clock, wake: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake
        self.waits = Waits(clock)
        self._reported: dict[str, int] = {}  #: revisions in which callers of this process saw questions, by job

    def end_waits(self) -> None:
        """End all waits of this process as if their time ran out."""
        self.waits.end_all()

    def for_owner(self, store: Store) -> "JobWaiter":
        """Return the same on the store of one owner."""
        bound = copy(self)
        bound._store = store
        return bound

    def mark_questions_reported(self, jobs: Sequence[Job]) -> None:
        """Note for this process alone that callers saw what these jobs ask: every host's model should see it."""
        self._reported |= {job.id: job.revision for job in jobs if has_question(job)}

    def has_new_question(self, job: Job) -> bool:
        """Return True if the job asks for something that no caller of this process has seen."""
        return has_question(job) and not self._is_reported(job)

    def _is_reported(self, job: Job) -> bool:
        """Return True if a caller of this process saw what the job asks for now."""
        return self._reported.get(job.id) == job.revision

    async def find_jobs(self, group: JobFilter) -> list[Job]:
        """Return the newest matching jobs; past the limit, also every active or undelivered one."""
        jobs = await self._store.find(group, GATHERED_MAX)
        if len(jobs) == GATHERED_MAX:
            jobs += await self._store.find(replace(group, statuses=ACTIVE), GATHERED_MAX)
            jobs += await self._store.find(replace(group, active=True), GATHERED_MAX)
        return list({job.id: job for job in jobs}.values())

    async def find_recent_jobs(self, group: JobFilter) -> list[Job]:
        """Return the same jobs, but of an active group none that finished long ago."""
        if group.active:
            group = replace(group, since=self._clock.now() - UNREAD_MAX_S)
        return await self.find_jobs(group)

    async def wait_for_any(self, group: JobFilter, wait_s: float) -> BatchState:
        """Return the state of a group once one of its jobs has an unread result or question, or after `wait_s`.

        Raises:
            JobNotFoundError: The batch does not exist.
        """
        state = await self._read_batch(group)
        if group.batch and not (state.done or state.is_running or state.delivered):
            raise JobNotFoundError("There is no batch {batch!r}.", "no_such_batch", batch=group.batch[:ECHO_CHARS])
        if wait_s > 0:
            await self._mark_watched([*state.running, *state.asking], wait_s)
        with self.waits.limit(wait_s):
            while _must_wait(state):
                mark = await self._store.change_mark()
                state = await self._read_batch(group)
                if _must_wait(state):
                    await self._wait_for_change(state, mark)
        return state

    async def watch(self, job: Job, wait_s: float, asks: Callable[[Job], bool] = has_question) -> Job:
        """Return the job once it finished or asks, or after `wait_s`; during the wait it is polled often.

        Args:
            job: As last read.
            wait_s: The longest wait.
            asks: Returns True for a question that ends the wait.
        """
        await self._mark_watched([job], max(0.0, wait_s))
        return await self.add_queue_position(await self._wait_for_end_or_question(job, wait_s, asks))

    async def wait_until(self, job: Job, has_arrived: Callable[[Job], bool], wait_s: float) -> Job:
        """Return the job once it finished or arrived, or as it is after `wait_s`."""
        with self.waits.limit(wait_s):
            while not (job.is_terminal or has_arrived(job)):
                job = await self._wait_for_revision(job)
        return job

    async def _wait_for_revision(self, job: Job) -> Job:
        """Return the job once it changed, after the next change that a reader can see."""
        await self._store.wait_for_change(job.id, job.revision)
        return await reread_job(self._store, job)

    async def _wait_for_end_or_question(self, job: Job, wait_s: float, asks: Callable[[Job], bool]) -> Job:
        """Return the job once it finished or asks, or as it is after `wait_s`; progress of its run wakes no waiter."""
        if wait_s <= 0:
            return job
        with self.waits.limit(wait_s):
            while not (job.is_terminal or asks(job)):
                if job.status in RUNNING:
                    await self._store.wait_for_status(job.id, job.status)
                else:
                    await self._store.wait_for_change(job.id, job.revision)
                job = await reread_job(self._store, job)
            return job
        return await reread_job(self._store, job)

    async def wait_until_finalized(self, job: Job) -> Job:
        """Return a finished job once its files are written, or after a moment."""
        if not job.needs_finalizing:
            return job
        if any(event.kind == UNSETTLED for event in await self._store.get_events(job.id)):
            return job  # it failed before and may fail for hours
        with self._clock.limit(FINALIZE_WAIT_S):
            while job.needs_finalizing:
                job = await self._wait_for_revision(job)
        return job

    async def add_queue_position(self, job: Job) -> Job:
        """Return the job; if it waits for a slot, with the number of jobs before it in its activity."""
        if job.status is not Status.PENDING or job.activity != WAITING:
            return job
        return replace(job, activity=f"{WAITING}, {await self._store.count_ahead(job)} ahead")

    async def _mark_watched(self, jobs: Sequence[Job], wait_s: float) -> None:
        """Have jobs polled often during a wait and a while after it."""
        now = self._clock.now()
        for job in jobs:
            await self._store.mark_watched(job.id, now, now + wait_s + WATCHED_S)
        self._wake()

    async def _read_batch(self, group: JobFilter) -> BatchState:
        jobs = await self.find_recent_jobs(group)
        self._forget_answered(jobs)
        now = self._clock.now()
        over = [job for job in jobs if _is_ready(job, now)]
        active = [job for job in jobs if not _is_ready(job, now)]
        unread = sorted((job for job in over if job.delivered_at is None), key=attrgetter("end_time"))
        return BatchState(
            done=[*unread, *filter(self.has_new_question, active)],
            running=[job for job in active if not has_question(job)],
            asking=list(filter(self._is_reported, active)),
            delivered=len(over) - len(unread),
        )

    async def _wait_for_change(self, state: BatchState, mark: Mark) -> None:
        """Return once any job changed; sooner if files of finished jobs are waited for."""
        limit_s = inf
        if any(job.is_terminal for job in state.running):
            limit_s = FINALIZE_WAIT_S
        with self._clock.limit(limit_s):
            await self._store.wait_for_any_change(mark)

    def _forget_answered(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if not has_question(job):
                self._reported.pop(job.id, None)


def _must_wait(state: BatchState) -> bool:
    return state.is_running and not state.done


def _is_ready(job: Job, now: float) -> bool:
    """Return True if the job finished and its files are written, or were waited for long enough."""
    if not job.is_terminal:
        return False
    return not job.needs_finalizing or now - job.end_time >= FINALIZE_WAIT_S
