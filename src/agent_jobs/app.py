"""Opens store, client, engine and worker in the background, and closes them in order."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskGroup, TaskStatus

from agent_jobs.clock import Clock
from agent_jobs.ctrl_c import catch_ctrl_c
from agent_jobs.engine.engine import Engine, Upstream
from agent_jobs.errors import AgentJobsError, ConfigError, StoreError
from agent_jobs.jobs.job import Job
from agent_jobs.settings import DEFAULT_BASE_URL, Settings
from agent_jobs.store import open_store
from agent_jobs.store.base import Store
from agent_jobs.stored_keys import format_set_command, name_endpoint, read_keyring, refuse_keyring

if TYPE_CHECKING:  # imported where jobs are sent
    from agent_jobs.engine.callbacks import CallbackRunner
    from agent_jobs.engine.finalize import Finalizer
    from agent_jobs.engine.job_traces import TraceRunner
    from agent_jobs.engine.on_finish import Notifier
    from agent_jobs.engine.owner_clients import OwnerClients, OwnerSteppers
    from agent_jobs.engine.run_limits import RunLimits
    from agent_jobs.engine.start import StartDefaults
    from agent_jobs.engine.step import JobStepper
    from agent_jobs.engine.webhook_intake import WebhookIntake
    from agent_jobs.engine.worker import Worker
    from agent_jobs.jobs.owners import OwnerLimits
    from agent_jobs.notices.callback_sender import CallbackSender
    from agent_jobs.notices.sender import NoticeSender
    from agent_jobs.pricing.prices import Prices
    from agent_jobs.store.job_import import ImportCounts
    from agent_jobs.store.postgres_address import PostgresAddress
    from agent_jobs.store.postgres_schema import SchemaState
    from agent_jobs.toolbox.config import ToolServers
    from agent_jobs.toolbox.toolbox import Toolbox
    from agent_jobs.upstream.client import ResponsesClient
    from agent_jobs.upstream.endpoint import Endpoint

logger = logging.getLogger(__name__)

KEYRING_WAIT_S = 20.0  # the user may have to unlock the keyring, and hosts cut calls at 60 s
KEYRING_RETRY_S = 10.0  # a keyring that could not be read makes other calls wait no more often
READS = "This process only reads jobs."
COLLECTED_MAX = 50  # jobs that a reading command retrieves: more connections at once would exceed its time limit
DAY_S = 86_400.0
NOTICE_LAST_S = 5.0  # for notices at the end of this process: a receiver on another continent answers within that
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
        if self._notifier is not None:
            self._tasks.start_soon(self._notifier.run)
        if self._webhooks is not None:
            self._tasks.start_soon(self._webhooks.run)
        if self._callbacks is not None:
            self._tasks.start_soon(self._callbacks.run)
        if self._traces is not None:
            self._tasks.start_soon(self._traces.run)

    async def collect(self, jobs: Sequence[Job], limit_s: float) -> Mapping[str, Job]:
        """Retrieve jobs that no process observes, in an open app that only reads; see `Collector`.

        Returns those that upstream answered in time. Without a key, or if none of them is at this endpoint, nothing is
        sent, and the HTTP client is not loaded.
        """
        settings, store = self._settings, self._store
        if isinstance(settings, ConfigError) or not settings.has_key or store is None:
            return {}
        nearby = [
            job
            for job in jobs
            if job.can_be_retrieved and not job.owner and _can_be_same_host(settings.base_url, job.turn.base_url)
        ]
        if not nearby:
            return {}
        try:
            settings, key = await _resolve_key(settings, limit_s)
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
        from agent_jobs.engine.collect import Collector
        from agent_jobs.pricing.prices import Prices
        from agent_jobs.upstream.client import open_client

        endpoint = _create_endpoint(settings, key)
        here = [job for job in nearby if job.turn.base_url == endpoint.base_url][:COLLECTED_MAX]
        async with open_client(endpoint, secrets=_list_secrets(settings)) as client:
            finalizer = self._create_finalizer(settings, store, client, Prices.load(settings.prices))
            return await Collector(store, client, self._clock, finalizer).collect(here, limit_s)

    async def _notify_finished(self, settings: Settings, store: Store, jobs: Iterable[Job]) -> None:
        """Report jobs that were found finished."""
        notifier = self._create_notifier(settings, store)
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
            self._clock = await _follow_database(store, self._clock)
        engine = await self._open_engine_on(store, settings, stack)
        self._store = store
        return engine

    async def _open_engine_on(self, store: Store, settings: Settings, stack: AsyncExitStack) -> Engine:
        if self._role == "reads":
            return Engine(store, ConfigError(READS, "not_sending"), self._clock, self._tasks, {}, settings.warnings)
        return await self._open_sending_engine(settings, store, stack)

    async def _open_sending_engine(self, settings: Settings, store: Store, stack: AsyncExitStack) -> Engine:
        """Return an engine that talks to upstream, or one that says why it cannot."""
        from agent_jobs.engine.owner_clients import OwnerClients
        from agent_jobs.engine.start import StartDefaults, StartPlanner
        from agent_jobs.pricing.prices import Prices
        from agent_jobs.request.presets import load_presets
        from agent_jobs.upstream.client import open_client

        presets = load_presets(settings.presets)
        self._callback_sender = self._create_callback_sender(settings)
        self._callbacks = self._create_callback_runner(store)
        try:
            settings, key = await _resolve_key(settings)
        except ConfigError as missing:
            self._retry_key_at = self._clock.now() + KEYRING_RETRY_S
            return Engine(store, missing, self._clock, self._tasks, presets, settings.warnings)
        self._retry_key_at = None
        await self._open_traces(store, stack)
        endpoint = _create_endpoint(settings, key)
        defaults = StartDefaults(
            prices=Prices.load(settings.prices),
            presets=presets,
            model=settings.model,
            secrets=settings.secrets,
            file_roots=settings.file_roots,
            budget_usd=settings.daily_budget_usd,
            owner_limits=_read_owner_limits(settings),
            budget_spent=settings.budget_mode == "spent",
            toolbox=self._create_toolbox(settings),
            toolbox_owners=settings.toolbox_owners,
            callback_hosts=settings.callback_hosts if settings.callback_secret_file else (),
        )
        client = await stack.enter_async_context(
            open_client(
                endpoint,
                start_timeout_s=settings.start_timeout_s,
                secrets=_list_secrets(settings),
                read_endpoint=partial(self._read_endpoint, settings.base_url),
            )
        )
        self._notifier = self._create_notifier(settings, store)
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
        from agent_jobs.setting_values import read_owner_key
        from agent_jobs.upstream.client import open_client

        async def read_endpoint() -> Endpoint:
            return _create_endpoint(settings, read_owner_key(settings.owner_keys_dir, key_ref, os.environ))

        return await self._stack.enter_async_context(
            open_client(
                await read_endpoint(),
                start_timeout_s=settings.start_timeout_s,
                secrets=_list_secrets(settings),
                read_endpoint=read_endpoint,
            )
        )

    async def _read_endpoint(self, base_url: str) -> Endpoint | None:
        """Return the address with the key that is stored now, None if there is none."""
        settings = self._settings if self._reload is None else self._reload()
        if isinstance(settings, ConfigError) or settings.base_url != base_url:
            return None
        try:
            settings, key = await _resolve_key(settings)
        except ConfigError:
            return None
        return _create_endpoint(settings, key)

    def _report_budget(self, settings: Settings) -> None:
        """Send a notice that the day's budget refuses jobs, once a day."""
        if settings.notify and "budget" in settings.notify_events:
            self._tasks.start_soon(self._send_budget_notice, settings)

    async def _send_budget_notice(self, settings: Settings) -> None:
        from agent_jobs.notices.daily import claim_day
        from agent_jobs.notices.notice import make_refusal_notice

        now = self._clock.now()
        try:
            with anyio.move_on_after(NOTICE_LAST_S, shield=True):  # the command that was refused ends now
                if await anyio.to_thread.run_sync(claim_day, settings.data_path() / "run", now):
                    await create_notice_sender(settings, self._clock).deliver("budget", make_refusal_notice(now))
        except Exception:
            logger.exception("the notice of the budget was not sent")

    def _create_toolbox(self, settings: Settings) -> Toolbox | None:
        """Return the user's tool servers, none of them started; an unreadable file stops nothing else."""
        servers = read_tool_servers(settings)
        if servers is None:
            return None
        from agent_jobs.toolbox.toolbox import Toolbox

        problems = [problem for problem in (servers.broken, *servers.warnings) if problem]
        if problems:
            logger.warning("%s", " ".join(problems))
        return Toolbox(servers, os.environ, self._tasks, concurrency=settings.tool_concurrency)

    def _create_notifier(self, settings: Settings, store: Store) -> Notifier | None:
        """Return what reports finished jobs to the user's command and targets; None if there are none."""
        if not settings.on_finish and not settings.notify:
            return None
        from agent_jobs.engine.on_finish import Notifier, Reporter

        reporters: list[Reporter] = []
        if settings.on_finish:
            from agent_jobs.engine.on_finish_command import LIMIT_S, Command

            limit_s = LIMIT_S / self._clock.speed
            reporters.append(Command(settings.on_finish, hide_secrets(settings), settings.data_path(), limit_s))
        if settings.notify:
            reporters.append(LateNoticeSender(settings, self._clock))
        return Notifier(store, self._clock, reporters)

    def _create_callback_sender(self, settings: Settings) -> CallbackSender | None:
        """Return what calls back callers of jobs and subscribers of owners; None if the user allows no such calls.

        Subscribers bring a secret of their own, and only a team server has them.
        """
        has_secrets = settings.callback_secret_file is not None
        if not settings.callback_hosts or not (has_secrets or self._what in SERVES_OWNERS):
            return None
        from agent_jobs.notices.callback_sender import CallbackSender, read_signing_secrets

        secrets: Sequence[bytes] = ()
        if settings.callback_secret_file is not None:
            secrets = read_signing_secrets(settings.callback_secret_file)
        return CallbackSender(settings.callback_hosts, secrets, self._clock)

    def _create_callback_runner(self, store: Store) -> CallbackRunner | None:
        if self._callback_sender is None:
            return None
        from agent_jobs.engine.callbacks import CallbackRunner

        return CallbackRunner(store, self._clock, self._callback_sender.send)

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
        """Return what runs the jobs."""
        from agent_jobs.engine.owner_clients import OwnerSteppers
        from agent_jobs.engine.step import JobStepper
        from agent_jobs.engine.tool_loop import ToolLoop
        from agent_jobs.engine.worker import Worker

        limits = _create_limits(settings)
        shared = clients.shared

        def create_stepper(client: ResponsesClient) -> JobStepper:
            finalizer = self._create_finalizer(settings, store, client, defaults.prices)
            tool_loop = ToolLoop(store, self._clock, finalizer, defaults.prices, defaults.toolbox, limits)
            return JobStepper(store, client, self._clock, limits, finalizer, tool_loop, defaults.secrets)

        self._stepper = OwnerSteppers(store, clients, create_stepper(shared), create_stepper, self._tasks)
        self._tasks.start_soon(self._stepper.write_progress)
        return Worker(
            store,
            self._stepper,
            self._clock,
            self._tasks,
            client=shared,
            limits=limits,
            retention_s=None if settings.retention_days is None else settings.retention_days * DAY_S,
            delete_upstream=clients if settings.delete_upstream == "yes" else None,
        )

    def _create_finalizer(self, settings: Settings, store: Store, client: ResponsesClient, prices: Prices) -> Finalizer:
        from agent_jobs.engine.finalize import Finalizer

        made = settings.result_dir or settings.data_path() / "made"
        return Finalizer(store, client, self._clock, prices, results=settings.result_dir, made=made)

    async def _release_claims(self, store: Store) -> None:
        """Leave the jobs to the next process at once."""
        try:
            await store.release_claims(self._clock.now())
        except StoreError as error:
            logger.warning("cannot release the jobs; the next process takes them over: %s", error)


