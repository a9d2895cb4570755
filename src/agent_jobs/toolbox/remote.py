"""A tool server behind a URL, whose answers have a limit too."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import httpx2
from mcp.client import Transport
from mcp.client.streamable_http import streamable_http_client

from agent_jobs.toolbox.child import MESSAGE_BYTES
from agent_jobs.toolbox.config import ServerConfig

CONNECT_S = 30.0


class Remote:
    """One connection to an HTTP server; the SDK ends it when it breaks, so that `gone` is set by nobody but us."""

    def __init__(self, config: ServerConfig) -> None:
        assert config.url is not None
        self._url = config.url
        self._headers = {**config.headers, "Accept-Encoding": "identity"}  # what is packed has no size
        self._timeout = httpx2.Timeout(CONNECT_S, read=config.timeout_s + CONNECT_S)
        self._status = 0
        self.gone = anyio.Event()

    def last_words(self) -> str:
        """The status of its last answer, if that was an error."""
        return f"it answered with HTTP status {self._status}" if self._status >= 400 else ""

    def transport(self) -> Transport:
        """Speak with it."""
        return self._streams()

    @asynccontextmanager
    async def _streams(self) -> AsyncGenerator[Any]:
        hooks = {"response": [self._look]}
        async with (
            httpx2.AsyncClient(headers=self._headers, timeout=self._timeout, event_hooks=hooks) as http,
            streamable_http_client(self._url, http_client=http, max_sse_event_size=MESSAGE_BYTES) as streams,
        ):
            yield streams

    async def _look(self, response: httpx2.Response) -> None:
        self._status = response.status_code
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.DecodingError("it sends packed answers though asked not to", request=response.request)
        # The SDK limits the events of a stream by itself.
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _Bounded(cast("httpx2.AsyncByteStream", response.stream))


class _Bounded(httpx2.AsyncByteStream):
    """A body that fails where it is longer than a message may be."""

    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._body:
            size += len(chunk)
            if size > MESSAGE_BYTES:
                raise httpx2.StreamError(f"the answer was longer than {MESSAGE_BYTES >> 20} MiB")
            yield chunk

    async def aclose(self) -> None:
        await self._body.aclose()
