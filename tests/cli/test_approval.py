"""The user answers a job's questions at the terminal, and is asked nowhere else."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hosts import script_prompt
from terminals import Shown, Terminal

from agent_jobs.cli.display.bell import ring_bell
from agent_jobs.emulator.server import RunningServer
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.status import Status

SUPPORT = Path(__file__).parents[1] / "support"
FUNCTION: dict[str, Any] = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
SHOP: dict[str, Any] = {"type": "mcp", "server_label": "tracker", "server_url": "https://tracker.example/mcp"}
CLOSE = {"server_label": "tracker", "name": "close_ticket", "arguments": '{"id": 42}'}
QUESTION = 'Allow tracker/close_ticket {"id": 42}? [y/N/always] '


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


def run_asking(terminal: Terminal, keys: str, script: dict[str, Any], tool: dict[str, Any], **more: Any) -> Shown:
    asked = script_prompt("Close it", {"duration_s": 1, "text": "Closed.", **script})
    return terminal.show(
        "run", asked, "--option", f"tools={json.dumps([tool])}", stop=is_asking, keys=keys, columns=120, **more
    )


def is_asking(seen: str) -> bool:
    return "[y/N/always]" in seen or "Output of" in seen


def read_calls(terminal: Terminal) -> list[dict[str, Any]]:
    [job] = json.loads(terminal.pipe("list", "--json").stdout)["jobs"]
    items = json.loads(terminal.pipe("result", job["job_id"], "--part", "items", "--json").stdout)["items"]
    return [item for item in items if item["type"] == "call"]


@pytest.mark.parametrize(
    ("keys", "output"),
    [
        ("y\n", "True"),
        ("YES\n", "True"),
        ("always\n", "True"),
        ("\n", "The user denied this call."),
        ("n\n", "The user denied this call."),
        ("what\nn\n", "The user denied this call."),
    ],
)
def test_call_is_allowed_or_refused_at_the_terminal(terminal: Terminal, keys: str, output: str):
    shown = run_asking(terminal, keys, {"mcp_approval": CLOSE}, SHOP)
    assert QUESTION in shown.text
    assert ("y allows this call" in shown.text) == keys.startswith("what")
    assert shown.returncode == 0
    assert "completed" in shown.text
    assert [call["output"] for call in read_calls(terminal)] == [output]


def test_question_mark_shows_all_arguments(terminal: Terminal):
    arguments = json.dumps({"why": "x" * 300 + "\u202eend", "id": 7}, ensure_ascii=False)
    shown = run_asking(terminal, "?\nn\n", {"mcp_approval": {**CLOSE, "arguments": arguments}}, SHOP)
    question, _, rest = shown.text.partition("[y/N/always]")
    assert "more characters: ?]?" in question
    assert "u202e" not in question
    assert r"\u202eend" in rest
    assert shown.returncode == 0


def test_always_allows_further_calls_of_the_same_tool_by_the_same_job(terminal: Terminal):
    turns = [{"mcp_approval": CLOSE}, {"mcp_approval": CLOSE}, {"text": "Both closed."}]
    shown = run_asking(terminal, "always\n", {"turns": turns}, SHOP)
    assert shown.returncode == 0, shown.text
    assert shown.text.count("[y/N/always]") == 1
    [job] = json.loads(terminal.pipe("list", "--json").stdout)["jobs"]
    assert "tracker/close_ticket is allowed until this job ends. Take that back with:" in shown.text
    assert f"agent-jobs reply {job['job_id']} --ask-again tracker/close_ticket" in shown.text
    assert "Both closed." in shown.text


def test_tool_of_the_users_own_server_is_named_with_its_server(terminal: Terminal):
    toolbox = terminal.folder.parent / "tools.json"
    server = {"command": sys.executable, "args": ["-S", str(SUPPORT / "tool_server.py")]}
    toolbox.write_text(json.dumps({"mcpServers": {"tracker": server}}))
    call = {"name": "tracker__write", "arguments": {"id": 42}}
    shown = terminal.show(
        "run", script_prompt("Write it", {"duration_s": 1, "function_calls": [call]}),
        "--option", 'toolbox=["tracker"]',
        stop=is_asking, keys="y\n", columns=120, AGENT_JOBS_TOOLBOX=str(toolbox),
    )  # fmt: skip
    assert 'Allow tracker/write {"id": 42}? [y/N/always] ' in shown.text
    assert shown.returncode == 0, shown.text


def test_output_of_a_function_is_requested(terminal: Terminal):
    script = {"function_calls": [{"name": "look_up", "arguments": {"what": "it"}}]}
    shown = run_asking(terminal, "It is blue.\n", script, FUNCTION)
    assert 'Output of look_up {"what": "it"} (empty: later, ?: all arguments): ' in shown.text
    assert shown.returncode == 0
    assert [call["output"] for call in read_calls(terminal)] == ["It is blue."]


@pytest.mark.parametrize(
    ("keys", "status", "words"),
    [
        ("\x04", 6, "stays waiting. Answer it with: agent-jobs reply job_"),
        ("\x03", 130, "Interrupted. job_"),
    ],
    ids=["end of input", "ctrl-c"],
)
def test_unanswered_question_leaves_the_job_waiting_and_says_how_to_answer_it(
    terminal: Terminal, keys: str, status: int, words: str
):
    shown = run_asking(terminal, keys, {"mcp_approval": CLOSE}, SHOP)
    assert shown.returncode == status
    assert words in shown.text
    [job] = json.loads(terminal.pipe("list", "--json").stdout)["jobs"]
    assert f"agent-jobs reply {job['job_id']}" in shown.text
    assert job["status"] == "input_required"
    answered = terminal.show("reply", job["job_id"], stop=is_asking, keys="y\n")
    assert answered.returncode == 0, answered.text
    assert terminal.pipe("watch", job["job_id"]).returncode == 0


def test_watch_asks_the_user_on_a_terminal_only(terminal: Terminal):
    asked = script_prompt("Close it", {"duration_s": 1, "text": "Closed.", "mcp_approval": CLOSE})
    ran = terminal.pipe("run", asked, "--option", f"tools={json.dumps([SHOP])}")
    [job] = json.loads(terminal.pipe("list", "--json").stdout)["jobs"]
    assert ran.returncode == 6
    assert f"See what it asks for with: agent-jobs reply {job['job_id']}" in ran.stderr
    assert "[y/N/always]" not in ran.stdout + ran.stderr
    assert terminal.pipe("watch", job["job_id"]).returncode == 6
    assert terminal.show("watch", "--json", job["job_id"]).returncode == 6
    watched = terminal.show("watch", job["job_id"], stop=is_asking, keys="y\n", columns=120)
    assert watched.returncode == 0
    assert QUESTION in watched.text


class _Screen:
    """A stream that keeps what is written, and may claim to be a terminal."""

    def __init__(self, *, is_terminal: bool) -> None:
        self.written = ""
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> None:
        self.written += text

    def flush(self) -> None:
        pass


def build_finished_job(seconds: float, title: str = "Compare\x1b]0;x\x07 caches", finished_at: float = 1000.0) -> Job:
    turn = Turn(number=1, request={}, request_id="r", base_url="http://x/v1")
    return Job(
        id="job_1", title=title, status=Status.COMPLETED, created_at=finished_at - seconds, turn=turn,
        finished_at=finished_at,
    )  # fmt: skip


NOTICE = "\a\x1b]9;agent-jobs: completed: Compare]0;x caches\a"


@pytest.mark.parametrize(
    ("jobs", "environment", "is_terminal", "output"),
    [
        ([build_finished_job(61)], {}, True, NOTICE),
        ([build_finished_job(59)], {}, True, ""),
        ([build_finished_job(61)], {}, False, ""),
        ([build_finished_job(61)], {"NO_COLOR": "1"}, True, ""),
        ([build_finished_job(61)], {"TERM": "dumb"}, True, ""),
        ([build_finished_job(61)], {"TERM": "linux"}, True, "\a"),
        ([build_finished_job(61, finished_at=10.0)], {}, True, ""),  # it had finished before it was watched
        (
            [build_finished_job(61), build_finished_job(70), build_finished_job(5)],
            {},
            True,
            "\a\x1b]9;agent-jobs: 2 jobs have finished\a",
        ),
        ([], {}, True, ""),
    ],
)
def test_bell_rings_for_a_long_job_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, jobs: list[Job], environment: dict[str, str], is_terminal: bool, output: str
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    screen = _Screen(is_terminal=is_terminal)
    monkeypatch.setattr("sys.stderr", screen)
    ring_bell(jobs, since=900.0)
    assert screen.written == output
