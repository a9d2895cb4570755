"""Hold the head of an event stream back until it has an event, so that a balancer can still repeat the request.

A balancer can repeat a request until it has forwarded a part of the answer. The SDK sends the head of a stream at once,
or with its first ping: then a poll would fail with its replica.
"""

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Seconds without a byte. Balancers and proxies drop a silent request after 60 s, and pings come every 15 s.
HOLD_S = 40.0


class StreamHeadDelay:
    """Passes requests on, and holds back the heads of event streams."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            send = _hold_head(send)
        await self._app(scope, receive, send)


def _hold_head(send: Send) -> Send:
    """Return a `send` that keeps the head of an event stream until its first event, for at most `HOLD_S`."""
    held: list[Message] = []
    until = 0.0

    async def send_late(message: Message) -> None:
        nonlocal until
        if _begins_stream(message):
            held.append(message)
            until = anyio.current_time() + HOLD_S
            return
        if held and _is_ping(message) and anyio.current_time() < until:
            return
        while held:
            await send(held.pop())
        await send(message)

    return send_late


def _begins_stream(message: Message) -> bool:
    if message["type"] != "http.response.start":
        return False
    return Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")


def _is_ping(message: Message) -> bool:
    """Return True for a part of a stream without an event: a comment, or nothing."""
    if message["type"] != "http.response.body" or not message.get("more_body", False):
        return False
    body: bytes = message.get("body", b"")
    return body[:1] in (b"", b":")
