"""`agent-jobs watch`: show jobs until they finish or the user leaves."""

import sys
from collections.abc import Callable, Sequence

import click

from agent_jobs.cli import terminal
from agent_jobs.cli.detach import describe_detached, resume_hint
from agent_jobs.cli.output import is_stdout_left
from agent_jobs.cli.progress import Display, Records, open_display
from agent_jobs.cli.session import JobId, Session, call, find_exit, json_option
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import GATHERED_MAX, JobFilter
from agent_jobs.jobs.status import Status

#: Seconds between refreshes: elapsed times are shown to the second.
REFRESH_S = 1.0
#: From this many jobs on, refreshes are rarer.
MANY_JOBS = 20
#: Seconds between refreshes of many jobs: each refresh writes a row of the database for each job.
REFRESH_MANY_S = 5.0


@click.command("watch")
@click.argument("job_ids", metavar="[ID]...", type=JobId(), nargs=-1)
@click.option("--all", "all_jobs", is_flag=True, help="Watch all active jobs, as without IDs.")
@json_option
def watch_command(job_ids: tuple[str, ...], all_jobs: bool, as_json: bool) -> None:
    """Watch jobs until they finish. Ctrl-C stops watching.

    Shows what each job does and for how long; of a single job also what it writes. The jobs continue when you stop.

    This process also works on jobs that no other process works on.

    Exit status: 0 completed, 3 failed or expired, 4 incomplete, 5 cancelled, 6 a job waits for an answer, 130 stopped
    by Ctrl-C. Of several jobs the worst counts. The command stops when no program reads its output; then 6 means that
    a job is still running.
    """
    if job_ids and all_jobs:
        raise click.UsageError("Give IDs or --all, not both.")

    async def watch(session: Session) -> list[Job]:
        ids = await _find_watched_ids(session, job_ids)
        if not ids:
            return []
        await announce_pending(session)
        session.app.work()
        resume = resume_hint(*ids) if job_ids else resume_hint()
        shown = Records() if as_json else open_display(sys.stdout, is_single=len(ids) == 1)
        with shown as display:
            return await watch_until_done(session, ids, display, resume=resume, has_reader=has_reader)

    jobs = call(watch, role="acts", what="watch")
    if not as_json:
        _write_summary(jobs)
    raise SystemExit(find_exit(*jobs))


async def _find_watched_ids(session: Session, job_ids: Sequence[str]) -> list[str]:
    """Return the full ids of these jobs, or the ids of all active jobs."""
    engine = session.engine
    if job_ids:
        return [await engine.identify(job_id) for job_id in job_ids]
    active = await engine.find(JobFilter(active=True, since=engine.now()), GATHERED_MAX)
    return [job.id for job in active.jobs]


def _write_summary(jobs: Sequence[Job]) -> None:
    """Write what the user can do next."""
    if not jobs:
        click.echo("No jobs are running. `agent-jobs list` shows finished ones.")
    if len(jobs) != 1:
        return
    [job] = jobs
    advice = terminal.advise(job)
    if advice:
        click.echo(advice, err=True)
    if job.output_bytes or not advice:
        click.echo(result_hint(job), err=True)


def result_hint(job: Job) -> str:
    """Return the sentence with the command that prints a job's result."""
    return f"Print the result with: agent-jobs result {job.id}"


def has_reader() -> bool:
    """Return False once a write to stdout failed because its reader is gone."""
    return not is_stdout_left()


async def announce_pending(session: Session, *but: str) -> None:
    """Name the jobs that an earlier command left unsent, before this process sends them."""
    engine = session.engine
    if engine.base_url is None or await engine.other_workers():
        return  # this process sends nothing, or another process sends them
    pending = JobFilter(statuses=frozenset({Status.PENDING}))
    for job in (await engine.find(pending, GATHERED_MAX)).jobs:
        if job.turn.base_url == engine.base_url and job.id not in but:
            title = terminal.join_lines(job.title)
            cancel = f"Stop it with: agent-jobs cancel {job.id}"
            click.echo(f"Sending {job.id}, which an earlier command did not send: {title}. {cancel}", err=True)


async def watch_until_done(
    session: Session,
    job_ids: Sequence[str],
    display: Display,
    *,
    resume: str,
    sent_here: bool = False,
    has_reader: Callable[[], bool] = lambda: True,
) -> list[Job]:
    """Show the jobs until none of them continues by itself, or nothing reads the display; return them.

    Meanwhile `session.detached` describes what becomes of the jobs if the user stops the command.
    """
    engine, group = session.engine, JobFilter(job_ids=tuple(job_ids))
    while True:
        found = await engine.find(group, len(job_ids))
        jobs = sorted(found.jobs, key=lambda job: (job.created_at, job.id))
        session.detached = describe_detached(jobs, resume, sent_here=sent_here)
        display.show(jobs, engine.now())
        running = tuple(job.id for job in jobs if _is_running(job))
        if not running:
            return jobs
        if not has_reader():
            click.echo(session.detached, err=True)
            return jobs
        refresh_s = REFRESH_S if len(running) < MANY_JOBS else REFRESH_MANY_S
        await engine.wait_for_any(JobFilter(job_ids=running), wait_s=refresh_s)


def _is_running(job: Job) -> bool:
    """Return True if a job continues without an answer of the user."""
    return not job.is_terminal and job.status is not Status.INPUT_REQUIRED
