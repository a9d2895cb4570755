"""Check the items and files that a create body refers to. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .errors import ApiError
from .parameters import as_object, read_list

__all__ = ["check_files", "check_items"]

Json = dict[str, Any]


def check_items(body: Mapping[str, Any], stored_ids: Callable[[], Iterable[str]]) -> None:
    """Raise if an item of the input is not stored, or a reasoning item lacks the item that followed it.

    The stored ids are listed only if an item refers to one.
    """
    items = read_list(body, "input")
    if orphan := _find_orphan(items):
        message = f"Item '{orphan.get('id')}' of type 'reasoning' was provided without its required following item."
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


def _find_orphan(items: Sequence[Json]) -> Json:
    """Return the first reasoning that no message or call of the model follows, also not behind more reasoning."""
    orphan: Json = {}
    following: Json = {}
    for item in reversed(items):
        if item.get("type") != "reasoning":
            following = item
        elif not _is_of_model(following):
            orphan = item
    return orphan


def _is_of_model(item: Json) -> bool:
    """Return True for a message or a call of the model, and for a reference, which may be either."""
    kind = str(item.get("type"))
    return kind.endswith("_call") or kind == "item_reference" or item.get("role") == "assistant"


def _list_input_files(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for index, item in enumerate(read_list(body, "input")):
        for field in ("content", "output"):
            for at, part in enumerate(read_list(item, field)):
                if "file_id" in as_object(part):
                    yield f"input[{index}].{field}[{at}].file_id", str(part["file_id"])
