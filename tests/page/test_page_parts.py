"""The page's scripts are those that their authors released, and no other command loads the page."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Packages that only the page needs.
ONLY_OF_THE_PAGE = {"agent_jobs.page", "jinja2", "nh3"}


def test_vendored_scripts_are_those_of_the_list() -> None:
    checked = subprocess.run([sys.executable, "scripts/vendor"], cwd=ROOT, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_server_and_the_other_commands_load_nothing_of_the_page() -> None:
    script = (
        "import importlib, pkgutil, sys, agent_jobs.cli, agent_jobs.mcp_server.server, agent_jobs.mcp_server.stdio\n"
        "for found in pkgutil.iter_modules(agent_jobs.cli.__path__):\n"
        "    importlib.import_module(f'agent_jobs.cli.{found.name}')\n"
        "print(*sys.modules)"
    )
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not ONLY_OF_THE_PAGE & set(listed.stdout.split())
