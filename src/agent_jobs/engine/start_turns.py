"""Lets starts take turns: under load each is sent soon after it was accepted, instead of all of them late."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

TURNS = 6  # starts that are planned and sent at once: enough to keep a core busy
TURN_S = 2.0  # a slow start, such as one with large files, then lets others begin


class StartTurns:
    """The turns of the starts of one process, first come, first served."""

    def __init__(self) -> None:
        self._free = anyio.Semaphore(TURNS, fast_acquire=True)

    @asynccontextmanager
    async def take(self) -> AsyncGenerator[None]:
        """Wait for a turn, and keep it for as long as the body runs, but at most `TURN_S`."""
        await self._free.acquire()
        turn = _Turn(self._free)
        timer = asyncio.get_running_loop().call_later(TURN_S, turn.end)
        try:
            yield
        finally:
            timer.cancel()
            turn.end()


class _Turn:
    """A turn that can be ended more than once."""

    def __init__(self, free: anyio.Semaphore) -> None:
        self._free = free
        self._is_over = False

    def end(self) -> None:
        """Let the next start begin."""
        if not self._is_over:
            self._is_over = True
            self._free.release()