def find_postgres(settings: Settings) -> PostgresAddress | None:
    """Return the address of the PostgreSQL database; None if the jobs are in a file.

    Raises:
        ConfigError: The file with its password cannot be read.
    """
    if settings.database_url is None:
        return None
    from agent_jobs.setting_values import read_password_file
    from agent_jobs.store.postgres_address import PostgresAddress

    listen_url, password_file = settings.database_listen_url, settings.database_password_file
    return PostgresAddress(
        settings.database_url.get_secret_value(),
        listen_url and listen_url.get_secret_value(),
        password_file and read_password_file(password_file),
        settings.pool,
    )


async def upgrade_database(settings: Settings) -> SchemaState:
    """Bring the schema of the PostgreSQL database up to date; return its version before, and after.

    Raises:
        ConfigError: No such database is set.
        StoreError: It cannot be used.
    """
    address = _require_postgres(settings)
    from agent_jobs.store.postgres_schema import upgrade

    return await upgrade(address)


async def read_schema_state(settings: Settings) -> SchemaState:
    """Return the version of the schema of the PostgreSQL database, and the one that this program needs."""
    address = _require_postgres(settings)
    from agent_jobs.store import postgres_schema

    return await postgres_schema.read_schema_state(address)


async def import_job_file(settings: Settings, path: Path, owner: str | None, is_dry_run: bool) -> ImportCounts:
    """Move the jobs of a SQLite file into the PostgreSQL database, or only count them.

    Raises:
        ConfigError: No such database is set.
        StoreError: There is no such file, a process works on it, or a database cannot be used.
    """
    if find_postgres(settings) is None:
        raise ConfigError(
            "AGENT_JOBS_DATABASE_URL is not set, so there is no PostgreSQL database to import into.", "no_import_target"
        )
    address = _require_postgres(settings)
    from agent_jobs.engine.team_files import MADE_BYTES, create_made_id
    from agent_jobs.store.job_import import JobImport, import_jobs

    made = settings.result_dir or settings.data_path() / "made"
    order = JobImport(path, address, made, owner, Clock().now(), create_made_id, MADE_BYTES)
    return await import_jobs(order, is_dry_run=is_dry_run)


