"""Containers, in which responses run their code, the files in them, and their endpoints."""

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from .errors import ApiError
from .files import Files
from .run import Clock
from .tool_items import Container
from .wire import Exchange

__all__ = ["Containers"]

Json = dict[str, Any]


@dataclass
class _Kept:
    card: Json
    active_s: float
    files: dict[str, tuple[Json, bytes]] = field(default_factory=dict[str, tuple[Json, bytes]])

    def add(self, name: str, content: bytes, source: str) -> str:
        id = f"cfile_{secrets.token_hex(16)}"
        card = {
            "id": id,
            "object": "container.file",
            "bytes": len(content),
            "container_id": self.card["id"],
            "created_at": int(time.time()),
            "path": f"/mnt/data/{name}",
            "source": source,
        }
        self.files[id] = (card, content)
        return id


class Containers:
    """The containers of an emulator; one that nobody looks into for a while is gone, with its files."""

    def __init__(self, files: Files, clock: Clock, idle_s: float) -> None:
        self._uploads = files
        self._clock = clock
        self._idle_s = idle_s
        self._kept: dict[str, _Kept] = {}

    def clear(self) -> None:
        """Forget them all."""
        self._kept.clear()

    def forget(self, id: str) -> None:
        """Lose a container, as an expired one is lost."""
        self._find(id)
        del self._kept[id]

    def check(self, body: Mapping[str, Any]) -> None:
        """Raise when a create body names a container or a file for one that is not there."""
        for index, given in _wanted(body):
            where = f"tools[{index}].container"
            if isinstance(given, str):
                self._find(given, where)
                continue
            missing = self._uploads.unknown(given.get("file_ids") or ())
            if missing:
                # The error is known to be a 400, its words are ours.
                raise ApiError(400, f"Files not found: {', '.join(missing)}.", param=f"{where}.file_ids")

    def open(self, body: Mapping[str, Any], made: Iterable[Json]) -> Container | None:
        """Give the container a response runs its code in, with the files that its script makes there."""
        made = list(made)
        given = next((given for _, given in _wanted(body)), None)
        if given is None and not made:
            return None
        kept = self._find(given) if isinstance(given, str) else self._new(given or {})
        files = [(kept.add(file["filename"], file["text"].encode(), "assistant"), file["filename"]) for file in made]
        return Container(kept.card["id"], files)

    async def retrieve(self, exchange: Exchange) -> None:
        """Answer GET /containers/{id}."""
        await exchange.json(self._named(exchange).card)

    async def delete(self, exchange: Exchange) -> None:
        """Answer DELETE /containers/{id}."""
        id = self._named(exchange).card["id"]
        del self._kept[id]
        await exchange.json({"id": id, "object": "container.deleted", "deleted": True})

    async def list_files(self, exchange: Exchange) -> None:
        """Answer GET /containers/{id}/files."""
        await exchange.json(exchange.page([card for card, _ in self._named(exchange).files.values()]))

    async def retrieve_file(self, exchange: Exchange) -> None:
        """Answer GET /containers/{id}/files/{file_id}."""
        card, _ = self._file(exchange)
        await exchange.json(card)

    async def download(self, exchange: Exchange) -> None:
        """Answer GET /containers/{id}/files/{file_id}/content."""
        _, content = self._file(exchange)
        await exchange.binary(content)

    def _new(self, asked: Json) -> _Kept:
        now = int(time.time())
        card: Json = {
            "id": f"cntr_{secrets.token_hex(24)}",
            "object": "container",
            "created_at": now,
            "last_active_at": now,
            "status": "running",
            "name": "auto",
            "memory_limit": asked.get("memory_limit", "1g"),
            "expires_after": {"anchor": "last_active_at", "minutes": int(self._idle_s // 60)},
        }
        kept = _Kept(card, self._clock.now())
        for id in asked.get("file_ids") or ():
            name, content = self._uploads.named(id)
            kept.add(f"{id}-{name}", content, "user")
        self._kept[card["id"]] = kept
        return kept

    def _named(self, exchange: Exchange) -> _Kept:
        return self._find(exchange.request.path_params["container_id"])

    def _file(self, exchange: Exchange) -> tuple[Json, bytes]:
        kept, id = self._named(exchange), exchange.request.path_params["file_id"]
        if id not in kept.files:
            raise ApiError(404, f"File {id} not found on container {kept.card['id']}.")
        return kept.files[id]

    def _find(self, id: str, param: str | None = None) -> _Kept:
        kept, now_s = self._kept.get(id), self._clock.now()
        if kept is None or now_s > kept.active_s + self._idle_s:
            raise ApiError(404, f"Container with id '{id}' not found.", param=param)
        kept.active_s = now_s
        return kept


def _wanted(body: Mapping[str, Any]) -> list[tuple[int, str | Json]]:
    """Give the container of each code interpreter in a create body, and the tool's place there."""
    tools = enumerate(cast("list[Json]", body.get("tools") or []))
    return [(index, tool["container"]) for index, tool in tools if tool["type"] == "code_interpreter"]
