"""Faults that only the SQLite store can have: files and their modes, locks, full disks, damage, versions, threads."""

import asyncio
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen
from typing import cast

import anyio
import pytest
from test_store import (
    NOW,
    a_job,
    add_finished_job,
    add_job_in,
    read_job,
    require_job,
    run_process,
    sqlite_database,
    with_status,
)

from agent_jobs.errors import StoreError
from agent_jobs.jobs.job import Output
from agent_jobs.jobs.owners import Owner, OwnerLimits
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.response import Usage
from agent_jobs.jobs.status import Status
from agent_jobs.mcp_server.wording import MODEL
from agent_jobs.store import open_store
from agent_jobs.store.database import Transaction
from agent_jobs.store.sqlite import open_sqlite
from agent_jobs.store.sqlite_database import SQLiteDatabase
from agent_jobs.store.team_records import AuditEntry, ShelvedFile, StoredFile, TokenRecord, Webhook
from agent_jobs.store.worker_lock import WorkerLock

#: The migration scripts of the versions before the first release.
COMPLETE_SCHEMAS = {
    int(path.stem): path.read_text()
    for path in sorted((Path(__file__).parent / "older_schemas/complete").glob("*.sql"))
}
SCRIPTS = [path.read_text() for path in sorted((Path(__file__).parent / "older_schemas").glob("*.sql"))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "not yet there" / "data"


def database_path(folder: Path) -> Path:
    return folder / "jobs.db"


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def list_modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}


def list_tables(folder: Path) -> set[str]:
    with closing(sqlite3.connect(database_path(folder))) as db:
        return {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def make_database(folder: Path, *statements: str) -> Path:
    """Create a database in this folder as another program would."""
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(database_path(folder))) as db:
        db.executescript(";\n".join(statements))
        db.commit()
    return folder


def write_database_file(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True)
    database_path(folder).write_bytes(content)
    return folder


async def run_program(program: str, *arguments: str) -> CompletedProcess[bytes]:
    with anyio.fail_after(60):
        return await anyio.run_process([sys.executable, "-c", program, *arguments], check=False, stderr=PIPE)


# Files.


async def test_files_are_readable_only_by_the_user(folder: Path):
    async with open_store(folder) as store:
        await store.add(a_job())
        found = list_modes(folder)
    [lock] = [name for name in found if name.endswith(".lock")]
    assert found == {
        ".": 0o700,
        "jobs.db": 0o600,
        "jobs.db-wal": 0o600,
        "jobs.db-shm": 0o600,
        "run": 0o700,
        lock: 0o600,
    }


async def test_closed_store_leaves_only_the_database(folder: Path):
    async with open_store(folder) as store:
        await store.add(a_job())
    assert read_files(folder).keys() == {"jobs.db"}


async def test_process_that_recreates_a_removed_database_loses_no_job_of_another(folder: Path):
    async with open_store(folder) as store:
        await store.add(a_job("job_old"))
        database_path(folder).unlink()
        body = ['await store.add(a_job("job_new"))', 'print("written", flush=True)', "await anyio.sleep_forever()"]
        async with run_process(sqlite_database(folder), *body):
            assert [job.id for job in await store.find(JobFilter(), 9)] == ["job_old"], (
                "the removed file is still whole"
            )
            await store.record_event("job_old", NOW, "polling")  # any write notices
            assert {job.id for job in await store.find(JobFilter(), 9)} == {"job_old", "job_new"}
    async with open_store(folder) as after:
        assert {job.id for job in await after.find(JobFilter(), 9)} == {"job_old", "job_new"}


async def test_job_is_read_after_the_store_is_opened_again(folder: Path):
    async with open_store(folder) as store:
        job = await add_job_in(store, Status.IN_PROGRESS)
    for _ in range(2):
        async with open_store(folder) as store:
            assert await read_job(store) == job


async def test_empty_file_becomes_a_new_database(folder: Path):
    async with open_store(write_database_file(folder, b"")) as store:
        await store.add(a_job())


