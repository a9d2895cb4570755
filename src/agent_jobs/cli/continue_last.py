"""`--continue`: continue the newest finished job of the terminal."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.session import CLIENT, Session, create_refusal, read_settings, run_in_session
from agent_jobs.errors import RequestError
from agent_jobs.jobs.job import Job

continue_option = click.option(
    "-c", "--continue", "continues", is_flag=True, help="Continue the newest finished job of the terminal."
)


def find_previous(arguments: Mapping[str, Any]) -> str | None:
    """Return the job that a new one continues: the one that was named, or the newest; None if it continues none."""
    if not arguments.get("continues"):
        return arguments["previous"]
    if arguments["previous"]:
        raise click.UsageError("Give --previous or --continue, not both.")

    async def find(session: Session) -> Job | None:
        return await session.engine.find_newest_finished(CLIENT)

    job = run_in_session(find, settings=replace(read_settings(), warnings=()))
    if job is None:
        raise create_refusal(
            RequestError(
                "No job of the terminal has finished, so there is none to continue. Name one of a host with "
                "--previous ID; `agent-jobs list` shows them."
            )
        )
    click.echo(f"Continuing {job.id}: {terminal.join_lines(job.title)}", err=True)
    return job.id
