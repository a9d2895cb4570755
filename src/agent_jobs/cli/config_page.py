"""Show the settings as a page for a person: by subject, with units, those that are set first."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from agent_jobs.cli.display import sections, terminal
from agent_jobs.settings.settings import CONFIG, SUBJECTS, VARIABLES

#: Shown also with their defaults: what a user asks about first.
FIRST_VARIABLES = frozenset({
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "AGENT_JOBS_MODEL",
    "AGENT_JOBS_FILE_ROOTS",
    CONFIG,
    "AGENT_JOBS_DATA_DIR",
    "AGENT_JOBS_DAILY_BUDGET_USD",
})  # fmt: skip
#: Columns of text that goes into a pipe.
PIPE_COLUMNS = 100
EXPLANATION_INDENT = "    "
NONE = "none"
SWITCH = {True: "on", False: "off"}
#: What holds while nothing is set, for settings whose absence does not mean none.
UNSET_WORDS = {"AGENT_JOBS_MAX_WAIT_S": "as long as the host allows", "AGENT_JOBS_RETENTION_DAYS": "all jobs are kept"}


class SettingRow(NamedTuple):
    """A setting as `config` shows it."""

    value: Any
    origin: str
    is_refused: bool = False  #: what the user wrote cannot be used, so the default is in force

    @property
    def origin_words(self) -> str:
        """Return where the value comes from."""
        if self.is_refused:
            return "default"
        return self.origin


def list_page(rows: Mapping[str, SettingRow], *, is_explained: bool) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        rows: The settings to show, by their variables.
        is_explained: True to describe each setting below its line.
    """
    name_columns = max(map(len, rows))
    origin_columns = max(len(row.origin_words) for row in rows.values())
    between = ""
    for subject, variables in SUBJECTS.items():
        names = [name for name in variables if name in rows]
        if not names:
            continue
        yield f"{between}{sections.format_heading(subject)}"
        between = "\n"
        for name in names:
            start = f"  {name:<{name_columns}}  {rows[name].origin_words:<{origin_columns}}  "
            yield from _list_setting(name, rows[name], start, is_explained=is_explained)


def _list_setting(name: str, row: SettingRow, start: str, *, is_explained: bool) -> Iterator[str]:
    yield from _lay_out_setting(start, _describe_row(name, row))
    if is_explained:
        yield from _explain_setting(name)


def list_lines(rows: Mapping[str, SettingRow]) -> Iterator[str]:
    """Yield a line for each setting, for `grep` and its like."""
    name_columns = max(map(len, rows))
    origin_columns = max(len(row.origin_words) for row in rows.values())
    for name, row in rows.items():
        yield f"{name:<{name_columns}}  {row.origin_words:<{origin_columns}}  {_describe_row(name, row)}"


def describe_rest(count: int) -> str:
    """Return a sentence about the settings that the short page leaves out."""
    return (
        f"{count} other settings have their defaults. `agent-jobs config --all` shows them, `--explain` describes each."
    )


def describe_value(name: str, value: Any) -> str:
    """Return a value in words and with its unit."""
    unit = name.rpartition("_")[2]
    match value:
        case None | ():
            return UNSET_WORDS.get(name, NONE)
        case bool():
            return SWITCH[value]
        case int() | float() if unit in UNITS:
            return UNITS[unit](value)
        case _:
            return terminal.join_lines(str(value))


def format_span(seconds: float) -> str:
    """Return a time in full, such as 45 s, 3 h or 1 h 30 min."""
    parts: list[str] = []
    rest = seconds
    for size, form in SPAN_UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(form(count))
    if rest or not parts:
        parts.append(f"{rest:g} s")
    return " ".join(parts)


def _format_days(days: float) -> str:
    if days == 1:
        return "1 day"
    return f"{days:g} days"


def _format_usd(amount: float) -> str:
    return f"${amount:,.2f}"


#: Units of a time, the largest first: their seconds, and the form of a number of them.
SPAN_UNITS = ((86_400, _format_days), (3_600, "{:g} h".format), (60, "{:g} min".format))
#: The form of a value by the last part of its variable, which is its unit.
UNITS: Mapping[str, Callable[[float], str]] = {"S": format_span, "DAYS": _format_days, "USD": _format_usd}


def _is_shown_first(name: str, row: SettingRow) -> bool:
    return name in FIRST_VARIABLES or row.origin != "default"


def _describe_row(name: str, row: SettingRow) -> str:
    words = describe_value(name, row.value)
    if row.is_refused:
        return f"{words} (the value from {row.origin} is invalid)"
    if name == CONFIG and not Path(words).exists():
        return f"{words} (not made yet)"
    return words


def _lay_out_setting(start: str, value: str) -> Iterator[str]:
    """Yield a setting's line; a value that is too wide for its column stands below, in one piece if it is a path."""
    width = terminal.find_width()
    if len(start) + terminal.count_columns(value) <= width:
        yield start + value
        return
    room = width - len(start)
    if room >= terminal.MIN_WRAP_COLUMNS and max(map(terminal.count_columns, value.split())) <= room:
        first, *more = terminal.wrap_lines(value, room)
        yield start + first
        yield from (" " * len(start) + line for line in more)
        return
    yield start.rstrip()
    yield from _wrap_below(value, width)


def _explain_setting(name: str) -> list[str]:
    variable = VARIABLES[name]
    return _wrap_below(f"{variable.about} Accepts {variable.accepts}.", terminal.find_width(piped=PIPE_COLUMNS))


def _wrap_below(text: str, width: int) -> list[str]:
    """Return the indented lines of a text below a setting."""
    return [EXPLANATION_INDENT + line for line in terminal.wrap_lines(text, width - len(EXPLANATION_INDENT))]


def write_page(rows: Mapping[str, SettingRow], mistakes: list[str], *, is_full: bool, is_explained: bool) -> None:
    """Print the page on stdout, then on stderr what it leaves out and what is wrong with the settings."""
    remarks = mistakes
    if is_full or is_explained:
        lines = list_page(rows, is_explained=is_explained)
    elif sys.stdout.isatty():
        shown = {name: row for name, row in rows.items() if _is_shown_first(name, row)}
        lines = list_page(shown, is_explained=False)
        remarks = [describe_rest(len(rows) - len(shown)), *mistakes]
    else:
        lines = list_lines(rows)
    click.echo("\n".join(lines))
    for sentence in remarks:
        click.echo(f"\n{terminal.join_lines(sentence)}", err=True)
