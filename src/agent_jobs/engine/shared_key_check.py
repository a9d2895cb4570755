"""Refuse ids of the provider that may belong to another owner, where all owners share one key.

With one key, a conversation, a vector store or a file belongs to every program that knows its id.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from agent_jobs.errors import Argument, RequestError
from agent_jobs.jobs.response import JSON
from agent_jobs.request.options import StartOptions
from agent_jobs.store.base import Store

ID_CHARS = 80  # of an id that are repeated in an error
#: Endings of the names of fields with an id.
_ID_ENDINGS = ("_id", "_ids")
#: Options with such names that contain no id of the provider.
_HARMLESS = frozenset({"connector_id"})
#: An id of the provider's in a field of this name is a string; everything else in it is no id.
_ID_OR_FORM = "container"


async def check_shared_ids(store: Store, options: StartOptions, lent: JSON) -> None:
    """Refuse options with ids that may belong to another owner.

    Args:
        store: The jobs of the owner.
        options: Of the start.
        lent: Options of the operator's preset, which may name any id.

    Raises:
        RequestError: An id is not that of the owner's own jobs.
    """
    conversation = options.conversation
    is_chosen = isinstance(conversation, str) and lent.get("conversation") != conversation
    if is_chosen and not await store.has_conversation(str(conversation)):
        raise RequestError("There is no conversation {id!r}.", "no_such_conversation", id=str(conversation)[:ID_CHARS])
    lent_ids = set(_walk_ids(lent))
    for provider_id in _walk_ids(options.upstream):
        if provider_id not in lent_ids:
            raise RequestError(
                "{name} name {id!r}, which may be another owner's.",
                "shared_id",
                name=Argument("options.tools"),
                id=provider_id[:ID_CHARS],
            )


def _walk_ids(value: Any, field: str = "") -> Iterator[str]:
    """Yield the provider's ids in a part of a request."""
    match value:
        case Mapping():
            for name, each in cast("Mapping[str, Any]", value).items():
                yield from _walk_ids(each, name)
        case list():
            for each in cast("list[Any]", value):
                yield from _walk_ids(each, field)
        case str() if _holds_id(field):
            yield value
        case _:
            pass


def _holds_id(field: str) -> bool:
    return field == _ID_OR_FORM or (field.endswith(_ID_ENDINGS) and field not in _HARMLESS)
