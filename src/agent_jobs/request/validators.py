"""One value of the caller's at a time: right, or refused in one sentence that says what it takes. Pure."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from agent_jobs.errors import RequestError
from agent_jobs.text import suggest_name


def one_of(name: str, value: Any, allowed: Iterable[str]) -> str:
    """The value, if it is allowed; otherwise a sentence that names the nearest one, or all."""
    names = list(allowed)
    if value in names:
        return value
    given = value if isinstance(value, str) else str(value)
    raise RequestError(f"{name} does not take {given[:40]!r}: {suggest_name(given, names)}")


def text(name: str, value: Any) -> str:
    """The value, if it is a text that says something."""
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{name} takes a text.")
    return value


def texts(name: str, value: Any) -> list[str]:
    """The value, if it is a list of at least one text."""
    each = cast("list[Any]", value) if isinstance(value, list) else []
    if not each or not all(isinstance(item, str) and item.strip() for item in each):
        raise RequestError(f"{name} takes a list of at least one text.")
    return each


def flag(name: str, value: Any) -> bool:
    """The value, if it is true or false."""
    if not isinstance(value, bool):
        raise RequestError(f"{name} takes true or false.")
    return value


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """The value, if it is a whole number within its limits."""
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not fits or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise RequestError(f"{name} takes a whole number {limits}.")
    return value


def number(name: str, value: Any, least: float, most: float) -> float:
    """The value, if it is a number within its limits."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        limits = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise RequestError(f"{name} takes a number {limits}.")
    return value


def mapping(name: str, value: Any, example: str) -> Mapping[str, Any]:
    """The value, if it is an object; otherwise a sentence with an example of one."""
    if not isinstance(value, dict):
        raise RequestError(f"{name} takes an object like {example}.")
    return cast("Mapping[str, Any]", value)
