"""Checks of one value at a time, for settings, options and files alike. Pure."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar, cast

from agent_jobs.errors import AgentJobsError, Argument, RequestError
from agent_jobs.text import compact_json, nearest

T = TypeVar("T")
ECHOED_CHARS = 40  # enough to recognise a name; a whole prompt in its place would cost tokens
LISTED_NAMES = 40  # more names in one sentence help no reader
#: The code of each refusal if a file of the user's holds the value, so that no other argument helps.
ENTRY_CODES = {"wrong_value": "wrong_entry", "misspelt": "misspelt_entry", "not_a_choice": "unknown_entry"}


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
            raise value_error(name, self.accepts, value, error)
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
            AgentJobsError: It is not. The error names the nearest string, or all of them.
        """
        if value in self.names:
            return cast("str", value)
        raise choice_error("{name} does not accept {given!r}.", name, str(value), self.names, error)


def value_error(name: str, accepts: str, value: object, error: type[AgentJobsError] = RequestError) -> AgentJobsError:
    """Return the refusal of a value, with what `name` accepts instead. A string is not shown: it may be a secret."""
    problem = "{name} accepts {accepts}, not {given}."
    return error(
        problem,
        _code_for("wrong_value", error),
        name=_name_for(name, error),
        accepts=accepts,
        given=_describe_value(value),
    )


def choice_error(
    problem: str,
    name: str,
    given: str,
    names: Iterable[str],
    error: type[AgentJobsError] = RequestError,
    **data: object,
) -> AgentJobsError:
    """Return the refusal of a name that is none of `names`, with the nearest of them, or all.

    Args:
        problem: Says that `{name}` has no `{given}`.
        name: The argument, or the place in a file.
        given: The name that was given.
        names: The names that exist.
        error: The class of the error.
        data: Further facts of the problem.
    """
    known = list(names)
    data |= {"name": _name_for(name, error), "given": given[:ECHOED_CHARS]}
    near = nearest(given, known)
    if near is not None:
        return error(problem, _code_for("misspelt", error), near=near, **data)
    listed = ", ".join(known[:LISTED_NAMES]) or "(none)"
    return error(problem, _code_for("not_a_choice", error), names=listed, **data)


def _code_for(code: str, error: type[AgentJobsError]) -> str:
    """Return the code of a refusal: the caller changes an argument, but only the user a file."""
    if issubclass(error, RequestError):
        return code
    return ENTRY_CODES[code]


def _name_for(name: str, error: type[AgentJobsError]) -> str:
    if issubclass(error, RequestError):
        return Argument(name)
    return name


def _describe_value(value: object) -> str:
    """Return a value that cannot be a secret, and of any other its kind."""
    match value:
        case None | bool() | int() | float():
            return compact_json(value)[:ECHOED_CHARS]
        case str() if value.strip():
            return "this string"
        case str():
            return "an empty string"
        case list() | tuple():
            return "this list"
        case _:
            return "this object"


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
    return type(value) in types  # true and false are numbers of Python, but not of JSON


def _is_filled_string(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_api_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[A-Za-z0-9_-]{1,64}", value) is not None


def _is_list_of_strings(value: Any) -> bool:
    match value:
        case [_, *_]:
            return all(map(_is_filled_string, value))
        case _:
            return False


FLAG: Kind[bool] = Kind("true or false", lambda value: isinstance(value, bool))
STRING: Kind[str] = Kind("a non-empty string", _is_filled_string)
API_NAME: Kind[str] = Kind("up to 64 letters, digits, _ and -", _is_api_name)
STRINGS: Kind[list[str]] = Kind("a list of at least one non-empty string", _is_list_of_strings)
