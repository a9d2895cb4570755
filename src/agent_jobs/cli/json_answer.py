"""Print the answer of a command: as JSON for a program, or as lines for a person."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from agent_jobs.cli.display.wrapping import print_sentences


def print_answer(
    answer: Mapping[str, Any],
    lines: Iterable[Any],
    *,
    as_json: bool,
    write: Callable[[Any], None] = print_sentences,
) -> None:
    """Print the answer of a command in one of two forms.

    Args:
        answer: The answer for a program.
        lines: The answer for a person. A generator makes them only if they are printed.
        as_json: True to print the answer for a program.
        write: Prints one of the lines.
    """
    if as_json:
        return print_json_answer(answer)
    for line in lines:
        write(line)
    return None


def print_json_answer(answer: Mapping[str, Any]) -> None:
    """Print the answer of a command as one line of JSON."""
    from agent_jobs.rendering import answers

    click.echo(answers.format_json_line(answer))
