"""Read the JSON schema that an answer has to satisfy, and check an answer against it. Pure."""

import json
import re
from collections.abc import Set
from contextlib import suppress
from typing import Any, cast

from agent_jobs.errors import Argument, RequestError
from agent_jobs.jobs.response import JSON, mapping_of, string_of
from agent_jobs.strict_schema import add_missing_items, find_strict_fault
from agent_jobs.validation import API_NAME, FLAG, STRING, mapping, value_error

EXAMPLE = '{"type":"object","properties":{"answer":{"type":"string"}}}'
#: The fields of an object around a schema.
WRAPPING = frozenset({"name", "schema", "strict", "description"})
#: Other interfaces put these objects around that, and use these names for the schema.
WRAPPERS = ("response_format", "text", "format", "json_schema", "function")
SCHEMA_KEYS = ("schema", "parameters", "input_schema", "json_schema")
#: What other interfaces write for an answer without a schema.
NO_SCHEMAS = ({"type": "text"}, {"type": "json_object"}, {"type": "json"})
#: A block of code, the last of which may lack its end.
_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})[^\n`]*\n(?P<inside>.*?)(?:^ {0,3}(?P=fence)|\Z)", re.M | re.S)


def build_format(name: str, value: Any) -> JSON:
    """Return the `text.format` for a JSON schema, or for a `{name, schema, strict, description}` around one.

    It is strict if the schema keeps to the API's rules for that, unless the caller says otherwise.

    Raises:
        RequestError: It is no object schema, or declared strict and is not.
    """
    asked = _unwrap_schema(name, value)
    schema = add_missing_items(_check_object_schema(name, asked["schema"]))
    label = API_NAME.check(f"{name}.name", asked.get("name", "answer"))
    fault = find_strict_fault(schema)
    strict = FLAG.check(f"{name}.strict", asked.get("strict", fault is None))
    if strict and fault is not None:
        raise RequestError("{name} is not strict: {fault}.", "not_strict", name=Argument(name), fault=fault)
    form = {"type": "json_schema", "name": label, "schema": schema, "strict": strict}
    if "description" in asked:
        form["description"] = STRING.check(f"{name}.description", asked["description"])
    return form


def is_same_schema(one: Any, other: Any) -> bool:
    """Return True if both ask for the same, in any form."""
    try:
        return build_format("json_schema", one) == build_format("json_schema", other)
    except RequestError:
        return False


def _check_object_schema(name: str, value: Any) -> JSON:
    """Return the schema of an object; its type may be left out."""
    schema = mapping(EXAMPLE).check(name, value)
    if "type" not in schema and isinstance(schema.get("properties"), dict):
        schema = {"type": "object", **schema}
    if schema.get("type") != "object":
        raise value_error(name, f"the JSON schema of an object, like {EXAMPLE}", value)
    return schema


def _unwrap_schema(name: str, value: Any) -> JSON:
    """Return `{schema, name, strict, description}` from a schema, its JSON, or the form of another interface.

    These are `response_format`, `text.format` and a function's parameters. No object's schema has their form.
    """
    given = mapping(EXAMPLE).check(name, _parse_object(value))
    wrapper = next((key for key in WRAPPERS if _is_wrapped_in(given, key)), None)
    if wrapper is not None:
        return _unwrap_schema(name, given[wrapper])
    if given in NO_SCHEMAS:
        raise value_error(name, f"the JSON schema of an object, like {EXAMPLE}", value)
    key = next((each for each in SCHEMA_KEYS if each in given), None)
    if key is not None and _is_wrapper(given, {*WRAPPING, key}):
        return _unwrap_fields(given, key)
    return {"schema": given}


def _unwrap_fields(given: JSON, key: str) -> JSON:
    """Return the fields around a schema, and the schema under one of their keys."""
    kept = {each: given[each] for each in WRAPPING & given.keys() if given[each] is not None}
    return {**kept, "schema": _parse_object(given[key])}


def _is_wrapped_in(given: JSON, key: str) -> bool:
    """Return True if an object has a schema under this key, and no other field."""
    return isinstance(_parse_object(given.get(key)), dict) and _is_wrapper(given, {key})


def _is_wrapper(given: JSON, fields: Set[str]) -> bool:
    """Return True if an object has only these fields, and a type that is no schema's."""
    return given.get("type", "json_schema") in ("json_schema", "json", "function") and given.keys() <= {*fields, "type"}


def _parse_object(value: Any) -> Any:
    """Return the object in a string of JSON, in a fence or not; any other value unchanged."""
    match _find_json(string_of(value)):
        case [{**found}] if found:
            return found
        case _:
            return value


def find_mismatch(text: str, body: JSON) -> str | None:
    """Return why a complete answer is not the JSON that its body asked for; None if it is, or if none was asked for.

    JSON in a fence counts, with words around it or not, unless there are two.
    """
    asked = mapping_of(mapping_of(body.get("text")).get("format"))
    if asked.get("type") != "json_schema":
        return None
    found = _find_json(text)
    if len(found) != 1:
        return "The output is not JSON, though its JSON schema asks for it."
    return _find_violation(found[0], asked["schema"])


def _find_json(text: str) -> list[Any]:
    """Return the JSON values in a text: the text itself, else each different value in a fence."""
    try:
        return [_parse_strictly(text)]
    except (ValueError, RecursionError):
        pass
    found: list[Any] = []
    for fence in _FENCE.finditer(text):
        with suppress(ValueError, RecursionError):
            value = _parse_strictly(fence["inside"])
            if value not in found:
                found.append(value)
    return found


def _parse_strictly(text: str) -> Any:
    return json.loads(text.strip("\ufeff \t\r\n"), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _find_violation(answer: Any, schema: JSON) -> str | None:
    """Return why an answer does not satisfy a schema, or None."""
    # Their import costs 0.2 s; mcp depends on them, too.
    from jsonschema import exceptions, validators
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    validator: Any = validators.validator_for(cast("dict[str, Any]", schema), default=validators.Draft202012Validator)
    try:
        validator.check_schema(schema)
        # An empty registry: a schema's $ref must never make this program fetch something.
        error = next(validator(schema, registry=cast("Any", Registry)()).iter_errors(answer), None)
    except (exceptions.SchemaError, exceptions.UnknownType, Unresolvable, re.error, RecursionError):
        return "The output is JSON, but it cannot be checked against its JSON schema."
    if error is None:
        return None
    # Without the offending value, which may be the whole output.
    return f"The output does not satisfy its JSON schema: {error.json_path} breaks {error.validator!r}."
