"""The verbs that the faces call. Each one is bounded in time and safe to cancel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from anyio import CancelScope
from anyio.abc import TaskGroup

from agent_jobs.clock import Clock
from agent_jobs.engine.failure_log import log_store_errors
from agent_jobs.engine.inspection import NoUpstream as NoUpstream
from agent_jobs.engine.inspection import Upstream as Upstream
from agent_jobs.engine.job_control import JobControl
from agent_jobs.engine.job_waiter import JobWaiter, has_question
from agent_jobs.engine.live_text import LiveText as LiveText
from agent_jobs.engine.metrics import ProcessCounters
from agent_jobs.engine.read_again import with_stored_output
from agent_jobs.engine.stored_jobs import ActionReporter, StoredJobs, ignore_action
from agent_jobs.errors import BudgetError, ConfigError, RequestError, StoreError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import (
    GATHERED_MAX,
    BatchState,
    Estimate,
    JobFilter,
    JobOrder,
    JobPage,
    Pruned,
    Result,
    SortKey,
)
from agent_jobs.jobs.status import Status
from agent_jobs.store.base import Store
from agent_jobs.store.duplicate_starts import DUPLICATE_S
from agent_jobs.store.team_records import AuditEntry as AuditEntry
from agent_jobs.store.team_records import TokenRecord as TokenRecord
from agent_jobs.store.values import Mark

if TYPE_CHECKING:  # a terminal that only reads jobs should not load what sends them
    from agent_jobs.engine.start import PlannedStart, StartPlanner
    from agent_jobs.request.presets import Preset
    from agent_jobs.request.start_request import StartRequest

logger = logging.getLogger(__name__)

ID_WAIT_S = 5.0  # for which a start waits for upstream's id; the launch itself continues
DAY_S = 86_400.0
MAX_ECHOED_IDS = 4  # ids that an ambiguous beginning lists: enough to see where they differ
NEWEST_WORD = "last"  # the name of the newest job; ids have no l, so it is never an id


class Started(NamedTuple):
    """The job of a prompt, and True if it existed before."""

    job: Job
    duplicate: bool


class Engine(JobControl, StoredJobs):
    """Jobs of one user, on one store.

    Args:
        store: The jobs.
        upstream: The endpoint, or why nothing can be sent from here. Jobs can be read even so.
        clock: The time.
        tasks: Runs what no caller has to wait for.
        presets: Requests by name.
        warnings: Changes of the settings that the user should make, although jobs run without them.
        report_budget: Called when the day's budget refuses a start.
    """

    def __init__(
        self,
        store: Store,
        upstream: Upstream | NoUpstream,
        clock: Clock,
        tasks: TaskGroup,
        presets: Mapping[str, Preset],
        warnings: tuple[ConfigError, ...] = (),
        report_budget: Callable[[], object] = str,
    ) -> None:
        self._report_budget = report_budget
        self._page_url, self._page_checked_at = "", 0.0
        self._team_page_url = ""
        self.presets = presets
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._tasks = tasks
        self._warnings = warnings
        self._waiter = JobWaiter(store, clock, self._wake_worker)
        self._owner: str | None = None
        self._counters = ProcessCounters()
        self._action_reporter: ActionReporter = ignore_action

    def for_owner(self, owner: str) -> Engine:
        """Return the engine of one owner, which hides the jobs of others. It shares everything else with this one.

        Another owner's job is refused like an unknown id.
        """
        bound = copy(self)
        bound._owner = owner
        bound._store = self._store.for_owner(owner)
        bound._waiter = self._waiter.for_owner(bound._store)
        bound._upstream = self._upstream.for_owner(bound._store, owner)
        return bound

    def with_reporter(self, reporter: ActionReporter) -> Engine:
        """Return this engine with a reporter of its caller's actions, for an audit log."""
        bound = copy(self)
        bound._action_reporter = reporter
        return bound

    def with_team_page(self, url: str) -> Engine:
        """Return this engine so that its answers lead to the page of a team server; empty if its address is unknown."""
        bound = copy(self)
        bound._team_page_url = url
        return bound

    @property
    def owner(self) -> str:
        """Return the owner of this engine; empty for the engine of all jobs."""
        return self._owner or ""

    def now(self) -> float:
        """Return the engine's time in epoch seconds, from which answers calculate ages."""
        return self._clock.now()

    async def start(
        self,
        request: StartRequest,
        *,
        wait_s: float = 0.0,
        id_wait_s: float = ID_WAIT_S,
        on_submitted: Callable[[list[str]], object] = list,
    ) -> list[Started]:
        """Store the jobs, launch them, and wait until upstream named their ids, or up to `wait_s` for their end.

        It waits at most `id_wait_s` for the ids. `on_submitted` gets the jobs' own ids as soon as they are stored.

        If an identical request is still running, finished recently without being read, or has an unconfirmed start, its
        job is returned instead of a second one. `options.allow_duplicate` starts another, `options.key` makes one job
        for each key. Of several prompts all are started or none.

        Raises:
            RequestError: Nothing was started; the sentence says what to change.
            ConfigError: Nothing was started; the user must change a setting.
            StoreError: Nothing was started.
        """
        began = self._clock.now()
        submitted = await self.submit(await self.plan(request))
        on_submitted([job.id for job, _ in submitted])
        return [
            Started(await self._wait_for_launch(job, began, wait_s, id_wait_s), duplicate=duplicate)
            for job, duplicate in submitted
        ]

    async def plan(self, request: StartRequest) -> PlannedStart:
        """Check and price a request; nothing is stored yet.

        Raises:
            RequestError, ConfigError: As `start`.
        """
        upstream = self._require_upstream()
        planner = await self._find_planner()
        is_shared = planner is upstream.planner
        if is_shared and (rejection := upstream.worker.pause_reason) is not None:
            if not await upstream.client.renew_key():
                raise ConfigError("The provider refuses this key: {rejection}", "key_refused", rejection=rejection)
            upstream.worker.end_pause()
        await self._check_previous_job(request)
        return await planner.plan(request)

    async def _check_previous_job(self, request: StartRequest) -> None:
        """Refuse a request that continues a job of an unknown id, with the known facts about the id."""
        if request.previous_job_id is not None:
            await self._get_job(request.previous_job_id)

    async def submit(self, planned: PlannedStart) -> list[Started]:
        """Store the planned jobs and launch them; return without waiting for upstream.

        A caller that is cancelled still gets the ids, because a stored job may be sent at any moment.

        Raises:
            StoreError: Nothing was started.
        """
        upstream = self._require_upstream()
        started: list[Started] = []
        with CancelScope(shield=True):
            try:
                existing_jobs = await self._store_jobs(planned)
            except StoreError:
                # They may be stored anyway: the answer may have been lost with the connection.
                upstream.worker.launch(planned.jobs)
                raise
            started = [
                Started(existing or job, duplicate=existing is not None)
                for job, existing in zip(planned.jobs, existing_jobs, strict=True)
            ]
            new_jobs = [job for job, duplicate in started if not duplicate]
            self._counters.starts += len(new_jobs)
            upstream.worker.launch(new_jobs)
            await self._report_action("start", *new_jobs)
        return started

    async def _store_jobs(self, planned: PlannedStart) -> list[Job | None]:
        """Store the planned jobs; return for each the identical job that exists.

        Raises:
            BudgetError: The day's budget does not allow them, which is also reported.
        """
        try:
            return await self._store.add(
                *planned.jobs,
                allow_duplicate=planned.allow_duplicate,
                budgets=planned.budgets,
                starts_per_minute=planned.starts_per_minute,
                uploads=planned.uploads,
            )
        except BudgetError:
            self._report_budget()
            raise

    async def wait_for_response_id(self, job: Job, *, wait_s: float) -> Job:
        """Return the job once upstream named its response, it finished, or it has to wait; or after `wait_s`."""
        job = await self._waiter.wait_until(await self._get_job(job.id), _has_id_or_activity, wait_s)
        return await self._waiter.add_queue_position(job)

    async def estimate(self, request: StartRequest) -> Estimate:
        """Return what a request would send and may cost; nothing is started.

        Raises:
            RequestError, ConfigError: As `start`.
        """
        await self._check_previous_job(request)
        estimate = await (await self._find_planner()).estimate(request)
        if request.options.get("allow_duplicate") or not estimate.request_hash:
            return estimate
        return estimate._replace(existing=await self._find_identical(estimate.request_hash))

    async def poll(self, job_id: str, *, wait_s: float = 0.0, new_only: bool = False) -> Job:
        """Return the job once it finished or asks, or after `wait_s`; a finished one comes with its output.

        With `new_only`, a question that a caller of this process saw does not end the wait until the job changes.

        Raises:
            JobNotFoundError: There is no such job; the sentence names the newest.
        """
        self._counters.polls += 1
        job = await self._get_job(job_id)
        if not job.is_terminal:
            asks = self._waiter.has_new_question if new_only else has_question
            job = await self._waiter.watch(job, wait_s, asks)
        return await self._wait_until_finalized(job)

    async def wait_for_any(self, group: JobFilter, *, wait_s: float = 0.0) -> BatchState:
        """Return the state of a group once one of its jobs has an unread result or question, or after `wait_s`.

        Raises:
            JobNotFoundError: One of the jobs or the batch does not exist.
        """
        await self._check_job_ids(group)
        return await self._waiter.wait_for_any(group, wait_s)

    def end_waits(self) -> None:
        """End the waits of all calls as if their time were over, because this process is about to exit."""
        self._waiter.end_waits()

    async def find_open(self, group: JobFilter) -> list[Job]:
        """Return the unfinished jobs of a group as they are stored; upstream is not asked."""
        jobs = await self._waiter.find_recent_jobs(group)
        return [await self._waiter.add_queue_position(job) for job in jobs if not job.is_terminal]

    async def result(self, job_id: str, *, only_text: bool = False) -> Result:
        """Return all stored facts of a job; for its text alone, neither its request nor the response object.

        Raises:
            JobNotFoundError: There is no such job.
        """
        job = await self._wait_until_finalized(await self._get_job(job_id, has_request=not only_text))
        await self._report_action("result", job)
        if not only_text or job.output is None:
            job = await with_stored_output(self._store, job)
        return Result(
            job,
            await self._store.get_events(job_id),
            await self._store.get_output_files(job_id),
            await self._store.get_calls(job_id),
        )

    async def find(self, group: JobFilter, limit: int, order: SortKey = "created") -> JobPage:
        """Return the first jobs of a group in an order, the number in each status, and the cost of today's jobs."""
        now = self._clock.now()
        page = await self._store.list_jobs(group, limit, now - now % DAY_S, JobOrder(order, now))
        return replace(page, warnings=self._list_warnings())

    async def find_unobserved(self, group: JobFilter) -> list[Job]:
        """Return the newest jobs of a group that run upstream and that no living process observes."""
        return await self._store.find_unobserved(group, GATHERED_MAX)

    async def find_full_id(self, text: str) -> str:
        """Return the id that the user means: a full id, the beginning of one with or without `job_`, or `last`.

        Raises:
            JobNotFoundError: No id begins so, or there are no jobs.
            RequestError: Several do; the sentence names some.
        """
        if text == NEWEST_WORD and (newest := await self._store.find(JobFilter(), 1)):
            return newest[0].id
        prefixes: tuple[str, ...] = ()
        if text:  # an unset shell variable is empty, and means no job
            prefixes = (text, f"job_{text.removeprefix('job_')}")
        for prefix in dict.fromkeys(prefixes):
            ids = await self._store.find_ids(prefix, MAX_ECHOED_IDS)
            if prefix in ids:
                return prefix
            if len(ids) == 1:
                return ids[0]
            if ids:
                raise RequestError("{given!r} is ambiguous.", "ambiguous_job", given=text, ids=", ".join(ids))
        return (await self._get_job(text)).id

    async def change_mark(self) -> Mark:
        """Return a mark of what has changed up to now, for `wait_for_any_change`."""
        return await self._store.change_mark()

    async def wait_for_any_change(self, mark: Mark) -> None:
        """Return once any job changed since this mark, in this process or another one."""
        await self._store.wait_for_any_change(mark)

    async def prune(self, older_than_s: float, *, upstream: bool = False, unread: bool = False) -> Pruned:
        """Delete the jobs that finished before this age, except those with unread results.

        Args:
            older_than_s: Seconds since their end.
            upstream: Delete their responses at the provider, too.
            unread: Delete undelivered results as well.

        Raises:
            ConfigError: `upstream` is set, and this process can send nothing.
        """
        from agent_jobs.engine.worker import prune  # loads what sends jobs

        clients = self._find_deleting_clients(upstream=upstream)
        return await prune(self._store, self._clock.now() - older_than_s, clients, unread=unread)

    def mark_delivered_later(self, *jobs: Job) -> None:
        """Record in the background that a host received these jobs' results.

        Questions are noted for this process alone: every host's model should see them.
        """
        self._waiter.mark_questions_reported(jobs)
        if self._action_reporter is not ignore_action:
            self._tasks.start_soon(partial(self._report_action, "result", *(job for job in jobs if job.is_terminal)))
        if any(job.is_undelivered for job in jobs):
            self._tasks.start_soon(self.mark_delivered, *jobs)

    async def mark_read(self, *jobs: Job) -> None:
        """Store that a person opened these jobs' results."""
        with log_store_errors(logger, "cannot record that results were read: %s"):
            await self._store.mark_read([job.id for job in jobs if job.is_terminal], self._clock.now())

    async def mark_delivered(self, *jobs: Job) -> None:
        """Store that the caller received these jobs' results."""
        with log_store_errors(logger, "cannot record that results were delivered: %s"):
            await self._store.mark_delivered([job.id for job in jobs if job.is_undelivered], self._clock.now())

    def _list_warnings(self) -> tuple[ConfigError, ...]:
        """Return what the user should change in the settings. Those of a team server are its operator's to change."""
        if self._owner is not None:
            return ()
        return self._warnings + self._upstream.warnings

    async def _find_identical(self, request_hash: str) -> Job | None:
        """Return the job that `start` would return for a request with this hash."""
        base_url = self._require_upstream().client.endpoint.base_url
        jobs = await self._store.find(JobFilter(active=True), GATHERED_MAX)
        jobs += await self._store.find(JobFilter(statuses=frozenset({Status.FAILED})), GATHERED_MAX)
        same = (job for job in jobs if job.request_hash == request_hash and job.turn.base_url == base_url)
        return next((job for job in same if self._answers_for_identical(job)), None)

    def _answers_for_identical(self, job: Job) -> bool:
        """Return True if a job answers an identical request, by the rule of `Store.add`."""
        if not job.is_terminal or job.is_unconfirmed:
            return True
        is_fresh = self._clock.now() - job.end_time < DUPLICATE_S
        return job.status is Status.COMPLETED and job.delivered_at is None and is_fresh

    async def _wait_for_launch(self, job: Job, began: float, wait_s: float, id_wait_s: float) -> Job:
        """Return the job with its response id or its end; if the database fails, as last known."""
        # It is stored and being sent: a caller that does not learn of it would start it again.
        with log_store_errors(logger, "%s was started, but its state cannot be read: %s", job.id):
            job = await self._waiter.wait_until(job, _has_id_or_activity, began + id_wait_s - self._clock.now())
            if wait_s > 0 and not job.is_terminal:
                job = await self._waiter.watch(job, began + wait_s - self._clock.now())
            job = await self._waiter.add_queue_position(job)
        return job

    async def _wait_until_finalized(self, job: Job) -> Job:
        """Return the job; a finished one once its files are written, if this process can do that."""
        if job.is_terminal and isinstance(self._upstream, Upstream):
            return await self._waiter.wait_until_finalized(job)
        return job

    async def _find_planner(self) -> StartPlanner:
        """Return the planner of jobs, with the owner's key if the owner has one.

        Raises:
            ConfigError: That key is missing; the shared one is not used in its place.
        """
        upstream = self._require_upstream()
        client = await upstream.clients.find(self.owner)
        if client is upstream.clients.shared:
            return upstream.planner
        return upstream.planner.with_own_key(client.endpoint)


def _has_id_or_activity(job: Job) -> bool:
    """Return True if upstream named an id, or there is something to report instead."""
    return job.turn.response_id is not None or bool(job.activity)
