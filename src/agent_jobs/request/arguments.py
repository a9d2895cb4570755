"""Tool arguments as hosts and models send them: empty means not given, text stays text. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from agent_jobs.errors import RequestError
from agent_jobs.request.hosted_tools import NEEDING_NOTHING
from agent_jobs.request.options import OPTIONS, SCHEMA_ALIASES, with_one_schema
from agent_jobs.validation import Choice

#: What some hosts add to a tool whose arguments are all optional.
PLACEHOLDERS = frozenset({"random_string", "dummy", "placeholder"})
#: What some hosts put all arguments into.
WRAPPERS = frozenset({"arguments", "args", "params", "parameters", "input", "kwargs"})
#: Options for which 0 means that there is no such limit. A cost limit of 0 is not among them: it is refused.
ZERO_IS_NONE = frozenset({"max_output_tokens", "max_tool_calls", "timeout_s"})
#: Texts that are read by a model, so that an object in their place may be read as JSON.
FREE_TEXTS = frozenset({"prompt", "message"})
#: Lists of ids, which may come as one text with any marks between them.
ID_LISTS = frozenset({"job_ids", "approve", "deny"})
#: Under which names an object holds the one text that is due.
TEXT_KEYS: Mapping[str, tuple[str, ...]] = {
    "prompts": ("prompt", "text"),
    "files": ("path", "file"),
    "job_ids": ("job_id", "id"),
    "previous_job_id": ("previous_job_id", "job_id", "id"),
    "approve": ("call_id", "id"),
    "deny": ("call_id", "id"),
}
#: Whose objects may hold more than that text, since they are answers of ours that name a job.
JOB_IDS = frozenset({"job_id", "job_ids", "previous_job_id"})
EXAMPLES: Mapping[str, str] = {
    "outputs": '[{"call_id":"call_...","output":"..."}]',
    "metadata": '{"team":"..."}',
    "options": '{"instructions":"..."}',
}
FLAGS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")


def read_arguments(tool: str, arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that say something, each in the form that the tool's schema asks for.

    A host in strict mode fills every argument. Only then do false and 0 count as not given: elsewhere
    `web_search=false` and `wait_s=0` are choices.

    Raises:
        RequestError: An argument is unknown or cannot be read in one way only.
    """
    properties: Mapping[str, Any] = schema["properties"]
    arguments = _under_our_names(_unwrapped(arguments, properties), properties)
    is_filled = len(properties) > 1 and properties.keys() <= arguments.keys()
    required = schema.get("required", ())
    given: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in properties and (name in PLACEHOLDERS or name.startswith("_") or is_empty(value)):
            continue
        form = properties[Choice(properties).check(tool, name)]
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


def _unwrapped(arguments: Mapping[str, Any], properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments without an object or a JSON text around all of them."""
    if len(arguments) != 1:
        return arguments
    [(name, value)] = arguments.items()
    if name not in WRAPPERS or name in properties:
        return arguments
    inner: Any = _parsed(value) if isinstance(value, str) else value
    return cast("dict[str, Any]", inner) if isinstance(inner, dict) else arguments


def _under_our_names(arguments: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with `jobId` as `job_id`, and with options that stand beside `options` in it."""
    ours: dict[str, Any] = {}
    beside: dict[str, Any] = {}
    for name, value in arguments.items():
        written = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).replace("-", "_").lower()
        if name in properties or written not in (*properties, *OPTIONS, *SCHEMA_ALIASES):
            ours[name] = value
        elif written in properties:
            ours[name if written in arguments or written in ours else written] = value
        elif "options" in properties and not is_empty(value):
            beside[written] = value
        else:
            ours[name] = value
    if beside:
        options = _as_options("options", {} if is_empty(ours.get("options")) else ours["options"])
        for name in beside.keys() & options.keys():
            if beside[name] != options[name]:
                raise RequestError(f"{name} is given twice: give it in options only.")
        ours["options"] = {**options, **beside}
    return ours


def _is_unset(value: Any, form: Mapping[str, Any], *, is_filled: bool) -> bool:
    if value is False:
        return is_filled
    if isinstance(value, bool) or not isinstance(value, int | float) or value != 0:
        return False
    is_out_of_range = form.get("minimum", 0) > 0 or form.get("exclusiveMinimum", -1) >= 0
    return is_out_of_range or is_filled


def _in_form(name: str, value: Any, form: Mapping[str, Any]) -> Any:
    match form.get("type"):
        case "array":
            return _as_list(name, value, form.get("items", {}).get("type"))
        case "object":
            return _as_options(name, value)
        case "string":
            return _as_text(name, value, form.get("enum", ()))
        case "integer" | "number" | "boolean" as kind:
            return _as_scalar(value, kind)
        case _:
            return value


def _as_scalar(value: Any, kind: str) -> Any:
    """Return the number, or true or false, that a text or a list of one says; anything else as it is."""
    given: Any = _only(value)
    said = given.strip().lower() if isinstance(given, str) else ""
    if kind == "boolean":
        return FLAGS.get(str(given) if type(given) is int else said, given)
    if _NUMBER.fullmatch(said):
        given = float(said) if "." in said else int(said)
    if kind == "integer" and isinstance(given, float) and given.is_integer():
        return int(given)
    return given


