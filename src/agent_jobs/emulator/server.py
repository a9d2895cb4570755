"""Serve the emulator with uvicorn: for a command, and for tests in a thread of its own."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import uvicorn
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal, start_blocking_portal
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from .app import Emulator

__all__ = ["RunningServer", "run_emulator", "serve"]


@dataclass(frozen=True)
class RunningServer:
    """A serving emulator and its address."""

    emulator: Emulator
    url: str
    portal: BlockingPortal

    @property
    def base_url(self) -> str:
        """Return the base URL for a client."""
        return f"{self.url}/v1"

    def queue_fault(self, **fields: Any) -> None:
        """Queue a fault, as POST /_emulator/faults does."""
        self.portal.call(self.emulator.queue_faults, [fields])

    def forget(self, **ids: str) -> None:
        """Delete a response, conversation or container, as POST /_emulator/forget does."""
        self.portal.call(lambda: self.emulator.forget(**ids))

    def reset(self) -> None:
        """Delete everything, as POST /_emulator/reset does."""
        self.portal.call(self.emulator.reset)


@contextmanager
def run_emulator(
    *, time_scale: float = 1.0, host: str = "127.0.0.1", port: int = 0, emulator: Emulator | None = None
) -> Generator[RunningServer]:
    """Serve an emulator from a thread of its own, ready when entered."""
    emulator = emulator or Emulator(time_scale=time_scale)
    with (
        start_blocking_portal(name="emulator") as portal,
        portal.wrap_async_context_manager(_serve_on(emulator, host, port)) as bound_port,
    ):
        yield RunningServer(emulator, f"http://{host}:{bound_port}", portal)


async def serve(emulator: Emulator, *, host: str = "127.0.0.1", port: int = 8787) -> None:
    """Serve an emulator until the task is cancelled."""
    async with _serve_on(emulator, host, port):
        await anyio.sleep_forever()


@asynccontextmanager
async def _serve_on(emulator: Emulator, host: str, port: int) -> AsyncGenerator[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.getaddrinfo(host, port)  # create_server leaves its socket open if a name cannot be encoded
    # Bound here, because uvicorn calls sys.exit if the port is in use.
    listener = socket.create_server((host, port), family=family)
    config = uvicorn.Config(
        emulator.app,
        http=_VisibleConnection,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        date_header=False,
    )
    server = _StoppableServer(config)
    async with anyio.create_task_group() as tasks:
        try:
            await tasks.start(server.run_until_stopped, listener)
            yield listener.getsockname()[1]
        finally:
            server.stop.set()


class _VisibleConnection(H11Protocol):
    """A connection that the app can see, so that a fault can cut it."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)


class _StoppableServer(uvicorn.Server):
    """A server that leaves signals alone and stops at once, also with open streams."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()
        self._task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED

    async def run_until_stopped(self, listener: socket.socket, *, task_status: TaskStatus[None]) -> None:
        self._task_status = task_status
        with anyio.CancelScope(shield=True):
            await self._serve([listener])

    async def main_loop(self) -> None:
        await self.on_tick(0)
        self._task_status.started()
        await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
        await self.lifespan.shutdown()
