"""Report Ctrl-C in the same words and with the same exit status wherever it is pressed."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import click

from agent_jobs.ctrl_c import INTERRUPTED_STATUS, mark_interruption_reported


class Interrupted(click.ClickException):
    """The user pressed Ctrl-C; the message says what becomes of the jobs."""

    exit_code = INTERRUPTED_STATUS

    def show(self, file: Any = None) -> None:
        """Print that the command was interrupted, and how to resume."""
        click.echo(f"Interrupted. {self.message}".strip(), err=True)
        mark_interruption_reported()


@contextmanager
def report_interruption() -> Generator[None]:
    """Turn Ctrl-C in here into `Interrupted`; click would print "Aborted!" with exit status 1."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("") from None
    except click.Abort as error:
        # A prompt of click raises it for Ctrl-C, for a closed stdin and for "no".
        if isinstance(error.__context__, KeyboardInterrupt):
            raise Interrupted("") from None
        raise
