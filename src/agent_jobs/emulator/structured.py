"""Structured output: what a JSON schema may say, and an answer that fits it. Pure."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, cast

from .errors import ApiError

__all__ = ["check_format", "check_schema", "sample", "sample_text"]

Json = Mapping[str, Any]

_DEEP = 6  # levels after which optional things are left out, and with them any recursion
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
    """Raise when `text.format` is nothing that the API takes."""
    given = _format(body)
    kind = given.get("type", "text")
    if kind not in ("text", "json_object", "json_schema"):
        choices = "'json_object', 'json_schema', and 'text'"
        _refuse(f"Invalid value: '{kind}'. Supported values are: {choices}.", "text.format.type", "invalid_value")
    if kind == "json_object" and "json" not in json.dumps([body.get("input"), body.get("instructions")]).lower():
        message = "Response input messages must contain the word 'json' in some form to use 'text.format' of type"
        _refuse(f"{message} 'json_object'.", "input")
    if kind != "json_schema":
        return
    for name in ("name", "schema"):
        if not given.get(name):
            where = f"text.format.{name}"
            _refuse(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
    if not re.fullmatch("[a-zA-Z0-9_-]{1,64}", str(given["name"])):
        message = (
            "Invalid 'text.format.name': string does not match pattern. Expected a string that matches the pattern"
        )
        _refuse(f"{message} '^[a-zA-Z0-9_-]+$'.", "text.format.name", "invalid_value")
    what, where = f"response_format '{given['name']}'", ("text.format.schema", "invalid_json_schema")
    check_schema(given["schema"], what, *where, strict=bool(given.get("strict")))


def check_schema(schema: Any, what: str, param: str, code: str, *, strict: bool) -> None:
    """Raise when a schema is none for an object, leads nowhere, or breaks the rules that `strict` adds."""
    root = cast("Json", schema if isinstance(schema, dict) else {})
    kind = root.get("type")
    if kind != "object":
        message = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: {json.dumps(kind or 'None')}'."
        _refuse(f"Invalid schema for {what}: {message}", param, code)
    for path, part in _parts(root, ()):
        broken = _dangling(part, root) or _shapeless(part) or (_unstrict(part) if strict else None)
        if broken:
            at = f"({', '.join(map(repr, path))}{',' if len(path) == 1 else ''})"
            _refuse(f"Invalid schema for {what}: In context={at}, {broken}", param, code)


def sample_text(body: Json) -> str | None:
    """Give the answer that `text.format` asks for; None when it asks for plain text."""
    given = _format(body)
    if given.get("type") == "json_object":
        return json.dumps({"answer": "This is an emulated answer."})
    if given.get("type") == "json_schema":
        return json.dumps(sample(given["schema"]), ensure_ascii=False)
    return None


def sample(schema: Json) -> Any:
    """Give a value that fits a schema: the same one each time. Patterns are not looked at."""
    return _sample(schema, schema, "answer", 0)


def _sample(part: Any, root: Json, name: str, depth: int) -> Any:
    part = _resolved(part, root)
    for known in ("const", "default"):
        if known in part:
            return part[known]
    if "enum" in part:
        return part["enum"][0]
    choices = part.get("anyOf") or part.get("oneOf")
    if choices:
        plain = [choice for choice in choices if choice.get("type") == "null"]
        return _sample((plain or choices)[0] if depth > _DEEP else choices[0], root, name, depth + 1)
    kinds: Any = part.get("type") or ("object" if "properties" in part else "string")
    if isinstance(kinds, list):
        listed = cast("list[str]", kinds)
        kinds = "null" if depth > _DEEP and "null" in listed else listed[0]
    return _SAMPLES[kinds](part, root, name, depth)


def _object(part: Json, root: Json, name: str, depth: int) -> Any:
    required = part.get("required") or ()
    properties: Json = part.get("properties") or {}
    wanted = [key for key in properties if key in required or depth <= _DEEP]
    return {key: _sample(properties[key], root, key, depth + 1) for key in wanted}


def _array(part: Json, root: Json, name: str, depth: int) -> Any:
    fewest = part.get("minItems") or 0
    count = max(fewest, 0 if depth > _DEEP else min(2, part.get("maxItems", 2)))
    return [_sample(part.get("items") or {}, root, name, depth + 1) for _ in range(count)]


def _string(part: Json, root: Json, name: str, depth: int) -> Any:
    text = _EXAMPLES.get(part.get("format", ""), f"emulated {name}")
    return text.ljust(part.get("minLength", 0), ".")[: part.get("maxLength")]


def _number(part: Json, root: Json, name: str, depth: int) -> Any:
    step = part.get("multipleOf") or 1
    low, above = part.get("minimum"), part.get("exclusiveMinimum")
    high, below = part.get("maximum"), part.get("exclusiveMaximum")
    if low is not None:
        return -(-low // step) * step
    if above is not None:
        return (above // step + 1) * step
    if high is not None:
        return min(step, high // step * step)
    return min(step, (-(-below // step) - 1) * step) if below is not None else step


def _boolean(part: Json, root: Json, name: str, depth: int) -> Any:
    return True


def _null(part: Json, root: Json, name: str, depth: int) -> Any:
    return None


_SAMPLES = {
    "object": _object,
    "array": _array,
    "string": _string,
    "number": _number,
    "integer": _number,
    "boolean": _boolean,
    "null": _null,
}


def _resolved(part: Any, root: Json) -> Json:
    """Follow references to their places in the same schema; one that only leads to itself leads to anything."""
    for _ in range(_DEEP):
        if not isinstance(part, dict) or "$ref" not in part:
            break
        part = _target(cast("Json", part)["$ref"], root)
    return cast("Json", part) if isinstance(part, dict) else {}


def _target(reference: str, root: Json) -> Any:
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        found = found[step]
    return found


def _parts(part: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Give a schema and every schema in it, each with its path."""
    if not isinstance(part, dict):
        return
    schema = cast("Json", part)
    yield path, schema
    for group in ("properties", "$defs", "definitions"):
        for name, inner in cast("Json", schema.get(group) or {}).items():
            yield from _parts(inner, (*path, group, name))
    yield from _parts(schema.get("items"), (*path, "items"))
    for at, inner in enumerate(schema.get("anyOf") or ()):
        yield from _parts(inner, (*path, "anyOf", str(at)))


