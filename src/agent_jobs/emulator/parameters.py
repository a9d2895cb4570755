"""Read the parameters of a request, and refuse wrong values in OpenAI's words. Pure."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NoReturn, cast

from .errors import ApiError

__all__ = [
    "as_list",
    "as_object",
    "as_text",
    "check_choice",
    "check_kind",
    "check_length",
    "check_present",
    "check_range",
    "quote_values",
    "read_list",
    "read_object",
    "refuse_missing",
    "refuse_parameter",
]

Json = Mapping[str, Any]

#: The Python types that `json` makes of each kind of value. A bool is an int in Python, so types are compared exactly.
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
_PHRASES = {
    "string": "a string",
    "boolean": "a boolean",
    "integer": "an integer",
    "number": "a number",
    "object": "an object",
    "array": "an array",
    "null": "a null",
}


def as_object(value: object) -> dict[str, Any]:
    """Return a value of JSON if it is an object, else an empty one."""
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    return {}


def as_list(value: object) -> list[Any]:
    """Return a value of JSON if it is a list, else an empty one."""
    if isinstance(value, list):
        return cast("list[Any]", value)
    return []


def as_text(value: object) -> str:
    """Return a value of JSON if it is a string, else its JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def read_object(body: Json, name: str) -> dict[str, Any]:
    """Return an object inside the body; an empty one if there is something else or nothing."""
    return as_object(body.get(name))


def read_list(body: Json, name: str) -> list[Any]:
    """Return a list inside the body; an empty one if there is something else or nothing."""
    return as_list(body.get(name))


def check_kind(where: str, value: object, *kinds: str) -> None:
    """Raise if a value is of none of these kinds."""
    if any(type(value) in _KINDS[kind] for kind in kinds):
        return
    wanted = " or ".join(map(_PHRASES.__getitem__, kinds))
    found = next(kind for kind, types in _KINDS.items() if type(value) in types)
    refuse_parameter(
        f"Invalid type for '{where}': expected {wanted}, but got {_PHRASES[found]} instead.", where, "invalid_type"
    )


def check_choice(where: str, value: object, choices: Collection[str]) -> None:
    """Raise if a value is none of several."""
    if value not in choices:
        message = f"Invalid value: '{value}'. Supported values are: {quote_values(choices)}."
        refuse_parameter(message, where, "invalid_value")


def check_range(where: str, kind: str, value: float, low: float, high: float) -> None:
    """Raise if a number is too small or too large."""
    if value < low:
        message = f"{kind} below minimum value. Expected a value >= {low:g}, but got {value} instead."
        refuse_parameter(f"Invalid '{where}': {message}", where, f"{kind}_below_min_value")
    if value > high:
        message = f"{kind} above maximum value. Expected a value <= {high:g}, but got {value} instead."
        refuse_parameter(f"Invalid '{where}': {message}", where, f"{kind}_above_max_value")


def check_length(where: str, value: str, limit: int) -> None:
    """Raise if a string is too long."""
    if len(value) > limit:
        refuse_parameter(
            f"Invalid '{where}': string too long. Expected a string with maximum length {limit}, but got a string with"
            f" length {len(value)} instead.",
            where,
            "string_above_max_length",
        )


def check_present(where: str, given: Json, names: Iterable[str]) -> None:
    """Raise if an object has no value, or an empty one, under one of these names."""
    for name in names:
        if not given.get(name):
            refuse_missing(f"{where}.{name}")


def refuse_missing(where: str) -> NoReturn:
    """Raise the error about a parameter that is missing."""
    refuse_parameter(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")


def refuse_parameter(message: str, param: str, code: str | None = None) -> NoReturn:
    """Raise an error about a parameter."""
    raise ApiError(400, message, param=param, code=code)


def quote_values(values: Collection[str]) -> str:
    """Return two or more values as OpenAI lists them."""
    *others, last = [f"'{value}'" for value in values]
    return f"{', '.join(others)}, and {last}"
