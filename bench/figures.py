"""Measure a spawn, a start and a poll, in turns with the program that each is compared with."""

import json
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import httpx2
from mcp import Client

from agent_jobs.app import open_app
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings.settings import Settings
from bench.peers import OUTPUT_CHARS, StdioServer, minimal_server, read_answer, read_creation_ns

#: Calls a tool; returns its answer and the nanosecond at which it arrived.
Call = Callable[[str, dict[str, Any]], Awaitable[tuple[dict[str, Any], int]]]

#: Calls before the first one that counts.
WARM_UP = 20
#: Starts before their ends are awaited, so that polls of older jobs do not disturb the starts.
BATCH = 20

OURS, MINIMAL = ("-m", "agent_jobs"), ("-m", "bench.peers", "minimal")


@dataclass
class Figure:
    """A figure of ours, the same figure of the program beside it, if there is one, and the target."""

    what: str
    target: str
    limit: Callable[["Figure"], bool] | None = None
    ours: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    unit: str = "ms"

    @property
    def p50(self) -> float:
        return median(self.ours)

    @property
    def ratio(self) -> float:
        return median(self.ours) / median(self.beside)

    @property
    def verdict(self) -> str:
        return "" if self.limit is None else "ok" if self.limit(self) else "over"


def measure_startup(rounds: int) -> list[Figure]:
    """Measure from the spawn to the first answers, of the front door and of a tool, against a minimal MCPServer."""
    opened = Figure("spawn -> initialize answered", "<= 0.08x", lambda figure: figure.ratio <= 0.08)
    listed = Figure("spawn -> tools/list answered", "<= 0.08x", lambda figure: figure.ratio <= 0.08)
    called = Figure("spawn -> first tool call answered", "<= 1.05x", lambda figure: figure.ratio <= 1.05)
    figures = [opened, listed, called]
    with tempfile.TemporaryDirectory() as folder:
        of_ours: dict[str, Any] = {"name": "agent_list", "arguments": {}}
        ours = (OURS, settings(folder), of_ours)
        nothing: dict[str, str] = {}
        minimal = (MINIMAL, nothing, {"name": "poll", "arguments": {"job_id": "job_x", "wait_s": 0}})
        for number in range(rounds + 1):
            for arguments, variables, call in (ours, minimal) if number % 2 else (minimal, ours):
                server = StdioServer(*arguments, **variables)
                _, listed_ns = server.ask("tools/list", {})
                _, called_ns = server.ask("tools/call", call)
                server.close()
                if number:  # the first round wrote bytecode and made the database
                    for figure, answered_ns in zip(figures, (server.initialized_ns, listed_ns, called_ns), strict=True):
                        times = figure.ours if arguments == OURS else figure.beside
                        times.append((answered_ns - server.spawned_ns) / 1e6)
    return figures


async def measure_calls(kind: str, base_url: str, starts: int, polls: int) -> list[Figure]:
    """Measure starts against a naive httpx2 program, then polls of a finished job against a no-op, over one wire."""
    with tempfile.TemporaryDirectory() as folder:
        async with ours(kind, settings(folder, base_url)) as call:
            figures, job_id = await _measure_starts(kind, call, base_url, starts)
            answer, _ = await call("agent_poll", {"job_id": job_id, "wait_s": 0})
            async with _minimal(kind, json.dumps(answer, separators=(",", ":"))) as noop:
                return [*figures, await _measure_polls(kind, call, noop, job_id, polls)]


async def _measure_starts(kind: str, call: Call, base_url: str, rounds: int) -> tuple[list[Figure], str]:
    report = Figure(f"response.created -> agent_start, {kind}", "<= 5 ms", lambda figure: figure.p50 <= 5)
    whole = Figure(f"agent_start from call to answer, {kind}", "")
    jobs: list[str] = []
    warm_up = min(WARM_UP, rounds)
    async with httpx2.AsyncClient(trust_env=False) as naive:
        for number in range(warm_up + rounds):
            asked_ns = time.monotonic_ns()
            answer, arrived_ns = await call("agent_start", {"prompt": f"bench {number}", "wait_s": 0})
            ours = (read_creation_ns(answer["response_id"]), asked_ns, arrived_ns)
            jobs.append(answer["job_id"])
            beside = await _naive_start(naive, f"{base_url}/responses", number)
            if number >= warm_up:
                for (created, asked, arrived), is_ours in ((ours, True), (beside, False)):
                    for figure, since in ((report, created), (whole, asked)):
                        (figure.ours if is_ours else figure.beside).append((arrived - since) / 1e6)
            if len(jobs) % BATCH == 0 or number == warm_up + rounds - 1:
                for job_id in jobs[-BATCH:]:
                    await _wait_for_end(call, job_id)
    return [report, whole], jobs[-1]


