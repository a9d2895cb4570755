"""Write files in full or not at all: a reader sees the old file or the new one, also after a crash."""

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

#: Mode of a new file that only its owner may read.
PRIVATE_MODE = 0o600
#: Mode of a new file before the umask.
SHARED_MODE = 0o666


def replace_file(path: Path, content: bytes, *, mode: int = SHARED_MODE, keeps_mode: bool = True) -> None:
    """Put this content into a file in one step. A file that exists keeps its mode, unless `keeps_mode` is False.

    Raises:
        OSError: The file cannot be written, and is unchanged.
    """
    temporary = write_temporary_file(path, content, mode=mode, keeps_mode=keeps_mode)
    try:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_temporary_file(target: Path, content: bytes, *, mode: int, keeps_mode: bool = True) -> Path:
    """Write a file next to the target and return its path once it is on the disk.

    It has the mode of the target; without a target, or if `keeps_mode` is False, it has this mode less the umask.

    Raises:
        OSError: It cannot be written, and does not exist.
    """
    temporary = target.with_name(f".{token_hex(8)}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keeps_mode:
            with suppress(FileNotFoundError):
                temporary.chmod(target.stat().st_mode & 0o7777)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
