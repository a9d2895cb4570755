"""Reserve one connection of the pool for short reads, because getting one from the pool takes as long as the read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

from agent_jobs.store.postgres_errors import LOST_CONNECTION

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

#: A pool with fewer connections than this lends all of them to changes.
LEAST_POOL = 3


class PostgresReader:
    """Runs one short query at a time over its connection; simultaneous ones go through the pool."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._connection: PoolConnectionProxy[asyncpg.Record] | None = None
        self._is_busy = pool.get_max_size() < LEAST_POOL  # for ever, then

    async def fetch(self, text: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        """Return the rows of one query."""
        if self._is_busy:
            return await self._pool.fetch(text, *arguments)
        self._is_busy = True
        try:
            if self._connection is None:
                self._connection = await self._pool.acquire()
            return await self._connection.fetch(text, *arguments)
        except LOST_CONNECTION:
            await self._give_back()
            raise
        finally:
            self._is_busy = False

    async def leave(self) -> None:
        """Give the connection back; the next query takes another one."""
        if not self._is_busy:  # else its query meets the end of the connection
            await self._give_back()

    async def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._pool.release(connection)
