"""Run the team server: open the jobs, listen, and at a signal answer all open requests before the end."""

import logging
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import anyio
import uvicorn
from anyio.abc import TaskStatus
from mcp.server import MCPServer
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.subscriptions import ListenHandler
from starlette.routing import Route

from agent_jobs.app import App, open_app
from agent_jobs.clock import Clock
from agent_jobs.ctrl_c import catch_ctrl_c
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, ConfigError
from agent_jobs.mcp_server.events import EventsExtension
from agent_jobs.mcp_server.server import build_server
from agent_jobs.mcp_server.tool_adapter import is_for_team
from agent_jobs.settings.settings import Settings
from agent_jobs.team_server.app import MCP_PATH, AccessPolicy, TeamApp, build_app
from agent_jobs.team_server.audit import AuditWriter
from agent_jobs.team_server.caller import get_current_caller, set_current_caller
from agent_jobs.team_server.connections import ConnectionConfig
from agent_jobs.team_server.files import build_file_routes
from agent_jobs.team_server.host_check import HostNames
from agent_jobs.team_server.oauth import (
    RESOURCE_PATH,
    Resource,
    build_resource_routes,
    create_issuer_client,
    create_verifier,
    find_resource,
)
from agent_jobs.team_server.sign_in import MAX_CLIENT_CHARS, Challenge, TokenVerifier
from agent_jobs.team_server.team_tokens import TeamTokens
from agent_jobs.team_server.token_watch import end_with_token
from agent_jobs.text import describe_listen_error
from agent_jobs.web_address import is_loopback, write_host

logger = logging.getLogger(__name__)

#: Seconds for open answers after all waits have ended. Then the rest is cancelled.
ANSWER_S = 10
BACKLOG = 2048  # connections that wait to be accepted
#: Settings for the machine's single user, which must not apply to every owner.
SINGLE_USER_SETTINGS = ("AGENT_JOBS_FILE_ROOTS", "AGENT_JOBS_TOOLBOX", "AGENT_JOBS_SECRETS")


class _DrainingServer(uvicorn.Server):
    """A server that leaves signals to `TeamServer`."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave all signals to `TeamServer`."""
        yield


