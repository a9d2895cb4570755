"""The command line as a person runs it: on a terminal of some size, or into pipes."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fork_server import COMMAND, Process, can_fork, control_terminal, run
from rich.cells import cell_len

KEY = "sk-secret-0123456789"
LIMIT_S = 100.0
#: The end of the question for a key. `getpass` prints its space after it discarded what was typed before, Ctrl-C too.
HIDDEN_QUESTION = "(not shown): "
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Terminal:
    """An environment for commands, with one upstream and one database."""

    base_url: str
    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "PYTHON"))}
        ours = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": self.base_url}
        mine = {"AGENT_JOBS_DATA_DIR": str(self.folder), "HOME": str(self.folder.parent)}
        return {**kept, **ours, **mine, "TERM": "xterm", **more}

    def pipe(self, *arguments: str, stdin: str = "", **more: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on pipes."""
        command, environment = [*COMMAND, *arguments], self.environment(**more)
        return run(command, input=stdin, timeout=LIMIT_S, env=environment, cwd=self.folder.parent)

    def show(
        self,
        *arguments: str,
        columns: int = 80,
        stop: Callable[[str], bool] = lambda seen: False,
        keys: str = "\x03",
        **more: str,
    ) -> "Shown":
        """Run a command on a terminal; Ctrl-C, or other keys, are pressed once `stop` holds of what was shown."""
        environment = self.environment(**more, COLUMNS="", LINES="")
        return on_terminal([*COMMAND, *arguments], environment, self.folder.parent, columns, stop, keys)


def on_terminal(
    command: list[str],
    environment: Mapping[str, str],
    folder: Path,
    columns: int,
    stop: Callable[[str], bool],
    keys: str = "\x03",
) -> "Shown":
    """Run a program in a folder on a terminal; Ctrl-C or other keys are pressed once `stop` holds of what is shown."""
    process, master = _start_on_terminal(command, environment, folder, columns)
    seen, until, stopped = b"", time.monotonic() + LIMIT_S, 0
    try:
        while time.monotonic() < until:
            if not stopped and stop(seen.decode("utf-8", "replace")):
                stopped = len(seen)
                os.write(master, keys.encode())
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
            process.kill()
    finally:
        os.close(master)
    return Shown(seen.decode(), process.wait(), seen[:stopped].decode())


def _start_on_terminal(
    command: list[str], environment: Mapping[str, str], folder: Path, columns: int
) -> "tuple[subprocess.Popen[str], int]":
    """Start a program as the leader of a session with a terminal of its own; returns it and the terminal's end."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))  # before the program asks
    try:
        process = Process(
            command, env=environment, cwd=folder, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=None if can_fork(command, environment) else control_terminal,
        )  # fmt: skip
    finally:
        os.close(slave)
    return process, master


@dataclass(frozen=True)
class Shown:
    """The output on a terminal, and the exit status of the command."""

    raw: str
    returncode: int
    stopped_at: str = ""  #: what had been written when Ctrl-C was pressed

    @property
    def text(self) -> str:
        """Without what moves the cursor and colours, and without the keys that were pressed."""
        return ESCAPES.sub("", self.raw).replace("^C", "").replace("\r\n", "\n").replace("\r", "\n")

    @property
    def one_line(self) -> str:
        """Return the text on one line, since sentences are wrapped."""
        return " ".join(self.text.split())

    @property
    def width(self) -> int:
        """Return the width of the longest line."""
        return max(cell_len(line) for line in self.text.splitlines())

    @property
    def colours(self) -> bool:
        return re.search(r"\x1b\[(?:\d+;)*[349][0-7]m", self.raw) is not None


CONTROL = re.compile(r"\x1b\[(?P<count>\d*)(?P<what>[AKJ])|\x1b\[[?\d;]*[mhl]|[\r\n]|[^\x1b\r\n]+")


def screen(raw: str) -> str:
    """Return the screen of a wide terminal after all of the output."""
    lines, row, column = [""], 0, 0
    for found in CONTROL.finditer(raw):
        match found["what"] or found[0]:
            case "A":
                row = max(0, row - int(found["count"] or 1))
            case "K":
                assert found["count"] == "2", f"not known: {found[0]!r}"
                lines[row] = ""
            case "J":
                del lines[row + 1 :]
                lines[row] = lines[row][:column]
            case "\r":
                column = 0
            case "\n":
                row += 1
                lines += [""] * (row == len(lines))
            case text if not text.startswith("\x1b"):
                line = lines[row].ljust(column)
                lines[row], column = line[:column] + text + line[column + len(text) :], column + len(text)
            case _:
                pass  # colours and the cursor's look
    assert "\x1b" not in "".join(lines)
    return "\n".join(line.rstrip() for line in lines).rstrip("\n")
