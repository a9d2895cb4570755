"""Turn the errors of PostgreSQL and its connections into errors whose code leads to their fix."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from agent_jobs.errors import StoreError
from agent_jobs.store.postgres_address import PostgresAddress

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    #: One of the pool, or one of our own.
    PostgresConnection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

#: What PostgreSQL, its connections and the client raise.
ANY_ERROR = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
#: Defects of agent-jobs: no advice about the database would help.
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
    asyncpg.InternalClientError,  # a statement met the server's last message, which nothing had asked for
    ConnectionError,
)


class _Failure(NamedTuple):
    """What can be said of one kind of error."""

    kind: type[Exception]
    predicate: str  #: of the sentence whose subject is the database
    code: str


#: The first one that matches an error counts.
_FAILURES = (
    _Failure(asyncpg.ClientConfigurationError, "has an address that cannot be used", "postgres_address"),
    _Failure(asyncpg.InvalidAuthorizationSpecificationError, "refused this name or password", "postgres_user"),
    _Failure(asyncpg.InvalidCatalogNameError, "does not exist", "postgres_missing"),
    _Failure(asyncpg.TooManyConnectionsError, "has no connection left", "postgres_connections"),
    _Failure(asyncpg.ReadOnlySQLTransactionError, "accepts no changes", "postgres_read_only"),
    _Failure(asyncpg.DiskFullError, "is on a full disk", "disk_full"),
    _Failure(asyncpg.InsufficientPrivilegeError, "does not give its user a right", "postgres_rights"),
    _Failure(asyncpg.CannotConnectNowError, "is starting or stopping", "postgres_interrupted"),
    _Failure(asyncpg.OperatorInterventionError, "stopped this call", "postgres_interrupted"),
    _Failure(asyncpg.TransactionRollbackError, "stopped this call", "postgres_interrupted"),
    _Failure(asyncpg.PostgresConnectionError, "closed the connection", "postgres_interrupted"),
    _Failure(asyncpg.InterfaceError, "closed the connection", "postgres_interrupted"),
    _Failure(asyncpg.InternalClientError, "closed the connection", "postgres_interrupted"),
    _Failure(TimeoutError, "did not answer in time", "postgres_interrupted"),
    _Failure(OSError, "cannot be reached", "postgres_unreachable"),
    _Failure(Exception, "cannot be used", "postgres_unusable"),
)
#: The codes of errors that a restart brings, and that are over after it.
PASSING = frozenset({"postgres_interrupted", "postgres_unreachable"})


@contextmanager
def as_postgres_error(address: PostgresAddress) -> Generator[None]:
    """Raise StoreError with a code for what PostgreSQL and its connections raise."""
    try:
        yield
    except _DEFECTS:
        raise
    except ANY_ERROR as error:
        raise _word_failure(error, address) from error


def name_cause(error: Exception) -> str:
    """Return the first line of an error, or its type if it says nothing."""
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def _word_failure(error: Exception, address: PostgresAddress) -> StoreError:
    failure = next(failure for failure in _FAILURES if isinstance(error, failure.kind))
    return StoreError(
        "The {address} {predicate} ({cause}).",
        failure.code,
        address=address,
        predicate=failure.predicate,
        cause=name_cause(error),
    )
