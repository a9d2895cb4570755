"""The connections to SQLite: one that writes, on a worker thread, and one that only reads, on the event loop's thread.

Rules, each with its reason:
- Every access of the writing connection takes one lock. A statement inside another task's transaction would share its
  fate.
- A change is one function that runs on the worker thread. Each turn through that thread takes longer than SQLite does.
  It is a coroutine, for PostgreSQL's sake; its statements never suspend it here.
- Changes are shielded: a task that is cancelled between BEGIN and COMMIT would leave a transaction open.
- The worker thread is no daemon, so the connection is closed on every path.
- The reading connection never waits. Reads that would wait go through the worker thread.
"""

import json
import os
import re
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite
import anyio
import anyio.lowlevel

from agent_jobs.errors import StoreError
from agent_jobs.jobs.queries import StoreInfo, WorkerInfo
from agent_jobs.store.change_signals import ChangeSignals
from agent_jobs.store.database import SpendingLock, Transaction
from agent_jobs.store.file_recovery import FileGuard, file_identity, log_paths
from agent_jobs.store.known_state import KnownState
from agent_jobs.store.owner_scope import OwnerScope, select_state
from agent_jobs.store.schema import enable_write_ahead_log, migrate
from agent_jobs.store.search_index import remove_from_search
from agent_jobs.store.sqlite_errors import as_store_error, damage_error
from agent_jobs.store.values import Mark
from agent_jobs.store.worker_lock import WorkerLock, folder_lock
from agent_jobs.text import valid_unicode

T = TypeVar("T")

#: Seconds between two looks for changes of other processes: SQLite does not announce them.
OTHERS_POLL_S = 0.2
#: Types of values that SQLite accepts as they are.
_PLAIN_TYPES = frozenset({int, float, bool, bytes, type(None)})
_LIST = re.compile(r":\*(\w+)")


@asynccontextmanager
async def open_database(folder: Path, busy_timeout_s: float) -> AsyncGenerator["SQLiteDatabase"]:
    """Open `jobs.db` in this folder, bring its schema up to date, and take a lock as this process.

    Raises:
        StoreError: It cannot be opened; the sentence says what to do.
    """
    with as_store_error(folder):
        _create_file(folder / "jobs.db")
        worker_lock = WorkerLock(folder / "run")
    try:
        with as_store_error(folder):
            database = SQLiteDatabase(
                await _connect_to_file(folder / "jobs.db", busy_timeout_s), worker_lock, folder, busy_timeout_s
            )
        try:
            yield database
        finally:
            with anyio.CancelScope(shield=True):
                await database.close()
    finally:
        worker_lock.close()


class SQLiteTransaction:
    """Runs statements on the worker thread, inside the transaction of a change or a query."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def execute(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        """Return all rows of a statement. They are fetched to the end: an open cursor keeps the database locked."""
        return self._db.execute(translate_statement(sql), encode_values(values)).fetchall()

    async def execute_each(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run a statement that returns no rows once for each of these values."""
        self._db.executemany(translate_statement(sql), [encode_values(row) for row in rows])

    async def remove_from_search(self, job_id: str) -> None:
        """Take a job's texts out of the search index, before one of them changes or is deleted."""
        await remove_from_search(self, job_id)


