"""Wrap the output of a command between words, and keep addresses and commands in one piece."""

import re

from agent_jobs.cli.terminal import MIN_WRAP_COLUMNS, count_columns

#: A command to copy: text in backticks, or after a colon up to the end of the sentence.
_COMMAND = re.compile(r"`[^`\n]*`|(?:(?<=: )|(?<=: run ))agent-jobs [^\n]*?(?=\.? [A-Z]|, | or |\.?$)", re.M)
#: Replaces a space at which no line may end.
_GLUE = "\0"


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
