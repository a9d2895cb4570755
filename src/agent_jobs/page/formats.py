"""Write times, amounts and tokens for a person. Pure."""

import time

from agent_jobs.jobs.response import Usage

#: A shorter time span is shown with its tenths.
TENTHS_UNTIL_S = 9.95
MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400


def format_duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    whole = max(0, round(seconds))
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02} s"
    return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S:02} min"


def format_span(seconds: float) -> str:
    """Return a time span as `format_duration`, one of a few seconds with its tenths."""
    if seconds >= TENTHS_UNTIL_S:
        return format_duration(seconds)
    tenths = f"{max(0.0, seconds):.1f}"
    return f"{tenths.removesuffix('.0')} s"


def format_age(at: float, now: float) -> str:
    """Return when something was, as a reader says it: in minutes, hours, or with its day."""
    age_s = now - at
    if age_s < MINUTE_S:
        return "now"
    if age_s < HOUR_S:
        return f"{int(age_s // MINUTE_S)} min ago"
    if age_s < DAY_S:
        return f"{int(age_s // HOUR_S)} h ago"
    day = time.localtime(at)
    if day.tm_year == time.localtime(now).tm_year:
        return f"{time.strftime('%b', day)} {day.tm_mday}"
    return time.strftime("%Y-%m-%d", day)


def format_time(at: float) -> str:
    """Return a moment in full, in the time of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at)).rstrip()


def format_machine_time(at: float) -> str:
    """Return a moment in the form that HTML's `time` accepts."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def format_usd(usd: float | None) -> str:
    """Return an amount with as many digits as it needs; empty while it is not known."""
    if usd is None:
        return ""
    if 0 < usd < 0.01:
        return f"${usd:.4f}"
    return f"${usd:,.2f}"


def format_tokens(usage: Usage | None) -> str:
    """Return the tokens of a job or turn; empty while they are not known."""
    if usage is None:
        return ""
    tokens = f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"
    if usage.partial:
        return f"at least {tokens}"
    return tokens
