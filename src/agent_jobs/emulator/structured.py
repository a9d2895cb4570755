"""Checks JSON schemas as the API does, and builds answers that fit them. Pure."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, cast

from .errors import ApiError

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


def check_format(body: Json) -> None:
    """Raise if the API does not accept `text.format`."""
    given = _read_format(body)
    kind = given.get("type", "text")
    if kind not in ("text", "json_object", "json_schema"):
        choices = "'json_object', 'json_schema', and 'text'"
        _refuse_schema(
            f"Invalid value: '{kind}'. Supported values are: {choices}.", "text.format.type", "invalid_value"
        )
    if kind == "json_object" and "json" not in json.dumps([body.get("input"), body.get("instructions")]).lower():
        message = "Response input messages must contain the word 'json' in some form to use 'text.format' of type"
        _refuse_schema(f"{message} 'json_object'.", "input")
    if kind != "json_schema":
        return
    for name in ("name", "schema"):
        if not given.get(name):
            where = f"text.format.{name}"
            _refuse_schema(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
    if not re.fullmatch("[a-zA-Z0-9_-]{1,64}", str(given["name"])):
        message = (
            "Invalid 'text.format.name': string does not match pattern. Expected a string that matches the pattern"
        )
        _refuse_schema(f"{message} '^[a-zA-Z0-9_-]+$'.", "text.format.name", "invalid_value")
    what, where = f"response_format '{given['name']}'", ("text.format.schema", "invalid_json_schema")
    check_schema(given["schema"], what, *where, strict=bool(given.get("strict")))


def check_schema(schema: Any, what: str, param: str, code: str, *, strict: bool) -> None:
    """Raise if a schema is not for an object, has a dangling reference, or breaks the rules that `strict` adds."""
    root: Json = {}
    if isinstance(schema, dict):
        root = cast("Json", schema)
    kind = root.get("type")
    if kind != "object":
        message = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: {json.dumps(kind or 'None')}'."
        _refuse_schema(f"Invalid schema for {what}: {message}", param, code)
    for path, part in _walk_schema(root, ()):
        broken_rule = _check_reference(part, root) or _check_array(part)
        if strict and broken_rule is None:
            broken_rule = _check_strict(part)
        if broken_rule:
            # OpenAI writes the path as Python writes a tuple.
            _refuse_schema(f"Invalid schema for {what}: In context={path!r}, {broken_rule}", param, code)


def write_sample(body: Json) -> str | None:
    """Return an answer in the format of `text.format`; None if that is plain text."""
    given = _read_format(body)
    if given.get("type") == "json_object":
        return json.dumps({"answer": "This is an emulated answer."})
    if given.get("type") == "json_schema":
        return json.dumps(build_sample(given["schema"]), ensure_ascii=False)
    return None


def build_sample(schema: Json) -> Any:
    """Return a value that fits a schema, the same one each time. Patterns are ignored."""
    return _build_sample(schema, schema, "answer", 0)


def _build_sample(part: Any, root: Json, name: str, depth: int) -> Any:
    part = _resolve_reference(part, root)
    for known in ("const", "default"):
        if known in part:
            return part[known]
    if "enum" in part:
        return part["enum"][0]
    choices = part.get("anyOf") or part.get("oneOf")
    if choices:
        return _build_sample(_choose_schema(choices, depth), root, name, depth + 1)
    return _SAMPLES[_choose_type(part, depth)](part, root, name, depth)


def _choose_schema(choices: list[Json], depth: int) -> Json:
    """Return the first schema, or on a deep level null."""
    if depth > _DEPTH_LIMIT:
        for choice in choices:
            if choice.get("type") == "null":
                return choice
    return choices[0]


def _choose_type(part: Json, depth: int) -> str:
    kinds: Any = part.get("type")
    if isinstance(kinds, list):
        listed = cast("list[str]", kinds)
        if depth > _DEPTH_LIMIT and "null" in listed:
            return "null"
        return listed[0]
    if kinds:
        return kinds
    if "properties" in part:
        return "object"
    return "string"


def _sample_object(part: Json, root: Json, name: str, depth: int) -> Any:
    required = part.get("required") or ()
    properties: Json = part.get("properties") or {}
    wanted = [key for key in properties if key in required or depth <= _DEPTH_LIMIT]
    return {key: _build_sample(properties[key], root, key, depth + 1) for key in wanted}


def _sample_array(part: Json, root: Json, name: str, depth: int) -> Any:
    count = min(2, part.get("maxItems", 2))
    if depth > _DEPTH_LIMIT:
        count = 0
    count = max(part.get("minItems") or 0, count)
    return [_build_sample(part.get("items") or {}, root, name, depth + 1) for _ in range(count)]


def _sample_string(part: Json, root: Json, name: str, depth: int) -> Any:
    text = _EXAMPLES.get(part.get("format", ""), f"emulated {name}")
    return text.ljust(part.get("minLength", 0), ".")[: part.get("maxLength")]


def _sample_number(part: Json, root: Json, name: str, depth: int) -> Any:
    step = part.get("multipleOf") or 1
    low, above = part.get("minimum"), part.get("exclusiveMinimum")
    high, below = part.get("maximum"), part.get("exclusiveMaximum")
    if low is not None:
        return -(-low // step) * step
    if above is not None:
        return (above // step + 1) * step
    if high is not None:
        return min(step, high // step * step)
    if below is not None:
        return min(step, (-(-below // step) - 1) * step)
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
        if not isinstance(part, dict) or "$ref" not in part:
            break
        part = _find_target(cast("Json", part)["$ref"], root)
    if not isinstance(part, dict):
        return {}
    return cast("Json", part)


def _find_target(reference: str, root: Json) -> Any:
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        found = found[step]
    return found


def _walk_schema(part: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Yield a schema and every schema in it, each with its path."""
    if not isinstance(part, dict):
        return
    schema = cast("Json", part)
    yield path, schema
    for group in ("properties", "$defs", "definitions"):
        for name, inner in cast("Json", schema.get(group) or {}).items():
            yield from _walk_schema(inner, (*path, group, name))
    yield from _walk_schema(schema.get("items"), (*path, "items"))
    for at, inner in enumerate(schema.get("anyOf") or ()):
        yield from _walk_schema(inner, (*path, "anyOf", str(at)))


