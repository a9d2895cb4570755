"""The connection to SQLite: one for this process, on one file that other processes write too.

House rules, each learnt the hard way: every access takes the one lock, since a statement that lands inside another
task's BEGIN...COMMIT shares its fate; rows are always fetched to the end, since an open cursor keeps the database
locked; what must go together is shielded, since a task cancelled between BEGIN and COMMIT leaves the connection in
a transaction; the worker thread is no daemon, so it is closed on every path. Beside it stands a second connection that
only reads, from the event loop's own thread: it never waits, and what it cannot read at once goes through the worker.
"""

import logging
import os
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import aiosqlite
import anyio
import anyio.lowlevel

from agent_jobs.errors import StoreError
from agent_jobs.store.base import Mark
from agent_jobs.store.recovery import carry_over, check_database, identity
from agent_jobs.store.schema import migrate, write_ahead
from agent_jobs.store.worker_lock import WorkerLock, alone

logger = logging.getLogger(__name__)

#: Runs a function in the worker thread.
_Run = Callable[..., Awaitable[bool]]
#: How often a waiter looks whether another process wrote.
OTHERS_S = 0.2
#: How often to try to go on in another file.
SETTLE_AGAIN_S = 1.0


@asynccontextmanager
async def open_database(folder: Path, busy_timeout_s: float) -> AsyncGenerator["Database"]:
    """Open `jobs.db` in this folder, bring its schema up to date, and hold a lock as this process.

    Raises:
        StoreError: It cannot be opened; the sentence says what to do.
    """
    with as_store_error(folder):
        _make(folder / "jobs.db")
        holder = WorkerLock(folder / "run")
    try:
        with as_store_error(folder):
            database = Database(await _connect(folder / "jobs.db", busy_timeout_s), holder, folder, busy_timeout_s)
        try:
            yield database
        finally:
            with anyio.CancelScope(shield=True):
                await database.close()
    finally:
        holder.close()


