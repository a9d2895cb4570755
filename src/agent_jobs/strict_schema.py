"""JSON schemas as the API takes them: which it takes as strict, and what every list needs. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

Schema = Mapping[str, Any]

TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
#: What every model takes in a strict schema.
KEYWORDS = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const", "description"}
)
#: What models take beside these, as the API's guide lists it; fine-tuned ones do not.
MORE_KEYWORDS = frozenset(
    {
        *("title", "$ref", "$defs", "definitions", "pattern", "format", "minItems", "maxItems"),
        *("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
)
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
#: Schemas within schemas that every model takes, and most models.
DEPTH, MORE_DEPTH = 5, 10
#: One of these says what a part is.
_KINDS = frozenset({"type", "anyOf", "$ref", "enum", "const"})
_LOOKAROUND = re.compile(r"\(\?<?[=!]")
_CLOSED = "give every object additionalProperties false and list all its properties in required"
#: Where a schema holds others: by name, in a list, or one.
_BY_NAME = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_IN_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ALONE = ("items", "additionalProperties", "not", "if", "then", "else", "contains")


def is_strict(schema: Schema) -> bool:
    """Return True if every model takes the schema as strict."""
    return _find_fault(schema, KEYWORDS, DEPTH) is None


def fault_of(schema: Schema) -> str | None:
    """Return what has to change in a schema before most models take it as strict; None if nothing has to."""
    root = {keyword: value for keyword, value in schema.items() if keyword != "$schema"}
    if "anyOf" in root:
        return "leave out anyOf at the root"
    return _find_fault(root, KEYWORDS | MORE_KEYWORDS, MORE_DEPTH)


def may_be_array(schema: Schema) -> bool:
    """Return True if the type of a schema admits an array."""
    return "array" in _list_types(schema)


def with_items(schema: Any) -> Any:
    """Return a schema in which whatever may be an array has `items`, which the API asks for."""
    if not isinstance(schema, Mapping):
        return schema
    given: dict[str, Any] = dict(cast(Schema, schema))
    for keyword in _BY_NAME:
        if isinstance(given.get(keyword), dict):
            given[keyword] = {name: with_items(each) for name, each in given[keyword].items()}
    for keyword in _IN_LISTS:
        if isinstance(given.get(keyword), list):
            given[keyword] = [with_items(each) for each in given[keyword]]
    for keyword in _ALONE:
        if keyword in given:
            given[keyword] = with_items(given[keyword])
    if may_be_array(given) and given.get("items") is None:
        given["items"] = {}
    return given


def _find_fault(schema: Any, keywords: frozenset[str], depth: int) -> str | None:
    """Return what keeps a schema or one in it from being strict, as what to do about it."""
    if not isinstance(schema, Mapping):
        return "write every part as an object"
    part = cast(Schema, schema)
    if depth < 0:
        return "nest it less deeply"
    if foreign := sorted(part.keys() - keywords):
        return f"leave out {foreign[0]}"
    own = _fault_of_value(part) or _fault_of_object(part)
    return own or next(
        (fault for each in _list_subschemas(part) if (fault := _find_fault(each, keywords, depth - 1))), None
    )


def _fault_of_value(part: Schema) -> str | None:
    if not _KINDS & part.keys() or not all(isinstance(kind, str) and kind in TYPES for kind in _list_types(part)):
        return "give every part a type"
    if "$ref" in part:
        is_local = isinstance(part["$ref"], str) and part["$ref"].startswith("#")
        return None if is_local and len(part) == 1 else "let a $ref stand alone and name one of $defs"
    if may_be_array(part) and "items" not in part:
        return "give every array items"
    if part.get("format", "uuid") not in FORMATS:
        return f"leave out format {part['format']}"
    if _LOOKAROUND.search(str(part.get("pattern", ""))):
        return "leave out lookaround in pattern"
    return None


def _fault_of_object(part: Schema) -> str | None:
    if "object" not in _list_types(part) and "properties" not in part:
        return None
    properties, required = part.get("properties", {}), part.get("required")
    if part.get("additionalProperties") is not False or not isinstance(properties, dict):
        return _CLOSED
    names = cast("dict[str, Any]", properties)
    is_all = isinstance(required, list) and all(isinstance(each, str) for each in cast("list[Any]", required))
    return None if is_all and {*cast("list[str]", required)} == names.keys() else _CLOSED


def _list_types(schema: Schema) -> list[Any]:
    kind = schema.get("type", [])
    return cast("list[Any]", kind) if isinstance(kind, list) else [kind]


def _list_subschemas(part: Schema) -> Iterator[Any]:
    for keyword in ("properties", "$defs", "definitions"):
        named = part.get(keyword, {})
        yield from cast("dict[str, Any]", named).values() if isinstance(named, dict) else [None]
    if "anyOf" in part:
        yield from part["anyOf"] if isinstance(part["anyOf"], list) and part["anyOf"] else [None]
    if "items" in part:
        yield part["items"]
