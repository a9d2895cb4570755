"""Items of requests: stored input, pages of it, and calls that wait for their output. Pure."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, cast

from .errors import ApiError

__all__ = ["check_outputs", "input_items", "page"]

Json = dict[str, Any]

_PREFIX = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def input_items(given: Any, owner_id: str) -> list[Json]:
    """Give the input of a request as stored items, each with an id."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_stored(item, f"{owner_id}:in:{index}") for index, item in enumerate(cast("list[Json]", given or []))]


def page(items: Sequence[Json], *, limit: int, order: str, after: str | None, most: int = 100) -> Json:
    """Give one page of a list."""
    if not 1 <= limit <= most:
        side, sign, edge = ("below minimum", ">=", 1) if limit < 1 else ("above maximum", "<=", most)
        message = f"Invalid 'limit': integer {side} value. Expected a value {sign} {edge}, but got {limit} instead."
        raise ApiError(400, message, param="limit", code=f"integer_{side[:9].replace(' ', '_')}_value")
    if order not in ("asc", "desc"):
        message = f"Invalid value: '{order}'. Supported values are: 'asc', and 'desc'."
        raise ApiError(400, message, param="order", code="invalid_value")
    ordered = list(items) if order == "asc" else list(reversed(items))
    ids = [item["id"] for item in ordered]
    if after is not None and after not in ids:
        raise ApiError(400, f"Item with id '{after}' not found.", param="after")
    start = 0 if after is None else ids.index(after) + 1
    data = ordered[start : start + limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": start + limit < len(ordered),
    }


def check_outputs(before: Iterable[Json], given: Any) -> None:
    """Raise when a function call has no output, or an output no call."""
    new = cast("list[Json]", given) if isinstance(given, list) else []
    items = [*before, *new]
    calls = {item.get("call_id") for item in items if item.get("type") == "function_call"}
    outputs = {item.get("call_id") for item in items if item.get("type") == "function_call_output"}
    for item in items:
        if item.get("type") == "function_call" and item.get("call_id") not in outputs:
            raise ApiError(400, f"No tool output found for function call {item.get('call_id')}.", param="input")
        if item.get("type") == "function_call_output" and item.get("call_id") not in calls:
            message = f"No tool call found for function call output with call_id {item.get('call_id')}."
            raise ApiError(400, message, param="input")


def _stored(item: Json, seed: str) -> Json:
    kind = item.get("type") or "message"
    digest = hashlib.sha256(seed.encode()).hexdigest()[:48]
    stored = {"id": f"{_PREFIX.get(kind, 'item')}_{digest}", "type": kind, "status": "completed"} | item
    if kind == "message" and isinstance(item.get("content"), str):
        part_type = "output_text" if item.get("role") == "assistant" else "input_text"
        part: Json = {"type": part_type, "text": item["content"]}
        stored["content"] = [part | ({"annotations": []} if part_type == "output_text" else {})]
    return stored
