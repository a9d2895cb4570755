"""What a create body refers to: items and files that upstream must still have. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from .errors import ApiError

__all__ = ["check_files", "check_items"]

Json = dict[str, Any]


def check_items(body: Mapping[str, Any], stored_ids: Callable[[], Iterable[str]]) -> None:
    """Raise when an item of the input is not stored, or a reasoning item lacks what it led to.

    The stored ids are asked for only where an item has to be looked up.
    """
    items = _input(body)
    for index, item in enumerate(items):
        if item.get("type") == "reasoning" and not _leads_on(items[index + 1 :]):
            message = f"Item '{item.get('id')}' of type 'reasoning' was provided without its required following item."
            raise ApiError(400, message, param="input")
    wanted = [str(item["id"]) for item in items if _is_looked_up(item)]
    known = frozenset(stored_ids()) if wanted else frozenset[str]()
    for id in wanted:
        if id not in known:
            raise ApiError(
                404,
                f"Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try again with"
                " `store` set to true, or remove this item from your input.",
                param="input",
            )


def check_files(body: Mapping[str, Any], unknown: Callable[[Iterable[str]], list[str]]) -> None:
    """Raise when a file that the input names is not there."""
    for where, id in _input_files(body):
        if unknown([id]):
            # That a file must exist is known, the words are ours.
            raise ApiError(400, f"The file '{id}' was not found.", param=where)


def _input(body: Mapping[str, Any]) -> list[Json]:
    given = body.get("input")
    return cast("list[Json]", given) if isinstance(given, list) else []


def _is_looked_up(item: Json) -> bool:
    kind = item.get("type")
    by_id = kind == "reasoning" and not item.get("encrypted_content")
    return "id" in item and (by_id or kind == "item_reference")


def _leads_on(after: Iterable[Json]) -> bool:
    """Tell whether a message or call of the model follows, more reasoning between or not."""
    following = next((item for item in after if item.get("type") != "reasoning"), cast("Json", {}))
    kind = str(following.get("type") or "message")
    return kind.endswith("_call") or kind == "item_reference" or following.get("role") == "assistant"


def _input_files(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for index, item in enumerate(_input(body)):
        for field in ("content", "output"):
            parts = item.get(field)
            for at, part in enumerate(cast("list[Any]", parts) if isinstance(parts, list) else []):
                if isinstance(part, dict) and "file_id" in part:
                    yield f"input[{index}].{field}[{at}].file_id", str(cast("Json", part)["file_id"])
