"""Show the page to users who sign in with their team tokens, at the root of the server."""

import time
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_jobs.engine.engine import Engine
from agent_jobs.page.access import BrowserSession, TokenAccess, TokenOwner, derive_secret, read_secret
from agent_jobs.page.app import PATHS, PageServer, build_page
from agent_jobs.page.peer_address import read_address
from agent_jobs.settings.settings import Settings
from agent_jobs.team_server.audit import AuditWriter
from agent_jobs.team_server.caller import Caller
from agent_jobs.team_server.connections import admit_connection
from agent_jobs.team_server.host_check import HostNames
from agent_jobs.team_server.request_body import LimitedBody

#: Names the page in the audit log.
CLIENT = "page"


class PageSwitch:
    """Passes requests of browsers on to the page, and all others to the rest of the server.

    Args:
        app: The rest of the server.
        page: The page, which signs its visitors in itself.
    """

    def __init__(self, app: ASGIApp, page: ASGIApp) -> None:
        self._app = app
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if _is_for_page(scope):
            return await self._page(scope, receive, send)
        return await self._app(scope, receive, send)


def build_team_page(
    engine: Callable[[], Awaitable[Engine]],
    audit: AuditWriter,
    names: HostNames,
    secret: bytes,
    tasks: TaskGroup,
    ending: anyio.Event,
    *,
    is_secure: bool,
) -> ASGIApp:
    """Return the page on which each owner sees only their own jobs.

    Args:
        engine: Returns the engine over all owners.
        audit: Writes what visitors do.
        names: The names of this server.
        secret: Signs cookies; the same in all replicas.
        tasks: Runs what outlives a request, until the server ends.
        ending: The server is about to end.
        is_secure: Whether users reach the server over HTTPS.
    """

    async def find_owner(token_hash: str) -> TokenOwner | None:
        owners = (await engine()).owners
        record, fault = await owners.find_token_by_hash(token_hash)
        if record is None or fault:
            return None
        await owners.mark_token_used(record)
        return TokenOwner(record.owner, record.id)

    async def report_refused(address: str) -> None:
        await audit.record_refused(Caller("", "", CLIENT, address), "unknown token (page)")

    async def record_visit(user: TokenOwner, action: str, address: str) -> None:
        await audit.record_visit(Caller(user.owner, user.token_id, CLIENT, address), action)

    async def find_engine(request: Request) -> Engine:
        admit_connection(request.scope)
        session: BrowserSession = request.scope["page_session"]
        caller = Caller(session.owner, session.token_id, CLIENT, read_address(request.scope))
        return (await engine()).for_owner(session.owner).with_reporter(audit.create_recorder(caller))

    access = TokenAccess(secret, time.time, find_owner, report_refused, record_visit)
    limits = [Middleware(LimitedBody, is_open=_is_not_signed_in)]
    return build_page(find_engine, access, PageServer(names.is_known_host, tasks, ending, is_secure, limits))


def derive_page_secret(settings: Settings) -> bytes:
    """Return the secret of the page and of the job card, which is the same in all replicas."""
    if settings.api_key is None:
        return read_secret(settings.data_path())
    return derive_secret(settings.api_key.get_secret_value())


def _is_not_signed_in(scope: Scope) -> bool:
    """Return True for a request that the Guard passed on without a session."""
    session: BrowserSession = scope["page_session"]
    return not session.token


def _is_for_page(scope: Scope) -> bool:
    """Return True for a request that a browser sends: a program sends its token with it."""
    if scope["type"] != "http" or "authorization" in Headers(scope=scope):
        return False
    return scope["path"].removeprefix("/").partition("/")[0] in PATHS
