"""Show the environment of the jobs: the endpoint, the database, other processes, and the owners."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent_jobs.clock import Clock
from agent_jobs.engine.job_waiter import JobWaiter
from agent_jobs.engine.live_text import LiveText
from agent_jobs.engine.metrics import EngineMetrics, ProcessCounters
from agent_jobs.engine.owner_files import OwnerFiles
from agent_jobs.engine.owner_registry import OwnerRegistry
from agent_jobs.engine.stored_jobs import ActionReporter
from agent_jobs.errors import ConfigError
from agent_jobs.jobs.job import Job, Mode
from agent_jobs.jobs.queries import (
    DayBudget,
    ServerInfo,
    StoreInfo,
    WorkerInfo,
)
from agent_jobs.jobs.response import JSON
from agent_jobs.store.base import Store
from agent_jobs.store.values import Budget

if TYPE_CHECKING:  # a terminal that only reads jobs should not load what sends them
    from agent_jobs.engine.event_feed import CallbackTarget, EventFeed
    from agent_jobs.engine.owner_clients import OwnerClients
    from agent_jobs.engine.start import StartPlanner
    from agent_jobs.engine.webhook_intake import WebhookIntake
    from agent_jobs.engine.worker import Worker
    from agent_jobs.upstream.client import ResponsesClient


DAY_S = 86_400.0
PAGE_CHECK_S = 2.0  # between two checks for a running page, so that not every start pays for one


class Upstream(NamedTuple):
    """The endpoint that this process works with, and the worker that runs its jobs."""

    client: ResponsesClient
    worker: Worker
    planner: StartPlanner
    clients: OwnerClients
    webhooks: WebhookIntake | None = None  #: only where the provider sends webhooks
    callbacks: CallbackTarget | None = None  #: only where the operator allows addresses

    @property
    def base_url(self) -> str:
        """Return the address of the endpoint."""
        return self.client.endpoint.base_url

    @property
    def warnings(self) -> tuple[ConfigError, ...]:
        """Return why no job can be given the user's tools, if that is so."""
        return self.planner.warnings

    def require(self) -> Upstream:
        """Return the endpoint."""
        return self

    def for_owner(self, store: Store, owner: str) -> Upstream:
        """Return the same for the jobs of one owner, with the owner's store."""
        return self._replace(planner=self.planner.for_owner(store, owner))

    async def find_budget(self) -> Budget | None:
        """Return the budget of today; None if there is none."""
        return await self.planner.find_budget()

    def wake_worker(self) -> None:
        """Have the worker read the due times now."""
        self.worker.wake()

    def is_deciding(self, job_id: str) -> bool:
        """Return True while it is unknown whether the job's run continues without this process."""
        return self.worker.is_deciding(job_id)

    def follow_text(self, job_id: str) -> LiveText:
        """Return the text of a job, which grows while this process reads its stream."""
        return self.worker.follow_text(job_id)


class NoUpstream(NamedTuple):
    """In place of an endpoint: why this process sends nothing. Stored jobs can be read even so."""

    error: ConfigError
    base_url: None = None
    callbacks: None = None
    warnings: tuple[ConfigError, ...] = ()

    def require(self) -> Upstream:
        """Raise the error that says why nothing can be sent from here."""
        raise self.error

    def for_owner(self, _store: Store, _owner: str) -> NoUpstream:
        """Return the same: it depends on no owner."""
        return self

    async def find_budget(self) -> Budget | None:
        """Return None: nothing is spent from here."""
        return None

    def wake_worker(self) -> None:
        """Do nothing: no worker runs here."""

    def is_deciding(self, _job_id: str) -> bool:
        """Return False: no run was sent from here."""
        return False

    def follow_text(self, _job_id: str) -> LiveText:
        """Return the text of a job, of which this process knows only what others store."""
        return LiveText()


