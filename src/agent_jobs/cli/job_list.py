"""`agent-jobs list`: show jobs as a table."""

import time
from collections.abc import Iterator, Mapping
from itertools import chain
from math import isnan
from typing import Any, get_args

import click

from agent_jobs.cli.choice import NamedChoice, refuse_both
from agent_jobs.cli.display.job_line import measure_run_time
from agent_jobs.cli.display.job_table import describe_pending, render_table
from agent_jobs.cli.display.sections import wrap_sentence
from agent_jobs.cli.display.symbols import echo
from agent_jobs.cli.parameters import BatchName
from agent_jobs.cli.session import Session, json_option, print_ids, quiet_option, run_in_session
from agent_jobs.cli.times import since_option
from agent_jobs.cli.unwatched_jobs import UnwatchedJobs, retrieve_unwatched
from agent_jobs.cli.wording import describe_error
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter, JobPage, SortKey
from agent_jobs.jobs.response import count_exact_tokens
from agent_jobs.jobs.status import ACTIVE, Status

DAY_S = 86_400.0
#: The statuses that each value of `--status` means; an empty set means all.
_STATUSES: Mapping[str | None, frozenset[Status]] = {
    None: frozenset(),
    **{str(status): frozenset({status}) for status in Status},
    "open": ACTIVE,
}
#: Names that `--status` accepts.
STATUS_NAMES = [*map(str, Status), "open"]


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
@click.option("--unread", is_flag=True, help="Only finished jobs whose result was not read.")
@click.option("--batch", type=BatchName(), default="", help="Only jobs of this batch.")
@click.option("--query", default="", help="Only jobs with this text in the title; `search` reads the whole text.")
@click.option("--model", default="", help="Only jobs of this model, or of models that begin so.")
@click.option("--preset", default="", help="Only jobs with this preset.")
@click.option("--client", default="", help="Only jobs that this host started, or terminal.")
@click.option("--owner", help="Only jobs of this owner of a team server.")
@since_option
@click.option("--days", metavar="N", type=Days(0, min_open=True), help="The same as --since, in days.")
@click.option(
    "--sort",
    type=NamedChoice(get_args(SortKey)),
    default="created",
    show_default=True,
    help="Newest, costliest or longest first, or those that need you.",
)
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Rows at most."
)
@quiet_option
@json_option
def list_command(
    status: str | None,
    unread: bool,
    batch: str,
    query: str,
    model: str,
    preset: str,
    client: str,
    owner: str | None,
    since: float | None,
    days: float | None,
    sort: SortKey,
    limit: int,
    ids_only: bool,
    as_json: bool,
) -> None:
    """List jobs, newest first.

    A follow-up stands below the job that it continues, if that job is in the list. Jobs that no process is watching are
    first retrieved from the provider, for at most one second.

    On a narrow terminal the columns MODEL, TOKENS, TIME, COST, AGE and the word of STATUS are left out, in this order.
    """
    refuse_both({"--since": since is not None, "--days": days is not None})
    refuse_both({"--quiet": ids_only, "--json": as_json})
    group = JobFilter(
        batch=batch,
        statuses=find_statuses(status),
        words=query,
        since=_find_begin(since, days),
        model=model,
        preset=preset,
        client=client,
        unread=unread,
        owner=owner,
    )

    async def find(session: Session) -> tuple[UnwatchedJobs, JobPage, float]:
        unwatched = await retrieve_unwatched(session, group)
        return unwatched, await session.engine.find(group, limit, sort), session.engine.now()

    unwatched, page, now = run_in_session(find)
    if as_json:
        return click.echo(_render_page_as_json(page, unwatched, now))
    if ids_only:
        return print_ids(page.jobs)
    if not page.jobs:
        return echo(_describe_no_jobs(group))
    notes = map(wrap_sentence, unwatched.describe_stale(page.jobs, now))
    lines = chain(render_table(page, now, is_tree=sort == "created"), *notes)
    return echo("\n".join(lines))


def _find_begin(since: float | None, days: float | None) -> float:
    if days is not None:
        return time.time() - days * DAY_S
    return since or 0.0


def find_statuses(status: str | None) -> frozenset[Status]:
    """Return the statuses that the option names; an empty set means all."""
    return _STATUSES[status]


def _describe_no_jobs(group: JobFilter) -> str:
    """Return that there are no jobs, and what to do."""
    if group == JobFilter():
        return 'No jobs found. Start one with: agent-jobs run "..."'
    return "No jobs found with these options. The newest of all: agent-jobs list"


def _render_page_as_json(page: JobPage, unwatched: UnwatchedJobs, now: float) -> str:
    from agent_jobs.rendering import answers, batches

    answer = batches.render_list(page, now, describe_error)
    for row, job in zip(answer["jobs"], page.jobs, strict=True):
        row |= {name: value for name, value in _list_more_fields(job, now) if value not in (None, "", False)}
        row |= unwatched.list_fields(job, now)
    return answers.format_json_line(answer)


def _list_more_fields(job: Job, now: float) -> Iterator[tuple[str, Any]]:
    """Yield what a program gets of a job beside what a model gets."""
    yield "tokens", count_exact_tokens(job.usage)
    yield "previous_job_id", job.previous_job_id
    yield "title", job.title
    yield "owner", job.owner
    yield "model", job.model
    yield "effort", job.effort
    yield "preset", job.preset
    yield "client", job.client
    yield "created_at", round(job.created_at)
    yield "duration_s", max(0, round(measure_run_time(job, now)))
    yield "unread", job.is_undelivered
    yield "reason", describe_pending(job, now)
