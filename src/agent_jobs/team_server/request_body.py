"""Read the body of a request within limits of its size and its time, before any handler runs."""

from collections.abc import Callable

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_jobs.team_server.refusals import RefusalResponse

#: Bytes of a request of MCP. A longer prompt than the provider accepts fits.
MAX_BODY_BYTES = 4 * 1024 * 1024
#: Seconds until a body is complete: a slow one must not keep its connection.
BODY_S = 30.0
#: Bytes and seconds of a body whose sender has not signed in: no webhook and no token is longer.
OPEN_BODY_BYTES = 64 * 1024
OPEN_BODY_S = 5.0
#: Bytes and seconds of a long body that are read and thrown away: a client that still sends would miss the refusal.
DISCARDED_BYTES = 64 * 1024 * 1024
DISCARD_S = 5.0


def is_never_open(_: Scope) -> bool:
    """Return False: each sender has signed in."""
    return False


class LimitedBody:
    """Reads the body of each request, and refuses one that is too long or too slow.

    Args:
        app: What answers the request.
        exempt_paths: Beginnings of paths whose routes limit the bodies themselves.
        is_open: Returns True for a request whose sender has not signed in. Its body gets the lower limits.
    """

    def __init__(
        self, app: ASGIApp, exempt_paths: tuple[str, ...] = (), is_open: Callable[[Scope], bool] = is_never_open
    ) -> None:
        self._app = app
        self._is_open = is_open
        self._exempt_paths = exempt_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse its body."""
        if scope["type"] != "http" or scope["path"].startswith(self._exempt_paths):
            return await self._app(scope, receive, send)
        limit_bytes, limit_s = MAX_BODY_BYTES, BODY_S
        if self._is_open(scope):
            limit_bytes, limit_s = OPEN_BODY_BYTES, OPEN_BODY_S
        if _exceeds_by_header(scope, limit_bytes):
            await _discard_body(receive)
            return await RefusalResponse.too_long(limit_bytes)(scope, receive, send)
        body: bytes | None = None
        with anyio.move_on_after(limit_s) as reading:
            body = await _receive_body(receive, limit_bytes)
        if reading.cancelled_caught:
            return await RefusalResponse.too_slow()(scope, receive, send)
        if body is None:
            await _discard_body(receive)
            return await RefusalResponse.too_long(limit_bytes)(scope, receive, send)
        return await self._app(scope, _repeat_body(body, receive), send)


async def read_request_body(request: Request, limit_bytes: int) -> bytes | None:
    """Return the body of a request; None if it is too long, or its sender left."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit_bytes:
                return None
    except ClientDisconnect:
        return None
    return bytes(body)


def _exceeds_by_header(scope: Scope, limit: int) -> bool:
    length = Headers(scope=scope).get("content-length", "")
    return length.isascii() and length.isdecimal() and int(length[:20]) > limit


async def _receive_body(receive: Receive, limit: int) -> bytes | None:
    """Return the body; None if it is longer than the limit. Of a client that left, return what came."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def _discard_body(receive: Receive) -> None:
    """Read what is left of a body, within limits."""
    discarded, has_more = 0, True
    with anyio.move_on_after(DISCARD_S):
        while has_more and discarded < DISCARDED_BYTES:
            message = await receive()
            discarded += len(message.get("body", b""))
            has_more = message.get("more_body", False)


def _repeat_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that begins with the body that was read."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        if unread:
            return unread.pop()
        return await receive()

    return receive_again
