"""The connections to PostgreSQL: a pool for statements, and one that listens.

Rules, each with its reason:
- READ COMMITTED, and locks first: statements after a lock see everything that was committed before it.
- A change locks its jobs' rows by a statement of its own. One that joins other tables would read these as they were.
- A change that may spend takes an advisory lock of its owner: one process at a time decides about the owner's
  duplicates, budget and slots. Where a limit of all owners is set, it then takes one for all. Those of this process
  queue here, without a connection; else a burst of starts would use up the pool.
- As long as there is a slot for every job that may be on its way, those that take one share these locks.
- A change is shielded once it has a connection: its outcome would be unknown otherwise.
- asyncpg's tasks are plain ones of the event loop: a store may be closed by another task than the one that opened it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import anyio
import asyncpg

from agent_jobs.errors import StoreError
from agent_jobs.jobs.queries import ServerInfo, StoreInfo, WorkerInfo
from agent_jobs.store.database import SpendingLock, Transaction
from agent_jobs.store.known_state import KnownState
from agent_jobs.store.owner_scope import OwnerScope
from agent_jobs.store.postgres_address import PostgresAddress
from agent_jobs.store.postgres_changes import PostgresChanges
from agent_jobs.store.postgres_errors import ANY_ERROR, LOST_CONNECTION, as_postgres_error
from agent_jobs.store.postgres_heartbeat import Heartbeat
from agent_jobs.store.postgres_locks import locking_transaction
from agent_jobs.store.postgres_reader import PostgresReader
from agent_jobs.store.postgres_schema import check_schema
from agent_jobs.store.postgres_statement import bind_values
from agent_jobs.store.values import Mark

if TYPE_CHECKING:
    from agent_jobs.store.postgres_errors import PostgresConnection

T = TypeVar("T")
#: Runs a query with numbered parameters.
_Fetch = Callable[[str, Sequence[Any]], Awaitable[list[asyncpg.Record]]]

#: Seconds for a new connection.
CONNECT_LIMIT_S = 10.0
#: Seconds for one statement: ours need milliseconds, so this only ends statements of a lost server.
STATEMENT_LIMIT_S = 30.0
#: Attempts of a change that PostgreSQL took back because of a deadlock.
CHANGE_ATTEMPTS = 5
_ALL_SPENDING = "agent-jobs spending"

_NOW = "extract(epoch FROM clock_timestamp())::float8"
#: What `server_info` says of a server, in one row.
_SERVER = f"""SELECT current_setting('server_version_num')::int AS version,
                     current_setting('max_connections')::int AS max_connections,
                     (SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
                     COUNT(*) FILTER (WHERE next_at <= {_NOW} AND holder IS NULL) AS due,
                     COALESCE({_NOW} - MIN(next_at) FILTER (WHERE holder IS NULL), 0) AS oldest_due_s,
                     COUNT(*) FILTER (WHERE status = 'pending' AND next_at IS NULL AND holder IS NULL) AS waiting
              FROM job WHERE next_at IS NOT NULL OR status = 'pending'"""


@asynccontextmanager
async def open_database(address: PostgresAddress) -> AsyncGenerator[PostgresDatabase]:
    """Connect to a database that has the schema of this version, and let other processes see that this one lives.

    Raises:
        StoreError: It cannot be used; the sentence says what to do.
    """
    process = f"{os.getpid()}-{token_hex(8)}"
    with as_postgres_error(address):
        pool = await asyncpg.create_pool(
            min_size=0,  # a floor would be kept by a task of asyncpg's, which logs a traceback at each restart
            max_size=address.pool,
            timeout=CONNECT_LIMIT_S,
            command_timeout=STATEMENT_LIMIT_S,
            reset=_keep_session,
            **address.connection_arguments(process),
        )
    database = PostgresDatabase(pool, address, process)
    try:
        await database.begin()
        yield database
    finally:
        with anyio.CancelScope(shield=True):
            await database.close()


async def _keep_session(connection: Any) -> None:
    """Leave the session as it is: nothing of ours changes it, and a reset costs a round trip for every statement."""


class PostgresTransaction:
    """Runs statements inside the transaction of a change or a query."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    async def execute(self, sql: str, **values: Any) -> list[asyncpg.Record]:
        """Return all rows of a statement."""
        text, arguments = bind_values(sql, values)
        return await self._connection.fetch(text, *arguments)

    async def execute_each(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run a statement that returns no rows once for each of these values."""
        arguments_of: dict[str, list[list[Any]]] = {}
        for row in rows:
            text, arguments = bind_values(sql, row)
            arguments_of.setdefault(text, []).append(arguments)
        for text, each in arguments_of.items():
            await self._connection.executemany(text, each)

    async def remove_from_search(self, job_id: str) -> None:
        """Take a job's texts out of the search index, before one of them changes or is deleted."""
        removed = await self.execute("DELETE FROM job_words WHERE job_id = :id RETURNING job_id", id=job_id)
        if removed:
            await self.execute("UPDATE job SET in_search = FALSE WHERE id = :id", id=job_id)


class PostgresDatabase:
    """`Database` on PostgreSQL."""

    is_shared = True

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], address: PostgresAddress, worker: str) -> None:
        self._pool = pool
        self._reader = PostgresReader(pool)
        self._address = address
        self.worker = worker
        self._changes = PostgresChanges(self.worker, address, self.fetch)
        self._heartbeat = Heartbeat(self.worker, self.write)
        self._spending_turns = WeakValueDictionary[str, anyio.Lock]()
        self._schema = 0
        self._tasks: list[asyncio.Task[None]] = []

    def count_connections(self) -> tuple[int, int]:
        """Return how many connections are open, and how many of these are in use."""
        size = self._pool.get_size()
        return size, size - self._pool.get_idle_size()

    async def begin(self) -> None:
        """Check the schema, and start the tasks that run while the database is open."""
        with as_postgres_error(self._address):
            async with self._acquire_connection() as connection:
                self._schema = await check_schema(connection, self._address)
            await self._heartbeat.beat()
            await self._heartbeat.forget_old()
            await self._changes.listen()
        for loop in (
            self._heartbeat.keep_beating,
            self._changes.keep_listening,
            self._changes.keep_looking,
            self._changes.keep_notifying,
        ):
            self._start_loop(loop())

    async def close(self) -> None:
        """Leave the database; nothing else may be called then."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._changes.close()
        await self._reader.leave()
        with suppress(StoreError):
            await self._heartbeat.leave()
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await self._pool.close()
        except ANY_ERROR:  # among them TimeoutError
            self._pool.terminate()

    def damage_error(self, error: Exception) -> StoreError:
        """Return the error for an unreadable row."""
        return StoreError(
            "The {address} holds rows that this version cannot read ({cause}).",
            "postgres_damaged",
            address=self._address,
            cause=error,
        )

    async def read(self, sql: str, **values: Any) -> list[asyncpg.Record]:
        """Return the rows of a short query about few jobs."""
        return await self._fetch_again(self._reader.fetch, sql, values)

    async def fetch(self, sql: str, **values: Any) -> list[asyncpg.Record]:
        """Return the rows of one query."""
        return await self._fetch_again(self._fetch_from_pool, sql, values)

    async def query(self, ask: Callable[[Transaction], Awaitable[T]]) -> T:
        """Return what this function reads; all its statements see the database as it is at one moment."""
        with as_postgres_error(self._address):
            async with self._acquire_connection() as connection:
                with anyio.CancelScope(shield=True):
                    async with connection.transaction(isolation="repeatable_read", readonly=True):
                        return await ask(PostgresTransaction(connection))
        raise AssertionError("unreachable")

    async def write(self, sql: str, *job_ids: str, **values: Any) -> list[asyncpg.Record]:
        """Run one statement that changes something; a single statement is atomic."""

        async def run(connection: PostgresConnection) -> list[asyncpg.Record]:
            text, arguments = bind_values(sql, values)
            return await connection.fetch(text, *arguments)

        return await self._change_jobs(run, job_ids)

    async def change(
        self,
        change: Callable[[Transaction], Awaitable[T]],
        *job_ids: str,
        spending: SpendingLock | None = None,
        is_progress: bool = False,
    ) -> T:
        """Run this function in a transaction, after the locks that it needs."""
        names = _name_locks(spending)
        is_shared = spending is not None and spending.is_shared

        async def run(connection: PostgresConnection) -> T:
            async with locking_transaction(connection, names, job_ids, is_shared=is_shared):
                return await change(PostgresTransaction(connection))

        async with AsyncExitStack() as turns:
            for name in names:
                await turns.enter_async_context(self._spending_turns.setdefault(name, _new_turn()))
            if is_shared:
                await turns.aclose()  # those before it are done, for which it would have kept a connection waiting
            return await self._change_jobs(run, job_ids, is_progress=is_progress)

    async def wait_for_change(self, known: KnownState, scope: OwnerScope) -> None:
        """Return once the job differs from the state that a waiter knows, or if there is no such job in the scope."""
        await self._changes.wait_for_change(known, scope)

    async def change_mark(self) -> Mark:
        """Return the number of changes that this process knows of."""
        return self._changes.mark()

    async def wait_for_any_change(self, mark: Mark) -> None:
        """Return once any job changed since this mark."""
        await self._changes.wait_for_any_change(mark)

    async def find_dead_workers(self, names: Iterable[str]) -> set[str]:
        """Return those of these processes that are dead."""
        return await self._heartbeat.find_dead(names)

    async def other_workers(self) -> dict[str, Mapping[str, Any]]:
        """Return what the other living processes announced, by their names."""
        return await self._heartbeat.find_others()

    async def read_clock(self) -> float:
        """Return the time of the server in epoch seconds."""
        return (await self.fetch("SELECT extract(epoch FROM clock_timestamp())::float8 AS now"))[0]["now"]

    async def announce(self, announced: Mapping[str, Any]) -> None:
        """Publish the role of this process while it lives."""
        await self._heartbeat.announce(announced)

    async def store_info(self) -> StoreInfo:
        """Return where the jobs are stored, and which other living processes work on them."""
        row = (await self.fetch("SELECT pg_database_size(current_database()) AS bytes, version() AS version"))[0]
        watchers = tuple(
            WorkerInfo(int(name.partition("-")[0]), str(announced.get("what")), str(announced.get("base_url")))
            for name, announced in (await self.other_workers()).items()
        )
        server = " ".join(row["version"].split()[:2])
        return StoreInfo(str(self._address), self._schema, server, row["bytes"], watchers)

    async def server_info(self) -> ServerInfo:
        """Return the state of the server, and of the processes that share it."""
        row = (await self.fetch(_SERVER))[0]
        return ServerInfo(
            version=row["version"] // 10_000,
            replicas=await self._heartbeat.list_others(),
            due=row["due"],
            oldest_due_s=row["oldest_due_s"],
            waiting=row["waiting"],
            message_s=await self._changes.measure_message_s(),
            pool=(self._pool.get_size(), self._pool.get_max_size()),
            connections=(row["connections"], row["max_connections"]),
        )

    async def _change_jobs(
        self, run: Callable[[PostgresConnection], Awaitable[T]], job_ids: Sequence[str], *, is_progress: bool = False
    ) -> T:
        """Run a change over a connection, again after a deadlock, and wake the waiters of its jobs."""
        results: list[T] = []
        with as_postgres_error(self._address):
            try:
                async with self._acquire_connection() as connection:
                    with anyio.CancelScope(shield=True):
                        results.append(await _run_despite_deadlocks(run, connection))
            except asyncpg.ReadOnlySQLTransactionError:
                # A session stays read-only when its database no longer is, or when another server is the primary now.
                await self._pool.expire_connections()
                await self._reader.leave()
                raise
        if job_ids:
            self._changes.announce(job_ids, is_progress=is_progress)
        return results[0]

    @asynccontextmanager
    async def _acquire_connection(self) -> AsyncGenerator[PostgresConnection]:
        """Yield a connection of the pool; if a new one is lost while it is opened, open another: nothing was sent."""
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._pool.acquire())
            except LOST_CONNECTION:
                connection = await stack.enter_async_context(self._pool.acquire())
            yield connection

    async def _fetch_again(self, fetch: _Fetch, sql: str, values: Mapping[str, Any]) -> list[asyncpg.Record]:
        """Return the rows of one query. One that met a closed connection is asked again, over a new one."""
        text, arguments = bind_values(sql, values)
        with as_postgres_error(self._address):
            try:
                return await fetch(text, arguments)
            except LOST_CONNECTION:
                return await self._fetch_from_pool(text, arguments)

    async def _fetch_from_pool(self, text: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        return await self._pool.fetch(text, *arguments)

    def _start_loop(self, loop: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(loop))


def _name_locks(spending: SpendingLock | None) -> list[str]:
    """Return the advisory locks of a change, always in the same order: else two changes could wait for each other."""
    if spending is None:
        return []
    names = [f"{_ALL_SPENDING} of {owner}" for owner in sorted(set(spending.owners))]
    if spending.is_global:
        names.append(_ALL_SPENDING)
    return names


def _new_turn() -> anyio.Lock:
    return anyio.Lock(fast_acquire=True)


async def _run_despite_deadlocks(run: Callable[[PostgresConnection], Awaitable[T]], connection: Any) -> T:
    for _ in range(CHANGE_ATTEMPTS - 1):
        with suppress(asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
            return await run(connection)
    return await run(connection)
