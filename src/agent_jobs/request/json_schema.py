"""Answers as JSON of a given form: what is asked of upstream, and whether the answer keeps to it. Pure."""

import json
import re
from typing import Any, cast

from agent_jobs.errors import RequestError
from agent_jobs.jobs.response import JSON
from agent_jobs.request import validators
from agent_jobs.strict_schema import fault_of, with_items

EXAMPLE = '{"type":"object","properties":{"answer":{"type":"string"}}}'
#: What a schema may stand in, beside its name.
WRAPPING = frozenset({"name", "schema", "strict", "description"})
#: What other interfaces put around that, and how they call the schema.
WRAPPERS = ("response_format", "text", "format", "json_schema", "function")
SCHEMA_KEYS = ("schema", "parameters", "input_schema", "json_schema")
#: A block of code, the last of which may lack its end.
_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})[^\n`]*\n(?P<inside>.*?)(?:^ {0,3}(?P=fence)|\Z)", re.M | re.S)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def format_of(name: str, value: Any) -> JSON:
    """The `text.format` for a JSON schema, or for a `{name, schema, strict, description}` around one.

    Strict where the schema keeps to the API's rules for that, unless the caller says otherwise.

    Raises:
        RequestError: It is no object schema, or said to be strict and is not.
    """
    asked = _asked(name, value)
    schema = validators.mapping(name, asked["schema"], EXAMPLE)
    if "type" not in schema and isinstance(schema.get("properties"), dict):
        schema = {"type": "object", **schema}
    if schema.get("type") != "object":
        raise RequestError(f"{name} takes the JSON schema of an object, like {EXAMPLE}.")
    label = asked.get("name", "answer")
    if not isinstance(label, str) or not _NAME.fullmatch(label):
        raise RequestError(f"{name}.name takes up to 64 letters, digits, _ and -.")
    schema = with_items(schema)
    fault = fault_of(schema)
    strict = validators.flag(f"{name}.strict", asked.get("strict", fault is None))
    if strict and fault is not None:
        raise RequestError(f"{name} is not strict: {fault}, or leave strict out.")
    described = (
        {"description": validators.text(f"{name}.description", asked["description"])} if "description" in asked else {}
    )
    return {"type": "json_schema", "name": label, "schema": schema, "strict": strict, **described}


def same_schema(one: Any, other: Any) -> bool:
    """Return True if both ask for the same, in whatever form."""
    try:
        return format_of("json_schema", one) == format_of("json_schema", other)
    except RequestError:
        return False


def _asked(name: str, value: Any) -> JSON:
    """Return `{schema, name, strict, description}` from a schema, a text that is one, or what other interfaces ask for.

    These are `response_format`, `text.format` and a function's parameters. No object's schema looks like one of them.
    """
    given = validators.mapping(name, _parsed(value), EXAMPLE)
    for key in WRAPPERS:
        if isinstance(_parsed(given.get(key)), dict) and given.keys() <= {key, "type"} and _is_wrapper(given):
            return _asked(name, given[key])
    kind = given.get("type")
    if kind in ("text", "json_object", "json") and given.keys() <= {"type"}:
        raise RequestError(
            f"{name} takes the JSON schema of an object, like {EXAMPLE}; {kind} says nothing of its form."
        )
    key = next((each for each in SCHEMA_KEYS if each in given), None)
    if key is not None and given.keys() <= {*WRAPPING, "type", key} and _is_wrapper(given):
        kept = {each: found for each, found in given.items() if each in WRAPPING and found is not None}
        return {**kept, "schema": _parsed(given[key])}
    return {"schema": given}


def _is_wrapper(given: JSON) -> bool:
    return given.get("type", "json_schema") in ("json_schema", "json", "function")


def _parsed(value: Any) -> Any:
    """Return the object that a text holds as JSON, in a fence or not; anything else as it is."""
    if not isinstance(value, str):
        return value
    found = _json_in(value)
    holds_object = len(found) == 1 and isinstance(found[0], dict) and bool(cast(JSON, found[0]))
    return cast(Any, found[0] if holds_object else value)


def mismatch(text: str, body: JSON) -> str | None:
    """Why a complete answer is not the JSON that its body asked for; None when it is, or when none was asked for.

    JSON in a fence counts, with words around it or not, unless there are two.
    """
    asked: JSON = cast(JSON, body.get("text") or {}).get("format") or {}
    if asked.get("type") != "json_schema":
        return None
    found = _json_in(text)
    if len(found) != 1:
        return "The output is not JSON, though options.json_schema asked for it."
    return _violation(found[0], asked["schema"])


def _json_in(text: str) -> list[Any]:
    """Return what a text holds as JSON: as a whole, else each different value in a fence."""
    found: list[Any] = []
    for part in [text, *(fence["inside"] for fence in _FENCE.finditer(text))]:
        try:
            value = json.loads(part.strip("\ufeff \t\r\n"), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            continue
        if part is text:
            return [value]
        found += [value] if value not in found else []
    return found


def _violation(answer: Any, schema: JSON) -> str | None:
    # It takes 0.2 s to import, and mcp brings it.
    from jsonschema import exceptions, validators
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    validator: Any = validators.validator_for(cast("dict[str, Any]", schema), default=validators.Draft202012Validator)
    try:
        validator.check_schema(schema)
        # An empty registry: a schema's $ref must never make this program fetch something.
        error = next(validator(schema, registry=cast("Any", Registry)()).iter_errors(answer), None)
    except (exceptions.SchemaError, exceptions.UnknownType, Unresolvable, re.error, RecursionError):
        return "The output is JSON, but options.json_schema is no schema that it can be checked against."
    if error is None:
        return None
    # Without the offending value, which may be the whole output.
    return f"The output does not satisfy options.json_schema: {error.json_path} breaks {error.validator!r}."


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
