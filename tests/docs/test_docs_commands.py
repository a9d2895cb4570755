"""Every command that a page tells to type is typed here, or it is said why not; those with an output are captured."""

import re
from collections.abc import Generator
from pathlib import Path

import pytest
from machine import KEY, Machine, machine

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS_CONTAINERS = "it needs a container engine; test_team_compose.py reads the files"
#: What is not typed here, and why.
ELSEWHERE = {
    "uvx --from . agent-jobs demo": "docs/start.md shows what it prints, so test_captures.py runs it",
    "uv run scripts/test": "this is a part of it",
    "docker build -t agent-jobs .": "it needs Docker and a network; test_package.py reads the Dockerfile",
    "docker run -i --rm -e OPENAI_API_KEY -v agent-jobs-data:/data agent-jobs": "it needs the image",
    "uv tool install 'agent-jobs[team]'": "it needs a package index",
    "agent-jobs db upgrade": "it needs a PostgreSQL database; test_cli_db.py upgrades one",
    "agent-jobs import ~/.local/share/agent-jobs --dry-run": "so does this; test_job_import.py imports",
    "agent-jobs import ~/.local/share/agent-jobs": "so does this; test_job_import.py imports",
    "agent-jobs serve --http": "it serves until it is stopped; test_team_replicas.py starts it",
    "agent-jobs serve --http --host 0.0.0.0 --port 8000": "so does this; test_team_http.py has its refusals",
    "agent-jobs serve --http --host 0.0.0.0": "and this",
    'agent-jobs token add alice --note "laptop"': "the command is tested with its options",
    'agent-jobs token add alice --note "laptop" --expires 90d': "so is this",
    "agent-jobs token list": "and this",
    "agent-jobs token revoke tok_0123456789ab": "its argument is another's",
