"""Parse `options`: an allow-list of the API's parameters, and the options that agent-jobs itself reads. Pure."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import starmap
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self, cast

from agent_jobs.errors import Argument, RequestError
from agent_jobs.jobs.response import JSON, drop_fields, string_of
from agent_jobs.request.hosted_tools import check_tools
from agent_jobs.request.json_schema import build_format, is_same_schema
from agent_jobs.validation import FLAG, STRING, STRINGS, Choice, Kind, number, value_error, whole_number

KEY_CHARS = 200  # fits a URL or a path, and a row of a list
METADATA_PAIRS = 15  # the API allows 16, one of which is `job_id`
METADATA_KEY_CHARS = 64  # the API's limit
METADATA_VALUE_CHARS = 512  # the API's limit
MIN_OUTPUT_TOKENS = 16  # the API's limit
TIMEOUT_MAX_S = 7 * 86_400.0  # as AGENT_JOBS_JOB_TIMEOUT_S
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
#: Names of other interfaces for `json_schema`; `text` may hold the verbosity, too.
SCHEMA_ALIASES = ("response_format", "text", "format", "text_format", "output_schema")


def normalize_schema_option(options: JSON) -> JSON:
    """Return the options with a schema under a name of another interface as `json_schema`.

    Raises:
        RequestError: There are two schemas, or the value under such a name holds none.
    """
    ours = drop_fields(options, *SCHEMA_ALIASES)
    for name in SCHEMA_ALIASES:
        for key, value in _read_alias(name, options.get(name, "")).items():
            if not _is_same_option(key, ours.setdefault(key, value), value):
                raise RequestError(
                    "{alias} and {name} differ.",
                    "options_differ",
                    alias=Argument(f"options.{name}"),
                    name=Argument(f"options.{key}"),
                )
    return ours


def no_json_error() -> RequestError:
    """Return the refusal of options that cannot be sent."""
    return RequestError("{name} contain a value that JSON cannot represent.", "no_json", name=Argument("options"))


def _is_same_option(name: str, one: Any, other: Any) -> bool:
    return one is other or one == other or (name == "json_schema" and is_same_schema(one, other))


def _read_alias(name: str, value: Any) -> JSON:
    """Return our options for a `response_format` or an upstream `text`."""
    if name == "text" and isinstance(value, dict):
        return _read_text_parameter(cast("dict[str, Any]", value))
    if value in ({}, "", "text", {"type": "text"}):
        return {}
    return {"json_schema": value}


def _read_text_parameter(value: Mapping[str, Any]) -> JSON:
    """Return our options for upstream's `text`."""
    form: Any = drop_fields(value, "verbosity")
    verbosity = drop_fields(value, *form)
    if form.keys() == {"format"}:
        form = form["format"]
    if not form:
        return verbosity
    return {**verbosity, **_read_alias("format", form)}


class Option(NamedTuple):
    """One name that `options` accepts."""

    read: Callable[[str, Any], Any]  #: returns the checked value, or raises a RequestError
    place: tuple[str, ...] = ()  #: in the body of the request; empty for an option that agent-jobs reads itself
    form: JSON = MappingProxyType({})  #: of its value as a JSON schema; an empty one reads it unchanged


def _read_conversation(name: str, value: Any) -> bool | str:
    if isinstance(value, bool) or string_of(value).startswith("conv_"):
        return value
    raise value_error(name, "true for a new conversation or the id of one, which begins with conv_", value)


def _read_toolbox(name: str, value: Any) -> tuple[str, ...]:
    if value == "none":
        return ()
    return tuple(STRINGS.check(name, value))


def _read_cost(name: str, value: Any) -> float:
    usd = number(0, math.inf).check(name, value)
    if usd in (0, math.inf):
        raise value_error(name, "an amount of US dollars above 0", value)
    return usd


def _read_includes(name: str, value: Any) -> list[str]:
    return [Choice(INCLUDES).check(name, each) for each in STRINGS.check(name, value)]


def _is_metadata(value: Any) -> bool:
    """Return True if a value is an object with strings within the API's limits."""
    match value:
        case {"job_id": _}:
            return False
        case {**pairs}:
            return len(pairs) <= METADATA_PAIRS and all(starmap(_is_metadata_pair, pairs.items()))
        case _:
            return False


def _is_metadata_pair(key: object, text: object) -> bool:
    match key, text:
        case str(), str():
            return len(key) <= METADATA_KEY_CHARS and len(text) <= METADATA_VALUE_CHARS
        case _:
            return False


_METADATA: Kind[JSON] = Kind(
    f"up to {METADATA_PAIRS} strings of {METADATA_VALUE_CHARS} characters by name; job_id is ours", _is_metadata
)


