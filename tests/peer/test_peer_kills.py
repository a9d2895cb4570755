"""Servers killed at random moments, over an upstream that no one here wrote: nothing is lost, nothing is paid twice."""

import json
import os
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from async_processes import PipedProcess, open_process

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.store import open_store
from peer.environment import Peer, upstream

SEED = 20261121
KILLS = 30
SECONDS, TOKENS = 3, 60
WHOLE_TEXT = " ".join(f"word-{n}" for n in range(TOKENS))
ANSWER_S, MAX_LINE = 20, 2**20


class Server:
    """A server process as its host sees it: lines of JSON on two pipes."""

    def __init__(self, process: PipedProcess) -> None:
        self._process = process
        self._stdout = BufferedByteReceiveStream(process.stdout)
        self._number = 0

    async def initialize(self) -> None:
        client = {"name": "test", "version": "1"}
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        await self._answer(await self._send("initialize", hello))
        await self._write({"method": "notifications/initialized"})

    async def ask(self, tool: str, **arguments: Any) -> int:
        """Call a tool without waiting for its answer."""
        return await self._send("tools/call", {"name": tool, "arguments": arguments})

    async def read_answer(self, call: int) -> dict[str, Any]:
        """Return the answer of a call."""
        [content] = (await self._answer(call))["content"]
        return json.loads(content["text"])

    async def _answer(self, number: int) -> dict[str, Any]:
        with anyio.fail_after(ANSWER_S):
            while True:
                message = json.loads(await self._stdout.receive_until(b"\n", MAX_LINE))
                if message.get("id") == number:
                    return message["result"]

    async def _send(self, method: str, params: dict[str, Any]) -> int:
        self._number += 1
        await self._write({"id": self._number, "method": method, "params": params})
        return self._number

    async def _write(self, message: dict[str, Any]) -> None:
        await self._process.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


@asynccontextmanager
async def serving(peer: Peer, folder: Path) -> AsyncGenerator[Server]:
    """Run a server process, and kill it at the end."""
    ours = {"OPENAI_API_KEY": "peer", "OPENAI_BASE_URL": peer.base_url, "AGENT_JOBS_DATA_DIR": str(folder / "data")}
    async with open_process({**os.environ, **ours}, folder / "stderr") as process:
        yield Server(process)


@dataclass(frozen=True)
class Life:
    """The steps of a server before it is killed."""

    steps: int
    seconds: float

    @classmethod
    def draw(cls, moments: random.Random) -> "Life":
        steps, limit_s = moments.choices(
            [
                (0, 0.3),  # while it starts
                (1, 0.2),  # while it takes over from the last one
                (2, 0.1),  # around the birth of a response
                (3, 0.02),  # between the first byte of the POST and the id, or right after
                (4, 0.5),  # with a job under way
                (5, 0.8),  # with a poll under way
            ],
            weights=[1, 2, 6, 9, 6, 6],
        )[0]
        return cls(steps, moments.uniform(0, limit_s))

    async def live(self, server: Server, prompt: str, folder: Path) -> dict[str, Any]:
        """Take the steps and last the seconds; return the answer of a start."""
        answer: dict[str, Any] = {}
        if self.steps >= 1:
            await server.initialize()
        if self.steps >= 2:
            started = await server.ask("agent_start", prompt=prompt, wait_s=0)
            if self.steps == 3:
                await wait_until_sent(prompt, folder)
            if self.steps >= 4:
                answer = await server.read_answer(started)
            if self.steps >= 5:
                await server.ask("agent_poll", job_id=answer["job_id"])
        await anyio.sleep(self.seconds)
        return answer


async def wait_until_sent(prompt: str, folder: Path) -> None:
    """Wait until the first byte of this prompt's POST is about to leave."""
    async with open_store(folder / "data") as store:
        with anyio.fail_after(ANSWER_S):
            found: list[Job] = []
            while not any(job.title == prompt and job.turn.sent_at for job in found):
                await anyio.sleep(0.002)  # another process sets no event of ours
                found = await store.find(JobFilter(), 1)


async def find_stored_jobs(folder: Path) -> list[Job]:
    async with open_store(folder / "data") as store:
        return await store.find(JobFilter(), KILLS + 1)


@pytest.mark.timeout(240)
async def test_thirty_kills_lose_no_response_and_pay_for_none_twice(tmp_path: Path) -> None:
    moments = random.Random(SEED)
    with upstream(seconds=SECONDS, tokens=TOKENS) as peer:
        answers: list[dict[str, Any]] = []
        for number in range(KILLS):
            async with serving(peer, tmp_path) as server:
                answers.append(await Life.draw(moments).live(server, f"Write the words, {number}.", tmp_path))
        async with serving(peer, tmp_path) as server:
            await server.initialize()
            ends = {
                job.id: await server.read_answer(await server.ask("agent_poll", job_id=job.id))
                for job in await find_stored_jobs(tmp_path)
            }
        jobs = {job.id: job for job in await find_stored_jobs(tmp_path)}
        creates = peer.counts()["creates"]

    assert len({job.title for job in jobs.values()}) == len(jobs), "one job at most was being born at each kill"
    for job in jobs.values():
        if job.turn.response_id is None:
            assert ends[job.id]["error"]["code"] == "start_unconfirmed"
        else:
            assert ends[job.id] == {"job_id": job.id, "status": "completed", "output": WHOLE_TEXT}
            assert creates[job.turn.request_id] == 1
    for answer in filter(None, answers):
        assert jobs[answer["job_id"]].turn.response_id == answer.get("response_id")
    assert set(creates.values()) == {1}
    assert creates.keys() <= {job.turn.request_id for job in jobs.values()}
    assert (tmp_path / "stderr").read_text() == ""
