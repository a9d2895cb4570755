"""The output of `run` from Enter to the end of the job: on a terminal, in a pipe and in a file."""

import json
import os
import re
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fork_server import COMMAND, Process
from hosts import script_prompt
from terminals import Terminal, screen

from agent_jobs.emulator.server import RunningServer, run_emulator

WORK = "Compare three caches"
#: Only the first half of the answer is ever written.
HALF = {"duration_s": 2, "text": "Half of it.\n\n" * 2, "chunk": 13, "end": "never"}
FUNCTION: dict[str, Any] = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}
MARKDOWN = "# Result\n\nThe **second** one, 東京.\n\n- a\n- b\n\n```\ncode  stays\n```\n\nThe end."


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


def list_jobs(terminal: Terminal) -> list[dict[str, Any]]:
    return json.loads(terminal.pipe("list", "--json").stdout)["jobs"]


@contextmanager
def running_command(terminal: Terminal, *arguments: str) -> "Generator[subprocess.Popen[str]]":
    with Process(
        [*COMMAND, *arguments], env=terminal.environment(), cwd=terminal.folder.parent, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_terminal_shows_each_step_and_the_rendered_answer(tmp_path: Path, columns: int):
    with run_emulator(time_scale=8) as upstream:
        terminal = Terminal(upstream.base_url, tmp_path / "data")
        script = {"duration_s": 12, "searches": 2, "text": f"{MARKDOWN} {'More words. ' * 30}"}
        shown = terminal.show("run", script_prompt(WORK, script), columns=columns)
    assert shown.returncode == 0
    assert re.match(r"Sending\.\.\. +\rSending job_", shown.raw)
    assert shown.width <= columns
    assert shown.colours
    assert re.search(r"(thinking|searching|writing) +0:\d\d +\d search", shown.text)
    left = screen(shown.raw)
    assert left.count("The second one, 東京.") == 1
    assert "\n • a\n • b\n" in left
    assert "\ncode  stays\n" in left
    assert "\n\nSources\n[1] Emulated source 1\n    https://example.com/emulated/1\n" in left
    assert re.search(r"\njob_\w+  completed  0:\d\d  gpt-\S+  \d+ tokens$", left)
    assert "0:0" not in left.replace(left.splitlines()[-1], ""), "the live line is erased"


@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_plain_terminal_shows_the_answer_without_colours(terminal: Terminal, more: dict[str, str]):
    environment: Any = more
    shown = terminal.show("run", script_prompt(WORK, {"duration_s": 10, "text": MARKDOWN}), **environment)
    assert not shown.colours
    assert "The second one, 東京.\n\n • a\n • b\n\ncode  stays\n\nThe end." in screen(shown.raw)
    assert ("\x1b" in shown.raw) == ("TERM" not in more)


def test_pipe_gets_the_answer_as_it_is_written(terminal: Terminal):
    with running_command(terminal, "run", script_prompt(WORK, HALF)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "Half of it.\n", "printed though the job never ends"
        [job] = list_jobs(terminal)
        terminal.pipe("cancel", job["job_id"])
        rest, stderr = process.communicate(timeout=60)
    assert process.returncode == 5
    assert rest in ("\n", "")
    assert "cancelled" in stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "script"),
    [
        (["--no-stream"], HALF),
        (["--option", f"tools={json.dumps([FUNCTION])}"], HALF),  # a turn that calls tools has no answer
    ],
    ids=["requested", "tools"],
)
def test_pipe_gets_the_answer_at_the_end_if_it_is_certain_only_then(
    terminal: Terminal, arguments: list[str], script: dict[str, Any]
):
    with running_command(terminal, "run", script_prompt(WORK, script), *arguments) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        while "writing" not in process.stderr.readline():
            assert process.poll() is None
        os.set_blocking(process.stdout.fileno(), False)
        assert not process.stdout.read(1)
        os.set_blocking(process.stdout.fileno(), True)
        [job] = list_jobs(terminal)
        terminal.pipe("cancel", job["job_id"])
        process.communicate(timeout=60)


def test_watch_prints_the_answer_of_a_job_of_another_process(terminal: Terminal):
    with running_command(
        terminal, "run", script_prompt(WORK, {"duration_s": 60, "text": MARKDOWN, "searches": 1})
    ) as process:
        assert process.stderr is not None
        while "in_progress" not in process.stderr.readline():
            assert process.poll() is None
        [job] = list_jobs(terminal)
        watched = terminal.pipe("watch", "--stream", job["job_id"])
        process.communicate(timeout=60)
    assert watched.returncode == 0
    assert MARKDOWN in watched.stdout
    assert f"{job['job_id']}  completed" in watched.stderr


def test_watch_without_a_stream_shows_where_the_answer_is(terminal: Terminal):
    job_id = terminal.pipe("start", script_prompt(WORK, {"duration_s": 3, "text": MARKDOWN})).stdout.strip()
    watched = terminal.pipe("watch", job_id)
    assert "The end." not in watched.stdout
    assert f"agent-jobs result {job_id}" in watched.stderr
    assert terminal.pipe("watch", "--stream", "--json", job_id).returncode == 2


@pytest.mark.parametrize("option", ["--new", "--allow-duplicate"])
def test_identical_job_is_joined_unless_another_is_wanted(terminal: Terminal, option: str):
    asked = script_prompt(WORK, {"duration_s": 3000})
    terminal.pipe("start", asked)
    [job] = list_jobs(terminal)
    dry = terminal.pipe("run", "--dry-run", asked).stdout
    assert f"{job['job_id']} is identical" in dry
    assert "--new starts another" in dry
    assert "a new one" in terminal.pipe("run", "--dry-run", option, asked).stdout
    terminal.pipe("start", option, asked)
    assert len(list_jobs(terminal)) == 2


