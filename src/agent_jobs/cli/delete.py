"""`agent-jobs delete`: delete single jobs, read or not."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.session import Exit, JobId, Session, json_option, read_settings, run_in_session
from agent_jobs.cli.user_input import confirm
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter, Pruned
from agent_jobs.settings.settings import Settings

#: Jobs that the question names.
NAMED_JOBS = 10


class _Deleted(NamedTuple):
    """The outcome of a deletion."""

    pruned: Pruned
    cancelled: list[Job]  #: those that were cancelled first
    still_running: list[Job]  #: those whose cancel is not confirmed


@click.command("delete")
@click.argument("job_ids", metavar="ID...", type=JobId(), nargs=-1, required=True)
@click.option(
    "--upstream/--no-upstream",
    default=None,
    help="Delete the provider's copies, too.  [default: AGENT_JOBS_DELETE_UPSTREAM]",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def delete_command(job_ids: tuple[str, ...], upstream: bool | None, yes: bool, as_json: bool) -> None:
    """Delete jobs with their prompts and answers.

    A job that has not finished is cancelled first. Files that jobs wrote stay. All old jobs: agent-jobs prune.

    Exit status: 0 deleted, 1 nothing was deleted, 6 a job is still running, because its cancel is not confirmed yet.
    """
    settings = read_settings()
    if upstream is None:
        upstream = settings.delete_upstream == "yes"
    quiet = replace(settings, warnings=())
    jobs = _find_jobs(job_ids, quiet)
    if not yes:
        _confirm_deletion(jobs, upstream=upstream)

    async def delete(session: Session) -> _Deleted:
        return await _cancel_and_delete(session, jobs, upstream=upstream)

    deleted = run_in_session(delete, role="acts", settings=quiet)
    if as_json:
        _write_outcome_as_json(deleted)
    else:
        print_sentences(" ".join(_describe_deleted(deleted, upstream=upstream)))
    if deleted.still_running:
        raise SystemExit(Exit.RUNNING)


async def _cancel_and_delete(session: Session, jobs: Sequence[Job], *, upstream: bool) -> _Deleted:
    """Cancel the jobs that have not finished; delete all that have by then."""
    left: list[Job] = []
    if active := tuple(job.id for job in jobs if not job.is_terminal):
        left = await session.engine.cancel(JobFilter(job_ids=active))
    still_running = {job.id: job for job in left if not job.is_terminal}
    deletable = [job.id for job in jobs if job.id not in still_running]
    pruned = await session.engine.delete(deletable, upstream=upstream)
    return _Deleted(pruned, [job for job in left if job.is_terminal], list(still_running.values()))


def _find_jobs(job_ids: Sequence[str], settings: Settings) -> list[Job]:
    """Return the jobs that the user means, each once."""

    async def find(session: Session) -> list[Job]:
        ids = dict.fromkeys([await session.engine.find_full_id(job_id) for job_id in job_ids])
        page = await session.engine.find(JobFilter(job_ids=tuple(ids)), len(ids))
        return page.jobs

    return run_in_session(find, settings=settings)


def _confirm_deletion(jobs: Sequence[Job], *, upstream: bool) -> None:
    """Name the jobs and ask the user; leave the command unless the answer is yes."""
    for job in jobs[:NAMED_JOBS]:
        status = str(job.status)
        if not job.is_terminal:
            status += "  (is cancelled first)"
        click.echo(f"{job.id}  {status}  {terminal.join_lines(job.title)}", err=True)
    if len(jobs) > NAMED_JOBS:
        click.echo(f"and {len(jobs) - NAMED_JOBS} more", err=True)
    question = f"Delete these {len(jobs)} jobs with their prompts and answers"
    if len(jobs) == 1:
        question = "Delete this job with its prompt and answer"
    if upstream:
        question += ", here and at the provider"
    with raise_on_ctrl_c():  # the terminal has to be reset
        confirm(f"{question}?")


def _describe_deleted(deleted: _Deleted, *, upstream: bool) -> Iterator[str]:
    """Yield a sentence each for what was cancelled, deleted and kept."""
    pruned = deleted.pruned
    if deleted.cancelled:
        yield f"{_count_jobs(len(deleted.cancelled))} cancelled first."
    if pruned.deleted or not deleted.still_running:
        yield f"{_count_jobs(pruned.deleted)} deleted."
    for job in deleted.still_running:
        yield (
            f"{job.id} is still {job.status}: its cancel was requested and is not confirmed. Delete it later with: "
            f"agent-jobs delete {job.id}"
        )
    if not pruned.responses:
        return
    if upstream:
        yield f"{pruned.deleted_upstream} of {pruned.responses} responses were deleted at the provider."
    else:
        yield "The provider keeps its copies (--upstream deletes them, too)."


def _count_jobs(jobs: int) -> str:
    if jobs == 1:
        return "1 job was"
    return f"{jobs} jobs were"


def _write_outcome_as_json(deleted: _Deleted) -> None:
    from agent_jobs.rendering import answers

    answer = {
        "deleted": deleted.pruned.deleted,
        "cancelled": [job.id for job in deleted.cancelled],
        "still_running": [job.id for job in deleted.still_running],
        "deleted_upstream": deleted.pruned.deleted_upstream,
    }
    click.echo(answers.format_json_line(answer))
