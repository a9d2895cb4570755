"""Show the progress of jobs: in place on a terminal, line by line elsewhere."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import IO, Any, Protocol, Self

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.job_line import format_run_time, list_end_facts, render_row
from agent_jobs.cli.display.live_area import LiveArea
from agent_jobs.cli.wording import word_answer
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.status import Status

#: Lines of what the model writes, or of its reasoning, below the job.
PARTIAL_LINES = 6
#: Columns of a tab in these lines.
TAB_COLUMNS = 4
#: Changes of a job that are written at once; later ones only after `SELDOM_S`, unless its status changed.
FREQUENT_LINES = 20
SELDOM_S = 30.0
#: Statuses before the provider has confirmed a job.
UNCONFIRMED = (Status.PENDING, Status.STARTING)
#: Seconds without a confirmation after which the command shows the reason of its wait.
SLOW_CONFIRMATION_S = 10.0
UNCONFIRMED_YET = "the provider has not confirmed it yet"
#: Fields of a job that `watch --json` leaves out.
NOT_IN_RECORDS = ("output", "next")


class Display(Protocol):
    """Shows the state of jobs, again after each change."""

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Replace the shown lines, or add the new ones."""
        ...

    def hide(self) -> None:
        """Make room for a question to the user, until the next `show`."""
        ...


def open_display(stream: IO[Any], *, is_single: bool) -> AbstractContextManager[Display]:
    """Return a panel on a terminal, lines elsewhere."""
    if terminal.can_overwrite(stream):
        return Panel(stream, is_single=is_single)
    return Lines(stream)


class Unmanaged:
    """A context manager that has nothing to set up or to clean up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def hide(self) -> None:
        """Do nothing: written lines stay."""


class Lines(Unmanaged):
    """A line for each change of a job's activity, and few lines for a job that changes often."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream
        self._last: dict[str, str] = {}
        self._written: dict[str, tuple[int, float, str]] = {}  #: lines of each job, the last one's time and status

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Write a line for each job that changed."""
        for job in jobs:
            activity = terminal.join_lines(job.activity)
            if job.status in UNCONFIRMED and not activity:
                if now - job.created_at < SLOW_CONFIRMATION_S:
                    continue  # its command has just said that it is sent
                activity = UNCONFIRMED_YET
            parts = (job.status, activity, ", ".join(list_end_facts(job) if job.is_terminal else []))
            state = "  ".join(filter(None, parts))
            if self._last.get(job.id) != state and self._is_due(job, now):
                self._last[job.id] = state
                click.echo(f"{job.id}  {format_run_time(job, now):>7}  {state}", file=self._stream)
                self._stream.flush()

    def _is_due(self, job: Job, now: float) -> bool:
        """Return True if a change of a job is to be written now, and count it."""
        count, at, status = self._written.get(job.id, (0, now, ""))
        if count >= FREQUENT_LINES and job.status == status and now - at < SELDOM_S:
            return False
        self._written[job.id] = (count + 1, now, job.status)
        return True


class JsonLines(Unmanaged):
    """A JSON object on a line for each change of a job."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Write an object for each job that changed."""
        from agent_jobs.rendering import answers

        for job in jobs:
            state = (job.status, job.activity, job.output_bytes)
            if self._last.get(job.id) != state:
                self._last[job.id] = state
                shown = word_answer(answers.render_job(job, now), job)
                record = {key: value for key, value in shown.items() if key not in NOT_IN_RECORDS}
                click.echo(answers.format_json_line(record))
                sys.stdout.flush()


class Panel:
    """A few lines of a terminal that are overwritten: a line for each job, and the text of a single job."""

    def __init__(self, stream: IO[Any], *, is_single: bool) -> None:
        self._area = LiveArea(stream)
        self._stays = stream is not sys.stderr
        self._has_colours = terminal.has_colours(stream)
        self._is_single = is_single

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._stays:
            self._area.erase()

    def hide(self) -> None:
        """Remove the lines."""
        self._area.erase()

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Write over the lines that were shown before."""
        width, height = self._area.size
        room = max(1, height - 2)
        # Running jobs come first, so that finished ones never push them out.
        visible = sorted(jobs, key=lambda job: job.is_terminal)[:room]
        lines = [render_row(job, now, width, has_colours=self._has_colours) for job in jobs if job in visible]
        if len(jobs) > len(visible):
            more = f"and {len(jobs) - len(visible)} more"
            lines.append(click.style(more, dim=True) if self._has_colours else more)
        if self._is_single and jobs and not jobs[0].is_terminal:
            lines += render_tail(jobs[0], width, min(PARTIAL_LINES, room - 1), has_colours=self._has_colours)
        self._area.draw(lines)


def render_tail(job: Job, width: int, count: int, *, has_colours: bool) -> list[str]:
    """Return the last lines of a job's text, or of its reasoning before the text begins."""
    written = job.turn.partial or job.turn.reasoning
    if not written or count <= 0:
        return []
    return wrap_tail(written, width, count, has_colours=has_colours, is_reasoning=not job.turn.partial)


def wrap_tail(text: str, width: int, count: int, *, has_colours: bool, is_reasoning: bool = False) -> list[str]:
    """Return the last lines of a text, as wide as the terminal at most."""
    from rich.console import Console
    from rich.text import Text

    shown = Text(terminal.strip_control_characters(text).expandtabs(TAB_COLUMNS))
    lines = [line.plain.rstrip() for line in shown.wrap(Console(width=width), width)[-count:]]
    if has_colours:
        lines = [click.style(line, dim=True, italic=is_reasoning or None) for line in lines]
    return lines
