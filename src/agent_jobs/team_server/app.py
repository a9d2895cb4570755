"""Build the app that answers HTTP: MCP at `/mcp` behind the checks of host, token and body."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_jobs.team_server.caller import Caller
from agent_jobs.team_server.files import FILES_PATH
from agent_jobs.team_server.host_check import HostCheck, HostNames
from agent_jobs.team_server.readiness import Readiness
from agent_jobs.team_server.refusals import RefusalResponse
from agent_jobs.team_server.request_body import MAX_BODY_BYTES, LimitedBody
from agent_jobs.team_server.sign_in import Challenge, TokenCheck, TokenVerifier
from agent_jobs.team_server.stream_head_delay import StreamHeadDelay

MCP_PATH = "/mcp"


class AccessPolicy(NamedTuple):
    """Who may call the server, and what reports refused callers."""

    verifiers: Collection[TokenVerifier]
    challenge: Challenge
    report_refused: Callable[[Caller, str], Awaitable[object]]
    open_routes: Sequence[Route] = ()  #: routes that need no token
    page: Callable[[ASGIApp], ASGIApp] | None = None  #: wraps the app with the page, on which browsers sign in


class TeamApp(NamedTuple):
    """The app, and the parts that its server controls."""

    asgi: ASGIApp
    readiness: Readiness
    run: AbstractAsyncContextManager[object]  #: must be entered before the first request


def build_app(server: MCPServer, names: HostNames, policy: AccessPolicy, routes: Sequence[BaseRoute] = ()) -> TeamApp:
    """Return the app over an MCP server.

    Args:
        server: Answers the messages of MCP.
        names: The names of this server.
        policy: Says who may call.
        routes: More routes for callers that have signed in.
    """
    mcp = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        stateless_http=True,  # a replica that is killed has nothing that another one lacks
        max_request_body_size=MAX_BODY_BYTES,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # HostCheck is stricter
    )
    everything = Starlette(
        routes=[*policy.open_routes, *routes, Route(MCP_PATH, _PostOnly(mcp))],
        exception_handlers={405: _refuse_method},
    )
    everything.router.default = _not_found
    everything.router.redirect_slashes = False
    open_paths = frozenset(route.path for route in policy.open_routes)
    limited = LimitedBody(
        StreamHeadDelay(everything),
        exempt_paths=(f"{FILES_PATH}/",),
        is_open=lambda scope: scope["path"] in open_paths,
    )
    signed_in = TokenCheck(limited, policy.verifiers, policy.challenge, policy.report_refused, open_paths)
    entrance: ASGIApp = signed_in
    if policy.page is not None:
        entrance = policy.page(signed_in)
    readiness = Readiness(HostCheck(entrance, names))
    return TeamApp(readiness, readiness, mcp.router.lifespan_context(mcp))


class _PostOnly:
    """Passes on POST alone: without sessions there is no stream to read and nothing to delete."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            return await RefusalResponse.only_post()(scope, receive, send)
        return await self._app(scope, receive, send)


async def _refuse_method(_: Request, error: Exception) -> Response:
    """Refuse a method that a route does not have. The router names those that it has."""
    match error:
        case HTTPException(headers={"Allow": str() as allowed}):
            return RefusalResponse.wrong_method(*sorted(allowed.split(", ")))
        case _:
            return RefusalResponse.wrong_method()


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await RefusalResponse(404, "not_found", f"Nothing is served at this address. MCP is at {MCP_PATH}.")(
        scope, receive, send
    )
