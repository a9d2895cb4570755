"""Print sentences in the width of the terminal."""

import shutil
import sys

import click

from agent_jobs.cli import terminal


def say(text: str, *, err: bool = False, indent: str = "") -> None:
    """Print sentences; on a terminal no word is broken. Later lines begin with `indent`."""
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        return click.echo(text, err=err)
    width = shutil.get_terminal_size().columns - len(indent)
    first, *more = terminal.wrap_lines(text, width) or [""]
    return click.echo("\n".join([first, *(indent + line for line in more)]), err=err)
