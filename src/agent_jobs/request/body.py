"""What the caller asked for, as the body of POST /responses. Pure: the one door to options, presets and models."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from agent_jobs.errors import RequestError
from agent_jobs.jobs.job import Mode
from agent_jobs.jobs.response import JSON
from agent_jobs.request.added_parameters import (
    ASKED,
    asked_names,
    budget_limit_of,
    is_asked,
    lenient,
    refused_of,
    without,
)
from agent_jobs.request.arguments import read_arguments
from agent_jobs.request.hosted_tools import INCLUDED, Secret, resolved
from agent_jobs.request.json_schema import mismatch
from agent_jobs.request.models import (
    check_model,
    find_listed,
    listed_models,
    models,
    near_models,
    obituary,
    suggest_model,
)
from agent_jobs.request.options import (
    INCLUDES,
    NAMES,
    allow_duplicate_of,
    apply_options,
    conversation_of,
    dry_run_of,
    key_of,
    max_cost_of,
    timeout_of,
    toolbox_of,
    with_one_schema,
)
from agent_jobs.request.presets import EFFORTS, Preset, load_presets, our_presets
from agent_jobs.request.start_request import StartRequest
from agent_jobs.request.validators import one_of

__all__ = [
    "ASKED",
    "EFFORTS",
    "Preset",
    "Secret",
    "StartRequest",
    "allow_duplicate_of",
    "asked_by",
    "build",
    "conversation_of",
    "dry_run_of",
    "find_listed",
    "given_options",
    "hash_of",
    "key_of",
    "lenient",
    "listed_models",
    "load_presets",
    "max_cost_of",
    "mismatch",
    "models",
    "near_models",
    "one_of",
    "options_with",
    "our_presets",
    "read_arguments",
    "refused_of",
    "resolved",
    "sent_as",
    "sentence_for",
    "suggest_model",
    "timeout_of",
    "title_of",
    "toolbox_of",
    "with_files",
    "without",
]

TITLE_CHARS = 80
#: The caller's names for upstream's parameters where they differ, the longest first.
_ARGUMENTS = {
    "reasoning.effort": "effort",
    "reasoning.summary": "options.reasoning_summary",
    "reasoning.mode": "options.reasoning_mode",
    "reasoning": "effort",
    "text.verbosity": "options.verbosity",
    "text": "options.json_schema",
    "model": "model",
    "previous_response_id": "previous_job_id",
}
#: Arguments that a preset of ours may have filled in, and how the request tells it.
_UNASKED = {
    "effort": "effort",
    "options.reasoning_summary": "reasoning_summary",
    "options.verbosity": "verbosity",
    "options.metadata": "metadata",
}
#: The first part of our message is the prompt, the others are what was attached to it.
_ATTACHED = re.compile(r"input\[\d+\]\.content\[[1-9]")
_ITEM = re.compile(r"(tools|include)\[(\d{1,3})\]")
#: What web_search puts into the body.
_SEARCH: JSON = {"type": "web_search"}
_SEARCHING = ([_SEARCH], [INCLUDED["web_search"]])


def build(
    prompt: str,
    *,
    job_id: str,
    preset: str | None = None,
    presets: Mapping[str, Preset] | None = None,
    model: str | None = None,
    default_model: str | None = None,
    effort: str | None = None,
    web_search: bool | None = None,
    options: JSON | None = None,
    attachments: Sequence[JSON] = (),
    openai: bool = True,
) -> JSON:
    """The body for a prompt and its options.

    `store` is always said: where it is left out, some projects forget a background response after ten minutes.
    `metadata.job_id` is what a person finds in the provider's dashboard when an id got lost.

    Args:
        prompt: The task.
        job_id: Ours.
        preset: What stands in for arguments that are left out.
        presets: Those there are; None means ours.
        model: The caller's choice, before the preset's, `default_model` and the one in data/.
        default_model: The user's choice.
        effort: A value of EFFORTS.
        web_search: None leaves it to the preset.
        options: By the allow-list in `options`. A null takes an option of the preset away.
        attachments: Content parts (`input_text`, `input_image`, `input_file`) that come beside the prompt.
        openai: Whether the endpoint is OpenAI's, so that what is known of its models holds.

    Raises:
        RequestError: Something cannot be asked for; the sentence names what can.
    """
    if not prompt.strip():
        raise RequestError("prompt is empty: say what the job is to do.")
    chosen = _preset(preset, presets)
    effort = chosen.effort if effort is None else effort
    body: dict[str, Any] = {
        "model": model or chosen.model or default_model or models()["default"],
        "input": _input(prompt, attachments),
        "background": True,
        "stream": True,
        "store": True,
        "stream_options": {"include_obfuscation": False},
        "metadata": {"job_id": job_id},
    }
    if effort is not None:
        body["reasoning"] = {"effort": one_of("effort", effort, EFFORTS)}
    try:
        apply_options(body, _merged(chosen, options))
        _add_tools(body, search=bool(chosen.web_search if web_search is None else web_search))
        if openai:
            _check_models(body)
        # Half a surrogate pair cannot be sent.
        return json.loads(json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
    except (TypeError, ValueError, RecursionError):
        raise RequestError("options hold something that JSON cannot: use texts, numbers, lists and objects.") from None


def options_with(preset: str | None, options: JSON | None, presets: Mapping[str, Preset] | None = None) -> JSON:
    """The options that hold for a start: the caller's over the preset's. For `timeout_of` and the like."""
    return _merged(_preset(preset, presets), options)


def given_options(preset: str | None, options: JSON, presets: Mapping[str, Preset]) -> JSON:
    """Return the caller's options under our names; a null that takes nothing of the preset away is not given."""
    chosen = presets.get(preset or "")
    idle = {*NAMES} - {*(chosen.options if chosen else ())}
    return {name: value for name, value in with_one_schema(options).items() if value is not None or name not in idle}


