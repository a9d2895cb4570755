"""Build the events of one output item, before they have their times. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Build", "TimedEvent", "build_deltas", "build_progress", "cut_text", "wrap_item"]

Json = dict[str, Any]

_DELTAS = 40  # a stream with fewer looks stuck, and with more a log of thousands of runs grows too long


@dataclass(frozen=True)
class TimedEvent:
    """An event, and its share of the run's time."""

    event: Json
    weight: int = 0  # share of the run's time that passes before the event


#: Builds the events of an item from its output index and its id.
Build = Callable[[int, str], list[TimedEvent]]


def wrap_item(index: int, opening: Json, inner: Iterable[TimedEvent], done: Json) -> list[TimedEvent]:
    """Put an item's own events between the two that every item has."""
    return [
        TimedEvent({"type": "response.output_item.added", "output_index": index, "item": opening}),
        *inner,
        TimedEvent({"type": "response.output_item.done", "output_index": index, "item": done}),
    ]


def cut_text(text: str, size: int | None = None, count: int = _DELTAS) -> list[str]:
    """Cut a text into pieces of a size, or into a number of pieces."""
    size = size or -(-len(text) // count) or 1
    return [text[at : at + size] for at in range(0, len(text), size)]


def build_deltas(type: str, where: Json, pieces: Iterable[str], weight: int = 1, **more: Any) -> list[TimedEvent]:
    """Return the events that stream the pieces of a text."""
    return [TimedEvent({"type": type, **where, "delta": piece, **more}, weight) for piece in pieces]


def build_progress(kind: str, where: Json, *stages: str, weight: int = 2) -> list[TimedEvent]:
    """Return the events that report the stages of a call; the time passes before the last."""
    *early, last = [{"type": f"response.{kind}.{stage}", **where} for stage in stages]
    return [*map(TimedEvent, early), TimedEvent(last, weight)]
