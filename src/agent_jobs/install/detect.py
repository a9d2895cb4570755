"""Find the hosts on this machine, and which of them start this server already."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agent_jobs.errors import ConfigError
from agent_jobs.install.config_file import locate_file, read_snapshot
from agent_jobs.install.entry import read_entry
from agent_jobs.install.hosts import HOSTS, Host
from agent_jobs.install.machine import Machine

#: The program of each host that has one on the PATH.
PROGRAMS = {
    "claude-desktop": "claude-desktop",
    "claude-code": "claude",
    "cursor": "cursor",
    "vscode": "code",
    "codex": "codex",
    "opencode": "opencode",
    "kilo": "kilo",
    "qwen": "qwen",
    "copilot-cli": "copilot",
    "gemini": "gemini",
    "antigravity": "antigravity",
    "windsurf": "windsurf",
    "zed": "zed",
    "goose": "goose",
}


class FoundHost(NamedTuple):
    """A host on this machine."""

    host: Host
    path: Path | None  #: the user's file, None if this program does not write it
    is_installed: bool  #: its file has our entry


def find_hosts(machine: Machine) -> Iterator[FoundHost]:
    """Yield the hosts that are on this machine, by their programs, files and folders."""
    for host in HOSTS.values():
        path = _locate_file(host, machine)
        if _has_program(host, machine) or (path is not None and _has_traces(path, machine)):
            yield FoundHost(host, path, path is not None and _has_entry(host, path))


def _locate_file(host: Host, machine: Machine) -> Path | None:
    if host.user is None:
        return None
    with suppress(ConfigError):
        return locate_file(host, machine, "user")
    return None


def _has_program(host: Host, machine: Machine) -> bool:
    program = PROGRAMS.get(host.name)
    return program is not None and shutil.which(program, path=machine.environ.get("PATH", "")) is not None


def _has_traces(path: Path, machine: Machine) -> bool:
    """Return True if the host's file is there, or the folder that only this host makes."""
    return path.is_file() or (path.parent != machine.home and path.parent.is_dir())


def _has_entry(host: Host, path: Path) -> bool:
    with suppress(ConfigError):
        return read_entry(host, read_snapshot(path).text) is not None
    return False