def test_out_writes_the_answer_into_a_file_and_nothing_else(terminal: Terminal):
    out = terminal.folder.parent / "answer.md"
    ran = terminal.pipe("run", script_prompt(WORK, {"text": MARKDOWN}), "--out", "answer.md")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert out.read_bytes() == MARKDOWN.encode()
    assert f"Wrote {len(MARKDOWN.encode())} bytes to answer.md.\n" in ran.stderr
    out.chmod(0o640)
    again = terminal.pipe("run", script_prompt("Other", {"text": "New."}), "--out", "answer.md", "--force")
    assert (again.returncode, out.read_text(), out.stat().st_mode & 0o777) == (0, "New.", 0o640)
    as_json = terminal.pipe("run", script_prompt("Third", {"text": "JSON."}), "--out", "answer.json", "--json")
    assert as_json.stdout == ""
    assert json.loads((terminal.folder.parent / "answer.json").read_text())["output"] == "JSON."
    assert sorted(path.name for path in terminal.folder.parent.iterdir() if path.is_file()) == [
        "answer.json",
        "answer.md",
    ]


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("there.md", "there.md exists, so nothing was sent. Use --force to overwrite it, or name another file."),
        ("missing/answer.md", "The folder missing does not exist, so nothing was sent."),
        (".", ". is a folder, so nothing was sent."),
        ("/dev/null", "/dev/null is not a file that can be replaced, so nothing was sent."),
        ("there.md/answer.md", "The folder there.md does not exist, so nothing was sent."),
    ],
)
def test_out_that_cannot_be_written_is_refused_before_anything_is_paid(
    terminal: Terminal, upstream: RunningServer, out: str, reason: str
):
    (terminal.folder.parent / "there.md").write_text("mine")
    refused = terminal.pipe("run", WORK, "--out", out)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert reason in refused.stderr
    assert (terminal.folder.parent / "there.md").read_text() == "mine"
    assert upstream.emulator.counters()["creates"] == 0


def test_answer_whose_file_appeared_meanwhile_is_not_lost(terminal: Terminal):
    out = terminal.folder.parent / "answer.md"
    with running_command(
        terminal, "run", script_prompt(WORK, {"duration_s": 60, "text": "Safe."}), "--out", "answer.md"
    ) as process:
        assert process.stderr is not None
        while "in_progress" not in process.stderr.readline():
            assert process.poll() is None
        out.write_text("mine")
        _, stderr = process.communicate(timeout=60)
    [job] = list_jobs(terminal)
    assert process.returncode == 7
    assert "answer.md cannot be written (File exists)." in stderr
    assert f"Print it with: agent-jobs result {job['job_id']}" in stderr
    assert out.read_text() == "mine"
    assert terminal.pipe("result", job["job_id"]).stdout == "Safe.\n"


def test_dry_run_describes_the_request_and_its_cost(terminal: Terminal, upstream: RunningServer):
    prices = terminal.folder.parent / "prices.toml"
    prices.write_text(
        '[models."gpt-5.6"]\ninput = 2.0\ncached = 0.5\ncache_write = 2.5\noutput = 10.0\ncontext_tokens = 400000\n'
    )
    asked = ["run", "--dry-run", "--model", "gpt-5.6", "--effort", "low", "--option", "max_output_tokens=2000"]
    shown = terminal.pipe(*asked, WORK, AGENT_JOBS_PRICES=str(prices))
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in shown.stdout.splitlines()[1:])
    assert lines["model"] == "gpt-5.6, effort low"
    assert lines["tools"] == "none"
    assert lines["expected"] == "about $0.02 if it writes 2,000 tokens"
    assert lines["at most"].startswith("$0.02: input")
    unknown = terminal.pipe("run", "--dry-run", WORK).stdout
    assert "expected  unknown" in unknown
    assert "at most   no limit. Add --option max_output_tokens=N." in unknown
    unpriced = terminal.pipe("run", "--dry-run", "--option", "max_output_tokens=2000", WORK).stdout
    assert "at most   no limit. agent-jobs does not know what " in unpriced
    assert "no bound" not in unknown + unpriced
    assert json.loads(terminal.pipe("run", "--dry-run", "--json", WORK).stdout)["dry_run"] is True
    assert upstream.emulator.counters()["creates"] == 0
    assert list_jobs(terminal) == []


@pytest.mark.parametrize(
    ("typed", "fixed"),
    [
        (["what", "is", "x"], "agent-jobs run 'what is x'"),
        (["what", "--effort", "low", "is", "x"], "agent-jobs run --effort low 'what is x'"),
        (["it", "costs", "$5"], "agent-jobs run 'it costs $5'"),
        (["-5 degrees in Fahrenheit?"], "agent-jobs run -- '-5 degrees in Fahrenheit?'"),
        (["- milk", "--model", "m"], "agent-jobs run --model m -- '- milk'"),
        (["--what is this?"], "agent-jobs run -- '--what is this?'"),
        (["-1"], "agent-jobs run -- -1"),
    ],
)
def test_unquoted_prompt_is_refused_with_the_intended_command(
    terminal: Terminal, upstream: RunningServer, typed: list[str], fixed: str
):
    refused = terminal.pipe("run", *typed)
    assert refused.returncode == 2
    assert refused.stderr.rstrip().endswith(fixed)
    assert upstream.emulator.counters()["creates"] == 0


def test_misspelt_option_is_still_named(terminal: Terminal):
    refused = terminal.pipe("run", "--modle", "m", "x")
    assert "--model" in refused.stderr
    assert "If this is the prompt" not in refused.stderr
    assert terminal.pipe("run", "--", "-5 degrees?").returncode == 0