# Versions.


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
async def test_newer_database_file_is_refused_with_advice_and_not_changed(folder: Path, journal_mode: str):
    make_database(
        folder, f"PRAGMA journal_mode = {journal_mode}", "CREATE TABLE future (x)", "PRAGMA user_version = 9999"
    )
    before = read_files(folder)
    with pytest.raises(StoreError) as refusal:
        async with open_store(folder):
            pass
    assert "newer agent-jobs" in MODEL.describe(refusal.value)
    assert "AGENT_JOBS_DATA_DIR" in MODEL.describe(refusal.value)
    assert read_files(folder) == before


async def test_failed_migration_changes_nothing_and_can_be_repeated(folder: Path):
    """The last table of the first migration already exists, so the tables before it are created and rolled back."""
    make_database(folder, "CREATE TABLE output (mine)")
    with pytest.raises(StoreError):
        async with open_store(folder):
            pass
    assert list_tables(folder) == {"output"}
    with closing(sqlite3.connect(database_path(folder))) as db:
        db.execute("DROP TABLE output")
        assert db.execute("PRAGMA user_version").fetchone() == (0,)
    async with open_store(folder) as store:
        await store.add(a_job())
    assert list_tables(folder) >= {"job", "turn", "output"}


@pytest.mark.parametrize("version", range(1, len(SCRIPTS) + 1))
async def test_older_database_is_upgraded_with_its_jobs(folder: Path, version: int):
    make_database(
        folder,
        SCRIPTS[0],
        "INSERT INTO job (id, title, status, created_at, turn) VALUES ('job_1', 't', 'queued', 7.5, 1)",
        "INSERT INTO turn (job_id, number, request, request_id, base_url, sent_at) "
        "VALUES ('job_1', 1, '{}', 'r', 'u', 8.5)",
        *SCRIPTS[1:version],
        f"PRAGMA user_version = {version}",
    )
    async with open_store(folder) as store:
        job = await read_job(store)
        assert (job.status, job.created_at, job.turn.base_url) == (Status.QUEUED, 7.5, "u")
        assert job.overdue_s(18.5, 60.0) == -50.0
        assert await store.save(with_status(job, Status.COMPLETED, output=Output("x", {})), held=False)


@pytest.mark.parametrize(
    ("body", "prompt", "model", "effort"),
    [
        ('{"model": "m-1", "input": "Why?", "reasoning": {"effort": "high"}}', "Why?", "m-1", "high"),
        ('{"model": "m-1", "input": [{"role": "user", "content": "Why?"}]}', "Why?", "m-1", ""),
        (
            '{"input": [{"role": "user", "content": "before"}, {"role": "user", "content": [{"type": "input_image"}, '
            '{"type": "input_text", "text": "Why?"}, {"type": "input_text", "text": "a file"}]}]}',
            "Why?",
            "",
            "",
        ),
        ('{"model": null, "input": "\\ud800", "reasoning": "none"}', "?", "", ""),
        ("{}", "", "", ""),
        ("nonsense", "", "", ""),
    ],
)
async def test_upgrade_fills_in_what_older_versions_did_not_store(
    folder: Path, body: str, prompt: str, model: str, effort: str
):
    make_database(
        folder,
        *SCRIPTS,
        "INSERT INTO job (id, title, status, created_at, turn, cost_usd, usage, finished_at) "
        "VALUES ('job_1', 't', 'completed', 7.5, 1, 0.5, '{\"input_tokens\": 4}', 9.5)",
        "INSERT INTO turn (job_id, number, request_id, base_url) VALUES ('job_1', 1, 'r', 'u')",
        f"INSERT INTO request (job_id, turn, body) VALUES ('job_1', 1, '{body}')",
        "INSERT INTO output (job_id, turn, text, response) VALUES ('job_1', 1, 'An answer.', '{}')",
        f"PRAGMA user_version = {len(SCRIPTS)}",
    )
    async with open_store(folder) as store:
        with closing(sqlite3.connect(database_path(folder))) as db:
            assert db.execute("SELECT model, effort FROM job").fetchone() == (model, effort)
        assert await store.get_prompt("job_1") == prompt
        [turn] = await store.get_turns("job_1")
        assert (turn.usage, turn.cost_usd) == (Usage(input_tokens=4), 0.5)
        assert [hit.job.id for hit in await store.search("answer", 5)] == ["job_1"]


