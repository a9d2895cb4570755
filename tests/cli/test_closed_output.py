"""If the reader of the output closes it, as `head -1` does, a command prints no traceback and keeps its exit status."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import COMMAND, Process, run
from hosts import script_prompt
from machine import forking
from terminals import LIMIT_S, Terminal

from agent_jobs.emulator.server import RunningServer


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with forking(tmp_path_factory.mktemp("shell")) as command:
        yield command


def run_unread(terminal: Terminal, *arguments: str, and_stderr: bool = False) -> tuple[int, str]:
    """Run a command whose output no process reads, and return its exit status and stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = run(
            [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=writer,
            stderr=subprocess.STDOUT if and_stderr else subprocess.PIPE, timeout=LIMIT_S,
            env=terminal.environment(), cwd=terminal.folder.parent,
        )  # fmt: skip
    finally:
        os.close(writer)
    return ran.returncode, ran.stderr or ""


def test_job_is_started_and_finishes_if_no_process_reads_the_output(terminal: Terminal, upstream: RunningServer):
    for command in (("run", "A"), ("run", "--json", "B"), ("start", "C")):
        status, stderr = run_unread(terminal, *command)
        assert (status, "Traceback" in stderr, "unsent" in stderr) == (0, False, False)
    assert run_unread(terminal, "run", script_prompt("D", {"end": "failed"}))[0] == 3
    assert run_unread(terminal, "run", "E", and_stderr=True) == (0, "")
    assert upstream.emulator.counters()["creates"] == 5


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--help",), 0),
        (("list", "--help"), 0),
        (("list",), 0),
        (("config", "--explain"), 0),
        (("show", "job_none", "--json"), 1),
        (("install", "cursor", "--print"), 0),
    ],
)
def test_command_exits_as_if_everything_had_been_read(terminal: Terminal, arguments: tuple[str, ...], status: int):
    exit_status, stderr = run_unread(terminal, *arguments)
    assert (exit_status, "Traceback" in stderr, "Exception ignored" in stderr) == (status, False, False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    ("command", "redirection", "reason"),
    [
        ("run", ">/dev/full", "No space left on device"),
        ("run", ">&-", "stdout is closed"),
        ("run --json", ">&-", "stdout is closed"),
        ("start", ">/dev/full", "No space left on device"),
        ("start", ">&-", "stdout is closed"),
    ],
)
def test_job_whose_answer_cannot_be_written_is_named(
    terminal: Terminal, forked: str, upstream: RunningServer, command: str, redirection: str, reason: str
):
    program = shlex.join(COMMAND) if redirection == ">&-" else forked
    line = f"{program} {command} Work"
    ran = subprocess.run(
        ["sh", "-c", f"{line} {redirection}"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=LIMIT_S, env=terminal.environment(), cwd=terminal.folder.parent,
    )  # fmt: skip
    [job_id] = {word.strip(".,") for word in ran.stderr.split() if word.startswith("job_")}
    assert ran.returncode == 7
    assert f"The output cannot be written ({reason})." in ran.stderr
    assert ran.stderr.rstrip().endswith(f"Print it with: agent-jobs result {job_id}")
    assert upstream.emulator.counters()["creates"] == 1


def run_shell(terminal: Terminal, program: str, script: str) -> "subprocess.CompletedProcess[str]":
    """Run a shell script in which `agent-jobs` is on the PATH."""
    script = f'agent_jobs() {{ {program} "$@"; }}\n{script.replace("agent-jobs", "agent_jobs")}'
    return subprocess.run(
        ["sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=LIMIT_S,
        env=terminal.environment(), cwd=terminal.folder.parent,
    )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_each_command_says_in_a_line_that_its_output_cannot_be_written(terminal: Terminal):
    terminal.pipe("run", "Work", "--out", "answer.md")
    tried = [
        ("--help", ">/dev/full", "No space left on device"),
        ("list", ">&-", "stdout is closed"),
        ("export --all", ">&-", "stdout is closed"),
        ("cancel last", ">/dev/full", "No space left on device"),
        ("delete last --yes", ">&- 2>&-", ""),
    ]
    script = "\n".join(f"agent-jobs {command} {redirection}; echo $?" for command, redirection, _ in tried)
    ran = run_shell(terminal, shlex.join(COMMAND), script)
    assert ran.stdout.split() == ["7"] * len(tried)
    sentence = "Error: The output cannot be written ({reason}). Send it elsewhere"
    errors = [line for line in ran.stderr.splitlines() if not line.startswith("There was nothing to cancel")]
    assert [line.partition(" or free")[0] for line in errors] == [
        sentence.format(reason=reason) for _, _, reason in tried if reason
    ]
    assert json.loads(terminal.pipe("list", "--json").stdout)["jobs"] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_answer_counts_as_read_only_after_it_was_written(terminal: Terminal, forked: str):
    run_shell(terminal, forked, "agent-jobs run Work >/dev/full; agent-jobs result last >/dev/full")
    assert "1 unread" in terminal.pipe("list").stdout
    terminal.pipe("result", "last")
    assert "unread" not in terminal.pipe("list").stdout


def test_command_works_if_stderr_is_full(terminal: Terminal, forked: str):
    ran = run_shell(terminal, forked, "agent-jobs run Work 2>/dev/full")
    assert ran.returncode == 0
    assert ran.stdout.startswith("This is an emulated answer")


def test_watch_without_a_reader_leaves_the_jobs_and_reports_it(terminal: Terminal):
    job_id = terminal.pipe("start", script_prompt("Task", {"end": "never"})).stdout.strip()
    status, stderr = run_unread(terminal, "watch", "--json", job_id)
    assert status == 6
    assert stderr.splitlines()[-1] == (
        f"Stopped watching {job_id}. It is still running at the provider. Resume with: agent-jobs watch {job_id}"
    )


@pytest.mark.parametrize("arguments", [(), ("serve",)])
def test_server_exits_silently_if_its_host_stops_reading(terminal: Terminal, arguments: tuple[str, ...]):
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    with Process(
        [*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=terminal.environment(),
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for number, method, params in ((1, "initialize", client), (2, "tools/list", {})):
            request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            if number == 1:
                assert json.loads(process.stdout.readline())["id"] == 1
                process.stdout.close()
        assert process.wait(LIMIT_S) == 0, "it exits although stdin is still open"
        assert process.stderr.read() == ""
