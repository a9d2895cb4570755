"""Ctrl-C before the provider has named the response: no paid response is lost, and the job id is always shown."""

import json
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
from fork_server import COMMAND, Process
from hosts import script_prompt
from terminals import Terminal

from agent_jobs.emulator.server import RunningServer

WORK = "Compare two queues and say which of them is to be taken for what"
#: The provider accepts the request, and names the response some seconds later.
SLOW_CREATE = {"duration_s": 3, "text": "Done.", "faults": [{"on": "create", "delay_s": 60}]}
NEVER_NAMED = {"duration_s": 3, "faults": [{"on": "create", "delay_s": 3000}]}
JOB_ID = re.compile(r"job_[0-9a-z]{12}")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent to a process")


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


@contextmanager
def running_command(terminal: Terminal, *arguments: str, **more: str) -> "Generator[subprocess.Popen[str]]":
    """Start a command on pipes, which the test interrupts."""
    with Process(
        [*COMMAND, *arguments], env=terminal.environment(**more), cwd=terminal.folder.parent,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def wait_for_create(upstream: RunningServer) -> None:
    limit = time.monotonic() + 100
    while upstream.emulator.counters()["creates"] == 0:
        assert time.monotonic() < limit
        time.sleep(0.01)


def read_until(stream: IO[str] | None, words: str) -> str:
    """Read the lines of a command up to the one with these words."""
    assert stream is not None
    seen = ""
    while words not in seen:
        line = stream.readline()
        assert line, seen
        seen += line
    return seen


def list_jobs(terminal: Terminal) -> list[dict[str, str]]:
    return json.loads(terminal.pipe("list", "--json").stdout)["jobs"]


@pytest.mark.parametrize("command", [["run"], ["run", "--json"], ["start"], ["start", "--json"], ["start", "--wait"]])
def test_first_ctrl_c_waits_for_the_response_id(terminal: Terminal, upstream: RunningServer, command: list[str]):
    with running_command(terminal, *command, script_prompt(WORK, SLOW_CREATE)) as process:
        wait_for_create(upstream)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 130
    [job] = list_jobs(terminal)
    assert job["job_id"] in stdout + stderr
    assert "Waiting for the provider to confirm the job" in stderr
    assert f"Interrupted. Stopped watching {job['job_id']}. It is still running at the provider." in stderr
    again = terminal.pipe("run", script_prompt(WORK, SLOW_CREATE))
    assert (again.returncode, again.stdout) == (0, "Done.\n")
    state = "(is already in progress|has already finished)"
    answers = rf"^{job['job_id']}: An identical job {state}; showing that one\. Use `--new` to start another\.$"
    assert re.search(answers, again.stderr, re.M), again.stderr
    assert upstream.emulator.counters()["creates"] == 1


@pytest.mark.parametrize("command", [["run"], ["start"]])
def test_second_ctrl_c_leaves_at_once_and_names_jobs_that_may_be_running(
    terminal: Terminal, upstream: RunningServer, command: list[str]
):
    with running_command(terminal, *command, script_prompt(WORK, NEVER_NAMED)) as process:
        wait_for_create(upstream)
        process.send_signal(signal.SIGINT)
        seen = read_until(process.stderr, "Press Ctrl-C again to leave now")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 130
    [job_id] = set(JOB_ID.findall(stdout + seen + stderr))
    assert f"Interrupted. Stopped watching {job_id}. It may be running and billed" in stderr


def test_unconfirmed_start_names_the_flag_that_starts_another(terminal: Terminal, upstream: RunningServer):
    asked = script_prompt(WORK, {"text": "Done.", "faults": [{"on": "create", "status": 500, "after_accept": True}]})
    assert terminal.pipe("run", asked).returncode == 3
    again = terminal.pipe("run", asked)
    assert again.returncode == 3
    assert (
        "The start of an identical job is unconfirmed; showing that one. Use `--new` to start another." in again.stderr
    )
    before = upstream.emulator.counters()["creates"]
    terminal.pipe("run", "--new", asked)
    assert upstream.emulator.counters()["creates"] == before + 1


def test_person_is_asked_before_an_unconfirmed_start_answers(terminal: Terminal):
    asked = script_prompt(WORK, {"text": "Done.", "faults": [{"on": "create", "status": 500, "after_accept": True}]})
    assert terminal.pipe("run", asked).returncode == 3
    refused = terminal.show("run", asked, stop=lambda seen: "[y/N]" in seen, keys="n\n")
    assert "You may pay twice." in refused.text
    assert refused.returncode == 3
    assert len(list_jobs(terminal)) == 1
    terminal.show("run", asked, stop=lambda seen: "[y/N]" in seen, keys="y\n")
    assert len(list_jobs(terminal)) == 2


def test_unsent_job_is_named_before_it_is_sent(terminal: Terminal):
    left = terminal.show("run", WORK, stop=lambda seen: "Not sent yet" in seen, OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    [job] = list_jobs(terminal)
    assert (left.returncode, job["status"]) == (130, "pending")
    watched = terminal.show("watch", stop=lambda seen: "did not send" in seen, OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert f"Sending {job['job_id']}, which an earlier command did not send: {WORK[:20]}" in watched.text.replace(
        "\n", " "
    )


def test_job_of_another_endpoint_is_not_reported_as_sent(terminal: Terminal):
    terminal.show("run", WORK, stop=lambda seen: "Not sent yet" in seen, OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    other = terminal.pipe("run", "Other work")
    assert other.returncode == 0
    assert "did not send" not in other.stderr


def test_prompt_that_went_to_a_wrong_address_is_sent_to_the_right_one(terminal: Terminal):
    wrong = terminal.show(
        "run", WORK, stop=lambda seen: "Not sent yet" in seen, OPENAI_BASE_URL="http://127.0.0.1:9/v1"
    )
    assert wrong.returncode == 130
    right = terminal.pipe("run", WORK)
    assert right.returncode == 0
    assert "identical" not in right.stderr
    assert {job["status"] for job in list_jobs(terminal)} == {"pending", "completed"}


#: Presses Ctrl-C when a function is entered: `{function: [the end of its file's path, number of times]}`.
PRESS = """
import os, signal, sys
places = {places!r}
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored
def press(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_qualname in places and code.co_filename.endswith(places[code.co_qualname][0]):
        for _ in range(places.pop(code.co_qualname)[1]):
            os.kill(os.getpid(), signal.SIGINT)
sys.setprofile(press)
"""


def press_at(terminal: Terminal, *command: str, **places: tuple[str, int]) -> "subprocess.CompletedProcess[str]":
    """Run a command that presses Ctrl-C on itself when it enters these functions."""
    folder = terminal.folder.parent / "press"
    folder.mkdir()
    named = {name.replace("__", "."): place for name, place in places.items()}
    (folder / "sitecustomize.py").write_text(PRESS.format(places=named))
    return terminal.pipe(*command, PYTHONPATH=str(folder), AGENT_JOBS_LOG_LEVEL="error")


MODULE = "<module>"


@pytest.mark.parametrize(
    ("command", "function", "file"),
    [
        (["list"], "_serve_or_command", "agent_jobs/__main__.py"),
        (["run", "x"], MODULE, "agent_jobs/cli/main.py"),
        (["--help"], "Command.make_context", "click/core.py"),
        (["doctor"], "Commands.resolve_command", "cli/main.py"),
        (["list"], "Settings.from_env", "agent_jobs/settings/settings.py"),
        (["run", "x"], MODULE, "agent_jobs/engine/start.py"),  # the event loop imports this module and the next
        (["start", "x"], MODULE, "agent_jobs/engine/worker.py"),
        (["list"], MODULE, "agent_jobs/store/records.py"),
        (["list"], "shutdown", "logging/__init__.py"),
        (["list"], "_shutdown", "threading.py"),
        (["result", "x", "--json"], "Refusal.show", "cli/session.py"),
    ],
    ids=str,
)
def test_ctrl_c_is_reported_alike_in_every_phase(terminal: Terminal, command: list[str], function: str, file: str):
    """Ctrl-C is pressed in every phase: while the command imports, parses, opens, prints, and exits."""
    interrupted = press_at(terminal, *command, **{function.replace(".", "__"): (file, 2)})
    assert (interrupted.returncode, interrupted.stderr) == (130, "Interrupted.\n")


def test_ctrl_c_does_not_kill_what_python_is_tearing_down(terminal: Terminal):
    # Python clears its modules last, after it has removed its signal handlers.
    folder = terminal.folder.parent / "press"
    folder.mkdir()
    last = "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nclass Last:\n"
    last += " def __del__(self, kill=os.kill, pid=os.getpid()):\n  kill(pid, 2)\nlast = Last()\n"
    (folder / "sitecustomize.py").write_text(last)
    finished = terminal.pipe("list", PYTHONPATH=str(folder))
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize(
    "places",
    [
        {"watch_until_done": ("cli/watch.py", 1), "App__hurry": ("agent_jobs/app.py", 1)},
        {"watch_until_done": ("cli/watch.py", 2)},
        {"watch_until_done": ("cli/watch.py", 1), "Interrupted__show": ("cli/interruption.py", 1)},
        {"watch_until_done": ("cli/watch.py", 1), "shutdown": ("logging/__init__.py", 1)},
    ],
    ids=["closing", "before the loop turns", "reporting", "atexit"],
)
def test_second_ctrl_c_exits_at_once_with_the_same_message(terminal: Terminal, places: dict[str, tuple[str, int]]):
    interrupted = press_at(terminal, "run", script_prompt(WORK, {"duration_s": 3000}), **places)
    [job] = list_jobs(terminal)
    assert interrupted.returncode == 130
    assert interrupted.stderr.splitlines()[-1].startswith(
        f"Interrupted. Stopped watching {job['job_id']}. It is still running at the provider."
    )
    assert interrupted.stderr.count("Interrupted.") == 1


def test_ctrl_c_after_the_end_still_shows_the_answer(terminal: Terminal):
    finished = press_at(terminal, "run", script_prompt(WORK, {"text": "Done."}), App__hurry=("agent_jobs/app.py", 1))
    assert (finished.returncode, finished.stdout) == (0, "Done.\n")


def test_run_json_lists_the_needs_of_a_waiting_job(terminal: Terminal):
    function = '{"type":"function","name":"look_up","parameters":{"type":"object","properties":{}}}'
    asked = script_prompt(WORK, {"function_calls": [{"name": "look_up", "arguments": {}}]})
    finished = terminal.pipe("run", "--json", "--option", f"tools=[{function}]", asked)
    answer = json.loads(finished.stdout)
    assert finished.returncode == 6
    assert answer["needs"][0]["name"] == "look_up"
    assert answer["next"] == f"agent-jobs reply {answer['job_id']}"
