"""Open store, client, engine and worker in the background, and close them in order."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

import anyio
from anyio.abc import TaskGroup

from agent_jobs.clock import Clock
from agent_jobs.engine.engine import Engine, NoUpstream, Upstream
from agent_jobs.errors import AgentJobsError, ConfigError, StoreError
from agent_jobs.jobs.job import Job
from agent_jobs.settings.settings import Settings
from agent_jobs.store import open_store
from agent_jobs.store.base import Store
from agent_jobs.wiring.database import find_postgres, follow_database
from agent_jobs.wiring.endpoint import (
    can_be_same_host,
    create_endpoint,
    create_owner_endpoint,
    list_secrets,
    resolve_key,
)
from agent_jobs.wiring.notices import (
    create_callback_runner,
    create_callback_sender,
    create_notifier,
    send_budget_notice,
)
from agent_jobs.wiring.workers import (
    create_finalizer,
    create_start_defaults,
    create_steppers,
    create_toolbox,
    create_worker,
)

if TYPE_CHECKING:  # imported where jobs are sent
    from agent_jobs.engine.callbacks import CallbackRunner
    from agent_jobs.engine.job_traces import TraceRunner
    from agent_jobs.engine.on_finish import Notifier
    from agent_jobs.engine.owner_clients import OwnerClients, OwnerSteppers
    from agent_jobs.engine.start import StartDefaults
    from agent_jobs.engine.webhook_intake import WebhookIntake
    from agent_jobs.engine.worker import Worker
    from agent_jobs.notices.callback_sender import CallbackSender
    from agent_jobs.upstream.client import ResponsesClient
    from agent_jobs.upstream.endpoint import Endpoint

logger = logging.getLogger(__name__)

KEYRING_RETRY_S = 10.0  # a keyring that could not be read makes other calls wait no more often
READS = "This process only reads jobs."
COLLECTED_MAX = 50  # jobs that a reading command retrieves: more connections at once would exceed its time limit
#: The processes that work for the owners of a team server.
SERVES_OWNERS = frozenset({"serve --http", "work"})
#: The processes that send traces. A server that a host starts does not: the variable may be meant for the host itself.
TRACED = SERVES_OWNERS

#: Work on all jobs of the endpoint, act on single ones for a command, or only read.
Role = Literal["works", "acts", "reads"]


class App:
    """An engine that opens in the background; see `open_app`."""

    def __init__(
        self,
        settings: Settings | ConfigError,
        clock: Clock,
        tasks: TaskGroup,
        stack: AsyncExitStack,
        role: Role,
        what: str,
        reload: Callable[[], Settings | ConfigError] | None,
    ) -> None:
        self._settings = settings
        self._reload = reload
        #: When a keyring that could not be read is tried again; None unless a key is missing.
        self._retry_key_at: float | None = None
        self._role = role
        self._what = what
        self._clock = clock
        self._tasks = tasks
        self._stack = stack
        self._opening: _Opening | None = None
        self._store: Store | None = None
        self._stepper: OwnerSteppers | None = None
        self._worker: Worker | None = None
        self._webhooks: WebhookIntake | None = None
        self._callback_sender: CallbackSender | None = None
        self._callbacks: CallbackRunner | None = None
        self._notifier: Notifier | None = None
        self._traces: TraceRunner | None = None

    async def engine(self) -> Engine:
        """Return the engine once it is open; after a failed opening, the next caller tries again.

        Raises:
            ConfigError: A setting cannot be used.
            StoreError: The database cannot be opened.
        """
        opening = self.open()
        if not opening.done.is_set():  # waiting for a set event costs a turn of the event loop
            await opening.done.wait()
        if opening.engine is None:
            raise opening.error or StoreError("agent-jobs could not be opened.", "not_opened")
        return opening.engine

    def open(self) -> _Opening:
        """Begin to open, unless that is under way or done. Open again once the user has stored a missing key."""
        if self._opening is None or self._opening.has_failed or self._has_new_key():
            self._opening = _Opening()
            self._tasks.start_soon(self._try_to_open, self._opening)
        return self._opening

    def work(self) -> None:
        """Have an open engine that only acts work on all jobs from now on."""
        if self._worker is not None:
            self._tasks.start_soon(self._worker.run, self._what)
            self._tasks.start_soon(self._worker.purge)
        for runner in filter(None, (self._notifier, self._webhooks, self._callbacks, self._traces)):
            self._tasks.start_soon(runner.run)

    async def retrieve_unwatched(self, jobs: Sequence[Job], limit_s: float) -> Mapping[str, Job]:
        """Retrieve jobs that no process observes, in an open app that only reads; see `UnwatchedRetriever`.

        Returns those that upstream answered in time. Without a key, or if none of them is at this endpoint, nothing is
        sent, and the HTTP client is not loaded.
        """
        settings, store = self._settings, self._store
        if isinstance(settings, ConfigError) or not settings.has_key or store is None:
            return {}
        nearby = [job for job in jobs if _can_be_collected(job, settings.base_url)]
        if not nearby:
            return {}
        try:
            settings, key = await resolve_key(settings, limit_s)
            retrieved = await self._collect_nearby(settings, key, store, nearby, limit_s)
            await self._notify_finished(settings, store, retrieved.values())
        except ConfigError as error:
            logger.warning("cannot retrieve jobs: %s", error)
            return {}
        return retrieved

    def begin_shutdown(self) -> None:
        """Give response ids that are on their way a last moment: the process ends."""
        if self._stepper is not None:
            self._stepper.begin_shutdown()

    async def _collect_nearby(
        self, settings: Settings, key: str, store: Store, nearby: Sequence[Job], limit_s: float
    ) -> Mapping[str, Job]:
        """Retrieve the jobs of this endpoint among jobs that may be there."""
        from agent_jobs.engine.unwatched_retriever import UnwatchedRetriever
        from agent_jobs.pricing.prices import Prices
        from agent_jobs.upstream.client import open_client

        endpoint = create_endpoint(settings, key)
        here = [job for job in nearby if job.turn.base_url == endpoint.base_url][:COLLECTED_MAX]
        async with open_client(endpoint, secrets=list_secrets(settings)) as client:
            finalizer = create_finalizer(settings, store, client, self._clock, Prices.load(settings.prices))
            return await UnwatchedRetriever(store, client, self._clock, finalizer).retrieve(here, limit_s)

    async def _notify_finished(self, settings: Settings, store: Store, jobs: Iterable[Job]) -> None:
        """Report jobs that were found finished."""
        notifier = create_notifier(settings, store, self._clock)
        if notifier is not None and any(job.is_terminal for job in jobs):
            await notifier.finish()

    async def _try_to_open(self, opening: _Opening) -> None:
        try:
            async with AsyncExitStack() as stack:
                opening.engine = await self._open_engine(stack)
                self._stack.push_async_exit(stack.pop_all())
        except AgentJobsError as error:
            opening.error = error
        except Exception:
            logger.exception("opening failed")
        finally:
            opening.done.set()

    @property
    def _is_opening(self) -> bool:
        return self._opening is not None and not self._opening.done.is_set()

    def _has_new_key(self) -> bool:
        """Return True if a key was missing and is stored now; then the settings are those with the key."""
        if self._retry_key_at is None or self._reload is None or self._is_opening:
            return False
        settings = self._reload()
        if isinstance(settings, ConfigError) or not settings.has_key:
            return False
        if settings.api_key is None and self._clock.now() < self._retry_key_at:
            return False
        self._settings = settings
        return True

    async def _open_engine(self, stack: AsyncExitStack) -> Engine:
        if isinstance(self._settings, ConfigError) and self._reload is not None:
            self._settings = self._reload()  # the user may have corrected the settings file
        settings = self._settings
        if isinstance(settings, ConfigError):
            raise settings
        store = self._store
        if store is None:
            store = await stack.enter_async_context(open_store(settings.data_path(), find_postgres(settings)))
            stack.push_async_callback(self._release_claims, store)
            self._clock = await follow_database(store, self._clock)
        engine = await self._open_engine_on(store, settings, stack)
        self._store = store
        return engine

    async def _open_engine_on(self, store: Store, settings: Settings, stack: AsyncExitStack) -> Engine:
        if self._role == "reads":
            reads = NoUpstream(ConfigError(READS, "not_sending"))
            return Engine(store, reads, self._clock, self._tasks, {}, settings.warnings)
        return await self._open_sending_engine(settings, store, stack)

    async def _open_sending_engine(self, settings: Settings, store: Store, stack: AsyncExitStack) -> Engine:
        """Return an engine that talks to upstream, or one that says why it cannot."""
        from agent_jobs.engine.owner_clients import OwnerClients
        from agent_jobs.engine.start import StartPlanner
        from agent_jobs.request.presets import load_presets
        from agent_jobs.upstream.client import open_client

        presets = load_presets(settings.presets)
        self._callback_sender = create_callback_sender(settings, self._clock, serves_owners=self._what in SERVES_OWNERS)
        self._callbacks = create_callback_runner(store, self._clock, self._callback_sender)
        try:
            settings, key = await resolve_key(settings)
        except ConfigError as missing:
            self._retry_key_at = self._clock.now() + KEYRING_RETRY_S
            return Engine(store, NoUpstream(missing), self._clock, self._tasks, presets, settings.warnings)
        self._retry_key_at = None
        await self._open_traces(store, stack)
        endpoint = create_endpoint(settings, key)
        defaults = create_start_defaults(settings, presets, create_toolbox(settings, self._tasks))
        client = await stack.enter_async_context(
            open_client(
                endpoint,
                start_timeout_s=settings.start_timeout_s,
                secrets=list_secrets(settings),
                read_endpoint=partial(self._read_endpoint, settings.base_url),
            )
        )
        self._notifier = create_notifier(settings, store, self._clock)
        clients = OwnerClients(store, client, partial(self._open_owner_client, settings))
        worker = self._worker = self._create_worker(settings, store, clients, defaults)
        self._webhooks = self._create_webhook_intake(settings, store, client, worker)
        if self._role == "works":
            self.work()
        planner = StartPlanner(store, endpoint, self._clock, defaults)
        upstream = Upstream(client, worker, planner, clients, self._webhooks, self._callback_sender)
        return Engine(
            store,
            upstream,
            self._clock,
            self._tasks,
            presets,
            settings.warnings,
            partial(self._report_budget, settings),
        )

    async def _open_owner_client(self, settings: Settings, key_ref: str) -> ResponsesClient:
        """Open the client of owners whose key has this reference.

        Raises:
            ConfigError: The key is missing.
        """
        from agent_jobs.upstream.client import open_client

        async def read_endpoint() -> Endpoint:
            return create_owner_endpoint(settings, key_ref)

        return await self._stack.enter_async_context(
            open_client(
                await read_endpoint(),
                start_timeout_s=settings.start_timeout_s,
                secrets=list_secrets(settings),
                read_endpoint=read_endpoint,
            )
        )

    async def _read_endpoint(self, base_url: str) -> Endpoint | None:
        """Return the address with the key that is stored now, None if there is none."""
        settings = self._settings if self._reload is None else self._reload()
        if isinstance(settings, ConfigError) or settings.base_url != base_url:
            return None
        try:
            settings, key = await resolve_key(settings)
        except ConfigError:
            return None
        return create_endpoint(settings, key)

    def _report_budget(self, settings: Settings) -> None:
        """Send a notice that the day's budget refuses jobs, once a day."""
        if settings.notify and "budget" in settings.notify_events:
            self._tasks.start_soon(send_budget_notice, settings, self._clock)

    async def _open_traces(self, store: Store, stack: AsyncExitStack) -> None:
        """Send the spans of finished jobs, if this process does that and a variable asks for it."""
        if self._what in TRACED:
            from agent_jobs.engine.span_exporter import open_traces

            self._traces = await stack.enter_async_context(open_traces(store, self._clock, os.environ))

    def _create_webhook_intake(
        self, settings: Settings, store: Store, client: ResponsesClient, worker: Worker
    ) -> WebhookIntake | None:
        """Return the intake of the provider's webhooks; None if the provider sends none here."""
        if settings.webhook_secret_file is None:
            return None
        from agent_jobs.engine.webhook_intake import WebhookIntake

        return WebhookIntake(store, client, self._clock, worker.wake)

    def _create_worker(
        self, settings: Settings, store: Store, clients: OwnerClients, defaults: StartDefaults
    ) -> Worker:
        """Return what runs the jobs, and begin to write down how far their streams are."""
        steppers = create_steppers(settings, store, clients, self._clock, self._tasks, defaults)
        self._tasks.start_soon(steppers.write_progress)
        self._stepper = steppers
        return create_worker(settings, store, clients, steppers, self._clock, self._tasks)

    async def _release_claims(self, store: Store) -> None:
        """Leave the jobs to the next process at once."""
        try:
            await store.release_claims(self._clock.now())
        except StoreError as error:
            logger.warning("cannot release the jobs; the next process takes them over: %s", error)


