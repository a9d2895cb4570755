"""The time, as everything above the pure core sees it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import anyio


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time in epoch seconds and waiting; `speed` 60 lets a minute pass in a second."""

    speed: float = 1.0
    now: Callable[[], float] = time.time

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds of this clock."""
        await anyio.sleep(seconds / self.speed)

    def limit(self, seconds: float) -> anyio.CancelScope:
        """A scope that ends quietly after so many seconds of this clock."""
        return anyio.move_on_after(seconds / self.speed)


def fast_clock(speed: float) -> Clock:
    """A clock that starts now and runs `speed` times as fast."""
    started = time.time()
    began = time.monotonic()
    return Clock(speed, lambda: started + (time.monotonic() - began) * speed)
