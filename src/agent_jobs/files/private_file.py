"""Write files that only their owner can read, each in one step and by one process at a time."""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from agent_jobs.errors import ConfigError
from agent_jobs.files import file_lock
from agent_jobs.files.atomic_file import PRIVATE_MODE, replace_file

PRIVATE_FOLDER_MODE = 0o700
LOCK_WAIT_S = 5.0  # another writer needs milliseconds, so one that needs longer is stuck
LOCK_RETRY_S = 0.02  # a person does not notice this delay


def write_private(path: Path, text: str) -> None:
    """Put this text into a file that only its owner can read. Its folder is made, and a link is followed.

    Raises:
        ConfigError: It cannot be written. The file is as it was.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
        replace_file(target, text.encode(), mode=PRIVATE_MODE, keeps_mode=False)
    except OSError as error:
        raise _refuse_writing(path, error) from None


@contextmanager
def lock_writers(path: Path) -> Generator[None]:
    """Keep other processes that write this file waiting. The lock is a file beside it, which stays.

    Raises:
        ConfigError: Another process holds the lock for longer than a write takes, or the folder cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, PRIVATE_MODE)
    except OSError as error:
        raise _refuse_writing(path, error) from None
    try:
        _wait_for_lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, path: Path) -> None:
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return file_lock.take(descriptor)
        except OSError:
            if time.monotonic() > until:
                raise ConfigError(f"Another process is writing {path}. End it, then try again.") from None
        time.sleep(LOCK_RETRY_S)


def _refuse_writing(path: Path, error: OSError) -> ConfigError:
    reason = error.strerror or error
    return ConfigError(f"{path} cannot be written ({reason}) and is unchanged. Make its folder writable.")
