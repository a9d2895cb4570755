"""The time, as everything above the pure core sees it."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio


def unset(speed: float = 1.0) -> Callable[[], float]:
    """Wall time as it is now, carried on by a clock that nobody sets and that goes on while the machine sleeps.

    Deadlines and due times are wall times, because other processes read them: without this, a wall clock that is set
    an hour forward would end paid runs, and one that is set back would leave them unobserved for an hour.
    """
    started, began = time.time(), _steady()
    return lambda: started + (_steady() - began) * speed


def _steady() -> float:
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":  # pragma: no cover
        return time.clock_gettime(time.CLOCK_MONOTONIC)  # Python's own monotonic stands still in sleep there
    return time.monotonic()  # pragma: no cover


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time in epoch seconds and waiting; `speed` 60 lets a minute pass in a second."""

    speed: float = 1.0
    now: Callable[[], float] = field(default_factory=unset)

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds of this clock."""
        await anyio.sleep(seconds / self.speed)

    def limit(self, seconds: float) -> anyio.CancelScope:
        """A scope that ends quietly after so many seconds of this clock."""
        return anyio.move_on_after(seconds / self.speed)


def fast_clock(speed: float) -> Clock:
    """A clock that starts now and runs `speed` times as fast."""
    return Clock(speed, unset(speed))
