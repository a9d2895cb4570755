"""Wrap the output of a command between words, and keep addresses and commands in one piece."""

import re
import shutil
import sys

import click

from agent_jobs.cli.display.terminal import MIN_WRAP_COLUMNS, count_columns, strip_control_characters

#: A command to copy: text in backticks, or after a colon up to the end of the sentence.
_COMMAND = re.compile(r"`[^`\n]*`|(?:(?<=: )|(?<=: run ))agent-jobs [^\n]*?(?=\.? [A-Z]|, | or |\.?$)", re.M)
#: Replaces a space at which no line may end.
_GLUE = "\0"


def print_sentences(text: str, *, err: bool = False, indent: str = "") -> None:
    """Print sentences; on a terminal they are wrapped by `wrap_text`. Later lines begin with `indent`."""
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        return click.echo(text, err=err)
    width = shutil.get_terminal_size().columns - len(indent)
    first, *more = wrap_text(strip_control_characters(text), width).split("\n")
    return click.echo("\n".join([first, *(indent + line for line in more)]), err=err)


def wrap_text(text: str, width: int) -> str:
    """Return a text whose lines end between words where they are wider than a terminal.

    Lines that move the cursor, and indented ones, are laid out already and stay as they are.
    """
    if "\x1b" in text or "\r" in text:
        return text
    return "".join(_wrap_line(line, max(MIN_WRAP_COLUMNS, width)) for line in text.splitlines(keepends=True))


def _wrap_line(line: str, width: int) -> str:
    if count_columns(line.rstrip("\n")) <= width or line.startswith((" ", "\t")):
        return line
    import textwrap  # few lines are this long

    glued = _COMMAND.sub(lambda found: _glue_words(found[0], width), line.rstrip("\n"))
    lines = textwrap.wrap(
        glued,
        width,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        expand_tabs=False,
    )
    tail = line[len(line.rstrip(" \n")) :]  # a question ends with a space, and its answer follows
    return "\n".join(lines).replace(_GLUE, " ") + tail


def _glue_words(command: str, width: int) -> str:
    if len(command) > width:
        return command
    return command.replace(" ", _GLUE)