def _check_reference(part: Json, root: Json) -> str | None:
    try:
        _find_target(part.get("$ref", "#"), root)
    except (KeyError, TypeError):
        return f"reference to component '{part['$ref']}' which was not found in the schema."
    return None


def _check_array(part: Json) -> str | None:
    kinds = part.get("type")
    if not isinstance(kinds, list):
        kinds = [kinds]
    if "array" in kinds and "items" not in part:
        return "array schema missing items."
    return None


def _check_strict(part: Json) -> str | None:
    """Return the message of the strict rule that a schema breaks, or None."""
    if "$ref" in part:
        return None
    forbidden = next((name for name in _NOT_STRICT if name in part), None)
    if forbidden:
        return f"'{forbidden}' is not permitted."
    if not {"type", "anyOf", "enum", "const"} & part.keys():
        return "schema must have a 'type' key."
    if part.get("format", "date") not in _FORMATS:
        return f"'{part['format']}' is not a valid format."
    if part.get("type") == "object":
        return _check_strict_object(part)
    return None


def _check_strict_object(part: Json) -> str | None:
    if part.get("additionalProperties") is not False:
        return "'additionalProperties' is required to be supplied and to be false."
    required = part.get("required") or ()
    for name in part.get("properties") or ():
        if name not in required:
            rule = "'required' is required to be supplied and to be an array including every key in properties."
            return f"{rule} Missing '{name}'."
    return None


def _read_format(body: Json) -> Json:
    return cast("Json", cast("Json", body.get("text") or {}).get("format") or {})


def _refuse_schema(message: str, param: str, code: str | None = None) -> NoReturn:
    raise ApiError(400, message, param=param, code=code)
