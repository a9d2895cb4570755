"""Store the items of requests, page them, and check that calls have their outputs. Pure."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from .errors import ApiError
from .parameters import as_list, check_choice, check_range

__all__ = ["build_page", "check_outputs", "list_input_items"]

Json = dict[str, Any]

_PREFIX = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
#: The step through a list, by its order.
_STEPS = {"asc": 1, "desc": -1}


def list_input_items(given: Any, owner_id: str) -> list[Json]:
    """Return the input of a request as stored items, each with an id."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_store_item(item, f"{owner_id}:in:{index}") for index, item in enumerate(as_list(given))]


def build_page(items: Sequence[Json], *, limit: int, order: str, after: str | None, most: int = 100) -> Json:
    """Return one page of a list."""
    check_range("limit", "integer", limit, 1, most)
    check_choice("order", order, _STEPS)
    ordered = items[:: _STEPS[order]]
    start = _find_start(ordered, after)
    data = ordered[start : start + limit]
    ids = [item["id"] for item in data] or [None]
    return {
        "object": "list",
        "data": data,
        "first_id": ids[0],
        "last_id": ids[-1],
        "has_more": start + limit < len(ordered),
    }


def check_outputs(before: Iterable[Json], given: Any) -> None:
    """Raise if a function call has no output, or an output has no call."""
    items = [*before, *as_list(given)]
    calls = {item.get("call_id") for item in items if item.get("type") == "function_call"}
    outputs = {item.get("call_id") for item in items if item.get("type") == "function_call_output"}
    for item in items:
        id = item.get("call_id")
        match item.get("type"):
            case "function_call":
                if id not in outputs:
                    raise ApiError(400, f"No tool output found for function call {id}.", param="input")
            case "function_call_output":
                if id not in calls:
                    message = f"No tool call found for function call output with call_id {id}."
                    raise ApiError(400, message, param="input")
            case _:
                pass


def _find_start(items: Sequence[Json], after: str | None) -> int:
    """Return the position behind the item with this id."""
    if after is None:
        return 0
    ids = [item["id"] for item in items]
    if after not in ids:
        raise ApiError(400, f"Item with id '{after}' not found.", param="after")
    return ids.index(after) + 1


def _store_item(item: Json, seed: str) -> Json:
    kind = item.get("type") or "message"
    digest = hashlib.sha256(seed.encode()).hexdigest()[:48]
    stored = {"id": f"{_PREFIX.get(kind, 'item')}_{digest}", "type": kind, "status": "completed"} | item
    if kind == "message" and isinstance(item.get("content"), str):
        part: Json = {"type": "input_text", "text": item["content"]}
        if item.get("role") == "assistant":
            part = {"type": "output_text", "text": item["content"], "annotations": []}
        stored["content"] = [part]
    return stored
