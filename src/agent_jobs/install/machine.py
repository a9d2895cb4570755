"""Describe this machine to the hosts' entries: its system, folders and environment, and the command that starts us."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that decides where files are. `platform` is as in `sys.platform`, `folder` is the project's."""

    platform: str
    home: Path
    environ: Mapping[str, str]
    folder: Path

    def find_folder(self, name: str, otherwise: Path) -> Path:
        """Return the folder that a variable names, if it names one."""
        value = self.environ.get(name, "").strip()
        return Path(value or otherwise)

    @property
    def roaming(self) -> Path:
        """Return the folder of Windows' %APPDATA%."""
        return self.find_folder("APPDATA", self.home / "AppData/Roaming")

    @property
    def config(self) -> Path:
        """Return the folder in which applications keep their settings."""
        if self.platform == "win32":
            return self.roaming
        if self.platform == "darwin":
            return self.home / "Library/Application Support"
        return self.find_folder("XDG_CONFIG_HOME", self.home / ".config")


@dataclass(frozen=True, slots=True)
class Launch:
    """The command that starts this server."""

    command: str
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file that a host reads. `only_if` may hold a * and must exist, else the next file is taken."""

    path: Path
    only_if: Path | None = None
