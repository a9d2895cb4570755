"""The team server under load: users who start jobs and wait for them, two replicas behind haproxy, one PostgreSQL."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

import anyio
import asyncpg
import httpx2

from agent_jobs.app import open_app
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr
from bench.figures import settings
from bench.peers import ROOT, environment, upstream
from bench.process_figures import cpu_s, parent_of, rss_mb

REPLICAS = 2
#: Of a waiting poll; the server ends it sooner.
POLL_S = 240
#: After the last job should have ended.
PATIENCE_S = 120
CALL_LIMIT_S = 120.0
#: Statistics as a server has that has run for a while: the tests switch autovacuum off, and plans without it are poor.
SERVER_OPTIONS = "-c shared_preload_libraries=pg_stat_statements -c autovacuum=on -c autovacuum_naptime=5s"
TICK_S = 0.5
#: Of a start. The third one ends when a stream or, without room for one, the first poll is noted.
PHASES = ("call -> planned", "planned -> ready to send", "ready to send -> id stored", "id stored -> answer")
#: Writes when the row of each job showed its end, by the clock of this machine.
NOTE_ENDS = """
    CREATE TABLE bench_end (job_id text PRIMARY KEY, at float8 NOT NULL);
    CREATE FUNCTION note_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO bench_end VALUES (NEW.id, extract(epoch FROM clock_timestamp())) ON CONFLICT DO NOTHING;
        RETURN NEW;
    END $$;
    CREATE TRIGGER note_end AFTER UPDATE OF status ON job FOR EACH ROW
        WHEN (NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL) EXECUTE FUNCTION note_end()
