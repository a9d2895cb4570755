"""Format text for a terminal, without control characters that came from elsewhere."""

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import IO, Any

import click

from agent_jobs.cli.wording import describe_next_step
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.status import Status

#: Text of characters that are one column wide: Latin letters, and the signs of our own tables.
_ONE_COLUMN_EACH = re.compile(r"[\x00-\x7f\u00a0-\u00ac\u00ae-\u02ff\u2010-\u2027\u2500-\u259f●✓✗]*")
#: The colour of what needs attention: a dark orange, since yellow cannot be read on white.
ATTENTION = 166
#: Statuses without a row here are shown in cyan.
COLOURS: dict[Status, str | int] = {
    Status.COMPLETED: "green",
    Status.INCOMPLETE: ATTENTION,
    Status.FAILED: "red",
    Status.EXPIRED: "red",
    Status.CANCELLED: "magenta",
    Status.INPUT_REQUIRED: ATTENTION,
}
#: Seconds in each unit of an age, largest first.
TIME_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))
#: A narrower column would break every word onto a line of its own.
MIN_WRAP_COLUMNS = 20
#: The width of a pipe or a file.
UNLIMITED = 1_000_000
#: Columns of a notice, which covers the one before it.
NOTICE_COLUMNS = 16
#: Control characters that a text may have.
LAYOUT = frozenset("\n\t")
#: Characters that reverse the direction of writing, so that a reader sees another text than the one copied.
BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def can_overwrite(stream: IO[Any]) -> bool:
    """Return True if lines of this stream can be written over."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colours(stream: IO[Any]) -> bool:
    """Return True if the stream shows colours and the user wants them (https://no-color.org)."""
    return can_overwrite(stream) and not os.environ.get("NO_COLOR")


def show_notice(text: str) -> None:
    """Show a word at once on a terminal; the next line that is written, which is longer, covers it."""
    if can_overwrite(sys.stderr):
        sys.stderr.write(f"{text:<{NOTICE_COLUMNS}}\r")
        sys.stderr.flush()


def write_notes(*notes: str) -> None:
    """Write notes on stderr, one below the other; an empty one is left out."""
    for note in filter(None, notes):
        click.echo(note, err=True)


def find_width(*, piped: int = UNLIMITED) -> int:
    """Return the terminal's width in columns; `piped` if stdout is no terminal, where nothing needs to be cut."""
    if sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return piped


def is_width_limited() -> bool:
    """Return True if stdout is a terminal, so that long lines are cut or wrapped."""
    return find_width() < UNLIMITED


def strip_control_characters(text: str) -> str:
    """Return a text without control characters other than line ends and tabs: a model must not steer the terminal."""
    steering = {char for char in set(text) - LAYOUT if char in BIDI or unicodedata.category(char) in ("Cc", "Cs")}
    return text.translate(str.maketrans("", "", "".join(steering)))


def join_lines(text: str) -> str:
    """Return a text as one line, without control characters."""
    return " ".join(strip_control_characters(text).split())


def wrap_lines(text: str, width: int) -> list[str]:
    """Return a text as lines of `width` columns; a path stays on one line so that it can be copied."""
    import textwrap

    line_width = max(MIN_WRAP_COLUMNS, width)
    return textwrap.wrap(join_lines(text), line_width, break_long_words=False, break_on_hyphens=False)


def count_columns(text: str) -> int:
    """Return the number of terminal columns that a text needs."""
    if _ONE_COLUMN_EACH.fullmatch(text):
        return len(text)  # without the import of rich, most commands start sooner
    from rich.cells import cell_len

    return cell_len(text)


def fit_columns(text: str, width: int) -> str:
    """Return a text cut or padded to exactly `width` columns."""
    shown = cut_columns(text, width)
    return shown + " " * (width - count_columns(shown))


def cut_columns(text: str, width: int) -> str:
    """Return a text cut to at most `width` columns."""
    columns = count_columns(text)
    if columns <= width:
        return text
    if columns == len(text):
        return f"{text[: width - 1]}…"
    from rich.cells import set_cell_size

    return f"{set_cell_size(text, width - 1)}…"


def count_noun(count: int, noun: str) -> str:
    """Return a number with its noun, such as 1 job or 3 jobs."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}s"


def join_first(names: Sequence[str], most: int) -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(names[:most])
    if len(names) > most:
        return f"{shown} and {len(names) - most} more"
    return shown


def format_age(seconds: float) -> str:
    """Return a time in one unit, such as 12s, 5m, 3h, 4d."""
    for size, unit in TIME_UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


def format_duration(seconds: float) -> str:
    """Return a time in one unit for a sentence, such as 12 s, 5 min, 3 h, 4 d."""
    figure = format_age(seconds)
    count, unit = figure[:-1], figure[-1]
    if unit == "m":
        return f"{count} min"
    return f"{count} {unit}"


def format_elapsed(seconds: float) -> str:
    """Return a time to the second, such as 0:07 or 1:02:03."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minute:02}:{second:02}"
    return f"{minute}:{second:02}"


def format_tokens(job: Job) -> str:
    """Return a job's tokens, such as 950, 12k or 1.2M; empty if unknown, ? if some of them are unknown."""
    if job.usage is None:
        return ""
    if job.usage.partial:
        return "?"
    return format_count(job.usage.input_tokens + job.usage.output_tokens)


def describe_tokens(job: Job) -> str:
    """Return a job's tokens with their noun, such as 12k tokens; empty if unknown."""
    tokens = format_tokens(job)
    if not tokens:
        return ""
    return f"{tokens} tokens"


def format_count(count: int) -> str:
    """Return a number in a short form, such as 950, 12k or 1.2M."""
    if count >= 999_500:
        return f"{count / 1e6:.1f}M"
    if count >= 10_000:
        return f"{count / 1e3:.0f}k"
    return str(count)


def format_usd(amount: float | None) -> str:
    """Return an amount to the cent, smaller ones to one digit; empty if unknown."""
    if amount is None:
        return ""
    if amount == 0 or amount >= 0.01:
        return f"${amount:.2f}"
    return f"${amount:.1g}"


def format_pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Return names with their values, one below the other; a long value continues below itself."""
    width = max((count_columns(name) for name, _ in rows), default=0) + 2
    lines: list[str] = []
    for name, text in rows:
        first, *more = strip_control_characters(text).splitlines() or [""]
        lines.append(f"{fit_columns(name, width)}{first}")
        lines += (" " * width + each for each in more)
    return "\n".join(lines)


def suggest_next_step(job: Job) -> str:
    """Return what a person can do about a job that waits for answers or failed; empty if nothing."""
    if job.status is Status.INPUT_REQUIRED:
        return f"See what it asks for with: agent-jobs reply {job.id}"
    return describe_next_step(job)
