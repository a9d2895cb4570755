"""Conversations: lists of items that responses read and append to."""

import secrets
import time
from collections.abc import Iterator
from typing import Any, cast

from .errors import ApiError
from .items import input_items, page
from .run import Run
from .wire import Exchange

__all__ = ["Conversations", "conversation_id"]

Json = dict[str, Any]

_MOST = 20  # items added in one request


def conversation_id(body: Json) -> str | None:
    """Give the conversation a create body names."""
    given: Any = body.get("conversation")
    return cast("Json", given).get("id") if isinstance(given, dict) else given


class Conversations:
    """The conversations of an emulator, and their endpoints."""

    def __init__(self) -> None:
        self._cards: dict[str, Json] = {}
        self._items: dict[str, list[Json]] = {}
        self._holders: dict[str, Run] = {}

    def clear(self) -> None:
        """Forget them all."""
        self._cards.clear()
        self._items.clear()
        self._holders.clear()

    def forget(self, id: str) -> None:
        """Lose a conversation with its items."""
        self._find(id)
        del self._cards[id], self._items[id]

    def item_ids(self) -> Iterator[str]:
        """Give the ids of all items."""
        return (item["id"] for items in self._items.values() for item in items)

    def items(self, id: str) -> list[Json]:
        """Give a conversation's items, unless a response is running on it."""
        self._find(id)
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
        """Keep others off a conversation while a response runs on it."""
        self._holders[id] = run

    def last(self, id: str) -> Run | None:
        """Give the response that ran on a conversation last."""
        return self._holders.get(id)

    def append(self, id: str, run: Run) -> None:
        """Add what a completed response was asked and what it answered."""
        if id in self._items and run.status == "completed":
            self._items[id] += [*input_items(run.body.get("input"), run.id), *run.output]

    async def create(self, exchange: Exchange) -> None:
        """Answer POST /conversations."""
        body = exchange.body()
        id = f"conv_{secrets.token_hex(24)}"
        card = {
            "id": id,
            "object": "conversation",
            "created_at": int(time.time()),
            "metadata": body.get("metadata", {}),
        }
        self._items[id] = _added(body, id)
        self._cards[id] = card
        await exchange.json(card)

    async def retrieve(self, exchange: Exchange) -> None:
        """Answer GET /conversations/{id}."""
        await exchange.json(self._find(_named(exchange)))

    async def update(self, exchange: Exchange) -> None:
        """Answer POST /conversations/{id}."""
        card = self._find(_named(exchange))
        card["metadata"] = exchange.body().get("metadata", {})
        await exchange.json(card)

    async def delete(self, exchange: Exchange) -> None:
        """Answer DELETE /conversations/{id}."""
        id = _named(exchange)
        self.forget(id)
        await exchange.json({"id": id, "object": "conversation.deleted", "deleted": True})

    async def list_items(self, exchange: Exchange) -> None:
        """Answer GET /conversations/{id}/items."""
        id = self._find(_named(exchange))["id"]
        await exchange.json(exchange.page(self._items[id]))

    async def add_items(self, exchange: Exchange) -> None:
        """Answer POST /conversations/{id}/items."""
        id = self._find(_named(exchange))["id"]
        added = _added(exchange.body(), f"{id}:{len(self._items[id])}")
        self._items[id] += added
        await exchange.json(page(added, limit=100, order="asc", after=None))

    async def retrieve_item(self, exchange: Exchange) -> None:
        """Answer GET /conversations/{id}/items/{item_id}."""
        await exchange.json(self._item(exchange))

    async def delete_item(self, exchange: Exchange) -> None:
        """Answer DELETE /conversations/{id}/items/{item_id}; what it gives is the conversation."""
        card = self._find(_named(exchange))
        self._items[card["id"]].remove(self._item(exchange))
        await exchange.json(card)

    def _item(self, exchange: Exchange) -> Json:
        id, item_id = self._find(_named(exchange))["id"], exchange.request.path_params["item_id"]
        found = next((item for item in self._items[id] if item["id"] == item_id), None)
        if found is None:
            raise ApiError(404, f"Conversation item with id '{item_id}' not found.")
        return found

    def _find(self, id: str) -> Json:
        if id not in self._cards:
            raise ApiError(404, f"Conversation with id '{id}' not found.")
        return self._cards[id]


def _named(exchange: Exchange) -> str:
    return exchange.request.path_params["conversation_id"]


def _added(body: Json, owner_id: str) -> list[Json]:
    given = cast("list[Json]", body.get("items") or [])
    if len(given) > _MOST:
        message = (
            f"Invalid 'items': array too long. Expected an array with maximum length {_MOST}, but got an array with"
            f" length {len(given)} instead."
        )
        raise ApiError(400, message, param="items", code="array_above_max_length")
    return input_items(given, owner_id)
