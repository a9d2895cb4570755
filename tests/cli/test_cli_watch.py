"""The user watches jobs from the terminal, and leaves them with Ctrl-C."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fork_server import COMMAND, Process
from hosts import script_prompt
from processes import serving
from terminals import ESCAPES, KEY, Terminal, screen

from agent_jobs.emulator.server import RunningServer, run_emulator

WORK = "Compare three caches and say in many words which of them is to be taken for what, and why"
LONG = {"duration_s": 3000}
#: The words by which a terminal shows a running job.
RUNS = re.compile(r"\b(working|thinking|searching|writing)\b")


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


def is_running(seen: str) -> bool:
    return RUNS.search(ESCAPES.sub("", seen)) is not None


def start_job(terminal: Terminal, prompt: str) -> str:
    return terminal.pipe("start", "--detach", prompt).stdout.strip()


@pytest.mark.parametrize("columns", [80, 160])
def test_terminal_shows_a_job_in_place_as_wide_as_it_is(tmp_path: Path, columns: int):
    with run_emulator(time_scale=2) as upstream:
        terminal = Terminal(upstream.base_url, tmp_path / "data")
        script = {"duration_s": 12, "searches": 2, "text": "Words over words, 東京 among them. " * 40}
        job_id = start_job(terminal, script_prompt(WORK, script))
        shown = terminal.show("watch", job_id, columns=columns)
    assert shown.returncode == 0
    assert shown.width <= columns
    assert shown.colours
    assert re.search(r"writing +0:\d\d  2 searches", shown.text)
    assert "Words over words" in shown.text
    assert f"{job_id}  completed" in shown.text
    assert f"agent-jobs result {job_id[:10]}" in shown.text


def test_terminal_shows_the_reasoning_before_the_text_begins(terminal: Terminal):
    script = {"duration_s": 600, "reasoning": 60}
    job_id = terminal.pipe(
        "start", "--detach", "--option", 'reasoning_summary="auto"', script_prompt(WORK, script)
    ).stdout.strip()
    shown = terminal.show("watch", job_id, stop=lambda seen: "This is emulated reasoning" in seen)
    assert shown.returncode == 130
    assert "emulated answer" not in shown.text


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(terminal: Terminal, upstream: RunningServer):
    job_id = start_job(terminal, script_prompt(WORK, LONG))
    left = terminal.show("watch", job_id, stop=is_running)
    assert left.returncode == 130
    assert f"Resume with: agent-jobs watch {job_id}" in left.text
    assert upstream.emulator.counters()["cancels"] == 0
    assert terminal.pipe("cancel", job_id).returncode == 0
    assert terminal.show("watch", job_id).returncode == 5


@pytest.mark.parametrize("command", [["run"], ["start", "--wait"]], ids=["run", "start"])
def test_ctrl_c_leaves_started_jobs_running_too(terminal: Terminal, command: list[str]):
    left = terminal.show(*command, script_prompt(WORK, LONG), stop=is_running)
    assert left.returncode == 130
    [job] = json.loads(terminal.pipe("list", "--json").stdout)["jobs"]
    resume = f"Resume with: agent-jobs watch {job['job_id']}"
    assert f"Stopped watching {job['job_id']}. It is still running at the provider. {resume}" in left.one_line
    assert job["status"] == "in_progress"


@pytest.mark.parametrize("command", ["run", "start"])
def test_run_that_ends_with_its_command_is_not_reported_as_continuing(terminal: Terminal, command: str):
    asked = script_prompt(WORK, LONG)
    left = terminal.show(command, asked, stop=is_running, AGENT_JOBS_MODE="foreground")
    assert left.returncode == 130
    [job] = json.loads(terminal.pipe("list", "--json").stdout)["jobs"]
    assert f"Stopped watching {job['job_id']}. It stops with this process." in left.one_line
    assert "Ctrl-C stops waiting" not in left.one_line
    assert "interrupted: " in terminal.pipe("watch", job["job_id"]).stdout


def test_watch_reports_jobs_that_end_with_their_sending_process(terminal: Terminal, upstream: RunningServer):
    with serving(terminal.folder, upstream.base_url, OPENAI_API_KEY=KEY, AGENT_JOBS_MODE="foreground") as server:
        server.initialize()
        theirs = server.call("agent_start", prompt=script_prompt(WORK, LONG), wait_s=0)["job_id"]
        left = terminal.show("watch", theirs, stop=is_running)
        assert (
            f"Stopped watching {theirs}. It stops with the process that sent it. Resume with: agent-jobs watch {theirs}"
            in left.one_line
        )
        start_job(terminal, script_prompt("Other", LONG))
        left = terminal.show("watch", stop=lambda seen: len(RUNS.findall(screen(seen))) >= 2)
        assert (
            "Stopped watching 2 jobs. Still running at the provider: 1. Stopping with the process that sent them: 1."
            in left.one_line
        )


def test_unsent_job_is_not_reported_as_running(terminal: Terminal):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        left = terminal.show("run", WORK, stop=lambda seen: "not sent yet" in seen, OPENAI_BASE_URL=nowhere)
    [job] = json.loads(terminal.pipe("list", "--json").stdout)["jobs"]
    assert f"Stopped watching {job['job_id']}. It has not been sent yet. Resume with: agent-jobs watch" in left.one_line
    start_job(terminal, script_prompt("Other", LONG))
    left = terminal.show("watch", stop=is_running)
    assert "Stopped watching 2 jobs. Still running at the provider: 1. Not sent yet: 1." in left.one_line


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal that closes sends SIGHUP")
@pytest.mark.parametrize("ignored", [False, True], ids=["closed", "under nohup"])
def test_terminal_that_closes_is_left_as_with_ctrl_c(terminal: Terminal, upstream: RunningServer, ignored: bool):
    command = [*["nohup"] * ignored, *COMMAND, "run", script_prompt(WORK, {"duration_s": 30, "text": "Done."})]
    with Process(command, env=terminal.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while "in_progress" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        out, stderr = process.communicate(timeout=60)
    assert (process.returncode, out) == ((0, "Done.\n") if ignored else (130, ""))
    assert ("It is still running at the provider" in stderr) is not ignored


def test_run_shows_progress_beside_its_answer(terminal: Terminal):
    shown = terminal.show("run", script_prompt("Ask", {"duration_s": 20, "text": "The answer."}))
    assert shown.returncode == 0
    assert is_running(shown.text)
    assert "The answer.\n" in shown.text


def test_plain_terminal_gets_one_line_for_each_change(terminal: Terminal):
    job_id = start_job(terminal, script_prompt(WORK, {"duration_s": 10, "searches": 1}))
    assert not terminal.show("watch", job_id, NO_COLOR="1").colours
    dumb = terminal.show("watch", job_id, TERM="dumb")
    assert "\x1b" not in dumb.raw
    piped = terminal.pipe("watch", job_id)
    assert piped.stdout.splitlines()[-1].startswith(job_id)
    assert "\x1b" not in piped.stdout + piped.stderr


def test_every_change_is_one_json_object(terminal: Terminal):
    job_id = start_job(terminal, script_prompt(WORK, {"duration_s": 20, "searches": 1}))
    rows = [json.loads(line) for line in terminal.pipe("watch", job_id, "--json").stdout.splitlines()]
    assert {row["job_id"] for row in rows} == {job_id}
    assert [row["status"] for row in rows][-1] == "completed"
    assert len(rows) == len({(row["status"], row.get("activity")) for row in rows})


def test_watch_all_waits_for_all_jobs_and_exits_with_the_worst_status(terminal: Terminal):
    good = start_job(terminal, script_prompt("Good", {"duration_s": 15}))
    bad = start_job(terminal, script_prompt("Bad", {"duration_s": 10, "end": "failed", "error_message": "No luck."}))
    shown = terminal.show("watch")
    assert shown.returncode == 3
    assert f"{good}  completed" in shown.text
    assert "No luck." in shown.text
    assert bad in shown.text
    assert "No jobs are running. `agent-jobs list` shows finished ones." in terminal.pipe("watch", "--all").stdout


def test_more_jobs_than_lines_leave_room_for_running_ones(terminal: Terminal):
    done = [{"prompt": f"Task {number}"} for number in range(30)]
    tasks = terminal.folder.parent / "tasks.jsonl"
    tasks.write_text("\n".join(map(json.dumps, done)))
    terminal.pipe("batch", str(tasks), "--out", str(terminal.folder.parent / "out"), "--concurrency", "30")
    ids = [job["job_id"] for job in json.loads(terminal.pipe("list", "-n", "30", "--json").stdout)["jobs"]]
    running_id = start_job(terminal, script_prompt("Goes on", LONG))
    shown = terminal.show("watch", running_id, *ids, stop=lambda seen: "9 more" in seen and is_running(seen))
    assert "and 9 more" in shown.text
    assert re.search(rf"{running_id}  {RUNS.pattern}", shown.text)


def test_watch_runs_the_jobs_of_a_server_that_died(terminal: Terminal, upstream: RunningServer):
    with serving(terminal.folder, upstream.base_url, OPENAI_API_KEY=KEY) as server:
        server.initialize()
        script = {"duration_s": 20, "text": "Safe."}
        job_id = server.call("agent_start", prompt=script_prompt(WORK, script), wait_s=0)["job_id"]
    assert terminal.pipe("watch", job_id).returncode == 0
    assert terminal.pipe("result", job_id).stdout == "Safe.\n"


def test_ids_and_all_exclude_each_other(terminal: Terminal):
    assert terminal.pipe("watch", "job_1", "--all").returncode == 2