def _only(value: Any) -> Any:
    """Return what a list of one holds; anything else as it is."""
    each: list[Any] = cast("list[Any]", value) if isinstance(value, list) else []
    return each[0] if len(each) == 1 else cast(Any, value)


def _as_text(name: str, value: Any, choices: Any = ()) -> Any:
    """Return the text that is meant: written out, alone in a list, in an object that names it, or as JSON."""
    if isinstance(value, str):
        return next((each for each in choices if each == value.strip().lower()), value)
    if value is True or is_empty(value):
        return value
    if isinstance(value, int | float):
        said = value if name in FREE_TEXTS else json.dumps(value)
        return said if value else None  # false and 0 are what hosts fill in
    each = _text_in(name, value)
    if each is not None:
        return each
    if isinstance(value, dict) and name in FREE_TEXTS and name not in value:
        return json.dumps(value, ensure_ascii=False)
    several = "; several tasks go into prompts" if name == "prompt" else ""
    raise RequestError(f'{name} accepts one string like "..."{several}.')


def _text_in(name: str, value: Any) -> str | None:
    """Return the one text in a list or object, or None."""
    if isinstance(value, list):
        parts = cast("list[Any]", value)
        if len(parts) == 1:
            return parts[0] if isinstance(parts[0], str) else _text_in(name, parts[0])
        is_content = all(isinstance(part, dict) and "text" in part for part in parts)
        texts = [_text_in("text", part) for part in parts] if is_content else [None]
        return None if None in texts else "\n\n".join(cast("list[str]", texts))
    if not isinstance(value, dict):
        return None
    facts = cast("dict[str, Any]", value)
    if facts.get("role") == "user" and facts.keys() <= {"type", "role", "content"}:
        content = facts.get("content")
        return content if isinstance(content, str) else _text_in(name, content)
    if facts.get("type", "text") in ("text", "input_text") and facts.keys() <= {"type", "text"}:
        name = "text"
    key = next((each for each in TEXT_KEYS.get(name, (name,)) if isinstance(facts.get(each), str)), None)
    is_alone = key is not None and facts.keys() <= {key, "type"}
    return facts[key] if key is not None and (is_alone or name in JOB_IDS) else None


def _as_list(name: str, value: Any, kind: str | None) -> Any:
    if isinstance(value, str) and value.strip():
        value = _listed(name, value, kind)
    if isinstance(value, dict) and not is_empty(cast(Any, value)):
        value = _objects(name, cast("dict[str, Any]", value)) if kind == "object" else [value]
    if not isinstance(value, list):
        return cast(Any, value)
    given = [each for each in cast("list[Any]", value) if name == "prompts" or not is_empty(each)]
    if kind != "object":
        return [_as_item(name, each) for each in given]
    return [_parsed(each) if isinstance(each, str) else each for each in given]


def _as_item(name: str, value: Any) -> Any:
    """Return one text of a list."""
    if is_empty(value) or isinstance(value, str):
        return value
    each = str(value) if type(value) is int else _text_in(name, value)
    if each is None:
        raise RequestError(f'{name} accepts a list of strings like ["..."].')
    return each


def _listed(name: str, text: str, kind: str | None) -> Any:
    """Return the list that stands in a text: as JSON, as ids, or as the text itself."""
    parsed: Any = _parsed(text)
    if isinstance(parsed, list) or (kind == "object" and isinstance(parsed, dict)):
        return cast(Any, parsed)
    if name == "tools":
        return [{"type": text.strip()}] if text.strip() in NEEDING_NOTHING else text
    if kind == "object":
        raise RequestError(f"{name} accepts a list like {EXAMPLES.get(name, '[{}]')}.")
    if name in ID_LISTS:
        return re.findall(r"[\w-]+", text) or [text]
    return [text]


def _objects(name: str, value: dict[str, Any]) -> list[Any]:
    """Return a list of the one object, or of the outputs that an object has by their calls."""
    if name != "outputs" or {"call_id", "output"} & value.keys():
        return [value]
    return [{"call_id": call_id, "output": output} for call_id, output in value.items()]


def _as_options(name: str, value: Any) -> Any:
    given: Any = _only(_parsed(value) if isinstance(value, str) else value)
    if is_empty(given) and not isinstance(given, dict):
        return given
    if not isinstance(given, dict):
        raise RequestError(f"{name} accepts an object like {EXAMPLES.get(name, '{}')}.")
    options = cast("dict[str, Any]", given)
    if name != "options":
        return options
    return {key: _option(key, each) for key, each in with_one_schema(options).items() if not _says_nothing(key, each)}


def _option(name: str, value: Any) -> Any:
    """Return an option in its form; what cannot be read so is refused where options are checked."""
    if value is None or (name == "toolbox" and value == "none"):
        return value
    return _in_form(name, value, (OPTIONS[name].form if name in OPTIONS else None) or {})


def _says_nothing(name: str, value: Any) -> bool:
    # A null takes an option of the preset away. An unknown option is refused later, even if empty.
    if value is None or name not in OPTIONS:
        return False
    is_zero = name in ZERO_IS_NONE and not isinstance(value, bool) and value in (0, "0")
    return is_empty(value) or is_zero


def _parsed(text: str) -> Any:
    """Return the JSON in a text, or the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
