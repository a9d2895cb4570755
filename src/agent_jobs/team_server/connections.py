"""Limit the number of connections without a signed-in caller, and the time that their requests take."""

import asyncio
import logging
from typing import Any

import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

#: Connections without a request of a signed-in caller. Beyond these, a new one closes the oldest.
MAX_IDLE = 256
#: Seconds from the start of a connection, or from the last answer, to the end of the next request's headers.
HEADERS_S = 20.0
#: Seconds for which a connection stays open without a byte: longer than a balancer keeps its own side.
KEEP_ALIVE_S = 75
_STATE_KEY = "connection"


class _ClientFaults(logging.Logger):
    """Lowers warnings, which are all about what a client sent: anyone could fill the log with them."""

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.debug(msg, *args, **kwargs)


def _create_logger() -> logging.Logger:
    logger = _ClientFaults("uvicorn.error")
    logger.parent = logging.getLogger("uvicorn.error")
    return logger


_logger = _create_logger()


class HttpConnection(H11Protocol):
    """A connection that counts as idle until its request is admitted, and again after the answer."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, _STATE_KEY: self}, _loop)
        assert isinstance(config, ConnectionConfig)
        self.logger = _logger
        self._idle = config.idle_connections
        self._headers_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Count the connection, and close the oldest idle one if there are too many."""
        super().connection_made(transport)
        self._count_as_idle()
        self._limit_headers()
        if len(self._idle) > MAX_IDLE:
            next(iter(self._idle)).close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._idle.pop(self, None)
        self._stop_headers_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read from the client; the limit for the headers of a next request begins with its first byte."""
        super().data_received(data)
        if not self._is_between_requests:
            self._stop_headers_timer()
        elif self._headers_timer is None:
            self._limit_headers()

    def on_response_complete(self) -> None:
        """Count as idle again."""
        self._count_as_idle()
        super().on_response_complete()

    def admit(self) -> None:
        """Count as in use until the current request is answered: its caller has signed in."""
        self._idle.pop(self, None)

    def close(self) -> None:
        """Close the connection without an answer."""
        self._idle.pop(self, None)
        self.transport.abort()

    @property
    def _is_between_requests(self) -> bool:
        cycle: Any = self.cycle  # None until the first request
        return cycle is None or cycle.response_complete

    def _count_as_idle(self) -> None:
        self._idle.pop(self, None)
        if not self.transport.is_closing():
            self._idle[self] = None

    def _limit_headers(self) -> None:
        self._stop_headers_timer()
        self._headers_timer = self.loop.call_later(HEADERS_S, self._close_if_incomplete, self.cycle)

    def _close_if_incomplete(self, cycle: object) -> None:
        self._headers_timer = None
        if cycle is self.cycle and self._is_between_requests:
            self.close()

    def _stop_headers_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None


class ConnectionConfig(uvicorn.Config):
    """The configuration of a server with such connections."""

    def __init__(self, app: Any, **options: Any) -> None:
        #: The idle connections of this server, the oldest first.
        self.idle_connections: dict[HttpConnection, None] = {}
        super().__init__(app, http=HttpConnection, timeout_keep_alive=KEEP_ALIVE_S, **options)


def admit_connection(scope: Scope) -> None:
    """Count the connection of a request as in use: its caller has signed in."""
    connection = scope.get("state", {}).get(_STATE_KEY)
    if isinstance(connection, HttpConnection):
        connection.admit()
