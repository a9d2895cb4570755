"""`work` collects jobs without a terminal, logs each change, and exits at a signal."""

import json
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fork_server import COMMAND, Process
from hosts import script_prompt
from terminals import LIMIT_S, Terminal

from agent_jobs.emulator.server import RunningServer

PROMPT = "a prompt that no log may have"
ANSWER = "an answer that no log may have"


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


class Collector:
    """A process that collects jobs, and the lines of its log."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def lines(self) -> list[str]:
        """Return the lines so far, without the time and the level."""
        return [line.split(" ", 3)[3] for line in self._log.read_text().splitlines()]

    def wait_for_line(self, text: str) -> None:
        """Wait until a line has this text."""
        until = time.monotonic() + LIMIT_S
        while not any(text in line for line in self.lines):
            assert time.monotonic() < until, self.lines
            assert self.process.poll() is None, self.lines
            time.sleep(0.02)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def collecting(terminal: Terminal, name: str = "one") -> Generator[Collector]:
    log = terminal.folder.parent / f"{name}.log"
    with log.open("w") as stderr, Process(
        [*COMMAND, "work"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
        env=terminal.environment(), cwd=terminal.folder.parent,
    ) as process:  # fmt: skip
        try:
            collector = Collector(process, log)
            collector.wait_for_line("Working on the jobs of")
            yield collector
        finally:
            process.kill()


def start(terminal: Terminal, prompt: str, **script: object) -> str:
    return terminal.pipe("start", script_prompt(prompt, {"text": ANSWER, **script})).stdout.strip()


def read_holders(terminal: Terminal) -> list[str | None]:
    with closing(sqlite3.connect(terminal.folder / "jobs.db")) as database:
        return [row[0] for row in database.execute("SELECT holder FROM job")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_collector_and_frees_its_jobs(terminal: Terminal, number: signal.Signals) -> None:
    done, left = start(terminal, PROMPT, duration_s=4), start(terminal, f"{PROMPT} 2", duration_s=3000)
    with collecting(terminal) as collector:
        collector.wait_for_line(f"{done}: completed after 0:")
        collector.wait_for_line(f"{left}: in_progress")
        assert collector.end(number) == 0
    text = "\n".join(collector.lines)
    assert f"Stopped watching {left}. It is still running at the provider." in text
    assert PROMPT not in text
    assert ANSWER not in text
    assert read_holders(terminal) == [None, None]
    assert terminal.pipe("result", done).stdout.strip() == ANSWER


def test_two_collectors_share_the_jobs(terminal: Terminal, upstream: RunningServer) -> None:
    with collecting(terminal) as one, collecting(terminal, "two") as other:
        other.wait_for_line("Also working on them: agent-jobs work (pid")
        jobs = [start(terminal, f"{PROMPT} {number}", duration_s=1) for number in range(3)]
        for job in jobs:
            one.wait_for_line(f"{job}: completed")
            other.wait_for_line(f"{job}: completed")
        assert one.end(signal.SIGTERM) == other.end(signal.SIGTERM) == 0
    assert upstream.emulator.counters()["creates"] == 3
    assert [sum(f"{job}: completed" in line for line in one.lines) for job in jobs] == [1, 1, 1]


def test_collector_exits_with_the_last_job_if_until_idle_is_given(terminal: Terminal) -> None:
    tools = '[{"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}]'
    asked = script_prompt(f"{PROMPT} 2", {"duration_s": 1, "function_calls": [{"name": "lookup", "arguments": {}}]})
    asking = terminal.pipe("start", "--option", f"tools={tools}", asked).stdout.strip()
    failing = start(terminal, PROMPT, duration_s=2, end="failed")
    done = terminal.pipe("work", "--until-idle")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"{failing}: failed after 0:" in done.stderr
    assert ", server_error\n" in done.stderr
    assert f"{asking}: input_required" in done.stderr
    assert done.stderr.endswith("INFO No job is running.\n")


def test_missing_key_is_reported(terminal: Terminal) -> None:
    done = terminal.pipe("work", OPENAI_API_KEY="")
    assert done.returncode == 1
    assert "No API key is set" in done.stderr


def test_commands_report_a_missing_and_a_running_collector(terminal: Terminal) -> None:
    left = terminal.pipe("start", script_prompt(PROMPT, {"duration_s": 3000})).stderr
    assert left.startswith(
        "No process is watching it. Install the service, or watch here:\n  agent-jobs service install\n"
    )
    assert re.search(r"\n  agent-jobs watch job_\w+\n", left)
    line = "No process is watching these. Install the service, or watch here:"
    assert line in terminal.pipe("list").stdout.splitlines()
    assert line not in terminal.pipe("list", "--json").stdout
    with collecting(terminal):
        assert line not in terminal.pipe("list").stdout
        left = terminal.pipe("start", script_prompt(f"{PROMPT} 2", {"duration_s": 3000})).stderr
        assert left.startswith("Watched by agent-jobs work (pid ")
    for job in json.loads(terminal.pipe("list", "--json").stdout)["jobs"]:
        terminal.pipe("cancel", job["job_id"])
    assert line not in terminal.pipe("list").stdout
