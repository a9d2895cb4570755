"""`batch` runs a file of prompts from the terminal, even if its process is killed."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from fork_server import COMMAND, Process
from hosts import script_prompt
from terminals import KEY, LIMIT_S, Terminal

from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer, run_emulator


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


def write_tasks(terminal: Terminal, *lines: Any) -> Path:
    path = terminal.folder.parent / "tasks.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def run_batch(terminal: Terminal, tasks: Path, *more: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return terminal.pipe("batch", str(tasks), "--out", "out", *more, **environment)


def read_results(terminal: Terminal) -> list[dict[str, Any]]:
    """Return the results whose lines are complete."""
    path = terminal.folder.parent / "out" / "results.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def count_results(terminal: Terminal) -> int:
    """Return the number of results whose lines are complete, without parsing them."""
    path = terminal.folder.parent / "out" / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def count_creates(upstream: RunningServer) -> Counter[str]:
    """Count the create requests of each task."""
    texts = [entry.get("text") or "" for entry in upstream.emulator.log() if entry["entry"] == "response"]
    return Counter(found[0] for text in texts if (found := re.search(r"Task \d+\b", text)))


def test_two_hundred_prompts_survive_two_kills_and_run_once_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    began = time.monotonic()
    with run_emulator(time_scale=10) as upstream:
        terminal = Terminal(upstream.base_url, tmp_path / "data")
        tasks = write_tasks(terminal, *({"prompt": script_prompt(f"Task {n}", {"duration_s": 10})} for n in range(200)))
        command = [*COMMAND, "batch", str(tasks), "--out", str(tmp_path / "out"), "--concurrency", "40"]
        for kill_at in (50, 110):
            with Process(command, env=terminal.environment(AGENT_JOBS_MAX_CONCURRENT="40")) as process:
                until = time.monotonic() + LIMIT_S
                while count_results(terminal) < kill_at and time.monotonic() < until:
                    time.sleep(0.01)
                process.send_signal(signal.SIGKILL)
            assert kill_at <= len(read_results(terminal)) < 200
        last = run_batch(terminal, tasks, "--concurrency", "40", "--json", AGENT_JOBS_MAX_CONCURRENT="40")
        counters = upstream.emulator.counters()
        times = count_creates(upstream)
    rows = read_results(terminal)
    assert sorted(row["line"] for row in rows) == list(range(1, 201))
    assert len({row["job_id"] for row in rows}) == 200
    assert set(counters["creates_by_request_id"].values()) == {1}
    assert max(times.values()) == 1
    # If the process is killed between the first byte of a POST and the response's id, the start is unconfirmed.
    unconfirmed = [row for row in rows if row["status"] == "failed"]
    assert all(row["error"]["code"] == "start_unconfirmed" for row in unconfirmed)
    assert all(f"Task {row['line'] - 1}" in row["output"] for row in rows if row not in unconfirmed)
    assert len(unconfirmed) <= 80
    assert last.returncode == (3 if unconfirmed else 0)
    assert json.loads(last.stdout)["counts"]["completed"] == 200 - len(unconfirmed)
    with capsys.disabled():
        sys.stdout.write(
            f"\n200 prompts, killed twice: {time.monotonic() - began:.1f} s, "
            f"{counters['creates']} POSTs, {len(unconfirmed)} unconfirmed\n"
        )


def test_lines_may_be_texts_or_objects_and_the_same_line_twice_is_two_jobs(terminal: Terminal, upstream: RunningServer):
    tasks = write_tasks(terminal, "Task 1", "Task 1", {"prompt": "Task 2", "options": {"verbosity": "low"}})
    assert run_batch(terminal, tasks, "--name", "night").returncode == 0
    assert [row["status"] for row in read_results(terminal)] == ["completed"] * 3
    assert count_creates(upstream) == {"Task 1": 2, "Task 2": 1}
    found = json.loads(terminal.pipe("list", "--batch", "night", "--json").stdout)
    assert found["counts"] == {"completed": 3}


def test_batch_may_run_more_jobs_at_once_than_the_default_limit(terminal: Terminal, upstream: RunningServer):
    tasks = write_tasks(terminal, *(script_prompt(f"Task {n}", {"end": "never"}) for n in range(12)))
    command = [*COMMAND, "batch", str(tasks), "--out", str(terminal.folder / "out"), "--concurrency", "20"]
    with Process(command, env=terminal.environment(), stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + LIMIT_S
        while upstream.emulator.counters()["creates"] < 12 and time.monotonic() < until:
            time.sleep(0.05)
        process.kill()
    assert upstream.emulator.counters()["creates"] == 12


def test_limit_of_the_user_is_obeyed_and_named(terminal: Terminal):
    tasks = write_tasks(terminal, "Task 1", "Task 2", "Task 3")
    finished = run_batch(terminal, tasks, "--concurrency", "20", AGENT_JOBS_MAX_CONCURRENT="2")
    assert finished.returncode == 0
    assert finished.stderr.startswith(
        "AGENT_JOBS_MAX_CONCURRENT=2 limits this batch to 2 jobs at once. "
        "Set AGENT_JOBS_MAX_CONCURRENT=3, or unset it.\n"
    )


def test_lines_that_are_added_or_moved_cost_nothing_again(terminal: Terminal, upstream: RunningServer):
    run_batch(terminal, write_tasks(terminal, "Task 1", "Task 2"))
    assert run_batch(terminal, write_tasks(terminal, "Task 3", "Task 2", "Task 1")).returncode == 0
    assert count_creates(upstream) == {"Task 1": 1, "Task 2": 1, "Task 3": 1}
    assert len(read_results(terminal)) == 3


def test_result_line_cut_off_by_a_kill_is_written_again(terminal: Terminal, upstream: RunningServer):
    tasks = write_tasks(terminal, "Task 1", "Task 2 \u2028 on one line")
    run_batch(terminal, tasks)
    path = terminal.folder.parent / "out" / "results.jsonl"
    path.write_text(path.read_text()[:-20])
    assert run_batch(terminal, tasks).returncode == 0
    assert len(read_results(terminal)) == 2
    assert upstream.emulator.counters()["creates"] == 2


def test_result_is_one_line_for_every_reader(terminal: Terminal):
    text = "a\u2028b\u2029c\x85d\x0be\x1cf"
    tasks = write_tasks(terminal, script_prompt("Task 1", {"duration_s": 1, "text": text}))
    assert run_batch(terminal, tasks).returncode == 0
    path = terminal.folder.parent / "out" / "results.jsonl"
    [line] = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["output"] == text
    [shown] = terminal.pipe("result", json.loads(line)["job_id"], "--json").stdout.splitlines()
    assert json.loads(shown)["output"] == text


def test_failures_are_tried_again_only_when_that_is_requested(terminal: Terminal, upstream: RunningServer):
    tasks = write_tasks(terminal, script_prompt("Task 1", {"end": "failed"}), "Task 2")
    assert run_batch(terminal, tasks).returncode == 3
    assert run_batch(terminal, tasks).returncode == 3
    assert upstream.emulator.counters()["creates"] == 2
    assert run_batch(terminal, tasks, "--retry").returncode == 3
    assert upstream.emulator.counters()["creates"] == 3
    assert [row["status"] for row in read_results(terminal)].count("failed") == 2


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("not json", "Line 2"),
        ("[1]", "Line 2"),
        ('{"promt": "x"}', "Line 2"),
        ('{"prompt": "x", "modle": "y"}', "'modle'"),
        ('{"prompt": "x", "options": []}', "Line 2: options accepts an object."),
        ('{"prompt": "x", "files": "design.md"}', "Line 2: files accepts a list of paths."),
        ('{"prompt": "x", "files": [1]}', "Line 2: files accepts a list of paths."),
        ('{"prompt": "x", "web_search": "no"}', "Line 2: web_search accepts true or false."),
        ("[" * 100_000, "Line 2"),
    ],
)
def test_line_that_is_no_task_is_named_before_anything_is_started(
    terminal: Terminal, upstream: RunningServer, line: str, hint: str
):
    tasks = write_tasks(terminal, "Task 1")
    tasks.write_text(tasks.read_text() + line + "\n")
    refused = run_batch(terminal, tasks)
    assert refused.returncode == 1
    assert hint in refused.stderr
    assert upstream.emulator.counters()["creates"] == 0


def test_line_with_a_file_that_is_not_attached_is_refused_by_its_number(terminal: Terminal, tmp_path: Path):
    (tmp_path / ".env").touch()
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(json.dumps({"prompt": "x", "files": [str(tmp_path / ".env")]}))
    refused = run_batch(terminal, tasks)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("Error: Line 1: .env seems to contain keys")


def test_two_batches_never_write_into_one_folder(terminal: Terminal, upstream: RunningServer, tmp_path: Path):
    slow = write_tasks(terminal, script_prompt("Task 1", {"duration_s": 60}))
    command = [*COMMAND, "batch", str(slow), "--out", str(tmp_path / "out")]
    with Process(command, env=terminal.environment(), stderr=subprocess.DEVNULL) as first:
        until = time.monotonic() + LIMIT_S
        while not upstream.emulator.counters()["creates"] and time.monotonic() < until:
            time.sleep(0.01)
        second = terminal.pipe("batch", str(slow), "--out", str(tmp_path / "out"))
        assert (second.returncode, second.stdout) == (1, "")
        assert "Another batch writes to" in second.stderr
        first.send_signal(signal.SIGKILL)
    slow.write_text("")
    assert terminal.pipe("batch", str(slow), "--out", str(tmp_path / "out")).returncode == 0


@pytest.mark.parametrize("option", ["dry_run", "key"])
def test_option_that_has_no_place_in_a_batch_is_refused_before_anything_is_sent(
    terminal: Terminal, upstream: RunningServer, option: str
):
    refused = run_batch(terminal, write_tasks(terminal, {"prompt": "x", "options": {option: True}}))
    assert refused.returncode == 1
    assert f"Line 1: the option {option} is not allowed in a batch" in refused.stderr
    assert upstream.emulator.counters()["creates"] == 0


def test_job_that_needs_an_answer_is_cancelled_in_a_batch(terminal: Terminal):
    tool: dict[str, Any] = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}
    prompt = script_prompt("Task 1", {"duration_s": 0.2, "function_calls": [{"name": "lookup", "arguments": {}}]})
    tasks = write_tasks(terminal, {"prompt": prompt, "options": {"tools": [tool]}})
    assert run_batch(terminal, tasks).returncode == 5
    assert [row["status"] for row in read_results(terminal)] == ["cancelled"]


def test_refused_line_ends_the_batch_in_one_sentence(terminal: Terminal):
    tasks = write_tasks(terminal, "Task 1", {"prompt": "Task 2", "effort": "enormous"})
    refused = run_batch(terminal, tasks)
    assert refused.returncode == 1
    [message] = refused.stderr.splitlines()
    assert message.startswith("Error: Line 2: effort does not accept 'enormous'")
    as_json = run_batch(terminal, tasks, "--json")
    assert json.loads(as_json.stdout)["error"]["message"].startswith("Line 2: effort")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"prompt": ""}, "prompt is empty."),
        ({"prompt": " \n\t\u3000"}, "prompt is empty."),
        ("", "prompt is empty."),
        ("  ", "prompt is empty."),
        ({"prompt": None}, "this is not a JSON object with a prompt"),
        ({"prompt": 1}, "this is not a JSON object with a prompt"),
        ({"prompt": ["x"]}, "this is not a JSON object with a prompt"),
        ({"prompt": "x", "preset": "no-such"}, "preset does not accept 'no-such'."),
        ({"prompt": "x", "preset": ""}, "preset does not accept ''."),
        ({"prompt": "x", "effort": "enormous"}, "effort does not accept 'enormous'."),
        ({"prompt": "x", "files": ["none.txt"]}, "none.txt"),
        ({"prompt": "x", "options": {"verbosty": "low"}}, "options does not accept 'verbosty'."),
        ({"prompt": "x", "options": {"temperature": 9}}, "options.temperature accepts"),
        ({"prompt": "x", "options": {"timeout_s": "long"}}, "options.timeout_s accepts"),
        ({"prompt": "x", "options": {"toolbox": ["none"]}}, "There are no tool servers."),
    ],
)
def test_line_that_cannot_be_started_is_refused_before_anything_is_sent(
    terminal: Terminal, upstream: RunningServer, tmp_path: Path, line: Any, problem: str
):
    tasks = write_tasks(terminal, "Task 1", {"prompt": "Task 2"}, line, {"prompt": "Task 4"})
    command = ["batch", str(tasks), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(cli, command, env=terminal.environment(AGENT_JOBS_MAX_CONCURRENT="1"))
    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: Line 3: ")  # no hint is printed before the error
    assert problem in refused.stderr
    assert upstream.emulator.counters()["creates"] == 0
    assert read_results(terminal) == []


def test_files_of_equal_lines_are_attached_to_each(terminal: Terminal, upstream: RunningServer, tmp_path: Path):
    (tmp_path / "note.txt").write_text("the note")
    lines = [{"prompt": f"Task {n}", "files": ["note.txt"]} for n in range(2)]
    command = ["batch", str(write_tasks(terminal, *lines)), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(cli, command, env=terminal.environment()).exit_code == 0
    ids = [entry["id"] for entry in upstream.emulator.log() if entry["entry"] == "response"]
    pages = [f"{upstream.base_url}/responses/{each}/input_items" for each in ids]
    sent = [httpx2.get(page, headers={"Authorization": f"Bearer {KEY}"}).text for page in pages]
    assert [text.count("the note") for text in sent] == [1, 1]


def test_empty_or_binary_file_is_reported(terminal: Terminal, upstream: RunningServer):
    tasks = write_tasks(terminal, "Task 1")
    tasks.write_bytes(b'{"prompt": "caf\xe9"}\n')
    refused = run_batch(terminal, tasks)
    assert refused.stderr == f"Error: {tasks} is not UTF-8. Save it as UTF-8 text with one JSON object a line.\n"
    tasks.write_bytes(b"\n")
    assert run_batch(terminal, tasks).stdout.endswith(f": {tasks} has no lines\n")
    assert upstream.emulator.counters()["creates"] == 0


@pytest.mark.parametrize("line", ["no json", "[]", "{}", '{"key": "k", "status": "done"}', "\udcff"])
def test_file_with_other_content_is_not_extended(terminal: Terminal, upstream: RunningServer, line: str):
    tasks = write_tasks(terminal, "Task 1")
    something_else = terminal.folder.parent / "out" / "results.jsonl"
    something_else.parent.mkdir()
    something_else.write_bytes(before := f"{line}\n".encode("utf-8", "surrogateescape"))
    refused = run_batch(terminal, tasks)
    assert refused.stderr.startswith(f"Error: Line 1 of {Path('out', 'results.jsonl')} is not a result of a batch. ")
    assert something_else.read_bytes() == before
    assert upstream.emulator.counters()["creates"] == 0


def test_terminal_shows_a_bar_that_fits_and_ctrl_c_leaves(tmp_path: Path):
    with run_emulator(time_scale=5) as upstream:
        terminal = Terminal(upstream.base_url, tmp_path / "data")
        tasks = write_tasks(
            terminal, *(script_prompt(f"Task {n}", {"duration_s": 5 + 20 * (n > 5)}) for n in range(12))
        )
        left = terminal.show("batch", str(tasks), "--out", "out", stop=lambda seen: "6/12" in seen)
        assert left.returncode == 130
        assert left.width <= 80
        assert "Run the same command to resume" in left.text
        assert run_batch(terminal, tasks).returncode == 0
        assert upstream.emulator.counters()["creates"] == 12
    assert len(read_results(terminal)) == 12


def test_bar_ends_with_the_jobs_that_failed_and_one_labelled_time(terminal: Terminal):
    fails = script_prompt("Task 2", {"duration_s": 1, "end": "failed"})
    tasks = write_tasks(terminal, script_prompt("Task 1", {"duration_s": 1}), fails)
    shown = terminal.show("batch", str(tasks), "--out", "out")
    assert re.search(r" 2/2, 1 failed,( \$[\d.]+,)? \d+ s\s", shown.text)
    assert "0:00" not in shown.text


def test_jobs_that_end_with_a_batch_are_not_reported_as_continuing_and_can_be_restarted(terminal: Terminal):
    tasks = write_tasks(terminal, "Task 1", script_prompt("Task 2", {"duration_s": 150}))
    command = ["batch", str(tasks), "--out", "out"]
    left = terminal.show(*command, stop=lambda seen: "1/2" in seen, AGENT_JOBS_MODE="foreground")
    assert left.returncode == 130
    assert "Jobs in the foreground stop with this process" in left.text.replace("\n", " ")
    assert run_batch(terminal, tasks, AGENT_JOBS_MODE="foreground").returncode == 3
    assert [row.get("error", {}).get("code") for row in read_results(terminal)] == [None, "interrupted"]
    assert run_batch(terminal, tasks, "--retry", AGENT_JOBS_MODE="foreground").returncode == 0