"""


class Load(NamedTuple):
    """What the users do."""

    jobs: int
    users: int
    seconds: float  #: a job takes


@dataclass
class Outcome:
    """What the users and the machine showed."""

    started: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])  #: call and answer
    phases: dict[str, list[float]] = field(default_factory=dict[str, list[float]])  #: seconds of all starts
    answered_at: dict[str, float] = field(default_factory=dict[str, float])
    ended_at: dict[str, float] = field(default_factory=dict[str, float])
    errors: Counter[str] = field(default_factory=Counter[str])
    polls: int = 0
    posts: int = 0
    gets: int = 0
    most_connections: int = 0
    replica_cpu_s: float = 0.0
    server_cpu_s: float = 0.0
    most_rss_mb: list[float] = field(default_factory=lambda: [0.0] * REPLICAS)
    began_at: float = 0.0
    load_average: float = 0.0

    @property
    def start_s(self) -> list[float]:
        """Seconds from the call of agent_start to its answer."""
        return [answered - called for called, answered in self.started.values()]

    @property
    def lags_s(self) -> list[float]:
        """Seconds from the end in the row of each job to the answer of the poll that waited for it."""
        return [at - self.ended_at[job_id] for job_id, at in self.answered_at.items() if job_id in self.ended_at]


def measure(load: Load) -> Outcome:
    """Run this load on a new database, and return what it showed."""
    sys.path.append(str(ROOT / "tests" / "support"))
    from installed_haproxy import NO_HAPROXY, find_haproxy  # of the tests, as what follows
    from postgres_server import make_template, new_database, running_server

    if find_haproxy() is None:
        sys.exit(NO_HAPROXY)
    with running_server(SERVER_OPTIONS) as server:
        make_template(server.url)
        with (
            new_database(server.url) as url,
            upstream("bench.load_upstream") as base_url,
            tempfile.TemporaryDirectory() as folder,
        ):
            return anyio.run(_measure_on, load, url, base_url, Path(folder))


async def _measure_on(load: Load, url: str, base_url: str, folder: Path) -> Outcome:
    from balancer import find_free_port, running_balancer, wait_until_ready  # of the tests

    outcome = Outcome()
    tokens = await _make_tokens(url, folder, load.users)
    database = await asyncpg.connect(url)
    await database.execute(NOTE_ENDS)
    postmaster = parent_of(await database.fetchval("SELECT pg_backend_pid()"))
    ports = [find_free_port() for _ in range(REPLICAS + 1)]
    with (
        _replicas(url, base_url, folder, ports[1:]) as replicas,
        running_balancer(ports[0], ports[1:], folder),
    ):
        address = f"http://127.0.0.1:{ports[0]}"
        for port in ports:
            await wait_until_ready(f"http://127.0.0.1:{port}")
        idle_s = cpu_s(postmaster, with_children=True), sum(cpu_s(replica.pid) for replica in replicas)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch, database, replicas, outcome)
            await _run_users(load, address, tokens, outcome)
            tasks.cancel_scope.cancel()
        outcome.server_cpu_s = cpu_s(postmaster, with_children=True) - idle_s[0]
        outcome.replica_cpu_s = sum(cpu_s(replica.pid) for replica in replicas) - idle_s[1]
        outcome.load_average = os.getloadavg()[0]
        if os.environ.get("BENCH_LOAD_STATEMENTS"):
            await _print_statements(database, load.jobs)
    outcome.ended_at = {row["job_id"]: row["at"] for row in await database.fetch("SELECT job_id, at FROM bench_end")}
    await _read_phases(database, outcome)
    outcome.posts, outcome.gets = await _read_counters(base_url)
    await database.close()
    return outcome


async def _run_users(load: Load, address: str, tokens: Sequence[str], outcome: Outcome) -> None:
    """Have each user start jobs one after another, and wait for each as soon as it is started."""
    outcome.began_at = time.time()
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=CALL_LIMIT_S, trust_env=False) as http:
        with anyio.move_on_after(load.seconds * 2 + load.jobs / 5 + PATIENCE_S) as limit:
            async with anyio.create_task_group() as waits:
                for number, token in enumerate(tokens):
                    user = User(http, token, outcome)
                    count = load.jobs // load.users + (number < load.jobs % load.users)
                    waits.start_soon(user.start_jobs, count, load.seconds, waits)
        if limit.cancelled_caught:
            outcome.errors["not over in time"] += load.jobs - len(outcome.answered_at)


class User:
    """A host with a token."""

    def __init__(self, http: httpx2.AsyncClient, token: str, outcome: Outcome) -> None:
        self._http = http
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-11-25",
        }
        self._outcome = outcome

    async def start_jobs(self, count: int, seconds: float, waits: Any) -> None:
        """Start jobs one after another; wait for each beside that."""
        for number in range(count):
            prompt = f"{number} {secrets.token_hex(8)} [emulate {json.dumps({'duration_s': seconds})}]"
            began = time.time()
            started = await self._call("agent_start", {"prompt": prompt, "wait_s": 0})
            if started is not None:
                self._outcome.started[started["job_id"]] = (began, time.time())
                waits.start_soon(self._wait_for, started["job_id"])

    async def _wait_for(self, job_id: str) -> None:
        while True:
            answer = await self._call("agent_poll", {"job_id": job_id, "wait_s": POLL_S})
            self._outcome.polls += 1
            if answer is None:
                return
            if answer["status"] == "completed":
                self._outcome.answered_at[job_id] = time.time()
                return
            if answer["status"] not in ("queued", "in_progress", "pending", "starting"):
                self._outcome.errors[f"a job is {answer['status']}"] += 1
                return

    async def _call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer of a tool; count anything else as an error."""
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": tool, "arguments": arguments},
        }
        try:
            answer = await self._http.post("/mcp", json=message, headers=self._headers)
        except httpx2.HTTPError as error:
            self._outcome.errors[f"{tool}: {type(error).__name__}"] += 1
            return None
        if answer.status_code != 200:
            self._outcome.errors[f"{tool}: HTTP {answer.status_code}"] += 1
            return None
        result = _read_message(answer.text).get("result", {"isError": True, "content": [{"text": answer.text[:200]}]})
        if result.get("isError"):
            self._outcome.errors[f"{tool}: {result['content'][0]['text'][:100]}"] += 1
            return None
        return json.loads(result["content"][0]["text"])


def _read_message(text: str) -> dict[str, Any]:
    """Return the message in an answer, which is an event of a stream or stands alone."""
    for line in reversed(text.splitlines()):
        if line.startswith("data: {"):
            return json.loads(line.removeprefix("data: "))
    return json.loads(text)


async def _watch(database: Any, replicas: Sequence["subprocess.Popen[bytes]"], outcome: Outcome) -> None:
    """Note the most memory and connections, for ever."""
    count = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    while True:
        sizes = [rss_mb(replica.pid) for replica in replicas]
        outcome.most_rss_mb = list(map(max, outcome.most_rss_mb, sizes))
        outcome.most_connections = max(outcome.most_connections, await database.fetchval(count))
        await anyio.sleep(TICK_S)


async def _print_statements(database: Any, jobs: int) -> None:
    """Print the statements that cost most; the server must load pg_stat_statements."""
    await database.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    for row in await database.fetch(
        "SELECT calls, total_exec_time, query FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 45"
    ):
        query = " ".join(row["query"].split())
        print(f"{row['calls'] / jobs:8.1f} calls a job {row['total_exec_time'] / jobs:8.2f} ms a job  {query[:150]}")


