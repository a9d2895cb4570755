"""Reduce a tool's JSON schema to the known and correctly typed keywords that the API accepts. Pure.

Tool servers offer any schema: draft 4, references to the web, `"type": "str"`. A schema that the API refuses fails the
whole request, so a keyword that does not fit is left out: the tool server checks the arguments itself.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, cast

from agent_jobs.strict_schema import TYPES, can_be_array

Schema = dict[str, Any]

MAX_BYTES = 16_384  # of a schema: every turn sends every function again
MAX_DEPTH = 16  # of a schema: deeper ones are generated, and no model fills them in
TEXT_CHARS = 1_024  # of a description in a schema
#: A function without a usable schema accepts any object.
OPEN: Schema = {"type": "object", "properties": {}}
#: Keywords of the root that its object replaces.
_REPLACED_AT_ROOT = frozenset(
    {"type", "properties", "required", "anyOf", "oneOf", "allOf", "enum", "const", "default", "$ref"}
)

_LOCAL = re.compile(r"#/(\$defs|definitions)/([^/]+)")


def fit_schema(schema: Mapping[str, Any]) -> Schema | None:
    """Return the schema of an object with the parts of this one that the API accepts.

    None if no part can be kept: it is too deep or too large, or is not JSON.
    """
    try:
        root = _build_root_object(_fit_subschema(schema, 0))
        for part in _list_parts(root):
            if not _can_resolve(part.get("$ref", "#"), root):
                del part["$ref"]
        size = len(json.dumps(root, ensure_ascii=False, allow_nan=False).encode())
    except (_TooDeepError, RecursionError, ValueError):
        return None
    if size > MAX_BYTES:
        return None
    return root


class _TooDeepError(Exception):
    pass


_MAX_NUMBER = sys.float_info.max
#: Stands for a value that is left out.
_UNFIT: Any = object()


def _fit_subschema(value: Any, depth: int) -> Schema:
    """Return the known, correctly typed keywords of a schema; `true` and values that are no schema allow anything."""
    if depth > MAX_DEPTH:
        raise _TooDeepError
    if not isinstance(value, Mapping):
        return {}
    given = dict(cast("Mapping[str, Any]", value))
    if isinstance(given.get("items"), list):  # a tuple, as drafts before 2020-12 wrote it
        given |= {"prefixItems": given["items"], "items": {}}
    kept = {key: fitted for key, each in given.items() if (fitted := _fit_keyword(key, each, depth + 1)) is not _UNFIT}
    if can_be_array(kept):
        kept.setdefault("items", {})  # the API asks for them
    return kept


def _fit_keyword(key: str, value: Any, depth: int) -> Any:
    """Return what is kept of a keyword's value; nothing of an unknown keyword, or of a value of another type."""
    types, fit = _KEYWORDS.get(key, _UNKNOWN)
    if type(value) not in types:
        return _UNFIT
    return fit(value, depth)


def _fit_by_name(value: dict[str, Any], depth: int) -> Any:
    return {name: _fit_subschema(each, depth) for name, each in value.items()}


def _fit_choices(value: list[Any], depth: int) -> Any:
    return [_fit_subschema(each, depth) for each in value] or _UNFIT


def _fit_additional(value: Any, depth: int) -> Any:
    if isinstance(value, bool):
        return value
    return _fit_subschema(value, depth)


def _fit_type(value: str | list[Any], _depth: int) -> Any:
    match value:
        case str() if _is_type(value):
            return value
        case [_, *_] if all(map(_is_type, value)):
            return list(dict.fromkeys(value))
        case _:
            return _UNFIT


def _is_type(kind: Any) -> bool:
    return isinstance(kind, str) and kind in TYPES


def _fit_names(value: list[Any], _depth: int) -> Any:
    return list(dict.fromkeys(each for each in value if isinstance(each, str)))


def _fit_string(value: str, _depth: int) -> Any:
    return value[:TEXT_CHARS]


def _fit_anything(value: Any, _depth: int) -> Any:
    return value


def _fit_if(is_fit: Callable[[Any], bool]) -> Callable[[Any, int], Any]:
    """Return a function that keeps a value as it is, if it passes a check."""

    def fit(value: Any, _depth: int) -> Any:
        if is_fit(value):
            return value
        return _UNFIT

    return fit