def _check_option(option: Option, name: str, value: Any) -> Any:
    try:
        return option.read(f"options.{name}", value)
    except (TypeError, ValueError, RecursionError):
        raise no_json_error() from None


_WHOLE: JSON = {"type": "integer"}
_NUMBER: JSON = {"type": "number"}
_FLAG: JSON = {"type": "boolean"}
_STRINGS: JSON = {"type": "array", "items": {"type": "string"}}
_OBJECTS: JSON = {"type": "array", "items": {"type": "object"}}
_OBJECT: JSON = {"type": "object"}
_KEY: Kind[str] = Kind(
    f"a string of 1 to {KEY_CHARS} characters", lambda value: isinstance(value, str) and 0 < len(value) <= KEY_CHARS
)
OPTIONS: Mapping[str, Option] = {
    "instructions": Option(STRING.check, ("instructions",)),
    "include": Option(_read_includes, ("include",), _STRINGS),
    "json_schema": Option(build_format, ("text", "format")),
    "max_output_tokens": Option(whole_number(MIN_OUTPUT_TOKENS).check, ("max_output_tokens",), _WHOLE),
    "max_tool_calls": Option(whole_number(1).check, ("max_tool_calls",), _WHOLE),
    "metadata": Option(_METADATA.check, ("metadata",), _OBJECT),
    "reasoning_mode": Option(Choice(REASONING_MODES).check, ("reasoning", "mode")),
    "reasoning_summary": Option(Choice(SUMMARIES).check, ("reasoning", "summary")),
    "service_tier": Option(Choice(SERVICE_TIERS).check, ("service_tier",)),
    "temperature": Option(number(0, 2).check, ("temperature",), _NUMBER),
    "tools": Option(check_tools, ("tools",), _OBJECTS),
    "top_p": Option(number(0, 1).check, ("top_p",), _NUMBER),
    "verbosity": Option(Choice(VERBOSITIES).check, ("text", "verbosity")),
    # Options that agent-jobs reads itself: the fields of `StartOptions`.
    "allow_duplicate": Option(FLAG.check, form=_FLAG),
    "callback_url": Option(STRING.check),
    "conversation": Option(_read_conversation, form=_FLAG),
    "dry_run": Option(FLAG.check, form=_FLAG),
    "key": Option(_KEY.check),
    "max_cost_usd": Option(_read_cost, form=_NUMBER),
    "toolbox": Option(_read_toolbox, form=_STRINGS),
    "timeout_s": Option(number(1, TIMEOUT_MAX_S).check, form=_NUMBER),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """The options of a start, parsed and checked.

    Args:
        allow_duplicate: True starts the job although the same one exists.
        callback_url: The address that is called when the job finished or needs input.
        conversation: The conversation that the job belongs to: an id, True for a new one, None for none.
        dry_run: True sends nothing and reports what would be sent.
        key: The caller's own key for the job, under which it exists once.
        max_cost_usd: The highest cost of the job, in US dollars.
        timeout_s: The job's own time limit, counted as AGENT_JOBS_JOB_TIMEOUT_S is.
        toolbox: The tools of the user's own servers that the job may call; None if the caller did not say.
        upstream: The checked options that belong into the body of the request.
    """

    allow_duplicate: bool = False
    callback_url: str | None = None
    conversation: Literal[True] | str | None = None
    dry_run: bool = False
    key: str | None = None
    max_cost_usd: float | None = None
    timeout_s: float | None = None
    toolbox: tuple[str, ...] | None = None
    upstream: JSON = field(default_factory=dict[str, Any])

    @classmethod
    def parse(cls, options: JSON) -> Self:
        """Return the parsed options. A null is an option of agent-jobs that is not given.

        Raises:
            RequestError: An option or its value is not allowed. The sentence names what is.
        """
        ours: dict[str, Any] = {}
        upstream: dict[str, Any] = {}
        for name, value in options.items():
            option = OPTIONS[Choice(OPTIONS).check("options", name)]
            if option.place:
                upstream[name] = _check_option(option, name, value)
            elif value is not None:
                ours[name] = _check_option(option, name, value)
        ours["conversation"] = ours.get("conversation") or None  # false asks for none
        return cls(**ours, upstream=upstream)

    def write_to(self, body: dict[str, Any]) -> None:
        """Write the options of the API into the body of a request; metadata beside ours."""
        ours = body["metadata"]
        for name, value in self.upstream.items():
            place = body
            *groups, last = OPTIONS[name].place
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = value
        if "metadata" in self.upstream:
            body["metadata"] = {**self.upstream["metadata"], **ours}
