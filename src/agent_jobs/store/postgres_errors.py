"""Turns the errors of PostgreSQL and its connections into sentences that say what to do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg

from agent_jobs.errors import StoreError
from agent_jobs.store.postgres_address import PostgresAddress

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    #: One of the pool, or one of our own.
    PostgresConnection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

#: Defects of ours: no advice about the database would help.
_DEFECTS = (
    asyncpg.PostgresSyntaxError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.AmbiguousColumnError,
    asyncpg.GroupingError,
    asyncpg.DatatypeMismatchError,
    asyncpg.DataError,
)
#: The connection was closed: by a restart, by an administrator, or on the way.
LOST_CONNECTION = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    ConnectionError,
)
#: Sentences by the first kind of error that fits.
_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (asyncpg.InvalidAuthorizationSpecificationError, "refused the user or the password: check AGENT_JOBS_DATABASE_URL"),
    (asyncpg.InvalidCatalogNameError, "does not exist: create it with createdb, or correct AGENT_JOBS_DATABASE_URL"),
    (asyncpg.TooManyConnectionsError, "has no connection left: raise its max_connections, or lower AGENT_JOBS_POOL"),
    (asyncpg.ReadOnlySQLTransactionError, "only reads: set AGENT_JOBS_DATABASE_URL to the server that writes"),
    (asyncpg.DiskFullError, "has a full disk: free some space, then try again; no job is lost"),
    (asyncpg.InsufficientPrivilegeError, "refused the user a right: grant it the database"),
    (asyncpg.CannotConnectNowError, "is starting or stopping: try again in a moment; no job is lost"),
    (asyncpg.OperatorInterventionError, "closed the connection: try again; no job is lost"),
    (TimeoutError, "did not answer in time: try again; no job is lost"),
    (asyncpg.InterfaceError, "closed the connection: try again; no job is lost"),
    (OSError, "cannot be reached: start it, or correct AGENT_JOBS_DATABASE_URL"),
)


@contextmanager
def as_postgres_error(address: PostgresAddress) -> Generator[None]:
    """Raise StoreError with advice for what PostgreSQL and its connections raise."""
    try:
        yield
    except _DEFECTS:
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StoreError(
            "The {address} {advice} ({reason}).", address=address, advice=_postgres_advice(error), reason=reason
        ) from error


def _postgres_advice(error: Exception) -> str:
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return advice
    return "cannot be used: see its log"
