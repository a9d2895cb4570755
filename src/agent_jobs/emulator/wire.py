"""Send answers and server-sent events over the wire, as the faults of the exchange change them."""

import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, cast

import anyio
from starlette.requests import Request
from starlette.types import Send

from .errors import ApiError, broken_json_error
from .faults import Fault, FaultQueue
from .items import build_page
from .run import TERMINAL, Clock, Run

__all__ = ["Exchange"]

Json = dict[str, Any]

#: Fields that compatible servers leave out of response objects, though the schema requires them.
_OFTEN_MISSING = ("object", "parallel_tool_calls", "tool_choice", "tools", "created_at", "metadata", "text")
_HEADERS = {
    "openai-version": "2020-10-01",
    "openai-organization": "org-emulated",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-limit-tokens": "30000000",
    "x-ratelimit-remaining-tokens": "29999900",
    "x-ratelimit-reset-tokens": "0s",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
    "x-emulated": "true",
}


@dataclass
class Exchange:
    """A request, the fault it meets, and the ways to answer it."""

    request: Request
    send: Send
    clock: Clock
    entry: Json
    raw: bytes = b""
    fault: Fault = field(default_factory=Fault)
    brought: FaultQueue = field(default_factory=FaultQueue)
    headers: dict[str, str] = field(default_factory=dict[str, str])
    began: float = field(default_factory=time.monotonic)

    def read_body(self) -> Json:
        """Return the JSON object in the request's body; an empty body is an empty object."""
        try:
            value = json.loads(self.raw or b"{}")
        except ValueError:
            raise broken_json_error() from None
        if not isinstance(value, dict):
            raise broken_json_error()
        return cast("Json", value)

    def read_flag(self, name: str, *, default: bool = False) -> bool:
        """Read a boolean of the query string."""
        return self.request.query_params.get(name, str(default)).lower() in ("true", "1")

    def read_number(self, name: str, default: int) -> int:
        """Read an integer of the query string."""
        try:
            return int(self.request.query_params.get(name, default))
        except ValueError:
            message = f"Invalid type for '{name}': expected an integer, but got a string instead."
            raise ApiError(400, message, param=name, code="invalid_type") from None

    def read_page(self, items: list[Json], *, usual: int = 20, most: int = 100) -> Json:
        """Return the page of a list that the query string asks for."""
        query = self.request.query_params
        limit = self.read_number("limit", usual)
        return build_page(items, limit=limit, most=most, order=query.get("order", "desc"), after=query.get("after"))

    async def send_json(self, payload: Mapping[str, Any]) -> None:
        """Answer with JSON."""
        if self.fault.missing_fields and "output" in payload:
            payload = drop_optional_fields(payload)
        await self._send_unless_refused(self.fault.status or 200, "application/json", _encode_json(payload).encode())

    async def send_binary(self, content: bytes) -> None:
        """Answer with the content of a file."""
        await self._send_unless_refused(self.fault.status or 200, "application/octet-stream", content)

    async def send_error(self, error: ApiError) -> None:
        """Answer with an error."""
        await self._send_unless_refused(error.status, *self._encode_error(error))

    async def refuse(self) -> None:
        """Send the answer of the fault in place of the real one."""
        fault = self.fault
        status = fault.status or 200
        if fault.body is None and fault.content_type is None:
            content_type, body = self._encode_error(ApiError.from_status(status))
        else:
            content_type, body = _encode_body(fault.body, "text/html")
        await self._send_answer(status, fault.content_type or content_type, body)

    async def send_events(self, run: Run, after: int = -1, *, obfuscated: bool = True) -> None:
        """Send the run's events after a sequence number."""
        if self.fault.after_accept:
            return await self.refuse()
        await self._send_start(200, {"content-type": "text/event-stream; charset=utf-8"})
        async for piece in self._stream_pieces(run, after, obfuscated=obfuscated):
            size = self.fault.split_bytes or len(piece)
            for at in range(0, len(piece), size):
                await self._send_body(piece[at : at + size], more=True)
        await self._send_body(b"", more=False)

    async def drop(self) -> None:
        """Close the connection at once, even in the middle of an answer."""
        self.request.state.connection.transport.close()
        await anyio.sleep_forever()

    async def run_until_gone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work until it is done or the client disconnects."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._cancel_when_gone, tasks.cancel_scope)
            await work()
            tasks.cancel_scope.cancel()

    async def _cancel_when_gone(self, scope: anyio.CancelScope) -> None:
        await self.request.receive()  # the body was read, so this is http.disconnect
        scope.cancel()

    async def _stream_pieces(self, run: Run, after: int, *, obfuscated: bool) -> AsyncIterator[bytes]:
        fault = self.fault
        if fault.bom:
            yield b"\xef\xbb\xbf"
        if fault.drop == "before_created":
            await self.drop()
        if fault.duplicate_events:
            after -= 1
        sent_count = 0
        async for event in self._select_events(run, after):
            yield self._format_event(event, obfuscated=obfuscated)
            sent_count += 1
            if not fault.drops_after(sent_count):
                continue
            if fault.eof_without_terminal:
                return
            await self.drop()
        if fault.eof_without_terminal:
            return
        if fault.drop == "after_terminal_open":
            await anyio.sleep_forever()
        if fault.done_marker:
            yield b"data: [DONE]\n\n"

    def _format_event(self, event: Json, *, obfuscated: bool) -> bytes:
        frame = _format_frame(_show_event(event, self.fault, obfuscated=obfuscated), self.fault)
        if self.fault.duplicate_events:
            return frame + frame
        return frame

    async def _select_events(self, run: Run, after: int) -> AsyncIterator[Json]:
        """Yield the run's events, except the ones that a fault withholds."""
        async for event in run.follow(after):
            if self.fault.eof_without_terminal and event["type"] in TERMINAL:
                return
            if self.fault.no_deltas and event["type"].endswith(".delta"):
                continue
            yield event

    def _encode_error(self, error: ApiError) -> tuple[str, bytes]:
        return _encode_body(error.body(self.fault.error_body), "text/plain")

    async def _send_unless_refused(self, status: int, content_type: str, body: bytes) -> None:
        if self.fault.after_accept:
            await self.refuse()
        else:
            await self._send_answer(status, content_type, body)

    async def _send_answer(self, status: int, content_type: str, body: bytes) -> None:
        await self._send_start(status, {"content-type": content_type, "content-length": str(len(body))})
        await self._send_body(body, more=False)

    async def _send_start(self, status: int, headers: Mapping[str, str]) -> None:
        await self.clock.sleep(self.fault.delay_s)
        if self.fault.hang:
            await anyio.sleep_forever()
        if self.fault.drop in ("before_headers", "after_accept"):
            await self.drop()
        self.entry["status"] = status
        own = {
            "date": formatdate(usegmt=True),
            "x-request-id": f"req_{secrets.token_hex(16)}",
            "openai-processing-ms": str(int((time.monotonic() - self.began) * 1000)),
        }
        given = {name.lower(): value for name, value in self.fault.headers.items()}
        lines = {**_HEADERS, **own, **headers, **self.headers, **given}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})


