"""`agent-jobs export`: write jobs with their prompts and answers as Markdown or JSON."""

import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import click

from agent_jobs.cli.choice import NamedChoice, require_one
from agent_jobs.cli.display import terminal
from agent_jobs.cli.out_file import OutPath, check_out_file, check_out_folder, force_option, write_whole_file
from agent_jobs.cli.session import JobId, Session, run_in_session
from agent_jobs.cli.times import format_day, since_option
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.text import encode_text

Format = Literal["markdown", "json"]
#: Writes jobs to a place.
_Writer = Callable[[Session, Sequence[Job]], Awaitable[None]]
#: More jobs than a database has.
NO_LIMIT = 2**31
_SUFFIXES = {"markdown": ".md", "json": ".json"}
#: Separates two jobs in one Markdown file.
SEPARATOR = "\n\n"


@click.command("export")
@click.argument("job_ids", metavar="[ID]...", type=JobId(), nargs=-1)
@click.option("--all", "all_jobs", is_flag=True, help="Export all jobs.")
@since_option
@click.option(
    "--format",
    "form",
    type=NamedChoice(list(_SUFFIXES)),
    default="markdown",
    show_default=True,
    help="Markdown for people, JSON for programs.",
)
@click.option(
    "-o", "--out", "target", type=OutPath(), metavar="PATH", help="A file; or a folder, for a file of each job."
)
@force_option
def export_command(
    job_ids: tuple[str, ...], all_jobs: bool, since: float | None, form: Format, target: str | None, force: bool
) -> None:
    """Write jobs with prompt, answer, sources, cost and ids.

    Give IDs, --all or --since. Without --out, everything goes to stdout. A path that is a folder, or that ends in /,
    gets a file for each job; the folder is made if only it is missing. JSON is one list of jobs. The oldest job comes
    first.
    """
    require_one({"IDs": bool(job_ids), "--all": all_jobs, "--since": since is not None})
    write = _choose_writer(target, form, may_overwrite=force)

    async def export(session: Session) -> int:
        jobs = await _find_exported_jobs(session, job_ids, since or 0.0)
        await write(session, jobs)
        return len(jobs)

    _report_count(run_in_session(export), target)


def _choose_writer(target: str | None, form: Format, *, may_overwrite: bool) -> _Writer:
    """Return what writes the jobs to --out, or to stdout without it. Refuse a path that cannot be written."""
    if target is None:
        return partial(_write_on_stdout, form=form)
    path = Path(target)
    if path.is_dir() or target.endswith(("/", os.sep)):
        check_out_folder(path)
        return partial(_write_folder, folder=path, form=form, may_overwrite=may_overwrite)
    check_out_file(path, may_overwrite=may_overwrite)
    return partial(_write_exported_file, path=path, form=form, may_overwrite=may_overwrite)


def _report_count(count: int, target: str | None) -> None:
    """Print how many jobs were written, unless they went to stdout."""
    if count == 0:
        click.echo("No jobs to export. What there is: agent-jobs list", err=True)
    elif target is not None:
        click.echo(f"Wrote {terminal.count_noun(count, 'job')} to {Path(target)}.", err=True)


async def _find_exported_jobs(session: Session, job_ids: Sequence[str], since: float) -> list[Job]:
    """Return these jobs, each once, or all jobs since a time, oldest first."""
    if not job_ids:
        page = await session.engine.find(JobFilter(since=since), NO_LIMIT)
        return page.jobs[::-1]
    ids = tuple(dict.fromkeys([await session.engine.find_full_id(job_id) for job_id in job_ids]))
    page = await session.engine.find(JobFilter(job_ids=ids), NO_LIMIT)
    return sorted(page.jobs, key=lambda job: ids.index(job.id))


async def _write_folder(
    session: Session, jobs: Sequence[Job], *, folder: Path, form: Format, may_overwrite: bool
) -> None:
    """Write a file for each job."""
    paths = [folder / f"{format_day(job.created_at)}-{job.id}{_SUFFIXES[form]}" for job in jobs]
    _check_job_files(paths, folder, may_overwrite=may_overwrite)
    for job, path in zip(jobs, paths, strict=True):
        _write_job_file(path, await _render_exported_job(session, job, form), may_overwrite=may_overwrite)


def _check_job_files(paths: Sequence[Path], folder: Path, *, may_overwrite: bool) -> None:
    if folder.is_dir():
        for path in paths:
            check_out_file(path, may_overwrite=may_overwrite)


def _write_job_file(path: Path, text: str, *, may_overwrite: bool) -> None:
    path.parent.mkdir(exist_ok=True)
    write_whole_file(path, encode_text(text), may_overwrite=may_overwrite)


async def _write_exported_file(
    session: Session, jobs: Sequence[Job], *, path: Path, form: Format, may_overwrite: bool
) -> None:
    """Write all jobs into one file, unless there are none."""
    if jobs:
        text = await _render_exported_jobs(session, jobs, form)
        write_whole_file(path, encode_text(text), may_overwrite=may_overwrite)


async def _write_on_stdout(session: Session, jobs: Sequence[Job], *, form: Format) -> None:
    text = await _render_exported_jobs(session, jobs, form)
    if sys.stdout.isatty():
        text = terminal.strip_control_characters(text)
    click.echo(encode_text(text), nl=False)


async def _render_exported_jobs(session: Session, jobs: Sequence[Job], form: Format) -> str:
    """Return the jobs as one Markdown text, or as a JSON list."""
    texts = [(await _render_exported_job(session, job, form)).rstrip("\n") for job in jobs]
    if form == "json":
        return "[\n" + ",\n".join(texts) + "\n]\n"
    if not texts:
        return ""
    return SEPARATOR.join(texts) + "\n"


async def _render_exported_job(session: Session, job: Job, form: Format) -> str:
    from agent_jobs.rendering.details import render_export
    from agent_jobs.rendering.markdown import render_markdown

    details = await session.engine.details(job.id)
    if form == "json":
        return json.dumps(render_export(details), indent=2, ensure_ascii=False) + "\n"
    return render_markdown(details.result.job, details.prompt)
