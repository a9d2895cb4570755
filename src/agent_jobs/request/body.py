"""Build the body of POST /responses from a caller's arguments: the entry point of this package. Pure."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from agent_jobs.errors import Argument, RequestError
from agent_jobs.jobs.job import Mode
from agent_jobs.jobs.response import JSON, drop_fields, mapping_of
from agent_jobs.request.added_parameters import (
    ASKED,
    find_refused_budget_limit,
    is_from_caller,
    list_asked_names,
)
from agent_jobs.request.hosted_tools import INCLUDED
from agent_jobs.request.models import (
    check_model,
    describe_retirement,
    load_models,
    suggest_model,
)
from agent_jobs.request.options import (
    INCLUDES,
    OPTIONS,
    StartOptions,
    no_json_error,
    normalize_schema_option,
)
from agent_jobs.request.presets import EFFORTS, Preset, load_our_presets
from agent_jobs.request.start_request import StartRequest
from agent_jobs.text import encode_text, truncate
from agent_jobs.validation import Choice

TITLE_CHARS = 80  # fits one row of a list
#: The caller's names for upstream's parameters where they differ, by patterns; the first that matches counts.
_ARGUMENTS = {
    r"reasoning\.effort": "effort",
    r"reasoning\.summary": "options.reasoning_summary",
    r"reasoning\.mode": "options.reasoning_mode",
    r"reasoning": "effort",
    r"text\.verbosity": "options.verbosity",
    r"text": "options.json_schema",
    r"model": "model",
    r"previous_response_id": "previous_job_id",
    r"input\[\d+\]\.content\[[1-9]\d*\]": "files",  # the first part of our message is the prompt
    r"input(?!\.)": "prompt",
    **{name: f"options.{name}" for name in OPTIONS},
}
#: Arguments that a preset of ours may have filled in, with the names under which `ASKED` lists them.
_UNASKED = {
    "effort": "effort",
    "options.reasoning_summary": "reasoning_summary",
    "options.verbosity": "verbosity",
    "options.metadata": "metadata",
}
_ITEM = re.compile(r"(tools|include)\[(\d{1,3})\]")
#: The parts of a body that `web_search` adds.
_SEARCH: JSON = {"type": "web_search"}
_SEARCHING = (_SEARCH, INCLUDED["web_search"])
_EMPTY_PRESET = Preset(description="", prompt="")
_NO_PRESETS: Mapping[str, Preset] = MappingProxyType({})
_NO_OPTIONS: JSON = MappingProxyType({})
#: The parameters that each way of sending leaves out.
_DROPPED: Mapping[Mode, Collection[str]] = {
    "background_stream": (),
    "background": ("stream", "stream_options"),
    # An endpoint without background mode stores nothing either, and some refuse to be asked.
    "foreground": ("background", "store", "stream_options"),
}


def build_body(
    prompt: str,
    *,
    job_id: str,
    preset: str | None = None,
    presets: Mapping[str, Preset] = _NO_PRESETS,
    model: str | None = None,
    default_model: str | None = None,
    effort: str | None = None,
    web_search: bool | None = None,
    options: StartOptions | JSON = _NO_OPTIONS,
    attachments: Sequence[JSON] = (),
    openai: bool = True,
) -> JSON:
    """Return the body for a prompt and its options.

    `store` is always set: without it, some projects delete a background response after ten minutes.
    `metadata.job_id` lets a person find the response in the provider's dashboard when its id was lost.

    Args:
        prompt: The task.
        job_id: The job's id.
        preset: Fills in missing arguments.
        presets: All presets by name.
        model: The caller's choice, before the preset's, `default_model` and the one in data/.
        default_model: The user's choice.
        effort: A value of EFFORTS.
        web_search: None leaves it to the preset.
        options: Parsed, with the preset's, or as the caller gave them. A null removes an option of the preset.
        attachments: Content parts (`input_text`, `input_image`, `input_file`) that come beside the prompt.
        openai: True if the endpoint is OpenAI's, so that data/models.toml describes its models.

    Raises:
        RequestError: Something cannot be asked for. The sentence names what can.
    """
    if not prompt.strip():
        raise RequestError("{name} is empty.", "empty_prompt", name=Argument("prompt"))
    chosen = _find_preset(preset, presets)
    parsed = options if isinstance(options, StartOptions) else StartOptions.parse(_merge_options(chosen, options))
    body: dict[str, Any] = {
        "model": model or chosen.model or default_model or load_models()["default"],
        "input": _input_parts(prompt, attachments),
        "background": True,
        "stream": True,
        "store": True,
        "stream_options": {"include_obfuscation": False},
        "metadata": {"job_id": job_id},
    }
    _add_effort(body, chosen.effort if effort is None else effort)
    parsed.write_to(body)
    _add_tools(body, is_searching=bool(chosen.web_search if web_search is None else web_search))
    if openai:
        _check_models(body)
    return _sendable_copy(body)


def merge_preset_options(preset: str | None, options: JSON, presets: Mapping[str, Preset]) -> JSON:
    """Return the options of a start, still unparsed: the caller's over the preset's."""
    return _merge_options(_find_preset(preset, presets), options)


def select_given_options(preset: str | None, options: JSON, presets: Mapping[str, Preset]) -> JSON:
    """Return the caller's options under our names; a null that removes nothing of the preset is not given."""
    chosen = presets.get(preset or "", _EMPTY_PRESET)
    ignorable = OPTIONS.keys() - chosen.options.keys()
    return {
        name: value
        for name, value in normalize_schema_option(options).items()
        if value is not None or name not in ignorable
    }


