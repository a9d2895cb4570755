"""Tool servers that nobody here wrote, as a toolbox's file names them, and a repository for one of them."""

import subprocess
from pathlib import Path
from typing import Any

from peer.environment import HERE, interpreter

REQUIREMENTS = HERE / "requirements-tools.txt"


def git_server(*arguments: str, **rules: Any) -> dict[str, Any]:
    return _entry("mcp_server_git", *arguments) | rules


def time_server(zone: str = "UTC") -> dict[str, Any]:
    return _entry("mcp_server_time", "--local-timezone", zone)


def make_repository(path: Path) -> Path:
    """A repository with a note that was not added."""
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    (path / "note.txt").write_text("a note")
    for key in ("user.name", "user.email"):
        git(path, "config", key, "test@example.org")
    return path


def git(repository: Path, *arguments: str) -> str:
    """What git itself says."""
    return subprocess.run(
        ["git", "-C", str(repository), *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _entry(module: str, *arguments: str) -> dict[str, Any]:
    return {"command": str(interpreter(REQUIREMENTS)), "args": ["-m", module, *arguments]}