class TeamServer:
    """Serves an app on a socket until a signal ends it.

    Args:
        team: The ASGI app.
        app: The jobs.
        engine: The engine over all owners.
        mcp: The server of MCP in the app.
        drain_s: Seconds between the first "not ready" and the end of the waits.
        ending: Is set when the streams of open pages are to end.
    """

    def __init__(
        self, team: TeamApp, app: App, engine: Engine, mcp: MCPServer, drain_s: float, ending: anyio.Event
    ) -> None:
        self._ending = ending
        self.app = app
        self.engine = engine
        self._team = team
        self._mcp = mcp
        self._drain_s = drain_s
        config = ConnectionConfig(
            team.asgi,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=ANSWER_S,
        )
        self._server = _DrainingServer(config)
        self._drain_waits = anyio.CancelScope()

    async def run(self, listener: socket.socket, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP. Return once all answers are sent."""
        # Accepted sockets inherit it: an answer in two writes would wait for the client's ACK, which takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with self._team.run, anyio.create_task_group() as tasks:
            await tasks.start(self._drain_on_signal)
            task_status.started()
            await self._server.serve(sockets=[listener])
            tasks.cancel_scope.cancel()

    @property
    def open_requests(self) -> int:
        """Return how many requests are being answered."""
        return len(self._server.server_state.tasks)

    async def drain(self) -> None:
        """Report not ready, wait until balancers have noticed, answer all waiting calls, and stop."""
        logger.info("draining with %s open requests", self.open_requests)
        self._team.readiness.is_draining = True
        with self._drain_waits:
            await anyio.sleep(self._drain_s)
        self._ending.set()
        self.engine.end_waits()
        _end_subscriptions(self._mcp)
        self._server.should_exit = True

    async def _drain_on_signal(self, *, task_status: TaskStatus[None]) -> None:
        async with anyio.create_task_group() as tasks:

            def drain_at_once() -> None:
                self._drain_waits.cancel()  # a person waits at the terminal
                tasks.start_soon(self.drain)

            with catch_ctrl_c(drain_at_once), anyio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
                task_status.started()
                async for _ in signals:
                    if self._team.readiness.is_draining:
                        self._drain_waits.cancel()  # it got a second signal
                    else:
                        tasks.start_soon(self.drain)


def _end_subscriptions(server: MCPServer) -> None:
    """End all notification streams. Their clients connect again to another replica."""
    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # mcp 2.3 has no public way
    entry = low.get_request_handler("subscriptions/listen")
    if entry is not None and isinstance(entry.handler, ListenHandler):
        entry.handler.close()


@asynccontextmanager
async def open_team_server(
    settings: Settings, clock: Clock | None = None, *, reload: Callable[[], Settings | ConfigError] | None = None
) -> AsyncGenerator[TeamServer]:
    """Open the jobs and build the server over them; close all in order at the end.

    Raises:
        ConfigError: Other machines could call it without signing in.
        StoreError: The database cannot be used.
    """
    for name in find_single_user_settings(settings):
        logger.warning("%s is not used over HTTP: it would lend the operator's rights to every owner.", name)
    settings = replace(settings, file_roots=(), secrets={})
    if not settings.toolbox_owners:
        settings = replace(settings, toolbox=None)
    refusal: AgentJobsError | None = None
    async with open_app(settings, clock, role="works", what="serve --http", reload=reload) as app:
        try:
            engine = await app.engine()
            await check_access(settings, engine)
            resource = find_resource(settings, describe_address(settings))
            open_routes = _build_open_routes(settings, app, resource)
        except AgentJobsError as error:  # the app's task group would wrap it into an ExceptionGroup
            refusal = error
        else:
            async with _build_team_server(settings, app, engine, resource, open_routes) as server:
                yield server
    if refusal is not None:
        raise refusal


@asynccontextmanager
async def _build_team_server(
    settings: Settings, app: App, engine: Engine, resource: Resource | None, open_routes: Sequence[Route]
) -> AsyncGenerator[TeamServer]:
    # The commands load this module, too, and need no templates.
    from agent_jobs.team_server.team_page import PageSwitch, build_team_page, derive_page_secret

    audit, names, ending = AuditWriter(app.engine), HostNames(settings.host, settings.public_url), anyio.Event()
    secret = derive_page_secret(settings)

    async def open_caller_engine() -> Engine:
        caller = get_current_caller()
        bound = (await app.engine()).for_owner(caller.owner).with_team_page(settings.public_url or "")
        return bound.with_reporter(audit.create_recorder(caller))

    async def report(action: str) -> None:
        await audit.record_visit(get_current_caller(), action)

    events = EventsExtension(open_caller_engine, lambda: get_current_caller().token_id, report)
    server = _build_mcp_server(settings, open_caller_engine, events, card_key=secret.hex())
    async with _open_verifiers(settings, app, resource) as verifiers, anyio.create_task_group() as tasks:
        is_secure = (settings.public_url or "").startswith("https:")
        page = build_team_page(app.engine, audit, names, secret, tasks, ending, is_secure=is_secure)
        challenge = _create_challenge(resource)
        policy = AccessPolicy(verifiers, challenge, audit.record_refused, open_routes, partial(PageSwitch, page=page))
        team = build_app(server, names, policy, build_file_routes(open_caller_engine))
        yield TeamServer(team, app, engine, server, settings.drain_s, ending)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def _open_verifiers(
    settings: Settings, app: App, resource: Resource | None
) -> AsyncGenerator[Sequence[TokenVerifier]]:
    tokens = TeamTokens(app.engine)
    if resource is None:
        yield [tokens]
        return
    async with create_issuer_client() as http:
        yield [tokens, create_verifier(settings, resource, http)]


def _create_challenge(resource: Resource | None) -> Challenge:
    if resource is None:
        return Challenge()
    return Challenge(f"{resource.url.removesuffix(MCP_PATH)}{RESOURCE_PATH}{MCP_PATH}")


def _build_open_routes(settings: Settings, app: App, resource: Resource | None) -> list[Route]:
    """Return the routes that need no team token: metadata, webhooks, which are signed, and metrics with their own."""
    routes: list[Route] = []
    if resource is not None:
        routes += build_resource_routes(resource)
    if settings.webhook_secret_file is not None:
        _require_extra("standardwebhooks", "AGENT_JOBS_WEBHOOK_SECRET_FILE")
        from agent_jobs.team_server.provider_webhooks import build_webhook_routes  # its library comes with the extra

        routes += build_webhook_routes(app.engine, settings.webhook_secret_file)
    if settings.metrics_token_file is not None:
        _require_extra("prometheus_client", "AGENT_JOBS_METRICS_TOKEN_FILE")
        from agent_jobs.team_server.metrics import build_metrics_route  # its library comes with the extra

        routes.append(build_metrics_route(app.engine, settings.metrics_token_file))
    return routes


def _require_extra(library: str, setting: str) -> None:
    """Raise ConfigError if a library is missing that a setting needs."""
    if find_spec(library) is None:
        raise ConfigError(f"{setting} needs the extra team: install 'agent-jobs[team]', or remove the setting.")


def _build_mcp_server(
    settings: Settings, open_caller_engine: Callable[[], Awaitable[Engine]], events: EventsExtension, *, card_key: str
) -> MCPServer:
    server = build_server(
        open_caller_engine,
        max_wait_s=settings.max_wait_s,
        may_approve=settings.approvals == "model",
        has_tasks=settings.tasks == "auto",
        is_structured=settings.structured,
        card_key=card_key,
        extensions=[events],
    )
    server.middleware.append(_note_caller)
    server.middleware.append(events.advertise)
    server.middleware.append(end_with_token)
    return server


async def _note_caller(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Mark the caller as a remote one, and note the name of its program for the audit log.

    Without a name it is known by its HTTP library.
    """
    is_for_team.set(True)
    client = ctx.session.client_params
    if client is not None:
        set_current_caller(replace(get_current_caller(), client=client.client_info.name[:MAX_CLIENT_CHARS]))
    return await call_next(ctx)


async def check_access(settings: Settings, engine: Engine) -> None:
    """Refuse to listen for other machines while there is no way to sign in.

    Raises:
        ConfigError: It would.
    """
    if is_loopback(settings.host):
        return
    if settings.oauth_issuer is not None and settings.public_url is None:
        raise ConfigError(
            "AGENT_JOBS_OAUTH_ISSUER needs AGENT_JOBS_PUBLIC_URL, because tokens are made for one address. Set it to "
            "the address that users know."
        )
    if settings.oauth_issuer is not None or await engine.owners.has_good_token():
        return
    raise ConfigError(
        f"The server would listen on {settings.host}, but no one could sign in, because there is no token. Make one "
        "with `agent-jobs token add OWNER`, set AGENT_JOBS_OAUTH_ISSUER, or listen on 127.0.0.1."
    )


def find_single_user_settings(settings: Settings) -> list[str]:
    """Return the names of settings that are set and are not used over HTTP."""
    values = (settings.file_roots, settings.toolbox and not settings.toolbox_owners, settings.secrets)
    return [name for name, value in zip(SINGLE_USER_SETTINGS, values, strict=True) if value]


def describe_address(settings: Settings) -> str:
    """Return the address of MCP, as users reach it; the port must be known by now."""
    if settings.public_url is not None:
        return f"{settings.public_url}{MCP_PATH}"
    return f"http://{write_host(settings.host)}:{settings.port}{MCP_PATH}"


def open_listener(settings: Settings) -> socket.socket:
    """Return a socket that listens at the address of the settings.

    Raises:
        ConfigError: It cannot.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except (OSError, ValueError) as error:  # a name that IDNA cannot encode is a ValueError
        reason = describe_listen_error(error)
        raise ConfigError(
            f"Cannot listen on {settings.host}, port {settings.port} ({reason}). Choose others with --host and --port."
        ) from None
