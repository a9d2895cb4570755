"""How hosts and their models call: how long a call may wait, what was hinted, and how often a wait brought nothing."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

#: How long a tool call may wait by the name that the client gives itself; hosts cut the others at 60 s.
WAIT_CAPS_S: Mapping[str, float] = {"claude-code": 100.0, "codex": 240.0, "goose": 240.0, "gemini-cli": 540.0}
WAIT_CAP_S = 45.0
#: After each so many waits without an end the model is told that it may leave; models lose patience after about five.
BARREN_WAITS = 6
#: What is polled, as far as it is remembered; what was asked for longest ago is forgotten first.
REMEMBERED = 256


def wait_cap_s(client: str) -> float:
    """How long a call of this client may wait, in seconds."""
    name = client.lower().replace(" ", "-")
    return next((cap for known, cap in WAIT_CAPS_S.items() if name.startswith(known)), WAIT_CAP_S)


class Pace:
    """How a model polls, for each job or group of jobs that it polls for."""

    def __init__(self) -> None:
        self._hinted: dict[str, tuple[float, float]] = {}
        self._barren: dict[str, int] = {}

    def held_s(self, asked: str, wait_s: float, now: float) -> float:
        """How long to wait for a poll: one that comes in the first half of its hint is held until the hint."""
        at, hint_s = self._hinted.get(asked, (0.0, 0.0))
        left_s = at + hint_s - now
        return max(wait_s, left_s) if left_s > hint_s / 2 else wait_s

    def hint(self, asked: str, next_poll_ms: int, now: float) -> None:
        """Remember what was hinted."""
        _remember(self._hinted, asked, (now, next_poll_ms / 1000))

    def barren(self, asked: str) -> bool:
        """Count a wait that brought nothing; returns whether it is time to advise the model to leave."""
        waits = self._barren.pop(asked, 0) + 1
        _remember(self._barren, asked, waits)
        return waits % BARREN_WAITS == 0

    def over(self, asked: str) -> None:
        """Something was brought: counting begins anew."""
        self._hinted.pop(asked, None)
        self._barren.pop(asked, None)


def _remember(kept: dict[str, T], asked: str, value: T) -> None:
    kept.pop(asked, None)
    kept[asked] = value
    if len(kept) > REMEMBERED:
        del kept[next(iter(kept))]
