"""The command line as a person runs it: on a terminal of some size, or into pipes."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent_jobs.cli.terminal import cells

COMMAND = [sys.executable, "-m", "agent_jobs"]
LIMIT_S = 40.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Terminal:
    """Where commands are run: an environment of their own, at one upstream and on one database."""

    base_url: str
    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE", "PYTHON"))}
        ours = {"OPENAI_API_KEY": "sk-secret-0123456789", "OPENAI_BASE_URL": self.base_url}
        mine = {"AGENT_JOBS_DATA_DIR": str(self.folder), "HOME": str(self.folder.parent)}
        return {**kept, **ours, **mine, "TERM": "xterm", **more}

    def pipe(self, *arguments: str, stdin: str = "", **more: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on pipes."""
        return subprocess.run(
            [*COMMAND, *arguments], input=stdin, capture_output=True, text=True, timeout=LIMIT_S, check=False,
            env=self.environment(**more), cwd=self.folder.parent,
        )  # fmt: skip

    def show(
        self, *arguments: str, columns: int = 80, stop: Callable[[str], bool] = lambda seen: False, **more: str
    ) -> "Shown":
        """Run a command on a terminal; Ctrl-C is pressed once `stop` holds of what was shown."""
        process, master = pty.fork()
        if process == 0:  # pragma: no cover
            os.chdir(self.folder.parent)
            os.execve(sys.executable, [*COMMAND, *arguments], self.environment(**more, COLUMNS="", LINES=""))
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        seen, until, stopped = b"", time.monotonic() + LIMIT_S, False
        try:
            while time.monotonic() < until:
                if not stopped and stop(seen.decode("utf-8", "replace")):
                    stopped = bool(os.write(master, b"\x03"))
                if not select.select([master], [], [], 0.05)[0]:
                    continue
                try:
                    read = os.read(master, 65536)
                except OSError:  # it ended
                    break
                if not read:
                    break
                seen += read
            else:
                os.kill(process, 9)
        finally:
            os.close(master)
        return Shown(seen.decode(), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


@dataclass(frozen=True)
class Shown:
    """What was written to a terminal, and how the command ended."""

    raw: str
    returncode: int

    @property
    def text(self) -> str:
        """Without what moves the cursor and colours, and without the keys that were pressed."""
        return ESCAPES.sub("", self.raw).replace("^C", "").replace("\r\n", "\n").replace("\r", "\n")

    @property
    def width(self) -> int:
        """Of the longest line."""
        return max(cells(line) for line in self.text.splitlines())

    @property
    def colours(self) -> bool:
        return re.search(r"\x1b\[(?:\d+;)*[349][0-7]m", self.raw) is not None
