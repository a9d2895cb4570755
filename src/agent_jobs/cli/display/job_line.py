"""Describe a running job in one line: its activity, its time, and its tokens so far."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.outage import find_outage
from agent_jobs.cli.wording import describe_failure
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.status import Status
from agent_jobs.text import human_size

#: The activity of a job by its status; a running job has a more exact one.
PHASES = {
    Status.PENDING: "sending",
    Status.STARTING: "sending",
    Status.QUEUED: "queued",
    Status.INPUT_REQUIRED: "waiting for your answer",
}
#: The activity of a running job, by the last word of the last part of its `activity`.
ACTIVITY_PHASES = {
    "reasoning": "thinking",
    "writing": "writing",
    "searches": "searching",
    "search": "searching",
    "code runs": "running code",
    "code run": "running code",
    "images": "drawing",
    "image": "drawing",
}
#: Parts of an activity that say no more than the phase.
PHASE_WORDS = ("", "reasoning", "writing")
ID_COLUMNS = 18  # of an id and the blanks after it
PHASE_COLUMNS = 12

#: The arguments of `click.style`; an empty mapping leaves the text as it is.
_Style = Mapping[str, Any]
_PLAIN: _Style = {}


def describe_phase(job: Job) -> str:
    """Return the activity of a job, or its end, in one or two words."""
    if job.is_terminal:
        return str(job.status)
    if job.cancel_requested_at is not None:
        return "cancelling"
    if job.status is Status.PENDING and job.activity:
        return "not sent yet"  # the activity says why
    if find_outage(job):
        return "unreachable"
    if job.status is not Status.IN_PROGRESS:
        return PHASES[job.status]
    return _find_activity_phase(job)


def _find_activity_phase(job: Job) -> str:
    """Return the activity of a running job in one or two words."""
    if job.turn.has_open_calls:
        return "calling tools"
    last = job.activity.rpartition("; ")[2]
    return next((phase for end, phase in ACTIVITY_PHASES.items() if last.endswith(end)), "working")


def list_facts(job: Job) -> list[str]:
    """Return the steps and tokens of a running job so far, or the error, size, cost and tokens of a finished one."""
    if job.is_terminal:
        return list_end_facts(job)
    parts = terminal.join_lines(job.activity).split("; ")
    facts = [", ".join(part for part in parts if part not in PHASE_WORDS), _describe_use_so_far(job)]
    if job.turn.number > 1:
        facts.append(f"turn {job.turn.number}")
    return list(filter(None, facts))


def list_end_facts(job: Job) -> list[str]:
    """Return the error, size, cost and tokens of a finished job."""
    parts: list[str] = []
    if job.error:
        parts.append(f"{job.error.code}: {terminal.join_lines(describe_failure(job.error))}")
    if job.output_bytes:
        parts.append(human_size(job.output_bytes))
    parts += (terminal.format_usd(job.cost_usd), terminal.describe_tokens(job))
    return list(filter(None, parts))


def _describe_use_so_far(job: Job) -> str:
    """Return the tokens and the cost of a running job so far; empty if neither is known."""
    used = [terminal.describe_tokens(job)]
    if job.cost_usd:
        used.append(terminal.format_usd(job.cost_usd))
    if not any(used):
        return ""
    return f"{', '.join(filter(None, used))} so far"


def format_run_time(job: Job, now: float) -> str:
    """Return for how long a job has been running, or ran."""
    return terminal.format_elapsed(measure_run_time(job, now))


def measure_run_time(job: Job, now: float) -> float:
    """Return the seconds for which a job has been running, or ran."""
    return (job.finished_at or now) - job.created_at


def render_status(job: Job, now: float, width: int, *, has_colours: bool, outage: str = "") -> str:
    """Return the line below the answer of a job.

    Args:
        job: The job.
        now: The time.
        width: Columns of the terminal.
        has_colours: True to paint it.
        outage: The time for which the job has been out of reach, and the reason, in place of its activity.
    """
    style, facts = _choose_status_style(job), list_facts(job)
    if outage:
        style, facts = {"fg": terminal.ATTENTION}, [outage]
    rest = "  ".join([format_run_time(job, now), *facts])
    return _paint_line([(describe_phase(job), style), (f"  {rest}", _PLAIN)], width, has_colours)


def render_row(job: Job, now: float, width: int, *, has_colours: bool) -> str:
    """Return the line of a job among others: its id, what it does, its time and its title."""
    facts = "  ".join([*list_facts(job), ""])
    return _paint_line(
        [
            (f"{job.id:<{ID_COLUMNS}}", _PLAIN),
            (f"{describe_phase(job):<{PHASE_COLUMNS}}", _choose_status_style(job)),
            (f"{format_run_time(job, now):>8}  ", _PLAIN),
            (facts, {"bold": True}),
            (terminal.join_lines(job.title), {"dim": True}),
        ],
        width,
        has_colours,
    )


def _choose_status_style(job: Job) -> _Style:
    return {"fg": terminal.COLOURS.get(job.status, "cyan")}


def _paint_line(parts: Sequence[tuple[str, _Style]], width: int, has_colours: bool) -> str:
    """Return parts of a line with their styles, cut to the width of the terminal."""
    painted: list[str] = []
    for part, style in parts:
        text = terminal.cut_columns(part, width)
        width -= terminal.count_columns(text)
        if has_colours and text and style:
            text = click.style(text, **style)
        painted.append(text)
        if width <= 0:
            break
    return "".join(painted).rstrip()
