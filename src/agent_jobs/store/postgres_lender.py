"""Lends the connections of a pool, and keeps some that come back: the pool's own way costs as much as a short query."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

#: Connections that are kept at most. The pool closes its own after five minutes without work.
KEPT = 5


class Lender:
    """Lends connections in turn. All users of the pool must borrow here, because the pool counts kept ones as lent."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._kept: list[PoolConnectionProxy[asyncpg.Record]] = []
        self._turns = anyio.Semaphore(pool.get_max_size(), fast_acquire=True)

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
            if is_fine and len(self._kept) < KEPT and not connection.is_closed():
                self._kept.append(connection)
                self._turns.release()
            else:
                await self.give_back(connection)

    async def take(self) -> PoolConnectionProxy[asyncpg.Record]:
        """Return a connection, which must be given back."""
        await self._turns.acquire()
        try:
            while self._kept:
                connection = self._kept.pop()  # the last one: most statements are prepared on it
                if not connection.is_closed():
                    return connection
                await self._pool.release(connection)
            return await self._pool.acquire()
        except BaseException:
            self._turns.release()
            raise

    async def give_back(self, connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        """Give a connection back to the pool."""
        try:
            await self._pool.release(connection)
        finally:
            self._turns.release()

    async def leave(self) -> None:
        """Give the pool all kept connections."""
        kept, self._kept = self._kept, []
        for connection in kept:
            await self._pool.release(connection)
