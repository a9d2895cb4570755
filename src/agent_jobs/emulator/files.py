"""Uploaded files and their endpoints."""

import hashlib
import math
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from .errors import ApiError
from .run import Clock
from .wire import Exchange

__all__ = ["Files"]

Json = dict[str, Any]

_PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
_EXPIRY_S = (3600, 2_592_000)
_MOST = 10_000  # files on a page


@dataclass
class _Stored:
    card: Json
    content: bytes
    until_s: float
    deleted: bool = False


class Files:
    """The files of an emulator. What was deleted is remembered, but never given again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stored: dict[str, _Stored] = {}

    def clear(self) -> None:
        """Forget them all."""
        self._stored.clear()

    def log(self) -> list[Json]:
        """Tell what was uploaded and whether it was deleted, without its content."""
        return [
            {
                "entry": "file",
                **{name: stored.card[name] for name in ("id", "filename", "purpose", "bytes")},
                "sha256": hashlib.sha256(stored.content).hexdigest(),
                "deleted": stored.deleted,
            }
            for stored in self._stored.values()
        ]

    def left(self) -> int:
        """Count the files that nobody deleted and that did not expire."""
        return sum(map(self._lives, self._stored.values()))

    def unknown(self, ids: Iterable[str]) -> list[str]:
        """Give those ids that name no file."""
        return [id for id in ids if id not in self._stored or not self._lives(self._stored[id])]

    def named(self, id: str) -> tuple[str, bytes]:
        """Give the name and the content of a file."""
        stored = self._find(id)
        return stored.card["filename"], stored.content

    async def upload(self, exchange: Exchange) -> None:
        """Answer POST /files."""
        content, filename, fields = await _form(exchange)
        purpose = _purpose(fields)
        lasts_s = _expiry_s(fields)
        now = int(time.time())
        card: Json = {
            "id": f"file-{secrets.token_hex(12)}",
            "object": "file",
            "bytes": len(content),
            "created_at": now,
            "expires_at": None if lasts_s is None else now + lasts_s,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        until_s = math.inf if lasts_s is None else self._clock.now() + lasts_s
        self._stored[card["id"]] = _Stored(card, content, until_s)
        exchange.entry["file_id"] = card["id"]
        await exchange.json(card)

    async def listing(self, exchange: Exchange) -> None:
        """Answer GET /files."""
        purpose = exchange.request.query_params.get("purpose")
        living = [stored.card for stored in self._stored.values() if self._lives(stored)]
        await exchange.json(exchange.page([card for card in living if purpose in (None, card["purpose"])], most=_MOST))

    async def retrieve(self, exchange: Exchange) -> None:
        """Answer GET /files/{id}."""
        await exchange.json(self._named(exchange).card)

    async def download(self, exchange: Exchange) -> None:
        """Answer GET /files/{id}/content."""
        await exchange.binary(self._named(exchange).content)

    async def delete(self, exchange: Exchange) -> None:
        """Answer DELETE /files/{id}."""
        stored = self._named(exchange)
        stored.deleted = True
        await exchange.json({"id": stored.card["id"], "object": "file", "deleted": True})

    def _lives(self, stored: _Stored) -> bool:
        return not stored.deleted and self._clock.now() < stored.until_s

    def _named(self, exchange: Exchange) -> _Stored:
        return self._find(exchange.request.path_params["file_id"])

    def _find(self, id: str) -> _Stored:
        if self.unknown([id]):
            raise ApiError(404, f"No such File object: {id}", param="id")
        return self._stored[id]


async def _form(exchange: Exchange) -> tuple[bytes, str, Json]:
    try:
        async with exchange.request.form() as form:
            given = form.get("file")
            if not isinstance(given, UploadFile):
                raise ApiError(400, "'file' is a required property")
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            return await given.read(), given.filename or "upload", fields
    except HTTPException as error:
        raise ApiError(400, error.detail) from None


def _purpose(fields: Json) -> str:
    purpose = fields.get("purpose")
    if purpose is None:
        raise ApiError(400, "'purpose' is a required property")
    if purpose not in _PURPOSES:
        raise ApiError(400, f"'{purpose}' is not one of {list(_PURPOSES)} - 'purpose'")
    return purpose


def _expiry_s(fields: Json) -> int | None:
    given = fields.get("expires_after[seconds]")
    if given is None:
        return None
    low, high = _EXPIRY_S
    if not given.isdecimal() or not low <= int(given) <= high:
        message = (
            f"Invalid 'expires_after.seconds': expected an integer from {low} to {high}, but got '{given}' instead."
        )
        raise ApiError(400, message, param="expires_after.seconds", code="invalid_value")
    return int(given)
