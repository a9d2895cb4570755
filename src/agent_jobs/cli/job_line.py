"""Describe a running job in one line: its activity, its time, and its tokens so far."""

from collections.abc import Sequence

import click

from agent_jobs.cli import terminal
from agent_jobs.cli.outage import find_outage
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
PHASE_WORDS = ("reasoning", "writing")
ID_COLUMNS = 18  # of an id and the blanks after it
PHASE_COLUMNS = 12


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
    facts = [", ".join(part for part in parts if part and part not in PHASE_WORDS)]
    used = [f"{tokens} tokens" for tokens in [terminal.format_tokens(job)] if tokens]
    if job.cost_usd:
        used.append(terminal.format_usd(job.cost_usd))
    if used:
        facts.append(f"{', '.join(used)} so far")
    if job.turn.number > 1:
        facts.append(f"turn {job.turn.number}")
    return [fact for fact in facts if fact]


def list_end_facts(job: Job) -> list[str]:
    """Return the error, size, cost and tokens of a finished job."""
    parts: list[str] = []
    if job.error:
        parts.append(f"{job.error.code}: {terminal.join_lines(describe_failure(job.error))}")
    if job.output_bytes:
        parts.append(human_size(job.output_bytes))
    parts.append(terminal.format_usd(job.cost_usd))
    if tokens := terminal.format_tokens(job):
        parts.append(f"{tokens} tokens")
    return [part for part in parts if part]


def format_run_time(job: Job, now: float) -> str:
    """Return for how long a job has been running, or ran."""
    return terminal.format_elapsed((job.finished_at or now) - job.created_at)


def render_status(job: Job, now: float, width: int, *, has_colours: bool, outage: str = "") -> str:
    """Return the line below the answer of a job.

    Args:
        job: The job.
        now: The time.
        width: Columns of the terminal.
        has_colours: True to paint it.
        outage: The time for which the job has been out of reach, and the reason, in place of its activity.
    """
    colour = terminal.ATTENTION if outage else terminal.COLOURS.get(job.status, "cyan")
    facts = [outage] if outage else list_facts(job)
    rest = "  ".join([format_run_time(job, now), *facts])
    return _paint_line([(describe_phase(job), colour), (f"  {rest}", "")], width, has_colours)


def render_row(job: Job, now: float, width: int, *, has_colours: bool) -> str:
    """Return the line of a job among others: its id, what it does, its time and its title."""
    facts = "".join(f"{fact}  " for fact in list_facts(job))
    return _paint_line(
        [
            (f"{job.id:<{ID_COLUMNS}}", ""),
            (f"{describe_phase(job):<{PHASE_COLUMNS}}", terminal.COLOURS.get(job.status, "cyan")),
            (f"{format_run_time(job, now):>8}  ", ""),
            (facts, "bold"),
            (terminal.join_lines(job.title), "dim"),
        ],
        width,
        has_colours,
    )


def _paint_line(parts: Sequence[tuple[str, str | int]], width: int, has_colours: bool) -> str:
    """Return parts of a line with their styles, cut to the width of the terminal."""
    painted: list[str] = []
    for text, style in parts:
        if terminal.count_columns(text) > width:
            text = terminal.fit_columns(text, width)
        width -= terminal.count_columns(text)
        painted.append(_paint_part(text, style) if has_colours else text)
        if width <= 0:
            break
    return "".join(painted).rstrip()


def _paint_part(text: str, style: str | int) -> str:
    if not (text and style):
        return text
    if style == "bold":
        return click.style(text, bold=True)
    if style == "dim":
        return click.style(text, dim=True)
    return click.style(text, fg=style)
