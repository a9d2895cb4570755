"""Opens the store of the jobs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from agent_jobs.store.base import Store

#: Our own changes take under a millisecond: only another program holds the lock longer than this. A process that is to
#: end must not wait for it much longer.
BUSY_TIMEOUT_S = 1.5


@asynccontextmanager
async def open_store(folder: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> AsyncGenerator[Store]:
    """Open the SQLite database in this folder, created if necessary, and close it at the end.

    Raises:
        StoreError: It cannot be opened, is damaged, or was written by a newer version, which is left untouched.
    """
    from agent_jobs.store.sqlite import open_sqlite  # sqlite3 is not needed to answer `initialize`

    async with open_sqlite(folder, busy_timeout_s) as store:
        yield store
