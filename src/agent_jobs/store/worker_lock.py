"""Show which processes are alive: each locks a file, and the operating system frees the lock of a dead process."""

import json
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from agent_jobs.files import file_lock
from agent_jobs.jobs.response import mapping_of

if sys.platform == "win32":  # pragma: no cover

    @contextmanager
    def folder_lock(folder: Path) -> Generator[bool]:
        """Yield False: Windows refuses to remove open files, so that nothing needs this lock there."""
        yield False
else:
    import fcntl

    @contextmanager
    def folder_lock(folder: Path) -> Generator[bool]:
        """Lock a folder among processes; yield False if its file system cannot lock folders."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            is_locked = False
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                is_locked = True
            yield is_locked
        finally:
            os.close(descriptor)


class WorkerLock:
    """The lock of this process in a folder of locks. It needs no heartbeat and no clock."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.name = f"{os.getpid()}-{token_hex(4)}"
        self._announced: Mapping[str, Any] = {}
        self._descriptor = os.open(self._lock_path(self.name), os.O_RDWR | os.O_CREAT, 0o600)
        file_lock.take(self._descriptor)

    def announce(self, announced: Mapping[str, Any]) -> None:
        """Let the other processes read what this one does."""
        self._announced = announced
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        # The first byte is empty: where locks are mandatory, other processes cannot read it.
        os.write(self._descriptor, b"\n" + json.dumps(announced).encode() + b"\n")

    def list_others(self) -> dict[str, Mapping[str, Any]]:
        """Return what the other living processes announced, by their names."""
        found: dict[str, Mapping[str, Any]] = {}
        for path in sorted(self._folder.glob("*.lock")):
            # A process without an announcement may be about to take its lock; testing the lock would take it away.
            if path.stem != self.name and (announced := _read_announcement(path)) and not self.is_dead(path.stem):
                found[path.stem] = announced
        return found

    def is_dead(self, name: str) -> bool:
        """Return True if the process of that name is gone. Only ask for names from a row, which are locked before."""
        try:
            descriptor = os.open(self._lock_path(name), os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            file_lock.take(descriptor)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        self._lock_path(name).unlink(missing_ok=True)
        return True

    def restore_file(self) -> None:
        """Create and lock our file again if it was removed: without it this process would count as dead."""
        if self._lock_path(self.name).exists():
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._lock_path(self.name), os.O_RDWR | os.O_CREAT, 0o600)
        file_lock.take(descriptor)
        os.close(self._descriptor)
        self._descriptor = descriptor
        if self._announced:
            self.announce(self._announced)

    def close(self) -> None:
        """Release the lock, as the process's death would."""
        self._lock_path(self.name).unlink(missing_ok=True)
        os.close(self._descriptor)

    def _lock_path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"


def _read_announcement(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            file.seek(1)
            announced = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return mapping_of(announced)
