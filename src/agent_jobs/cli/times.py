"""Times on the command line: an age such as 2d, or a date."""

import re
import time
from datetime import datetime, timedelta
from typing import Any

import click

#: Seconds in each unit of an age.
_UNITS = {"m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
#: A longer time is a typing error, and dates end somewhere.
MAX_LIFETIME_S = 100 * 366 * 86_400.0
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([mhdw])", re.I)
_EXAMPLES = "Write an age such as 90m, 12h, 2d or 1w, a date such as 2026-11-01, or today or yesterday."


class Since(click.ParamType[float]):
    """A moment in the past, as epoch seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the time of an age or a date."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            since = _read_age(text) or _read_date(text)
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is not a time. {_EXAMPLES}", param, ctx)
        if since < time.time() - MAX_LIFETIME_S:
            self.fail(f"{value!r} is too long ago. {_EXAMPLES}", param, ctx)
        if since > time.time():
            self.fail(f"{value!r} is in the future. {_EXAMPLES}", param, ctx)
        return max(since, 1.0)  # 0 would mean that nothing was asked, and before 1970 there were no jobs


class Lifetime(click.ParamType[float]):
    """A length of time, in seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds that an age names."""
        age = _AGE.fullmatch(str(value).strip())
        if age is None or not 0 < float(age[1]) * _UNITS[age[2].lower()] < MAX_LIFETIME_S:
            self.fail(f"{value!r} is not a duration. Write one such as 90m, 12h, 90d or 8w.", param, ctx)
        return float(age[1]) * _UNITS[age[2].lower()]


def _read_age(text: str) -> float | None:
    """Return the moment that was this long ago; None if the text is no age."""
    age = _AGE.fullmatch(text)
    if age is None:
        return None
    return time.time() - float(age[1]) * _UNITS[age[2].lower()]


def _read_date(text: str) -> float:
    """Return the beginning of a day, or a time, where this computer is."""
    today = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    if text.lower() in days:
        return days[text.lower()].timestamp()
    if not re.match(r"\d{4}-\d", text):  # Python also accepts forms such as 20261101, which may be a typing error
        raise ValueError(text)
    return datetime.fromisoformat(text).timestamp()


def format_local_time(at: float) -> str:
    """Return a time with its date and zone, where this computer is."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))} {format_zone(at)}"


def format_zone(at: float) -> str:
    """Return the distance to UTC, where this computer is: UTC, +02:00 or -05:30."""
    offset = time.strftime("%z", time.localtime(at))
    if not offset.strip("+-0"):
        return "UTC"
    return f"{offset[:3]}:{offset[3:5]}"


def format_local_minute(at: float) -> str:
    """Return a time with its date, to the minute, where this computer is."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def format_utc_time(at: float) -> str:
    """Return a time with its date in UTC, which is the same for all readers of a log."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def format_clock_time(at: float) -> str:
    """Return the time of the day, where this computer is."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def format_day(at: float) -> str:
    """Return the date, where this computer is."""
    return time.strftime("%Y-%m-%d", time.localtime(at))


since_option = click.option(
    "--since", type=Since(), metavar="WHEN", help="Only jobs started since then: 90m, 12h, 2d, 1w or 2026-11-01."
)
