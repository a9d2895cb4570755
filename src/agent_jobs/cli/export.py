"""`agent-jobs export`: write jobs with their prompts and answers as Markdown or JSON."""

import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

import click

from agent_jobs.cli import terminal
from agent_jobs.cli.choice import NamedChoice, require_one
from agent_jobs.cli.out_file import OutPath, check_out_file, check_out_folder, force_option, write_whole_file
from agent_jobs.cli.session import JobId, Session, run_in_session
from agent_jobs.cli.times import format_day, since_option
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobDetails, JobFilter
from agent_jobs.text import encode_text

Format = Literal["markdown", "json"]
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
    out, is_folder = _check_out_path(target, may_overwrite=force)

    async def export(session: Session) -> int:
        found = await _find_exported_jobs(session, job_ids, since or 0.0)
        jobs = _read_jobs(session, found)
        if out is None or not is_folder:
            return await _write_one_file(jobs, out, form, may_overwrite=force)
        if out.is_dir():
            for job in found:
                check_out_file(_name_exported_file(out, job, form), may_overwrite=force)
        return await _write_folder(jobs, out, form, may_overwrite=force)

    count = run_in_session(export)
    _report_count(count, out)


def _names_folder(out: str) -> bool:
    return Path(out).is_dir() or out.endswith(("/", os.sep))


def _check_out_path(target: str | None, *, may_overwrite: bool) -> tuple[Path | None, bool]:
    """Return the path of --out, and True if it is a folder. Refuse one that cannot be written."""
    if target is None:
        return None, False
    path, is_folder = Path(target), _names_folder(target)
    if is_folder:
        check_out_folder(path)
    else:
        check_out_file(path, may_overwrite=may_overwrite)
    return path, is_folder


def _report_count(count: int, out: Path | None) -> None:
    """Print how many jobs were written, unless they went to stdout."""
    if count == 0:
        click.echo("No jobs to export. What there is: agent-jobs list", err=True)
    elif out is not None:
        click.echo(f"Wrote {terminal.count_noun(count, 'job')} to {out}.", err=True)


async def _find_exported_jobs(session: Session, job_ids: Sequence[str], since: float) -> list[Job]:
    """Return these jobs, each once, or all jobs since a time, oldest first."""
    if not job_ids:
        page = await session.engine.find(JobFilter(since=since), NO_LIMIT)
        return page.jobs[::-1]
    ids = tuple(dict.fromkeys([await session.engine.find_full_id(job_id) for job_id in job_ids]))
    page = await session.engine.find(JobFilter(job_ids=ids), NO_LIMIT)
    return sorted(page.jobs, key=lambda job: ids.index(job.id))


async def _read_jobs(session: Session, jobs: Sequence[Job]) -> AsyncIterator[JobDetails]:
    for job in jobs:
        yield await session.engine.details(job.id)


def _name_exported_file(folder: Path, job: Job, form: Format) -> Path:
    return folder / f"{format_day(job.created_at)}-{job.id}{_SUFFIXES[form]}"


async def _write_folder(jobs: AsyncIterator[JobDetails], folder: Path, form: Format, *, may_overwrite: bool) -> int:
    """Write a file for each job; return how many."""
    count = 0
    async for details in jobs:
        _write_job_file(details, folder, form, may_overwrite=may_overwrite)
        count += 1
    return count


def _write_job_file(details: JobDetails, folder: Path, form: Format, *, may_overwrite: bool) -> None:
    folder.mkdir(exist_ok=True)
    path = _name_exported_file(folder, details.result.job, form)
    write_whole_file(path, encode_text(_render_exported_job(details, form)), may_overwrite=may_overwrite)


async def _write_one_file(
    jobs: AsyncIterator[JobDetails], out: Path | None, form: Format, *, may_overwrite: bool
) -> int:
    """Write all jobs into one file, or to stdout; return how many."""
    texts = [_render_exported_job(details, form).rstrip("\n") async for details in jobs]
    text = _join_jobs(texts, form)
    if out is not None and texts:
        write_whole_file(out, encode_text(text), may_overwrite=may_overwrite)
    if out is None:
        _write_on_stdout(text)
    return len(texts)


def _join_jobs(texts: Sequence[str], form: Format) -> str:
    """Return the jobs as one Markdown text, or as a JSON list."""
    if form == "json":
        return "[\n" + ",\n".join(texts) + "\n]\n"
    if not texts:
        return ""
    return SEPARATOR.join(texts) + "\n"


def _write_on_stdout(text: str) -> None:
    if sys.stdout.isatty():
        text = terminal.strip_control_characters(text)
    click.echo(encode_text(text), nl=False)


def _render_exported_job(details: JobDetails, form: Format) -> str:
    from agent_jobs.rendering.details import render_export
    from agent_jobs.rendering.markdown import render_markdown

    if form == "json":
        return json.dumps(render_export(details), indent=2, ensure_ascii=False) + "\n"
    return render_markdown(details.result.job, details.prompt)
