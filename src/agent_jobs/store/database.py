"""The protocols of a database: one set of statements runs on SQLite and on PostgreSQL.

A statement is written once: `:name` is a value, `IN (:*names)` a list. Only PostgreSQL reads the text in
`/*! ... */`, and only SQLite reads `INDEXED BY name`.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from agent_jobs.errors import StoreError
from agent_jobs.jobs.queries import ServerInfo, StoreInfo
from agent_jobs.store.known_state import KnownState
from agent_jobs.store.owner_scope import ALL_OWNERS, OwnerScope
from agent_jobs.store.values import Mark

T = TypeVar("T")


class Row(Protocol):
    """A row of a result, read by the place or the name of a column."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return one column, or the columns of a slice."""
        ...

    def keys(self) -> Iterable[str]:
        """Return the names of the columns."""
        ...


class Transaction(Protocol):
    """Runs the statements of one change or query, all or none."""

    async def execute(self, sql: str, **values: Any) -> Sequence[Row]:
        """Return all rows of a statement."""
        ...

    async def execute_each(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run a statement that returns no rows once for each of these values."""
        ...

    async def remove_from_search(self, job_id: str) -> None:
        """Take a job's texts out of the search index, before one of them changes or is deleted."""
        ...


class SpendingLock(NamedTuple):
    """Which changes that may begin to spend money run one after another."""

    owners: tuple[str, ...]  #: those of these owners
    is_global: bool = False  #: and all that are global, too: a limit of all owners together is checked
    is_shared: bool = False  #: those that share the lock run beside each other, and beside no other one


class Database(Protocol):
    """Runs queries and changes, wakes the waiters of what changed, and knows which processes live.

    A function that is given to `query` or `change` awaits nothing but the statements of its transaction: SQLite runs it
    to its end on a worker thread. It changes nothing else: PostgreSQL may run it again after a deadlock.
    """

    @property
    def worker(self) -> str:
        """Return the name by which this process claims jobs."""
        ...

    @property
    def is_shared(self) -> bool:
        """Return True if the processes of several machines use it: a dead one is noticed only after seconds."""
        ...

    def damage_error(self, error: Exception) -> StoreError:
        """Return the error for an unreadable row."""
        ...

    async def read(self, sql: str, **values: Any) -> Sequence[Row]:
        """Return the rows of a short query about few jobs."""
        ...

    async def fetch(self, sql: str, **values: Any) -> Sequence[Row]:
        """Return the rows of one query."""
        ...

    async def query(self, ask: Callable[[Transaction], Awaitable[T]]) -> T:
        """Return what this function reads; all its statements see the database as it is at one moment."""
        ...

    async def write(self, sql: str, *job_ids: str, **values: Any) -> Sequence[Row]:
        """Run one statement that changes something, wake the waiters of these jobs, and return its rows."""
        ...

    async def change(
        self,
        change: Callable[[Transaction], Awaitable[T]],
        *job_ids: str,
        spending: SpendingLock | None = None,
        is_progress: bool = False,
    ) -> T:
        """Run this function in a transaction; what it raises takes all of it back.

        Args:
            change: What to write. It must be quick.
            job_ids: Jobs that it changes. No other change of them runs at the same time; waiters wake afterwards.
            spending: It may begin to spend money. No other such change that it names runs at the same time. It is
                refused while it would be lost with this process.
            is_progress: It writes the progress of runs, which wakes no waiter of a status.
        """
        ...

    async def wait_for_change(self, known: KnownState, scope: OwnerScope) -> None:
        """Return once the job differs from the state that a waiter knows, or if there is no such job in the scope."""
        ...

    async def change_mark(self) -> Mark:
        """Return the number of changes up to now."""
        ...

    async def wait_for_any_change(self, mark: Mark) -> None:
        """Return once any job changed since this mark."""
        ...

    async def find_dead_workers(self, names: Iterable[str]) -> set[str]:
        """Return those of the processes with these names, which have claimed jobs, that are dead."""
        ...

    async def other_workers(self) -> dict[str, Mapping[str, Any]]:
        """Return what the other living processes announced, by their names."""
        ...

    async def store_info(self) -> StoreInfo:
        """Return where the jobs are stored, and which other living processes work on them."""
        ...

    async def read_clock(self) -> float | None:
        """Return the time of the database in epoch seconds; None if its processes share the clock of one machine."""
        ...

    async def server_info(self) -> ServerInfo | None:
        """Return the state of a server that processes of several machines share; None if there is none."""
        ...

    def count_connections(self) -> tuple[int, int]:
        """Return how many connections of a pool are open, and how many of these are in use."""
        ...

    async def announce(self, announced: Mapping[str, Any]) -> None:
        """Publish the role of this process while it lives."""
        ...


class StorePart:
    """A part of a store, with the methods of one protocol. All parts of a store share its database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._scope = ALL_OWNERS

    def for_owner(self, owner: str) -> Self:
        """Return the store of one owner, to whom the jobs of others do not exist. It shares all else with this one."""
        bound = copy(self)
        bound._scope = OwnerScope(owner)
        return bound
