"""The figures of jobs that replicas share in PostgreSQL, beside those of a file, in turns in one run."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import asyncpg

from agent_jobs.app import open_app
from agent_jobs.emulator.server import run_emulator
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.request.start_request import StartRequest
from agent_jobs.settings.settings import Settings
from agent_jobs.store import open_store
from agent_jobs.store.base import Store
from agent_jobs.store.job_import import JobImport, import_jobs
from agent_jobs.store.postgres_address import PostgresAddress
from bench.figures import Figure, settings
from bench.listing import DAY_S, HERE, fill, new_job

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from postgres_server import new_database, running_template  # of the tests, which bring a server

Question = Callable[[Store, float, int], Awaitable[object]]

RUNNING = "('starting', 'queued', 'in_progress')"
WAITERS = 100
WORKERS = 2
JOBS_S = 20  # and up to nine more
KILL_AFTER_S = 8.0
TICK_S = 0.05  # between looks at the rows: as exact as a time is
LIMIT_S = 120.0


@contextmanager
def database() -> Generator[str]:
    """Yield the URL of a new database, on a server of its own, or on that of AGENT_JOBS_TEST_DATABASE_URL."""
    with running_template() as server, new_database(server) as url:
        yield url


# One call on both.


async def _save(store: Store, now: float, number: int) -> None:
    job = await store.get(f"job_{number}")
    assert job is not None
    await store.transition(job.id, lambda stored: replace(stored, activity=f"{number} {now}"))


CALLS: dict[str, Question] = {
    "get": lambda store, now, number: store.get(f"job_{number}"),
    "get, then save": _save,
    "list with counts and costs": lambda store, now, number: store.list_jobs(JobFilter(), 20, now - now % DAY_S),
    "due": lambda store, now, number: store.find_due(now - DAY_S * 365, HERE),
    "when the next one is due": lambda store, now, number: store.next_due_at(HERE),
    "free slots": lambda store, now, number: store.claim_free_slots(HERE, 0),
    "add": lambda store, now, number: store.add(new_job(now, number)),
}


async def calls(url: str, jobs: int, rounds: int) -> list[Figure]:
    """Measure each call on both stores, in turns; they have the same jobs."""
    with tempfile.TemporaryDirectory() as name:
        folder, now = Path(name), time.time()
        async with open_store(folder):
            pass
        fill(folder / "jobs.db", jobs, now)
        address = PostgresAddress(url)
        # All jobs ended, so that the file keeps what is imported.
        with closing(sqlite3.connect(folder / "jobs.db")) as db:
            db.execute("UPDATE job SET status = 'completed', finished_at = created_at, next_at = NULL")
            db.commit()
        await import_jobs(JobImport(folder, address, folder / "made", None, now, str, 0))
        await _fetch(url, "ANALYZE")  # as autovacuum does within a minute
        async with open_store(folder) as file, open_store(Path(), address) as shared:
            return [await _measure_call(what, ask, file, shared, rounds) for what, ask in CALLS.items()]


async def _measure_call(what: str, ask: Question, file: Store, shared: Store, rounds: int) -> Figure:
    figure = Figure(f"{what}, against a file", "")
    if what == "get":
        figure.target, figure.limit = "<= 3x", lambda figure: figure.ratio <= 3
    for number in range(rounds + 5):
        for store, times in ((shared, figure.ours), (file, figure.beside)):
            began = time.perf_counter()
            await ask(store, time.time(), number)
            if number >= 5:
                times.append((time.perf_counter() - began) * 1e3)
    return figure


async def waiters(url: str, rounds: int) -> list[Figure]:
    """Measure how soon a waiter of another replica wakes, and the connections of a replica with many waiters."""
    woken = Figure("change -> waiter on another replica", "<= 50 ms", lambda figure: figure.p50 <= 50)
    connections = Figure(f"connections of a replica, {WAITERS} waiters", "<= 12", lambda f: max(f.ours) <= 12, unit="")
    address = PostgresAddress(url)
    async with open_store(Path(), address) as one, open_store(Path(), address) as other:
        job = new_job(time.time(), 0)
        for number in range(rounds):
            job = new_job(time.time(), number)
            await one.add(job)
            began = [0.0]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_note_wake, other, job.id, job.revision, began, woken.ours)
                await anyio.sleep(0.05)
                began[0] = time.perf_counter()
                await one.transition(job.id, lambda stored: replace(stored, activity="moved"))
        async with anyio.create_task_group() as tasks:
            for _ in range(WAITERS):
                tasks.start_soon(other.wait_for_change, job.id, job.revision + 1)
                tasks.start_soon(other.get, job.id)
            await anyio.sleep(1)
            connections.ours.append(await _count_connections(url) / 2)
            tasks.cancel_scope.cancel()
    return [woken, connections]


async def _note_wake(store: Store, job_id: str, revision: int, began: list[float], times: list[float]) -> None:
    await store.wait_for_change(job_id, revision)
    times.append((time.perf_counter() - began[0]) * 1e3)


async def _count_connections(url: str) -> int:
    rows = await _fetch(
        url, "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return rows[0]["n"]


async def _fetch(url: str, sql: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


# Two workers, one of which dies.


@dataclass(frozen=True)
class Place:
    """A database, as processes find it and as its rows are read."""

    variables: Mapping[str, str]
    read: Callable[[str], Awaitable[list[Any]]]


def file_place(folder: str, base_url: str) -> Place:
    async def read(sql: str) -> list[Any]:
        with closing(sqlite3.connect(Path(folder) / "jobs.db")) as db:
            db.row_factory = sqlite3.Row
            return db.execute(sql).fetchall()

    return Place(settings(folder, base_url), read)


def shared_place(folder: str, base_url: str, url: str) -> Place:
    return Place({**settings(folder, base_url), "AGENT_JOBS_DATABASE_URL": url}, partial(_fetch, url))


@contextmanager
def workers(place: Place, **variables: str) -> Generator[dict[int, "subprocess.Popen[bytes]"]]:
    """Run `agent-jobs work` twice; yield the processes by their ids."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "PYTHON", "HOME"))}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "agent_jobs", "work"], env={**kept, **place.variables, **variables},
            stderr=subprocess.DEVNULL,
        )
        for _ in range(WORKERS)
    ]  # fmt: skip
    try:
        yield {process.pid: process for process in started}
    finally:
        for process in started:
            process.kill()
            process.wait()


