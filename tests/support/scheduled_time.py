"""The time of the test processes, which stands still while a thread of theirs waits for a core.

Clocks of tests run ten or a thousand times as fast as a real one. On a busy machine a process is not run for a tenth of
a second, which is a minute to such a clock: a response ends, or a wait is over, before anybody could look. So
`time.monotonic`, which event loops and the emulator read, and the clock of the engine leave out what Linux counts as
the waits of our threads for a core. A process that sleeps or waits for another one waits for no core: for it time
passes as always.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock

from agent_jobs import clock

THREADS = Path("/proc/self/task")
#: Whether this system counts the waits.
IS_COUNTED = Path("/proc/thread-self/schedstat").exists()
#: How often the waits are read, and the list of threads: each takes some microseconds of a thread.
SAMPLE_S, LIST_S = 0.005, 0.02
#: A wait is known only when it is over. The time that went on meanwhile is made up for, up to this.
AHEAD_MAX_S = 1.0
#: The least that passes in a second, so that every sleep ends.
SLOWEST = 0.05


class ScheduledTime:
    """A steady clock that leaves out the time in which a thread of this process waited for a core."""

    def __init__(self) -> None:
        self._read_monotonic = time.monotonic
        self._now = self._sampled_at = self._read_monotonic()
        self._listed_at = -LIST_S
        self._waited_s = 0.0
        self._waits_ns: dict[str, int | None] = {}  # by thread
        self._lock = Lock()
        os.register_at_fork(after_in_child=self._begin_in_fork)

    def read(self) -> float:
        """Return the seconds of this clock; a thread that asks while another one reads gets the moment before."""
        if self._lock.acquire(blocking=False):
            try:
                self._advance(self._read_monotonic())
            finally:
                self._lock.release()
        return self._now

    def _advance(self, real_s: float) -> None:
        since_s = real_s - self._sampled_at
        if since_s >= SAMPLE_S:
            self._sampled_at = real_s
            self._waited_s += self._read_longest_wait(real_s)
            self._now += since_s * SLOWEST
            self._waited_s = min(self._waited_s, real_s - self._now + AHEAD_MAX_S)
        self._now = max(self._now, real_s - self._waited_s)

    def _read_longest_wait(self, real_s: float) -> float:
        """Return the longest wait of a thread since the last sample: threads wait side by side."""
        if real_s - self._listed_at >= LIST_S:
            self._listed_at = real_s
            self._waits_ns = {name: self._waits_ns.get(name) for name in os.listdir(THREADS)}
        longest_ns = 0
        for name, before_ns in list(self._waits_ns.items()):
            with suppress(OSError):  # the thread has ended
                waited_ns = self._waits_ns[name] = read_wait_ns(name)
                if before_ns is not None:
                    longest_ns = max(longest_ns, waited_ns - before_ns)
        return longest_ns / 1e9

    def _begin_in_fork(self) -> None:
        self._lock = Lock()
        self._waits_ns.clear()
        self._listed_at = -LIST_S


def read_wait_ns(thread: str) -> int:
    """Return for how many nanoseconds a thread has waited for a core so far."""
    statistics = os.open(f"{THREADS}/{thread}/schedstat", os.O_RDONLY)
    try:
        return int(os.read(statistics, 100).split()[1])
    finally:
        os.close(statistics)


def install() -> None:
    """Have the clocks of this process stand still while it waits for a core, where the system counts that."""
    if IS_COUNTED:
        time.monotonic = clock.read_steady_clock = ScheduledTime().read
