"""A tool's JSON schema as the API takes it, built from what is known and rightly typed. Pure.

Tool servers offer whatever they like: draft 4, references to the web, `"type": "str"`. A schema that the API refuses
fails the whole request, so a keyword that does not fit is left out: the tool server checks the arguments itself.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from agent_jobs.strict_schema import TYPES, may_be_array
from agent_jobs.strict_schema import is_strict as is_strict

Schema = dict[str, Any]

#: Beyond these a schema is not kept: every function is resent with every turn.
MAX_BYTES, MAX_DEPTH = 16_384, 16
#: A function without a usable schema takes any object.
OPEN: Schema = {"type": "object", "properties": {}}
TEXT_CHARS = 1_024

_LOCAL = re.compile(r"#/(\$defs|definitions)/([^/]+)")


def fit_schema(schema: Mapping[str, Any]) -> Schema | None:
    """The schema of an object that says what this one says, as far as the API takes it.

    None when nothing of it can be kept: it is too deep or too large, or holds what is not JSON.
    """
    try:
        root = _build_root_object(_fit_subschema(schema, 0))
        for part in _list_parts(root):
            if not _can_resolve(part.get("$ref", "#"), root):
                del part["$ref"]
        small = len(json.dumps(root, ensure_ascii=False, allow_nan=False).encode()) <= MAX_BYTES
    except (_TooDeepError, RecursionError, ValueError):
        return None
    return root if small else None


class _TooDeepError(Exception):
    pass


#: A value that is left out.
_UNFIT: Any = object()
_Fit = Callable[[Any, int], Any]


def _fit_subschema(value: Any, depth: int) -> Schema:
    """The keywords of a schema that are known and rightly typed; `true` and what is no schema allow anything."""
    if depth > MAX_DEPTH:
        raise _TooDeepError
    if not isinstance(value, Mapping):
        return {}
    given = dict(cast("Mapping[str, Any]", value))
    if isinstance(given.get("items"), list):  # a tuple, as drafts before 2020-12 wrote it
        given |= {"prefixItems": given["items"], "items": {}}
    found = {key: _KEYWORDS[key](each, depth + 1) for key, each in given.items() if key in _KEYWORDS}
    kept = {key: each for key, each in found.items() if each is not _UNFIT}
    if may_be_array(kept):
        kept.setdefault("items", {})  # the API asks for them
    return kept


def _fit_by_name(value: Any, depth: int) -> Any:
    if not isinstance(value, dict):
        return _UNFIT
    return {name: _fit_subschema(each, depth) for name, each in cast("dict[str, Any]", value).items()}


def _fit_choices(value: Any, depth: int) -> Any:
    return (
        [_fit_subschema(each, depth) for each in cast("list[Any]", value)]
        if isinstance(value, list) and value
        else _UNFIT
    )


def _fit_additional(value: Any, depth: int) -> Any:
    return value if isinstance(value, bool) else _fit_subschema(value, depth)


def _fit_type(value: Any, _depth: int) -> Any:
    kinds = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not kinds or not all(isinstance(kind, str) and kind in TYPES for kind in kinds):
        return _UNFIT
    return list(dict.fromkeys(kinds)) if isinstance(value, list) else value


def _fit_names(value: Any, _depth: int) -> Any:
    if not isinstance(value, list):
        return _UNFIT
    return list(dict.fromkeys(each for each in cast("list[Any]", value) if isinstance(each, str)))


def _fit_string(value: Any, _depth: int) -> Any:
    return value[:TEXT_CHARS] if isinstance(value, str) else _UNFIT


def _fit_pattern(value: Any, _depth: int) -> Any:
    try:
        re.compile(value)
    except (re.error, TypeError, RecursionError, OverflowError):
        return _UNFIT
    return value


def _fit_number(value: Any, _depth: int) -> Any:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if fits else _UNFIT


def _fit_positive(value: Any, depth: int) -> Any:
    return value if _fit_number(value, depth) is not _UNFIT and value > 0 else _UNFIT


def _fit_count(value: Any, _depth: int) -> Any:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else _UNFIT


def _fit_flag(value: Any, _depth: int) -> Any:
    return value if isinstance(value, bool) else _UNFIT


def _fit_values(value: Any, _depth: int) -> Any:
    return cast("list[Any]", value) if isinstance(value, list) and value else _UNFIT


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
    """The root as an object of its own: the API takes neither alternatives nor references in its place."""
    properties: Schema = dict(root.get("properties", {}))
    required: list[str] = list(root.get("required", []))
    for always, branch in _list_branches(root):
        for name, each in branch.get("properties", {}).items():
            properties.setdefault(name, each)
        required += branch.get("required", []) if always else []
    dropped = {"type", "properties", "required", "anyOf", "oneOf", "allOf", "enum", "const", "default", "$ref"}
    rest = {key: each for key, each in root.items() if key not in dropped}
    named = {"required": list(dict.fromkeys(required))} if required or "required" in root else {}
    return {"type": "object", "properties": properties, **named, **rest}


def _list_branches(root: Schema) -> Iterator[tuple[bool, Schema]]:
    """What the root stands for beside itself, and whether all of it holds."""
    whole = [{"$ref": root["$ref"]}] if "$ref" in root else []
    for always, branches in (
        (True, whole + root.get("allOf", [])),
        (False, root.get("anyOf", []) + root.get("oneOf", [])),
    ):
        for branch in branches:
            local = _LOCAL.fullmatch(branch.get("$ref", ""))
            yield always, root.get(local[1], {}).get(local[2], {}) if local else branch


def _can_resolve(reference: str, root: Schema) -> bool:
    local = _LOCAL.fullmatch(reference)
    return reference == "#" or (local is not None and local[2] in root.get(local[1], {}))


def _list_parts(schema: Schema) -> Iterator[Schema]:
    """A fitted schema and all the schemas in it."""
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
