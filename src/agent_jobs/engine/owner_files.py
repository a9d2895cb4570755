"""The files of owners: what they upload for jobs, and what their runs made. All of them are in the database."""

import re
from collections.abc import Sequence
from secrets import token_hex

from agent_jobs.clock import Clock
from agent_jobs.errors import RequestError
from agent_jobs.store.base import Store
from agent_jobs.store.team_records import ShelvedFile, StoredFile

UPLOAD_BYTES = 32 * 2**20  # all that fits into a request
OWNER_BYTES = 256 * 2**20  # of an owner's uploads of a day: a database is no file store
MADE_BYTES = 64 * 2**20  # of a file that a run made
KEPT_S = 86_400.0  # an upload is attached within a day, or never
UPLOAD_PREFIX = "upload:"
MADE_PREFIX = "made"
MADE_PATH = "/files/"  # of such a file on the team server, before its id
_UPLOAD = re.compile(rf"{UPLOAD_PREFIX}(?P<id>up_[0-9a-f]{{32}})")
MAX_ECHOED_CHARS = 60  # of a file that is not known


class OwnerFiles:
    """The files of the owner to whom the store is bound."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def upload(self, name: str, data: bytes) -> tuple[str, float] | None:
        """Store a file; return its word for `files` and when it is deleted. None if the owner has no room left."""
        now = self._clock.now()
        file = ShelvedFile(f"up_{token_hex(16)}", name, data)
        if not await self._store.add_shelved_file(file, now, since=now - KEPT_S, room=OWNER_BYTES):
            return None
        return f"{UPLOAD_PREFIX}{file.id}", now + KEPT_S

    async def read(self, file_id: str) -> StoredFile | None:
        """Return a file that was uploaded or made by a run; None if it is gone, or another owner's."""
        if file_id.startswith(MADE_PREFIX):
            return await self._store.find_made_file(file_id)
        return await self._store.find_shelved_file(file_id, self._clock.now() - KEPT_S)

    async def read_made(self, path: str) -> StoredFile | None:
        """Return a file that a run made, by its path; None if it is on a disk, or gone."""
        if not path.startswith(MADE_PATH):
            return None
        return await self._store.find_made_file(path.removeprefix(MADE_PATH))

    async def find_uploads(self, words: Sequence[str]) -> list[StoredFile]:
        """Return the uploads that a start names.

        Raises:
            RequestError: A word names no upload of the owner.
        """
        return [await self._find_named_upload(word) for word in dict.fromkeys(words)]

    async def _find_named_upload(self, word: str) -> StoredFile:
        match = _UPLOAD.fullmatch(word.strip())
        file = None
        if match is not None:
            file = await self._store.find_shelved_file(match["id"], self._clock.now() - KEPT_S)
        if file is None:
            raise RequestError("There is no upload {given!r}.", "no_upload", given=word[:MAX_ECHOED_CHARS])
        return file


def create_made_id() -> str:
    """Return an unguessable id for a file that a run made."""
    return f"{MADE_PREFIX}_{token_hex(16)}"
