"""`agent-jobs import`: move the jobs of a file into the PostgreSQL database."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.json_answer import print_answer
from agent_jobs.cli.owner import OwnerName
from agent_jobs.cli.session import convert_errors, json_option, read_settings
from agent_jobs.settings.secret_values import hide_database_password
from agent_jobs.wiring.database import import_job_file

if TYPE_CHECKING:
    from agent_jobs.wiring.database import ImportCounts


@click.command("import")
@click.argument("path", type=click.Path(resolve_path=True, path_type=Path))
@click.option("--owner", type=OwnerName(), metavar="NAME", help="The owner of the jobs on a team server.")
@click.option("--dry-run", is_flag=True, help="Only count what would be imported.")
@json_option
def import_command(path: Path, owner: str | None, dry_run: bool, as_json: bool) -> None:
    """Move the jobs of a jobs.db into the PostgreSQL database.

    PATH is a jobs.db of any version, or the folder that has it. The database is that of AGENT_JOBS_DATABASE_URL. A job
    that is there already is not imported again. Finished jobs stay in the file, too. Jobs that are not done leave it,
    and processes on the PostgreSQL database continue them. End all processes that use the file before.

    Exit status: 0 done, 1 nothing was imported, or not all of it; then run it again.
    """
    settings = read_settings()
    with convert_errors():
        counts = anyio.run(import_job_file, settings, path, owner, dry_run)
    lines = _describe_import(counts, hide_database_password(settings.database_url) or "", is_dry_run=dry_run)
    print_answer(asdict(counts), lines, as_json=as_json)


def _describe_import(counts: "ImportCounts", url: str, *, is_dry_run: bool) -> Iterator[str]:
    imported, copied = "Imported", "copied"
    if is_dry_run:
        imported, copied = "Would import", "to copy"
    jobs = terminal.count_noun(counts.jobs, "job")
    yield f"{imported} {jobs} into {url}: {counts.finished} finished, {counts.active} not done."
    if counts.known:
        yield f"Already there: {terminal.count_noun(counts.known, 'job')}."
    if counts.files:
        yield f"Files of runs {copied}: {counts.files}."
    if counts.keys:
        yield f"Without their key, which another job there has: {terminal.count_noun(counts.keys, 'job')}."
    if counts.active and not is_dry_run:
        yield "Jobs that are not done left the file. Processes that work on the database continue them."