def list_requested_names(order: StartRequest, presets: Mapping[str, Preset]) -> list[str]:
    """Return the parameters that the caller or the user's own preset set, without those of the built-in presets."""
    name = order.preset or ""
    chosen = presets.get(name, _EMPTY_PRESET)
    ours = load_our_presets().get(name, _EMPTY_PRESET)
    own = {option: value for option, value in chosen.options.items() if ours.options.get(option) != value}
    has_own_effort = chosen.effort != ours.effort
    return list_asked_names({**own, **order.options}, effort=order.effort is not None or has_own_effort)


def shape_for_mode(body: JSON, mode: Mode) -> JSON:
    """Return the body as an endpoint accepts it: in the background with a stream, without one, or held open."""
    return drop_fields(body, ASKED, *_DROPPED[mode])


def add_uploaded_files(body: JSON, file_ids: Sequence[str]) -> JSON:
    """Return the body with files that its code interpreter can open."""
    if not file_ids:
        return body
    return {**body, "tools": [_add_files(tool, file_ids) for tool in body.get("tools", [])]}


def hash_of(body: JSON) -> str:
    """Return the digest of the requested work, which is the same for every job that asks for it."""
    sent = {**drop_fields(body, ASKED), "metadata": drop_fields(body["metadata"], "job_id")}
    # Escaped letters stay: the digest of a request must not change from one version to the next.
    canonical = json.dumps(sent, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def title_of(prompt: str) -> str:
    """Return the first line of a prompt, short enough for a list."""
    first_line = next(iter(prompt.strip().splitlines()), "")
    return truncate(first_line.rstrip(), TITLE_CHARS)


def describe_refusal(error_code: str, param: str, message: str, body: JSON) -> str:
    """Return upstream's refusal, with the argument of ours that has to change if it names one.

    The sentence is stored for every reader, so it has the bare name of an option.
    """
    if (limit := find_refused_budget_limit(param, message, body)) is not None:
        return (
            f"The provider does not accept {limit}, without which the daily budget has no bound, "
            f"unless AGENT_JOBS_BUDGET_MODE=spent. The provider says: {message}"
        )
    argument = _find_argument(param, body)
    if _is_filled_in(argument, body):
        return message
    if error_code == "model_not_found" or argument == "model":
        return _describe_model_refusal(str(body.get("model")), message)
    if argument:
        return f"Change {argument.removeprefix('options.')}: {message}"
    return message


def _describe_model_refusal(model: str, message: str) -> str:
    """Return the refusal of a model, with what is known of it or of one that was probably meant."""
    problem = f"Change model: {message}"
    if re.search(r"\bmodel\b", message):
        problem = message  # it names the argument itself
    return f"{problem} {describe_retirement(model) or suggest_model(model)}".rstrip()


def _find_preset(name: str | None, presets: Mapping[str, Preset]) -> Preset:
    if name is None:
        return _EMPTY_PRESET
    return presets[Choice(presets).check("preset", name)]


def _merge_options(preset: Preset, options: JSON) -> JSON:
    """Return the caller's options over the preset's, without those that a null removes."""
    merged = {**preset.options, **normalize_schema_option(options)}
    return {name: value for name, value in merged.items() if value is not None or name not in preset.options}


def _input_parts(prompt: str, attachments: Sequence[JSON]) -> str | list[JSON]:
    if not attachments:
        return prompt
    return [{"role": "user", "content": [{"type": "input_text", "text": prompt}, *attachments]}]


def _add_effort(body: dict[str, Any], effort: str | None) -> None:
    if effort is not None:
        body["reasoning"] = {"effort": Choice(EFFORTS).check("effort", effort)}


def _add_tools(body: dict[str, Any], *, is_searching: bool) -> None:
    """Add a web search, unless the caller has one, and ask for what each tool found."""
    if is_searching and not _has_tool(body, "web_search"):
        body["tools"] = [_SEARCH, *body.get("tools", [])]
    found = {what for kind, what in INCLUDED.items() if _has_tool(body, kind)}
    asked = found.union(body.get("include", []))
    if asked:
        body["include"] = [what for what in INCLUDES if what in asked]


def _has_tool(body: JSON, kind: str) -> bool:
    """Return True if a body has a tool whose type begins so: its versions end in a date."""
    return any(tool["type"].startswith(kind) for tool in body.get("tools", []))


def _add_files(tool: JSON, file_ids: Sequence[str]) -> JSON:
    """Return a code interpreter whose container has these files too; any other tool unchanged."""
    container = mapping_of(tool.get("container"))
    if tool["type"] != "code_interpreter" or not container:
        return tool
    all_ids = dict.fromkeys([*container.get("file_ids", []), *file_ids])
    return {**tool, "container": {**container, "file_ids": [*all_ids]}}


def _check_models(body: JSON) -> None:
    """Refuse what OpenAI is known to refuse of the models in a body."""
    effort = mapping_of(body.get("reasoning")).get("effort")
    check_model(body["model"], effort, [name for name in ("temperature", "top_p") if name in body])
    for tool in body.get("tools", []):
        if tool["type"] == "image_generation" and "model" in tool:
            check_model(tool["model"])


def _sendable_copy(body: JSON) -> JSON:
    """Return a copy without half surrogate pairs, which cannot be sent.

    Raises:
        RequestError: The body holds something that JSON cannot.
    """
    try:
        return json.loads(encode_text(json.dumps(body, ensure_ascii=False, allow_nan=False)))
    except (TypeError, ValueError, RecursionError):
        raise no_json_error() from None


def _is_filled_in(argument: str, body: JSON) -> bool:
    """Return True if a preset of ours filled in an argument, so that the caller cannot change it."""
    if ASKED not in body or argument not in _UNASKED:
        return False
    return not is_from_caller(body, _UNASKED[argument])


def _find_argument(param: str, body: JSON) -> str:
    """Return the caller's name for the parameter that upstream names, such as `tools[0].filters`; empty for others."""
    if _is_of_web_search(param, body):
        return "web_search"
    named = (ours for theirs, ours in _ARGUMENTS.items() if re.match(rf"{theirs}(?:[.\[]|$)", param))
    return next(named, "")


def _is_of_web_search(param: str, body: JSON) -> bool:
    """Return True if the parameter is an item that `web_search` added."""
    item = _ITEM.match(param)
    if item is None:
        return False
    items = cast("list[Any]", body.get(item[1], []))
    number = int(item[2])
    return number < len(items) and items[number] in _SEARCHING
