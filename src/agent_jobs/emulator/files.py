"""Keep uploaded files and serve their endpoints."""

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
_EXPIRY_S = (3600, 2_592_000)  # the least and the most that OpenAI accepts
_FILES_PER_PAGE = 10_000  # OpenAI's limit


@dataclass
class _StoredFile:
    card: Json
    content: bytes
    until_s: float
    deleted: bool = False


class Files:
    """The files of an emulator. Deleted files stay in the log, but are never served again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stored: dict[str, _StoredFile] = {}

    def clear(self) -> None:
        """Delete all of them."""
        self._stored.clear()

    def log(self) -> list[Json]:
        """Return an entry for each upload, with its hash instead of its content."""
        return [
            {
                "entry": "file",
                **{name: stored.card[name] for name in ("id", "filename", "purpose", "bytes")},
                "sha256": hashlib.sha256(stored.content).hexdigest(),
                "deleted": stored.deleted,
            }
            for stored in self._stored.values()
        ]

    def count_left(self) -> int:
        """Count the files that were not deleted and did not expire."""
        return sum(map(self._is_kept, self._stored.values()))

    def find_unknown(self, ids: Iterable[str]) -> list[str]:
        """Return the ids that name no file."""
        return [id for id in ids if id not in self._stored or not self._is_kept(self._stored[id])]

    def read_file(self, id: str) -> tuple[str, bytes]:
        """Return the name and the content of a file."""
        stored = self._find_upload(id)
        return stored.card["filename"], stored.content

    async def upload(self, exchange: Exchange) -> None:
        """Answer POST /files."""
        content, filename, fields = await _read_form(exchange)
        purpose = _read_purpose(fields)
        lasts_s = _read_expiry_s(fields)
        now = int(time.time())
        expires_at, until_s = None, math.inf
        if lasts_s is not None:
            expires_at, until_s = now + lasts_s, self._clock.now() + lasts_s
        card: Json = {
            "id": f"file-{secrets.token_hex(12)}",
            "object": "file",
            "bytes": len(content),
            "created_at": now,
            "expires_at": expires_at,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        self._stored[card["id"]] = _StoredFile(card, content, until_s)
        exchange.entry["file_id"] = card["id"]
        await exchange.send_json(card)

    async def list_files(self, exchange: Exchange) -> None:
        """Answer GET /files."""
        purpose = exchange.request.query_params.get("purpose")
        living = [stored.card for stored in self._stored.values() if self._is_kept(stored)]
        asked = [card for card in living if purpose in (None, card["purpose"])]
        await exchange.send_json(exchange.read_page(asked, usual=_FILES_PER_PAGE, most=_FILES_PER_PAGE))

    async def retrieve(self, exchange: Exchange) -> None:
        """Answer GET /files/{id}."""
        await exchange.send_json(self._find_requested_upload(exchange).card)

    async def download(self, exchange: Exchange) -> None:
        """Answer GET /files/{id}/content."""
        await exchange.send_binary(self._find_requested_upload(exchange).content)

    async def delete(self, exchange: Exchange) -> None:
        """Answer DELETE /files/{id}."""
        stored = self._find_requested_upload(exchange)
        stored.deleted = True
        await exchange.send_json({"id": stored.card["id"], "object": "file", "deleted": True})

    def _is_kept(self, stored: _StoredFile) -> bool:
        return not stored.deleted and self._clock.now() < stored.until_s

    def _find_requested_upload(self, exchange: Exchange) -> _StoredFile:
        return self._find_upload(exchange.request.path_params["file_id"])

    def _find_upload(self, id: str) -> _StoredFile:
        if self.find_unknown([id]):
            raise ApiError(404, f"No such File object: {id}", param="id")
        return self._stored[id]


async def _read_form(exchange: Exchange) -> tuple[bytes, str, Json]:
    try:
        async with exchange.request.form() as form:
            given = form.get("file")
            if not isinstance(given, UploadFile):
                raise ApiError(400, "'file' is a required property")
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            return await given.read(), given.filename or "upload", fields
    except HTTPException as error:
        raise ApiError(400, error.detail) from None


def _read_purpose(fields: Json) -> str:
    purpose = fields.get("purpose")
    if purpose is None:
        raise ApiError(400, "'purpose' is a required property")
    if purpose not in _PURPOSES:
        raise ApiError(400, f"'{purpose}' is not one of {list(_PURPOSES)} - 'purpose'")
    return purpose


def _read_expiry_s(fields: Json) -> int | None:
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
