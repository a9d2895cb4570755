"""Read Claude Code's entries for one folder in the user's file: servers of the local scope, and disabled servers.

`claude mcp add` writes into the local scope by default, and that scope goes before all others.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from agent_jobs.install.entry import check_entry, read_values
from agent_jobs.install.hosts import SERVER, Entry, Host
from agent_jobs.install.machine import Machine

#: The lists of disabled servers: all others, and those of `.mcp.json`.
_DISABLED_LISTS = ("disabledMcpServers", "disabledMcpjsonServers")


@dataclass(frozen=True, slots=True)
class LocalScope:
    """Our entry for this folder in a user's file; `project` is the folder's key there."""

    project: str = ""
    entry: Entry | None = None
    is_switched_off: bool = False


def find_local_scope(host: Host, text: str, machine: Machine) -> LocalScope:
    """Return our entry for the folder of this machine in the text of the user's file.

    Raises:
        ConfigError: The text cannot be read, or our entry is none.
    """
    if not host.has_local_scope:
        return LocalScope()
    projects = _object_or_empty(_object_or_empty(read_values(host, text)).get("projects"))
    folders = {_normalize_folder(folder) for folder in _list_project_folders(machine)}
    here = {key: _object_or_empty(project) for key, project in projects.items() if _normalize_folder(key) in folders}
    off = any(SERVER in list_or_empty(project.get(name)) for project in here.values() for name in _DISABLED_LISTS)
    for key, project in here.items():
        entry = _object_or_empty(project.get(host.keys[0])).get(SERVER)
        if entry is not None:
            return LocalScope(key, check_entry(host, entry), off)
    return LocalScope(is_switched_off=off)


def _list_project_folders(machine: Machine) -> Iterator[str]:
    """Yield the folders that may be the project for Claude Code: this one, and the repositories around it."""
    yield str(machine.folder)
    yield from (str(above) for above in machine.folder.parents if (above / ".git").exists())


def _normalize_folder(folder: str) -> str:
    """Return a folder without links and in one spelling; on Windows Claude Code writes it with /."""
    return os.path.normcase(os.path.realpath(folder))


def _object_or_empty(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    return {}


def list_or_empty(value: Any) -> list[Any]:
    """Return the value if it is a list; an empty list in place of anything else."""
    if isinstance(value, list):
        return cast("list[Any]", value)
    return []
