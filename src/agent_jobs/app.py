"""The one place that joins store, client, engine and runner."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskGroup, TaskStatus

from agent_jobs.clock import Clock
from agent_jobs.ctrl_c import catch_ctrl_c
from agent_jobs.engine.engine import Engine, Upstream
from agent_jobs.errors import AgentJobsError, ConfigError, StoreError
from agent_jobs.jobs.job import Job
from agent_jobs.settings import Settings
from agent_jobs.store import open_store
from agent_jobs.store.base import Store

if TYPE_CHECKING:  # imported where jobs are sent
    from agent_jobs.engine.finalize import Finalizer
    from agent_jobs.engine.on_finish import Notifier
    from agent_jobs.engine.start import StartDefaults
    from agent_jobs.engine.step import JobStepper
    from agent_jobs.engine.worker import Worker
    from agent_jobs.pricing.prices import Prices
    from agent_jobs.toolbox.toolbox import Toolbox, ToolServers
    from agent_jobs.upstream.client import ResponsesClient
    from agent_jobs.upstream.endpoint import Endpoint

logger = logging.getLogger(__name__)

NO_KEY = (
    "No API key is set: the user has to put OPENAI_API_KEY into the env of this server's entry and restart it; "
    "in a terminal, export it."
)
READS = "This process only reads jobs."
#: Jobs that a command which only reads retrieves: more connections at once take longer than it may.
COLLECTED_MAX = 50

#: What a process does: work on all jobs of its endpoint, act on those that it is told to, or only read.
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
    ) -> None:
        self._settings = settings
        self._role = role
        self._what = what
        self._clock = clock
        self._tasks = tasks
        self._stack = stack
        self._opening: _Opening | None = None
        self._store: Store | None = None
        self._advancer: JobStepper | None = None
        self._runner: Worker | None = None
        self._notifier: Notifier | None = None

    async def engine(self) -> Engine:
        """The engine, once it is open; an opening that failed is tried again by the next caller.

        Raises:
            ConfigError: A setting cannot be used.
            StoreError: The database cannot be opened.
        """
        opening = self.open()
        if not opening.done.is_set():  # to wait for what is there costs a turn of the event loop
            await opening.done.wait()
        if opening.engine is None:
            raise opening.error or StoreError("agent-jobs could not be opened; its log says why.")
        return opening.engine

    def open(self) -> _Opening:
        """Begin to open, unless that is under way or done."""
        if self._opening is None or self._opening.failed:
            self._opening = _Opening()
            self._tasks.start_soon(self._open, self._opening)
        return self._opening

    def work(self) -> None:
        """Have an open engine that only acts work from now on."""
        if self._runner is not None:
            self._tasks.start_soon(self._runner.run, self._what)
            self._tasks.start_soon(self._runner.purge)
        if self._notifier is not None:
            self._tasks.start_soon(self._notifier.run)

    async def collect(self, jobs: Sequence[Job], limit_s: float) -> Mapping[str, Job]:
        """Retrieve jobs that no process observes, in an open app that only reads; see `Collector`.

        Returns those that upstream answered in time. Without a key, or where none of them is at this endpoint,
        nothing is asked, and what asks is not even loaded.
        """
        settings, store = self._settings, self._store
        if isinstance(settings, ConfigError) or settings.api_key is None or store is None:
            return {}
        nearby = [job for job in jobs if job.can_be_retrieved and _may_be_at(settings.base_url, job.turn.base_url)]
        if not nearby:
            return {}
        from agent_jobs.engine.retrieve import Collector
        from agent_jobs.pricing.prices import Prices
        from agent_jobs.upstream.client import open_client

        endpoint = _endpoint(settings, settings.api_key.get_secret_value())
        nearby = [job for job in nearby if job.turn.base_url == endpoint.base_url][:COLLECTED_MAX]
        retrieved: Mapping[str, Job] = {}
        try:
            async with open_client(endpoint, secrets=_secrets(settings)) as client:
                settler = self._settler(settings, store, client, Prices.load(settings.prices))
                retrieved = await Collector(store, client, self._clock, settler).collect(nearby, limit_s)
            if any(job.is_terminal for job in retrieved.values()) and (notifier := self._notifying(settings, store)):
                await notifier.finish()
        except ConfigError as error:
            logger.warning("cannot ask upstream how jobs stand: %s", error)
        return retrieved

    def begin_shutdown(self) -> None:
        """The process ends: ids that are on their way get a last moment."""
        if self._advancer is not None:
            self._advancer.begin_shutdown()

    async def _open(self, opening: _Opening) -> None:
        try:
            async with AsyncExitStack() as stack:
                opening.engine = await self._assembled(stack)
                self._stack.push_async_exit(stack.pop_all())
        except AgentJobsError as error:
            opening.error = error
        except Exception:
            logger.exception("opening failed")
        finally:
            opening.done.set()

    async def _assembled(self, stack: AsyncExitStack) -> Engine:
        settings = self._settings
        if isinstance(settings, ConfigError):
            raise settings
        store = self._store = await stack.enter_async_context(open_store(settings.data_path()))
        stack.push_async_callback(self._release, store)
        if self._role == "reads":
            return Engine(store, ConfigError(READS), self._clock, self._tasks, {}, settings.warnings)
        return await self._sending(settings, store, stack)

    async def _sending(self, settings: Settings, store: Store, stack: AsyncExitStack) -> Engine:
        """An engine that talks to upstream."""
        from agent_jobs.engine.start import StartDefaults, StartPlanner
        from agent_jobs.pricing.prices import Prices
        from agent_jobs.request.body import load_presets
        from agent_jobs.upstream.client import open_client

        presets = load_presets(settings.presets)
        if settings.api_key is None:
            missing = ConfigError(" ".join((NO_KEY, *settings.warnings)))
            return Engine(store, missing, self._clock, self._tasks, presets, settings.warnings)
        endpoint = _endpoint(settings, settings.api_key.get_secret_value())
        terms = StartDefaults(
            prices=Prices.load(settings.prices),
            presets=presets,
            model=settings.model,
            secrets=settings.secrets,
            file_roots=settings.file_roots,
            budget_usd=settings.daily_budget_usd,
            budget_spent=settings.budget_mode == "spent",
            toolbox=self._toolbox(settings),
        )
        client = await stack.enter_async_context(
            open_client(endpoint, start_timeout_s=settings.start_timeout_s, secrets=_secrets(settings))
        )
        self._notifier = self._notifying(settings, store)
        runner = self._runner = self._running(settings, store, client, terms)
        if self._role == "works":
            self.work()
        upstream = Upstream(client, runner, StartPlanner(store, endpoint, self._clock, terms))
        return Engine(store, upstream, self._clock, self._tasks, presets, settings.warnings)

    def _toolbox(self, settings: Settings) -> Toolbox | None:
        """The user's tool servers; none of them is started yet, and a file that cannot be used stops nothing else."""
        servers = tool_servers(settings)
        if servers is None:
            return None
        from agent_jobs.toolbox.toolbox import Toolbox

        if said := " ".join(filter(None, (servers.broken, *servers.warnings))):
            logger.warning("%s", said)
        return Toolbox(servers, os.environ, self._tasks, concurrency=settings.tool_concurrency)

    def _notifying(self, settings: Settings, store: Store) -> Notifier | None:
        """Who runs the user's command at a job's end, with an environment in which there is none of our secrets."""
        if not settings.on_finish:
            return None
        from agent_jobs.engine.on_finish import LIMIT_S, Command, Notifier

        ours = [each for each in (settings.api_key, *settings.secrets.values()) if each is not None]
        hidden = {each.get_secret_value() for each in ours} - {""}
        environ = {
            name: value
            for name, value in os.environ.items()
            if name != "OPENAI_API_KEY" and name not in settings.secrets and value.strip() not in hidden
        }
        command = Command(settings.on_finish, environ, settings.data_path(), LIMIT_S / self._clock.speed)
        return Notifier(store, self._clock, command)

    def _running(self, settings: Settings, store: Store, client: ResponsesClient, terms: StartDefaults) -> Worker:
        """Who works on the jobs."""
        from agent_jobs.engine.step import JobStepper, RunLimits
        from agent_jobs.engine.tool_loop import ToolLimits, ToolLoop
        from agent_jobs.engine.worker import Worker

        limits = RunLimits(
            follow=settings.follow,
            concurrent=settings.max_concurrent,
            job_timeout_s=settings.job_timeout_s,
            resubmit=settings.resubmit == "once",
            mode=None if settings.mode == "auto" else settings.mode,
        )
        settler = self._settler(settings, store, client, terms.prices)
        bounds = ToolLimits(
            job_timeout_s=settings.job_timeout_s,
            input_timeout_s=settings.input_timeout_s,
            budget_usd=settings.daily_budget_usd,
            budget_spent=settings.budget_mode == "spent",
        )
        loop = ToolLoop(store, self._clock, settler, terms.prices, terms.toolbox, bounds)
        self._advancer = JobStepper(store, client, self._clock, limits, settler, loop, terms.secrets)
        self._tasks.start_soon(self._advancer.keep)
        return Worker(
            store,
            self._advancer,
            self._clock,
            self._tasks,
            endpoint=client.endpoint,
            concurrent=settings.max_concurrent,
            retention_s=None if settings.retention_days is None else settings.retention_days * 86_400,
            delete_upstream=client if settings.delete_upstream == "yes" else None,
        )

    def _settler(self, settings: Settings, store: Store, client: ResponsesClient, prices: Prices) -> Finalizer:
        from agent_jobs.engine.finalize import Finalizer

        made = settings.result_dir or settings.data_path() / "made"
        return Finalizer(store, client, self._clock, prices, results=settings.result_dir, made=made)

    async def _release(self, store: Store) -> None:
        """Leave the jobs to whoever comes next, at once."""
        try:
            await store.release_claims(self._clock.now())
        except StoreError as error:
            logger.warning("cannot release the jobs; the next process takes them over: %s", error)


