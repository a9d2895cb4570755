"""The rest of the API by an allow-list: what `options` takes, and what of it speaks to us and not to upstream. Pure."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

from agent_jobs.errors import RequestError
from agent_jobs.jobs.response import JSON
from agent_jobs.request import validators
from agent_jobs.request.hosted_tools import checked_tools
from agent_jobs.request.json_schema import format_of, same_schema

KEY_CHARS = 200
#: The API's limits on metadata, one pair of which is ours.
METADATA_PAIRS, METADATA_KEY_CHARS, METADATA_VALUE_CHARS = 15, 64, 512
TIMEOUT_MAX_S = 7 * 86_400.0
VERBOSITIES = ("low", "medium", "high")
SUMMARIES = ("auto", "concise", "detailed")
REASONING_MODES = ("standard", "pro")
SERVICE_TIERS = ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
INCLUDES = (
    "web_search_call.action.sources",
    "web_search_call.results",
    "file_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
)
#: What other interfaces call `json_schema`; `text` may hold the verbosity, too.
SCHEMA_ALIASES = ("response_format", "text", "format", "text_format", "output_schema")


def with_one_schema(options: JSON) -> JSON:
    """Return the options with a schema under a name of another interface as `json_schema`.

    Raises:
        RequestError: There are two schemas, or what stands there holds none.
    """
    named = [name for name in SCHEMA_ALIASES if name in options]
    ours = {name: value for name, value in options.items() if name not in named}
    for name in named:
        found = _other_form(name, options[name])
        for key, value in found.items():
            if key in ours and ours[key] != value and not (key == "json_schema" and same_schema(ours[key], value)):
                raise RequestError(f"options.{name} and options.{key} differ: give options.{key} only.")
            ours.setdefault(key, value)
    return ours


def _other_form(name: str, value: Any) -> JSON:
    """Return the options of ours that a `response_format` or a `text` of upstream's stands for."""
    if value is None:
        return {"json_schema": None}
    if isinstance(value, dict) and name == "text":
        text = dict(cast("dict[str, Any]", value))
        verbosity = {"verbosity": text.pop("verbosity")} if "verbosity" in text else {}
        value = text.get("format", text) if text.keys() <= {"format"} else text
        return {**verbosity, **_other_form("format", value)} if value else verbosity
    if value in ({}, "", "text", {"type": "text"}):
        return {}
    return {"json_schema": value}


def apply_options(body: dict[str, Any], options: JSON) -> None:
    """Write the options that upstream gets into a body, and check those that are ours.

    Raises:
        RequestError: An option is not allowed or its value is not; the sentence names what is.
    """
    for name, value in options.items():
        if validators.one_of("options", name, NAMES) in _OURS:
            _ours(options, name)
        else:
            _OPTIONS[name](body, f"options.{name}", value)


def key_of(options: JSON | None) -> str | None:
    """The caller's own key for the job, under which it exists once."""
    return _ours(options, "key")


def timeout_of(options: JSON | None) -> float | None:
    """The job's own time limit in seconds, counted as AGENT_JOBS_JOB_TIMEOUT_S is."""
    return _ours(options, "timeout_s")


def max_cost_of(options: JSON | None) -> float | None:
    """What the job may cost at most, in US dollars."""
    return _ours(options, "max_cost_usd")


def conversation_of(options: JSON | None) -> Literal[True] | str | None:
    """The conversation that the job belongs to: an id, True for a new one, None for none."""
    return _ours(options, "conversation") or None


def toolbox_of(options: JSON | None) -> tuple[str, ...] | None:
    """Which tools of the user's own servers the job may call; None where nothing was said."""
    return _ours(options, "toolbox")


def dry_run_of(options: JSON | None) -> bool:
    """Whether nothing is to be sent, only to be said what would be."""
    return bool(_ours(options, "dry_run"))


def allow_duplicate_of(options: JSON | None) -> bool:
    """Whether the job is to be started though the same one exists."""
    return bool(_ours(options, "allow_duplicate"))


def _ours(options: JSON | None, name: str) -> Any:
    value = (options or {}).get(name)
    return None if value is None else _OURS[name](f"options.{name}", value)


def _key(name: str, value: Any) -> str:
    if not (isinstance(value, str) and 0 < len(value) <= KEY_CHARS):
        raise RequestError(f"{name} takes a text of at most {KEY_CHARS} characters.")
    return value


