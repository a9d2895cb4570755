"""Read tool arguments as hosts and models send them: empty means not given, and a string stays a string. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

from agent_jobs.errors import Argument, RequestError
from agent_jobs.request.hosted_tools import NEEDING_NOTHING
from agent_jobs.request.options import OPTIONS, SCHEMA_ALIASES, normalize_schema_option
from agent_jobs.validation import Choice, value_error

#: Some hosts add such an argument to a tool whose arguments are all optional.
PLACEHOLDERS = frozenset({"random_string", "dummy", "placeholder"})
#: Some hosts put all arguments into one of these.
WRAPPERS = frozenset({"arguments", "args", "params", "parameters", "input", "kwargs"})
#: Options for which 0 means that there is no such limit. A cost limit of 0 is not among them: it is refused.
ZERO_IS_NONE = frozenset({"max_output_tokens", "max_tool_calls", "timeout_s"})
#: Strings that a model reads, so that an object in their place may be written out as JSON.
FREE_TEXTS = frozenset({"prompt", "message"})
#: Lists of ids, which a host may send as one string with any separators.
ID_LISTS = frozenset({"job_ids", "approve", "deny"})
#: Names under which an object has the one expected string.
TEXT_KEYS: Mapping[str, tuple[str, ...]] = {
    "prompts": ("prompt", "text"),
    "files": ("path", "file"),
    "job_ids": ("job_id", "id"),
    "previous_job_id": ("previous_job_id", "job_id", "id"),
    "approve": ("call_id", "id"),
    "deny": ("call_id", "id"),
}
#: Their objects may hold more than that string, since they are answers of ours that name a job.
JOB_IDS = frozenset({"job_id", "job_ids", "previous_job_id"})
EXAMPLES: Mapping[str, str] = {
    "outputs": '[{"call_id":"call_...","output":"..."}]',
    "metadata": '{"team":"..."}',
    "options": '{"instructions":"..."}',
}
#: Arguments with a second one for several strings.
SEVERAL_STRINGS: Mapping[str, str] = {"prompt": " (several tasks go into prompts)"}
FLAGS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_OPTION_FORMS: Mapping[str, Mapping[str, Any]] = {name: option.form for name, option in OPTIONS.items()}
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")


def read_arguments(tool: str, arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that say something, each in the form that the tool's schema asks for.

    A host in strict mode fills every argument. Only then do false and 0 count as not given: elsewhere
    `web_search=false` and `wait_s=0` are choices.

    Raises:
        RequestError: An argument is unknown or cannot be read in one way only.
    """
    properties: Mapping[str, Any] = schema["properties"]
    arguments = _rename_arguments(_unwrap_arguments(arguments, properties), properties)
    is_filled = len(properties) > 1 and properties.keys() <= arguments.keys()
    required = schema.get("required", ())
    given: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in properties and _is_ignorable(name, value):
            continue
        form = properties[Choice(properties).check(tool, name)]
        value = _read_value(name, value, form)
        if _says_something(value) and not _is_unset(value, form, is_filled=is_filled and name not in required):
            given[name] = value
    return given


def is_empty(value: Any) -> bool:
    """Return True for null, an empty string and a list or object that holds nothing else."""
    match value:
        case {**fields}:
            return all(map(is_empty, fields.values()))
        case [*items]:
            return all(map(is_empty, items))
        case _:
            return value in (None, "")


def _is_ignorable(name: str, value: Any) -> bool:
    """Return True if an argument that the tool does not have needs no refusal."""
    return name in PLACEHOLDERS or name.startswith("_") or is_empty(value)


def _says_something(value: Any) -> bool:
    # A null removes the preset's option, so options that are only nulls still mean something.
    if isinstance(value, dict):
        return bool(cast("dict[str, Any]", value))
    return not is_empty(value)


def _unwrap_arguments(arguments: Mapping[str, Any], properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments without an object or a JSON string around all of them."""
    match list(arguments.items()):
        case [(name, value)] if name in WRAPPERS - properties.keys():
            inner: Any = _parse_json_value(value)
            if isinstance(inner, dict):
                return cast("dict[str, Any]", inner)
        case _:
            pass
    return arguments


def _rename_arguments(arguments: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with `jobId` as `job_id`, and with misplaced options moved into `options`."""
    ours: dict[str, Any] = {}
    beside: dict[str, Any] = {}
    absent = properties.keys() - arguments.keys()
    misplaceable = _list_misplaceable_options(properties)
    for name, value in arguments.items():
        written = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).replace("-", "_").lower()
        if written in misplaceable and not is_empty(value):
            beside[written] = value
        elif written in absent:
            absent.remove(written)
            ours[written] = value
        else:
            ours[name] = value
    if beside:
        ours["options"] = _join_options(ours.get("options"), beside)
    return ours