def schema_of(folder: Path) -> dict[str, list[str]]:
    """Return the columns of each table, sorted, and the statements of indexes and triggers."""
    with closing(sqlite3.connect(database_path(folder))) as db:
        parts = db.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
        tables = [name for kind, name, _ in parts if kind == "table"]
        columns = {name: sorted(str(row[1:]) for row in db.execute(f"PRAGMA table_info({name})")) for name in tables}
    return columns | {name: str(sql).split() for kind, name, sql in parts if kind != "table"}


@pytest.mark.parametrize("version", range(1, len(SCRIPTS) + 1))
async def test_upgraded_database_has_the_schema_of_a_new_one(folder: Path, version: int):
    make_database(folder, *SCRIPTS[:version], f"PRAGMA user_version = {version}")
    for each in (folder, folder.with_name("new")):
        async with open_store(each) as store:
            await store.add(a_job())
    assert schema_of(folder) == schema_of(folder.with_name("new"))


@pytest.mark.parametrize("version", COMPLETE_SCHEMAS)
async def test_database_with_a_complete_older_schema_is_upgraded_to_the_new_one(folder: Path, version: int):
    make_database(folder, COMPLETE_SCHEMAS[version], f"PRAGMA user_version = {version}")
    for each in (folder, folder.with_name("new")):
        async with open_store(each) as store:
            await store.add(a_job())
    assert schema_of(folder) == schema_of(folder.with_name("new"))


@pytest.mark.parametrize("has_index", [True, False], ids=["index of the older version", "no index"])
async def test_upgrade_keeps_jobs_that_were_searchable_searchable(folder: Path, *, has_index: bool):
    index = """CREATE VIRTUAL TABLE job_search USING fts5(
                   title, prompt, output, content = 'searchable', content_rowid = 'number')"""
    make_database(
        folder,
        COMPLETE_SCHEMAS[10],
        *([index] if has_index else []),
        "INSERT INTO job (id, title, status, created_at, turn, finished_at, in_search) "
        "VALUES ('job_1', 't', 'completed', 7.5, 1, 9.5, 1)",
        "INSERT INTO turn (job_id, number, request_id, base_url) VALUES ('job_1', 1, 'r', 'u')",
        "INSERT INTO prompt (job_id, text) VALUES ('job_1', 'solar panels')",
        "PRAGMA user_version = 10",
    )
    async with open_store(folder) as store:
        assert [hit.job.id for hit in await store.search("solar", 5)] == ["job_1"]
        assert list(await store.delete_jobs(["job_1"])) == ["job_1"]
        assert await store.search("solar", 5) == []


async def test_words_that_only_a_deleted_job_had_are_deleted_with_it(folder: Path):
    async with open_store(folder) as store:
        for number, prompt in enumerate(("solar hunter2", "solar panels")):
            await add_finished_job(store, f"job_{number}", prompt=prompt)
        assert [hit.job.id for hit in await store.search("hunt", 5)] == ["job_0"]
        await store.delete_jobs(["job_0"])
        with closing(sqlite3.connect(database_path(folder))) as db:
            words = {word for (word,) in db.execute("SELECT term FROM search_term")}
        assert words >= {"solar", "panels"}
        assert "hunter2" not in words
        assert [hit.job.id for hit in await store.search("sol", 5)] == ["job_1"]
        assert await store.search("hunter2", 5) == []


async def test_jobs_are_carried_over_into_a_file_with_another_order_of_columns(folder: Path):
    make_database(folder.with_name("old"), *SCRIPTS, f"PRAGMA user_version = {len(SCRIPTS)}")
    async with open_store(folder) as store:
        before = await add_job_in(store, Status.IN_PROGRESS)
        database_path(folder.with_name("old")).replace(database_path(folder))
        await store.record_event("job_1", NOW, "polling")  # any change notices the other file
        assert await read_job(store) == before


