"""Jobs that call tools of third-party servers, over several turns."""

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hosts import read
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from agent_jobs.emulator.server import run_emulator
from chaos.calls import UPSTREAMS, run_jobs
from peer.environment import upstream as peer
from peer.servers import git, git_server, time_server

LEDGER = Path(__file__).resolve().parents[1] / "support" / "ledger.py"


@pytest.fixture
def toolbox(tmp_path: Path, repository: Path) -> Path:
    servers = {
        "time": time_server(),
        "git": git_server("-r", str(repository), approval="never"),
        "ledger": {
            "command": sys.executable,
            "args": ["-S", str(LEDGER), str(tmp_path / "ledger")],
            "approval": "never",
        },
    }
    path = tmp_path / "tools.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    return path


@asynccontextmanager
async def host(base_url: str, folder: Path, toolbox: Path) -> AsyncGenerator[Client]:
    ours = {
        "OPENAI_API_KEY": "peer",
        "OPENAI_BASE_URL": base_url,
        "AGENT_JOBS_DATA_DIR": str(folder / "data"),
        "AGENT_JOBS_TOOLBOX": str(toolbox),
        "HOME": str(folder),
        "PATH": "/usr/bin:/bin",
    }
    server = StdioServerParameters(command=sys.executable, args=["-m", "agent_jobs"], env=ours)
    async with Client(server) as client:
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    return read(result)


async def wait_until_done(client: Client, job_id: str) -> dict[str, Any]:
    while "next_poll_ms" in (answer := await call(client, "agent_poll", job_id=job_id, wait_s=20)):
        pass
    return answer


@pytest.mark.timeout(180)
async def test_job_commits_and_reads_the_time_with_two_real_servers(
    tmp_path: Path, toolbox: Path, repository: Path
) -> None:
    where = {"repo_path": str(repository)}
    turns = [
        [("time__get_current_time", {"timezone": "Europe/Berlin"}), ("git__git_status", where)],
        [("git__git_add", {**where, "files": ["note.txt"]})],
        [("git__git_commit", {**where, "message": "by a job"})],
        [("git__git_log", where), ("git__git_show", {**where, "revision": "nothing"})],
    ]
    scripted = [{"function_calls": [{"name": name, "arguments": given} for name, given in calls]} for calls in turns]
    script = {"duration_s": 1, "turns": [*scripted, {"text": "the end"}]}
    with run_emulator(time_scale=10) as emulator:
        async with host(emulator.base_url, tmp_path, toolbox) as client:
            prompt = f"commit [emulate {json.dumps(script)}]"
            started = await call(client, "agent_start", prompt=prompt, options={"toolbox": ["git", "time"]}, wait_s=0)
            answer = await wait_until_done(client, started["job_id"])
            items = (await call(client, "agent_result", job_id=started["job_id"], part="items"))["items"]
    assert (answer["status"], answer["output"]) == ("completed", "the end")
    outcomes = {item["name"]: item["output"] for item in items if "output" in item}
    assert "Europe/Berlin" in outcomes["time__get_current_time"]
    assert "by a job" in outcomes["git__git_log"]
    assert "nothing" in outcomes["git__git_show"], "the error is reported, too"
    assert git(repository, "log", "--format=%s") == "by a job\n"


@pytest.mark.timeout(180)
async def test_upstream_of_another_project_calls_functions(tmp_path: Path, toolbox: Path) -> None:
    calls = [{"name": "ledger__write", "arguments": {"n": n}} for n in (1, 2)]
    with peer(seconds=0.5, tokens=5) as there:
        async with host(there.base_url, tmp_path, toolbox) as client:
            prompt = f"call [emulate {json.dumps({'turns': [{'function_calls': calls}]})}]"
            started = await call(client, "agent_start", prompt=prompt, options={"toolbox": ["ledger"]}, wait_s=0)
            answer = await wait_until_done(client, started["job_id"])
        creates = there.counts()["creates"]
    assert (answer["status"], answer["output"]) == ("completed", "outputs: write 1; write 2")
    lines = (tmp_path / "ledger").read_text().splitlines()
    assert sorted(lines) == ["begin write 1", "begin write 2", "end write 1", "end write 2"]
    assert list(creates.values()) == [1, 1], "one POST for each turn"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_servers_that_are_killed_between_and_inside_calls_of_real_servers_make_no_call_twice(
    tmp_path: Path, upstream: str
) -> None:
    lived = list(run_jobs(tmp_path, seed=2, kills=4, tools="third-party", upstream=upstream))
    assert [violation for run in lived for violation in run.violations] == []
    assert sum(run.kills for run in lived) == 4
