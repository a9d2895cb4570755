"""Replicas of the team server as processes on one PostgreSQL database, and haproxy before them."""

import os
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
from balancer import STATS_SOCKET, find_free_port, running_balancer, wait_until_ready
from fork_server import COMMAND, Process
from hosts import read
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from team_servers import ERAS

from agent_jobs.app import open_app
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

DRAIN_S = 1.0


@dataclass
class Cluster:
    """The addresses of replicas, those that run, and the balancer's."""

    environment: dict[str, str]
    folder: Path
    token: str
    ports: list[int]
    balancer_port: int
    processes: dict[int, Process] = field(default_factory=dict[int, Process])

    def url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.ports[number]}"

    @property
    def balancer_url(self) -> str:
        return f"http://127.0.0.1:{self.balancer_port}"

    async def start(self, number: int) -> None:
        """Start a replica, and wait until it is ready."""
        with (self.folder / f"replica-{number}.log").open("ab") as log:
            self.processes[number] = Process(
                [*COMMAND, "serve", "--http", "--port", str(self.ports[number])],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        await wait_until_ready(self.url(number))

    async def stop(self, number: int, signal: int) -> int:
        """Send a signal to a replica; return its exit status."""
        process = self.processes.pop(number)
        process.send_signal(signal)
        with anyio.fail_after(60):
            while process.poll() is None:  # noqa: ASYNC110  # another process sets no event of ours
                await anyio.sleep(0.02)
        return process.wait()

    @asynccontextmanager
    async def host(self, era: str, url: str = "") -> AsyncGenerator["ReplicaHost"]:
        """Run a host that calls through the balancer, or one replica."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            transport = streamable_http_client(f"{url or self.balancer_url}/mcp", http_client=http)
            async with Client(transport, mode=ERAS[era]) as client:
                yield ReplicaHost(client)

    def count_requests(self) -> int:
        """Count the requests that the replicas are answering for the balancer."""
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect(str(self.folder / STATS_SOCKET))
            stats.send(b"show stat\n")
            rows = stats.makefile().read().splitlines()
        return sum(int(row.split(",")[4]) for row in rows if row.startswith("replicas,BACKEND,"))

    def kill_all(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@dataclass(frozen=True)
class ReplicaHost:
    """A host's model, whose calls must not fail."""

    client: Client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result
        return read(result)


def describe_environment(database_url: str, base_url: str, folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "PYTHON"))}
    ours = {
        "OPENAI_API_KEY": "sk-secret",
        "OPENAI_BASE_URL": base_url,
        "AGENT_JOBS_DATA_DIR": str(folder),
        "AGENT_JOBS_DATABASE_URL": database_url,
        "AGENT_JOBS_DRAIN_S": str(DRAIN_S),
        "AGENT_JOBS_LOG_LEVEL": "debug",
    }
    return {**kept, **ours}


@asynccontextmanager
async def running_cluster(database_url: str, base_url: str, folder: Path, **more: str) -> AsyncGenerator[Cluster]:
    """Run two replicas on a database, with more variables, and the balancer in front of them."""
    token = await _make_token(Settings(data_dir=folder, database_url=SecretStr(database_url)))
    environment = {**describe_environment(database_url, base_url, folder), **more}
    cluster = Cluster(environment, folder, token, [find_free_port(), find_free_port()], find_free_port())
    try:
        with running_balancer(cluster.balancer_port, cluster.ports, folder, CHECK_INTERVAL="100ms"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cluster.start, 0)
                tasks.start_soon(cluster.start, 1)
            await wait_until_ready(cluster.balancer_url)
            yield cluster
    finally:
        cluster.kill_all()


async def _make_token(settings: Settings) -> str:
    async with open_app(settings, role="reads") as app:
        token, _ = await (await app.engine()).owners.add_token("alice")
        return token