@pytest.mark.parametrize("has_other", [False, True], ids=["deleted", "replaced"])
async def test_rows_of_a_team_are_carried_over_and_those_that_are_there_stay(folder: Path, *, has_other: bool):
    alice, bob = Owner("alice", OwnerLimits(max_concurrent=2), key_ref="alice"), Owner("bob", key_ref="bob")
    entries = [AuditEntry(NOW + n, "alice", "tok_1", "host", "start", f"job_{n}") for n in range(3)]
    theirs = Owner("bob", OwnerLimits(max_concurrent=9), key_ref="new")
    async with open_store(folder) as store, open_store(folder) as second:
        for owner in (alice, bob):
            await store.set_owner(owner)
        for number in (1, 2):
            await store.add_token(TokenRecord(f"tok_{number}", f"digest {number}", "alice", "", NOW))
        if has_other:
            copy_to(folder, folder.with_name("other"))
        assert await store.revoke_token("tok_1", NOW + 5)
        await store.add_audit(entries)
        await store.for_owner("alice").add_shelved_file(
            ShelvedFile("file_1", "a.txt", b"a"), NOW, since=NOW - 9, room=99
        )
        await store.record_webhook(Webhook("wh_1", "https://x/v1", "resp_1", "response.completed"), NOW)
        if has_other:
            async with open_store(folder.with_name("other")) as other:
                await other.set_owner(theirs)
                assert await other.revoke_token("tok_2", NOW + 6)
            database_path(folder.with_name("other")).replace(database_path(folder))
        else:
            delete_files(folder)
        for number, each in enumerate((store, second)):  # any change notices the other file
            await each.add(a_job(f"job_{number}"))
        async with open_store(folder) as after:
            assert await after.get_owner("alice") == alice
            assert await after.get_owner("bob") == (theirs if has_other else bob)
            revoked = {token.id: token.revoked_at for token in await after.list_tokens()}
            assert revoked == {"tok_1": NOW + 5, "tok_2": NOW + 6 if has_other else None}
            assert [entry for _, entry in await after.read_audit()] == entries
            assert await after.for_owner("alice").find_shelved_file("file_1", NOW - 9) == StoredFile("a.txt", b"a")
            assert await after.last_webhook_at("https://x/v1") == NOW


def delete_files(folder: Path) -> None:
    for path in folder.glob("jobs.db*"):
        path.unlink()


def copy_to(folder: Path, other: Path) -> None:
    """Copy the database of a folder into another one, as a backup does."""
    other.mkdir()
    with (
        closing(sqlite3.connect(database_path(folder))) as source,
        closing(sqlite3.connect(database_path(other))) as target,
    ):
        source.backup(target)


async def test_several_processes_can_create_a_database_at_once(tmp_path: Path):
    """Hosts start one server per window, all at once. Each round is another chance of a collision."""

    async def use(folder: Path, number: int) -> None:
        async with open_store(folder, busy_timeout_s=20) as store:
            await store.add(a_job(f"job_{number}"))

    for attempt in range(15):
        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(use, tmp_path / str(attempt), number)
        async with open_store(tmp_path / str(attempt)) as store:
            assert len(await store.find(JobFilter(), 9)) == 6


# Unusable files are reported.


def a_file_in_the_way(folder: Path) -> Path:
    folder.parent.mkdir()
    folder.write_text("I am a file")
    return folder


def below_a_file(folder: Path) -> Path:
    return a_file_in_the_way(folder) / "data"


def a_folder_in_place_of_the_database(folder: Path) -> Path:
    database_path(folder).mkdir(parents=True)
    return folder


def a_file_in_place_of_the_locks(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "run").touch()
    return folder


def where_nobody_may_write(_folder: Path) -> Path:
    return Path("/proc/agent-jobs")


@pytest.mark.parametrize(
    "spoil",
    [a_file_in_the_way, below_a_file, a_folder_in_place_of_the_database, a_file_in_place_of_the_locks]
    + [where_nobody_may_write] * sys.platform.startswith("linux"),
)
async def test_unusable_folder_is_reported_with_advice(folder: Path, spoil: object):
    assert callable(spoil)
    spoilt = spoil(folder)
    assert isinstance(spoilt, Path)
    with pytest.raises(StoreError) as refusal:
        async with open_store(spoilt):
            pass
    assert str(spoilt) in MODEL.describe(refusal.value)
    assert "AGENT_JOBS_DATA_DIR" in MODEL.describe(refusal.value)


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 5000, b"SQLite format 3\x00" + b"\xff" * 5000])
async def test_file_that_is_no_database_is_reported_and_not_changed(folder: Path, content: bytes):
    with pytest.raises(StoreError, match=r"jobs\.db is damaged"):
        async with open_store(write_database_file(folder, content)):
            pass
    assert read_files(folder) == {"jobs.db": content}


