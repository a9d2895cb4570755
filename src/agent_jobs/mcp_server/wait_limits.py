"""Decide how long a tool call of a host may wait."""

from collections.abc import Mapping
from functools import lru_cache
from math import inf
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
#: Names that SDKs give to every client that has none of its own. Such clients may cut calls at 5, 30 or 60 s.
SDK_NAMES = frozenset({"mcp", "fastmcp", "rmcp", "mcp-client", "ai-sdk-mcp-client", "java-sdk-mcp-client"})
SDK_WAIT_CAP_S = 25.0
WAIT_CAP_S = 45.0  # most hosts cut at 60 s

START_WAIT_S = 5.0
UNKNOWN_START_WAIT_S = 3.0  # the shortest limit seen is 5 s, and a lost answer loses the job's id

#: The part of a cancelled call's duration that later calls of the same client may wait.
LEARNED_SHARE = 0.8
SHORTEST_LIMIT_S = 1.0  # a person stopped a call that is cancelled sooner

#: Claude Code moves a call that takes longer to the background, and its full result wakes the model.
BACKGROUND_AFTER_S: Mapping[str, float] = {"claude-code": 120.0}
BACKGROUND_NOTE = "; may go to the background, its result wakes you"

#: Clients or polls that are remembered; the ones that were used longest ago are forgotten first.
MAX_REMEMBERED = 256


@lru_cache(MAX_REMEMBERED)  # called at every poll
def find_wait_cap_s(client: str) -> float:
    """Return how many seconds a call of this client may wait."""
    if _normalize_name(client) in SDK_NAMES:
        return SDK_WAIT_CAP_S
    return WAIT_CAPS_S.get(_find_host(client, WAIT_CAPS_S), WAIT_CAP_S)


def _normalize_name(client: str) -> str:
    return client.strip().lower().replace(" ", "-").replace("_", "-")


def _find_host(client: str, table: Mapping[str, float]) -> str:
    """Return the entry that a client's name is, or begins with; an empty string if there is none."""
    name = _normalize_name(client)
    matches = (known for known in table if name == known or name.startswith((f"{known}-", f"{known}/")))
    return next(matches, "")


@lru_cache(MAX_REMEMBERED)  # called at every poll
def _background_after_s(client: str) -> float:
    """Return after how many seconds this client moves a call to the background; infinity if it never does."""
    return BACKGROUND_AFTER_S.get(_find_host(client, BACKGROUND_AFTER_S), inf)


class WaitLimits:
    """The seconds that calls may wait: by setting or client name, and no longer than the client was seen to allow.

    Args:
        max_wait_s: The user's setting; None goes by the client's name.
    """

    def __init__(self, max_wait_s: float | None) -> None:
        self._max_wait_s = max_wait_s
        self._learned_s: dict[str, float] = {}

    def limit_s(self, client: str, owner: str = "") -> float:
        """Return how many seconds any call of this client may wait; owners learn nothing from each other."""
        limit_s = self._max_wait_s
        if limit_s is None:
            limit_s = find_wait_cap_s(client)
        return min(limit_s, self._learned_s.get(_name_caller(client, owner), limit_s))

    def start_limit_s(self, client: str, owner: str = "") -> float:
        """Return how many seconds a start waits if its caller does not say."""
        usual_s = UNKNOWN_START_WAIT_S
        if _find_host(client, WAIT_CAPS_S):
            usual_s = START_WAIT_S
        return min(usual_s, self.limit_s(client, owner))

    def learn_limit(self, client: str, waited_s: float, owner: str = "") -> None:
        """Remember that the client cancelled a call that had waited this long."""
        if waited_s < SHORTEST_LIMIT_S:
            return
        caller = _name_caller(client, owner)
        limit_s = min(waited_s * LEARNED_SHARE, self._learned_s.get(caller, waited_s))
        put_last(self._learned_s, caller, limit_s)

    def choose_hint_ms(self, client: str, next_poll_ms: int, owner: str = "") -> int:
        """Return the hint, which is never longer than a learned limit."""
        caller = _name_caller(client, owner)
        if caller not in self._learned_s:
            return next_poll_ms
        return min(next_poll_ms, round(self._learned_s[caller] * 1000))

    def describe_background(self, client: str) -> str:
        """Return what the model should know of a poll by this client; empty if it stays in the foreground."""
        if self.limit_s(client) > _background_after_s(client):
            return BACKGROUND_NOTE
        return ""


def _name_caller(client: str, owner: str) -> str:
    """Return the key of a client; two owners may use clients of the same name."""
    if not owner:
        return client
    return f"{owner}\n{client}"


def put_last(table: dict[str, T], key: str, value: T) -> None:
    """Put a value last, and remove the first one of a table that is too long."""
    table.pop(key, None)
    table[key] = value
    if len(table) > MAX_REMEMBERED:
        del table[next(iter(table))]