def drop_optional_fields(payload: Mapping[str, Any]) -> Json:
    """Return a response object without the fields that compatible servers leave out."""
    kept = {name: value for name, value in payload.items() if name not in _OFTEN_MISSING}
    return kept | {"output": kept.get("output") or None}


def _show_event(event: Json, fault: Fault, *, obfuscated: bool) -> Json:
    shown = dict(event)
    if fault.no_sequence_numbers:
        del shown["sequence_number"]
    if fault.empty_terminal_event and shown["type"] in TERMINAL:
        shown["response"] = shown["response"] | {"output": []}
    if fault.missing_fields and "response" in shown:
        shown["response"] = drop_optional_fields(shown["response"])
    if obfuscated and shown["type"].endswith(".delta"):
        digest = hashlib.sha256(str(event["sequence_number"]).encode()).hexdigest()
        shown["obfuscation"] = digest[: 1 + event["sequence_number"] % 16]
    return shown


def _format_frame(event: Json, fault: Fault) -> bytes:
    lines = [f"data: {_encode_json(event)}", "", ""]
    if not fault.no_event_lines:
        lines.insert(0, f"event: {event['type']}")
    if fault.comments:
        lines = [": ping", "", "event: ping", "", *lines]
    return _find_line_ending(fault).join(lines).encode()


def _encode_body(body: object, text_type: str) -> tuple[str, bytes]:
    """Return the type and the bytes of a body: a text as it is, and everything else as JSON."""
    if isinstance(body, str):
        return text_type, body.encode()
    return "application/json", _encode_json(body).encode()


def _find_line_ending(fault: Fault) -> str:
    if fault.crlf:
        return "\r\n"
    if fault.cr:
        return "\r"
    return "\n"


def _encode_json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace").decode()  # half a surrogate pair stays an escape
