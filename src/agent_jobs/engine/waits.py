"""Limit the waits of callers, and end all of them together before the process exits."""

from collections.abc import Generator
from contextlib import contextmanager

from anyio import CancelScope

from agent_jobs.clock import Clock


class Waits:
    """The waits of this process's callers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._scopes: set[CancelScope] = set()
        self._is_over = False
        self.begun = 0  #: waits since this process began

    @property
    def open(self) -> int:
        """Return how many waits are under way."""
        return len(self._scopes)

    @contextmanager
    def limit(self, seconds: float) -> Generator[None]:
        """End the block without an error after this many seconds, or together with all other waits."""
        if self._is_over:
            seconds = 0.0
        self.begun += 1
        with self._clock.limit(seconds) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    def end_all(self) -> None:
        """End all waits now, and later ones at once, as if their time ran out."""
        self._is_over = True
        for scope in self._scopes:
            scope.cancel()
