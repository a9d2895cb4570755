"""The commands without a job: demo, emulator, serve, version and help."""

import os
import pty
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fork_server import COMMAND, Process, run
from machine import Machine, machine
from terminals import Terminal

from agent_jobs import __version__
from agent_jobs.cli import demo_story as demo


def run_command(*arguments: str, limit_s: float = 100) -> "subprocess.CompletedProcess[str]":
    return run([*COMMAND, *arguments], timeout=limit_s)


@pytest.fixture
def here() -> Iterator[Machine]:
    with machine() as here:
        yield here


def test_demo_shows_a_job_outlive_its_killed_server(here: Machine) -> None:
    shown = here.run("agent-jobs demo")
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == ""
    actors = [line.split(maxsplit=3)[2] for line in shown.stdout.splitlines() if re.match(r" *\d+\.\d s ", line)]
    assert actors == ["api", "host", "host", "host", "kill", "host", "host", "host", "host", "api"]
    assert "It is stored before it is sent" in shown.stdout
    assert "counted 1 POST" in shown.stdout
    assert "agent-jobs install HOST" in shown.stdout
    assert "{" not in shown.stdout
    assert "\x1b" not in shown.stdout


def test_demo_is_coloured_and_fits_a_terminal(here: Machine) -> None:
    shown = here.show('agent-jobs demo "Is it safe?"', columns=60)
    assert shown.returncode == 0, shown.text
    assert shown.colours
    assert "The emulated model has no answer to that." in shown.text


def test_unsuccessful_demo_reports_it_and_fails(
    here: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(here.python))
    monkeypatch.setattr(demo, "SCRIPT", {"duration_s": 3, "end": "failed"})
    assert demo.run_demo("Is it safe?") == 1
    assert "The demo failed: the job ended with status 'failed'." in capsys.readouterr().err


def test_version_is_reported() -> None:
    assert run_command("--version").stdout == f"agent-jobs, version {__version__}\n"


def test_server_on_a_terminal_explains_its_use_and_setup() -> None:
    master, terminal = pty.openpty()
    try:
        shown = run(COMMAND, stdin=terminal, timeout=100)
    finally:
        os.close(master)
        os.close(terminal)
    assert shown.returncode == 0
    assert "MCP server" in shown.stdout
    assert '"mcpServers"' in shown.stdout


def test_unknown_command_is_refused() -> None:
    shown = run_command("dmeo")
    assert shown.returncode == 2
    assert "dmeo" in shown.stderr


def test_emulator_serves_until_it_is_interrupted() -> None:
    with Process([*COMMAND, "emulator", "--port", "0"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            output = "".join(process.stdout.readline() for _ in range(3))
            base_url = re.search(r"OPENAI_BASE_URL=(\S+)", output)
            assert base_url
            answer = httpx2.get(f"{base_url[1]}/models", headers={"Authorization": "Bearer emulated"})
            assert answer.status_code == 200
        finally:
            process.send_signal(2)
        assert process.wait(60) == 0


def test_used_or_invalid_port_is_refused_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run_command("emulator", "--port", str(port))
    assert (refused.returncode, refused.stderr.count(str(port))) == (1, 1)
    assert refused.stderr.startswith(f"Error: Cannot listen on 127.0.0.1:{port} (Address already in use). Choose ")
    assert run_command("emulator", "--port", "99999").returncode == 2
    assert run_command("emulator", "--port", "0", "--time-scale", "0").returncode == 2


def test_demo_that_is_interrupted_ends_without_a_traceback(here: Machine) -> None:
    command, pipe = [here.python, *COMMAND[1:], "demo"], subprocess.PIPE
    with subprocess.Popen(command, env=here.environment(), stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        while "agent_poll: waiting" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(2)
        _, stderr = process.communicate(timeout=60)
    assert stderr == "Interrupted.\n"
    assert process.returncode == 130


def test_demo_ends_without_a_traceback_if_its_reader_stops_reading() -> None:
    with Process([*COMMAND, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("argument", [["demo", "--help"], ["emulator", "--help"], ["--help"]])
def test_every_command_explains_itself(argument: list[str]) -> None:
    assert run_command(*argument).stdout.startswith("Usage:")


def test_server_at_a_terminal_explains_its_input(tmp_path: Path) -> None:
    shown = Terminal("http://127.0.0.1:1/v1", tmp_path / "data").show("serve", stop=lambda seen: "run PROMPT" in seen)
    assert "waits on stdin for the messages of a host" in " ".join(shown.text.split())
    assert "agent-jobs install HOST" in shown.text


def test_text_piped_into_the_bare_command_is_refused_with_the_command_to_use(tmp_path: Path) -> None:
    done = Terminal("http://127.0.0.1:1/v1", tmp_path / "data").pipe(stdin="hi")
    assert "agent-jobs run -" in done.stderr
    assert "Traceback" not in done.stderr
