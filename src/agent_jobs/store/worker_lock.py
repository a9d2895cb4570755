"""Who holds a job: a process, known by a lock that the operating system frees the moment it dies."""

import json
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, cast

from agent_jobs import file_lock

if sys.platform == "win32":  # pragma: no cover

    @contextmanager
    def alone(folder: Path) -> Generator[bool]:
        """Windows lets nobody remove what is open, so nothing has to be done alone there."""
        yield False
else:
    import fcntl

    @contextmanager
    def alone(folder: Path) -> Generator[bool]:
        """Whether we are the only process in here for this folder; some file systems lock no folders."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            locked = False
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                locked = True
            yield locked
        finally:
            os.close(descriptor)


class WorkerLock:
    """One process in a folder of locks: no heartbeat and no clock tell who lives, but the lock itself."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.name = f"{os.getpid()}-{token_hex(4)}"
        self._told: Mapping[str, Any] = {}
        self._descriptor = os.open(self._path(self.name), os.O_RDWR | os.O_CREAT, 0o600)
        file_lock.take(self._descriptor)

    def tell(self, told: Mapping[str, Any]) -> None:
        """Let the others read what this process does."""
        self._told = told
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        # Where locks are mandatory the first byte is: it says nothing.
        os.write(self._descriptor, b"\n" + json.dumps(told).encode() + b"\n")

    def others(self) -> dict[str, Mapping[str, Any]]:
        """What the other living processes told, by their names."""
        told: dict[str, Mapping[str, Any]] = {}
        for path in sorted(self._folder.glob("*.lock")):
            # One that has told nothing may be about to take its lock, which asking would take from it.
            if path.stem != self.name and (said := _said(path)) and not self.dead(path.stem):
                told[path.stem] = said
        return told

    def dead(self, name: str) -> bool:
        """Whether the process of that name is gone. Only ask for names read from a row: it is locked before."""
        try:
            descriptor = os.open(self._path(name), os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            file_lock.take(descriptor)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        self._path(name).unlink(missing_ok=True)
        return True

    def stay(self) -> None:
        """Take our lock anew if its file was removed: without it we would count as dead."""
        if self._path(self.name).exists():
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path(self.name), os.O_RDWR | os.O_CREAT, 0o600)
        file_lock.take(descriptor)
        os.close(self._descriptor)
        self._descriptor = descriptor
        if self._told:
            self.tell(self._told)

    def close(self) -> None:
        """Give the lock up, as death would."""
        self._path(self.name).unlink(missing_ok=True)
        os.close(self._descriptor)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"


def _said(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            file.seek(1)
            said = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return cast("Mapping[str, Any]", said) if isinstance(said, dict) else {}
