"""Serve a git repository over MCP, read-only: the tools of the job of git_report.py.

agent-jobs starts it, as the toolbox file says: python git_server.py /path/to/repository
"""

import subprocess
import sys

from mcp.server import MCPServer
from mcp_types import ToolAnnotations

READS = ToolAnnotations(read_only_hint=True)
server = MCPServer("git", log_level="WARNING")


@server.tool(annotations=READS, structured_output=False)
def log(count: int = 20, path: str = ".") -> str:
    """Return the newest commits, one a line: id, day, author, subject; of one file or folder if you name it."""
    return git("log", f"-{max(1, min(count, 200))}", "--format=%h %as %an: %s", "--", path)


@server.tool(annotations=READS, structured_output=False)
def show(commit: str) -> str:
    """Return a commit by its id: its message, and what it changed."""
    return git("show", "--stat", "--patch", "--no-ext-diff", "--no-textconv", "--end-of-options", commit)


def git(*arguments: str) -> str:
    run = subprocess.run(
        ["git", "-C", sys.argv[1], "--no-pager", *arguments],
        capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return run.stdout if run.returncode == 0 else f"git said: {run.stderr.strip()}"


if __name__ == "__main__":
    server.run()
