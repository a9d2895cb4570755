"""Recover from a deleted or replaced database file: the open file still has every row, and they are carried over."""

import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiosqlite
import anyio

from agent_jobs.errors import StoreError
from agent_jobs.store.schema import SEARCH_INDEX, column_names, immediate_transaction
from agent_jobs.store.sqlite_errors import as_store_error
from agent_jobs.store.worker_lock import WorkerLock

logger = logging.getLogger(__name__)

#: Seconds between two attempts to carry the jobs over: each opens a file and may wait for its lock.
MOVE_RETRY_S = 1.0

#: The tables with rows of a job, and the column that names it; the job's own row goes first.
JOB_COLUMN_OF_TABLE = {
    "job": "id",
    "turn": "job_id",
    "request": "job_id",
    "prompt": "job_id",
    "step": "job_id",
    "output": "job_id",
    "event": "job_id",
    "upload": "job_id",
    "made": "job_id",
    "call": "job_id",
    "callback": "job_id",
}
#: The tables without a job, and the columns that identify their rows. Limits and keys of owners go first.
KEY_COLUMNS_OF_TABLE = {
    "owner": ("name",),
    "token": ("id",),
    "tombstone": ("job_id",),
    "mode": ("base_url", "model"),
    "webhook": ("id",),
    "shelf": ("id",),
    "feed": ("id",),
    "subscription": ("id",),
    "audit": ("at", "token_id", "action", "job_id"),
}
#: Columns that each file counts for itself.
OWN_COLUMNS = frozenset({"prompt.number", "job.in_search", "audit.number", "feed.number"})
#: A token that is revoked in either file is refused.
_REVOKE_TOKENS = """UPDATE there.token SET revoked_at = mine.revoked_at FROM main.token AS mine
                    WHERE mine.id = there.token.id AND mine.revoked_at IS NOT NULL AND there.token.revoked_at IS NULL"""


class FileGuard:
    """Notices that the open database is no longer the file at its path, and moves its jobs into the one that is."""

    def __init__(self, path: Path, worker_lock: WorkerLock) -> None:
        self._path = path
        self._worker_lock = worker_lock
        self._file, *self._log = self._find_files()
        self._is_log_removed = False
        self._retry_at = 0.0
        #: Set while our file is not at its path and no other can take its jobs.
        self.file_replaced_error: StoreError | None = None

    @property
    def file(self) -> tuple[int, int] | None:
        """Identity of the file that is open."""
        return self._file

    def is_in_place(self) -> bool:
        """Return True if our file is at its path. Each change asks this."""
        found = file_identity(self._path)
        if found is None or found != self._file:
            return False
        if not self._is_log_removed:  # else it was put back without its log: closing the connection merges the two
            self.file_replaced_error = None
        return True

    async def move_jobs(
        self, db: aiosqlite.Connection, connect: Callable[[], Awaitable[aiosqlite.Connection]]
    ) -> aiosqlite.Connection | None:
        """Copy the jobs into the file that is at the path now, and return the connection to it.

        Returns None if that is not possible at the moment; `file_replaced_error` then says why.
        """
        if anyio.current_time() < self._retry_at:
            return None
        self._retry_at = anyio.current_time() + MOVE_RETRY_S
        try:
            with as_store_error(self._path.parent):
                return await self._try_to_move(db, connect)
        except StoreError as error:
            is_known = self.file_replaced_error is not None
            self.file_replaced_error = StoreError(
                "{path} was removed or replaced, so new jobs wait while running ones continue: {error}.",
                path=self._path,
                error=error,
            )
            if not is_known:
                logger.error("%s", self.file_replaced_error)
            return None

    async def _try_to_move(
        self, db: aiosqlite.Connection, connect: Callable[[], Awaitable[aiosqlite.Connection]]
    ) -> aiosqlite.Connection:
        check_database(self._path)
        self._remove_log()
        self._worker_lock.restore_file()
        opened = await connect()
        try:
            await carry_over(db, self._path, self._worker_lock.name)
        except BaseException:
            await opened.close()
            raise
        self._file, *self._log = self._find_files()
        self.file_replaced_error, self._is_log_removed = None, False
        logger.warning("%s was removed or replaced; its jobs were written into the file that is there now", self._path)
        return opened

    def _remove_log(self) -> None:
        """Remove our log, which SQLite would mistake for the other file's; we still have it open."""
        for path, ours in zip(log_paths(self._path), self._log, strict=True):
            if ours is not None and file_identity(path) == ours:
                path.unlink()
                self._is_log_removed = True

    def _find_files(self) -> list[tuple[int, int] | None]:
        return [file_identity(path) for path in (self._path, *log_paths(self._path))]


