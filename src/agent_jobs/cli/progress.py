"""Show the progress of jobs: in place on a terminal, line by line elsewhere."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import IO, Any, Protocol, Self

import click

from agent_jobs.cli import terminal
from agent_jobs.cli.wording import word_answer
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.status import Status

#: Lines of what the model writes, or of its reasoning, below the job.
PARTIAL_LINES = 6
#: Fields of a job that `watch --json` leaves out.
NOT_IN_RECORDS = ("output", "next")


class Display(Protocol):
    """Shows the state of jobs, again after each change."""

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Replace what is shown, or add what is new."""
        ...


def open_display(stream: IO[Any], *, is_single: bool) -> AbstractContextManager[Display]:
    """Return a panel on a terminal, lines elsewhere."""
    if terminal.can_overwrite(stream):
        return Panel(stream, is_single=is_single)
    return Lines(stream)


class _Unmanaged:
    """A context manager that has nothing to set up or to clean up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


class Lines(_Unmanaged):
    """A line for each change of what a job does."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream
        self._last: dict[str, str] = {}

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Write a line for each job that changed."""
        for job in jobs:
            parts = (job.status, terminal.join_lines(job.activity), _describe_end(job))
            state = "  ".join(part for part in parts if part)
            if self._last.get(job.id) != state:
                self._last[job.id] = state
                click.echo(f"{job.id}  {_format_run_time(job, now):>7}  {state}", file=self._stream)
                self._stream.flush()


class Records(_Unmanaged):
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
                click.echo(answers.json_line(record))
                sys.stdout.flush()


class Panel:
    """A few lines of a terminal that are written over: a line for each job, and what a single job writes."""

    def __init__(self, stream: IO[Any], *, is_single: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._live = Live(console=console, auto_refresh=False, transient=stream is sys.stderr)
        self._is_single = is_single

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Write over the lines that were shown before."""
        from rich.text import Text

        room = max(1, self._live.console.height - 2)
        # Running jobs come first, so that finished ones never push them out.
        visible = sorted(jobs, key=lambda job: job.is_terminal)[:room]
        lines = [self._render_line(job, now) for job in jobs if job in visible]
        if len(jobs) > len(visible):
            lines.append(Text(f"and {len(jobs) - len(visible)} more", style="dim"))
        if self._is_single and jobs and not jobs[0].is_terminal:
            lines += self._render_partial(jobs[0], room - 1)
        text = Text("\n").join(lines)
        text.no_wrap, text.overflow = True, "ellipsis"
        self._live.update(text, refresh=True)

    def _render_line(self, job: Job, now: float) -> Any:
        """Return a job's status, time, activity and title in one line."""
        from rich.text import Text

        text = Text(f"{job.id}  ", no_wrap=True)
        text.append(f"{job.status:<12}", style=terminal.COLOURS.get(job.status, "cyan"))
        text.append(f"{_format_run_time(job, now):>7}  ")
        text.append(_describe_state(job), style="bold")
        text.append(f"  {terminal.join_lines(job.title)}", style="dim")
        text.truncate(self._live.console.width, overflow="ellipsis")
        return text

    def _render_partial(self, job: Job, room: int) -> list[Any]:
        """Return the last lines of what a job writes; before it writes, those of its reasoning."""
        from rich.text import Text

        written, style = job.turn.partial, "dim"
        if not written:
            written, style = job.turn.reasoning, "dim italic"
        count = min(PARTIAL_LINES, room)
        if not written or count <= 0:
            return []
        text = Text(terminal.strip_control_characters(written).expandtabs(4), style)
        return list(text.wrap(self._live.console, self._live.console.width)[-count:])


def _format_run_time(job: Job, now: float) -> str:
    return terminal.format_elapsed((job.finished_at or now) - job.created_at)


def _describe_state(job: Job) -> str:
    """Return what a job does, or how it finished."""
    if job.is_terminal:
        return _describe_end(job)
    if job.activity:
        return terminal.join_lines(job.activity)
    if job.status is Status.IN_PROGRESS:
        return "working"
    return "waiting for the provider"


def _describe_end(job: Job) -> str:
    """Return the error, size, cost and tokens of a finished job; empty for another."""
    if not job.is_terminal:
        return ""
    parts: list[str] = []
    if job.error:
        parts.append(f"{job.error.code}: {terminal.join_lines(job.error.message)}")
    if job.output_bytes:
        parts.append(terminal.format_size(job.output_bytes))
    parts.append(terminal.format_usd(job.cost_usd))
    if tokens := terminal.format_tokens(job):
        parts.append(f"{tokens} tokens")
    return ", ".join(part for part in parts if part)
