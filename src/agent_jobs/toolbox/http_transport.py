"""Connect to a tool server behind a URL, and limit the size of its answers."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import httpx2
from mcp.client import Transport
from mcp.client.streamable_http import streamable_http_client

from agent_jobs import jsonrpc
from agent_jobs.files.text_file import BOM
from agent_jobs.toolbox.config import ServerConfig
from agent_jobs.toolbox.stdio_transport import MESSAGE_BYTES

CONNECT_S = 30.0  # a server may start up at its first request
_BOM = BOM.encode()
#: An empty line ends an event; lines end in any of three ways.
_END_OF_EVENT = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


class HttpTransport:
    """One connection to an HTTP server. The SDK ends it when it breaks, so only this process sets `gone`."""

    def __init__(self, config: ServerConfig) -> None:
        assert config.url is not None
        self._url = config.url
        self._headers = {**config.headers, "Accept-Encoding": "identity"}  # the size of a compressed answer is unknown
        self._timeout = httpx2.Timeout(CONNECT_S, read=config.timeout_s + CONNECT_S)
        self._status = 0
        self.gone = anyio.Event()

    def last_words(self) -> str:
        """Return the status of the last answer if it was an error."""
        if self._status < 400:
            return ""
        return f"it answered with HTTP status {self._status}"

    def open_transport(self) -> Transport:
        """Open the streams of messages."""
        return self._open_http_streams()

    @asynccontextmanager
    async def _open_http_streams(self) -> AsyncGenerator[Any]:
        hooks = {"response": [self._wrap_body]}
        async with (
            httpx2.AsyncClient(headers=self._headers, timeout=self._timeout, event_hooks=hooks) as http,
            streamable_http_client(self._url, http_client=http, max_sse_event_size=MESSAGE_BYTES) as streams,
        ):
            yield streams

    async def _wrap_body(self, response: httpx2.Response) -> None:
        self._status = response.status_code
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.DecodingError(
                "it sends compressed answers although the request excludes them", request=response.request
            )
        body = cast("httpx2.AsyncByteStream", response.stream)
        number = _read_request_id(response.request)
        if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            response.stream = _RepairedEvents(body, number)
        elif response.is_success:
            response.stream = _RepairedBody(body, number)
        else:
            response.stream = _RepairedBody(body, None)


class _RepairedBody(httpx2.AsyncByteStream):
    """A body that is repaired for the SDK, and that fails when it is longer than a message may be.

    Args:
        body: The server's body.
        request_id: The request that it has to answer, if there is one.
    """

    def __init__(self, body: httpx2.AsyncByteStream, request_id: int | str | None) -> None:
        self._body = body
        self._request_id = request_id

    async def __aiter__(self) -> AsyncIterator[bytes]:
        whole = bytearray()
        async for chunk in self._body:
            whole += chunk
            if len(whole) > MESSAGE_BYTES:
                raise httpx2.StreamError(f"the answer was longer than {MESSAGE_BYTES >> 20} MiB")
        if jsonrpc.is_message(bytes(whole)):
            yield bytes(whole)
            return
        repaired = jsonrpc.repair_message(whole.decode("utf-8", "replace"), self._request_id)
        if repaired is None:
            yield bytes(whole)
        else:
            yield repaired.encode()

    async def aclose(self) -> None:
        await self._body.aclose()


class _RepairedEvents(httpx2.AsyncByteStream):
    """Server-sent events whose messages are repaired for the SDK, which limits their length."""

    def __init__(self, body: httpx2.AsyncByteStream, request_id: int | str | None) -> None:
        self._body = body
        self._request_id = request_id

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pending, is_first = bytearray(), True
        async for chunk in self._body:
            searched = max(0, len(pending) - 3)  # an end of an event may have begun in the chunk before
            pending += chunk
            if is_first and len(pending) >= len(_BOM):
                is_first = False
                pending = pending.removeprefix(_BOM)
            while (end := _END_OF_EVENT.search(pending, searched)) is not None:
                event, pending, searched = bytes(pending[: end.end()]), pending[end.end() :], 0
                yield self._repair_event(event)
            if len(pending) > MESSAGE_BYTES:
                yield bytes(pending)
                pending = bytearray()
        yield bytes(pending)

    def _repair_event(self, event: bytes) -> bytes:
        lines = event.splitlines()
        data = b"\n".join(_field_value(line) for line in lines if line.startswith(b"data:"))
        if not data or _read_event_kind(lines) != b"message" or jsonrpc.is_message(data):
            return event
        repaired = jsonrpc.repair_message(data.decode("utf-8", "replace"), self._request_id)
        if repaired is None:
            return b": an event that could not be read was here\n\n"  # the SDK would end the request because of it
        others = [line for line in lines if line and not line.startswith(b"data:")]
        return b"\n".join([*others, b"data: " + repaired.encode(), b"", b""])

    async def aclose(self) -> None:
        await self._body.aclose()


def _read_request_id(request: httpx2.Request) -> int | str | None:
    """Return the id in a POST of the SDK, None for a request that needs no answer. Other methods have no content."""
    try:
        return json.loads(request.content).get("id")
    except (ValueError, AttributeError, httpx2.RequestNotRead):
        return None


def _read_event_kind(lines: Sequence[bytes]) -> bytes:
    return next((_field_value(line) for line in lines if line.startswith(b"event:")), b"message")


def _field_value(line: bytes) -> bytes:
    return line.partition(b":")[2].removeprefix(b" ")
