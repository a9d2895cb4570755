"""Ask the user at the terminal for a line or for consent."""

import sys

import click


def ask_for_line(question: str, default: str) -> str:
    """Return the line that the user types, or the default for an empty one.

    The library of line editing, which click uses, may lose a Ctrl-C that comes while it starts.

    Raises:
        click.Abort: The input ended.
    """
    click.echo(f"{question} [{default}]: ", nl=False, err=True)
    line = sys.stdin.readline()
    if not line:
        raise click.Abort
    return line.strip() or default


def ask_to_agree(question: str) -> bool:
    """Return True if the user agrees; an empty line does."""
    while True:
        answer = ask_for_line(question, "Y/n").lower()
        if answer in ("y", "yes", "y/n"):
            return True
        if answer in ("n", "no"):
            return False
        click.echo("Answer y or n.", err=True)


def confirm(question: str) -> None:
    """Ask whether to do what --yes does unasked, and leave the command unless the user agrees.

    Raises:
        click.Abort: The user does not agree.
        click.ClickException: No one can answer, because stdin ended and is not a terminal.
    """
    try:
        agrees = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise click.ClickException("This is not a terminal, so you cannot answer here. Add --yes to agree.") from None
    if not agrees:
        raise click.Abort