def _require_postgres(settings: Settings) -> PostgresAddress:
    from agent_jobs.store.postgres_address import check_extra

    address = find_postgres(settings)
    if address is None:
        raise ConfigError(
            "AGENT_JOBS_DATABASE_URL is not set, so the jobs are in a file, which each version upgrades by itself.",
            "no_postgres",
        )
    check_extra()
    return address


async def cancel_on_signal(
    scope: anyio.CancelScope,
    interrupt: Callable[[], bool] = lambda: True,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Cancel a scope when the process gets a signal to end, or its terminal is closed.

    Args:
        scope: The scope to cancel.
        interrupt: Called at each Ctrl-C; returns True if the scope ends now. The other signals always end it.
        task_status: Started once signals are received.
    """
    if sys.platform == "win32":  # pragma: no cover
        task_status.started()
        return  # the event loop there has no signal receiver: hosts close stdin, Ctrl-C ends the process
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


def read_tool_servers(settings: Settings) -> ToolServers | None:
    """Read the file with the user's tool servers; return None if no file is set."""
    if settings.toolbox is None:
        return None
    from agent_jobs.toolbox.config import read_toolbox

    return read_toolbox(settings.toolbox)


def _create_endpoint(settings: Settings, key: str) -> Endpoint:
    from agent_jobs.upstream.endpoint import Endpoint

    return Endpoint.of(
        settings.base_url, key, auth=settings.auth, organization=settings.organization, project=settings.project
    )


async def _follow_database(store: Store, clock: Clock) -> Clock:
    """Return the clock of the database if there is one: those of several machines may disagree."""
    before = clock.now()
    time = await store.read_clock()
    if time is None:
        return clock
    return clock.shifted(time - (before + clock.now()) / 2)


async def _resolve_key(settings: Settings, limit_s: float = KEYRING_WAIT_S) -> tuple[Settings, str]:
    """Return the settings with their key, and the key itself. The keyring is waited for at most `limit_s`.

    Raises:
        ConfigError: There is none, or the keyring that has it cannot be read.
    """
    if settings.api_key is None and settings.stored_key is not None:
        endpoint = settings.stored_key.endpoint
        with anyio.move_on_after(limit_s):
            secret = await anyio.to_thread.run_sync(read_keyring, endpoint, abandon_on_cancel=True)
            settings = replace(settings, api_key=secret)
        if settings.api_key is None:
            raise refuse_keyring(endpoint)
    if settings.api_key is None:
        raise missing_key_error(settings)
    return settings, settings.api_key.get_secret_value()


def missing_key_error(settings: Settings) -> ConfigError:
    """Return that no key is set for the endpoint, with the command that sets it."""
    command = format_set_command(settings.base_url, DEFAULT_BASE_URL)
    endpoint = ""
    if command != format_set_command(DEFAULT_BASE_URL, DEFAULT_BASE_URL):
        endpoint = f" for {name_endpoint(settings.base_url)}"
    problem = " ".join((f"No API key is set{endpoint}.", *settings.warnings))
    return ConfigError("{problem}", "no_key", problem=problem, command=command)


def _create_limits(settings: Settings) -> RunLimits:
    from agent_jobs.engine.run_limits import RunLimits

    return RunLimits(
        streams=settings.follow,
        concurrent=settings.max_concurrent,
        job_timeout_s=settings.job_timeout_s,
        input_timeout_s=settings.input_timeout_s,
        budget_usd=settings.daily_budget_usd,
        owner=_read_owner_limits(settings),
        budget_spent=settings.budget_mode == "spent",
        resubmit=settings.resubmit == "once",
        expects_webhooks=settings.webhook_secret_file is not None,
        mode=None if settings.mode == "auto" else settings.mode,
    )


def _read_owner_limits(settings: Settings) -> OwnerLimits:
    """Return the limits of an owner for whom none were set."""
    from agent_jobs.jobs.owners import OwnerLimits

    return OwnerLimits(settings.owner_max_concurrent, settings.owner_daily_budget_usd, settings.owner_starts_per_minute)


def hide_secrets(settings: Settings) -> dict[str, str]:
    """Return the environment of a program of the user's: that of this process without our secrets."""
    hidden = {*_list_secrets(settings)} - {""}
    return {
        name: value
        for name, value in os.environ.items()
        if name != "OPENAI_API_KEY" and name not in settings.secrets and value.strip() not in hidden
    }


def create_notice_sender(settings: Settings, clock: Clock) -> NoticeSender:
    """Return what sends notices to the user's targets."""
    from agent_jobs.notices.sender import NoticeSender

    return NoticeSender(
        targets=settings.notify,
        events=settings.notify_events,
        min_s=settings.notify_min_s,
        secret=settings.notify_secret,
        environ=hide_secrets(settings),
        clock=clock,
    )


class LateNoticeSender:
    """A `NoticeSender` that is imported when the first notice is sent."""

    last_s = NOTICE_LAST_S
    unfinished = "notices of AGENT_JOBS_NOTIFY may not have been sent: this process ends"

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._create = partial(create_notice_sender, settings, clock)
        self._sender: NoticeSender | None = None

    def run(self, job_id: str, notice: Mapping[str, Any], /) -> None:
        """Send the notices of a job. Blocks until that is done."""
        self._sender = self._sender or self._create()
        self._sender.run(job_id, notice)


def _list_secrets(settings: Settings) -> list[str]:
    """Return the values that no error may repeat."""
    secrets = (settings.api_key, settings.notify_secret, *settings.secrets.values())
    return [each.get_secret_value() for each in secrets if each is not None]


def _can_be_same_host(base_url: str, other: str) -> bool:
    """Return False if two addresses are certainly of different hosts; the full comparison loads the HTTP client."""
    hosts = {urlsplit(url).hostname for url in (base_url, other)}
    return len(hosts) == 1 or not all(host and host.isascii() for host in hosts)


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
