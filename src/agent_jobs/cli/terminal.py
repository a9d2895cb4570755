"""What a terminal shows: widths, colours, ages, and never a control character that came from elsewhere."""

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import IO, Any

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.status import Status

COLOURS = {
    Status.COMPLETED: "green",
    Status.INCOMPLETE: "yellow",
    Status.FAILED: "red",
    Status.EXPIRED: "red",
    Status.CANCELLED: "magenta",
    Status.INPUT_REQUIRED: "yellow",
}
UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def live(stream: IO[Any]) -> bool:
    """Whether what is written may be written over."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def colourful(stream: IO[Any]) -> bool:
    """Whether colours are welcome (https://no-color.org)."""
    return live(stream) and not os.environ.get("NO_COLOR")


def columns() -> int | None:
    """How wide the terminal is; None where stdout is none, and nothing needs to be cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


#: What turns the direction of writing, so that a text is read as another.
BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """A text without control characters, but for line ends and tabs: a model must not steer the terminal."""
    steering = {char for char in set(text) if char in BIDI or unicodedata.category(char) in ("Cc", "Cs")}
    return "".join(char for char in text if char in "\n\t" or char not in steering)


def line(text: str) -> str:
    """A text as one line."""
    return " ".join(plain(text).split())


def wrapped(text: str, width: int) -> list[str]:
    """A text as lines of so many columns; a path stays whole, to be copied."""
    import textwrap

    return textwrap.wrap(line(text), max(20, width), break_long_words=False, break_on_hyphens=False)


def cells(text: str) -> int:
    """How many columns a text takes."""
    return sum(_cells(char) for char in text)


def fit(text: str, width: int) -> str:
    """A text cut and filled up to so many columns."""
    if cells(text) > width:
        kept, used = "", 0
        for char in text:
            if used + _cells(char) > width - 1:
                break
            kept, used = kept + char, used + _cells(char)
        text = kept + "…"
    return text + " " * (width - cells(text))


def age(seconds: float) -> str:
    """A time in one unit, like 12s, 5m, 3h, 4d."""
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


def duration(seconds: float) -> str:
    """Return a time in one unit for a sentence, like 12 s, 5 min, 3 h, 4 d."""
    figure = age(seconds)
    return f"{figure[:-1]} {'min' if figure.endswith('m') else figure[-1]}"


def elapsed(seconds: float) -> str:
    """A time to the second, like 0:07 or 1:02:03."""
    whole = max(0, round(seconds))
    minutes = f"{whole // 60 % 60:02}" if whole >= 3600 else f"{whole // 60}"
    return f"{f'{whole // 3600}:' if whole >= 3600 else ''}{minutes}:{whole % 60:02}"


def tokens(job: Job) -> str:
    """What a job read and wrote, like 950, 12k, 1.2M; empty while unknown, ? where a part is not known."""
    if job.usage is None:
        return ""
    if job.usage.partial:
        return "?"
    count = job.usage.input_tokens + job.usage.output_tokens
    if count >= 999_500:
        return f"{count / 1e6:.1f}M"
    return f"{count / 1e3:.0f}k" if count >= 10_000 else str(count)


def advice(job: Job) -> str:
    """What to do about a job that asks for something or failed in a way that a person can mend; else empty."""
    if job.status is Status.INPUT_REQUIRED:
        return f"agent-jobs reply {job.id[:10]} shows what it asks for."
    if job.is_unconfirmed:
        return (
            f"It may be running and billed: look for metadata job_id={job.id} in the provider's dashboard, "
            f"then agent-jobs adopt {job.id[:10]} RESPONSE_ID."
        )
    return "Trying again is sensible." if job.error is not None and job.error.is_retryable else ""


def usd(amount: float | None) -> str:
    """An amount, to the cent where there are any; empty where it is not known."""
    if amount is None:
        return ""
    return f"${amount:.2f}" if amount >= 0.01 or amount == 0 else f"${amount:.1g}"


def size(count: int) -> str:
    """Bytes in one unit."""
    for limit, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} bytes"


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Names and what they are, below each other; long ones go on under themselves."""
    width = max((cells(name) for name, _ in rows), default=0) + 2
    shown: list[str] = []
    for name, text in rows:
        first, *more = plain(text).splitlines() or [""]
        shown += [f"{fit(name, width)}{first}", *(f"{' ' * width}{each}" for each in more)]
    return "\n".join(shown)


def _cells(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
