"""The connection to SQLite: one that writes, on a worker thread, and one that only reads, on the event loop's thread.

Rules, each with its reason:
- Every access of the writing connection takes one lock. A statement inside another task's transaction would share its
  fate.
- A change is one function that runs on the worker thread. Each turn through that thread takes longer than SQLite does.
- Changes are shielded: a task that is cancelled between BEGIN and COMMIT would leave a transaction open.
- The worker thread is no daemon, so the connection is closed on every path.
- The reading connection never waits. What it cannot read at once goes through the worker thread.
"""

import os
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite
import anyio

from agent_jobs.store.change_signals import ChangeSignals
from agent_jobs.store.error_advice import as_store_error
from agent_jobs.store.file_recovery import FileGuard, file_identity, log_paths
from agent_jobs.store.schema import migrate, write_ahead
from agent_jobs.store.worker_lock import WorkerLock, folder_lock
from agent_jobs.text import valid_unicode

T = TypeVar("T")


@asynccontextmanager
async def open_database(folder: Path, busy_timeout_s: float) -> AsyncGenerator["Database"]:
    """Open `jobs.db` in this folder, bring its schema up to date, and take a lock as this process.

    Raises:
        StoreError: It cannot be opened; the sentence says what to do.
    """
    with as_store_error(folder):
        _create_file(folder / "jobs.db")
        worker_lock = WorkerLock(folder / "run")
    try:
        with as_store_error(folder):
            database = Database(
                await _connect_to_file(folder / "jobs.db", busy_timeout_s), worker_lock, folder, busy_timeout_s
            )
        try:
            yield database
        finally:
            with anyio.CancelScope(shield=True):
                await database.close()
    finally:
        worker_lock.close()


class Transaction:
    """Runs statements on the worker thread, inside the transaction of a change or a query."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def execute(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        """Return all rows of a statement. They are fetched to the end: an open cursor keeps the database locked."""
        return self._db.execute(sql, valid_values(values)).fetchall()

    def execute_each(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run a statement that returns no rows once for each of these values."""
        self._db.executemany(sql, [valid_values(row) for row in rows])


