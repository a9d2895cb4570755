"""PostgreSQL restarted, unreachable, read-only, full, slow, and clocks that disagree: no paid response is lost.

Each fault has a sentence, for a model and for a person, and jobs continue once it is over.
"""

import re
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from anyio.to_thread import run_sync
from click.testing import CliRunner
from hosts import SPEED, Host, eventually, hosting, read, script_prompt
from postgres_proxy import Proxy, proxied
from postgres_server import Server, make_template, new_database, run_statements, running_server

from agent_jobs.cli.main import cli
from agent_jobs.clock import Clock, create_steady_clock
from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr
from agent_jobs.store import postgres_address, postgres_database, postgres_heartbeat

HOUR_S = 3600.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server for this module only: tests stop it and make it a standby."""
    with running_server("-c wal_level=replica") as server:
        make_template(server.url)
        yield server


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with new_database(server.url) as url:
        yield url


@pytest.fixture
async def proxy(url: str) -> "AsyncGenerator[Proxy]":
    async with proxied(url) as proxy:
        yield proxy


def with_database(url: str, settings: Settings, **more: object) -> Settings:
    return replace(settings, database_url=SecretStr(url), **more)  # pyright: ignore[reportArgumentType]


class Fault:
    """A fault of a database, which begins and ends."""

    words: ClassVar[str]  #: in the sentence, as a pattern
    fix: ClassVar[str]

    def __init__(self, server: Server, url: str, proxy: Proxy) -> None:
        self.server, self.url, self.proxy = server, url, proxy
        self.name = url.rpartition("/")[2]

    def begin(self) -> None: ...

    def end(self) -> None: ...


class Stopped(Fault):
    words, fix = r"cannot be reached|closed the connection|stopped this call", "start the server|Call again"

    def begin(self) -> None:
        self.server.stop()

    def end(self) -> None:
        self.server.start()


class Cut(Fault):
    words, fix = r"closed the connection|cannot be reached", "start the server|Call again"

    def begin(self) -> None:
        self.proxy.cut()

    def end(self) -> None:
        self.proxy.is_reachable = True


class ReadOnly(Fault):
    words, fix = "accepts no changes", "set AGENT_JOBS_DATABASE_URL to the server that accepts changes"

    def begin(self) -> None:
        end_sessions = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'"
        read_only = f"ALTER DATABASE {self.name} SET default_transaction_read_only = on"
        run_statements(self.server.url, read_only, end_sessions)

    def end(self) -> None:
        run_statements(self.server.url, f"ALTER DATABASE {self.name} RESET default_transaction_read_only")


class Standby(Fault):
    words, fix = ReadOnly.words, ReadOnly.fix

    def begin(self) -> None:
        self.server.restart_as_standby()

    def end(self) -> None:
        self.server.promote()


FAULTS = [Stopped, Cut, ReadOnly, Standby]


@pytest.mark.parametrize("kind", FAULTS)
async def test_id_of_a_paid_response_is_kept_until_the_database_is_back(
    server: Server, url: str, proxy: Proxy, settings: Settings, upstream: RunningServer, kind: type[Fault],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    fault = kind(server, url, proxy)
    async with hosting(with_database(proxy.url, settings)) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "kept", "faults": [{"delay_created_s": 8}]})
        await eventually(lambda: upstream.emulator.counters()["creates"] == 1)
        await run_sync(fault.begin)
        try:
            await start_until_explained(host, fault)
            await eventually(lambda: "cannot store its response id" in caplog.text)
        finally:
            await run_sync(fault.end)
        assert await read_output_once_back(host, started["job_id"]) == "kept"
        assert (await host.end((await host.start(emulate={"duration_s": 1, "text": "new"}))["job_id"]))[
            "output"
        ] == "new"
    assert upstream.emulator.counters()["creates"] == 2
    assert "Traceback" not in caplog.text


async def start_until_explained(host: Host, fault: Fault) -> None:
    """Start jobs until the refusal explains the fault: the first ones may report that an open connection broke."""
    with anyio.fail_after(60):
        while not re.search(fault.words, sentence := await host.refused("agent_start", prompt="new")):
            assert re.search(Stopped.words, sentence), sentence
    assert re.search(fault.fix, sentence), sentence


async def read_output_once_back(host: Host, job_id: str) -> str:
    """Return the job's output as soon as the database answers again."""
    with anyio.fail_after(60):
        while (await host.client.call_tool("agent_poll", {"job_id": job_id, "wait_s": 0})).is_error:  # noqa: ASYNC110
            await anyio.sleep(0.1)
    return (await host.end(job_id))["output"]