async def take_over(url: str, rounds: int) -> list[Figure]:
    """Measure from the signal that stops a worker to the claim of another one, on both databases."""
    killed = Figure("SIGKILL -> job claimed by another", "<= 4 s", lambda figure: max(figure.ours) <= 4, unit="s")
    stopped = Figure("SIGSTOP -> job claimed by another", "<= 12 s", lambda figure: max(figure.ours) <= 12, unit="s")
    with run_emulator() as upstream:
        for _ in range(rounds):
            for figure, number in ((killed, signal.SIGKILL), (stopped, signal.SIGSTOP)):
                with tempfile.TemporaryDirectory() as folder:
                    place = shared_place(folder, upstream.base_url, url)
                    figure.ours.append(await _take_over(place, number))
            with tempfile.TemporaryDirectory() as folder:
                killed.beside.append(await _take_over(file_place(folder, upstream.base_url), signal.SIGKILL))
    return [killed, stopped]


async def _take_over(place: Place, number: signal.Signals) -> float:
    with workers(place) as processes:
        job_id = await _start_job(place, "take-over", duration_s=40)
        sql = f"SELECT holder FROM job WHERE id = '{job_id}' AND holder IS NOT NULL AND status IN {RUNNING}"
        before = await _wait_for(place, sql, lambda holder: int(holder.split("-")[0]) in processes)
        began = time.monotonic()
        processes[int(before.split("-")[0])].send_signal(number)
        await _wait_for(place, sql, lambda holder: holder != before)
        return time.monotonic() - began


async def _start_job(place: Place, prompt: str, **script: Any) -> str:
    """Store a job from a process that leaves it to the workers."""
    async with open_app(Settings.from_env(dict(place.variables)), role="acts") as app:
        [started] = await (await app.engine()).start(_request(f"{prompt} {time.time()}", script))
        return started.job.id


def _request(prompt: str, script: Mapping[str, Any]) -> StartRequest:
    return StartRequest(prompts=(f"{prompt} [emulate {json.dumps(script)}]",))


async def _wait_for(place: Place, sql: str, is_met: Callable[[str], bool]) -> str:
    """Return the holder of a job once it is as wanted."""
    with anyio.fail_after(LIMIT_S):
        while True:
            for row in await place.read(sql):
                if is_met(row["holder"]):
                    return row["holder"]
            await anyio.sleep(TICK_S)


async def lateness(url: str, jobs: int) -> list[Figure]:
    """Measure how late steps run while one of two workers is killed, on both databases."""
    figures = [
        Figure(f"lateness of a step, {jobs} polled jobs, p50", "", unit="s"),
        Figure("  one of two workers killed, p99", "<= 2 s", lambda figure: figure.p50 <= 2, unit="s"),
        Figure("  the latest", "", unit="s"),
    ]
    with run_emulator() as upstream, tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        places = (shared_place(folder, upstream.base_url, url), file_place(other, upstream.base_url))
        for place in places:
            times = sorted(await _measure_lateness(place, jobs))
            values = (times[len(times) // 2], times[len(times) * 99 // 100], times[-1])
            for figure, value in zip(figures, values, strict=True):
                (figure.ours if place is places[0] else figure.beside).append(value)
    return figures


async def _measure_lateness(place: Place, jobs: int) -> list[float]:
    """Return how late each step was taken, as far as it was seen to be late at all."""
    seen: dict[tuple[str, float], float] = {}
    with workers(place, AGENT_JOBS_FOLLOW="never", AGENT_JOBS_MAX_CONCURRENT=str(jobs)) as processes:
        await _start_jobs(place, jobs)
        began = time.time()
        with anyio.fail_after(LIMIT_S):
            while rows := await place.read(f"SELECT id, next_at FROM job WHERE status IN {RUNNING}"):
                now = time.time()
                due = {(row["id"], row["next_at"]): now - row["next_at"] for row in rows if row["next_at"]}
                seen |= {key: max(0.0, late) for key, late in due.items() if late > 0 or key not in seen}
                if now - began > KILL_AFTER_S and len(processes) == WORKERS:
                    processes.popitem()[1].kill()
                await anyio.sleep(TICK_S)
    return [*seen.values()]


async def _start_jobs(place: Place, jobs: int) -> None:
    variables = {**place.variables, "AGENT_JOBS_FOLLOW": "never", "AGENT_JOBS_MAX_CONCURRENT": str(jobs)}
    async with open_app(Settings.from_env(variables), role="acts") as app:
        engine = await app.engine()
        async with anyio.create_task_group() as tasks:
            for number in range(jobs):
                script = {"duration_s": JOBS_S + number % 10}
                tasks.start_soon(engine.start, _request(f"late {number}", script))
