"""The team server in this process: a real socket, a real store, and clients of the SDK."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
import httpx2
from hosts import SPEED, Host
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from agent_jobs.clock import Clock, create_fast_clock
from agent_jobs.settings.settings import Settings
from agent_jobs.team_server.server import TeamServer, open_listener, open_team_server

#: Both eras of the protocol, as a client asks for them.
ERAS = {"legacy": "legacy", "modern": "2026-07-28"}


@dataclass(frozen=True)
class Team:
    """A serving team server."""

    server: TeamServer
    url: str

    async def add_token(self, owner: str = "alice", **more: Any) -> str:
        token, _ = await self.server.engine.owners.add_token(owner, **more)
        return token

    def http(self, token: str = "", **headers: str) -> httpx2.AsyncClient:
        """Return an HTTP client with this token."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=60)

    @asynccontextmanager
    async def host(self, token: str, era: str = "modern", url: str = "") -> AsyncGenerator[Host]:
        """Run a host that calls with this token."""
        async with self.http(token) as http:
            transport = streamable_http_client(f"{url or self.url}/mcp", http_client=http)
            async with Client(transport, mode=ERAS[era]) as client:
                yield Host(self.server.app, client)


@asynccontextmanager
async def serving_team(settings: Settings, clock: Clock | None = None) -> AsyncGenerator[Team]:
    """Run a team server on a free port, and drain it at the end."""
    settings = replace(settings, port=0, drain_s=0.0)
    async with AsyncExitStack() as stack:
        listener = open_listener(settings)
        stack.callback(listener.close)
        settings = replace(settings, port=listener.getsockname()[1])
        server = await stack.enter_async_context(open_team_server(settings, clock or create_fast_clock(SPEED)))
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.run, listener)
            host, port = listener.getsockname()[:2]
            yield Team(server, f"http://{host}:{port}")
            await server.drain()