class Database:
    """Runs queries and changes, and wakes the waiters of what changed."""

    def __init__(self, db: aiosqlite.Connection, worker_lock: WorkerLock, folder: Path, busy_timeout_s: float) -> None:
        self._db = db
        self.worker_lock = worker_lock
        self.folder = folder
        self.path = folder / "jobs.db"
        self.signals = ChangeSignals()
        self._busy_timeout_s = busy_timeout_s
        self._file_guard = FileGuard(self.path, worker_lock)
        self._reader = _open_reader(self.path, self._file_guard.file)
        self._lock = anyio.Lock(fast_acquire=True)  # each use of it waits for the worker thread anyway

    async def read(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        """Return the rows of a short query about few jobs, on this thread: it is many times faster than the worker."""
        if self._reader is not None:
            with suppress(sqlite3.Error):  # locked or damaged: the worker waits, and its error says what to do
                return self._reader.execute(sql, valid_values(values)).fetchall()
        return await self.fetch(sql, **values)

    async def fetch(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        """Return the rows of one statement."""
        with as_store_error(self.folder):
            async with self._lock:
                return await self._run_in_worker(lambda db: Transaction(db).execute(sql, **values))

    async def query(self, ask: Callable[[Transaction], T]) -> T:
        """Return what this function reads; all its statements see the database as it is at one moment."""
        answers: list[T] = []
        with as_store_error(self.folder):
            async with self._lock:
                with anyio.CancelScope(shield=True):
                    answers.append(await self._run_in_worker(lambda db: _run_in_transaction(db, "BEGIN", ask)))
        return answers[0]

    async def change(self, change: Callable[[Transaction], T], *job_ids: str, is_spending: bool = False) -> T:
        """Run this function in a transaction on the worker thread; what it raises takes all of it back.

        Args:
            change: What to write. It must be quick: meanwhile no process can write.
            job_ids: Jobs whose waiters are to wake.
            is_spending: Refuse the change while the database file is replaced, when it would be lost with this process.
        """
        results: list[T] = []
        with as_store_error(self.folder), anyio.CancelScope(shield=True):
            async with self._lock:
                await self._follow_file()
                if is_spending and self._file_guard.file_replaced_error is not None:
                    raise self._file_guard.file_replaced_error
                results.append(await self._run_in_worker(lambda db: _run_in_transaction(db, "BEGIN IMMEDIATE", change)))
        if job_ids:
            self.signals.announce_changes(job_ids)
        return results[0]

    def size_bytes(self) -> int:
        """Return the size of the file with its log."""
        with as_store_error(self.folder):
            return sum(path.stat().st_size for path in (self.path, *log_paths(self.path)) if path.exists())

    async def close(self) -> None:
        """Close the database; nothing else may be called then."""
        self._close_reader()  # first: the last connection to close a database removes its log
        await self._db.close()

    async def _run_in_worker(self, run: Callable[[sqlite3.Connection], T]) -> T:
        # aiosqlite has a turn of its thread for each statement, and no public way to run several in one.
        execute = cast(  # pyright: ignore[reportUnknownVariableType]
            "Callable[..., Awaitable[T]]",
            self._db._execute,  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
        )
        return await execute(run, self._db._conn)  # pyright: ignore[reportPrivateUsage]

    async def _follow_file(self) -> None:
        """If our file was removed or replaced, continue in the one at its path, with all our jobs."""
        if self._file_guard.is_in_place():
            return
        opened = await self._file_guard.move_jobs(self._db, lambda: _connect_to_file(self.path, self._busy_timeout_s))
        if opened is None:
            return
        self._close_reader()
        previous, self._db = self._db, opened
        self._reader = _open_reader(self.path, self._file_guard.file)
        await previous.close()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _run_in_transaction(db: sqlite3.Connection, begin: str, run: Callable[[Transaction], T]) -> T:
    db.execute(begin)
    try:
        result = run(Transaction(db))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a failed COMMIT may have rolled back by itself
            db.execute("ROLLBACK")
        raise
    return result


def valid_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a statement with text that SQLite accepts."""
    return {name: valid_unicode(value) if isinstance(value, str) else value for name, value in values.items()}


async def _connect_to_file(path: Path, busy_timeout_s: float) -> aiosqlite.Connection:
    """Connect to this file; create it if necessary, and give it the schema of this version."""
    _create_file(path)
    db = aiosqlite.connect(path, isolation_level=None, timeout=busy_timeout_s)
    try:
        # A connect that is cancelled leaves its thread behind, and a migration a transaction.
        with anyio.CancelScope(shield=True):
            await db
            await migrate(db, path)
        db.row_factory = sqlite3.Row
        await write_ahead(db, busy_timeout_s)
        await db.execute_fetchall("PRAGMA synchronous = FULL")
        await db.execute_fetchall("PRAGMA foreign_keys = ON")
        await db.execute_fetchall("SELECT 1 FROM job LIMIT 1")  # now its log stands beside it
    except BaseException:
        with anyio.CancelScope(shield=True):
            await db.close()
        raise
    return db


def _open_reader(path: Path, file: tuple[int, int] | None) -> sqlite3.Connection | None:
    """Return a connection to this very file that never waits; None if it cannot read at this moment."""
    try:
        reader = sqlite3.connect(path, isolation_level=None, timeout=0)
    except sqlite3.Error:
        return None
    try:
        reader.row_factory = sqlite3.Row
        reader.execute("PRAGMA query_only = ON")
        reader.execute("SELECT 1 FROM job LIMIT 1").fetchall()  # now it has opened the log that stands there
        if file_identity(path) == file:
            return reader
    except sqlite3.Error:
        pass
    reader.close()
    return None


def _create_file(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with folder_lock(path.parent) as is_locked:
        if is_locked and not path.exists():
            # SQLite would write the log of a removed database into the new one, and empty it under a server that
            # still has the removed one open.
            for log_path in log_paths(path):
                log_path.unlink(missing_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
