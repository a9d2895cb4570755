"""A fork of the fork server behaves like a new interpreter, and a new interpreter runs command line and server."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fork_server import COMMAND, Process, can_fork, run
from processes import Server
from terminals import Terminal

from agent_jobs.emulator.server import RunningServer


@pytest.mark.parametrize("command", [["list", "--json"], ["config"], ["--help"], ["dmeo"], ["result", "job_nowhere"]])
def test_fork_prints_and_ends_as_a_new_interpreter_does(
    upstream: RunningServer, tmp_path: Path, command: list[str]
) -> None:
    environment = Terminal(upstream.base_url, tmp_path / "data").environment()
    assert can_fork([*COMMAND, *command], environment)
    forked = run([*COMMAND, *command], env=environment, cwd=tmp_path)
    new = subprocess.run(
        [*COMMAND, *command], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert (forked.returncode, forked.stdout, forked.stderr) == (new.returncode, new.stdout, new.stderr)


@pytest.mark.parametrize("start", [Process, subprocess.Popen], ids=["forked", "new"])
def test_server_answers_and_ends_with_its_host_or_by_a_signal(
    upstream: RunningServer, tmp_path: Path, start: type["subprocess.Popen[str]"]
) -> None:
    environment = Terminal(upstream.base_url, tmp_path / "data").environment()
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    text: dict[str, Any] = {} if start is Process else {"text": True}
    for end, status in ((signal.SIGKILL, -9), (None, 0)):
        with start(COMMAND, env=environment, **pipes, **text) as process:
            try:
                server = Server(process)
                assert server.initialize()["serverInfo"]["name"] == "agent-jobs"
                os.kill(process.pid, 0)
                assert process.poll() is None
                if end is None:
                    assert server.end() == status
                else:
                    process.send_signal(end)
                    assert process.wait(60) == status
            finally:
                process.kill()


def test_fork_server_forks_only_supported_commands() -> None:
    assert can_fork([*COMMAND, "list"], os.environ)
    assert not can_fork([sys.executable, "-X", "utf8", "-m", "agent_jobs"], os.environ)
    assert not can_fork(["sh", "-c", "true"], os.environ)
    assert not can_fork(COMMAND, {**os.environ, "PYTHONPATH": "/elsewhere"})
    assert run(["sh", "-c", "cat; exit 5"], input="through a pipe").stdout == "through a pipe"
