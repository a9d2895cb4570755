"""Open the store of the jobs: SQLite in a folder, or PostgreSQL."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from agent_jobs.store.base import Store
from agent_jobs.store.values import BUSY_TIMEOUT_S

if TYPE_CHECKING:
    from agent_jobs.store.postgres_address import PostgresAddress


def open_store(
    folder: Path, postgres: PostgresAddress | None = None, *, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> AbstractAsyncContextManager[Store]:
    """Open the database at this address, or the one in this folder, and close it at the end; else raise StoreError."""
    if postgres is not None:
        return postgres.open_store()
    from agent_jobs.store.sqlite import open_sqlite  # sqlite3 is not needed to answer `initialize`

    return open_sqlite(folder, busy_timeout_s)
