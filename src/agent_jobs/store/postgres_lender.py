"""Lends the connections of a pool, and keeps some that come back: the pool's own way costs as much as a short query."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

#: Connections that are kept at most. The pool closes its own after five minutes without work.
KEPT = 5


class Lender:
    """Lends connections; all users of the pool must borrow here, since kept ones are in use for the pool."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._kept: list[PoolConnectionProxy[asyncpg.Record]] = []
        self._waiting = 0  #: borrowers for whom the pool has no connection yet

    @property
    def kept(self) -> int:
        """Return how many connections are kept and idle."""
        return len(self._kept)

    @asynccontextmanager
    async def lend(self) -> AsyncGenerator[PoolConnectionProxy[asyncpg.Record]]:
        """Lend a connection; one on which something failed goes back to the pool, which checks it."""
        connection = await self.take()
        is_fine = False
        try:
            yield connection
            is_fine = True
        finally:
            if is_fine and self._can_keep(connection):
                self._kept.append(connection)
            else:
                await self._pool.release(connection)

    async def take(self) -> PoolConnectionProxy[asyncpg.Record]:
        """Return a connection, which must be given back."""
        while self._kept:
            connection = self._kept.pop()  # the last one: most statements are prepared on it
            if not connection.is_closed():
                return connection
            await self._pool.release(connection)
        self._waiting += 1
        try:
            return await self._pool.acquire()
        finally:
            self._waiting -= 1

    async def give_back(self, connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        """Give a connection back to the pool."""
        await self._pool.release(connection)

    async def leave(self) -> None:
        """Give the pool all kept connections."""
        kept, self._kept = self._kept, []
        for connection in kept:
            await self._pool.release(connection)

    def _can_keep(self, connection: PoolConnectionProxy[asyncpg.Record]) -> bool:
        """Return True if the next borrower may have this connection. One that waits at the pool goes first."""
        return not self._waiting and len(self._kept) < KEPT and not connection.is_closed()
