"""The toolbox with tool servers of other projects, in an environment of their own."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from agent_jobs.toolbox.config import load_toolbox
from agent_jobs.toolbox.toolbox import Policy, Toolbox
from peer.servers import git_server, time_server


@pytest.fixture
async def box(tmp_path: Path, repository: Path) -> AsyncIterator[Toolbox]:
    servers = {"time": time_server("${ZONE:-UTC}"), "git": git_server("-r", "${REPOSITORY}", deny=["git_reset"])}
    path = tmp_path / "tools.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    async with anyio.create_task_group() as tasks:
        yield Toolbox(load_toolbox(path), {"REPOSITORY": str(repository)}, tasks)
        tasks.cancel_scope.cancel()


async def test_real_server_returns_the_time(box: Toolbox):
    assert [f["name"] for f in await box.list_functions(["time"])] == ["time__convert_time", "time__get_current_time"]
    assert await box.find_policy("time__get_current_time", ["time"]) == Policy(
        asks=False, read_only=True, idempotent=True
    )
    called = await box.call("time__get_current_time", '{"timezone": "Europe/Berlin"}', ["time"])
    assert json.loads(str(called.output))["timezone"] == "Europe/Berlin"
    assert (await box.call("time__get_current_time", '{"timezone": "Nowhere"}', ["time"])).failed


async def test_real_server_commits_to_git_only_when_asked_to(box: Toolbox, repository: Path):
    offered = {f["name"] for f in await box.list_functions(["git"])}
    assert {"git__git_commit", "git__git_log"} < offered
    assert "git__git_reset" not in offered
    asks = {name: await box.find_policy(f"git__git_{name}", ["git"]) for name in ("commit", "status")}
    assert {name: policy and policy.asks for name, policy in asks.items()} == {"commit": True, "status": False}
    where = {"repo_path": str(repository)}
    assert not (await box.call("git__git_add", json.dumps({**where, "files": ["note.txt"]}), ["git"])).failed
    assert not (await box.call("git__git_commit", json.dumps({**where, "message": "by a tool"}), ["git"])).failed
    log = await box.call("git__git_log", json.dumps(where), ["git"])
    assert "by a tool" in str(log.output)