async def leave_on_signal(
    scope: anyio.CancelScope,
    interrupt: Callable[[], bool] = lambda: True,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Cancel a scope when the process is told to end, or its terminal is closed; started once it listens.

    Args:
        scope: What ends.
        interrupt: Asked at each Ctrl-C: whether the scope ends now. The other signals always end it.
        task_status: Set once signals are received.
    """
    if sys.platform == "win32":  # pragma: no cover
        task_status.started()
        return  # the event loop there has no signal receiver: hosts close stdin, Ctrl-C ends a command the hard way
    ends = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's stay ignored
        ends.append(signal.SIGHUP)

    def end_on_interrupt() -> None:
        if interrupt():
            logger.info("ending on signal %s", signal.SIGINT)
            scope.cancel()

    with catch_ctrl_c(end_on_interrupt), anyio.open_signal_receiver(*ends) as signals:
        task_status.started()
        async for number in signals:
            logger.info("ending on signal %s", number)
            scope.cancel()


def tool_servers(settings: Settings) -> ToolServers | None:
    """Read the file with the user's tool servers; None where no file is set."""
    if settings.toolbox is None:
        return None
    from agent_jobs.toolbox.toolbox import read_toolbox  # brings the MCP client along

    return read_toolbox(settings.toolbox)


def _endpoint(settings: Settings, key: str) -> Endpoint:
    from agent_jobs.upstream.endpoint import Endpoint

    return Endpoint.of(
        settings.base_url, key, auth=settings.auth, organization=settings.organization, project=settings.project
    )


def _secrets(settings: Settings) -> list[str]:
    """Return what no error may repeat."""
    secrets = (settings.api_key, *settings.secrets.values())
    return [each.get_secret_value() for each in secrets if each is not None]


def _may_be_at(base_url: str, other: str) -> bool:
    """Return False if two addresses are certainly of different hosts; the full comparison loads the HTTP client."""
    hosts = {urlsplit(url).hostname for url in (base_url, other)}
    return len(hosts) == 1 or not all(host and host.isascii() for host in hosts)


class _Opening:
    """One attempt to open, and how it went."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.engine: Engine | None = None
        self.error: AgentJobsError | None = None

    @property
    def failed(self) -> bool:
        return self.done.is_set() and self.engine is None


@asynccontextmanager
async def open_app(
    settings: Settings | ConfigError, clock: Clock | None = None, *, role: Role = "works", what: str = "server"
) -> AsyncGenerator[App]:
    """An app whose engine opens while the caller already goes on, and which is closed in order at the end.

    Enter it outside of any scope that a signal cancels: its last writes need the loop.

    Args:
        settings: What the user set, or why it cannot be used.
        clock: The time.
        role: What this process does.
        what: How others are told of it while it works.
    """
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        app = App(settings, clock or Clock(), tasks, stack, role, what)
        app.open()
        try:
            yield app
        finally:
            app.begin_shutdown()
            tasks.cancel_scope.cancel()
