"""Open files below a folder that the user released to callers: nothing that lies outside of it is listed or read.

A path is first followed to its real place. If that is below the root, it is opened from the root down, name by name,
with no link followed on the way. If a process swaps a folder for a link in between, the call fails.
"""

import os
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agent_jobs.attachments.path_names import Names, printable_path
from agent_jobs.attachments.protected_files import RefusedFileError, unreadable_error
from agent_jobs.errors import ConfigError, RequestError

#: A call has to answer within seconds, which limits the entries that its patterns examine and their time.
WALK_ENTRIES = 100_000
WALK_S = 10.0

# Flags that Windows lacks change nothing there.
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_PATH", 0)
# Opening a FIFO would wait for a writer, and a terminal would become ours.
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | _WITHOUT_WAITING


class WalkLimits:
    """The limits of entries and time for all patterns of one call."""

    def __init__(self) -> None:
        self._entries = WALK_ENTRIES
        self._until = time.monotonic() + WALK_S

    def count_entries(self, folder: Names, number: int = 1) -> None:
        """Count more entries.

        Raises:
            RequestError: They are too many, or it takes too long.
        """
        self._entries -= number
        if self._entries < 0 or time.monotonic() > self._until:
            where = printable_path(folder)
            raise RequestError("There are too many files below {folder!r}.", "too_many_entries", folder=where)


@dataclass(frozen=True, slots=True)
class Root:
    """One folder of AGENT_JOBS_FILE_ROOTS: as the user wrote it, and its real path."""

    written: Path
    real: Path

    @classmethod
    def of(cls, folder: Path) -> "Root":
        """Return the root at a folder.

        Raises:
            ConfigError: The folder does not exist.
        """
        real = Path(os.path.realpath(folder))
        if not os.path.isdir(real):
            raise ConfigError(
                "AGENT_JOBS_FILE_ROOTS names {folder}, which is not a folder.", "file_roots_gone", folder=folder
            )
        return cls(folder, real)

    def find_names_below(self, path: Path) -> Names | None:
        """Return the names of a path below this root, None if it is written to lie elsewhere."""
        if not path.is_absolute():
            return path.parts
        for base in (self.written, self.real):
            if path.is_relative_to(base):
                return path.relative_to(base).parts
        return None

    def resolve(self, names: Names) -> Names:
        """Return the real place of the names, with every link followed, whether a file is there or not.

        Raises:
            RefusedFileError: A link leads out of the root. The error does not reveal whether a file is there.
        """
        try:
            real = Path(os.path.realpath(self.real.joinpath(*names)))
        except OSError as error:  # a link that disappeared while it was followed
            raise unreadable_error(names, error) from None
        if not real.is_relative_to(self.real):
            raise RefusedFileError(
                "{path} leaves {root} through a link.",
                "link_leaves_root",
                reason="behind links that leave the folder",
                path=printable_path(names),
                root=printable_path((str(self.written),)),
            )
        return real.relative_to(self.real).parts

    @contextmanager
    def open_file(self, names: Names) -> Generator[BinaryIO]:
        """Open a regular file below the root without following any link and without waiting.

        Raises:
            RefusedFileError: It is not a regular file, or this process may not read it.
        """
        try:
            descriptor = self._open_descriptor(names)
        except OSError as error:
            raise unreadable_error(names, error) from None
        with os.fdopen(descriptor, "rb") as file:
            require_regular_file(names, os.fstat(descriptor))
            yield file

    def _open_descriptor(self, names: Names) -> int:
        if os.open not in os.supports_dir_fd:  # pragma: no cover  (Windows; not run there)
            return os.open(self.real.joinpath(*names), _FILE)
        folder = os.open(self.real, _FOLDER)
        try:
            for name in names[:-1]:
                folder, above = os.open(name, _FOLDER, dir_fd=folder), folder
                os.close(above)
            # Opening a device can already have an effect, so check first.
            require_regular_file(names, os.stat(names[-1], dir_fd=folder, follow_symlinks=False))
            return os.open(names[-1], _FILE, dir_fd=folder)
        finally:
            os.close(folder)


def require_regular_file(names: Names, found: os.stat_result) -> None:
    """Refuse an entry that is not a regular file.

    Raises:
        RefusedFileError: It is a folder, a device, a pipe, a socket or a link.
    """
    if stat.S_ISREG(found.st_mode):
        return
    kind = "a device, a pipe, a socket or a link"
    if stat.S_ISDIR(found.st_mode):
        kind = "a folder"
    raise RefusedFileError(
        "{path} is {kind} and not a file.",
        "not_a_file",
        reason="no regular files",
        path=printable_path(names),
        kind=kind,
    )
