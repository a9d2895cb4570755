"""What Claude Code keeps for one folder in the user's file: servers of the local scope, and what is switched off there.

`claude mcp add` writes into the local scope unless it is told otherwise, and that scope goes before all others.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from agent_jobs.install.entry import checked_entry, read_values
from agent_jobs.install.hosts import SERVER, Entry, Host, Machine

#: Of the servers of `.mcp.json`, and of all others.
_SWITCHED_OFF = ("disabledMcpServers", "disabledMcpjsonServers")


@dataclass(frozen=True, slots=True)
class LocalScope:
    """What a user's file says for this folder; `project` is its key there."""

    project: str = ""
    entry: Entry | None = None
    is_switched_off: bool = False


def local_scope(host: Host, text: str, machine: Machine) -> LocalScope:
    """Return what the text of the user's file says for the folder of this machine.

    Raises:
        ConfigError: The text cannot be read, or our entry is none.
    """
    if not host.has_local_scope:
        return LocalScope()
    projects = _object(_object(read_values(host, text)).get("projects"))
    folders = {_comparable(folder) for folder in _folders(machine)}
    here = {key: _object(project) for key, project in projects.items() if _comparable(key) in folders}
    off = any(SERVER in _list(project.get(name)) for project in here.values() for name in _SWITCHED_OFF)
    for key, project in here.items():
        entry = _object(project.get(host.keys[0])).get(SERVER)
        if entry is not None:
            return LocalScope(key, checked_entry(host, entry), off)
    return LocalScope(is_switched_off=off)


def _folders(machine: Machine) -> Iterator[str]:
    """The folders that Claude Code may take for the project: this one, or the repository that it lies in."""
    yield str(machine.folder)
    yield from (str(above) for above in machine.folder.parents if (above / ".git").exists())


def _comparable(folder: str) -> str:
    """Return a folder without links; on Windows Claude Code writes it with /."""
    return os.path.normcase(os.path.realpath(folder))


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
