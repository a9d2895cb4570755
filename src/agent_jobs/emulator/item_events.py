"""The events of one output item, before they have their times. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Beat", "Build", "item", "pieces", "progress"]

Json = dict[str, Any]

_DELTAS = 40  # enough to look alive, few enough for a log of thousands of runs


@dataclass(frozen=True)
class Beat:
    """An event that waits for its time."""

    event: Json
    weight: int = 0  # share of the run's time that passes before the event


#: Makes the beats of an item from its output index and its id.
Build = Callable[[int, str], list[Beat]]


def item(index: int, opening: Json, inner: Iterable[Beat], done: Json) -> list[Beat]:
    """Put an item's own events between the two that every item has."""
    return [
        Beat({"type": "response.output_item.added", "output_index": index, "item": opening}),
        *inner,
        Beat({"type": "response.output_item.done", "output_index": index, "item": done}),
    ]


def pieces(text: str, size: int | None = None, count: int = _DELTAS) -> list[str]:
    """Cut a text into deltas."""
    size = size or -(-len(text) // count) or 1
    return [text[at : at + size] for at in range(0, len(text), size)]


def progress(kind: str, where: Json, *stages: str, weight: int = 2) -> list[Beat]:
    """Give the events of a call that only say how far it is; the time passes before the last."""
    *early, last = [{"type": f"response.{kind}.{stage}", **where} for stage in stages]
    return [*map(Beat, early), Beat(last, weight)]