async def _naive_start(client: httpx2.AsyncClient, url: str, number: int) -> tuple[int, int, int]:
    """Start as any program would: POST, and read to `response.created`.

    Returns the nanoseconds at which the response was created, the request was sent, and the id arrived.
    """
    body = {"model": "bench", "input": f"naive {number}", "background": True, "stream": True, "store": True}
    asked_ns = time.monotonic_ns()
    async with client.sse(url, method="POST", json=body, headers={"Authorization": "Bearer bench"}) as source:
        async for sse in source:
            response_id = json.loads(sse.data)["response"]["id"]
            return read_creation_ns(response_id), asked_ns, time.monotonic_ns()
    raise RuntimeError("the upstream named no id")


async def _wait_for_end(call: Call, job_id: str) -> None:
    answer, _ = await call("agent_poll", {"job_id": job_id, "wait_s": 30})
    if len(answer.get("output", "")) != OUTPUT_CHARS:
        raise RuntimeError(f"no output: {answer}")


async def _measure_polls(kind: str, call: Call, noop: Call, job_id: str, rounds: int) -> Figure:
    figure = Figure(f"agent_poll of a stored job, {kind}", "<= 2x", lambda figure: figure.ratio <= 2)
    arguments = {"job_id": job_id, "wait_s": 0}
    answers: list[dict[str, Any]] = [{}, {}]
    for number in range(WARM_UP + rounds):
        for side, (ask, name, times) in enumerate(((call, "agent_poll", figure.ours), (noop, "poll", figure.beside))):
            asked_ns = time.monotonic_ns()
            answers[side], arrived_ns = await ask(name, arguments)
            if number >= WARM_UP:
                times.append((arrived_ns - asked_ns) / 1e6)
    assert answers[0] == answers[1], "both sides must carry the same bytes"
    return figure


def settings(folder: str, base_url: str = "http://127.0.0.1:9/v1") -> dict[str, str]:
    return {
        "OPENAI_API_KEY": "bench",
        "OPENAI_BASE_URL": base_url,
        "AGENT_JOBS_DATA_DIR": folder,
        "AGENT_JOBS_MAX_CONCURRENT": "100",  # starts that wait for a slot are not measured here
    }


@asynccontextmanager
async def ours(kind: str, env: dict[str, str]) -> AsyncGenerator[Call]:
    if kind == "stdio":
        async with _over_stdio(StdioServer(*OURS, **env)) as call:
            yield call
    else:
        async with open_app(Settings.from_env(env)) as app, _in_memory(build_server(app.engine)) as call:
            yield call


@asynccontextmanager
async def _minimal(kind: str, answer: str) -> AsyncGenerator[Call]:
    opened = _over_stdio(StdioServer(*MINIMAL, answer)) if kind == "stdio" else _in_memory(minimal_server(answer))
    async with opened as call:
        yield call


@asynccontextmanager
async def _over_stdio(server: StdioServer) -> AsyncGenerator[Call]:
    async def call(name: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], int]:
        result, arrived_ns = server.ask("tools/call", {"name": name, "arguments": arguments})
        [content] = result["content"]
        return json.loads(content["text"]), arrived_ns

    try:
        yield call
    finally:
        server.close()


@asynccontextmanager
async def _in_memory(server: Any) -> AsyncGenerator[Call]:
    async with Client(server) as client:

        async def call(name: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], int]:
            result = await client.call_tool(name, arguments)
            arrived_ns = time.monotonic_ns()
            return read_answer(result), arrived_ns

        yield call
