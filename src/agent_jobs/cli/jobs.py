"""`agent-jobs cancel`, `adopt` and `prune`: commands that change jobs."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import click

from agent_jobs.cli.choice import require_one
from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.job_list import DAY_S, Days
from agent_jobs.cli.json_answer import print_answer, print_json_answer
from agent_jobs.cli.parameters import BatchName
from agent_jobs.cli.session import Exit, JobId, Session, json_option, read_settings, run_in_session
from agent_jobs.cli.user_input import confirm
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter, Pruned

#: What `prune` asks, by whether it deletes unread jobs and the provider's copies.
_QUESTIONS = {
    (False, False): "Delete the jobs that finished {days:g} days ago or earlier?",
    (False, True): "Delete the jobs that finished {days:g} days ago or earlier, here and at the provider?",
    (True, False): "Delete all jobs, read or not, that finished {days:g} days ago or earlier?",
    (True, True): (
        "Delete all jobs, read or not, that finished {days:g} days ago or earlier, here and at the provider?"
    ),
}


@click.command("cancel")
@click.argument("job_ids", metavar="[ID]...", type=JobId(), nargs=-1)
@click.option("--batch", type=BatchName(), default="", help="Cancel all active jobs of this batch.")
@json_option
def cancel_command(job_ids: tuple[str, ...], batch: str, as_json: bool) -> None:
    """Cancel jobs, here and at the provider.

    Exit status: 0 all jobs have finished, 6 the provider has not confirmed a cancellation yet; it is requested again
    later.
    """
    require_one({"IDs": bool(job_ids), "--batch": bool(batch)})

    async def cancel(session: Session) -> tuple[list[Job], list[str]]:
        ids = [await session.engine.find_full_id(job_id) for job_id in job_ids]
        if not ids:
            return await session.engine.cancel(JobFilter(batch=batch)), []
        group = JobFilter(job_ids=tuple(ids))
        finished = {job.id for job in (await session.engine.find(group, len(ids))).jobs if job.is_terminal}
        jobs = sorted(await session.engine.cancel(group), key=lambda job: ids.index(job.id))
        return jobs, [job.id for job in jobs if job.id in finished]

    jobs, finished = run_in_session(cancel, role="acts")
    _write_cancelled(jobs, batch, as_json=as_json)
    if finished:
        click.echo(f"There was nothing to cancel: {', '.join(finished)} had already finished.", err=True)
    raise SystemExit(Exit.DONE if all(job.is_terminal for job in jobs) else Exit.RUNNING)


def _write_cancelled(jobs: Sequence[Job], batch: str, *, as_json: bool) -> None:
    if not (jobs or as_json):
        click.echo(f"No jobs of batch {batch!r} are running.", err=True)
    answer = {job.id: job.status for job in jobs}
    print_answer(answer, map(_describe_cancelled, jobs), as_json=as_json, write=click.echo)


def _describe_cancelled(job: Job) -> str:
    if job.is_terminal:
        return f"{job.id}  {job.status}"
    return f"{job.id}  {job.status}  (cancel requested)"


@click.command("adopt")
@click.argument("job_id", metavar="JOB", type=JobId())
@click.argument("response_id")
@json_option
def adopt_command(job_id: str, response_id: str, as_json: bool) -> None:
    """Assign a response id to a job whose start is unconfirmed.

    Find the id in the provider's dashboard. The job's result is collected from that response.
    """

    async def adopt(session: Session) -> tuple[Job, bool]:
        job = await session.engine.adopt(await session.engine.find_full_id(job_id), response_id)
        return job, bool(await session.engine.other_workers())

    job, is_watched = run_in_session(adopt, role="acts")
    if as_json:
        return print_json_answer({"job_id": job.id, "status": job.status, "response_id": job.turn.response_id})
    click.echo(f"{job.id}  {job.status}  {job.turn.response_id}")
    if not is_watched:
        click.echo(f"No process is watching it yet. Collect it with: agent-jobs watch {job.id}", err=True)
    return None


@click.command("prune")
@click.option(
    "--days", type=Days(0), help="Delete jobs that finished this many days ago.  [default: AGENT_JOBS_RETENTION_DAYS]"
)
@click.option(
    "--upstream/--no-upstream",
    default=None,
    help="Delete the provider's copies, too.  [default: AGENT_JOBS_DELETE_UPSTREAM]",
)
@click.option("--unread", is_flag=True, help="Delete unread results, too.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def prune_command(days: float | None, upstream: bool | None, unread: bool, yes: bool, as_json: bool) -> None:
    """Delete old jobs, except those with unread results.

    The provider keeps its copies unless you give --upstream.
    """
    settings = read_settings()
    if days is None:
        days = settings.retention_days
    if days is None:
        raise click.UsageError("Give --days: AGENT_JOBS_RETENTION_DAYS is not set, so all jobs are kept.")
    if upstream is None:
        upstream = settings.delete_upstream == "yes"
    if not yes:
        _confirm_prune(days, upstream=upstream, unread=unread)
    older_than_s = days * DAY_S

    async def prune(session: Session) -> Pruned:
        return await session.engine.prune(older_than_s, upstream=upstream, unread=unread)

    pruned = run_in_session(prune, role="acts", settings=replace(settings, warnings=()))
    if as_json:
        answer = {
            "forgotten": pruned.deleted,
            "kept_unread": pruned.unread,
            "deleted_upstream": pruned.deleted_upstream,
        }
        return click.echo(json.dumps(answer))
    return print_sentences(" ".join(_describe_pruned(pruned, upstream=upstream)))


def _confirm_prune(days: float, *, upstream: bool, unread: bool) -> None:
    """Ask the user; leave the command unless the answer is yes."""
    with raise_on_ctrl_c():  # the terminal has to be reset
        confirm(_QUESTIONS[unread, upstream].format(days=days))


def _describe_pruned(pruned: Pruned, *, upstream: bool) -> Iterator[str]:
    """Yield a sentence each for what was deleted, for what was kept, and for the provider's copies."""
    yield _choose_by_number(pruned.deleted, "1 job was deleted.", "{} jobs were deleted.")
    if pruned.unread:
        yield _choose_by_number(
            pruned.unread,
            "1 was kept because its result is unread (--unread deletes it).",
            "{} were kept because their results are unread (--unread deletes them).",
        )
    if pruned.responses:
        if upstream:
            yield f"{pruned.deleted_upstream} of {pruned.responses} responses were deleted at the provider."
        else:
            yield "The provider keeps its copies (--upstream deletes them, too)."


def _choose_by_number(count: int, one: str, several: str) -> str:
    if count == 1:
        return one
    return several.format(count)