class SQLiteDatabase:
    """`Database` on SQLite."""

    is_shared = False

    def __init__(self, db: aiosqlite.Connection, worker_lock: WorkerLock, folder: Path, busy_timeout_s: float) -> None:
        self._db = db
        self._worker_lock = worker_lock
        self.worker = worker_lock.name
        self.folder = folder
        self.path = folder / "jobs.db"
        self._signals = ChangeSignals()
        self._busy_timeout_s = busy_timeout_s
        self._file_guard = FileGuard(self.path, worker_lock)
        self._reader = _open_reader(self.path, self._file_guard.file)
        self._lock = anyio.Lock(fast_acquire=True)  # each use of it waits for the worker thread anyway

    def damage_error(self, error: Exception) -> StoreError:
        """Return the error for an unreadable row."""
        return damage_error(error, self.folder)

    async def read(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        """Return the rows of a short query about few jobs, on this thread: it is many times faster than the worker."""
        if self._reader is not None:
            with suppress(sqlite3.Error):  # locked or damaged: the worker waits, and its error says what to do
                return self._reader.execute(translate_statement(sql), encode_values(values)).fetchall()
        return await self.fetch(sql, **values)

    async def fetch(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        """Return the rows of one statement."""
        with as_store_error(self.folder):
            async with self._lock:
                return await self._run_in_worker(lambda db: _execute_one(db, sql, values))

    async def query(self, ask: Callable[[Transaction], Awaitable[T]]) -> T:
        """Return what this function reads; all its statements see the database as it is at one moment."""
        answers: list[T] = []
        with as_store_error(self.folder):
            async with self._lock:
                with anyio.CancelScope(shield=True):
                    answers.append(await self._run_in_worker(lambda db: _run_in_transaction(db, "BEGIN", ask)))
        return answers[0]

    async def write(self, sql: str, *job_ids: str, **values: Any) -> list[sqlite3.Row]:
        """Run one statement that changes something; a single statement is atomic without BEGIN and COMMIT."""
        return await self._run_change(lambda db: _execute_one(db, sql, values), job_ids)

    async def change(
        self,
        change: Callable[[Transaction], Awaitable[T]],
        *job_ids: str,
        spending: SpendingLock | None = None,
        is_progress: bool = False,
    ) -> T:
        """Run this function in a transaction on the worker thread. Meanwhile no process can write."""
        return await self._run_change(
            lambda db: _run_in_transaction(db, "BEGIN IMMEDIATE", change),
            job_ids,
            is_spending=spending is not None,
            is_progress=is_progress,
        )

    async def wait_for_change(self, known: KnownState, scope: OwnerScope) -> None:
        """Return once the job differs from the state that a waiter knows, or if there is no such job in the scope."""
        while True:
            event = self._signals.event_of(known)
            rows = await self.read(select_state(scope), id=known.job_id, **scope.values)
            if not rows or known.differs_from(rows[0]["revision"], rows[0]["status"]):
                # Reading does not yield: a caller that waits in a loop must leave room for its own time limit.
                await anyio.lowlevel.checkpoint()
                return
            with anyio.move_on_after(OTHERS_POLL_S):
                await event.wait()

    async def change_mark(self) -> Mark:
        """Return the number of our own changes, and one that moves when another connection commits."""
        return self._signals.count, (await self.fetch("PRAGMA data_version"))[0][0]

    async def wait_for_any_change(self, mark: Mark) -> None:
        """Return once any job changed since this mark."""
        while mark == await self.change_mark():
            with anyio.move_on_after(OTHERS_POLL_S):
                await self._signals.event_of_any().wait()

    async def find_dead_workers(self, names: Iterable[str]) -> set[str]:
        """Return those of these processes that are dead."""
        return {name for name in names if self._worker_lock.is_dead(name)}

    async def other_workers(self) -> dict[str, Mapping[str, Any]]:
        """Return what the other living processes announced, by their names."""
        with as_store_error(self.folder):
            return self._worker_lock.list_others()

    async def read_clock(self) -> None:
        """Return None: all processes are on one machine."""

    async def server_info(self) -> None:
        """Return None: a file has no server."""

    def count_connections(self) -> tuple[int, int]:
        """Return nothing: a file has no pool."""
        return 0, 0

    async def announce(self, announced: Mapping[str, Any]) -> None:
        """Publish the role of this process while it lives."""
        with as_store_error(self.folder):
            self._worker_lock.announce(announced)

    async def store_info(self) -> StoreInfo:
        """Return where the jobs are stored, and which other living processes work on them."""
        schema = (await self.fetch("PRAGMA user_version"))[0][0]
        journal = (await self.fetch("PRAGMA journal_mode"))[0][0]
        watchers = tuple(
            WorkerInfo(int(name.partition("-")[0]), str(announced.get("what")), str(announced.get("base_url")))
            for name, announced in (await self.other_workers()).items()
        )
        return StoreInfo(str(self.path), schema, journal, self._size_bytes(), watchers)

    async def close(self) -> None:
        """Close the database; nothing else may be called then."""
        self._close_reader()  # first: the last connection to close a database removes its log
        await self._db.close()

    def _size_bytes(self) -> int:
        """Return the size of the file with its log."""
        with as_store_error(self.folder):
            return sum(path.stat().st_size for path in (self.path, *log_paths(self.path)) if path.exists())

    async def _run_change(
        self,
        run: Callable[[sqlite3.Connection], T],
        job_ids: Iterable[str],
        *,
        is_spending: bool = False,
        is_progress: bool = False,
    ) -> T:
        """Run a change on the worker thread, in the file that is at our path."""
        results: list[T] = []
        with as_store_error(self.folder), anyio.CancelScope(shield=True):
            async with self._lock:
                await self._follow_file()
                if is_spending and self._file_guard.file_replaced_error is not None:
                    raise self._file_guard.file_replaced_error
                results.append(await self._run_in_worker(run))
        if job_ids:
            self._signals.announce_changes(job_ids, is_progress=is_progress)
        return results[0]

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


def _execute_one(db: sqlite3.Connection, sql: str, values: Mapping[str, Any]) -> list[sqlite3.Row]:
    return db.execute(translate_statement(sql), encode_values(values)).fetchall()


def _run_in_transaction(db: sqlite3.Connection, begin: str, run: Callable[[Transaction], Awaitable[T]]) -> T:
    db.execute(begin)
    try:
        result = _run_to_its_end(run(SQLiteTransaction(db)).__await__())
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a failed COMMIT may already have rolled back
            db.execute("ROLLBACK")
        raise
    return result


def _run_to_its_end(steps: Generator[Any, Any, T]) -> T:
    """Return the result of a coroutine that awaits only statements of its transaction, which never suspend."""
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value
    steps.close()
    raise RuntimeError("a change may await nothing but the statements of its transaction")


@lru_cache(maxsize=500)
def translate_statement(sql: str) -> str:
    """Return a statement as SQLite accepts it: a list is read from JSON, so that its length changes no statement."""
    return _LIST.sub(r"SELECT value FROM json_each(:\1)", sql)


def encode_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a statement as SQLite accepts them."""
    return {name: value if _is_plain(value) else _sqlite_value(value) for name, value in values.items()}


def _is_plain(value: Any) -> bool:
    """Return True for nearly all values: SQLite accepts them as they are."""
    if type(value) is str:
        return value.isascii()
    return type(value) in _PLAIN_TYPES


def _sqlite_value(value: Any) -> Any:
    match value:
        case str():
            return valid_unicode(value)
        case list() | tuple():
            return json.dumps(value)
        case _:
            return value


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
        await enable_write_ahead_log(db, busy_timeout_s)
        await db.execute_fetchall("PRAGMA synchronous = FULL")
        await db.execute_fetchall("PRAGMA foreign_keys = ON")
        await db.execute_fetchall("SELECT 1 FROM job LIMIT 1")  # now its log is beside it
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
        reader.execute("SELECT 1 FROM job LIMIT 1").fetchall()  # now it has opened the log beside it
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
