"""`agent-jobs list`: show jobs as a table."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any

import click

from agent_jobs.cli import terminal
from agent_jobs.cli.choice import NamedChoice
from agent_jobs.cli.parameters import BatchName
from agent_jobs.cli.session import Session, call, json_option
from agent_jobs.cli.unwatched import Unwatched, retrieve_unwatched
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter, JobPage
from agent_jobs.jobs.status import ACTIVE, Status

DAY_S = 86_400.0
#: Columns of a title on a narrow terminal.
MIN_TITLE_COLUMNS = 12
#: Columns between two columns of the table.
GAP = "  "
#: Names that `--status` accepts.
STATUS_NAMES = [*map(str, Status), "open"]
#: Columns of words; the others hold figures, which are aligned on the right.
WORD_COLUMNS = ("ID", "STATUS")


class Days(click.FloatRange):
    """A number of days."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; refuse `nan`, which a range accepts."""
        days = super().convert(value, param, ctx)
        if isnan(days):
            self.fail(f"{value!r} is not a number of days.", param, ctx)
        return days


@click.command("list")
@click.option(
    "--status",
    type=NamedChoice(STATUS_NAMES),
    help=f"Only jobs with this status: {', '.join(STATUS_NAMES[:-1])}, or {STATUS_NAMES[-1]} for all that are active.",
)
@click.option("--batch", type=BatchName(), default="", help="Only jobs of this batch.")
@click.option("--query", default="", help="Only jobs with this text in the title.")
@click.option("--days", metavar="N", type=Days(0, min_open=True), help="Only jobs started within this number of days.")
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Rows at most."
)
@json_option
def list_command(status: str | None, batch: str, query: str, days: float | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first.

    A follow-up stands below the job that it continues, if that job is in the list. Jobs that no process is watching are
    first retrieved from the provider, for at most one second.
    """
    since = time.time() - days * DAY_S if days else 0.0
    group = JobFilter(batch=batch, statuses=_find_statuses(status), words=query, since=since)

    async def find(session: Session) -> tuple[Unwatched, JobPage, float]:
        unwatched = await retrieve_unwatched(session, group)
        return unwatched, await session.engine.find(group, limit), session.engine.now()

    unwatched, page, now = call(find)
    if as_json:
        return click.echo(_render_as_json(page, unwatched, now))
    lines = [*_render_table(page, now), *unwatched.describe_stale(page.jobs, now)]
    return click.echo("\n".join(lines))


def _find_statuses(status: str | None) -> frozenset[Status]:
    """Return the statuses that the option names; an empty set means all."""
    if status is None:
        return frozenset()
    if status == "open":
        return ACTIVE
    return frozenset({Status(status)})


def _render_as_json(page: JobPage, unwatched: Unwatched, now: float) -> str:
    from agent_jobs.rendering import answers

    answer = answers.render_list(page, now)
    for row, job in zip(answer["jobs"], page.jobs, strict=True):
        tokens = job.usage and job.usage.exact_tokens
        more = {"tokens": tokens, "previous_job_id": job.previous_job_id, "title": job.title}
        row |= {name: value for name, value in more.items() if value is not None}
        row |= unwatched.list_fields(job, now)
    return answers.json_line(answer)


def _render_table(page: JobPage, now: float) -> Iterator[str]:
    """Yield the lines of the table and its summary."""
    if not page.jobs:
        yield "No jobs found."
        return
    tree = list(_arrange_as_tree(page.jobs))
    rows = [_build_row(job, now) for job, _ in tree]
    widths = _measure_columns(rows)
    terminal_width = terminal.find_width() or 10_000
    title_width = max(MIN_TITLE_COLUMNS, terminal_width - sum(widths.values()) - len(GAP) * len(widths))
    yield GAP.join([*(_align_cell(name, name, width) for name, width in widths.items()), "TITLE"])
    for (job, depth), row in zip(tree, rows, strict=True):
        title = terminal.fit_columns(_indent_title(job, depth), title_width).rstrip()
        yield GAP.join([*_render_cells(job, row, widths), title])
    yield ""
    yield _summarize_page(page)


def _build_row(job: Job, now: float) -> dict[str, str]:
    """Return a job's cells by the names of their columns."""
    return {
        "ID": job.id,
        "STATUS": str(job.status),
        "AGE": terminal.format_age(now - job.created_at),
        "TOKENS": terminal.format_tokens(job),
        "COST": terminal.format_usd(job.cost_usd),
    }


def _measure_columns(rows: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """Return the widths of the columns; an empty column is left out to give the title more room."""
    widths: dict[str, int] = {}
    for name in rows[0]:
        cells = [row[name] for row in rows]
        if any(cells):
            widths[name] = max(len(text) for text in (name, *cells))
    return widths


def _render_cells(job: Job, row: Mapping[str, str], widths: Mapping[str, int]) -> Iterator[str]:
    """Yield the aligned cells of a row, with the status in its colour on a terminal."""
    for name, width in widths.items():
        cell = _align_cell(name, row[name], width)
        if name == "STATUS" and terminal.has_colours(sys.stdout):
            cell = click.style(cell, fg=terminal.COLOURS.get(job.status, "cyan"))
        yield cell


def _align_cell(name: str, text: str, width: int) -> str:
    if name in WORD_COLUMNS:
        return text.ljust(width)
    return text.rjust(width)


def _indent_title(job: Job, depth: int) -> str:
    title = terminal.join_lines(job.title)
    if depth == 0:
        return title
    return f"{'  ' * (depth - 1)}└ {title}"


def _summarize_page(page: JobPage) -> str:
    """Return how many jobs have each status, how many are not shown, and what today cost."""
    summary = ", ".join(f"{count} {status}" for status, count in page.counts.items())
    if page.today_usd:
        summary += f"; today {terminal.format_usd(page.today_usd)}"
    total = sum(page.counts.values())
    if total > len(page.jobs):
        summary += f"; {total - len(page.jobs)} more: -n {total}"
    return summary


def _arrange_as_tree(jobs: Sequence[Job]) -> Iterator[tuple[Job, int]]:
    """Yield the jobs with their depths: each follow-up below the job that it continues, if that job is among them."""
    known = {job.id for job in jobs}
    children: dict[str | None, list[Job]] = {}
    for job in jobs:
        parent = job.previous_job_id if job.previous_job_id in known else None
        children.setdefault(parent, []).append(job)
    stack = [(job, 0) for job in reversed(children.get(None, []))]
    while stack:
        job, depth = stack.pop()
        yield job, depth
        stack += [(child, depth + 1) for child in children.get(job.id, [])]