def _conversation(name: str, value: Any) -> bool | str:
    if not isinstance(value, bool) and not (isinstance(value, str) and value.startswith("conv_")):
        raise RequestError(f"{name} takes true for a new conversation, or the id of one, which begins with conv_.")
    return value


def _toolbox(name: str, value: Any) -> tuple[str, ...]:
    return () if value == "none" else tuple(validators.texts(name, value))


def _cost(name: str, value: Any) -> float:
    if validators.number(name, value, 0, math.inf) == 0 or math.isinf(value):
        raise RequestError(f"{name} takes an amount of US dollars above 0.")
    return value


#: Options that speak to us.
_OURS: Mapping[str, Callable[[str, Any], Any]] = {
    "allow_duplicate": validators.flag,
    "conversation": _conversation,
    "dry_run": validators.flag,
    "key": _key,
    "max_cost_usd": _cost,
    "toolbox": _toolbox,
    "timeout_s": lambda name, value: validators.number(name, value, 1, TIMEOUT_MAX_S),
}

_Add = Callable[[dict[str, Any], str, Any], None]


def _put(at: tuple[str, ...], checked: Callable[[str, Any], Any]) -> _Add:
    """An option that stands in the body as it is, once checked."""

    def add(body: dict[str, Any], name: str, value: Any) -> None:
        for part in at[:-1]:
            body = body.setdefault(part, {})
        body[at[-1]] = checked(name, value)

    return add


def _choice(allowed: tuple[str, ...]) -> Callable[[str, Any], str]:
    return lambda name, value: validators.one_of(name, value, allowed)


def _include(body: dict[str, Any], name: str, value: Any) -> None:
    for each in validators.texts(name, value):
        body.setdefault("include", []).append(validators.one_of(name, each, INCLUDES))


def _metadata(body: dict[str, Any], name: str, value: Any) -> None:
    pairs = cast("dict[Any, Any]", value) if isinstance(value, dict) else {None: None}
    fits = len(pairs) <= METADATA_PAIRS and all(
        isinstance(key, str) and len(key) <= METADATA_KEY_CHARS and key != "job_id"
        and isinstance(text, str) and len(text) <= METADATA_VALUE_CHARS
        for key, text in pairs.items()
    )  # fmt: skip
    if not fits:
        raise RequestError(
            f"{name} takes up to {METADATA_PAIRS} texts of {METADATA_VALUE_CHARS} characters by name; job_id is ours."
        )
    body["metadata"] = {**pairs, **body["metadata"]}


#: Options that upstream gets.
_OPTIONS: Mapping[str, _Add] = {
    "instructions": _put(("instructions",), validators.text),
    "include": _include,
    "json_schema": _put(("text", "format"), format_of),
    "max_output_tokens": _put(("max_output_tokens",), lambda name, value: validators.whole(name, value, 16)),
    "max_tool_calls": _put(("max_tool_calls",), lambda name, value: validators.whole(name, value, 1)),
    "metadata": _metadata,
    "reasoning_mode": _put(("reasoning", "mode"), _choice(REASONING_MODES)),
    "reasoning_summary": _put(("reasoning", "summary"), _choice(SUMMARIES)),
    "service_tier": _put(("service_tier",), _choice(SERVICE_TIERS)),
    "temperature": _put(("temperature",), lambda name, value: validators.number(name, value, 0, 2)),
    "tools": _put(("tools",), checked_tools),
    "top_p": _put(("top_p",), lambda name, value: validators.number(name, value, 0, 1)),
    "verbosity": _put(("text", "verbosity"), _choice(VERBOSITIES)),
}
#: All names that `options` takes.
NAMES = (*_OPTIONS, *_OURS)

_WHOLE: JSON = {"type": "integer"}
_NUMBER: JSON = {"type": "number"}
_FLAG: JSON = {"type": "boolean"}
_TEXTS: JSON = {"type": "array", "items": {"type": "string"}}
#: In which form an option is due, as a JSON schema says it; one that is not here is checked as it came.
FORMS: Mapping[str, JSON] = {
    "max_output_tokens": _WHOLE,
    "max_tool_calls": _WHOLE,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "timeout_s": _NUMBER,
    "max_cost_usd": _NUMBER,
    "allow_duplicate": _FLAG,
    "dry_run": _FLAG,
    "conversation": _FLAG,
    "include": _TEXTS,
    "toolbox": _TEXTS,
    "tools": {"type": "array", "items": {"type": "object"}},
    "metadata": {"type": "object"},
}