def log_paths(path: Path) -> list[Path]:
    """Return the paths of a database's log and of the index of that log."""
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return device and number of the file at a path; None if it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_database(path: Path) -> None:
    """Raise if the file at this path is not a database, before any file beside it is changed."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        if file.read(16) not in (b"", b"SQLite format 3\0"):
            raise sqlite3.DatabaseError("file is not a database")


async def carry_over(db: aiosqlite.Connection, path: Path, me: str) -> None:
    """Write the rows of an open database into the one that is now at its path, which has our schema.

    The owners go before their jobs: a job of an owner with a key of their own must never be sent with the shared key.
    Of a job that both have, the newer one is kept: several processes may carry over the same jobs, and none of them
    may bring a right to POST back that another has used. Jobs that damage made unreadable stay behind.
    """
    await _run_statement(db, "ATTACH :path AS there", path=str(path))
    try:
        for table in KEY_COLUMNS_OF_TABLE:
            await _copy_other_rows(db, table)
        try:
            newer = await _run_statement(
                db,
                """SELECT mine.id FROM main.job AS mine LEFT JOIN there.job AS theirs ON theirs.id = mine.id
                   WHERE theirs.id IS NULL OR mine.revision > theirs.revision
                      OR mine.revision = theirs.revision AND mine.holder = :me""",
                me=me,
            )
            await _copy_jobs(db, [row[0] for row in newer])
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            await _carry_readable_jobs(db)
    finally:
        await _run_statement(db, "DETACH there")


async def _copy_other_rows(db: aiosqlite.Connection, table: str) -> None:
    """Copy the rows of a table that the other file does not have, in one transaction. Rows that are there stay."""
    statements = [await _write_copy_statement(db, table)]
    if table == "token":
        statements.append(_REVOKE_TOKENS)
    with _log_damage(f"the rows of {table}"):
        async with immediate_transaction(db):
            for statement in statements:
                await _run_statement(db, statement)


async def _write_copy_statement(db: aiosqlite.Connection, table: str) -> str:
    """Return the statement that copies the rows of a table that the other file does not have."""
    names = [name for name in await column_names(db, table) if f"{table}.{name}" not in OWN_COLUMNS]
    key = KEY_COLUMNS_OF_TABLE[table]
    is_same = " AND ".join(f"theirs.{name} = mine.{name}" for name in key)
    # The rows of the audit log are numbered again in their order. A job counts in its day's budget once.
    condition, order = {
        "audit": ("", "mine.number"),
        "tombstone": ("AND mine.job_id NOT IN (SELECT id FROM there.job)", "1"),
    }.get(table, ("", "1"))
    return f"""INSERT OR IGNORE INTO there.{table} ({", ".join(names)})
               SELECT {", ".join(f"mine.{name}" for name in names)}
               FROM main.{table} AS mine LEFT JOIN there.{table} AS theirs ON {is_same}
               WHERE theirs.{key[0]} IS NULL {condition} ORDER BY {order}"""


async def _carry_readable_jobs(db: aiosqlite.Connection) -> None:
    """Carry over, one by one, the jobs that can still be read from a damaged database."""
    try:
        ids = [row[0] for row in await _run_statement(db, "SELECT id FROM main.job EXCEPT SELECT id FROM there.job")]
    except sqlite3.DatabaseError as error:
        logger.error("no job can be read from the damaged database: %s", error)
        return
    for job_id in ids:
        with _log_damage(f"{job_id}:"):
            await _copy_jobs(db, [job_id])


async def _copy_jobs(db: aiosqlite.Connection, ids: list[str]) -> None:
    """Copy these jobs with all their rows, in one transaction."""
    listed = json.dumps(ids)
    async with immediate_transaction(db):
        these = "IN (SELECT value FROM json_each(:ids))"
        # The index of the other file has the texts of the jobs that are replaced: it is made again when it is needed.
        await _run_statement(db, f"DROP TABLE IF EXISTS there.{SEARCH_INDEX}")
        await _run_statement(db, "UPDATE there.job SET in_search = 0 WHERE in_search = 1")
        await _run_statement(db, f"DELETE FROM there.job WHERE id {these}", ids=listed)
        # A caller's key names one job in a database.
        await _run_statement(
            db, f"UPDATE main.job SET key = NULL WHERE id {these} AND key IN (SELECT key FROM there.job)", ids=listed
        )
        for table, column in JOB_COLUMN_OF_TABLE.items():
            # A file that an upgrade wrote has its columns in another order.
            columns = [name for name in await column_names(db, table) if f"{table}.{name}" not in OWN_COLUMNS]
            names = ", ".join(columns)
            await _run_statement(
                db,
                f"INSERT INTO there.{table} ({names}) SELECT {names} FROM main.{table} WHERE {column} {these}",
                ids=listed,
            )


async def _run_statement(db: aiosqlite.Connection, sql: str, **values: Any) -> list[sqlite3.Row]:
    return list(await db.execute_fetchall(sql, values))


@contextmanager
def _log_damage(what: str) -> Generator[None]:
    """Log that damage made something unreadable, and continue; raise any other error."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        logger.error("%s cannot be read from the damaged database: %s", what, error)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
