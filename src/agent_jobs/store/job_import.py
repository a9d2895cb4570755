"""Move the jobs of a SQLite file into a PostgreSQL database: each once, and each in one transaction.

A job that still runs is marked in the file first: its turns name another endpoint, so that no process works on it.
Then it is written into PostgreSQL, and then it leaves the file for a tombstone. Whenever this stops, the next import
finds the mark, and continues.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread

from agent_jobs.errors import StoreError
from agent_jobs.jobs.queries import MOVED
from agent_jobs.store.claims import Claims
from agent_jobs.store.database import Database, Row, SpendingLock, Transaction
from agent_jobs.store.file_recovery import JOB_COLUMN_OF_TABLE, KEY_COLUMNS_OF_TABLE, OWN_COLUMNS, check_database
from agent_jobs.store.postgres_address import PostgresAddress
from agent_jobs.store.postgres_database import open_database as open_postgres_database
from agent_jobs.store.row_writes import write_insert
from agent_jobs.store.rows import ACTIVE_SQL
from agent_jobs.store.sqlite_database import open_database as open_sqlite_database
from agent_jobs.store.sqlite_errors import as_store_error
from agent_jobs.store.values import BUSY_TIMEOUT_S

#: Precedes the endpoint of a job that is being moved: no process has such an endpoint.
_MOVING = "moving:"
#: Columns that SQLite keeps as numbers, by their names with their tables'.
_TRUTHS = """SELECT table_name || '.' || column_name AS name FROM information_schema.columns
             WHERE table_schema = current_schema() AND data_type = 'boolean'"""
#: Columns of a job that name processes of the old side.
_NO_CLAIM: Mapping[str, Any] = {"holder": None, "not_before": 0.0, "watched_until": 0.0, "cancel_sent_at": None}
#: The file's name in its folder.
FILE_NAME = "jobs.db"
_UNFINISHED = f"(status IN {ACTIVE_SQL} OR unsettled = TRUE)"


@dataclass
class ImportCounts:
    """The counts of an import, or of a dry run. Mutable: they grow while it runs."""

    finished: int = 0
    active: int = 0  #: continue in PostgreSQL, and left the file
    known: int = 0  #: were there already
    files: int = 0  #: that runs made, copied
    keys: int = 0  #: callers' keys that another job there has

    @property
    def jobs(self) -> int:
        """Return how many jobs were new."""
        return self.finished + self.active


@dataclass(frozen=True)
class JobImport:
    """The source and the target of an import.

    Args:
        path: The file, a `jobs.db`, or its folder.
        address: Of the PostgreSQL database.
        made: Folder for the files that runs made.
        owner: Whose the jobs are; None leaves them to those who have them.
        now: In epoch seconds.
        create_file_id: Returns an id for a file of an owner, which goes into the database.
        file_bytes: The most bytes of such a file; a larger one stays on this machine.
    """

    path: Path
    address: PostgresAddress
    made: Path
    owner: str | None
    now: float
    create_file_id: Callable[[], str]
    file_bytes: int

    @property
    def folder(self) -> Path:
        """Return the folder of the file."""
        return self.path.parent if self.path.name == FILE_NAME else self.path


async def import_jobs(order: JobImport, *, is_dry_run: bool = False) -> ImportCounts:
    """Move the jobs, or only count them.

    Raises:
        StoreError: There is no such file, another process works on it, or a database cannot be used.
    """
    await anyio.to_thread.run_sync(check_job_file, order.path)
    async with open_postgres_database(order.address) as target, _open_source(order.folder, is_dry_run) as source:
        return await _Mover(order, source, target, is_dry_run).run()


def check_job_file(path: Path) -> None:
    """Raise if a path is no database of jobs, before anything is written there.

    Args:
        path: Of the file, or of its folder.

    Raises:
        StoreError: There is no file, it is something else, or it has another name than processes look for.
    """
    if path.is_dir():
        path /= FILE_NAME
    if not path.exists():
        raise StoreError("There is no {path}.", "no_job_file", path=path)
    if not path.is_file() or not _has_job_table(path):
        raise StoreError("{path} is not a database of agent-jobs.", "no_job_file", path=path)
    if path.name != FILE_NAME:
        raise StoreError("{path} is a database of agent-jobs under another name.", "other_file_name", path=path)


def _has_job_table(path: Path) -> bool:
    try:
        with as_store_error(path.parent):
            check_database(path)
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
                found = db.execute(
                    "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('job', 'turn')"
                )
                return found.fetchone()[0] == 2
    except StoreError as error:
        if isinstance(error.__cause__, sqlite3.OperationalError | OSError):
            raise  # locked, or not to be read
        return False


@asynccontextmanager
async def _open_source(folder: Path, is_dry_run: bool) -> AsyncGenerator[Database]:
    """Open the file, with the schema of this version; for a dry run a copy of it."""
    if not is_dry_run:
        async with open_sqlite_database(folder, BUSY_TIMEOUT_S) as source:
            yield source
        return
    with tempfile.TemporaryDirectory(prefix="agent-jobs-") as name:
        with as_store_error(folder):
            await anyio.to_thread.run_sync(_copy_database, folder / "jobs.db", Path(name) / "jobs.db")
        async with open_sqlite_database(Path(name), BUSY_TIMEOUT_S) as source:
            yield source


def _copy_database(path: Path, copy: Path) -> None:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as source, closing(sqlite3.connect(copy)) as to:
        source.backup(to)


class _Mover:
    """One import."""

    def __init__(self, order: JobImport, source: Database, target: Database, is_dry_run: bool) -> None:
        self._order = order
        self._source = source
        self._target = target
        self._is_dry_run = is_dry_run
        self._counts = ImportCounts()
        self._truths: set[str] = set()

    async def run(self) -> ImportCounts:
        self._truths = {row["name"] for row in await self._target.fetch(_TRUTHS)}
        await self._claim_unfinished()
        rows = await self._source.fetch(f"SELECT id, {_UNFINISHED} AS is_unfinished FROM job ORDER BY created_at, id")
        known = await self._find_known([row["id"] for row in rows])
        for row in rows:
            await self._move_job(row["id"], is_unfinished=bool(row["is_unfinished"]), is_known=row["id"] in known)
        if not self._is_dry_run:
            for table, key in KEY_COLUMNS_OF_TABLE.items():
                await self._copy_rows_once(table, key)
        return self._counts

    async def _claim_unfinished(self) -> None:
        """Claim all jobs that are not done, so that no other process begins to work on them.

        Raises:
            StoreError: Another process works on one already.
        """
        await Claims(self._source).reclaim_from_dead(self._order.now)
        if self._is_dry_run:
            return
        me = self._source.worker
        await self._source.write(f"UPDATE job SET holder = :me WHERE holder IS NULL AND {_UNFINISHED}", me=me)
        held = await self._source.fetch("SELECT 1 FROM job WHERE holder IS NOT NULL AND holder <> :me LIMIT 1", me=me)
        others = await self._source.other_workers()
        if held or others:
            await Claims(self._source).release_claims(self._order.now)
            names = ", ".join(
                f"agent-jobs {each.get('what')} (pid {name.split('-')[0]})" for name, each in others.items()
            )
            raise StoreError(
                "{folder} is in use by {names}.", "jobs_in_use", folder=self._order.folder, names=names or "a command"
            )

    async def _find_known(self, ids: Sequence[str]) -> set[str]:
        """Return those of these jobs that PostgreSQL has or had."""
        sql = """SELECT id FROM job WHERE id IN (:*ids)
                 UNION ALL SELECT job_id FROM tombstone WHERE job_id IN (:*ids)"""
        return {row["id"] for row in await self._target.fetch(sql, ids=ids)}

    async def _move_job(self, job_id: str, *, is_unfinished: bool, is_known: bool) -> None:
        if is_known:
            self._counts.known += 1
        else:
            await self._copy_job(job_id, is_unfinished=is_unfinished)
        if is_unfinished and not self._is_dry_run:
            await self._remove_job(job_id)

    async def _copy_job(self, job_id: str, *, is_unfinished: bool) -> None:
        if is_unfinished and not self._is_dry_run:
            await self._source.write(
                """UPDATE turn SET base_url = :moving || base_url
                   WHERE job_id = :id AND base_url NOT LIKE :moving || '%'""",
                id=job_id,
                moving=_MOVING,
            )
        rows_of = await self._read_rows_of_job(job_id)
        if is_unfinished:
            self._counts.active += 1
        else:
            self._counts.finished += 1
        if self._is_dry_run:
            self._counts.files += len(rows_of["made"])
            return
        await self._copy_files(rows_of["made"], has_owner=bool(rows_of["job"][0]["owner"]))
        lock = SpendingLock((rows_of["job"][0]["owner"],))  # no other job can get its key in the meantime
        await self._target.change(lambda transaction: self._write_job(transaction, rows_of), spending=lock)

    async def _read_rows_of_job(self, job_id: str) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of a job, by table."""

        async def read(transaction: Transaction) -> dict[str, list[dict[str, Any]]]:
            found: dict[str, list[dict[str, Any]]] = {}
            for table, column in JOB_COLUMN_OF_TABLE.items():
                rows = await transaction.execute(f"SELECT * FROM {table} WHERE {column} = :id", id=job_id)
                found[table] = [self._convert_row(table, row) for row in rows]
            return found

        return await self._source.query(read)

    def _convert_row(self, table: str, row: Row) -> dict[str, Any]:
        """Return a row as PostgreSQL has it."""
        names = [name for name in row.keys() if f"{table}.{name}" not in OWN_COLUMNS]  # noqa: SIM118  # no mapping
        values: dict[str, Any] = {name: self._convert_value(table, name, row[name]) for name in names}
        if table == "turn":
            values["base_url"] = values["base_url"].removeprefix(_MOVING)
        if table == "job":
            values |= _NO_CLAIM
            values["next_at"] = self._find_due_time(values)
        if "owner" in values and self._order.owner is not None:
            values["owner"] = self._order.owner
        return values

    def _convert_value(self, table: str, name: str, value: Any) -> Any:
        if f"{table}.{name}" in self._truths:
            return bool(value)
        return value

    def _find_due_time(self, job: Mapping[str, Any]) -> float | None:
        """Return when a job's next step is due there; a job that waits for a slot has no such time."""
        is_done = job["finished_at"] is not None and not job["unsettled"]
        if is_done or job["status"] == "pending":
            return None
        return job["next_at"] or self._order.now

    async def _copy_files(self, made: Sequence[dict[str, Any]], *, has_owner: bool) -> None:
        """Copy the files that a run made, and name the copies; those of an owner go into the database."""
        for row in made:
            path, copy = Path(row["path"]), self._order.made / row["job_id"] / row["name"]
            with as_store_error(self._order.made):
                data = None
                if has_owner:
                    data = await anyio.to_thread.run_sync(_read_made_file, path, self._order.file_bytes)
                if data is not None:
                    file_id = self._order.create_file_id()
                    row |= {"path": f"/files/{file_id}", "file_id": file_id, "data": data}
                    self._counts.files += 1
                elif path != copy and await anyio.to_thread.run_sync(_copy_made_file, path, copy):
                    row["path"] = str(copy)
                    self._counts.files += 1

    async def _write_job(self, transaction: Transaction, rows_of: Mapping[str, list[dict[str, Any]]]) -> None:
        [job] = rows_of["job"]
        if job["key"] is not None and await transaction.execute(
            "SELECT 1 FROM job WHERE owner = :owner AND key = :key", owner=job["owner"], key=job["key"]
        ):
            job["key"] = None
            self._counts.keys += 1
        for table, rows in rows_of.items():
            if rows:
                await transaction.execute_each(write_insert(table, tuple(rows[0])), rows)

    async def _remove_job(self, job_id: str) -> None:
        """Remove a job from the file, leaving a tombstone that names its new place."""

        async def remove(transaction: Transaction) -> None:
            await transaction.remove_from_search(job_id)
            await transaction.execute("DELETE FROM job WHERE id = :id", id=job_id)
            await transaction.execute(
                """INSERT INTO tombstone (job_id, status, finished_at) VALUES (:id, :status, :now)
                   ON CONFLICT (job_id) DO UPDATE SET status = excluded.status, finished_at = excluded.finished_at""",
                id=job_id,
                status=MOVED,
                now=self._order.now,
            )

        await self._source.change(remove, job_id)

    async def _copy_rows_once(self, table: str, key: Sequence[str]) -> None:
        """Copy the rows of a table that PostgreSQL does not have."""
        rows = [self._convert_row(table, row) for row in await self._source.fetch(f"SELECT * FROM {table}")]
        is_same = " AND ".join(f"{column} = :{column}" for column in key)

        async def copy(transaction: Transaction) -> None:
            for row in rows:
                if row.get("status") != MOVED and not await transaction.execute(
                    f"SELECT 1 FROM {table} WHERE {is_same}", **{column: row[column] for column in key}
                ):
                    await transaction.execute(write_insert(table, tuple(row)), **row)

        await self._target.change(copy, spending=SpendingLock((), is_global=True))


def _read_made_file(path: Path, most_bytes: int) -> bytes | None:
    """Return the content of a file; None if it is gone, or too large for the database."""
    if not path.is_file() or path.stat().st_size > most_bytes:
        return None
    return path.read_bytes()


def _copy_made_file(path: Path, copy: Path) -> bool:
    """Copy a file; return False if it is gone."""
    if not path.is_file():
        return False
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(path, copy)
    return True
