"""Read the files of one call within the limits of a request."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent_jobs.attachments.attachment import (
    DATA_TYPES,
    HEAD_BYTES,
    NEVER_EMPTY,
    Attachment,
    Kind,
    is_private_key,
    recognize,
    suffix_of,
)
from agent_jobs.attachments.decoding import decode_file
from agent_jobs.attachments.path_names import Names, printable_path
from agent_jobs.attachments.protected_files import RefusedFileError, secret_error, unreadable_error
from agent_jobs.attachments.roots import Root, WalkLimits
from agent_jobs.errors import RequestError
from agent_jobs.text import human_size

#: Text: about a million tokens, which is a whole context window, and well under the 10,485,760 characters that the API
#: accepts in one text. Image: the API's documented limit for one. PDF: all that fits into the total.
LIMIT_BYTES: dict[Kind, int] = {"text": 4 * 2**20, "image": 20 * 2**20, "pdf": 32 * 2**20, "data": 64 * 2**20}
#: The total in the request. Base64 makes 45 MB of it; the API accepts 50 MB of files and has refused images above that.
INLINE_BYTES = 32 * 2**20
UPLOAD_BYTES = 128 * 2**20  # the total of uploads, which are held in memory until they are sent
MAX_FILES = 500  # more file names than a model can use


@dataclass
class _Room:
    """The room that is left for files, which several kinds may share."""

    left_bytes: int


class FileReader:
    """The files that were read, each once, and the room that is left for more."""

    def __init__(self, *, upload: bool) -> None:
        self.limits = WalkLimits()
        self.second_limits = WalkLimits()  # for names that are almost the same
        self._upload = upload
        self._limits = dict(LIMIT_BYTES)
        self._never_empty = NEVER_EMPTY | DATA_TYPES.keys()
        if not upload:
            del self._limits["data"]
            self._never_empty = NEVER_EMPTY
        inline = _Room(INLINE_BYTES)
        self._rooms: Mapping[Kind, _Room] = {
            "text": inline,
            "image": inline,
            "pdf": inline,
            "data": _Room(UPLOAD_BYTES),
        }
        self._read: dict[Path, tuple[Root, Attachment]] = {}

    def add(self, root: Root, names: Names, *, named: bool) -> None:
        """Read a file, unless it was read before.

        Args:
            root: The root that it lies below.
            names: Its real names.
            named: Whether the caller named it, and not only a glob or a folder.

        Raises:
            RefusedFileError: It cannot be attached.
            RequestError: It is too large, or one too many.
        """
        path = root.real.joinpath(*names)
        if path in self._read:
            return
        try:
            attachment = self._read_attachment(root, names, named=named)
        except OSError as error:
            raise unreadable_error(names, error) from None
        if len(self._read) == MAX_FILES:
            raise RequestError("A job accepts at most {most} files.", "too_many_files", most=MAX_FILES)
        self._read[path] = root, attachment

    def recognize_data(self, name: str, data: bytes) -> Attachment:
        """Return a file that was uploaded as an attachment.

        Raises:
            RefusedFileError: It cannot be attached.
            RequestError: It is too large, or one too many.
        """
        names = (name,)
        _require_size(names, len(data), max(self._limits.values()), "that any file may have")
        kind, media_type = self._recognize_file(names, data[:HEAD_BYTES], named=True)
        return self._accept_data(names, kind, media_type, data, named=True)

    def list_attachments(self) -> list[Attachment]:
        """Return all files. Files of the same name under different roots are prefixed with the root's own name."""
        counts = Counter(attachment.name for _, attachment in self._read.values())
        attachments: dict[str, Attachment] = {}
        for root, attachment in self._read.values():
            name = attachment.name
            if counts[name] > 1:
                name = f"{printable_path((root.real.name,))}/{name}"
            number = 1
            while name in attachments:  # roots may have the same name too
                number += 1
                name = f"{printable_path((root.real.name,))}-{number}/{attachment.name}"
            attachments[name] = replace(attachment, name=name)
        return list(attachments.values())

    def _read_attachment(self, root: Root, names: Names, *, named: bool) -> Attachment:
        with root.open_file(names) as file:
            size = os.fstat(file.fileno()).st_size
            if named:
                # A file that is too large for any kind is refused before a byte is read.
                _require_size(names, size, max(self._limits.values()), "that any file may have")
            head = file.read(HEAD_BYTES)
            kind, media_type = self._recognize_file(names, head, named=named)
            self._require_room(names, size, kind)
            # A file may grow while it is read, and files of /proc have no size at all.
            data = head + file.read(self._limits[kind] + 1 - len(head))
        return self._accept_data(names, kind, media_type, data, named=named)

    def _accept_data(self, names: Names, kind: Kind, media_type: str, data: bytes, *, named: bool) -> Attachment:
        """Return the attachment of a file that was read, if there is room for it."""
        self._require_room(names, len(data), kind)
        if kind == "text" and decode_file(data) is None:
            kind, media_type = self._accept_binary(names, named=named)
        self._rooms[kind].left_bytes -= len(data)
        return Attachment(printable_path(names), kind, media_type, data)

    def _require_room(self, names: Names, size: int, kind: Kind) -> None:
        _require_size(names, size, self._limits[kind], f"that a file of kind {kind} may have")
        _require_size(names, size, self._rooms[kind].left_bytes, "that the files before it leave")

    def _recognize_file(self, names: Names, head: bytes, *, named: bool) -> tuple[Kind, str]:
        if is_private_key(head):
            raise secret_error(names)
        suffix = suffix_of(names[-1])
        if not head and suffix in self._never_empty:
            path = printable_path(names)
            raise RefusedFileError("{path} is empty (0 bytes).", "broken_file", reason="empty", path=path)
        recognized = recognize(names[-1], head, upload=self._upload)
        if suffix == ".pdf":
            _require_pdf(names, recognized)
        return recognized or self._accept_binary(names, named=named)

    def _accept_binary(self, names: Names, *, named: bool) -> tuple[Kind, str]:
        if named and self._upload:
            return "data", "application/octet-stream"
        raise RefusedFileError(
            "{path} is a binary file that no model can read.",
            "binary_file",
            reason="binary",
            path=printable_path(names),
        )


def _require_pdf(names: Names, recognized: tuple[Kind, str] | None) -> None:
    if recognized is not None and recognized[0] in ("pdf", "image"):
        return
    raise RefusedFileError(
        "{path} is not a PDF, since it does not begin with %PDF.",
        "broken_file",
        reason="PDF by name only",
        path=printable_path(names),
    )


def _require_size(names: Names, size: int, limit: int, reason: str) -> None:
    if size > limit:
        raise RequestError(
            "{path} has {size}, which is more than the {most} {reason}.",
            "file_too_large",
            path=printable_path(names),
            size=human_size(size),
            most=human_size(limit),
            reason=reason,
        )
