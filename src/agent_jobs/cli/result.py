"""`agent-jobs result`: print the result of a job."""

import json
import sys
from pathlib import Path
from typing import Any, get_args

import click

from agent_jobs.cli.choice import NamedChoice
from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.sections import wrap_hanging
from agent_jobs.cli.out_file import OutPath, check_out_file, force_option, write_out_file
from agent_jobs.cli.read_mark import mark_read
from agent_jobs.cli.session import Exit, JobId, Session, find_exit, json_option, run_in_session
from agent_jobs.cli.unwatched_jobs import UnwatchedJobs, retrieve_unwatched
from agent_jobs.cli.wording import describe_failure, describe_warning
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import SO_FAR, JobFilter, Part, Result
from agent_jobs.jobs.status import Status
from agent_jobs.text import encode_text

#: Bytes of a part. A part is never cut here, because no model pays for the text of a terminal.
PART_BYTES = 2**40
#: Parts that describe a job without its result: who reads them has not read the result.
PARTS_WITHOUT_RESULT = ("outline", "usage", "meta")


@click.command("result")
@click.argument("job_id", metavar="ID", type=JobId())
@click.option(
    "--part",
    type=NamedChoice(get_args(Part)),
    default="text",
    show_default=True,
    help=f"Part to print: {', '.join(get_args(Part))}.",
)
@click.option("-o", "--out", type=OutPath(path_type=Path), metavar="FILE", help="Write the part to this file.")
@force_option
@json_option
def result_command(job_id: str, part: Part, out: Path | None, force: bool, as_json: bool) -> None:
    """Print the result of a job: its text, or another part.

    A terminal shows the text as Markdown with its sources. A pipe or a file gets it unchanged.

    Exit status: 0 completed, 3 failed or expired, 4 incomplete, 5 cancelled, 6 the job is still running and there is no
    result yet.
    """
    check_out_file(out, may_overwrite=force)
    result, unwatched, now = read_result(job_id)
    job, note = result.job, unwatched.describe_age(result.job, now)
    if not job.is_terminal and part not in SO_FAR:
        click.echo(_describe_running(job, note), err=True)
        if as_json:
            fields = {"job_id": job.id, "status": job.status, **unwatched.list_fields(job, now)}
            click.echo(json.dumps(fields, separators=(",", ":")))
        raise SystemExit(Exit.RUNNING)
    if out is None and not as_json and sys.stdout.isatty():
        _show_part(result, part)
    else:
        _write_part(_render_part(result, part, as_json=as_json), out, may_overwrite=force)
    if part not in PARTS_WITHOUT_RESULT:
        mark_read(job)
    _write_absence(result, part, as_json=as_json)
    _write_notes(job, note)
    raise SystemExit(find_exit(job))


def read_result(job_id: str) -> tuple[Result, UnwatchedJobs, float]:
    """Return all that is stored of a job, after asking the provider if no process watches it, and the time."""

    async def read(session: Session) -> tuple[Result, UnwatchedJobs, float]:
        full_id = await session.engine.find_full_id(job_id)
        unwatched = await retrieve_unwatched(session, JobFilter(job_ids=(full_id,)))
        return await session.engine.result(full_id), unwatched, session.engine.now()

    return run_in_session(read)


def _show_part(result: Result, part: Part) -> None:
    """Show a part on a terminal, without control characters; texts as Markdown."""
    from agent_jobs.cli.display.answer_writer import TerminalWriter
    from agent_jobs.rendering import answers

    job, writer = result.job, TerminalWriter(is_streaming=False)
    if part == "text":
        writer.finish(job, answers.read_response(job).get("output"))
    elif part in SO_FAR:
        writer.print_text(_render_part(result, part, as_json=False))
    else:
        text = terminal.strip_control_characters(_render_part(result, part, as_json=False))
        click.echo(encode_text("\n".join(wrap_hanging(text))))


def _describe_running(job: Job, note: str) -> str:
    """Return that there is no result yet, and what to do."""
    status = ", ".join(filter(None, (job.status, note)))
    if job.status is Status.INPUT_REQUIRED:
        return f"{job.id} is {status}. Answer it with: agent-jobs reply {job.id}"
    return f"{job.id} is {status}. Wait for it with: agent-jobs watch {job.id}"


def _render_part(result: Result, part: Part, *, as_json: bool) -> str:
    """Return a part of a result as text or JSON."""
    from agent_jobs.cli.display.part_text import format_part
    from agent_jobs.rendering import answers
    from agent_jobs.rendering.result_parts import render_part

    answer = render_part(result, part, 0, PART_BYTES)
    if as_json:
        return answers.format_json_line(answer)
    value: Any = answer["output" if part == "text" else part]
    return format_part(part, value)


def _write_part(text: str, out: Path | None, *, may_overwrite: bool) -> None:
    if out is not None:
        return write_out_file(out, encode_text(text), may_overwrite=may_overwrite)
    if not text:
        return None
    return click.echo(encode_text(text), nl=not text.endswith("\n"))


def _write_absence(result: Result, part: Part, *, as_json: bool) -> None:
    """Write on stderr that a finished job has no text, unless its error says why."""
    from agent_jobs.rendering import answers

    job = result.job
    if part != "text" or as_json or job.error is not None or answers.read_output_text(job):
        return
    if job.status is Status.CANCELLED:
        click.echo(f"{job.id} was cancelled and has no output.", err=True)
    else:
        click.echo(f"{job.id} is {job.status} and has no text. See: agent-jobs result {job.id} --part items", err=True)


def _write_notes(job: Job, note: str) -> None:
    """Write remarks about the result on stderr."""
    if job.error is not None:
        click.echo(f"{job.status}: {terminal.join_lines(describe_failure(job.error))}", err=True)
    if note:
        click.echo(f"{job.id} is {job.status}, {note}.", err=True)
    terminal.write_notes(describe_warning(job), terminal.suggest_next_step(job))
