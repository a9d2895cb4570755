"""Answer the health checks of a load balancer: alive, and ready for requests. The database is not queried."""

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_jobs.team_server.refusals import RefusalResponse

#: Paths of health checks.
HEALTH_PATHS = frozenset({"/healthz", "/readyz"})


class Readiness:
    """Answers `/healthz` and `/readyz`, and passes everything else on.

    While the server drains, answers ask clients to close their connections, so that the next request goes elsewhere.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        app = _refuse_other_methods(scope) or self._find_answer(scope["path"]) or self._app
        if self.is_draining:
            send = _close_after(send)
        return await app(scope, receive, send)

    def _find_answer(self, path: str) -> Response | None:
        match path:
            case "/healthz":
                return PlainTextResponse("ok\n")
            case "/readyz" if self.is_draining:
                return PlainTextResponse("draining\n", 503)
            case "/readyz":
                return PlainTextResponse("ready\n")
            case _:
                return None


def _refuse_other_methods(scope: Scope) -> Response | None:
    """Return the refusal of a method that no path has, or that a balancer does not use; None for others."""
    if scope["method"] == "CONNECT":  # any 2xx would turn the connection into a tunnel
        return RefusalResponse.wrong_method()
    if scope["path"] in HEALTH_PATHS and scope["method"] not in ("GET", "HEAD"):
        return RefusalResponse.wrong_method("GET", "HEAD")
    return None


def _close_after(send: Send) -> Send:
    async def send_with_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_with_close
