"""The address of a PostgreSQL database, and the form of it that may be shown."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from agent_jobs.errors import StoreError
from agent_jobs.store.base import Store

DEFAULT_POOL = 10
#: Sessions show this name and that of their process, so that other processes find the sessions of a dead one.
APPLICATION = "agent-jobs"
#: A process that is paused inside a change has locks for which all others wait, so PostgreSQL ends its session then.
PAUSED_CHANGE_LIMIT_S = 5


@dataclass(frozen=True)
class PostgresAddress:
    """The place of a database, and the way to connect to it. Neither its repr nor its string shows a password."""

    url: str = field(repr=False)
    listen_url: str | None = field(default=None, repr=False)  #: a direct one, where `url` leads to a pooler
    password: str | None = field(default=None, repr=False)  #: takes precedence over the one in the URL
    pool: int = DEFAULT_POOL  #: connections of a process, beside the one that listens

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2] or "the local socket"
        return f"PostgreSQL database {parts.path.lstrip('/') or 'of the default name'} at {host}"

    def open_store(self) -> AbstractAsyncContextManager[Store]:
        """Open the store at this address, and close it at the end.

        Raises:
            StoreError: It cannot be used, or asyncpg is not installed.
        """
        check_extra()
        from agent_jobs.store.postgres import open_postgres

        return open_postgres(self)

    def connection_arguments(self, process: str) -> dict[str, Any]:
        """Return the arguments of asyncpg for a connection of this process through `url`."""
        arguments = self._arguments_of(self.url)
        arguments["server_settings"]["application_name"] = f"{APPLICATION} {process}"
        if self.listen_url:  # a pooler gives each transaction another session, and refuses settings of a session
            return arguments | {"statement_cache_size": 0}
        limit = {"idle_in_transaction_session_timeout": f"{PAUSED_CHANGE_LIMIT_S}s"}
        arguments["server_settings"] |= limit
        return arguments | {"statement_cache_size": 500}

    @property
    def listen_arguments(self) -> dict[str, Any]:
        """Return the arguments of asyncpg for the connection that listens."""
        return self._arguments_of(self.listen_url or self.url)

    def _arguments_of(self, url: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {"dsn": url, "server_settings": {"application_name": APPLICATION}}
        if self.password is not None:
            arguments["password"] = self.password
        return arguments


def check_extra() -> None:
    """Raise StoreError if the packages for PostgreSQL are not installed."""
    if find_spec("asyncpg") is None:
        raise StoreError(
            "AGENT_JOBS_DATABASE_URL names PostgreSQL, whose packages are not installed.", "postgres_not_installed"
        )