async def test_damaged_pages_are_reported(folder: Path):
    async with open_store(folder) as store:
        for number in range(50):
            await store.add(a_job(f"job_{number}"))
    whole = database_path(folder).read_bytes()
    database_path(folder).write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(StoreError, match=r"jobs\.db is damaged"):
        async with open_store(folder) as store:
            await store.find(JobFilter(), 99)


HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA locking_mode = " + sys.argv[3])
db.execute("BEGIN " + sys.argv[2])
db.execute("UPDATE job SET title = title")
print("locked", flush=True)
sys.stdin.readline()
db.execute("ROLLBACK")
db.close()
"""


@pytest.fixture
def database_locker(folder: Path) -> Iterator[list[Popen[bytes]]]:
    """Run programs that lock the database until their stdin ends."""
    lockers: list[Popen[bytes]] = []
    yield lockers
    for locker in lockers:
        locker.communicate(timeout=60)


def lock(folder: Path, lockers: list[Popen[bytes]], *how: str) -> Popen[bytes]:
    locker = Popen([sys.executable, "-c", HOLD, str(database_path(folder)), *how], stdin=PIPE, stdout=PIPE)
    lockers.append(locker)
    assert locker.stdout is not None
    assert locker.stdout.readline() == b"locked\n"
    return locker


async def test_locked_database_is_reported_and_works_after_the_lock(folder: Path, database_locker: list[Popen[bytes]]):
    async with open_store(folder, busy_timeout_s=0.05) as store:
        job = await add_job_in(store, Status.IN_PROGRESS)
        locker = lock(folder, database_locker, "IMMEDIATE", "NORMAL")
        for change in (
            lambda: store.request_cancel("job_1", NOW),
            lambda: store.save(with_status(job, Status.COMPLETED, output=Output("x", {}))),
            lambda: store.add(a_job("job_2")),
        ):
            with pytest.raises(StoreError, match="locked by another program"):
                await change()
        assert await read_job(store) == job, "jobs can still be read"
        locker.communicate(timeout=60)
        assert require_job(await store.request_cancel("job_1", NOW)).cancel_requested_at == NOW
        assert await store.get("job_2") is None
        assert await store.get_output("job_1") is None


async def test_one_job_is_read_while_a_change_of_this_process_waits_for_the_lock(
    folder: Path, database_locker: list[Popen[bytes]]
):
    async with open_store(folder, busy_timeout_s=60) as store, anyio.create_task_group() as tasks:
        await add_job_in(store, Status.IN_PROGRESS)
        locker = lock(folder, database_locker, "IMMEDIATE", "NORMAL")
        tasks.start_soon(store.request_cancel, "job_1", NOW)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(60):
            job = await read_job(store)
            assert job.cancel_requested_at is None
            with anyio.move_on_after(0.3) as waiting:
                await store.wait_for_change("job_1", job.revision)
            assert waiting.cancelled_caught
            locker.communicate(timeout=60)
            await store.wait_for_change("job_1", job.revision)
        assert (await read_job(store)).cancel_requested_at == NOW


async def test_wait_for_a_deleted_job_obeys_its_time_limit(folder: Path):
    """Such a wait never suspends, so a loop of it must not starve the event loop's clock."""
    async with open_store(folder) as store:
        with anyio.move_on_after(0.05) as limit:
            while True:
                await store.wait_for_change("job_1", 0)
                assert await store.get("job_1") is None
        assert limit.cancelled_caught


async def test_exclusively_locked_database_opens_once_it_is_free(folder: Path, database_locker: list[Popen[bytes]]):
    async with open_store(folder) as store:
        await store.add(a_job())
    locker = lock(folder, database_locker, "EXCLUSIVE", "EXCLUSIVE")
    with pytest.raises(StoreError, match="locked by another program"):
        async with open_store(folder, busy_timeout_s=0.05):
            pass
    locker.communicate(timeout=60)
    async with open_store(folder, busy_timeout_s=0.05) as store:
        assert (await read_job(store)).id == "job_1"


