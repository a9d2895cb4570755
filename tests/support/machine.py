"""A person's machine, on which the commands of the pages are typed."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fork_client
from fork_server import listening
from terminals import Shown, on_terminal, screen

from agent_jobs import __version__
from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.script import Script, read_question
from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.emulator.wire import Exchange

#: Emulated seconds in a second.
SPEED = 20.0
#: What pages call the home and the address. Both are as long as the real ones, since texts are wrapped.
HOME, PORT = "/home/ada-lovelace", 8787
KEY = "sk-emulated-0123456789abcdef"

#: As uvx, for this program alone: where --from would take it from is not looked at.
UVX = """#!/bin/sh
[ "$1" = --from ] && shift 2
case "$1" in
    agent-jobs | agent-jobs@*) shift && exec {uvx} -m agent_jobs "$@" ;;
esac
echo "uvx: $1 is not what this machine has" >&2
exit 2
"""
OURS = """#!/bin/sh
exec {ours} -m agent_jobs "$@"
"""
#: As the interpreter of an environment: our program is a fork, and so are scripts.
PYTHON = """#!/bin/sh
case "$1 $2" in
    "-m agent_jobs" | *.py\\ *) exec {fork} "$@" ;;
esac
exec {python} "$@"
"""
#: As uv, for tools: ours is always there already.
UV = """#!/bin/sh
case "$*" in
    "tool dir --bin") echo {home}/.local/bin ;;
    "tool dir") echo {home}/.local/share/uv/tools ;;
    "tool install agent-jobs"*) ;;
    *) exit 2 ;;
esac
"""


class Prompted(Emulator):
    """The emulator with scripts by prompt, so that a page need not show how its runs are scripted."""

    def __init__(self) -> None:
        super().__init__(time_scale=SPEED)
        self.scripts: dict[str, dict[str, Any]] = {}

    def _read_create_body(self, exchange: Exchange) -> tuple[Script, dict[str, Any]]:
        body = exchange.read_body()
        if script := self.scripts.get(read_question(body)):
            exchange.raw = json.dumps({**body, "input": f"{body['input']} [emulate {json.dumps(script)}]"}).encode()
        return super()._read_create_body(exchange)


@dataclass(frozen=True)
class Machine:
    """A home of its own, agent-jobs as if from the package index, and the emulated API."""

    home: Path
    upstream: RunningServer
    scripts: dict[str, dict[str, Any]]  #: how the run of a prompt goes
    beside: ExitStack  #: what runs there beside the shell
    ids: dict[str, str] = field(default_factory=dict[str, str])  #: of jobs on a page, and what they are here

    @property
    def data(self) -> Path:
        """Return the folder of the jobs."""
        return self.home / ".local/share/agent-jobs"

    @property
    def python(self) -> Path:
        """Return the interpreter that agent-jobs is installed for."""
        return self.home / ".venv/bin/python"

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables of a shell there."""
        kept = {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
        ours = {
            "HOME": str(self.home),
            "PATH": f"{self.home}/.local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(self.home / ".index"),
            "TERM": "xterm",
            "TZ": "UTC",
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": self.upstream.base_url,
        }
        return {**kept, **ours, **more}

    def type(
        self, line: str, *, columns: int = 80, stop: Callable[[str], bool] = lambda seen: False
    ) -> tuple[str, str]:
        """Type a line into a shell; gives what the screen showed when Ctrl-C was pressed, and at the end."""
        for there, here in sorted(self.ids.items(), key=lambda pair: -len(pair[0])):
            line = line.replace(there, here)
        line = line.replace(f"http://127.0.0.1:{PORT}", self.upstream.url)
        shown = self.show(line, columns=columns, stop=stop)
        return screen(shown.stopped_at), screen(shown.raw.replace("^C", ""))

    def show(self, line: str, *, columns: int = 80, stop: Callable[[str], bool] = lambda seen: False) -> Shown:
        """Run a line on a terminal."""
        return on_terminal(["/bin/sh", "-c", line], self.environment(), self.home / "work", columns, stop)

    def run(self, line: str, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a line on pipes."""
        return subprocess.run(
            ["/bin/sh", "-c", line], input=stdin, capture_output=True, text=True, timeout=100, check=False,
            env=self.environment(**environment), cwd=self.home / "work",
        )  # fmt: skip

    def start(self, prompt: str, **script: Any) -> None:
        """Start a job whose run is scripted, and leave it."""
        self.scripts[prompt] = script
        started = self.run(f"agent-jobs start '{prompt}'")
        assert started.returncode == 0, started.stderr

    def format_for_page(self, text: str) -> str:
        """Return a text of this machine as a page shows it."""
        text = text.replace(str(self.home), HOME).replace(self.upstream.url, f"http://127.0.0.1:{PORT}")
        for there, here in self.ids.items():
            text = text.replace(here, there)
        return text


@contextmanager
def machine() -> Generator[Machine]:
    """Make a machine, whose commands are forks, and delete it at the end."""
    home = Path(tempfile.mkdtemp(prefix="agent", dir="/tmp"))
    assert len(str(home)) == len(HOME)
    index = home / f".index/agent_jobs-{__version__}.dist-info"
    try:
        for folder in (home / ".local/bin", home / "work", index):
            folder.mkdir(parents=True)
        # What an installation from the index says of itself; that of a clone says where the clone is.
        (index / "METADATA").write_text(f"Metadata-Version: 2.4\nName: agent-jobs\nVersion: {__version__}\n")
        installed, of_uvx = home / ".venv/bin/python", home / ".cache/uv/archive-v0/QqRs/bin/python"
        for python in (installed, of_uvx):
            write_interpreter(python, _address(home))
        for name, text in (("uvx", UVX), ("uv", UV), ("agent-jobs", OURS)):
            address = _address(home)
            text = text.replace("{ours}", _ask_for_fork(address, installed))
            text = text.replace("{uvx}", _ask_for_fork(address, of_uvx))
            _write_program(home / ".local/bin" / name, text.replace("{home}", str(home)))
        emulator = Prompted()
        with (
            listening(_address(home)),
            run_emulator(emulator=emulator, port=_free_port()) as upstream,
            ExitStack() as beside,
        ):
            yield Machine(home, upstream, emulator.scripts, beside)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def forking(folder: Path) -> Generator[str]:
    """Yield what a line of a shell runs instead of `python -m agent_jobs`, which must not close a standard stream."""
    address = folder / "forks"
    with listening(address):
        yield f"{_ask_for_fork(address, Path(sys.executable))} -m agent_jobs"


def write_interpreter(path: Path, address: Path) -> None:
    """Write what stands for an interpreter whose programs are forks, for which it asks at an address."""
    _write_program(path, PYTHON.format(fork=_ask_for_fork(address, path), python=sys.executable))


def _write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _ask_for_fork(address: Path, python: Path) -> str:
    """Return what a script runs instead of an interpreter that imports everything."""
    return f"{sys.executable} -IS {fork_client.__file__} {address} {python}"


def _address(home: Path) -> Path:
    return home / ".index/forks"


def _free_port() -> int:
    """Return a free port of four digits."""
    for port in random.sample(range(8000, 10_000), 50):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no free port from 8000 to 9999")
