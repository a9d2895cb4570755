"""Name third-party tool servers as a toolbox file does, and make a repository for one of them."""

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
    """Make a repository with a note that was not added."""
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    (path / "note.txt").write_text("a note")
    for key in ("user.name", "user.email"):
        git(path, "config", key, "test@example.org")
    return path


def git(repository: Path, *arguments: str) -> str:
    """Run git, and return its output."""
    return subprocess.run(
        ["git", "-C", str(repository), *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _entry(module: str, *arguments: str) -> dict[str, Any]:
    return {"command": str(interpreter(REQUIREMENTS)), "args": ["-m", module, *arguments]}