async def test_database_read_by_another_program_before_its_creation_is_reported_as_locked(folder: Path):
    """WAL can only be switched on without another connection, and SQLite does not wait for that."""
    async with open_store(folder) as store:
        await store.add(a_job())
    with closing(sqlite3.connect(database_path(folder), isolation_level=None)) as reader:
        reader.execute("PRAGMA journal_mode = DELETE")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM job").fetchall()
        with pytest.raises(StoreError, match="locked by another program"):
            async with open_store(folder, busy_timeout_s=0.05):
                pass
    async with open_store(folder) as store:
        assert (await read_job(store)).id == "job_1"


async def test_database_that_may_not_grow_is_reported_and_works_again_afterwards(folder: Path):
    async with open_sqlite(folder, 5) as store:
        database = cast(SQLiteDatabase, store._db)  # pyright: ignore[reportPrivateUsage]
        db = database._db  # pyright: ignore[reportPrivateUsage]  # the limit belongs to a connection
        job = await add_job_in(store, Status.IN_PROGRESS)
        [[pages]] = await db.execute_fetchall("PRAGMA page_count")
        await db.execute_fetchall(f"PRAGMA max_page_count = {pages + 5}")
        end = with_status(job, Status.COMPLETED, output=Output("x" * 1_000_000, {}))
        with pytest.raises(StoreError, match=r"The disk of .* is full"):
            await store.save(end)
        assert await read_job(store) == job
        assert await store.get_output("job_1") is None
        await db.execute_fetchall("PRAGMA max_page_count = 100000")
        assert await store.save(end)
        assert await store.get_output("job_1") == end.output


FILL = """
import resource, sys
from dataclasses import replace
from pathlib import Path
import anyio
from agent_jobs.errors import StoreError
from agent_jobs.jobs.job import *
from agent_jobs.store import open_store

folder, room = Path(sys.argv[1]), int(sys.argv[2])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

async def main():
    async with open_store(folder) as store:
        turn = Turn(number=1, request={}, request_id="r", base_url="u")
        job = Job(id="job_1", title="t", status=Status.PENDING, created_at=1.0, turn=turn)
        await store.add(job)
        await store.begin_sending(job.mark_sending(2.0))
        job = await store.record_response_id("job_1", 1, "resp_1", 3.0)
        size = (folder / "jobs.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, hard))
        end = replace(job, status=Status.COMPLETED, finished_at=4.0, output=Output("x" * 5_000_000, {}))
        for change in (lambda: store.save(end), lambda: store.add(replace(job, id="job_2", title="x" * 5_000_000))):
            try:
                await change()
            except StoreError as error:
                print(error)
            else:
                sys.exit("it was written")
            assert await store.get("job_1") == job
            assert await store.get_output("job_1") is None
            assert await store.get("job_2") is None
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert await store.save(end)

anyio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes cannot be limited there")
@pytest.mark.parametrize("room", [0, 100, 5_000, 100_000, 4_000_000])
async def test_full_disk_writes_no_part_of_a_change_and_it_can_be_repeated(folder: Path, room: int):
    done = await run_program(FILL, str(folder), str(room))
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(str(folder).encode()) >= 2
    async with open_store(folder) as store:
        assert (await read_job(store)).status is Status.COMPLETED
        assert there_is(await store.get_output("job_1")).text == "x" * 5_000_000
        assert [job.id for job in await store.find(JobFilter(), 9)] == ["job_1"]


def there_is(output: Output | None) -> Output:
    assert output is not None
    return output


# A worker thread that is not stopped would keep the interpreter from ending.

LEAVE = """
import sys
from pathlib import Path
import anyio
from anyio.lowlevel import checkpoint
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.store import open_store

folder = Path(sys.argv[1])

async def by_an_exception():
    async with open_store(folder):
        raise KeyError("left")

async def by_exit():
    async with open_store(folder):
        sys.exit(7)

async def by_a_refusal():
    async with open_store(folder):
        import sqlite3
        db = sqlite3.connect(folder / "jobs.db")
        db.execute("PRAGMA user_version = 9999")
        db.close()
    async with open_store(folder):
        pass

async def by_cancelling_at_every_point():
    for turns in range(0, 1200, 7):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave_open, turns)
            for _ in range(turns):
                await checkpoint()
            tasks.cancel_scope.cancel()

async def leave_open(number):
    async with open_store(folder / str(number)) as store:
        await store.find(JobFilter(), 1)
        await anyio.sleep_forever()

