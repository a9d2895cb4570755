"""`agent-jobs export`: write jobs with their prompts and answers as Markdown or JSON."""

import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

import click

from agent_jobs.atomic_file import replace_file
from agent_jobs.cli import terminal
from agent_jobs.cli.choice import NamedChoice
from agent_jobs.cli.session import JobId, Session, call
from agent_jobs.cli.times import format_day, since_option
from agent_jobs.jobs.queries import JobDetails, JobFilter
from agent_jobs.text import encode_text

Format = Literal["markdown", "json"]
#: More jobs than a database has.
NO_LIMIT = 2**31
_SUFFIXES = {"markdown": ".md", "json": ".json"}
#: Stands between two jobs in one Markdown file.
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
@click.option("-o", "--out", "target", metavar="PATH", help="A file; or a folder, for a file of each job.")
def export_command(
    job_ids: tuple[str, ...], all_jobs: bool, since: float | None, form: Format, target: str | None
) -> None:
    """Write jobs with prompt, answer, sources, cost and ids.

    Give IDs, --all or --since. Without --out, everything goes to stdout. A path that is a folder, or that ends in /,
    gets a file for each job. JSON is one list of jobs. The oldest job comes first.
    """
    if sum((bool(job_ids), all_jobs, since is not None)) != 1:
        raise click.UsageError("Give IDs, --all or --since.")
    out, is_folder = _parse_out_path(target)

    async def export(session: Session) -> int:
        ids = await _find_ids(session, job_ids, since or 0.0)
        jobs = _read_jobs(session, ids)
        if out is not None and is_folder:
            return await _write_folder(jobs, out, form)
        return await _write_one_file(jobs, out, form)

    count = call(export)
    _report_count(count, out)


def _names_folder(out: str) -> bool:
    return Path(out).is_dir() or out.endswith(("/", os.sep))


def _parse_out_path(target: str | None) -> tuple[Path | None, bool]:
    """Return the path of --out, and True if it is a folder, which is made if necessary."""
    if target == "":
        raise click.UsageError("--out needs a path, and this one is empty.")
    if target is None:
        return None, False
    path, is_folder = Path(target), _names_folder(target)
    if is_folder:
        path.mkdir(parents=True, exist_ok=True)
    return path, is_folder


def _report_count(count: int, out: Path | None) -> None:
    """Say how many jobs were written, unless they stand on stdout."""
    if count == 0:
        click.echo("No jobs to export. What there is: agent-jobs list", err=True)
    elif out is not None and count == 1:
        click.echo(f"Wrote 1 job to {out}.", err=True)
    elif out is not None:
        click.echo(f"Wrote {count} jobs to {out}.", err=True)


async def _find_ids(session: Session, job_ids: Sequence[str], since: float) -> list[str]:
    """Return the full ids of these jobs, or of all jobs since a time, oldest first."""
    if job_ids:
        return [await session.engine.identify(job_id) for job_id in job_ids]
    page = await session.engine.find(JobFilter(since=since), NO_LIMIT)
    return [job.id for job in reversed(page.jobs)]


async def _read_jobs(session: Session, ids: Sequence[str]) -> AsyncIterator[JobDetails]:
    for job_id in ids:
        yield await session.engine.details(job_id)


async def _write_folder(jobs: AsyncIterator[JobDetails], folder: Path, form: Format) -> int:
    """Write a file for each job; return how many."""
    count = 0
    async for details in jobs:
        job = details.result.job
        path = folder / f"{format_day(job.created_at)}-{job.id}{_SUFFIXES[form]}"
        replace_file(path, encode_text(_render_exported_job(details, form)))
        count += 1
    return count


async def _write_one_file(jobs: AsyncIterator[JobDetails], out: Path | None, form: Format) -> int:
    """Write all jobs into one file, or to stdout; return how many."""
    texts = [_render_exported_job(details, form).rstrip("\n") async for details in jobs]
    text = _join_jobs(texts, form)
    if out is not None and texts:
        replace_file(out, encode_text(text))
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
