"""Pace the polls of a model, and decide when to advise it to stop polling."""

from agent_jobs.mcp_server.wait_limits import put_last

#: After each series of this many empty waits the model is advised to leave. Models lose patience after about five.
MAX_EMPTY_WAITS = 6


class PollPacing:
    """Remembers the polls of a model by their arguments: the last hint, and the waits in a row that brought nothing."""

    def __init__(self) -> None:
        self._hints: dict[str, tuple[float, float]] = {}  #: when each hint was given, and its seconds
        self._empty_waits: dict[str, int] = {}

    def effective_wait_s(self, poll: str, wait_s: float, now: float) -> float:
        """Return how long a poll waits: one that comes in the first half of its hint waits until the hint is over."""
        if poll not in self._hints:
            return wait_s
        given_at, hint_s = self._hints[poll]
        left_s = given_at + hint_s - now
        if left_s > hint_s / 2:
            return max(wait_s, left_s)
        return wait_s

    def remember_hint(self, poll: str, next_poll_ms: int, now: float) -> None:
        """Remember the hint that a poll was answered with."""
        put_last(self._hints, poll, (now, next_poll_ms / 1000))

    def count_empty_wait(self, poll: str) -> bool:
        """Count a wait that brought nothing; return True if it is time to advise the model to leave."""
        count = self._empty_waits.get(poll, 0) + 1
        put_last(self._empty_waits, poll, count)
        return count % MAX_EMPTY_WAITS == 0

    def reset(self, poll: str) -> None:
        """Forget a poll, because it brought something."""
        self._hints.pop(poll, None)
        self._empty_waits.pop(poll, None)
