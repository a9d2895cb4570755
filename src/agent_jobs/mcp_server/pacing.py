"""How hosts and their models call: how long a call may wait, what was hinted, and how often a wait brought nothing."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

#: Seconds that a tool call may wait, by the name that a client gives itself, or the part of it before a separator.
#: Each is less than what the client was seen to allow.
WAIT_CAPS_S: Mapping[str, float] = {
    "claude-code": 1500.0,
    "gemini-cli": 540.0,
    "qwen": 540.0,
    "opencode": 380.0,
    "kilo": 380.0,
    "codex": 240.0,
    "goose": 240.0,
    "continue-cli-client": 45.0,
    "@cline/core": 45.0,
    "copilot-cli": 45.0,
}
#: Names that SDKs give to every client that has none of its own, which may cut calls at 5, 30 or 60 s.
SDK_NAMES = frozenset({"mcp", "fastmcp", "rmcp", "mcp-client", "ai-sdk-mcp-client", "java-sdk-mcp-client"})
SDK_WAIT_CAP_S = 25.0
WAIT_CAP_S = 45.0  # most hosts cut at 60 s

START_WAIT_S = 5.0
UNKNOWN_START_WAIT_S = 3.0  # the shortest limit seen is 5 s, and a lost answer loses the job's id

#: The part of a cut call's duration that later calls of the same client may wait.
LEARNED_SHARE = 0.8
SHORTEST_LIMIT_S = 1.0  # a call that is cancelled sooner was stopped by a person

#: A call that takes longer goes on in the background, and its full result wakes the model.
BACKGROUND_AFTER_S: Mapping[str, float] = {"claude-code": 120.0}
BACKGROUND_NOTE = "; may go to the background, its result wakes you"

#: After each so many waits without an end the model is told that it may leave; models lose patience after about five.
MAX_EMPTY_WAITS = 6
#: What is polled, as far as it is remembered; what was asked for longest ago is forgotten first.
REMEMBERED = 256


def wait_cap_s(client: str) -> float:
    """Return how many seconds a call of this client may wait."""
    if _normalize_name(client) in SDK_NAMES:
        return SDK_WAIT_CAP_S
    return WAIT_CAPS_S.get(_find_host(client, WAIT_CAPS_S), WAIT_CAP_S)


def _normalize_name(client: str) -> str:
    return client.strip().lower().replace(" ", "-").replace("_", "-")


def _find_host(client: str, table: Mapping[str, float]) -> str:
    """Return the entry that a client's name is, or begins with; an empty text if there is none."""
    name = _normalize_name(client)
    fitting = (known for known in table if name == known or name.startswith((f"{known}-", f"{known}/")))
    return next(fitting, "")


class Waits:
    """How long calls may wait: as the user set it or as suits the client, and never longer than it was seen to allow.

    Args:
        max_wait_s: What the user set; None goes by the client's name.
    """

    def __init__(self, max_wait_s: float | None) -> None:
        self._max_wait_s = max_wait_s
        self._learned_s: dict[str, float] = {}

    def limit_s(self, client: str) -> float:
        """Return how many seconds any call of this client may wait."""
        limit_s = wait_cap_s(client) if self._max_wait_s is None else self._max_wait_s
        return min(limit_s, self._learned_s.get(client, limit_s))

    def start_limit_s(self, client: str) -> float:
        """Return how many seconds a start waits if its caller does not say."""
        usual_s = START_WAIT_S if _find_host(client, WAIT_CAPS_S) else UNKNOWN_START_WAIT_S
        return min(usual_s, self.limit_s(client))

    def learn_limit(self, client: str, waited_s: float) -> None:
        """Note that the client cancelled a call that had waited this long."""
        if waited_s < SHORTEST_LIMIT_S:
            return
        limit_s = min(waited_s * LEARNED_SHARE, self._learned_s.get(client, waited_s))
        _remember(self._learned_s, client, limit_s)

    def hint_ms(self, client: str, next_poll_ms: int) -> int:
        """Return the hint, which is never longer than a learned limit."""
        learned_s = self._learned_s.get(client)
        return next_poll_ms if learned_s is None else min(next_poll_ms, round(learned_s * 1000))

    def background_note(self, client: str) -> str:
        """Return what the model should know of a poll by this client; empty if it stays in the foreground."""
        after_s = BACKGROUND_AFTER_S.get(_find_host(client, BACKGROUND_AFTER_S))
        return BACKGROUND_NOTE if after_s is not None and self.limit_s(client) > after_s else ""


class PollPacing:
    """How a model polls, for each job or group of jobs that it polls for."""

    def __init__(self) -> None:
        self._hinted: dict[str, tuple[float, float]] = {}
        self._barren: dict[str, int] = {}

    def effective_wait_s(self, asked: str, wait_s: float, now: float) -> float:
        """How long to wait for a poll: one that comes in the first half of its hint is held until the hint."""
        at, hint_s = self._hinted.get(asked, (0.0, 0.0))
        left_s = at + hint_s - now
        return max(wait_s, left_s) if left_s > hint_s / 2 else wait_s

    def poll_hint(self, asked: str, next_poll_ms: int, now: float) -> None:
        """Remember what was hinted."""
        _remember(self._hinted, asked, (now, next_poll_ms / 1000))

    def has_empty_waits(self, asked: str) -> bool:
        """Count a wait that brought nothing; returns whether it is time to advise the model to leave."""
        waits = self._barren.pop(asked, 0) + 1
        _remember(self._barren, asked, waits)
        return waits % MAX_EMPTY_WAITS == 0

    def over(self, asked: str) -> None:
        """Something was brought: counting begins anew."""
        self._hinted.pop(asked, None)
        self._barren.pop(asked, None)


def _remember(kept: dict[str, T], asked: str, value: T) -> None:
    kept.pop(asked, None)
    kept[asked] = value
    if len(kept) > REMEMBERED:
        del kept[next(iter(kept))]
