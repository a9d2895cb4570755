"""Say where an answer is that was paid for and could not be written."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import click

from agent_jobs.cli.session import Exit


class UnwrittenAnswer(click.ClickException):
    """An answer could not be written; the message says how to print it."""

    exit_code = Exit.UNWRITTEN

    def __init__(self, error: OSError, job_id: str) -> None:
        place, reason = error.filename or "The output", error.strerror or error
        super().__init__(
            f"{place} cannot be written ({reason}). Nothing is lost: {job_id} was started, and what it answers is "
            f"stored. Print it with: agent-jobs result {job_id}"
        )


@contextmanager
def report_unwritten(started_ids: Sequence[str]) -> Generator[None]:
    """Turn an error of the output in here into `UnwrittenAnswer`, if a job was started until then."""
    try:
        yield
    except OSError as error:
        if not started_ids:
            raise
        raise UnwrittenAnswer(error, started_ids[-1]) from None
