"""The main path on a real wire: an MCP client process, the server over stdio, a third-party upstream."""

import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from hosts import read
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from peer.environment import Peer, upstream

SECONDS, TOKENS = 2, 300
WHOLE_TEXT = " ".join(f"word-{n}" for n in range(TOKENS))


@asynccontextmanager
async def host(peer: Peer, folder: Path) -> AsyncGenerator[Client]:
    environment = {"OPENAI_API_KEY": "peer", "OPENAI_BASE_URL": peer.base_url, "AGENT_JOBS_DATA_DIR": str(folder)}
    server = StdioServerParameters(command=sys.executable, args=["-m", "agent_jobs"], env={**os.environ, **environment})
    async with Client(server) as client:
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    return read(result)


async def start(client: Client, number: int) -> str:
    with anyio.fail_after(60):
        answer = await call(client, "agent_start", prompt=f"Write the words, {number}.", wait_s=0)
    assert answer["response_id"]
    return answer["job_id"]


def kill_server(folder: Path) -> None:
    newest = max((folder / "run").glob("*.lock"), key=lambda lock: lock.stat().st_mtime_ns)
    os.kill(int(newest.name.partition("-")[0]), signal.SIGKILL)


@pytest.mark.timeout(120)
async def test_job_runs_to_its_end_another_is_cancelled_and_one_outlives_its_killed_server(tmp_path: Path) -> None:
    with upstream(seconds=SECONDS, tokens=TOKENS, held=True) as peer:
        async with host(peer, tmp_path) as client:
            whole, cancelled, killed = [await start(client, number) for number in range(3)]
            answer = await call(client, "agent_poll", job_id=whole, wait_s=2)
            assert answer["status"] == "in_progress"
            assert (await call(client, "agent_cancel", job_id=cancelled))["status"] == "cancelled"
            assert (await call(client, "agent_poll", job_id=cancelled))["status"] == "cancelled"
            kill_server(tmp_path)
            with pytest.raises(MCPError):
                await call(client, "agent_poll", job_id=killed)
        async with host(peer, tmp_path) as client:
            peer.release()
            for job_id in (killed, whole):
                answer = await call(client, "agent_poll", job_id=job_id)
                assert answer == {"job_id": job_id, "status": "completed", "output": WHOLE_TEXT}
        counts = peer.counts()
    assert list(counts["creates"].values()) == [1, 1, 1], "one POST for each job"
    assert counts["requests"]["POST cancel"] == 1
