"""Sections of a long answer on a terminal: headings, wrapped texts and small tables."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import click

from agent_jobs.cli.display import terminal

INDENT = "  "
GAP = "  "
#: Before a detail for which a narrow terminal has no room beside its row.
BELOW = INDENT * 3
#: Columns of the last column of a table at least, however narrow the terminal is.
FEWEST_COLUMNS = 12


def format_heading(words: str) -> str:
    """Return a heading, bold on a terminal."""
    return style(words, bold=True)


def style(text: str, *, bold: bool = False, dim: bool = False, colour: str | int | None = None) -> str:
    """Return a text in a style if stdout shows it."""
    if not terminal.has_colours(sys.stdout):
        return text
    return click.style(text, bold=bold or None, dim=dim or None, fg=colour)


def wrap_text(text: str, indent: str = INDENT) -> list[str]:
    """Return a text of several lines as wide as the terminal; into a pipe its lines stay as they are."""
    lines = terminal.strip_control_characters(text).splitlines()
    if terminal.is_width_limited():
        room = max(terminal.MIN_WRAP_COLUMNS, terminal.find_width() - len(indent))
        lines = list(chain.from_iterable(wrap_line(line.expandtabs(4), room) for line in lines))
    return [f"{indent}{line}".rstrip() for line in lines]


def wrap_sentence(sentence: str) -> list[str]:
    """Return a sentence as lines of the terminal; into a pipe it stays one line."""
    if sentence.startswith(" ") or not terminal.is_width_limited():  # an indented sentence is a command to copy
        return [sentence]
    return terminal.wrap_lines(sentence, terminal.find_width())


def wrap_hanging(text: str) -> list[str]:
    """Return the lines of a text as wide as the terminal; the rest of a line stands below its beginning, indented."""
    width = terminal.find_width()
    lines: list[str] = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        if terminal.count_columns(line) <= width:
            lines.append(line)
            continue
        first, *more = wrap_line(line.strip(), max(terminal.MIN_WRAP_COLUMNS, width - len(indent) - len(INDENT)))
        lines += [indent + first, *(f"{indent}{INDENT}{each}" for each in more)]
    return lines


def format_pairs(pairs: Sequence[tuple[str, str]], indent: str = INDENT) -> Iterator[str]:
    """Yield names with their values; a long value continues below itself."""
    name_width = max(map(len, dict(pairs)), default=0)
    for name, value in pairs:
        first, *more = wrap_text(value, " " * (len(indent) + name_width + len(GAP))) or [""]
        yield f"{indent}{name.ljust(name_width)}{GAP}{first.strip()}"
        yield from more


def format_table(
    rows: Sequence[Mapping[str, str]], right: frozenset[str] = frozenset(), dropped: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the lines of a table whose last column is cut to the terminal; empty columns are left out.

    Args:
        rows: Cells by the names of their columns.
        right: The columns of figures, which are not cut.
        dropped: What a narrow terminal leaves out, first to last.
    """
    if not rows:
        return
    widths = measure_columns(rows)
    room = terminal.find_width()
    for name in dropped:
        if sum(widths.values()) + len(GAP) * len(widths) <= room:
            break
        widths.pop(name, None)
    names = list(widths)
    yield style(_format_row({name: name for name in names}, names, widths, right), dim=True)
    for row in rows:
        yield _format_row(row, names, widths, right)


def measure_columns(rows: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """Return the widths of the columns that are not empty. A cell of letters and signs needs no import of rich."""
    widths: dict[str, int] = {}
    for name in rows[0]:
        cells = [row[name] for row in rows]
        if any(cells):
            widths[name] = max(map(terminal.count_columns, (name, *cells)))
    return widths


def _format_row(row: Mapping[str, str], names: Sequence[str], widths: Mapping[str, int], right: frozenset[str]) -> str:
    *before, last = names
    cells = [fit_cell(row[name], widths[name], is_figure=name in right) for name in before]
    line = INDENT + "".join(f"{cell}{GAP}" for cell in cells)
    if last in right:
        return f"{line}{row[last].rjust(widths[last])}".rstrip()
    width = terminal.find_width()
    room = width - terminal.count_columns(line)
    if room < FEWEST_COLUMNS and not last and row[last]:
        return f"{line.rstrip()}\n{BELOW}{terminal.cut_columns(row[last], width - len(BELOW))}"
    return f"{line}{terminal.cut_columns(row[last], max(FEWEST_COLUMNS, room))}".rstrip()


def fit_cell(text: str, width: int, *, is_figure: bool) -> str:
    """Return a cell as wide as its column; a figure stands on the right."""
    if is_figure:
        return text.rjust(width)
    return terminal.fit_columns(text, width)


def wrap_line(line: str, room: int) -> list[str]:
    """Return a line as lines of this many columns, also of wide characters."""
    if not line.strip():
        return [""]
    import textwrap

    if line.isascii():
        # An address or an id stays whole, so that it can be copied; JSON has no better place to break.
        is_json = line.startswith(("{", "["))
        return textwrap.wrap(line, room, break_on_hyphens=False, break_long_words=is_json)
    from rich.console import Console
    from rich.text import Text

    return [part.plain.rstrip() for part in Text(line).wrap(Console(width=room), room)]