def asked_by(order: StartRequest, presets: Mapping[str, Preset]) -> list[str]:
    """Return what the caller, or the user's own preset, asked for; what our presets hold is not among it."""
    chosen, ours = presets.get(order.preset or ""), our_presets().get(order.preset or "")
    options = dict(order.options)
    effort = order.effort is not None
    if chosen is not None:
        known: JSON = ours.options if ours is not None else dict[str, Any]()
        own = {name: value for name, value in chosen.options.items() if known.get(name) != value}
        options = {**own, **options}
        effort = effort or (chosen.effort is not None and (ours is None or ours.effort != chosen.effort))
    return asked_names(options, effort=effort)


def sent_as(body: JSON, mode: Mode) -> JSON:
    """The body as an endpoint takes it: in the background with a stream, without one, or held open."""
    dropped = {
        "background_stream": (),
        "background": ("stream", "stream_options"),
        # Who runs nothing in the background stores nothing either, and some refuse to be asked.
        "foreground": ("background", "store", "stream_options"),
    }[mode]
    return {name: value for name, value in body.items() if name not in (ASKED, *dropped)}


def with_files(body: JSON, file_ids: Sequence[str]) -> JSON:
    """The body with files that its code interpreter can open."""
    if not file_ids:
        return body
    return {**body, "tools": [_with_files(tool, file_ids) for tool in body.get("tools", [])]}


def hash_of(body: JSON) -> str:
    """What the same work hashes to, whatever job it is asked for in."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "job_id"}
    sent = {name: value for name, value in body.items() if name != ASKED}
    canonical = json.dumps({**sent, "metadata": metadata}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def title_of(prompt: str) -> str:
    """The first line of a prompt, short enough for a list."""
    line = next((line.strip() for line in prompt.splitlines() if line.strip()), "")
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1] + "…"


def sentence_for(error_code: str, param: str, message: str, body: JSON) -> str:
    """What upstream refused, with the argument of ours that has to change; its own words where it names none."""
    if (limit := budget_limit_of(param, message, body)) is not None:
        return (
            f"Upstream does not take {limit}, without which the daily budget has no bound: ask the user to set "
            f"AGENT_JOBS_BUDGET_MODE=spent. Upstream says: {message}"
        )
    argument = _argument(param, body)
    if ASKED in body and argument in _UNASKED and not is_asked(body, _UNASKED[argument]):
        return message
    if error_code == "model_not_found" or argument == "model":
        model = str(body.get("model"))
        return " ".join(filter(None, [f"Change model: {message}", obituary(model) or suggest_model(model)]))
    return f"Change {argument}: {message}" if argument else message


def _preset(name: str | None, presets: Mapping[str, Preset] | None) -> Preset:
    if name is None:
        return Preset(description="", prompt="")
    known = our_presets() if presets is None else presets
    return known[one_of("preset", name, known)]


def _with_files(tool: JSON, file_ids: Sequence[str]) -> JSON:
    container = tool.get("container")
    if tool["type"] != "code_interpreter" or not isinstance(container, dict):
        return tool
    before = [each for each in cast(JSON, container).get("file_ids", []) if each not in file_ids]
    return {**tool, "container": {**container, "file_ids": [*before, *file_ids]}}


def _merged(preset: Preset, options: JSON | None) -> JSON:
    merged = {**preset.options, **with_one_schema(options or {})}
    return {name: value for name, value in merged.items() if value is not None or name not in preset.options}


def _input(prompt: str, attachments: Sequence[JSON]) -> str | list[JSON]:
    if not attachments:
        return prompt
    return [{"role": "user", "content": [{"type": "input_text", "text": prompt}, *attachments]}]


def _add_tools(body: dict[str, Any], *, search: bool) -> None:
    """Let it search, unless a search of the caller's own is there, and have each tool say what it found."""
    tools = body.get("tools", [])
    if search and not any(tool["type"].startswith("web_search") for tool in tools):
        tools = body["tools"] = [_SEARCH, *tools]
    kinds = [tool["type"] for tool in tools]
    asked = {
        *body.get("include", []),
        *(what for kind, what in INCLUDED.items() if any(k.startswith(kind) for k in kinds)),
    }
    if asked:
        body["include"] = [what for what in INCLUDES if what in asked]


def _check_models(body: JSON) -> None:
    effort = cast(JSON, body.get("reasoning") or {}).get("effort")
    check_model(body["model"], effort, [name for name in ("temperature", "top_p") if name in body])
    for tool in body.get("tools", []):
        if tool["type"] == "image_generation" and "model" in tool:
            check_model(tool["model"])


def _argument(param: str, body: JSON) -> str | None:
    """The caller's name for the parameter that upstream names, such as `tools[0].filters`."""
    for theirs, ours in _ARGUMENTS.items():
        if param == theirs or param.startswith((f"{theirs}.", f"{theirs}[")):
            return ours
    if param == "input" or param.startswith("input["):
        return "files" if _ATTACHED.match(param) else "prompt"
    item = _ITEM.match(param)
    if item and cast("list[Any]", body.get(item[1]) or [])[int(item[2]) :][:1] in _SEARCHING:
        return "web_search"
    top = re.split(r"[.\[]", param)[0]
    return f"options.{top}" if top in NAMES else None
