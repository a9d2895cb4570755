"""Serve the page on a socket until the task is cancelled."""

import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

import anyio
import uvicorn

from agent_jobs.engine.engine import Engine
from agent_jobs.page.access import Access
from agent_jobs.page.app import build_page

#: Names of this machine that a browser may use.
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
#: Seconds for which open streams may hold up the end.
SHUTDOWN_S = 1


class _Server(uvicorn.Server):
    """A server that leaves signals to the command."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


async def serve_page(engine: Callable[[], Awaitable[Engine]], access: Access, listener: socket.socket) -> None:
    """Serve the page of all jobs to this machine's user, on a listening socket."""
    port = listener.getsockname()[1]

    async def engine_of(_: str) -> Engine:
        return await engine()

    async with anyio.create_task_group() as tasks:
        app = build_page(engine_of, access, [f"{name}:{port}" for name in LOOPBACK_NAMES], tasks)
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        server = _Server(config)
        try:
            await server.serve(sockets=[listener])
        finally:
            for listening in getattr(server, "servers", ()):  # after a cancel
                listening.close()  # or the event loop keeps the socket, whose number another one may get
            tasks.cancel_scope.cancel()
