"""Tool arguments as hosts and models send them: empty means not given, text stays text. Pure."""

import json
from collections.abc import Mapping
from typing import Any, cast

from agent_jobs.errors import RequestError
from agent_jobs.request.checks import one_of

#: What some hosts add to a tool whose arguments are all optional.
PLACEHOLDERS = frozenset({"random_string", "dummy", "placeholder"})
#: Options for which 0 means that there is no such limit. A cost limit of 0 is not among them: it is refused.
ZERO_IS_NONE = frozenset({"max_output_tokens", "max_tool_calls", "timeout_s"})


def read_arguments(tool: str, arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that say something, each in the form that the tool's schema asks for.

    A host in strict mode fills every argument. Only then do false and 0 count as not given: elsewhere
    `web_search=false` and `wait_s=0` are choices.

    Raises:
        RequestError: An argument is unknown or cannot be read in one way only.
    """
    properties: Mapping[str, Any] = schema["properties"]
    is_filled = len(properties) > 1 and properties.keys() <= arguments.keys()
    required = schema.get("required", ())
    given: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in properties and (name in PLACEHOLDERS or name.startswith("_") or is_empty(value)):
            continue
        form = properties[one_of(tool, name, properties)]
        value = _in_form(name, value, form)
        # An option that is null takes the preset's away, so options that are only nulls still say something.
        says_something = bool(cast(Any, value)) if isinstance(value, dict) else not is_empty(value)
        if says_something and not _is_unset(value, form, is_filled=is_filled and name not in required):
            given[name] = value
    return given


def is_empty(value: Any) -> bool:
    """Return True for null, an empty text and a list or object that holds nothing else."""
    if isinstance(value, dict):
        return all(is_empty(each) for each in cast("dict[str, Any]", value).values())
    if isinstance(value, list):
        return all(is_empty(each) for each in cast("list[Any]", value))
    return value is None or value == ""


def _is_unset(value: Any, form: Mapping[str, Any], *, is_filled: bool) -> bool:
    if value is False:
        return is_filled
    if isinstance(value, bool) or not isinstance(value, int | float) or value != 0:
        return False
    is_out_of_range = form.get("minimum", 0) > 0 or form.get("exclusiveMinimum", -1) >= 0
    return is_out_of_range or is_filled


def _in_form(name: str, value: Any, form: Mapping[str, Any]) -> Any:
    kind = form.get("type")
    if kind == "array":
        return _as_list(name, value, form.get("items", {}).get("type"))
    if kind == "object":
        return _as_options(name, value)
    if kind == "string" and isinstance(value, list) and len(cast("list[Any]", value)) == 1:
        return cast("list[Any]", value)[0]
    return cast(Any, value)


def _as_list(name: str, value: Any, kind: str | None) -> Any:
    if isinstance(value, str) and value.strip():
        parsed: Any = _parsed(value)
        if kind == "object" and not isinstance(parsed, list | dict):
            raise RequestError(f'{name} takes a list like [{{"call_id":"call_...","output":"..."}}].')
        value = cast(Any, parsed if isinstance(parsed, list) or kind == "object" else [value])
    if isinstance(value, dict) and kind == "object":
        value = [value]
    if not isinstance(value, list) or name == "prompts":  # an empty one of several prompts is a mistake
        return cast(Any, value)
    return [each for each in cast("list[Any]", value) if not is_empty(each)]


def _as_options(name: str, value: Any) -> Any:
    if isinstance(value, str) and value.strip():
        value = _parsed(value)
        if not isinstance(value, dict):
            raise RequestError(f'{name} takes an object like {{"instructions":"..."}}, not a text.')
    if not isinstance(value, dict):
        return value
    options = cast("dict[str, Any]", value)
    return {key: each for key, each in options.items() if not _says_nothing(key, each)}


def _says_nothing(name: str, value: Any) -> bool:
    # A null takes an option of the preset away. An unknown option is refused later, even if empty.
    if value is None or name not in _known_options():
        return False
    is_zero = name in ZERO_IS_NONE and value is not False and value == 0
    return is_empty(value) or is_zero


def _known_options() -> tuple[str, ...]:
    from agent_jobs.request.options import NAMES

    return NAMES


def _parsed(text: str) -> Any:
    """Return the JSON in a text, or the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
