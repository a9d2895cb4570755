"""A host's file on the disk: found, read, backed up, and replaced in one step."""

import codecs
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from agent_jobs.errors import ConfigError
from agent_jobs.install.hosts import Host, Machine, Place
from agent_jobs.text_file import decode_text

Scope = Literal["user", "project"]


@dataclass(frozen=True, slots=True)
class Read:
    """What a file said when it was read; `raw` is None where there was none."""

    path: Path
    raw: bytes | None = None
    text: str = ""
    bom: bool = False


def locate(host: Host, machine: Machine, scope: Scope) -> Path:
    """The file in which this host looks for its servers.

    Raises:
        ConfigError: The host has no such file, or several that it may mean.
    """
    if scope == "project":
        if host.project is None:
            raise ConfigError(f"{host.title} has no file for a project: leave --scope out.")
        return machine.folder / host.project
    if host.user is None:
        raise ConfigError(f"{host.title} is not written to from here: use --print, and put that into {host.where}.")
    found = next(paths for place in host.user(machine) if (paths := _spelled_out(place)))
    if len(found) > 1:
        names = " and ".join(map(str, found))
        raise ConfigError(f"{host.title} may read {names}: use --print, and put that into the right one.")
    return found[0]


def read(path: Path) -> Read:
    """What the file says now.

    Raises:
        ConfigError: It cannot be read as text.
    """
    try:
        raw = path.read_bytes()
        text = decode_text(raw) if raw.startswith(codecs.BOM_UTF8) else raw.decode()
    except FileNotFoundError:
        return Read(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): correct that first.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8: save it as UTF-8 first.") from None
    return Read(path, raw, text, raw.startswith(codecs.BOM_UTF8))


def replace(before: Read, text: str) -> Path | None:
    """Put this text into the file that was read, in one step, and give the backup that was made beside it.

    Links are followed, the mode stays, a byte order mark does not, since many hosts read no file that has one, and a
    new file is readable by its owner alone.

    Raises:
        ConfigError: The disk does not take it, or the file was changed since it was read; it is as it was.
    """
    target = Path(os.path.realpath(before.path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(target, text.encode())
        try:
            if read(before.path).raw != before.raw:
                raise ConfigError(f"{before.path} was changed by another program just now: try again.")
            backup = _backed_up(target, before)
            os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as error:
        raise ConfigError(f"{before.path} cannot be written ({error.strerror}); it is as it was.") from None
    return backup


def _spelled_out(place: Place) -> list[Path]:
    """The paths that a place stands for here; where a * names several, one whose file exists goes before them."""
    if place.only_if is None:
        return [place.path]
    rest = place.path.relative_to(place.only_if)
    pattern = place.only_if.relative_to(place.only_if.anchor)
    found = [folder / rest for folder in sorted(Path(place.only_if.anchor).glob(str(pattern)))]
    return [path for path in found if path.is_file()] or found


def _beside(target: Path, content: bytes) -> str:
    """A file next to the target, on the disk, with the target's mode."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileNotFoundError):
        os.chmod(name, target.stat().st_mode & 0o7777)
    return name


def _backed_up(target: Path, before: Read) -> Path | None:
    """A copy of what was read, under the first number that is free."""
    if before.raw is None:
        return None
    mode = target.stat().st_mode & 0o7777
    numbered = (target.with_name(f"{target.name}.bak-{number}") for number in count(1))
    backup = next(path for path in numbered if not os.path.lexists(path))
    with os.fdopen(os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(before.raw)
    os.chmod(backup, mode)
    return backup
