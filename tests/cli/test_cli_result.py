"""`result` renders an answer on a terminal, writes it unchanged into a pipe, and prints its parts as text."""

import json
import re
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner
from hosts import script_prompt
from terminals import Terminal, screen

from agent_jobs.cli.display.part_text import format_part
from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.status import Status
from agent_jobs.store import open_store

TEXT = "# Result\n\nThe **second** cache is the one to take, for all that was measured here.\n\n- a\n- b"


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


def start_job(terminal: Terminal, **script: Any) -> str:
    terminal.pipe("run", script_prompt("Compare", {"duration_s": 1, "text": TEXT, **script}))
    [job] = json.loads(terminal.pipe("list", "--json").stdout)["jobs"]
    return job["job_id"]


@pytest.mark.parametrize("columns", [60, 120])
def test_terminal_shows_the_answer_as_markdown_with_its_sources(terminal: Terminal, columns: int):
    job_id = start_job(terminal, searches=2)
    shown = terminal.show("result", job_id, columns=columns)
    assert shown.returncode == 0
    assert shown.width <= columns
    left = screen(shown.raw)
    assert re.sub(r"\[\d\]", "", left).startswith("Result\n\nThe second cache is the one to take")
    assert {"[1]", "[2]"} <= set(re.findall(r"\[\d\]", left.partition("Sources")[0]))
    assert "\n\nSources\n[1] Emulated source 1\n    https://example.com/emulated/1\n[2] " in left
    assert terminal.pipe("result", job_id).stdout == f"{TEXT}\n"
    assert "\x1b" not in terminal.show("result", job_id, NO_COLOR="1").raw


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("outline", r"^Result$"),
        ("sources", r"^\[1\] Emulated source 1( \(cited \d+ times\))?\n    https://example.com/emulated/1$"),
        ("items", r"^web_search_call  completed\n    action: search$"),
        ("files", r"^There are no files\.$"),
        ("usage", r"^output tokens +\d+$"),
        ("meta", r"^created at +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$"),
    ],
)
def test_part_is_text_and_json_on_request(terminal: Terminal, part: str, line: str):
    job_id = start_job(terminal, searches=2)
    read = terminal.pipe("result", job_id, "--part", part)
    assert read.returncode == 0
    assert re.search(line, read.stdout, re.M), read.stdout
    assert part in json.loads(terminal.pipe("result", job_id, "--part", part, "--json").stdout)


@pytest.mark.parametrize(
    ("part", "value", "text"),
    [
        ("outline", [{"level": 1, "title": "A"}, {"level": 3, "title": "B"}], "A\n    B"),
        ("outline", [], "There are no headings."),
        ("sources", [], "There are no sources."),
        ("sources", [{"filename": "a.pdf", "file_id": "f", "cited": 2}], "[1] a.pdf (cited 2 times)"),
        ("items", [], "There are no items."),
        ("files", [{"name": "a", "path": "/tmp/a", "bytes": 2048}], "/tmp/a  2.0 KiB"),
        ("files", [{"type": "image", "id": "ig_1", "bytes": 3}], "ig_1  3 bytes  not saved"),
        ("usage", {"input_tokens": 1200, "cost_usd": 0.0213}, "input tokens  1,200\ncost usd      $0.02"),
        ("usage", {"input_tokens": 1200, "partial": True}, "input tokens  1,200\npartial       True"),
        ("usage", {}, "Nothing is known of its tokens."),
        (
            "meta",
            {"title": "T", "request": {"model": "m"}},
            'title    T\nrequest  {\n           "model": "m"\n         }',
        ),
        ("reasoning", "As it is.", "As it is."),
    ],
)
def test_small_parts_are_text_too(part: str, value: Any, text: str):
    assert format_part(part, value) == text


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (Status.CANCELLED, 5, "job_quiet was cancelled and has no output.\n"),
        (
            Status.COMPLETED,
            0,
            "job_quiet is completed and has no text. See: agent-jobs result job_quiet --part items\n",
        ),
    ],
)
def test_job_without_a_text_is_reported_on_stderr(tmp_path: Path, status: Status, code: int, message: str):
    async def add() -> None:
        async with open_store(tmp_path) as store:
            turn = Turn(number=1, request={}, request_id="r", base_url="http://127.0.0.1:9/v1")
            now = time.time()
            job = Job(id="job_quiet", title="t", status=status, created_at=now, finished_at=now, turn=turn)
            await store.add(job)

    anyio.run(add)
    read = CliRunner().invoke(cli, ["result", "job_quiet"], env={"AGENT_JOBS_DATA_DIR": str(tmp_path)})
    assert (read.exit_code, read.stdout, read.stderr) == (code, "", message)
    as_json = CliRunner().invoke(cli, ["result", "job_quiet", "--json"], env={"AGENT_JOBS_DATA_DIR": str(tmp_path)})
    assert (json.loads(as_json.stdout)["job_id"], as_json.stderr) == ("job_quiet", "")


def test_failed_job_names_the_retry_once(terminal: Terminal):
    job_id = start_job(terminal, end="failed")
    for command in ("result", "show"):
        ran = terminal.pipe(command, job_id)
        output = ran.stdout + ran.stderr
        assert "An error occurred while processing your request.\n" in output
        assert f"Try again with: agent-jobs retry {job_id}\n" in output
        assert "You can" not in output