class Inspection:
    """Shows the endpoint, the database, other processes and the owners. A base of `Engine`."""

    _store: Store
    _clock: Clock
    _waiter: JobWaiter
    _counters: ProcessCounters
    _upstream: Upstream | NoUpstream
    _owner: str | None
    _action_reporter: ActionReporter
    _page_url: str
    _page_checked_at: float
    _team_page_url: str

    @property
    def owners(self) -> OwnerRegistry:
        """Return the owners of a team server with their tokens and the audit log."""
        return OwnerRegistry(self._store, self._clock)

    async def store_info(self) -> StoreInfo:
        """Return facts about the database, and the other processes that work on its jobs."""
        return await self._store.store_info()

    async def server_info(self) -> ServerInfo | None:
        """Return the state of a database server that machines share; None if the jobs are in a file."""
        return await self._store.server_info()

    async def read_budget(self) -> DayBudget | None:
        """Return the budget of today and what counts against it; None if there is none, or this process has no key."""
        budget = await self._upstream.find_budget()
        if budget is None:
            return None
        return DayBudget(budget.usd, await self._store.sum_day(budget.since, spent=budget.spent))

    async def find_view(self, path: str) -> str:
        """Return the address of a path on the page that runs for this database; empty if none runs.

        Owners are led to the page of their team server.
        """
        url = self._team_page_url
        if self._owner is None:
            url = await self._find_page_url()
        return url and f"{url}{path}"

    async def _find_page_url(self) -> str:
        """Return the address of the page that runs for this database, as of a moment ago; empty if none runs."""
        now = self._clock.now()
        if now >= self._page_checked_at + PAGE_CHECK_S:
            self._page_checked_at = now
            pages = [worker.page_url for worker in (await self._store.store_info()).watchers if worker.page_url]
            self._page_url = next(iter(pages), "")
        return self._page_url

    @property
    def base_url(self) -> str | None:
        """Return the endpoint that this process works with; None if it can send nothing."""
        return self._upstream.base_url

    @property
    def files(self) -> OwnerFiles:
        """Return the files of the owner to whom this engine is bound."""
        return OwnerFiles(self._store, self._clock)

    @property
    def feed(self) -> EventFeed:
        """Return the events of the owner to whom this engine is bound."""
        from agent_jobs.engine.event_feed import EventFeed  # only hosts of a team server ask for it

        target = self._upstream.callbacks
        return EventFeed(self._store, self._owner or "", self._clock, target, self._counters.challenges)

    @property
    def webhooks(self) -> WebhookIntake | None:
        """Return the intake of the provider's webhooks; None without AGENT_JOBS_WEBHOOK_SECRET_FILE.

        Raises:
            ConfigError: This process can send nothing.
        """
        return self._require_upstream().webhooks

    async def metrics(self) -> EngineMetrics:
        """Return the metrics of this process and of the database."""
        upstream, now = self._require_upstream(), self._clock.now()
        stored = await self._store.read_metrics(upstream.client.endpoint.base_url, now - now % DAY_S)
        age_s = None
        if stored.last_webhook_at is not None:
            age_s = now - stored.last_webhook_at
        return EngineMetrics(
            stored,
            starts=self._counters.starts,
            polls=self._counters.polls,
            waits=self._waiter.waits.begun,
            waits_open=self._waiter.waits.open,
            retrievals=upstream.client.retrievals,
            webhook_age_s=age_s,
            lateness_s=max(0.0, now - (stored.next_due_at or now)),
        )

    async def other_workers(self) -> list[WorkerInfo]:
        """Return the other living processes that work on the jobs of this endpoint."""
        base_url = self._require_upstream().client.endpoint.base_url
        return [worker for worker in (await self._store.store_info()).watchers if worker.base_url == base_url]

    async def describe_model(self, name: str) -> JSON:
        """Return upstream's description of a model.

        Raises:
            ConfigError: This process can send nothing.
            UpstreamError: It cannot be reached, refuses the key, or does not know the model.
        """
        return await self._require_upstream().client.describe_model(name)

    async def list_models(self) -> dict[str, JSON]:
        """Return upstream's description of each model that it lists, by name.

        Raises:
            ConfigError: This process can send nothing.
            UpstreamError: It refuses the key, or has no list.
        """
        from agent_jobs.request.models import index_listed_models

        return index_listed_models(await self._require_upstream().client.list_model_pages())

    def is_deciding(self, job_id: str) -> bool:
        """Return True while it is unknown whether the job's run continues without this process."""
        if self._owner is not None:
            return False
        return self._upstream.is_deciding(job_id)

    def follow_text(self, job_id: str) -> LiveText:
        """Return the text of a job as it is written; call `observe` with the job to add what other processes stored."""
        if self._owner is not None:
            return LiveText()  # of an owner's job only what the owner's store shows
        return self._upstream.follow_text(job_id)

    async def learned_mode(self, model: str) -> Mode | None:
        """Return the delivery mode that jobs of a model need, if the endpoint's refusals showed it in the last day."""
        base_url = self._require_upstream().client.endpoint.base_url
        return await self._store.learned_mode(base_url, model, self._clock.now() - DAY_S)

    def require_clients(self) -> OwnerClients:
        """Return the clients of the endpoint, or raise the ConfigError that says why there are none."""
        return self._require_upstream().clients

    def _require_upstream(self) -> Upstream:
        """Return the endpoint, or raise the ConfigError that says why nothing can be sent from here."""
        return self._upstream.require()

    def _wake_worker(self) -> None:
        self._upstream.wake_worker()

    async def _report_action(self, action: str, *jobs: Job) -> None:
        if jobs:
            await self._action_reporter(action, {job.id: job.cost_usd for job in jobs})