def _dangling(part: Json, root: Json) -> str | None:
    try:
        _target(part.get("$ref", "#"), root)
    except (KeyError, TypeError):
        return f"reference to component '{part['$ref']}' which was not found in the schema."
    return None


def _shapeless(part: Json) -> str | None:
    kind = part.get("type")
    is_array = "array" in kind if isinstance(kind, list) else kind == "array"
    return "array schema missing items." if is_array and "items" not in part else None


def _unstrict(part: Json) -> str | None:
    """Say which of the strict rules a schema breaks."""
    if "$ref" in part:
        return None
    forbidden = next((name for name in _NOT_STRICT if name in part), None)
    if forbidden:
        return f"'{forbidden}' is not permitted."
    if not {"type", "anyOf", "enum", "const"} & part.keys():
        return "schema must have a 'type' key."
    if part.get("format", "date") not in _FORMATS:
        return f"'{part['format']}' is not a valid format."
    if part.get("type") != "object":
        return None
    if part.get("additionalProperties") is not False:
        return "'additionalProperties' is required to be supplied and to be false."
    missing = [name for name in part.get("properties") or () if name not in (part.get("required") or ())]
    rule = "'required' is required to be supplied and to be an array including every key in properties."
    return f"{rule} Missing '{missing[0]}'." if missing else None


def _format(body: Json) -> Json:
    return cast("Json", cast("Json", body.get("text") or {}).get("format") or {})


def _refuse(message: str, param: str, code: str | None = None) -> NoReturn:
    raise ApiError(400, message, param=param, code=code)
