"""List the steps of a response, item by item, with the times at which they were seen. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from agent_jobs.jobs.response import JSON, format_arguments, mapping_of, read_failure, string_of
from agent_jobs.text import truncate

#: Characters of a step's detail: one line of a terminal or a page.
DETAIL_CHARS = 300
#: Characters of a step's error.
ERROR_CHARS = 300
#: Statuses of an item that upstream still works on.
_RUNNING = frozenset({"in_progress", "searching", "interpreting", "generating"})
#: Kinds of steps whose item type is not simply the kind with `_call` behind it.
_KIND_OF_TYPE: Mapping[str, str] = {"function_call": "function", "mcp_approval_request": "approval"}
#: Fields that say what an item did, the most telling first.
_DETAIL_FIELDS = ("query", "queries", "url", "pattern", "code", "command", "commands", "arguments", "input")


class Step(NamedTuple):
    """One item of a response's output.

    The times say when a process saw it, in epoch seconds. A stream shows an item at once, a poll shows it up to one
    poll later.
    """

    turn: int
    position: int  #: in the output
    kind: str  #: such as `web_search`, `reasoning`, `message`, `function`
    name: str  #: of the tool, with its server; else empty
    detail: str  #: the query, code or arguments, on one line
    error: str
    seen_at: float
    finished_at: float | None  #: None while it runs

    @property
    def took_s(self) -> float | None:
        """Return how long it took; None while it runs."""
        if self.finished_at is None:
            return None
        return max(0.0, self.finished_at - self.seen_at)


def list_steps(items: Sequence[JSON], turn: int, now: float, *, is_over: bool) -> tuple[Step, ...]:
    """Return the steps of an output; all steps of a finished response have finished."""
    last = len(items) - 1
    return tuple(
        read_step(item, turn, position, now, is_finished=is_over or _is_finished(item, is_last=position == last))
        for position, item in enumerate(items)
    )


def read_step(item: JSON, turn: int, position: int, now: float, *, is_finished: bool) -> Step:
    """Return the step that an item shows at this time."""
    error = read_failure({"error": item.get("error")})
    return Step(
        turn=turn,
        position=position,
        kind=_shorten_type(string_of(item.get("type")) or "unknown"),
        name=_name_tool(item),
        detail=truncate(" ".join(_describe_item(item).split()), DETAIL_CHARS),
        error="" if error is None else truncate(error.message, ERROR_CHARS),
        seen_at=now,
        finished_at=now if is_finished else None,
    )


def merge_step(known: Step, seen: Step) -> Step:
    """Return a step as it was seen last, with the times at which it was first seen."""
    finished_at = seen.finished_at if known.finished_at is None else known.finished_at
    return seen._replace(seen_at=known.seen_at, finished_at=finished_at)


def _is_finished(item: JSON, *, is_last: bool) -> bool:
    """Return True if an item of a running response has finished: upstream writes one item after the other."""
    status = item.get("status")
    if status is None:
        return not is_last
    return str(status) not in _RUNNING


def _shorten_type(item_type: str) -> str:
    return _KIND_OF_TYPE.get(item_type, item_type.removesuffix("_call"))


def _name_tool(item: JSON) -> str:
    names = (string_of(item.get("server_label")), string_of(item.get("name")))
    return "/".join(filter(None, names))


def _describe_item(item: JSON) -> str:
    """Return what an item did in its own words; empty for a text and for reasoning."""
    if item.get("type") in ("message", "reasoning"):
        return ""
    facts = {**item, **mapping_of(item.get("action"))}
    return next((_join_value(facts[name]) for name in _DETAIL_FIELDS if facts.get(name)), "")


def _join_value(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(_join_value(each) for each in cast("list[object]", value))
    return format_arguments(value)