async def run_once_back(host: Host, script: dict[str, Any]) -> str:
    """Start a job until its start is accepted, and return its output."""
    arguments = {"prompt": script_prompt("work", script), "wait_s": 0}
    with anyio.fail_after(60):
        while (answer := await host.client.call_tool("agent_start", arguments)).is_error:
            assert "Call again in a few seconds" in str(answer)
    return await read_output_once_back(host, read(answer)["job_id"])


class NoConnections(Fault):
    """Its user may have too few connections."""

    words, fix = "has no connection left", "raise its max_connections, or lower AGENT_JOBS_POOL"

    def begin(self) -> None:
        run_statements(
            self.url, f"CREATE ROLE {self.name} LOGIN CONNECTION LIMIT 1",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {self.name}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {self.name}",
        )  # fmt: skip

    def end(self) -> None:
        run_statements(self.url, f"ALTER ROLE {self.name} CONNECTION LIMIT -1")

    @property
    def url_of_user(self) -> str:
        return self.url.replace("//test@", f"//{self.name}@")


class Refused(NoConnections):
    """Its user may not log in."""

    words, fix = "refused this name or password", "correct them in AGENT_JOBS_DATABASE_URL or"

    def begin(self) -> None:
        super().begin()
        run_statements(self.url, f"ALTER ROLE {self.name} CONNECTION LIMIT -1 NOLOGIN")

    def end(self) -> None:
        run_statements(self.url, f"ALTER ROLE {self.name} LOGIN")


@pytest.mark.parametrize("kind", [*FAULTS, NoConnections, Refused])
async def test_server_started_without_its_database_works_once_it_is_back(
    server: Server, url: str, proxy: Proxy, settings: Settings, tmp_path: Path, kind: type[Fault]
) -> None:
    fault = kind(server, url, proxy)
    await run_sync(fault.begin)
    url = fault.url_of_user if isinstance(fault, NoConnections) else proxy.url
    try:
        async with hosting(with_database(url, settings)) as host:
            await start_until_explained(host, fault)
            assert re.search(fault.words, output := await run_sync(run_command, url, tmp_path, "list")), output
            assert not re.search("Ask the user", output)
            await run_sync(fault.end)
            started = await host.start(emulate={"duration_s": 1, "text": "came late"})
            assert (await host.end(started["job_id"]))["output"] == "came late"
    finally:
        await run_sync(fault.end)


def run_command(url: str, folder: Path, *words: str) -> str:
    environment = {"AGENT_JOBS_DATABASE_URL": url, "AGENT_JOBS_DATA_DIR": str(folder)}
    result = CliRunner().invoke(cli, list(words), env=environment)
    assert result.exit_code == 1
    return " ".join(result.output.split())


@pytest.mark.parametrize(("follow", "number"), [(200, 0), (200, 1), (200, 2), (200, 3), (0, 2), (0, 3), (0, 4)])
async def test_job_with_an_unanswered_commit_runs_once_and_finishes(
    proxy: Proxy, settings: Settings, upstream: RunningServer, number: int, follow: int
) -> None:
    """At each commit of a job in turn, the database stores the change and the process gets no answer."""
    async with hosting(with_database(proxy.url, settings, follow=follow)) as host:
        await host.app.engine()
        proxy.lose_answer(b"COMMIT", after=number)
        assert await run_once_back(host, {"duration_s": 3, "text": "once"}) == "once"
    assert upstream.emulator.counters()["creates"] == 1
    assert proxy.lost == 1


async def test_job_runs_over_a_slow_link(proxy: Proxy, settings: Settings) -> None:
    proxy.delay_s = 0.01
    async with hosting(with_database(proxy.url, settings)) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "slowly"})
        assert (await host.end(started["job_id"]))["output"] == "slowly"


