"""Keep conversations: lists of items that responses read and append to."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

from .errors import ApiError
from .items import build_page, list_input_items
from .parameters import as_object, read_list
from .run import Run
from .wire import Exchange

__all__ = ["Conversations", "find_conversation_id"]

Json = dict[str, Any]

_ITEMS_PER_REQUEST = 20  # OpenAI's limit for items added in one request


def find_conversation_id(body: Json) -> str:
    """Return the id of the conversation that a create body names; an empty one if it names none."""
    given = body.get("conversation")
    if isinstance(given, str):
        return given
    return as_object(given).get("id", "")


class Conversations:
    """The conversations of an emulator, and their endpoints."""

    def __init__(self) -> None:
        self._cards: dict[str, Json] = {}
        self._items: dict[str, list[Json]] = {}
        self._holders: dict[str, Run] = {}

    def clear(self) -> None:
        """Delete all of them."""
        self._cards.clear()
        self._items.clear()
        self._holders.clear()

    def forget(self, id: str) -> None:
        """Delete a conversation with its items."""
        self._find_card(id)
        del self._cards[id], self._items[id]

    def list_item_ids(self) -> Iterator[str]:
        """Return the ids of all items."""
        return (item["id"] for items in self._items.values() for item in items)

    def items(self, id: str) -> list[Json]:
        """Return a conversation's items, unless a response is running on it."""
        self._find_card(id)
        holder = self._holders.get(id)
        if holder is not None and not holder.ended:
            raise ApiError(
                400,
                "Another process is currently operating on this conversation. Please retry in a few seconds.",
                param="conversation",
                code="conversation_locked",
            )
        return self._items[id]

    def hold(self, id: str, run: Run) -> None:
        """Reserve a conversation for a response while it runs."""
        self._holders[id] = run

    def find_last_run(self, id: str) -> Run | None:
        """Return the response that ran on a conversation last."""
        return self._holders.get(id)

    def append(self, id: str, run: Run) -> None:
        """Add the input and the output of a completed response, if that ran on a conversation."""
        if id in self._items and run.status == "completed":
            self._items[id] += [*list_input_items(run.body.get("input"), run.id), *run.output]

    async def create(self, exchange: Exchange) -> None:
        """Answer POST /conversations."""
        body = exchange.read_body()
        id = f"conv_{secrets.token_hex(24)}"
        card = {
            "id": id,
            "object": "conversation",
            "created_at": int(time.time()),
            "metadata": body.get("metadata", {}),
        }
        self._items[id] = _read_new_items(body, id)
        self._cards[id] = card
        await exchange.send_json(card)

    async def retrieve(self, exchange: Exchange) -> None:
        """Answer GET /conversations/{id}."""
        await exchange.send_json(self._find_card(_read_conversation_id(exchange)))

    async def update(self, exchange: Exchange) -> None:
        """Answer POST /conversations/{id}."""
        card = self._find_card(_read_conversation_id(exchange))
        card["metadata"] = exchange.read_body().get("metadata", {})
        await exchange.send_json(card)

    async def delete(self, exchange: Exchange) -> None:
        """Answer DELETE /conversations/{id}."""
        id = _read_conversation_id(exchange)
        self.forget(id)
        await exchange.send_json({"id": id, "object": "conversation.deleted", "deleted": True})

    async def list_items(self, exchange: Exchange) -> None:
        """Answer GET /conversations/{id}/items."""
        id = self._find_card(_read_conversation_id(exchange))["id"]
        await exchange.send_json(exchange.read_page(self._items[id]))

    async def add_items(self, exchange: Exchange) -> None:
        """Answer POST /conversations/{id}/items."""
        id = self._find_card(_read_conversation_id(exchange))["id"]
        added = _read_new_items(exchange.read_body(), f"{id}:{len(self._items[id])}")
        self._items[id] += added
        await exchange.send_json(build_page(added, limit=100, order="asc", after=None))

    async def retrieve_item(self, exchange: Exchange) -> None:
        """Answer GET /conversations/{id}/items/{item_id}."""
        await exchange.send_json(self._find_requested_item(exchange))

    async def delete_item(self, exchange: Exchange) -> None:
        """Answer DELETE /conversations/{id}/items/{item_id} with the conversation."""
        card = self._find_card(_read_conversation_id(exchange))
        self._items[card["id"]].remove(self._find_requested_item(exchange))
        await exchange.send_json(card)

    def _find_requested_item(self, exchange: Exchange) -> Json:
        id, item_id = self._find_card(_read_conversation_id(exchange))["id"], exchange.request.path_params["item_id"]
        found = next((item for item in self._items[id] if item["id"] == item_id), None)
        if found is None:
            raise ApiError(404, f"Conversation item with id '{item_id}' not found.")
        return found

    def _find_card(self, id: str) -> Json:
        if id not in self._cards:
            raise ApiError(404, f"Conversation with id '{id}' not found.")
        return self._cards[id]


def _read_conversation_id(exchange: Exchange) -> str:
    return exchange.request.path_params["conversation_id"]


def _read_new_items(body: Json, owner_id: str) -> list[Json]:
    given = read_list(body, "items")
    if len(given) > _ITEMS_PER_REQUEST:
        message = (
            f"Invalid 'items': array too long. Expected an array with maximum length {_ITEMS_PER_REQUEST}, but got an"
            f" array with length {len(given)} instead."
        )
        raise ApiError(400, message, param="items", code="array_above_max_length")
    return list_input_items(given, owner_id)
