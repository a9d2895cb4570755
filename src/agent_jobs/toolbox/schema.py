"""Reduce a tool's JSON schema to the known and correctly typed keywords that the API accepts. Pure.

Tool servers offer any schema: draft 4, references to the web, `"type": "str"`. A schema that the API refuses fails the
whole request, so a keyword that does not fit is left out: the tool server checks the arguments itself.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from agent_jobs.strict_schema import TYPES, can_be_array
from agent_jobs.strict_schema import is_strict as is_strict

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


#: Stands for a value that is left out.
_UNFIT: Any = object()
_Fit = Callable[[Any, int], Any]


def _fit_subschema(value: Any, depth: int) -> Schema:
    """Return the known, correctly typed keywords of a schema; `true` and values that are no schema allow anything."""
    if depth > MAX_DEPTH:
        raise _TooDeepError
    if not isinstance(value, Mapping):
        return {}
    given = dict(cast("Mapping[str, Any]", value))
    if isinstance(given.get("items"), list):  # a tuple, as drafts before 2020-12 wrote it
        given |= {"prefixItems": given["items"], "items": {}}
    found = {key: _KEYWORDS[key](each, depth + 1) for key, each in given.items() if key in _KEYWORDS}
    kept = {key: each for key, each in found.items() if each is not _UNFIT}
    if can_be_array(kept):
        kept.setdefault("items", {})  # the API asks for them
    return kept


def _fit_by_name(value: Any, depth: int) -> Any:
    if not isinstance(value, dict):
        return _UNFIT
    return {name: _fit_subschema(each, depth) for name, each in cast("dict[str, Any]", value).items()}


def _fit_choices(value: Any, depth: int) -> Any:
    if not isinstance(value, list) or not value:
        return _UNFIT
    return [_fit_subschema(each, depth) for each in cast("list[Any]", value)]


def _fit_additional(value: Any, depth: int) -> Any:
    if isinstance(value, bool):
        return value
    return _fit_subschema(value, depth)


def _fit_type(value: Any, _depth: int) -> Any:
    if isinstance(value, list):
        kinds = cast("list[Any]", value)
        if not kinds or not all(map(_is_type, kinds)):
            return _UNFIT
        return list(dict.fromkeys(kinds))
    if not _is_type(value):
        return _UNFIT
    return value


def _is_type(kind: Any) -> bool:
    return isinstance(kind, str) and kind in TYPES


def _fit_names(value: Any, _depth: int) -> Any:
    if not isinstance(value, list):
        return _UNFIT
    return list(dict.fromkeys(each for each in cast("list[Any]", value) if isinstance(each, str)))


def _fit_string(value: Any, _depth: int) -> Any:
    if not isinstance(value, str):
        return _UNFIT
    return value[:TEXT_CHARS]


def _fit_pattern(value: Any, _depth: int) -> Any:
    try:
        re.compile(value)
    except (re.error, TypeError, RecursionError, OverflowError):
        return _UNFIT
    return value


def _fit_number(value: Any, _depth: int) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return _UNFIT
    return value


def _fit_positive(value: Any, depth: int) -> Any:
    if _fit_number(value, depth) is _UNFIT or value <= 0:
        return _UNFIT
    return value


def _fit_count(value: Any, _depth: int) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return _UNFIT
    return value


def _fit_flag(value: Any, _depth: int) -> Any:
    if not isinstance(value, bool):
        return _UNFIT
    return value


def _fit_values(value: Any, _depth: int) -> Any:
    if not isinstance(value, list) or not value:
        return _UNFIT
    return cast("list[Any]", value)


def _fit_anything(value: Any, _depth: int) -> Any:
    return value


_KEYWORDS: Mapping[str, _Fit] = {
    "type": _fit_type,
    "description": _fit_string,
    "properties": _fit_by_name,
    "required": _fit_names,
    "additionalProperties": _fit_additional,
    "items": _fit_subschema,
    "prefixItems": _fit_choices,
    "anyOf": _fit_choices,
    "oneOf": _fit_choices,
    "allOf": _fit_choices,
    "enum": _fit_values,
    "const": _fit_anything,
    "default": _fit_anything,
    "format": _fit_string,
    "pattern": _fit_pattern,
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _fit_number),
    "multipleOf": _fit_positive,
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), cast(_Fit, _fit_count)
    ),
    "uniqueItems": _fit_flag,
    "$ref": _fit_string,
    "$defs": _fit_by_name,
    "definitions": _fit_by_name,
}


def _build_root_object(root: Schema) -> Schema:
    """Return the root as an object of its own: the API accepts neither alternatives nor a reference there."""
    properties: Schema = dict(root.get("properties", {}))
    required: list[str] = list(root.get("required", []))
    for branch in _resolve_branches(root, _list_required_branches(root)):
        _add_missing(properties, branch)
        required += branch.get("required", [])
    for branch in _resolve_branches(root, root.get("anyOf", []) + root.get("oneOf", [])):
        _add_missing(properties, branch)
    built: Schema = {"type": "object", "properties": properties}
    if required or "required" in root:
        built["required"] = list(dict.fromkeys(required))
    return built | {key: each for key, each in root.items() if key not in _REPLACED_AT_ROOT}


def _add_missing(properties: Schema, branch: Schema) -> None:
    for name, each in branch.get("properties", {}).items():
        properties.setdefault(name, each)


def _list_required_branches(root: Schema) -> list[Schema]:
    """Return the schemas that hold in addition to the root."""
    branches: list[Schema] = root.get("allOf", [])
    if "$ref" in root:
        return [{"$ref": root["$ref"]}, *branches]
    return branches


def _resolve_branches(root: Schema, branches: Iterable[Schema]) -> Iterator[Schema]:
    for branch in branches:
        local = _LOCAL.fullmatch(branch.get("$ref", ""))
        if local is None:
            yield branch
        else:
            yield root.get(local[1], {}).get(local[2], {})


def _can_resolve(reference: str, root: Schema) -> bool:
    local = _LOCAL.fullmatch(reference)
    return reference == "#" or (local is not None and local[2] in root.get(local[1], {}))


def _list_parts(schema: Schema) -> Iterator[Schema]:
    """Yield a fitted schema and all schemas in it."""
    yield schema
    for part in _list_inner(schema):
        yield from _list_parts(part)


def _list_inner(schema: Schema) -> Iterator[Schema]:
    for key in ("properties", "$defs", "definitions"):
        yield from schema.get(key, {}).values()
    for key in ("prefixItems", "anyOf", "oneOf", "allOf"):
        yield from schema.get(key, [])
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield schema[key]
