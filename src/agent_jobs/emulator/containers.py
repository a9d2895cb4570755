"""Keep the containers in which responses run their code, with their files, and serve their endpoints."""

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ApiError
from .files import Files
from .parameters import read_list
from .run import Clock
from .tool_items import Container
from .wire import Exchange

__all__ = ["Containers"]

Json = dict[str, Any]


@dataclass
class _KeptContainer:
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
    """The containers of an emulator; one that no request uses for a while expires, with its files."""

    def __init__(self, files: Files, clock: Clock, idle_s: float) -> None:
        self._uploads = files
        self._clock = clock
        self._idle_s = idle_s
        self._kept: dict[str, _KeptContainer] = {}

    def clear(self) -> None:
        """Delete all of them."""
        self._kept.clear()

    def forget(self, id: str) -> None:
        """Delete a container, as if it had expired."""
        self._find_container(id)
        del self._kept[id]

    def check(self, body: Mapping[str, Any]) -> None:
        """Raise if a create body names a container, or a file for one, that does not exist."""
        for index, given in _list_container_settings(body):
            where = f"tools[{index}].container"
            if isinstance(given, str):
                self._find_container(given, where)
                continue
            missing = self._uploads.find_unknown(read_list(given, "file_ids"))
            if missing:
                # OpenAI answers 400; the message is not OpenAI's.
                raise ApiError(400, f"Files not found: {', '.join(missing)}.", param=f"{where}.file_ids")

    def open(self, body: Mapping[str, Any], made: Iterable[Json]) -> Container | None:
        """Return the container that a response runs its code in, with the files that its script writes there."""
        made = list(made)
        given = next((given for _, given in _list_container_settings(body)), None)
        if given is None and not made:
            return None
        kept = self._open_container(given)
        files = [(kept.add(file["filename"], file["text"].encode(), "assistant"), file["filename"]) for file in made]
        return Container(kept.card["id"], files)

    async def retrieve(self, exchange: Exchange) -> None:
        """Answer GET /containers/{id}."""
        await exchange.send_json(self._find_requested_container(exchange).card)

    async def delete(self, exchange: Exchange) -> None:
        """Answer DELETE /containers/{id}."""
        id = self._find_requested_container(exchange).card["id"]
        del self._kept[id]
        await exchange.send_json({"id": id, "object": "container.deleted", "deleted": True})

    async def list_files(self, exchange: Exchange) -> None:
        """Answer GET /containers/{id}/files."""
        await exchange.send_json(
            exchange.read_page([card for card, _ in self._find_requested_container(exchange).files.values()])
        )

    async def retrieve_file(self, exchange: Exchange) -> None:
        """Answer GET /containers/{id}/files/{file_id}."""
        card, _ = self._find_requested_file(exchange)
        await exchange.send_json(card)

    async def download(self, exchange: Exchange) -> None:
        """Answer GET /containers/{id}/files/{file_id}/content."""
        _, content = self._find_requested_file(exchange)
        await exchange.send_binary(content)

    def _open_container(self, given: str | Json | None) -> _KeptContainer:
        if isinstance(given, str):
            return self._find_container(given)
        return self._create_container(given or {})

    def _create_container(self, asked: Json) -> _KeptContainer:
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
        kept = _KeptContainer(card, self._clock.now())
        for id in read_list(asked, "file_ids"):
            name, content = self._uploads.read_file(id)
            kept.add(f"{id}-{name}", content, "user")
        self._kept[card["id"]] = kept
        return kept

    def _find_requested_container(self, exchange: Exchange) -> _KeptContainer:
        return self._find_container(exchange.request.path_params["container_id"])

    def _find_requested_file(self, exchange: Exchange) -> tuple[Json, bytes]:
        kept, id = self._find_requested_container(exchange), exchange.request.path_params["file_id"]
        if id not in kept.files:
            raise ApiError(404, f"File {id} not found on container {kept.card['id']}.")
        return kept.files[id]

    def _find_container(self, id: str, param: str | None = None) -> _KeptContainer:
        kept, now_s = self._kept.get(id), self._clock.now()
        if kept is None or now_s > kept.active_s + self._idle_s:
            raise ApiError(404, f"Container with id '{id}' not found.", param=param)
        kept.active_s = now_s
        return kept


def _list_container_settings(body: Mapping[str, Any]) -> list[tuple[int, str | Json]]:
    """Return the container of each code interpreter in a create body, with the tool's index there."""
    tools = enumerate(read_list(body, "tools"))
    return [(index, tool["container"]) for index, tool in tools if tool["type"] == "code_interpreter"]
