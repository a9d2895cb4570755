"""Serve the page on a socket until the task is cancelled."""

import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn

from agent_jobs.page.access import LinkAccess
from agent_jobs.page.app import build_page
from agent_jobs.page.templates import EngineSource

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


async def serve_page(engine: EngineSource, access: LinkAccess, listener: socket.socket) -> None:
    """Serve the page of these jobs on a listening socket."""
    port = listener.getsockname()[1]
    app = build_page(engine, access, [f"{name}:{port}" for name in LOOPBACK_NAMES])
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    await _Server(config).serve(sockets=[listener])
