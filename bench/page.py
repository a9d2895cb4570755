"""Measures the page: how long a page takes with many jobs, and what open pages cost while jobs run."""

import json
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
from anyio.abc import TaskGroup

from agent_jobs.clock import Clock
from agent_jobs.engine.engine import Engine, NoUpstream
from agent_jobs.errors import ConfigError
from agent_jobs.jobs.job import Job
from agent_jobs.page.access import LinkAccess
from agent_jobs.page.guard import COOKIE
from agent_jobs.page.server import serve_page
from agent_jobs.store import open_store
from agent_jobs.store.base import Store
from bench.figures import Figure
from bench.listing import fill, new_job
from bench.peers import ROOT, environment

#: Milliseconds that a page may take, and cores that the open pages may take together.
MAX_MS = 50.0
MAX_CORES = 0.3
#: Sentences of a text as a running job writes it, and of an answer.
SENTENCE = "The migration copies each row once, and **two** writes can be lost [1]. "
ANSWER = "## Part\n\n" + SENTENCE * 10 + "\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\ndef f(x): return x\n```\n\n"
PAGES = ("/", "/?show=failed", "/?limit=300", "/?words=report", "/jobs/job_long", "/spend", "/new", "/jobs.json")


@asynccontextmanager
async def serving(store: Store) -> AsyncGenerator[tuple[str, str]]:
    """The page over a store that sends nothing; yields its address and a cookie."""
    access = LinkAccess(b"b" * 32, time.time)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        async with anyio.create_task_group() as tasks:
            engine = create_reading_engine(store, tasks)

            async def open_engine() -> Engine:
                return engine

            tasks.start_soon(serve_page, open_engine, access, listener)
            session = await access.sign_in(access.create_link_token())
            port = listener.getsockname()[1]
            yield f"http://127.0.0.1:{port}", f"{COOKIE}_{port}={session}"
            tasks.cancel_scope.cancel()


def create_reading_engine(store: Store, tasks: TaskGroup) -> Engine:
    return Engine(store, NoUpstream(ConfigError("nothing is sent here", "no_key")), Clock(), tasks, {})


async def measure(quick: bool) -> list[Figure]:
    """Return the figures of the page."""
    if quick:
        return [*await pages(500, 5), *await watching(10, 5, 2.0)]
    return [*await pages(5_000, 51), *await watching(100, 50, 20.0)]


async def pages(jobs: int, rounds: int) -> list[Figure]:
    """Return the milliseconds of each page from the request to its end, with this many jobs."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(Path(folder)):
            pass
        fill(Path(folder, "jobs.db"), jobs, time.time(), has_prompts=True)
        _add_long_answer(Path(folder, "jobs.db"), jobs)
        async with open_store(Path(folder)) as store, serving(store) as (url, cookie), visiting(url, cookie) as client:
            return [await _measure_page(client, path, rounds) for path in PAGES]


def visiting(url: str, cookie: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, headers={"Cookie": cookie}, trust_env=False, timeout=None)


def _add_long_answer(path: Path, jobs: int) -> None:
    """Give one job an answer of thirty kilobytes of Markdown, and its own id."""
    text = ANSWER * 30
    response: dict[str, Any] = {
        "output": [{"type": "message", "content": [{"type": "output_text", "text": text, "annotations": []}]}]
    }
    with sqlite3.connect(path) as db:
        changed = (text, json.dumps(response), len(text), f"job_{jobs - 100}")
        db.execute("UPDATE output SET text = ?, response = ?, bytes = ? WHERE job_id = ?", changed)
        for table, column in (
            ("turn", "job_id"),
            ("request", "job_id"),
            ("output", "job_id"),
            ("prompt", "job_id"),
            ("job", "id"),
        ):
            db.execute(f"UPDATE {table} SET {column} = 'job_long' WHERE {column} = ?", changed[3:])
    db.close()


async def _measure_page(client: httpx2.AsyncClient, path: str, rounds: int) -> Figure:
    figure = Figure(f"page {path}", f"<= {MAX_MS:g} ms", lambda figure: figure.p50 <= MAX_MS)
    for number in range(rounds + 2):
        began = time.perf_counter()
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        if number >= 2:
            figure.ours.append((time.perf_counter() - began) * 1e3)
    return figure


async def watching(jobs: int, viewers: int, seconds: float) -> list[Figure]:
    """Return the cores that open pages cost this process while jobs write, half of them on the list."""
    figure = Figure(
        f"{viewers} open pages, {jobs} running jobs: more",
        f"<= {MAX_CORES:g}",
        lambda figure: figure.p50 <= MAX_CORES,
        unit="core",
    )
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_store(Path(folder)) as store,
            serving(store) as (url, cookie),
            anyio.create_task_group() as tasks,
        ):
            running = [await _start_running(store, number) for number in range(jobs)]
            tasks.start_soon(_write_progress, store, running)
            alone = await _measure_cores(seconds)
            paths = ["/live/jobs" if number % 2 else f"/live/jobs/{running[number].id}" for number in range(viewers)]
            with _open_viewers(url, cookie, paths):
                await anyio.sleep(2)
                figure.ours.append(await _measure_cores(seconds) - alone)
            tasks.cancel_scope.cancel()
    return [figure]


async def _start_running(store: Store, number: int) -> Job:
    """Return a running job of this process."""
    now = time.time()
    job = new_job(now, number)
    await store.add(job)
    sent = job.mark_sending(now)
    assert await store.begin_sending(sent)
    running = await store.record_response_id(job.id, 1, f"resp_{number}", now)
    assert running is not None
    return running


async def _write_progress(store: Store, running: list[Job]) -> None:
    """Write a sentence more for each job every second, as the reader of streams does for all of them at once."""
    for count in range(1, 10_000):
        text = SENTENCE * (count % 60 + 1)
        await store.save_progress([job.with_progress(count, f"writing {count}", text, "") for job in running])
        await anyio.sleep(1)


async def _measure_cores(seconds: float) -> float:
    began, cpu = time.perf_counter(), time.process_time()
    await anyio.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - began)


def _open_viewers(url: str, cookie: str, paths: list[str]) -> "subprocess.Popen[bytes]":
    """Start a process that keeps these streams open."""
    return _Viewers([sys.executable, "-m", "bench.page", url, cookie, *paths], cwd=ROOT, env=environment())


class _Viewers(subprocess.Popen[bytes]):
    """A process that ends with its block."""

    def __exit__(self, *args: object) -> None:
        self.terminate()
        self.wait()


async def _view(url: str, cookie: str, paths: list[str]) -> None:
    """Read streams until this process ends."""
    async with visiting(url, cookie) as client, anyio.create_task_group() as tasks:
        for path in paths:
            tasks.start_soon(_read_stream, client, path)


async def _read_stream(client: httpx2.AsyncClient, path: str) -> None:
    async with client.stream("GET", path) as answer:
        assert answer.status_code == 200
        async for _ in answer.aiter_raw():
            pass


if __name__ == "__main__":
    anyio.run(_view, sys.argv[1], sys.argv[2], sys.argv[3:])
