"""Check whether the API accepts a JSON schema as strict, and add the keywords that it requires. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

Schema = Mapping[str, Any]

TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
#: The keywords that every model accepts in a strict schema.
KEYWORDS = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const", "description"}
)
#: More keywords that models accept according to the API's guide; fine-tuned models do not.
MORE_KEYWORDS = frozenset(
    {
        *("title", "$ref", "$defs", "definitions", "pattern", "format", "minItems", "maxItems"),
        *("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
)
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
DEPTH = 5  # levels of schemas in schemas that every model accepts
MORE_DEPTH = 10  # levels that most models accept
#: A part needs one of these.
_KINDS = frozenset({"type", "anyOf", "$ref", "enum", "const"})
_LOOKAROUND = re.compile(r"\(\?<?[=!]")
_CLOSED = "give every object additionalProperties false and list all its properties in required"
#: Keywords that hold other schemas: by name, in a list, or alone.
_BY_NAME = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_IN_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ALONE = ("items", "additionalProperties", "not", "if", "then", "else", "contains")


def is_strict(schema: Schema) -> bool:
    """Return True if every model accepts the schema as strict."""
    return _find_fault(schema, KEYWORDS, DEPTH) is None


def find_strict_fault(schema: Schema) -> str | None:
    """Return what to change in a schema so that most models accept it as strict, None if nothing has to change."""
    root = {**schema}
    root.pop("$schema", None)
    if "anyOf" in root:
        return "leave out anyOf at the root"
    return _find_fault(root, KEYWORDS | MORE_KEYWORDS, MORE_DEPTH)


def can_be_array(schema: Schema) -> bool:
    """Return True if the type of a schema allows an array."""
    return "array" in _list_types(schema)


def add_missing_items(schema: Any) -> Any:
    """Return a schema in which each part that may be an array has `items`, which the API requires."""
    if not isinstance(schema, Mapping):
        return schema
    given: dict[str, Any] = {keyword: _add_items(keyword, value) for keyword, value in cast(Schema, schema).items()}
    if can_be_array(given) and given.get("items") is None:
        given["items"] = {}
    return given


def _add_items(keyword: str, value: Any) -> Any:
    """Return the value of a keyword with `items` in the schemas that it holds."""
    match value:
        case dict() if keyword in _BY_NAME:
            return {name: add_missing_items(each) for name, each in cast("dict[str, Any]", value).items()}
        case list() if keyword in _IN_LISTS:
            return list(map(add_missing_items, cast("list[Any]", value)))
        case dict() if keyword in _ALONE:
            return add_missing_items(value)
        case _:
            return value


def _find_fault(schema: Any, keywords: frozenset[str], depth: int) -> str | None:
    """Return what to change so that a schema and all in it are strict, None if nothing has to change."""
    return next(_iterate_faults(schema, keywords, depth), None)


def _iterate_faults(schema: Any, keywords: frozenset[str], depth: int) -> Iterator[str]:
    """Yield what to change in a schema, and then in those that it holds."""
    if not isinstance(schema, Mapping):
        yield "write every part as an object"
        return
    if depth < 0:
        yield "nest it less deeply"
        return
    part = cast(Schema, schema)
    yield from (f"leave out {keyword}" for keyword in sorted(part.keys() - keywords))
    yield from filter(None, (_fault_of_value(part), _fault_of_object(part)))
    for each in _list_subschemas(part):
        yield from _iterate_faults(each, keywords, depth - 1)


def _fault_of_value(part: Schema) -> str | None:
    if not _has_kind(part):
        return "give every part a type"
    if "$ref" in part:
        return _fault_of_reference(part)
    if can_be_array(part) and "items" not in part:
        return "give every array items"
    if part.get("format", "uuid") not in FORMATS:
        return f"leave out format {part['format']}"
    if _LOOKAROUND.search(str(part.get("pattern", ""))):
        return "leave out lookaround in pattern"
    return None


def _has_kind(part: Schema) -> bool:
    if _KINDS.isdisjoint(part):
        return False
    return all(kind in TYPES for kind in _list_types(part))


def _fault_of_reference(part: Schema) -> str | None:
    match part:
        case {"$ref": str() as reference, **rest} if reference.startswith("#") and not rest:
            return None
        case _:
            return "let a $ref stand alone and name one of $defs"


def _fault_of_object(part: Schema) -> str | None:
    if "object" not in _list_types(part) and "properties" not in part:
        return None
    with_properties: Schema = {"properties": {}, **part}
    match with_properties:
        case {"additionalProperties": False, "properties": {**properties}, "required": [*required]} if _names_all(
            required, properties
        ):
            return None
        case _:
            return _CLOSED


def _names_all(required: list[Any], properties: Mapping[str, Any]) -> bool:
    """Return True if the list names exactly the properties."""
    return all(isinstance(name, str) for name in required) and set(required) == set(properties)


def _list_types(schema: Schema) -> list[Any]:
    kind = schema.get("type", [])
    if isinstance(kind, list):
        return cast("list[Any]", kind)
    return [kind]


def _list_subschemas(part: Schema) -> Iterator[Any]:
    """Yield the schemas in a part, and None in the place of a value that cannot hold any."""
    for held in part.items():
        match held:
            case ("properties" | "$defs" | "definitions", {**schemas}):
                yield from schemas.values()
            case ("anyOf", [_, *_] as schemas):
                yield from schemas
            case ("items", schema):
                yield schema
            case ("properties" | "$defs" | "definitions" | "anyOf", _):
                yield None
            case _:
                pass
