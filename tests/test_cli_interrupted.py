"""Ctrl-C before upstream has named the response: nothing that is paid is lost, and the id is always shown."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from agent_jobs.emulator.serve import RunningServer
from fork_server import COMMAND, Process
from hosts import scripted
from terminals import Terminal

WORK = "Compare two queues and say which of them is to be taken for what"
#: Upstream takes the request and names the response some seconds later.
SLOW_CREATE = {"duration_s": 3, "text": "Done.", "faults": [{"on": "create", "delay_s": 4}]}
NEVER_NAMED = {"duration_s": 3, "faults": [{"on": "create", "delay_s": 3000}]}
JOB_ID = re.compile(r"job_[0-9a-z]{12}")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent to a process")


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


@contextmanager
def begun(terminal: Terminal, *arguments: str, **more: str) -> "Generator[subprocess.Popen[str]]":
    """A command on pipes, to be interrupted on the way."""
    with Process(
        [*COMMAND, *arguments], env=terminal.environment(**more), cwd=terminal.folder.parent,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def wait_for_create(upstream: RunningServer) -> None:
    limit = time.monotonic() + 40
    while upstream.emulator.counters()["creates"] == 0:
        assert time.monotonic() < limit
        time.sleep(0.01)


def read_until(stream: IO[str] | None, words: str) -> str:
    """Read lines of a command up to the one with these words."""
    assert stream is not None
    seen = ""
    while words not in seen:
        line = stream.readline()
        assert line, seen
        seen += line
    return seen


def jobs_of(terminal: Terminal) -> list[dict[str, str]]:
    return json.loads(terminal.pipe("list", "--json").stdout)["jobs"]


@pytest.mark.parametrize("command", [["run"], ["run", "--json"], ["start"], ["start", "--json"], ["start", "--wait"]])
def test_the_first_ctrl_c_waits_for_the_response_id(terminal: Terminal, upstream: RunningServer, command: list[str]):
    with begun(terminal, *command, scripted(WORK, SLOW_CREATE)) as process:
        wait_for_create(upstream)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=40)
    assert process.returncode == 130
    [job] = jobs_of(terminal)
    assert job["job_id"] in stdout + stderr
    assert "waiting until upstream names the response" in stderr
    assert f"Interrupted. Left {job['job_id']}: it goes on upstream." in stderr
    again = terminal.pipe("run", scripted(WORK, SLOW_CREATE))
    assert (again.returncode, again.stdout) == (0, "Done.\n")
    assert f"An identical job, {job['job_id']}, is already" in again.stderr
    assert upstream.emulator.counters()["creates"] == 1


@pytest.mark.parametrize("command", [["run"], ["start"]])
def test_the_second_ctrl_c_leaves_at_once_and_says_what_may_be_running(
    terminal: Terminal, upstream: RunningServer, command: list[str]
):
    with begun(terminal, *command, scripted(WORK, NEVER_NAMED)) as process:
        wait_for_create(upstream)
        process.send_signal(signal.SIGINT)
        seen = read_until(process.stderr, "Ctrl-C again leaves at once")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=40)
    assert process.returncode == 130
    [job_id] = set(JOB_ID.findall(stdout + seen + stderr))
    assert f"Interrupted. Left {job_id}: it may be running and billed" in stderr


def test_an_unconfirmed_start_names_the_flag_that_starts_another(terminal: Terminal, upstream: RunningServer):
    asked = scripted(WORK, {"text": "Done.", "faults": [{"on": "create", "status": 500, "after_accept": True}]})
    assert terminal.pipe("run", asked).returncode == 3
    again = terminal.pipe("run", asked)
    assert again.returncode == 3
    assert "is already failed (start_unconfirmed). --new starts another." in again.stderr
    before = upstream.emulator.counters()["creates"]
    terminal.pipe("run", "--new", asked)
    assert upstream.emulator.counters()["creates"] == before + 1


def test_a_person_is_asked_before_an_unconfirmed_start_answers(terminal: Terminal):
    asked = scripted(WORK, {"text": "Done.", "faults": [{"on": "create", "status": 500, "after_accept": True}]})
    assert terminal.pipe("run", asked).returncode == 3
    refused = terminal.show("run", asked, stop=lambda seen: "[y/N]" in seen, keys="n\n")
    assert "which may be paid twice?" in refused.text
    assert refused.returncode == 3
    assert len(jobs_of(terminal)) == 1
    terminal.show("run", asked, stop=lambda seen: "[y/N]" in seen, keys="y\n")
    assert len(jobs_of(terminal)) == 2


def test_what_was_left_unsent_is_named_before_it_is_sent(terminal: Terminal):
    left = terminal.show("run", WORK, stop=lambda seen: "Not sent yet" in seen, OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    [job] = jobs_of(terminal)
    assert (left.returncode, job["status"]) == (130, "pending")
    watched = terminal.show("watch", stop=lambda seen: "left unsent" in seen, OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert f"Sending {job['job_id']}, which was left unsent: {WORK[:20]}" in watched.text.replace("\n", "")


def test_what_waits_for_another_endpoint_is_not_said_to_be_sent(terminal: Terminal):
    terminal.show("run", WORK, stop=lambda seen: "Not sent yet" in seen, OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    other = terminal.pipe("run", "Other work")
    assert other.returncode == 0
    assert "left unsent" not in other.stderr


def test_a_prompt_that_went_to_a_wrong_address_is_sent_to_the_right_one(terminal: Terminal):
    wrong = terminal.show(
        "run", WORK, stop=lambda seen: "Not sent yet" in seen, OPENAI_BASE_URL="http://127.0.0.1:9/v1"
    )
    assert wrong.returncode == 130
    right = terminal.pipe("run", WORK)
    assert right.returncode == 0
    assert "identical" not in right.stderr
    assert {job["status"] for job in jobs_of(terminal)} == {"pending", "completed"}


@pytest.mark.parametrize("command", [["list"], ["run", "x"], ["doctor"], ["config"], ["watch"], ["prune"], ["--help"]])
def test_ctrl_c_during_the_imports_is_reported_as_everywhere(tmp_path: Path, command: list[str]):
    # The interrupt arrives with the first import of the command line's own modules.
    hook = "import signal, os, sys\nclass Interrupt:\n def find_spec(self, name, *_):\n"
    hook += "  if name == 'agent_jobs.cli':\n   os.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "sitecustomize.py").write_text(f"{hook}sys.meta_path.insert(0, Interrupt())\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    ended = subprocess.run(
        [*COMMAND, *command], env=environment, capture_output=True, text=True, check=False, timeout=40
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "Interrupted.\n")


def test_run_json_says_what_a_job_that_asks_needs(terminal: Terminal):
    function = '{"type":"function","name":"look_up","parameters":{"type":"object","properties":{}}}'
    asked = scripted(WORK, {"function_calls": [{"name": "look_up", "arguments": {}}]})
    ended = terminal.pipe("run", "--json", "--option", f"tools=[{function}]", asked)
    told = json.loads(ended.stdout)
    assert ended.returncode == 6
    assert told["needs"][0]["name"] == "look_up"
    assert told["next"] == f"agent-jobs reply {told['job_id']}"
