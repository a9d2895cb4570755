"""Import the jobs of a file into PostgreSQL: completely and once, from every version and after every interruption."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from anyio.to_thread import run_sync
from click.testing import CliRunner
from hosts import hosting
from postgres_server import new_database
from test_store import IN_PROGRESS, NOW, a_job, add_job_in
from test_store_sqlite import SCRIPTS, make_database

from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer
from agent_jobs.errors import StoreError
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr
from agent_jobs.store import job_import, open_store
from agent_jobs.store.file_recovery import JOB_COLUMN_OF_TABLE, KEY_COLUMNS_OF_TABLE
from agent_jobs.store.job_import import ImportCounts, JobImport, import_jobs
from agent_jobs.store.postgres_address import PostgresAddress


@pytest.fixture
def url(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url) as url:
        yield url


@pytest.fixture
def order(url: str, tmp_path: Path) -> JobImport:
    return JobImport(
        tmp_path / "old", PostgresAddress(url), tmp_path / "new" / "made", None, NOW, lambda: "made_1", 100
    )


async def run_import(settings: Settings, url: str, *words: str) -> str:
    environment = {"AGENT_JOBS_DATABASE_URL": url, "AGENT_JOBS_DATA_DIR": str(settings.data_dir)}
    result = await run_sync(lambda: CliRunner().invoke(cli, ["import", *words], env=environment))
    return f"{result.exit_code} {result.output}"


async def test_finished_and_running_jobs_move_once_and_continue_in_postgresql(
    settings: Settings, upstream: RunningServer, url: str, tmp_path: Path
) -> None:
    old = replace(settings, data_dir=tmp_path / "old")
    async with hosting(old) as host:
        finished = await host.start(emulate={"duration_s": 1, "text": "done"}, options={"key": "monday"})
        await host.end(finished["job_id"])
        running = await host.start(emulate={"duration_s": 25, "text": "went on"})
        assert "in use by agent-jobs server" in await run_import(settings, url, str(tmp_path / "old"))
    words = [str(tmp_path / "old" / "jobs.db"), "--owner", "ada"]
    assert "Would import 2 jobs" in await run_import(settings, url, *words, "--dry-run")
    output = await run_import(settings, url, *words)
    assert "0 Imported 2 jobs into" in output
    assert "1 finished, 1 not done." in output
    output = await run_import(settings, url, *words)
    assert "Imported 0 jobs" in output
    assert "Already there: 1 job." in output
    async with hosting(replace(settings, database_url=SecretStr(url))) as host:
        assert (await host.end(running["job_id"]))["output"] == "went on"
        assert (await host.end(finished["job_id"]))["output"] == "done"
        engine = await host.app.engine()
        assert {job.owner for job in (await engine.find(JobFilter(), 9)).jobs} == {"ada"}
    async with hosting(old) as host:
        assert "was moved into a PostgreSQL database" in await host.refused("agent_poll", job_id=running["job_id"])
        assert (await host.end(finished["job_id"]))["output"] == "done"
    assert upstream.emulator.counters()["creates"] == 2


OLDEST_JOBS = (
    "INSERT INTO job (id, title, status, created_at, turn) VALUES ('job_1', 't', 'in_progress', 7.5, 1)",
    "INSERT INTO job (id, title, status, created_at, finished_at, turn) VALUES ('job_2', 't', 'completed', 7, 8, 1)",
    "INSERT INTO turn (job_id, number, request, request_id, base_url) VALUES ('job_1', 1, '{}', 'r', 'u')",
    "INSERT INTO turn (job_id, number, request, request_id, base_url) VALUES ('job_2', 1, '{}', 'r', 'u')",
)


async def test_file_of_the_oldest_version_is_imported(order: JobImport) -> None:
    """The oldest schema has no owner, no table of prompts, and other column names."""
    make_database(order.folder, SCRIPTS[0], *OLDEST_JOBS, "PRAGMA user_version = 1")
    assert await import_jobs(order, is_dry_run=True) == ImportCounts(finished=1, active=1)
    assert version_of(order.folder) == 1, "a dry run changes nothing"
    assert await import_jobs(order) == ImportCounts(finished=1, active=1)
    async with open_store(Path(), order.address) as store:
        assert (await store.list_jobs(JobFilter(), 99, 0.0)).counts == {"completed": 1, "in_progress": 1}


def version_of(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "jobs.db")) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


@pytest.mark.parametrize("stops_at", ["_write_job", "_remove_job"])
async def test_interrupted_import_continues_where_it_stopped(
    order: JobImport, monkeypatch: pytest.MonkeyPatch, stops_at: str
) -> None:
    """Between the two steps no process may claim the job from the file, because it may already run on PostgreSQL."""
    async with open_store(order.folder) as store:
        await add_job_in(store, IN_PROGRESS)
        await store.release_claims(NOW)

    async def fail(*arguments: object) -> None:
        raise StoreError("The machine is off.", "not_opened")

    with monkeypatch.context() as patch:
        patch.setattr(job_import._Mover, stops_at, fail)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(StoreError, match="The machine is off"):
            await import_jobs(order)
    async with open_store(order.folder) as store:
        await store.reclaim_from_dead(NOW)
        assert await store.find_due(NOW + 1, "https://here/v1") == []
        await store.release_claims(NOW)
    counts = await import_jobs(order)
    assert (counts.jobs, counts.known) == ((1, 0) if stops_at == "_write_job" else (0, 1))
    async with open_store(Path(), order.address) as store:
        assert await store.find_due(NOW + 1, "https://here/v1") == ["job_1"]
    async with open_store(order.folder) as store:
        assert await store.get("job_1") is None


async def test_import_copies_all_rows_of_a_job_and_keeps_a_key_that_exists(order: JobImport) -> None:
    path = order.folder / "made" / "job_1" / "plot.png"
    async with open_store(order.folder) as store:
        job = await add_job_in(store, IN_PROGRESS)
        await store.add(replace(a_job("job_2"), key="taken"), allow_duplicate=True)
        await store.release_claims(NOW)
    path.parent.mkdir(parents=True)
    path.write_text("a picture")
    with closing(sqlite3.connect(order.folder / "jobs.db")) as db:
        db.execute("INSERT INTO made (job_id, name, path, bytes) VALUES ('job_1', 'plot.png', ?, 9)", [str(path)])
        db.execute("INSERT INTO tombstone (job_id, status, finished_at) VALUES ('job_0', 'completed', 5.0)")
        db.commit()
    async with open_store(Path(), order.address) as store:
        await store.add(replace(a_job("job_9"), key="taken"), allow_duplicate=True)
    assert await import_jobs(order) == ImportCounts(active=2, files=1, keys=1)
    async with open_store(Path(), order.address) as store:
        [copied] = await store.get_output_files("job_1")
        assert copied.path == str(order.made / "job_1" / "plot.png")
        assert (order.made / "job_1" / "plot.png").read_text() == "a picture"
        assert await store.get_tombstone("job_0") is not None
        there = await store.get("job_1")
        assert there is not None
        assert (there.turn.response_id, there.turn.base_url) == (job.turn.response_id, job.turn.base_url)
        assert await store.get_prompt("job_2") == json.loads(json.dumps(await store.get_prompt("job_9")))
        [second, ninth] = [await store.get(each) for each in ("job_2", "job_9")]
        assert second is not None
        assert ninth is not None
        assert (second.key, ninth.key) == (None, "taken")


async def test_file_of_an_owner_goes_into_the_database(order: JobImport) -> None:
    """Replicas of a team server share no disk."""
    path = order.folder / "made" / "job_1" / "plot.png"
    async with open_store(order.folder) as store:
        await add_job_in(store, IN_PROGRESS)
        await store.release_claims(NOW)
    path.parent.mkdir(parents=True)
    path.write_text("a picture")
    with closing(sqlite3.connect(order.folder / "jobs.db")) as db:
        db.execute("INSERT INTO made (job_id, name, path, bytes) VALUES ('job_1', 'plot.png', ?, 9)", [str(path)])
        db.commit()
    assert (await import_jobs(replace(order, owner="ada"))).files == 1
    async with open_store(Path(), order.address) as store:
        found = await store.for_owner("ada").find_made_file("made_1")
        assert found is not None
        assert (found.name, found.data) == ("plot.png", b"a picture")
        assert await store.for_owner("bob").find_made_file("made_1") is None


def test_every_table_is_imported_and_carried_over() -> None:
    """Each new table has to be added to one of the two lists."""
    script = resources.files("agent_jobs.store").joinpath("schema.sql").read_text()
    tables = set(re.findall(r"CREATE TABLE (\w+)", script)) - {"tally"}  # triggers count it
    assert tables == {*JOB_COLUMN_OF_TABLE, *KEY_COLUMNS_OF_TABLE}


def make_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmark (id)")
        db.commit()


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of each file, except the files that SQLite adds while it reads a database."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm"))]
    return {str(path): path.read_bytes() for path in found}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "There is no"),
        ("none/jobs.db", "There is no"),
        ("empty", "There is no"),
        ("text.db", "is not a database of agent-jobs"),
        ("nothing.db", "is not a database of agent-jobs"),
        ("text/jobs.db", "is not a database of agent-jobs"),
        ("foreign", "is not a database of agent-jobs"),
        ("foreign.db", "is not a database of agent-jobs"),
        ("folder", "is not a database of agent-jobs"),
        ("copy.db", "under another name"),
    ],
)
async def test_path_without_a_job_file_is_reported_and_not_changed(name: str, words: str, tmp_path: Path) -> None:
    for folder in ("empty", "text", "foreign", "folder", "folder/jobs.db"):
        (tmp_path / folder).mkdir()
    for path in ("text.db", "text/jobs.db"):
        (tmp_path / path).write_text("no database")
    (tmp_path / "nothing.db").touch()
    for path in ("foreign.db", "foreign/jobs.db"):
        make_foreign(tmp_path / path)
    async with open_store(tmp_path / "ours"):
        pass
    (tmp_path / "ours" / "jobs.db").rename(tmp_path / "copy.db")
    before = read_files(tmp_path)
    address = PostgresAddress("postgresql://127.0.0.1:1/none")
    with pytest.raises(StoreError, match=words):
        await import_jobs(JobImport(tmp_path / name, address, tmp_path, None, NOW, str, 1), is_dry_run=True)
    assert read_files(tmp_path) == before


def test_import_without_a_postgresql_database_has_its_own_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["import", str(tmp_path)], env={"AGENT_JOBS_DATABASE_URL": ""})
    assert result.exit_code == 1
    assert "no PostgreSQL database to import into" in " ".join(result.stderr.split())
