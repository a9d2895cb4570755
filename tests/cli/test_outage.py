"""An outage of the provider is reported once, with the fate of the job and the key that leaves it."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from terminals import Terminal

from agent_jobs.cli.display.answer_display import AnswerDisplay
from agent_jobs.cli.display.job_line import render_status
from agent_jobs.cli.display.outage import OutageClock
from agent_jobs.cli.display.progress import UNCONFIRMED_YET, Lines
from agent_jobs.engine.live_text import LiveText
from agent_jobs.jobs.job import Job, Mode, Turn
from agent_jobs.jobs.status import Status

NOW = 1_000_000.0
REFUSED = "OPENAI_BASE_URL: connection refused, cannot connect to 127.0.0.1:9"
UNREACHABLE = "http://127.0.0.1:9/v1"


def a_job(status: Status, activity: str, mode: Mode = "background_stream") -> Job:
    turn = Turn(number=1, request={}, request_id="r", base_url=UNREACHABLE, response_id="resp_1", mode=mode)
    return Job(id="job_1", title="t", status=status, created_at=NOW, turn=turn, activity=activity)


PENDING = a_job(Status.PENDING, f"{REFUSED}; trying again")
RUNNING = a_job(Status.IN_PROGRESS, f"cannot poll: {REFUSED}")
HELD = a_job(Status.IN_PROGRESS, f"cannot poll: {REFUSED}", "foreground")


def show(capsys: pytest.CaptureFixture[str], *jobs: Job) -> str:
    """Return the output in a pipe for these states of a job, one after the other."""
    display = AnswerDisplay(LiveText(), jobs[0], writes_answer=False, is_streaming=False)
    for seconds, job in enumerate(jobs):
        display.show([job], NOW + seconds)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("job", "fate"),
    [
        (PENDING, f"Not sent yet: {REFUSED}. The job is kept, and sent as soon as possible. Ctrl-C leaves it"),
        (RUNNING, f"Cannot ask the provider: {REFUSED}. It is asked again until it answers. Ctrl-C leaves"),
        (HELD, f"Cannot ask the provider: {REFUSED}. It is asked again until it answers. Ctrl-C ends the job."),
    ],
)  # fmt: skip
def test_outage_is_reported_once_with_the_fate_of_the_job(capsys: pytest.CaptureFixture[str], job: Job, fate: str):
    output = show(capsys, job, job, replace(job, activity=f"{job.activity} "))
    assert output.startswith(fate)
    assert output.count(REFUSED) == 1


def test_second_outage_is_named_again(capsys: pytest.CaptureFixture[str]):
    assert show(capsys, RUNNING, replace(RUNNING, activity="writing"), RUNNING).count(REFUSED) == 2


@pytest.mark.parametrize("activity", ["waiting for a slot", "", "searching the web"])
def test_other_waits_are_no_outage(capsys: pytest.CaptureFixture[str], activity: str):
    for status in (Status.PENDING, Status.IN_PROGRESS):
        assert "Ctrl-C" not in show(capsys, a_job(status, activity))


@pytest.mark.parametrize(("job", "phase"), [(PENDING, "not sent yet"), (RUNNING, "unreachable")])
def test_line_below_says_for_how_long(job: Job, phase: str):
    clock = OutageClock()
    clock.update(job, NOW + 10)
    line = render_status(job, NOW + 75, 120, has_colours=False, outage=clock.describe(job, NOW + 75))
    assert line == f"{phase}  1:15  retrying for 1:05: {REFUSED}"


def test_slow_confirmation_is_named_in_a_pipe(capsys: pytest.CaptureFixture[str]):
    lines = Lines(sys.stderr)
    for seconds in (1, 9, 11, 12):
        lines.show([a_job(Status.STARTING, "")], NOW + seconds)
    assert capsys.readouterr().err == f"job_1     0:11  starting  {UNCONFIRMED_YET}\n"


def test_terminal_shows_the_outage_and_how_to_leave(tmp_path: Path):
    terminal = Terminal(UNREACHABLE, tmp_path / "data")
    shown = terminal.show("run", "Work", columns=60, stop=lambda seen: "retrying for 0:0" in seen)
    assert shown.returncode == 130
    assert shown.width <= 60
    assert "The job is kept, and sent as soon as possible. Ctrl-C leaves it" in shown.text.replace("\n", " ")