async def test_server_that_does_not_answer_in_time_is_reported_and_works_again_afterwards(
    proxy: Proxy, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_database, "STATEMENT_LIMIT_S", 0.5)
    monkeypatch.setattr(postgres_database, "CONNECT_LIMIT_S", 0.5)
    async with hosting(with_database(proxy.url, settings)) as host:
        started = await host.start(emulate={"duration_s": 8, "text": "waited"})
        proxy.stall()
        with anyio.fail_after(60):
            assert "did not answer in time" in await host.refused("agent_poll", job_id=started["job_id"], wait_s=0)
        proxy.flow()
        assert await read_output_once_back(host, started["job_id"]) == "waited"


@pytest.mark.parametrize("pause", [Proxy.stall_at, Proxy.stall_after])
@pytest.mark.parametrize("words", [b"INSERT INTO turn", b"COMMIT"])
async def test_process_that_is_paused_inside_a_change_stops_no_other(
    url: str, proxy: Proxy, settings: Settings, monkeypatch: pytest.MonkeyPatch,
    pause: Callable[[Proxy, bytes], None], words: bytes,
) -> None:  # fmt: skip
    """The locks of the paused process are freed: the lock of all starts, and those of its jobs."""
    monkeypatch.setattr(postgres_address, "PAUSED_CHANGE_LIMIT_S", 1)
    monkeypatch.setitem(postgres_heartbeat._LIMITS, "dead_after_s", 2.5)  # pyright: ignore[reportPrivateUsage]
    async with hosting(with_database(url, settings)) as other, hosting(with_database(proxy.url, settings)) as paused:
        await paused.app.engine()
        pause(proxy, words)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(paused.client.call_tool, "agent_start", {"prompt": "never committed", "wait_s": 0})
            await eventually(lambda: proxy.is_stalled)
            started = await other.start(emulate={"duration_s": 1, "text": "went on"})
            assert (await other.end(started["job_id"]))["output"] == "went on"
            proxy.flow()


async def test_process_that_is_paused_loses_its_jobs_and_changes_nothing_afterwards(
    url: str, proxy: Proxy, settings: Settings, upstream: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with SIGSTOP or a cut cable, nothing of the process arrives, and then everything at once."""
    monkeypatch.setitem(postgres_heartbeat._LIMITS, "dead_after_s", 2.5)  # pyright: ignore[reportPrivateUsage]
    async with hosting(with_database(url, settings)) as other, hosting(with_database(proxy.url, settings)) as paused:
        started = await paused.start(emulate={"duration_s": 30, "text": "taken over"})
        proxy.stall()
        assert (await other.end(started["job_id"]))["output"] == "taken over"
        proxy.flow()
        assert await read_output_once_back(paused, started["job_id"]) == "taken over"
        assert await run_once_back(paused, {"duration_s": 1, "text": "again"}) == "again"
    assert upstream.emulator.counters()["creates"] == 2


async def read_elapsed_s(host: Host, job_id: str) -> float:
    """Return the age of a job, which a poll leaves out in the first half second."""
    return (await host.call("agent_poll", job_id=job_id, wait_s=0)).get("elapsed_s", 0)


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
async def test_machine_with_a_wrong_clock_shares_jobs_as_any_other(
    url: str, settings: Settings, upstream: RunningServer, ahead_s: float
) -> None:
    """The clock of the database counts: a 20-minute limit ends no job, and no job waits for an hour."""
    steady = create_steady_clock(SPEED)
    wrong = Clock(SPEED, lambda: steady() + ahead_s)
    short = with_database(url, settings, job_timeout_s=1200.0)
    async with hosting(short) as right:
        async with hosting(short, clock=wrong) as off:
            from_wrong = await off.start(emulate={"duration_s": 90, "text": "from the wrong"})
            from_right = await right.start(emulate={"duration_s": 90, "text": "from the right"})
            assert await read_elapsed_s(off, from_right["job_id"]) < 60
            assert await read_elapsed_s(right, from_wrong["job_id"]) < 60
        assert (await right.end(from_wrong["job_id"]))["output"] == "from the wrong"
        assert (await right.end(from_right["job_id"]))["output"] == "from the right"
    assert upstream.emulator.counters()["creates"] == 2
