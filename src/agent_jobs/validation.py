"""Checks of one value at a time, for settings, options and files alike. Pure."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar, cast

from agent_jobs.errors import AgentJobsError, RequestError
from agent_jobs.text import suggest_name

T = TypeVar("T")
ECHOED_CHARS = 40  # enough to recognise a name; a whole prompt in its place would cost tokens


class Kind(Generic[T]):
    """A kind of value. A plain class: a dataclass takes a millisecond of every start."""

    __slots__ = ("accepts", "fits")

    def __init__(self, accepts: str, fits: Callable[[Any], bool]) -> None:
        """Make a kind.

        Args:
            accepts: Completes the sentence "NAME accepts ...".
            fits: Returns True if a value is of this kind.
        """
        self.accepts = accepts
        self.fits = fits

    def check(self, name: str, value: object, error: type[AgentJobsError] = RequestError) -> T:
        """Return the value if it is of this kind.

        Raises:
            AgentJobsError: It is not. The class is `error`, and the sentence says what `name` accepts.
        """
        if not self.fits(value):
            raise error(f"{name} accepts {self.accepts}.")
        return cast("T", value)


class Choice(Kind[str]):
    """One of several strings."""

    __slots__ = ("names",)

    def __init__(self, names: Iterable[str]) -> None:
        """Make a kind of these strings."""
        self.names = list(names)
        super().__init__(f"one of {', '.join(self.names)}", lambda value: value in self.names)

    def check(self, name: str, value: object, error: type[AgentJobsError] = RequestError) -> str:
        """Return the value if it is one of the strings.

        Raises:
            AgentJobsError: It is not. The sentence names the nearest string, or all of them.
        """
        if isinstance(value, str) and value in self.names:
            return value
        given = str(value)
        raise error(f"{name} does not accept {given[:ECHOED_CHARS]!r}: {suggest_name(given, self.names)}")


def whole_number(least: int, most: float = math.inf) -> Kind[int]:
    """Return the kind of a whole number within limits."""
    limits = _name_limits(least, most)
    return Kind(f"a whole number {limits}", lambda value: _is_number(value, int) and least <= value <= most)


def number(least: float, most: float = math.inf) -> Kind[float]:
    """Return the kind of a number within limits."""
    limits = _name_limits(least, most)
    return Kind(f"a number {limits}", lambda value: _is_number(value, int, float) and least <= value <= most)


def _name_limits(least: float, most: float) -> str:
    if math.isinf(most):
        return f"of at least {least:.10g}"
    return f"from {least:.10g} to {most:.10g}"


def mapping(example: str) -> Kind[Mapping[str, Any]]:
    """Return the kind of an object, which is described by an example."""
    return Kind(f"an object like {example}", lambda value: isinstance(value, dict))


def _is_number(value: object, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _is_filled_string(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_list_of_strings(value: object) -> bool:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return bool(items) and all(map(_is_filled_string, items))


FLAG: Kind[bool] = Kind("true or false", lambda value: isinstance(value, bool))
STRING: Kind[str] = Kind("a non-empty string", _is_filled_string)
STRINGS: Kind[list[str]] = Kind("a list of at least one non-empty string", _is_list_of_strings)
