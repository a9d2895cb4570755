"""Figures of streams: CPU of an event, memory of a streamed job, and how soon a finished job is reported."""

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
import httpx2

from agent_jobs.clock import Clock
from agent_jobs.engine.stream import StreamReader
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.status import Status
from agent_jobs.store import open_store
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient, open_client
from agent_jobs.upstream.endpoint import Endpoint
from bench.figures import OURS, Call, Figure, ours, settings
from bench.peers import ROOT, StdioServer, environment
from bench.streams import PACE_HZ, run_id

MAX_EVENT_BYTES = 64 * 2**20  # the limit of our own client, for the bare reader too
PACED_STREAMS = 20  # at once in the paced figure: each costs its share of wake-ups
FEW_DELTAS = 20
#: Polls of a watched job are 1 to 5 s apart; a run this long meets the longest distance.
POLLED_FROM_MS, POLLED_TO_MS = 16_000, 26_000
STREAMED_FROM_MS, STREAMED_TO_MS = 500, 3_000

#: Reads one stream to its end; and makes ready to.
Read = Callable[[], Awaitable[None]]
Prepare = Callable[[str], Awaitable[Read]]


async def cpu(base_url: str, rounds: int, burst: int, paced: int) -> list[Figure]:
    """Measure the CPU of this process per 1,000 events: all at once, and at the pace of a model."""
    with tempfile.TemporaryDirectory() as folder:
        endpoint = Endpoint.of(base_url, "bench")
        async with (
            open_store(Path(folder)) as store,
            open_client(endpoint) as client,
            httpx2.AsyncClient(verify=False, timeout=None, limits=httpx2.Limits(max_connections=None)) as naive,
            anyio.create_task_group() as tasks,
        ):
            reader = StreamReader(store, Clock(), 1000, store.save)
            tasks.start_soon(reader.write_progress)
            follow, read = prepare_stream_reader(reader, store, client), prepare_bare_reader(naive, base_url)
            at_once = Figure("CPU of 1,000 events, in a burst", "<= 1.3x", lambda figure: figure.ratio <= 1.3)
            await measure_in_turns(at_once, follow, read, rounds, run_id("burst", burst), 1)
            in_time = Figure(f"CPU of 1,000 events, {PACE_HZ} a second each", "<= 1.3x", at_once.limit)
            await measure_in_turns(in_time, follow, read, (rounds + 1) // 2, run_id("paced", paced), PACED_STREAMS)
            tasks.cancel_scope.cancel()
            return [at_once, in_time]


async def measure_in_turns(figure: Figure, follow: Prepare, read: Prepare, rounds: int, run: str, streams: int) -> None:
    both = [(follow, figure.ours), (read, figure.beside)]
    deltas = int(run.split("_")[2])
    for number in range(rounds + 1):
        for prepare, times in both if number % 2 else reversed(both):
            readers = [await prepare(run) for _ in range(streams)]
            began = time.process_time()
            async with anyio.create_task_group() as tasks:
                for reader in readers:
                    tasks.start_soon(reader)
            if number:
                times.append((time.process_time() - began) * 1e6 / (streams * deltas))


def prepare_stream_reader(reader: StreamReader, store: Store, client: ResponsesClient) -> Prepare:
    """Return our reader: each stream gets a job of its own, stored as one that upstream runs."""
    clock = Clock()

    async def prepare(run: str) -> Read:
        turn = Turn(number=1, request={}, request_id=str(uuid4()), base_url=client.endpoint.base_url)
        job = Job(id=f"job_{uuid4().hex}", title="", status=Status.PENDING, created_at=clock.now(), turn=turn)
        await store.add(job, allow_duplicate=True)
        job = job.mark_sending(clock.now()).set_response_id(run)
        await store.begin_sending(job)
        await store.record_response_id(job.id, 1, run, clock.now())

        async def follow() -> None:
            followed = await reader.read_stream(job, client.stream(run))
            assert followed.status is Status.COMPLETED, followed

        return follow

    return prepare


def prepare_bare_reader(client: httpx2.AsyncClient, base_url: str) -> Prepare:
    """Return the reader that anyone would write without us."""

    async def prepare(run: str) -> Read:
        url = f"{base_url}/responses/{run}?stream=true"

        async def read() -> None:
            kind = ""
            async with client.sse(url, max_event_size=MAX_EVENT_BYTES) as source:
                async for sse in source:
                    kind = json.loads(sse.data)["type"]
            assert kind == "response.completed"

        return read

    return prepare


def memory(base_url: str, rounds: int, jobs: int) -> list[Figure]:
    """Measure the memory that each streamed job adds to the server, beside a process of bare httpx2 streams."""
    figure = Figure("memory of a streamed job", "<= 64 KiB", lambda figure: figure.p50 <= 64, unit="KiB")
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            many = {"AGENT_JOBS_FOLLOW": "9999", "AGENT_JOBS_MAX_CONCURRENT": "9999"}
            server = StdioServer(*OURS, **(settings(folder, base_url) | many))
            try:
                figure.ours.append(measure_growth(server.pid, partial(start_idle_jobs, server), jobs))
            finally:
                server.close()
        with _bare_streams(base_url) as (pid, open_streams):
            figure.beside.append(measure_growth(pid, open_streams, jobs))
    return [figure]


def measure_growth(pid: int, hold: Callable[[int, int], None], count: int) -> float:
    """Return the KiB that a process grows by per stream, without the first ones: they fill what all share."""
    warm_up = max(10, count // 10)
    hold(0, warm_up)
    before = _rss_kib(pid)
    hold(warm_up, warm_up + count)
    return max(1, _rss_kib(pid) - before) / count


def start_idle_jobs(server: StdioServer, first: int, last: int) -> None:
    for number in range(first, last):
        arguments = {"prompt": f"bench idle {FEW_DELTAS} as number {number}", "wait_s": 0}
        result, _ = server.ask("tools/call", {"name": "agent_start", "arguments": arguments})
        assert json.loads(result["content"][0]["text"])["status"] == "queued", result
    time.sleep(2)  # the first progress of each is written after at most a second


@contextmanager
def _bare_streams(base_url: str) -> Generator[tuple[int, Callable[[int, int], None]]]:
    with subprocess.Popen(
        [sys.executable, "-m", "bench.streams", "bare", base_url, str(FEW_DELTAS)],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:

        def hold(first: int, last: int) -> None:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(b"%d\n" % (last - first))
            process.stdin.flush()
            assert process.stdout.readline(), "the bare reader ended"

        try:
            yield process.pid, hold
        finally:
            process.kill()


def _rss_kib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


async def ends(base_url: str, jobs: int) -> list[Figure]:
    """Measure from the moment a run finishes upstream to the answer of an `agent_poll` that waits for it."""
    figures: list[Figure] = []
    for what, follow, from_ms, to_ms, limit_ms in (
        ("streamed", "auto", STREAMED_FROM_MS, STREAMED_TO_MS, 300),
        ("polled", "never", POLLED_FROM_MS, POLLED_TO_MS, 5_000),
    ):
        with tempfile.TemporaryDirectory() as folder:
            env = settings(folder, base_url) | {"AGENT_JOBS_FOLLOW": follow}
            async with ours("in memory", env) as call:
                lengths = [from_ms + (to_ms - from_ms) * number // jobs for number in range(jobs)]
                times = await asyncio.gather(*[measure_end(call, length) for length in lengths])
        allowed = f"<= {limit_ms / 1e3:g} s"
        for name, measured in (("p50", times), ("max", [max(times)])):
            figure = Figure(f"end upstream -> agent_poll, {what}, {name}", allowed, limit_to(limit_ms))
            figure.ours += measured
            figures.append(figure)
    return figures


def limit_to(limit: float) -> Callable[[Figure], bool]:
    return lambda figure: figure.p50 <= limit


async def measure_end(call: Call, length_ms: int) -> float:
    started, _ = await call("agent_start", {"prompt": f"bench ends {length_ms}", "wait_s": 0})
    while True:  # the server may answer before the run finishes: a job that is polled seldom outlasts one wait
        answer, arrived_ns = await call("agent_poll", {"job_id": started["job_id"], "wait_s": 45})
        if "next_poll_ms" not in answer:
            break
    assert answer["status"] == "completed", answer
    return (arrived_ns - int(answer["output"])) / 1e6