def _list_misplaceable_options(properties: Mapping[str, Any]) -> set[str]:
    """Return the options that a host may write beside `options` instead of in it."""
    if "options" not in properties:
        return set()
    return {*OPTIONS, *SCHEMA_ALIASES} - properties.keys()


def _join_options(given: Any, beside: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options together with the misplaced ones.

    Raises:
        RequestError: An option is in both places with different values.
    """
    options: dict[str, Any] = _read_options("options", given) or {}
    for name in beside.keys() & options.keys():
        if beside[name] != options[name]:
            raise RequestError(
                "{argument} is given twice, beside {name} and in it.",
                "duplicate_value",
                argument=name,
                name=Argument("options"),
            )
    return {**options, **beside}


def _is_unset(value: Any, form: Mapping[str, Any], *, is_filled: bool) -> bool:
    """Return True if a host filled in false or 0 for an argument that is not given."""
    match value:
        case False:
            return is_filled
        case 0:
            return is_filled or form.get("minimum", 0) > 0 or form.get("exclusiveMinimum", -1) >= 0
        case _:
            return False


def _read_value(name: str, value: Any, form: Mapping[str, Any]) -> Any:
    """Return the value in the form of a JSON schema, as far as it can be read so."""
    match form.get("type"):
        case "array":
            return _read_list(name, value, form.get("items", {}).get("type"))
        case "object":
            return _read_options(name, value)
        case "string":
            return _read_string(name, value, form.get("enum", ()))
        case "boolean":
            return _read_flag(value)
        case "integer" | "number" as kind:
            return _read_number(value, kind)
        case _:
            return value


def _read_flag(value: Any) -> Any:
    """Return the true or false that a string, a number or a list of one says; anything else as it is."""
    given: Any = _only_item(value)
    if type(given) in (int, str):
        return FLAGS.get(str(given).strip().lower(), given)
    return given


def _read_number(value: Any, kind: str) -> Any:
    """Return the number that a string or a list of one says; anything else as it is."""
    given: Any = _only_item(value)
    if isinstance(given, str) and _NUMBER.fullmatch(given.strip()):
        given = float(given) if "." in given else int(given)
    if kind == "integer" and isinstance(given, float) and given.is_integer():
        return int(given)
    return given


def _only_item(value: Any) -> Any:
    """Return the only item of a list; anything else as it is."""
    match value:
        case [item]:
            return item
        case _:
            return value


def _read_string(name: str, value: Any, choices: Sequence[str]) -> Any:
    """Return the string that is meant: written out, alone in a list, in an object that names it, or as JSON.

    Raises:
        RequestError: No single string is meant.
    """
    match value:
        case str():
            written = value.strip().lower()
            if written in choices:
                return written
            return value
        case dict() | list() if not is_empty(cast(Any, value)):
            return _read_container_as_string(name, value)
        case 0:
            return None  # hosts fill in false and 0
        case int() | float() if value is not True and name not in FREE_TEXTS:
            return json.dumps(value)
        case _:
            return value


def _read_container_as_string(name: str, value: Any) -> str:
    """Return the one string in a list or object; an object in the place of free text as JSON."""
    found = _find_string(name, value)
    if found is not None:
        return found
    if isinstance(value, dict) and name in FREE_TEXTS and name not in value:
        return json.dumps(value, ensure_ascii=False)
    raise value_error(name, f'one string like "..."{SEVERAL_STRINGS.get(name, "")}', cast(object, value))


def _find_string(name: str, value: Any) -> str | None:
    """Return a string, or the one string in a list or object; None for anything else."""
    match value:
        case str():
            return value
        case [part]:
            return _find_string(name, part)
        case [*parts]:
            return _join_content_parts(parts)
        case {**facts}:
            return _find_string_in_object(name, facts)
        case _:
            return None


def _join_content_parts(parts: list[Any]) -> str | None:
    """Return the text of content parts as paragraphs; None if one of them is something else."""
    texts = list(map(_read_content_part, parts))
    if None in texts:
        return None
    return "\n\n".join(cast("list[str]", texts))


def _read_content_part(part: Any) -> str | None:
    """Return the text of a part that has no more than that and its type; None for anything else."""
    match part:
        case {"text": str() as text, **rest} if rest.keys() <= {"type"}:
            return text
        case _:
            return None


def _find_string_in_object(name: str, facts: dict[str, Any]) -> str | None:
    """Return the string of a message, of a content part, or under one of the names for it."""
    match facts:
        case {"role": "user", "content": content, **rest} if rest.keys() <= {"type"}:
            return _find_string(name, content)
        case {"type": "text" | "input_text", "text": str() as text, **rest} if not rest:
            return text
        case {"text": str() as text, **rest} if not rest:
            return text
        case _:
            return _find_named_string(name, facts)


def _find_named_string(name: str, facts: dict[str, Any]) -> str | None:
    """Return the string under one of the names for an argument; an object with other facts may only name a job."""
    key = next((each for each in TEXT_KEYS.get(name, (name,)) if isinstance(facts.get(each), str)), None)
    if key is not None and (name in JOB_IDS or facts.keys() <= {key, "type"}):
        return facts[key]
    return None


def _read_list(name: str, value: Any, kind: str | None) -> Any:
    """Return the list that is meant; anything that is none as it is."""
    if isinstance(value, str) and value.strip():
        value = _list_from_string(name, value, kind)
    if isinstance(value, dict) and not is_empty(cast(Any, value)):
        value = _list_from_object(name, cast("dict[str, Any]", value))
    if isinstance(value, list):
        return _read_items(name, cast("list[Any]", value), kind)
    return cast(Any, value)


def _read_items(name: str, items: list[Any], kind: str | None) -> list[Any]:
    """Return the items of a list that say something; of prompts all, since an empty one is refused."""
    given = [each for each in items if name == "prompts" or not is_empty(each)]
    if kind == "object":
        return list(map(_parse_json_value, given))
    return list(map(partial(_read_item, name), given))


def _read_item(name: str, value: Any) -> Any:
    """Return one string of a list."""
    if is_empty(value):
        return value
    if type(value) is int:
        return str(value)
    found = _find_string(name, value)
    if found is None:
        raise value_error(name, 'a list of strings like ["..."]', value)
    return found


def _list_from_string(name: str, text: str, kind: str | None) -> Any:
    """Return the list in a string: as JSON, as ids, or as the string itself."""
    parsed: Any = _parse_json_value(text)
    if isinstance(parsed, list):
        return cast(Any, parsed)
    if kind == "object":
        return _objects_from_string(name, text, parsed)
    if name in ID_LISTS:
        return re.findall(r"[\w-]+", text) or [text]
    return [text]


def _objects_from_string(name: str, text: str, parsed: Any) -> Any:
    """Return the object in a string, or the one tool that it names; no other string can mean an object."""
    if isinstance(parsed, dict):
        return cast(Any, parsed)
    if name != "tools":
        raise value_error(name, f"a list like {EXAMPLES.get(name, '[{}]')}", text)
    if text.strip() in NEEDING_NOTHING:
        return [{"type": text.strip()}]
    return text  # refused where tools are checked


def _list_from_object(name: str, value: dict[str, Any]) -> list[Any]:
    """Return a list of the one object, or of the outputs that an object has by their calls."""
    if name != "outputs" or {"call_id", "output"} & value.keys():
        return [value]
    return [{"call_id": call_id, "output": output} for call_id, output in value.items()]


def _read_options(name: str, value: Any) -> Any:
    """Return an object, alone in a list or as JSON too; of `options` with each option in its form."""
    given: Any = _only_item(_parse_json_value(value))
    match given:
        case {**facts}:
            if name != "options":
                return facts
            options = normalize_schema_option(facts)
            return {key: _read_option(key, each) for key, each in options.items() if not _is_not_given(key, each)}
        case _ if is_empty(given):
            return given
        case _:
            raise value_error(name, f"an object like {EXAMPLES.get(name, '{}')}", given)


def _read_option(name: str, value: Any) -> Any:
    """Return an option in its form; one that cannot be read so is refused where options are checked."""
    if name == "toolbox" and value == "none":
        return value
    return _read_value(name, value, _OPTION_FORMS.get(name, {}))


def _is_not_given(name: str, value: Any) -> bool:
    """Return True if an option is filled in but says nothing."""
    # A null removes an option of the preset. An unknown option is refused later, even if empty.
    if value is None or name not in OPTIONS:
        return False
    is_zero = name in ZERO_IS_NONE and str(value) in ("0", "0.0")
    return is_empty(value) or is_zero


def _parse_json_value(value: Any) -> Any:
    """Return the JSON in a string; anything else as it is."""
    try:
        return json.loads(value)
    except (TypeError, ValueError, RecursionError):  # no string, or one without JSON
        return value