class Database:
    """Statements, changes of several statements, and who waits for them."""

    def __init__(self, db: aiosqlite.Connection, holder: WorkerLock, folder: Path, busy_timeout_s: float) -> None:
        self._db = db
        self.holder = holder
        self._folder = folder
        self.path = folder / "jobs.db"
        self._busy_timeout_s = busy_timeout_s
        self._file, *self._log = self._identities()
        #: Why our file is not where it was, and no other can take its jobs; and when to try that again.
        self._adrift: StoreError | None = None
        self._settle_at = 0.0
        self._log_left = False
        self._reader = _open_reader(self.path, self._file)
        self._lock = anyio.Lock(fast_acquire=True)  # whatever is done with it waits for the worker thread anyway
        self._stirred: dict[str, anyio.Event] = {}
        self._any_stirred = anyio.Event()
        self._changes = 0  #: committed by this process

    async def fetch(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        """The rows of one statement of its own."""
        with as_store_error(self._folder):
            async with self._lock:
                return await self.execute(sql, **values)

    async def read(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        """Return the rows of one short question about a few jobs, which is asked often.

        A turn through the worker thread takes many times as long as SQLite does.
        """
        if self._reader is not None:
            with suppress(sqlite3.Error):  # locked or damaged: the worker waits, and its error says what to do
                return self._reader.execute(sql, _whole(values)).fetchall()
        return await self.fetch(sql, **values)

    async def execute(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        """The rows of one statement inside a change."""
        return list(await self._db.execute_fetchall(sql, _whole(values)))

    async def execute_each(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """One statement inside a change, for each of these values; its rows are not wanted."""
        async with self._db.executemany(sql, [_whole(row) for row in rows]):
            pass

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[None]:
        """All statements inside see the database as it is at one moment."""
        with as_store_error(self._folder):
            async with self._lock:
                with anyio.CancelScope(shield=True):
                    await self.execute("BEGIN")
                    try:
                        yield
                    finally:
                        if self._db.in_transaction:
                            await self.execute("ROLLBACK")

    @asynccontextmanager
    async def changing(self, *job_ids: str, spending: bool = False) -> AsyncGenerator[None]:
        """All statements inside are written or none; waiters for the jobs wake after the commit."""
        with as_store_error(self._folder), anyio.CancelScope(shield=True):
            async with self._lock:
                await self._settle()
                if spending and self._adrift is not None:
                    raise self._adrift  # what is written here now goes when this process goes
                await self.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    await self.execute("COMMIT")
                except BaseException as error:
                    # A failed COMMIT may have rolled back by itself.
                    if self._db.in_transaction:
                        await self.execute("ROLLBACK")
                    if not isinstance(error, LostRace):
                        raise
        if job_ids:
            self._stir(job_ids)

    async def change(self, job_id: str, *statements: "Statement", spending: bool = False) -> bool:
        """Write a change of a job that is known beforehand, all in one turn of the worker thread.

        Returns False where a needed statement brings no row; then nothing is written.
        """
        is_written = False
        with as_store_error(self._folder), anyio.CancelScope(shield=True):
            async with self._lock:
                await self._settle()
                if spending and self._adrift is not None:
                    raise self._adrift
                # aiosqlite has a turn for each statement, and no public way to run several in one.
                run = cast(_Run, self._db._execute)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
                is_written = await run(_write, self._db._conn, statements)  # pyright: ignore[reportPrivateUsage]
        self._stir([job_id])
        return is_written

    async def changed(self, job_id: str, revision: int) -> None:
        """See `Store.changed`."""
        while True:
            stirred = self._stirred.setdefault(job_id, anyio.Event())
            rows = await self.read("SELECT revision FROM job WHERE id = :id", id=job_id)
            if not rows or rows[0]["revision"] != revision:
                # Reading does not yield: a caller that asks in a loop must leave room for its own time limit.
                await anyio.lowlevel.checkpoint()
                return
            with anyio.move_on_after(OTHERS_S):
                await stirred.wait()

    async def mark(self) -> Mark:
        """See `Store.mark`."""
        return self._changes, await self._data_version()

    async def moved(self, mark: Mark) -> None:
        """See `Store.moved`."""
        while mark == await self.mark():
            with anyio.move_on_after(OTHERS_S):
                await self._any_stirred.wait()

    def announce(self, said: Mapping[str, Any]) -> None:
        """See `Store.announce`."""
        with as_store_error(self._folder):
            self.holder.tell(said)

    def others(self) -> dict[str, Mapping[str, Any]]:
        """The other living processes by name, and what they said of themselves."""
        with as_store_error(self._folder):
            return self.holder.others()

    def size_bytes(self) -> int:
        """The size of the file with its log."""
        with as_store_error(self._folder):
            return sum(path.stat().st_size for path in (self.path, *_beside(self.path)) if path.exists())

    async def close(self) -> None:
        """Close the database; nothing else may be called then."""
        self._close_reader()  # first: whoever closes the file last puts its log away
        await self._db.close()

    async def _settle(self) -> None:
        """Where our file was removed or replaced, go on in the one that stands there now, with all our jobs."""
        there = identity(self.path)
        if there is not None and there == self._file:
            if not self._log_left:  # else it came back without its log: closing it puts the two together
                self._adrift = None
            return
        if anyio.current_time() < self._settle_at:
            return
        self._settle_at = anyio.current_time() + SETTLE_AGAIN_S
        try:
            with as_store_error(self._folder):
                check_database(self.path)
                self._leave_log()
                self.holder.stay()
                await self._move()
        except StoreError as error:
            known = self._adrift is not None
            self._adrift = StoreError(
                f"{self.path} was removed or replaced; jobs that run go on, new ones wait: {error}"
            )
            if not known:
                logger.error("%s", self._adrift)

    async def _move(self) -> None:
        db = await _connect(self.path, self._busy_timeout_s)
        try:
            await carry_over(self._db, self.path, self.holder.name)
        except BaseException:
            await db.close()
            raise
        self._close_reader()
        left, self._db = self._db, db
        self._file, *self._log = self._identities()
        self._reader = _open_reader(self.path, self._file)
        self._adrift, self._log_left = None, False
        await left.close()
        logger.warning("%s was removed or replaced; its jobs were written into the file that is there now", self.path)

    def _leave_log(self) -> None:
        """Take our log away from the place where it would be taken for that of another file; we have it open."""
        for path, ours in zip(_beside(self.path), self._log, strict=True):
            if ours is not None and identity(path) == ours:
                path.unlink()
                self._log_left = True

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _identities(self) -> list[tuple[int, int] | None]:
        return [identity(path) for path in (self.path, *_beside(self.path))]

    async def _data_version(self) -> int:
        """A number that moves when another connection commits; this connection's own writes do not move it."""
        return (await self.fetch("PRAGMA data_version"))[0][0]

    def _stir(self, job_ids: Iterable[str]) -> None:
        """Wake who waits for these jobs, and who waits for any."""
        for job_id in job_ids:
            if stirred := self._stirred.pop(job_id, None):
                stirred.set()
        self._changes += 1
        self._any_stirred.set()
        self._any_stirred = anyio.Event()


class Statement(NamedTuple):
    """One statement of a change; where a needed one brings no row, the change is not made."""

    sql: str
    values: Mapping[str, Any]
    is_needed: bool = False


def _write(db: sqlite3.Connection, statements: Iterable[Statement]) -> bool:
    """Run the statements in a transaction; return False where it was taken back, for a needed one brought no row."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            rows = db.execute(statement.sql, _whole(statement.values)).fetchall()
            if statement.is_needed and not rows:
                db.execute("ROLLBACK")
                return False
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a failed COMMIT may have rolled back by itself
            db.execute("ROLLBACK")
        raise
    return True


class LostRace(Exception):
    """Leaves a change unmade; zero rows is a normal answer."""


def _whole(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as SQLite takes them: only whole characters, and upstream may cut one in half."""
    return {k: v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for k, v in values.items()}


@contextmanager
def as_store_error(folder: Path) -> Generator[None]:
    """Turn what SQLite and the file system raise into one sentence that says what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a defect of ours: no folder is to blame
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{_advice(error, folder)} ({error})") from error


def _advice(error: Exception, folder: Path) -> str:
    words = str(error)
    if "locked" in words or "busy" in words:
        return f"The database in {folder} is locked by another program: close it, then try again"
    if "full" in words or "No space" in words:
        return f"The disk of {folder} is full: free some space, then try again; no job is lost"
    if "malformed" in words or "not a database" in words:
        return damaged(folder)
    return f"The database in {folder} cannot be used: make the folder writable or set AGENT_JOBS_DATA_DIR to another"


def damaged(folder: Path) -> str:
    """What to do about a database that holds nonsense."""
    return f"{folder / 'jobs.db'} is damaged: move it away, or set AGENT_JOBS_DATA_DIR to another folder"


async def _connect(path: Path, busy_timeout_s: float) -> aiosqlite.Connection:
    """A connection to this file, which is made if need be and has the schema of this version then."""
    _make(path)
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
    """Return a connection to this very file that never waits; None where it cannot read at this moment."""
    try:
        reader = sqlite3.connect(path, isolation_level=None, timeout=0)
    except sqlite3.Error:
        return None
    try:
        reader.row_factory = sqlite3.Row
        reader.execute("PRAGMA query_only = ON")
        reader.execute("SELECT 1 FROM job LIMIT 1").fetchall()  # now it has opened the log that stands there
        if identity(path) == file:
            return reader
    except sqlite3.Error:
        pass
    reader.close()
    return None


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(path.parent) as ours:
        if ours and not path.exists():
            # What is left of a database that was removed, perhaps while another server has it open, must not be taken
            # for ours: SQLite would empty the one's log and write it into the other.
            for beside in _beside(path):
                beside.unlink(missing_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _beside(path: Path) -> list[Path]:
    """The log of a database and the index of its log."""
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]
