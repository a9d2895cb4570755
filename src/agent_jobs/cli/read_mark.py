"""Record that a person has read a result, once it is printed: a retention deletes read results."""

import os
from dataclasses import replace

from agent_jobs.cli.closed_output import is_stdout_abandoned
from agent_jobs.cli.session import Session, run_in_session
from agent_jobs.jobs.job import Job
from agent_jobs.settings.configuration import load_usable_settings


def mark_read(job: Job) -> None:
    """Store that the result of a finished job was read, unless its reader left before its end."""
    if not job.is_terminal or job.read_at is not None or is_stdout_abandoned():
        return

    async def mark(session: Session) -> None:
        await session.engine.mark_read(job)

    run_in_session(mark, settings=replace(load_usable_settings(os.environ)[0], warnings=()))
