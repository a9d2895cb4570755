"""Installs a host and agent-jobs into the cache, and runs the host in a home of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.settings.stored_keys import store_key

from .catalogue import KEY, KEY_FOLDER, MODEL_URL, PROMPT, RealHost
from .model import ScriptedModel, serve_model
from .script import JOB_ID, Conversation, Task

ROOT = Path(__file__).parents[2]
SPARE_S = 120  # a host's own start and end, on a loaded machine
LAST_LINES = 12
MAX_LOST = 1  # a host that cuts our first poll thereby says how long it waits


class HostError(Exception):
    """A host could not be installed or run."""


@dataclass(frozen=True)
class Run:
    """The results of one run of a host."""

    missing_at_first: tuple[str, ...]  #: tools of ours that the first request neither had nor led to
    turns: int  #: requests of the host's model that carried the user's prompt
    lost_calls: int  #: calls that brought no job, since the host cut them or refused them
    is_result_read: bool  #: the model was shown the job's answer
    posts: int  #: create requests upstream
    seconds: float
    output: str  #: the host's last lines

    @property
    def has_tools_at_once(self) -> bool:
        """Return True if the first request offered all our tools."""
        return self.turns > 0 and not self.missing_at_first

    @property
    def is_good(self) -> bool:
        """Return True if everything went as promised."""
        return self.has_tools_at_once and self.is_result_read and self.posts == 1 and self.lost_calls <= MAX_LOST


@dataclass(frozen=True)
class Home:
    """A home with one host in it, whose entry `agent-jobs install` wrote."""

    host: RealHost
    program: Path
    path: Path
    environment: dict[str, str]
    stdin: str
    model: ScriptedModel
    upstream: RunningServer

    def run(self, number: int, seconds: float) -> Run:
        """Run the host with one prompt, whose job takes so many seconds."""
        answer = f"The answer to question {number} is {number * number}."
        script = json.dumps({"duration_s": seconds, "text": answer})
        task = Task(f"Have question {number} answered by a job.", f"Question {number}. [emulate {script}]", answer)
        self.model.begin(task)
        before = self._count_posts()
        started = monotonic()
        words = [word.replace(PROMPT, task.user_prompt) for word in self.host.command[1:]]
        command = [str(self.program), *words]
        output = _output_of(command, self.path / "work", self.environment, self.stdin, seconds + SPARE_S)
        turns = self.model.turns
        tool_answers = turns[-1].tool_answers if turns else ()
        return Run(
            missing_at_first=tuple(self._missing_tools(turns[0])) if turns else (),
            turns=len(turns),
            lost_calls=sum(not JOB_ID.search(shown) for shown in tool_answers),
            is_result_read=any(answer in shown for shown in tool_answers),
            posts=self._count_posts() - before,
            seconds=monotonic() - started,
            output="\n".join(output.splitlines()[-LAST_LINES:]),
        )

    def _missing_tools(self, first: Conversation) -> list[str]:
        """Return the tools that the model cannot know of; a search leads to all of a server that is named."""
        announced_as = self.host.announced_as
        return [] if announced_as and announced_as in first.text else first.missing_tools

    def _count_posts(self) -> int:
        return self.upstream.emulator.counters()["creates"]


@contextmanager
def open_home(name: str, host: RealHost, cache: Path, agent_jobs: Path) -> Generator[Home]:
    """Make a home for a host, with a model and an upstream on loopback; all of it is gone afterwards."""
    program = install_host(host, cache)
    path = Path(tempfile.mkdtemp(prefix=f"home-{name}-", dir=cache))
    try:
        with serve_model() as model, run_emulator() as upstream:
            (path / "work").mkdir()
            for file, text in host.files.items():
                (path / file).parent.mkdir(parents=True, exist_ok=True)
                (path / file).write_text(text.replace(MODEL_URL, model.url))
            environment = _environment(path, host, model)
            install = [agent_jobs, "install", *host.install, "--env", f"OPENAI_BASE_URL={upstream.base_url}"]
            printed = _run_checked(install, cwd=path / "work", env=environment)
            # Stored only now, so that the entries of other hosts keep their own way of handing the key over.
            store_key(str(path / KEY_FOLDER), upstream.base_url, KEY, use_keyring=False)
            yield Home(host, program, path, environment, printed if host.reads_entry else "", model, upstream)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def install_host(host: RealHost, cache: Path) -> Path:
    """Install a host from its registry unless it is there; return the program to run."""
    folder = cache / host.packages[0].replace("/", "-")
    if host.registry == "npm":
        program = folder / "node_modules/.bin" / host.command[0]
        commands = [["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", *host.packages]]
    else:
        program = folder / "bin" / host.command[0]
        commands = [
            ["uv", "venv", "--python", sys.executable, folder],
            ["uv", "pip", "install", "--python", program, *host.packages],
        ]
    done = folder / "installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for command in commands:
            _run_checked(command)
        done.touch()
    return program


def install_agent_jobs(cache: Path) -> Path:
    """Install this checkout as a tool of its own, as `install` does from uvx; return its program."""
    folders = {"UV_TOOL_DIR": str(cache / "tools"), "UV_TOOL_BIN_DIR": str(cache / "bin")}
    install = ["uv", "tool", "install", "--force", "--reinstall-package", "agent-jobs", "--from", ROOT, "agent-jobs"]
    _run_checked(install, env={**os.environ, **folders})
    return cache / "bin/agent-jobs"


def _environment(home: Path, host: RealHost, model: ScriptedModel) -> dict[str, str]:
    """Return the whole environment of a host: nothing of the user's own is in it."""
    node = shutil.which("node")
    path = ([str(Path(node).parent)] if node else []) + ["/usr/local/bin", "/usr/bin", "/bin"]
    ours = {
        "HOME": str(home),
        "PATH": os.pathsep.join(path),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "OPENAI_API_KEY": KEY,
        "HTTP_PROXY": model.url,
        "HTTPS_PROXY": model.url,
        "NO_PROXY": "127.0.0.1,localhost",
        "DO_NOT_TRACK": "1",
    }
    return ours | {name: value.replace(MODEL_URL, model.url) for name, value in host.environment.items()}


def _run_checked(command: list[str | Path], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command that must succeed; return its stdout."""
    try:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise HostError(f"{command[0]} cannot be started ({error}): install it first.") from None
    if done.returncode:
        raise HostError(f"{' '.join(map(str, command))} failed:\n{done.stderr.strip()}")
    return done.stdout


def _output_of(command: list[str], cwd: Path, env: dict[str, str], stdin: str, limit_s: float) -> str:
    """Return what a host printed; nothing that it started is left."""
    process = subprocess.Popen(
        command, cwd=cwd, env=env, text=True, errors="replace", start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        return process.communicate(stdin, timeout=limit_s)[0]
    except subprocess.TimeoutExpired:
        _kill_group(process)
        return f"{process.communicate()[0]}\nIt was stopped after {limit_s:.0f} s."
    finally:
        _kill_group(process)


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
