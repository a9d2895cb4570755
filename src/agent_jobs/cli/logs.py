"""`agent-jobs logs`: what happened to a job, with its times."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from agent_jobs.cli.detach import describe_detached, format_resume_hint
from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.sections import style
from agent_jobs.cli.display.symbols import echo
from agent_jobs.cli.session import JobId, Session, find_exit, json_option, run_in_session
from agent_jobs.cli.show import format_took
from agent_jobs.cli.times import format_clock_time, format_day, format_zone
from agent_jobs.cli.unwatched_jobs import retrieve_unwatched
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobDetails, JobFilter
from agent_jobs.jobs.status import Status

if TYPE_CHECKING:  # imported when there are jobs to show
    from agent_jobs.rendering.timeline import Moment

#: Seconds between two checks for new moments.
FOLLOW_S = 1.0
#: Columns of a time that something took, such as `59.9 s …`.
TOOK_COLUMNS = 8
#: Columns of what happened: a longer one moves the detail behind it.
WHAT_COLUMNS = 19
#: Columns of a detail; with less room it stands on a line of its own.
MIN_DETAIL_COLUMNS = 16
GAP = "  "
_COLOURS = {"gap": terminal.ATTENTION, "asked": terminal.ATTENTION, "cancel": "magenta"}


@click.command("logs")
@click.argument("job_id", metavar="ID", type=JobId())
@click.option("-f", "--follow", is_flag=True, help="Continue until the job finishes. Ctrl-C stops that, not the job.")
@json_option
def logs_command(job_id: str, follow: bool, as_json: bool) -> None:
    """Show what happened to a job, line by line with times.

    Shows when it was sent, each step with its time, calls of your tools, what was tried again, and when no process
    watched it. With --json each line is an object. With --follow this process also works on the job, as `watch` does.

    Exit status: 0, or with --follow as for watch.
    """
    if follow:
        jobs = run_in_session(lambda session: _follow_job(session, job_id, as_json=as_json), role="acts", what="logs")
        raise SystemExit(find_exit(jobs))

    async def read(session: Session) -> tuple[JobDetails, float]:
        full_id = await session.engine.find_full_id(job_id)
        await retrieve_unwatched(session, JobFilter(job_ids=(full_id,)))
        return await session.engine.details(full_id), session.engine.now()

    details, now = run_in_session(read)
    _Log(as_json=as_json).show(details, now, is_final=True)


async def _follow_job(session: Session, job_id: str, *, as_json: bool) -> Job:
    """Show new moments until the job finishes or waits for the user; return the job."""
    engine, log = session.engine, _Log(as_json=as_json)
    full_id = await engine.find_full_id(job_id)
    session.app.work()
    while True:
        details = await engine.details(full_id)
        job = details.result.job
        session.detached = describe_detached([job], format_resume_hint(job.id))
        is_over = job.is_terminal or job.status is Status.INPUT_REQUIRED
        log.show(details, engine.now(), is_final=is_over)
        if is_over:
            return job
        await engine.poll(full_id, wait_s=FOLLOW_S)


class _Log:
    """Writes the moments of a job, each once. Mutable: it knows what it has written."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._written: set[tuple[tuple[float, str, str], int]] = set()
        self._day = ""

    def show(self, details: JobDetails, now: float, *, is_final: bool) -> None:
        """Write new moments. A running step is written once it has finished, or if this is the last time."""
        from agent_jobs.rendering.timeline import build_timeline

        new: list[Moment] = []
        seen: Counter[tuple[float, str, str]] = Counter()  # calls of one tool can begin at the same time
        for moment in build_timeline(details, now):
            named = (moment.at, moment.kind, moment.what)
            seen[named] += 1
            key = (named, seen[named])
            if key in self._written or (moment.is_running and not is_final):
                continue
            self._written.add(key)
            new.append(moment)
        if self._as_json:
            self._write_moments_as_json(new)
        else:
            self._write_lines(new, now)
        sys.stdout.flush()

    def _write_moments_as_json(self, moments: "Sequence[Moment]") -> None:
        from agent_jobs.rendering.answers import format_json_line
        from agent_jobs.rendering.details import render_moment

        for moment in moments:
            click.echo(format_json_line(render_moment(moment)))

    def _write_lines(self, moments: "Sequence[Moment]", now: float) -> None:
        for moment in moments:
            if (day := format_day(moment.at)) != self._day:
                self._day = day
                echo(style(f"{day} {format_zone(moment.at)}", dim=True))
            echo("\n".join(_render_moment(moment, now)))


def _render_moment(moment: "Moment", now: float) -> Iterator[str]:
    """Yield the line of a moment; if the terminal is too narrow for its detail, that stands below."""
    took = format_took(moment.took_s)
    if moment.is_running:
        took = f"{format_took(now - moment.at)} …"
    what = terminal.join_lines(moment.what)
    if moment.kind == "gap" and moment.until is not None:
        what = f"not watched {format_clock_time(moment.at)} to {format_clock_time(moment.until)}"
    lead = f"{format_clock_time(moment.at)}  {took:>{TOOK_COLUMNS}}  "
    detail = terminal.join_lines(moment.detail)
    if not detail:
        yield lead + style(what, colour=_find_moment_colour(moment))
        return
    what = terminal.fit_columns(what, max(WHAT_COLUMNS, terminal.count_columns(what)))
    room = _find_room(lead + what + GAP)
    if room < MIN_DETAIL_COLUMNS:
        yield (lead + style(what.rstrip(), colour=_find_moment_colour(moment)))
        yield " " * len(lead) + terminal.cut_columns(detail, max(MIN_DETAIL_COLUMNS, _find_room(lead)))
        return
    yield lead + style(what, colour=_find_moment_colour(moment)) + GAP + terminal.cut_columns(detail, room)


def _find_room(before: str) -> int:
    """Return the columns of the terminal that are left behind a text; into a pipe, as many as one may need."""
    return terminal.find_width() - terminal.count_columns(before)


def _find_moment_colour(moment: "Moment") -> str | int | None:
    """Return the colour of a moment: that of a status, or of a warning."""
    if moment.kind == "finished":
        return terminal.COLOURS.get(Status(moment.what))
    if moment.is_error:
        return "red"
    return _COLOURS.get(moment.kind)
