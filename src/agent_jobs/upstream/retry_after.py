"""Read how long upstream asks to wait, in any of the header forms that servers use."""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

Headers = Mapping[str, str]

#: No upstream may make a job wait longer: a wrong header must not stop it for a day.
RETRY_AFTER_MAX_S = 3600.0

#: The endings of OpenAI's `x-ratelimit-*` headers, and the plain form of other servers.
_LIMIT_KINDS = ("-requests", "-tokens", "")
#: A duration as Go writes it, like `1h2m3.5s` or `120ms`.
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|h|m|s))+", re.ASCII)
_DURATION_PART = re.compile(r"([\d.]+)(ms|us|µs|ns|h|m|s)")
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_EPOCH_S = 1e9  # a number from here on is a moment in seconds since 1970, not a duration
_EPOCH_MS = 1e11  # from here on the moment is in milliseconds


def read_retry_after_s(headers: Headers) -> float | None:
    """Return how long upstream asked to wait, None where it did not say.

    The first of these counts: `retry-after-ms`, `retry-after` in seconds, `retry-after` as a date, and the reset of a
    used-up rate limit. A past date means at once; nonsense counts as not said.
    """
    for read in (_read_wait_in_ms, _read_wait_in_seconds, _read_wait_until_date, _read_rate_limit_reset):
        wait_s = read(headers)
        if wait_s is not None:
            return min(wait_s, RETRY_AFTER_MAX_S)
    return None


def parse_amount(text: str) -> float | None:
    """Return a finite number that is not negative, None for anything else."""
    try:
        number = float(text)
    except ValueError:
        return None
    if 0 <= number < float("inf"):
        return number
    return None


def parse_milliseconds(text: str) -> float | None:
    """Return a number of milliseconds in seconds, None for anything else."""
    number = parse_amount(text)
    if number is None:
        return None
    return number / 1000


def _read_wait_in_ms(headers: Headers) -> float | None:
    return parse_milliseconds(headers.get("retry-after-ms", ""))


def _read_wait_in_seconds(headers: Headers) -> float | None:
    return parse_amount(headers.get("retry-after", ""))


def _read_wait_until_date(headers: Headers) -> float | None:
    return _seconds_until(headers.get("retry-after", ""), headers)


def _read_rate_limit_reset(headers: Headers) -> float | None:
    """Return when the last of the used-up rate limits is reset. A limit with something left asks for no wait."""
    waits_s: list[float] = []
    for kind in _LIMIT_KINDS:
        if parse_amount(headers.get(f"x-ratelimit-remaining{kind}", "")):
            continue
        wait_s = _parse_reset(headers.get(f"x-ratelimit-reset{kind}", "").strip(), headers)
        if wait_s is not None:
            waits_s.append(wait_s)
    return max(waits_s, default=None)


def _parse_reset(text: str, headers: Headers) -> float | None:
    """Return the seconds until a reset that is written as a number, a duration or a date."""
    number = parse_amount(text)
    if number is not None:
        return _seconds_for_number(number, headers)
    if _DURATION.fullmatch(text):
        return sum(float(count) * _UNITS_S[unit] for count, unit in _DURATION_PART.findall(text))
    return _seconds_until(text, headers)


def _seconds_for_number(number: float, headers: Headers) -> float:
    if number < _EPOCH_S:
        return number
    if number >= _EPOCH_MS:
        number /= 1000
    return max(0.0, number - _read_server_time(headers))


def _seconds_until(text: str, headers: Headers) -> float | None:
    """Return the seconds until a date, by the server's own clock where it sends its time."""
    at = _parse_date(text)
    if at is None:
        return None
    return max(0.0, at - _read_server_time(headers))


def _read_server_time(headers: Headers) -> float:
    server_time = _parse_date(headers.get("date", ""))
    if server_time is None:
        return time.time()
    return server_time


def _parse_date(text: str) -> float | None:
    """Return an HTTP date or an ISO date as seconds since 1970, None for anything else."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError, TypeError, IndexError, OverflowError):
            date = parse(text.strip())
            if date.tzinfo is None:
                date = date.replace(tzinfo=UTC)
            return date.timestamp()
    return None