def _can_be_collected(job: Job, base_url: str) -> bool:
    """Return True if the key of this user may retrieve the job, and it is not certainly at another address."""
    return job.can_be_retrieved and not job.owner and can_be_same_host(base_url, job.turn.base_url)


class _Opening:
    """One attempt to open, with its outcome."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.engine: Engine | None = None
        self.error: AgentJobsError | None = None

    @property
    def has_failed(self) -> bool:
        return self.done.is_set() and self.engine is None


@asynccontextmanager
async def open_app(
    settings: Settings | ConfigError,
    clock: Clock | None = None,
    *,
    role: Role = "works",
    what: str = "server",
    reload: Callable[[], Settings | ConfigError] | None = None,
) -> AsyncGenerator[App]:
    """Open an app whose engine opens while the caller continues, and close it in order at the end.

    Enter it outside of any scope that a signal cancels: its last writes need the event loop.

    Args:
        settings: The user's settings, or why they cannot be used.
        clock: The time.
        role: What this process does.
        what: This process, as other processes report it while it works.
        reload: Reads the settings again. It is called while they cannot be used, or a key is missing.
    """
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        app = App(settings, clock or Clock(), tasks, stack, role, what, reload)
        app.open()
        try:
            yield app
        finally:
            app.begin_shutdown()
            tasks.cancel_scope.cancel()
