"""Check JSON schemas as the API does, and build answers that fit them. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any, cast

from .parameters import as_object, check_choice, check_present, read_list, read_object, refuse_parameter

__all__ = ["build_sample", "check_format", "check_schema", "write_sample"]

Json = Mapping[str, Any]

_DEPTH_LIMIT = 6  # deeper levels leave out optional values, which ends any recursion
_NOT_STRICT = (
    *("allOf", "oneOf", "not", "dependentRequired", "dependentSchemas", "if", "then", "else", "patternProperties"),
    *("uniqueItems", "default", "contains", "propertyNames", "minProperties", "maxProperties"),
)
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
_EXAMPLES = {
    "date-time": "2026-11-20T12:00:00Z",
    "date": "2026-11-20",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/emulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class _BrokenRuleError(Exception):
    """A schema breaks a rule of the API, which the message names."""


def check_format(body: Json) -> None:
    """Raise if the API does not accept `text.format`."""
    given = _read_format(body)
    kind = given.get("type", "text")
    check_choice("text.format.type", kind, ("json_object", "json_schema", "text"))
    match kind:
        case "json_object":
            _check_mention(body)
        case "json_schema":
            _check_named_schema(given)
        case _:
            pass


def _check_mention(body: Json) -> None:
    if "json" not in json.dumps([body.get("input"), body.get("instructions")]).lower():
        message = "Response input messages must contain the word 'json' in some form to use 'text.format' of type"
        refuse_parameter(f"{message} 'json_object'.", "input")


def _check_named_schema(given: Json) -> None:
    check_present("text.format", given, ("name", "schema"))
    if not re.fullmatch("[a-zA-Z0-9_-]{1,64}", str(given["name"])):
        message = (
            "Invalid 'text.format.name': string does not match pattern. Expected a string that matches the pattern"
        )
        refuse_parameter(f"{message} '^[a-zA-Z0-9_-]+$'.", "text.format.name", "invalid_value")
    what, where = f"response_format '{given['name']}'", ("text.format.schema", "invalid_json_schema")
    check_schema(given["schema"], what, *where, strict=bool(given.get("strict")))


#: The types of JSON Schema. A list, since a wrong type need not be hashable.
_TYPES = ["object", "array", "string", "number", "integer", "boolean", "null"]


def check_schema(schema: Any, what: str, param: str, code: str, *, strict: bool) -> None:
    """Raise if a schema is not for an object, has a dangling reference, or breaks the rules that `strict` adds."""
    root = as_object(schema)
    kind = root.get("type")
    if kind != "object":
        message = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: {json.dumps(kind or 'None')}'."
        refuse_parameter(f"Invalid schema for {what}: {message}", param, code)
    for path, part in _walk_schema(root, ()):
        try:
            _check_reference(part, root)
            _check_type(part)
            _check_array(part)
            if strict:
                _check_strict(part)
        except _BrokenRuleError as rule:
            # OpenAI writes the path as Python writes a tuple.
            refuse_parameter(f"Invalid schema for {what}: In context={path!r}, {rule}", param, code)


def write_sample(body: Json) -> str | None:
    """Return an answer in the format of `text.format`; None if that is plain text."""
    match _read_format(body):
        case {"type": "json_object"}:
            return json.dumps({"answer": "This is an emulated answer."})
        case {"type": "json_schema", "schema": schema}:
            return json.dumps(build_sample(schema), ensure_ascii=False)
        case _:
            return None


def build_sample(schema: Json) -> Any:
    """Return a value that fits a schema, the same one each time. Patterns are ignored."""
    return _build_sample(schema, schema, "answer", 0)


def _build_sample(part: Any, root: Json, name: str, depth: int) -> Any:
    match _resolve_reference(part, root):
        case {"const": value} | {"default": value} | {"enum": [value, *_]}:
            return value
        case {"anyOf": [_, *_] as choices} | {"oneOf": [_, *_] as choices}:
            return _build_sample(_choose_schema(choices, depth), root, name, depth + 1)
        case {"type": [_, *_] as kinds} as schema:
            chosen = _choose_schema([{"type": kind} for kind in kinds], depth)
            return _SAMPLES[chosen["type"]](schema, root, name, depth)
        case {"type": str(kind)} as schema:
            return _SAMPLES[kind](schema, root, name, depth)
        case {"properties": _} as schema:
            return _sample_object(schema, root, name, depth)
        case schema:
            return _sample_string(schema, root, name, depth)


def _choose_schema(choices: Sequence[Json], depth: int) -> Json:
    """Return the first schema, or on a deep level null."""
    first = choices[0]
    if depth <= _DEPTH_LIMIT:
        return first
    return next((choice for choice in choices if choice.get("type") == "null"), first)


def _sample_object(part: Json, root: Json, name: str, depth: int) -> Any:
    required, properties = read_list(part, "required"), read_object(part, "properties")
    wanted = [key for key in properties if key in required or depth <= _DEPTH_LIMIT]
    return {key: _build_sample(properties[key], root, key, depth + 1) for key in wanted}


def _sample_array(part: Json, root: Json, name: str, depth: int) -> Any:
    count = min(2, part.get("maxItems", 2))
    if depth > _DEPTH_LIMIT:
        count = 0
    count = max(part.get("minItems") or 0, count)
    return [_build_sample(part.get("items"), root, name, depth + 1) for _ in range(count)]


def _sample_string(part: Json, root: Json, name: str, depth: int) -> Any:
    text = _EXAMPLES.get(part.get("format", ""), f"emulated {name}")
    return text.ljust(part.get("minLength", 0), ".")[: part.get("maxLength")]


def _sample_number(part: Json, root: Json, name: str, depth: int) -> Any:
    step = part.get("multipleOf") or 1
    match part:
        case {"minimum": int() | float() as low}:
            return -(-low // step) * step
        case {"exclusiveMinimum": int() | float() as above}:
            return (above // step + 1) * step
        case {"maximum": int() | float() as high}:
            return min(step, high // step * step)
        case {"exclusiveMaximum": int() | float() as below}:
            return min(step, (-(-below // step) - 1) * step)
        case _:
            return step


def _sample_boolean(part: Json, root: Json, name: str, depth: int) -> Any:
    return True


def _sample_null(part: Json, root: Json, name: str, depth: int) -> Any:
    return None


_SAMPLES = {
    "object": _sample_object,
    "array": _sample_array,
    "string": _sample_string,
    "number": _sample_number,
    "integer": _sample_number,
    "boolean": _sample_boolean,
    "null": _sample_null,
}


def _resolve_reference(part: Any, root: Json) -> Json:
    """Return the schema that a reference leads to; one that leads only to itself allows any value."""
    for _ in range(_DEPTH_LIMIT):
        match part:
            case {"$ref": reference}:
                part = _find_target(reference, root)
            case _:
                break
    return as_object(part)


def _find_target(reference: str, root: Json) -> Any:
    return reduce(getitem, reference.removeprefix("#").split("/")[1:], root)


def _walk_schema(part: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Yield a schema and every schema in it, each with its path."""
    if not isinstance(part, dict):
        return
    schema = cast("Json", part)
    yield path, schema
    for group in ("properties", "$defs", "definitions"):
        for name, inner in read_object(schema, group).items():
            yield from _walk_schema(inner, (*path, group, name))
    yield from _walk_schema(schema.get("items"), (*path, "items"))
    for at, inner in enumerate(read_list(schema, "anyOf")):
        yield from _walk_schema(inner, (*path, "anyOf", str(at)))


