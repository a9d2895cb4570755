"""Two ways to run the steps of jobs on PostgreSQL, on one server in one run: our own worker, and pgqueuer.

Two worker processes run jobs at an emulated provider. One of the workers is killed or stopped after a while.
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import anyio
import asyncpg

from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.status import Status
from agent_jobs.store import open_store
from agent_jobs.store.postgres_address import PostgresAddress
from bench.figures import settings
from bench.peers import ROOT, environment
from bench.process_figures import cpu_s, parent_of

ENGINES = ("our worker", "pgqueuer")
STREAMED = 0.15  #: of all jobs, by each worker; the others are polled
RUN_S = (10.0, 40.0)  #: a job takes at least and at most this long
FAULT_AFTER_S = 4.0  #: all jobs were sent
LAUNCH_LIMIT_S, END_LIMIT_S = 120, 150


@dataclass
class Outcome:
    """What one run of one engine showed."""

    jobs: int
    completed: int = 0
    steps: int = 0
    lateness_s: list[float] = field(default_factory=list[float])
    take_over_s: list[float] = field(default_factory=list[float])
    worker_cpu_s: float = 0.0
    server_cpu_s: float = 0.0
    wal_bytes: int = 0
    most_posts: int = 0  #: of one turn

    def late(self, percentile: int) -> float:
        if len(self.lateness_s) < 2:
            return 0.0
        return quantiles(self.lateness_s, n=100, method="inclusive")[percentile - 1]


Row = tuple[str, Callable[[Outcome], str], str]
ROWS: dict[signal.Signals, Sequence[Row]] = {
    signal.SIGKILL: (
        ("steps late, p50", lambda outcome: f"{outcome.late(50):.2f} s", ""),
        ("steps late, p99", lambda outcome: f"{outcome.late(99):.2f} s", "<= 2 s"),
        ("steps late, most", lambda outcome: f"{max(outcome.lateness_s, default=0):.2f} s", ""),
        ("take-over after SIGKILL, most", lambda outcome: f"{max(outcome.take_over_s, default=0):.1f} s", "<= 4 s"),
        (
            "CPU of the workers per job",
            lambda outcome: f"{1e3 * outcome.worker_cpu_s / outcome.jobs:.0f} ms",
            "<= 80 ms",
        ),
        ("CPU of PostgreSQL per job", lambda outcome: f"{1e3 * outcome.server_cpu_s / outcome.jobs:.0f} ms", ""),
        ("WAL per job", lambda outcome: f"{outcome.wal_bytes / outcome.jobs / 1e3:.1f} kB", ""),
        ("POSTs of a turn, most", lambda outcome: f"{outcome.most_posts}", "1"),
        ("jobs completed", lambda outcome: f"{outcome.completed} of {outcome.jobs}", "all"),
    ),
    signal.SIGSTOP: (
        ("take-over after SIGSTOP, most", lambda outcome: f"{max(outcome.take_over_s, default=0):.1f} s", "<= 12 s"),
        ("jobs completed then", lambda outcome: f"{outcome.completed} of {outcome.jobs}", "all"),
    ),
}


class WorkerProcess:
    """A worker in a process of its own, with the record of its steps."""

    def __init__(self, engine: str, folder: Path, number: int, env: dict[str, str]) -> None:
        self._record = folder / f"record{number}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.queue_worker", engine, self._record], cwd=ROOT, env=environment(**env)
        )
        self.lost_at: float | None = None
        self.cpu_s = 0.0

    def lose(self, fault: signal.Signals) -> None:
        self.cpu_s = cpu_s(self._process.pid)
        self.lost_at = time.time()
        self._process.send_signal(fault)

    def kill(self) -> None:
        if self._process.poll() is None:
            self.cpu_s = cpu_s(self._process.pid)
            self._process.kill()
            self._process.wait()

    def read_record(self) -> Iterable[tuple[float, str, str, float]]:
        """Yield when each line was written, what it says, of which job, and of what time: due times lie ahead."""
        written_at = 0.0
        for line in self._record.read_text().splitlines():
            what, job_id, at = line.split()
            if what != "due":
                written_at = float(at)
            yield written_at, what, job_id, float(at)


async def measure(engine: str, url: str, emulator: RunningServer, jobs: int, fault: signal.Signals) -> Outcome:
    """Run these jobs with two workers, one of which is lost."""
    if engine == "pgqueuer":
        from bench.queue_pgqueuer import install  # of the dependency group `bench`

        await install(url)
    outcome = Outcome(jobs)
    connection = await asyncpg.connect(url)
    postmaster = parent_of(await connection.fetchval("SELECT pg_backend_pid()"))
    with tempfile.TemporaryDirectory() as folder:
        env = {
            **settings(folder, emulator.base_url),
            "AGENT_JOBS_DATABASE_URL": url,
            "AGENT_JOBS_FOLLOW": str(round(STREAMED * jobs)),
            "AGENT_JOBS_MAX_CONCURRENT": "1000",
        }
        async with open_store(Path(folder), PostgresAddress(url)) as store:
            await store.add(*_make_jobs(emulator.base_url, jobs), allow_duplicate=True)
            await store.release_claims(time.time())
        wal = await connection.fetchval("SELECT pg_current_wal_lsn()")
        server_cpu_s = cpu_s(postmaster, with_children=True)
        workers = [WorkerProcess(engine, Path(folder), number, env) for number in range(2)]
        try:
            await _wait_for_none(connection, "turn WHERE response_id IS NULL", LAUNCH_LIMIT_S)
            await anyio.sleep(FAULT_AFTER_S)
            workers[0].lose(fault)
            await _wait_for_none(connection, "job WHERE finished_at IS NULL OR unsettled", END_LIMIT_S)
        finally:
            for worker in workers:
                worker.kill()
        outcome.worker_cpu_s = sum(worker.cpu_s for worker in workers)
        outcome.server_cpu_s = cpu_s(postmaster, with_children=True) - server_cpu_s
        outcome.wal_bytes = int(await connection.fetchval("SELECT pg_current_wal_lsn() - $1::pg_lsn", wal))
        outcome.completed = await connection.fetchval("SELECT COUNT(*) FROM job WHERE status = 'completed'")
        outcome.most_posts = max(emulator.emulator.counters()["creates_by_request_id"].values())
        _read_records(workers, outcome)
    await connection.close()
    return outcome


async def _wait_for_none(connection: Any, rows: str, limit_s: float) -> None:
    """Wait until there are no such rows; a run that does not come to that shows it in its figures."""
    with anyio.move_on_after(limit_s):
        while await connection.fetchval(f"SELECT COUNT(*) FROM {rows}"):  # noqa: ASYNC110
            await anyio.sleep(0.5)


def _make_jobs(base_url: str, jobs: int) -> list[Job]:
    durations, now = random.Random(1), time.time()

    def make(number: int) -> Job:
        prompt = f'{number} [emulate {{"duration_s": {durations.uniform(*RUN_S):.2f}}}]'
        request = {"model": "emulated", "input": prompt, "store": True, "background": True, "stream": True}
        turn = Turn(number=1, request=request, request_id=f"r{number}", base_url=base_url)
        return Job(id=f"job_{number:05}", title="t", status=Status.PENDING, created_at=now, turn=turn)

    return [make(number) for number in range(jobs)]


def _read_records(workers: Sequence[WorkerProcess], outcome: Outcome) -> None:
    """Add how late steps were, and how long what the lost worker was doing waited for the other one."""
    lines: dict[str, list[tuple[float, int, str, float]]] = {}
    for index, worker in enumerate(workers):
        for written_at, what, job_id, at in worker.read_record():
            lines.setdefault(job_id, []).append((written_at, index, what, at))
    lost_at = workers[0].lost_at or 0.0
    for of_job in lines.values():
        of_job.sort(key=lambda line: line[:2])
        due_at: float | None = None
        runs_at: int | None = None
        for _, index, what, at in of_job:
            if what == "due":
                due_at = at
            elif what == "end" and index == runs_at:
                runs_at = None
            elif what == "begin":
                outcome.steps += 1
                if due_at is not None:
                    outcome.lateness_s.append(max(0.0, at - due_at))
                if runs_at == 0 and index == 1 and at > lost_at:
                    outcome.take_over_s.append(at - lost_at)
                due_at, runs_at = None, index


def compare(jobs: int) -> None:
    """Print the table of both engines."""
    sys.path.append(str(ROOT / "tests" / "support"))
    from postgres_server import make_template, new_database, running_server

    print("{:<32} {:>12} {:>12}  {}".format("PostgreSQL, two workers", *ENGINES, "target"), flush=True)
    with running_server() as server:
        make_template(server.url)
        for fault, count in ((signal.SIGKILL, jobs), (signal.SIGSTOP, max(20, jobs // 5))):
            outcomes: list[Outcome] = []
            for engine in ENGINES:
                with new_database(server.url) as url, run_emulator() as emulator:
                    outcomes.append(anyio.run(measure, engine, url, emulator, count, fault))
            for what, show, target in ROWS[fault]:
                print("{:<32} {:>12} {:>12}  {}".format(what, *map(show, outcomes), target), flush=True)
            taken = [len(outcome.take_over_s) for outcome in outcomes]
            half_s = [f"{median(outcome.take_over_s or [0]):.1f}" for outcome in outcomes]
            print(
                f"  ({[outcome.steps for outcome in outcomes]} steps; {taken} taken over, p50 {half_s} s)", flush=True
            )
