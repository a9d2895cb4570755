"""Serve the page on a socket until the task is cancelled."""

import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import anyio
import uvicorn
from starlette.requests import Request

from agent_jobs.engine.engine import Engine
from agent_jobs.page.access import Access
from agent_jobs.page.app import PageServer, build_page

#: Names of this machine that a browser may use.
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
#: Seconds for which open streams may delay the end.
SHUTDOWN_S = 1


#: Our own log says what matters, and a page is closed without waiting for its browser.
_UVICORN: dict[str, Any] = {
    "lifespan": "off",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "timeout_graceful_shutdown": SHUTDOWN_S,
}


class _Server(uvicorn.Server):
    """A server that leaves signals to the command."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


async def serve_page(engine: Callable[[], Awaitable[Engine]], access: Access, listener: socket.socket) -> None:
    """Serve the page of all jobs to this machine's user, on a listening socket."""
    # Accepted sockets inherit it: an answer in two writes would wait for the client's ACK, which takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port = listener.getsockname()[1]
    hosts = [f"{name}:{port}" for name in LOOPBACK_NAMES]

    async def find_engine(_: Request) -> Engine:
        return await engine()

    async with anyio.create_task_group() as tasks:
        app = build_page(find_engine, access, PageServer(hosts.__contains__, tasks, anyio.Event()))
        server = _Server(uvicorn.Config(app, **_UVICORN))
        try:
            await server.serve(sockets=[listener])
        finally:
            for listening in getattr(server, "servers", ()):  # after a cancel
                listening.close()  # or the event loop would keep the socket, whose number another socket may get
            tasks.cancel_scope.cancel()
