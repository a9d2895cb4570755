"""Find a host's file, read it, back it up, and replace it in one step."""

import codecs
import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from agent_jobs.errors import ConfigError
from agent_jobs.files.atomic_file import PRIVATE_MODE, write_temporary_file
from agent_jobs.files.text_file import decode_text
from agent_jobs.install.hosts import Host
from agent_jobs.install.machine import HostFile, Machine

Scope = Literal["user", "project"]


@dataclass(frozen=True, slots=True)
class FileSnapshot:
    """A file as it was read; `raw` is None if there was no file."""

    path: Path
    raw: bytes | None = None
    text: str = ""
    bom: bool = False


def locate_file(host: Host, machine: Machine, scope: Scope) -> Path:
    """Return the file with this host's servers.

    Raises:
        ConfigError: The host has no such file, or several.
    """
    if scope == "project":
        if host.project is None:
            raise ConfigError(f"{host.title} has no file for a project. Leave out --scope.")
        return machine.folder / host.project
    if host.user is None:
        raise ConfigError(
            f"agent-jobs does not write the file of {host.title}. Use --print, and put the entry into {host.where}."
        )
    found = next(paths for file in host.user(machine) if (paths := _expand_file(file)))
    if len(found) > 1:
        names = " and ".join(map(str, found))
        raise ConfigError(f"{host.title} may read {names}. Use --print, and put the entry into the right one.")
    return found[0]


def read_snapshot(path: Path) -> FileSnapshot:
    """Return the file as it is now.

    Raises:
        ConfigError: The file cannot be read as text.
    """
    try:
        raw = path.read_bytes()
        if raw.startswith(codecs.BOM_UTF8):
            return FileSnapshot(path, raw, decode_text(raw), bom=True)
        return FileSnapshot(path, raw, raw.decode())
    except FileNotFoundError:
        return FileSnapshot(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). Make it readable, then try again.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8. Save it as UTF-8, then try again.") from None


def write_replacement(before: FileSnapshot, text: str) -> Path | None:
    """Put this text into the file that was read, in one step, and return the path of the backup beside it.

    Links are followed and the mode stays. A byte order mark is removed, because many hosts read no file that has one.
    A new file is readable by its owner alone.

    Raises:
        ConfigError: The file cannot be written, or another program changed it since it was read. It is unchanged.
    """
    target = Path(os.path.realpath(before.path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = write_temporary_file(target, text.encode(), mode=PRIVATE_MODE)
        try:
            if read_snapshot(before.path).raw != before.raw:
                raise ConfigError(f"{before.path} was changed by another program just now. Try again.")
            backup = _back_up(target, before)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{before.path} cannot be written ({error.strerror}) and is unchanged. Fix that, then try again."
        ) from None
    return backup


def _expand_file(file: HostFile) -> list[Path]:
    """Return the paths of a file; if its * matches several folders, those in which the file exists."""
    if file.only_if is None:
        return [file.path]
    rest = file.path.relative_to(file.only_if)
    pattern = file.only_if.relative_to(file.only_if.anchor)
    found = [folder / rest for folder in sorted(Path(file.only_if.anchor).glob(str(pattern)))]
    return [path for path in found if path.is_file()] or found


def _back_up(target: Path, before: FileSnapshot) -> Path | None:
    """Write a copy of the old content under the first free number, and return its path."""
    if before.raw is None:
        return None
    mode = target.stat().st_mode & 0o7777
    numbered = (target.with_name(f"{target.name}.bak-{number}") for number in count(1))
    backup = next(path for path in numbered if not os.path.lexists(path))
    with os.fdopen(os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(before.raw)
    os.chmod(backup, mode)
    return backup
