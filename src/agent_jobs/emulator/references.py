"""Checks the items and files that a create body refers to. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from .errors import ApiError
from .parameters import as_object, read_list

__all__ = ["check_files", "check_items"]

Json = dict[str, Any]


def check_items(body: Mapping[str, Any], stored_ids: Callable[[], Iterable[str]]) -> None:
    """Raise if an item of the input is not stored, or a reasoning item lacks the item that followed it.

    The stored ids are listed only if an item refers to one.
    """
    items = read_list(body, "input")
    for index, item in enumerate(items):
        if item.get("type") == "reasoning" and not _has_following_item(items[index + 1 :]):
            message = f"Item '{item.get('id')}' of type 'reasoning' was provided without its required following item."
            raise ApiError(400, message, param="input")
    wanted = [str(item["id"]) for item in items if _needs_stored_item(item)]
    if not wanted:
        return
    known = frozenset(stored_ids())
    for id in wanted:
        if id not in known:
            raise ApiError(
                404,
                f"Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try again with"
                " `store` set to true, or remove this item from your input.",
                param="input",
            )


def check_files(body: Mapping[str, Any], unknown: Callable[[Iterable[str]], list[str]]) -> None:
    """Raise if a file that the input names does not exist."""
    for where, id in _list_input_files(body):
        if unknown([id]):
            # OpenAI refuses an unknown file; the message is not OpenAI's.
            raise ApiError(400, f"The file '{id}' was not found.", param=where)


def _needs_stored_item(item: Json) -> bool:
    match item:
        case {"id": _, "type": "item_reference"}:
            return True
        case {"id": _, "type": "reasoning"}:
            return not item.get("encrypted_content")
        case _:
            return False


def _has_following_item(after: Iterable[Json]) -> bool:
    """Return True if a message or call of the model follows, also behind more reasoning."""
    following = next((item for item in after if item.get("type") != "reasoning"), cast("Json", {}))
    kind = str(following.get("type"))
    return kind.endswith("_call") or kind == "item_reference" or following.get("role") == "assistant"


def _list_input_files(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for index, item in enumerate(read_list(body, "input")):
        for field in ("content", "output"):
            for at, part in enumerate(read_list(item, field)):
                if "file_id" in as_object(part):
                    yield f"input[{index}].{field}[{at}].file_id", str(part["file_id"])