def _check_reference(part: Json, root: Json) -> None:
    try:
        _find_target(part.get("$ref", "#"), root)
    except (KeyError, TypeError):
        raise _BrokenRuleError(f"reference to component '{part['$ref']}' which was not found in the schema.") from None


def _check_type(part: Json) -> None:
    """Refuse a type that JSON does not have, and a choice without any member."""
    kinds = part.get("type", "object")
    named = kinds
    if not isinstance(kinds, list):
        named = [kinds]
    if not named or not all(kind in _TYPES for kind in named):
        raise _BrokenRuleError(f"{kinds!r} is not valid under any of the given schemas.")
    for keyword in ("enum", "anyOf", "oneOf"):
        if part.get(keyword) == []:
            raise _BrokenRuleError("[] should be non-empty.")


def _check_array(part: Json) -> None:
    kinds = part.get("type")
    if not isinstance(kinds, list):
        kinds = [kinds]
    if "array" in kinds and "items" not in part:
        raise _BrokenRuleError("array schema missing items.")


def _check_strict(part: Json) -> None:
    """Raise if a schema breaks a rule that only strict schemas have."""
    if "$ref" in part:
        return
    for name in _NOT_STRICT:
        if name in part:
            raise _BrokenRuleError(f"'{name}' is not permitted.")
    if not {"type", "anyOf", "enum", "const"} & part.keys():
        raise _BrokenRuleError("schema must have a 'type' key.")
    if part.get("format", "date") not in _FORMATS:
        raise _BrokenRuleError(f"'{part['format']}' is not a valid format.")
    if part.get("type") == "object":
        _check_strict_object(part)


def _check_strict_object(part: Json) -> None:
    if part.get("additionalProperties") is not False:
        raise _BrokenRuleError("'additionalProperties' is required to be supplied and to be false.")
    required = read_list(part, "required")
    for name in read_object(part, "properties"):
        if name not in required:
            rule = "'required' is required to be supplied and to be an array including every key in properties."
            raise _BrokenRuleError(f"{rule} Missing '{name}'.")


def _read_format(body: Json) -> Json:
    return read_object(read_object(body, "text"), "format")