async def _read_phases(database: Any, outcome: Outcome) -> None:
    """Note where the time of the starts went, by what the rows say."""
    rows = await database.fetch(
        """SELECT id, created_at, sent_at,
                  (SELECT MIN(at) FROM event WHERE job_id = id AND kind IN ('following', 'polling')) AS read_at
           FROM job JOIN turn ON turn.job_id = job.id"""
    )
    for row in rows:
        called, answered = outcome.started.get(row["id"], (0.0, 0.0))
        moments = [called, row["created_at"], row["sent_at"], row["read_at"], answered]
        if called and all(moments):
            for name, since, until in zip(PHASES, moments, moments[1:], strict=False):
                outcome.phases.setdefault(name, []).append(until - since)


async def _make_tokens(url: str, folder: Path, users: int) -> list[str]:
    ours = Settings(data_dir=folder, database_url=SecretStr(url))
    async with open_app(ours, role="reads") as app:
        owners = (await app.engine()).owners
        return [(await owners.add_token(f"user-{number}"))[0] for number in range(users)]


async def _read_counters(base_url: str) -> tuple[int, int]:
    """Return the POSTs that created a response at the emulator, and the GETs of one."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{base_url.removesuffix('/v1')}/_emulator/counters")
        counters = answer.json()
        return counters["creates"], counters["retrieves"]


@contextmanager
def _replicas(
    url: str, base_url: str, folder: Path, ports: Sequence[int]
) -> Generator[list["subprocess.Popen[bytes]"]]:
    """Run a replica on each port."""
    variables = {
        **settings(str(folder), base_url),
        "AGENT_JOBS_DATABASE_URL": url,
        "AGENT_JOBS_MAX_CONCURRENT": "9999",
        **{name: value for name, value in os.environ.items() if name == "AGENT_JOBS_FOLLOW"},
    }
    command = [sys.executable, *os.environ.get("BENCH_LOAD_PYTHON", "").split(), "-m", "agent_jobs", "serve", "--http"]
    started = [
        subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=ROOT,
            env=environment(**variables),
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"replica-{port}.log").open("wb"),
        )
        for port in ports
    ]
    try:
        yield started
    finally:
        for replica in started:
            replica.send_signal(signal.SIGINT)
        for replica in started:
            try:
                replica.wait(20)
            except subprocess.TimeoutExpired:
                replica.kill()
                replica.wait()
        for port in ports:
            text = (folder / f"replica-{port}.log").read_text()
            for line, count in Counter(text.splitlines()).most_common(5):
                print(f"replica: {count} x {line[:200]}")


def show(load: Load) -> None:
    """Measure this load, and print the figures beside their targets."""
    outcome = measure(load)
    print(f"\n{load.jobs} jobs of {load.seconds:g} s, {load.users} users, {REPLICAS} replicas")
    for what, value, target in _list_figures(load, outcome):
        print(f"{what:<44} {value:>22}  {target}")
    for error, count in outcome.errors.most_common(10):
        print(f"  {count} x {error}")


def _list_figures(load: Load, outcome: Outcome) -> list[tuple[str, str, str]]:
    jobs, lags_s = load.jobs, outcome.lags_s
    rss = ", ".join(f"{each:.0f}" for each in outcome.most_rss_mb)
    return [
        ("errors", str(outcome.errors.total()), "0"),
        ("jobs whose poll showed their end", f"{len(outcome.answered_at)} of {jobs}", "all"),
        ("agent_start, p50; p99; most", _describe_times(outcome.start_s), "p99 2 s"),
        *((f"  {name}", _describe_times(times), "") for name, times in outcome.phases.items()),
        ("end in the row -> answer, p50; p99; most", _describe_times(lags_s), "p99 1 s"),
        ("CPU of the replicas per job", f"{1e3 * outcome.replica_cpu_s / jobs:.0f} ms", "80 ms"),
        ("CPU of PostgreSQL per job", f"{1e3 * outcome.server_cpu_s / jobs:.0f} ms", ""),
        ("most memory of each replica", f"{rss} MB", "160 MB"),
        ("connections of a replica, most", f"{outcome.most_connections / REPLICAS:.1f}", "12"),
        ("POSTs per job; GETs per job", f"{outcome.posts / jobs:.2f}; {outcome.gets / jobs:.1f}", "1 POST"),
        ("polls per job", f"{outcome.polls / jobs:.1f}", ""),
        ("load average at the end", f"{outcome.load_average:.1f}", ""),
    ]


def _describe_times(times: Sequence[float]) -> str:
    if len(times) < 2:
        return "none"
    cuts = quantiles(times, n=100, method="inclusive")
    return f"{cuts[49]:.2f}; {cuts[98]:.2f}; {max(times):.2f} s"
