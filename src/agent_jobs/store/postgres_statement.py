"""Put a statement of the store into the form that PostgreSQL and asyncpg accept."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agent_jobs.text import valid_unicode

#: Types of parameters by the types of their values; text is the type of all others.
_TYPE_OF: dict[type[Any], str] = {
    bool: "bool",
    int: "int8",
    float: "float8",
    bytes: "bytea",
    list: "text[]",
    tuple: "text[]",
}
_PARAMETER = re.compile(r"(?<!:):(\*?)([a-z_][a-z_0-9]*)")
_OWN_WORDS = re.compile(r"/\*!(.*?)\*/", re.DOTALL)
_SQLITE_WORDS = re.compile(r"INDEXED BY \w+")
#: Statements that differ in which of their values are null count as different ones.
_KEPT_STATEMENTS = 2000


def bind_values(sql: str, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return a statement with numbered parameters, and their values."""
    text, order = _number_parameters(sql, tuple((name, _type_of(value)) for name, value in values.items()))
    return text, [_postgres_value(values[name]) for name in order]


@lru_cache(maxsize=_KEPT_STATEMENTS)
def _number_parameters(sql: str, types: tuple[tuple[str, str], ...]) -> tuple[str, tuple[str, ...]]:
    """Return the statement with its parameters cast to the types of their values, and the order of these.

    Without the cast PostgreSQL would deduce a type from the context of a parameter: in `:now + 5` an integer. Null
    is in the text: as a parameter without a type it would be text.
    """
    type_of, order = dict(types), list[str]()

    def number(found: re.Match[str]) -> str:
        is_list, name = found.groups()
        if type_of[name] == "NULL":
            return "NULL"
        if name not in order:
            order.append(name)
        parameter = f"${order.index(name) + 1}::{type_of[name]}"
        return f"SELECT unnest({parameter})" if is_list else parameter

    words = _OWN_WORDS.sub(r"\1", _SQLITE_WORDS.sub("", sql))
    return _PARAMETER.sub(number, words), tuple(order)


def _type_of(value: Any) -> str:
    if value is None:
        return "NULL"
    return _TYPE_OF.get(type(value), "text")  # pyright: ignore[reportUnknownArgumentType]


def _postgres_value(value: Any) -> Any:
    """Return a value with text that PostgreSQL accepts: without NUL and half a surrogate pair."""
    match value:
        case str():
            return valid_unicode(value).replace("\0", "\ufffd")
        case list() | tuple():
            return [_postgres_value(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value