def _is_pattern(value: str) -> bool:
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _is_finite(value: float) -> bool:
    """Return True for a number that is neither infinite nor NaN, nor an integer that no float can hold."""
    return -_MAX_NUMBER <= value <= _MAX_NUMBER


def _is_positive(value: float) -> bool:
    return 0 < value <= _MAX_NUMBER


def _is_count(value: int) -> bool:
    return value >= 0


_Types = frozenset[type]
_TEXT: _Types = frozenset({str})
_FLAG: _Types = frozenset({bool})
_INTEGER: _Types = frozenset({int})
_NUMBER: _Types = frozenset({int, float})
_LIST: _Types = frozenset({list})
_OBJECT: _Types = frozenset({dict})
_ANY: _Types = frozenset({str, bool, int, float, list, dict, type(None)})
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")

#: The types of each keyword's value, and the function that returns what is kept of such a value.
_KEYWORDS: Mapping[str, tuple[_Types, Callable[[Any, int], Any]]] = {
    "type": (_TEXT | _LIST, _fit_type),
    "description": (_TEXT, _fit_string),
    "properties": (_OBJECT, _fit_by_name),
    "required": (_LIST, _fit_names),
    "additionalProperties": (_ANY, _fit_additional),
    "items": (_ANY, _fit_subschema),
    **dict.fromkeys(("prefixItems", "anyOf", "oneOf", "allOf"), (_LIST, _fit_choices)),
    "enum": (_LIST, _fit_if(bool)),
    "const": (_ANY, _fit_anything),
    "default": (_ANY, _fit_anything),
    "format": (_TEXT, _fit_string),
    "pattern": (_TEXT, _fit_if(_is_pattern)),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), (_NUMBER, _fit_if(_is_finite))),
    "multipleOf": (_NUMBER, _fit_if(_is_positive)),
    **dict.fromkeys(_COUNTS, (_INTEGER, _fit_if(_is_count))),
    "uniqueItems": (_FLAG, _fit_anything),
    "$ref": (_TEXT, _fit_string),
    "$defs": (_OBJECT, _fit_by_name),
    "definitions": (_OBJECT, _fit_by_name),
}
_UNKNOWN: tuple[_Types, Callable[[Any, int], Any]] = (frozenset(), _fit_anything)


def _build_root_object(root: Schema) -> Schema:
    """Return the root as an object of its own: the API accepts neither alternatives nor a reference there."""
    resolve = partial(_resolve_branch, root)
    required_branches = [*map(resolve, (root, *root.get("allOf", [])))]
    choices = [*map(resolve, (*root.get("anyOf", []), *root.get("oneOf", [])))]
    properties: Schema = dict(root.get("properties", {}))
    for branch in required_branches + choices:
        properties |= branch.get("properties", {}) | properties
    required = [*root.get("required", []), *chain.from_iterable(each.get("required", []) for each in required_branches)]
    built: Schema = {"type": "object", "properties": properties}
    if required or "required" in root:
        built["required"] = list(dict.fromkeys(required))
    return built | {key: each for key, each in root.items() if key not in _REPLACED_AT_ROOT}


def _resolve_branch(root: Schema, branch: Schema) -> Schema:
    """Return the schema that a local reference names, and any other schema as it is."""
    local = _LOCAL.fullmatch(branch.get("$ref", ""))
    if local is None:
        return branch
    return root.get(local[1], {}).get(local[2], {})


def _can_resolve(reference: str, root: Schema) -> bool:
    local = _LOCAL.fullmatch(reference)
    return reference == "#" or (local is not None and local[2] in root.get(local[1], {}))


def _list_parts(schema: Schema) -> Iterator[Schema]:
    """Yield a fitted schema and all schemas in it."""
    yield schema
    for part in _list_inner(schema):
        yield from _list_parts(part)


def _list_inner(schema: Schema) -> Iterator[Schema]:
    for key, held in schema.items():
        match key, held:
            case "properties" | "$defs" | "definitions", schemas:
                yield from schemas.values()
            case "prefixItems" | "anyOf" | "oneOf" | "allOf", schemas:
                yield from schemas
            case "items" | "additionalProperties", dict():
                yield schema[key]
            case _:
                pass
