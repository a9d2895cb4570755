"""Return the time and wait: the clock of every module that is not pure."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio


def create_steady_clock(speed: float = 1.0) -> Callable[[], float]:
    """Return a clock that starts at the wall time and then follows a steady clock, which also runs during sleep.

    Deadlines and due times are wall times, because other processes read them. A wall clock that is set an hour forward
    would end paid runs; one that is set back would leave them unobserved for an hour.
    """
    started, began = time.time(), read_steady_clock()
    return lambda: started + (read_steady_clock() - began) * speed


def read_steady_clock() -> float:
    """Return the seconds of a clock that cannot be set, and that also runs during sleep."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":  # pragma: no cover
        return time.clock_gettime(time.CLOCK_MONOTONIC)  # Python's own monotonic stops during sleep there
    return time.monotonic()  # pragma: no cover


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time in epoch seconds and waiting; `speed` 60 lets a minute pass in a second."""

    speed: float = 1.0
    now: Callable[[], float] = field(default_factory=create_steady_clock)

    def shifted(self, seconds: float) -> "Clock":
        """Return a clock that is ahead of this one."""
        now = self.now
        return Clock(self.speed, lambda: now() + seconds)

    async def sleep(self, seconds: float) -> None:
        """Wait for this many seconds of the clock."""
        await anyio.sleep(seconds / self.speed)

    def limit(self, seconds: float) -> anyio.CancelScope:
        """Return a scope that ends without an error after this many seconds of the clock."""
        return anyio.move_on_after(seconds / self.speed)


def create_fast_clock(speed: float) -> Clock:
    """Return a clock that starts now and runs `speed` times as fast."""
    return Clock(speed, create_steady_clock(speed))