anyio.run(globals()[sys.argv[2]])
"""


@pytest.mark.parametrize(
    ("way", "code"), [("by_an_exception", 1), ("by_exit", 7), ("by_a_refusal", 1), ("by_cancelling_at_every_point", 0)]
)
async def test_interpreter_ends_however_the_store_was_left(folder: Path, way: str, code: int):
    done = await run_program(LEAVE, str(folder), way)
    assert done.returncode == code, done.stderr.decode()
    assert not [name for name in list_modes(folder) if name.endswith(".lock")]


async def test_acknowledged_change_survives_a_kill_and_a_truncated_log(folder: Path, tmp_path: Path):
    """The files at the moment of an acknowledgement are enough, even if the process dies."""
    copy = tmp_path / "copy"
    copy.mkdir()
    async with open_store(folder) as store:
        job = await add_job_in(store, Status.IN_PROGRESS)
        for name, content in read_files(folder).items():
            if name.startswith("jobs.db"):
                (copy / name).write_bytes(content)
        await store.save(with_status(job, Status.COMPLETED))
    (copy / "jobs.db-shm").unlink()
    with (copy / "jobs.db-wal").open("ab") as wal:
        wal.write(b"half a frame")
    async with open_store(copy) as store:
        assert await read_job(store) == job


# Dead processes.


def test_lock_shows_if_a_process_lives(tmp_path: Path):
    me, neighbour = WorkerLock(tmp_path / "run"), WorkerLock(tmp_path / "run")
    try:
        assert not me.is_dead(neighbour.name)
        assert not neighbour.is_dead(me.name)
        assert not me.is_dead(me.name)
        assert me.is_dead("4711-never")
    finally:
        neighbour.close()
    assert me.is_dead(neighbour.name)
    assert me.is_dead(neighbour.name), "however often one asks"
    me.close()
    assert read_files(tmp_path) == {}


def test_lock_file_of_a_killed_process_is_removed(tmp_path: Path):
    program = "import sys; from pathlib import Path; from agent_jobs.store.worker_lock import WorkerLock\n"
    program += "print(WorkerLock(Path(sys.argv[1])).name, flush=True); sys.stdin.readline()"
    me = WorkerLock(tmp_path)
    with Popen([sys.executable, "-c", program, str(tmp_path)], stdin=PIPE, stdout=PIPE) as victim:
        assert victim.stdout is not None
        name = victim.stdout.readline().decode().strip()
        assert not me.is_dead(name)
        victim.kill()
    assert read_files(tmp_path).keys() == {f"{me.name}.lock", f"{name}.lock"}
    assert me.is_dead(name)
    assert read_files(tmp_path).keys() == {f"{me.name}.lock"}
    me.close()


def test_announcement_survives_a_removed_lock_file_and_an_empty_one_is_ignored(tmp_path: Path):
    me, neighbour = WorkerLock(tmp_path / "run"), WorkerLock(tmp_path / "run")
    try:
        assert me.list_others() == {}
        neighbour.announce({"what": "server"})
        assert me.list_others() == {neighbour.name: {"what": "server"}}
        (tmp_path / "run" / f"{neighbour.name}.lock").unlink()
        neighbour.restore_file()
        assert me.list_others() == {neighbour.name: {"what": "server"}}
        starting = tmp_path / "run" / "4711-abc.lock"
        starting.touch()
        (tmp_path / "run" / "4712-abc.lock").write_text("\nno json")
        assert me.list_others().keys() == {neighbour.name}
        assert starting.exists(), "its process may be about to lock it"
    finally:
        neighbour.close()
        me.close()


async def test_change_that_awaits_other_work_is_refused_and_rolled_back(folder: Path):
    """The change would run to its next await on the worker thread, where no event loop continues it."""

    async def change(transaction: Transaction) -> None:
        await transaction.execute("DELETE FROM job")
        await asyncio.sleep(0)

    async with open_sqlite(folder, 5) as store:
        await store.add(a_job())
        with pytest.raises(RuntimeError, match="may await nothing but the statements"):
            await store._db.change(change)  # pyright: ignore[reportPrivateUsage]
        assert (await read_job(store)).id == "job_1"
        await store.add(a_job("job_2"))
