"""Refuse invalid create requests, in OpenAI's words."""

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from typing import Any

from .parameters import (
    check_choice,
    check_kind,
    check_length,
    check_present,
    check_range,
    quote_values,
    read_list,
    read_object,
    refuse_missing,
    refuse_parameter,
)
from .structured import check_format, check_schema

__all__ = ["EFFORTS", "check_create", "check_mode", "check_settings"]

Json = Mapping[str, Any]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_TIERS = ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
_SUMMARIES = ("auto", "concise", "detailed")
_TOOLS = (
    "function", "custom", "namespace", "tool_search", "programmatic_tool_calling", "web_search",
    "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11", "file_search",
    "code_interpreter", "mcp", "image_generation", "shell", "local_shell", "apply_patch", "computer",
    "computer_use_preview",
)  # fmt: skip
_REQUIRED = {
    "function": ("name",),
    "custom": ("name",),
    "code_interpreter": ("container",),
    "file_search": ("vector_store_ids",),
    "mcp": ("server_label",),
}
_SERVERS = ("server_url", "connector_id", "tunnel_id")
_INCLUDES = (
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
    "reasoning.encrypted_content", "message.output_text.logprobs",
)  # fmt: skip

_PARAMETERS: dict[str, tuple[str, ...]] = {
    "access_programs": ("object",),
    "background": ("boolean",),
    "context_management": ("array",),
    "conversation": ("string", "object"),
    "image": ("object",),
    "include": ("array",),
    "input": ("string", "array"),
    "instructions": ("string",),
    "max_output_tokens": ("integer",),
    "max_tool_calls": ("integer",),
    "metadata": ("object",),
    "model": ("string",),
    "moderation": ("object",),
    "parallel_tool_calls": ("boolean",),
    "previous_response_id": ("string",),
    "prompt": ("object",),
    "prompt_cache_key": ("string",),
    "prompt_cache_options": ("object",),
    "prompt_cache_retention": ("string",),
    "reasoning": ("object",),
    "safety_identifier": ("string",),
    "service_tier": ("string",),
    "store": ("boolean",),
    "stream": ("boolean",),
    "stream_options": ("object",),
    "temperature": ("number",),
    "text": ("object",),
    "tool_choice": ("string", "object"),
    "tools": ("array",),
    "top_logprobs": ("integer",),
    "top_p": ("number",),
    "truncation": ("string",),
    "user": ("string",),
}
_RANGES: dict[str, tuple[float, float]] = {
    "max_output_tokens": (16, float("inf")),
    "max_tool_calls": (1, float("inf")),
    "temperature": (0, 2),
    "top_logprobs": (0, 20),
    "top_p": (0, 1),
}
_CHOICES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("reasoning", "effort"): EFFORTS,
    ("reasoning", "summary"): _SUMMARIES,
    ("text", "verbosity"): ("low", "medium", "high"),
    ("service_tier",): _TIERS,
    ("truncation",): ("auto", "disabled"),
}
_LENGTHS = {"safety_identifier": 128, "prompt_cache_key": 64}


def check_create(body: Json, *, strict_store: bool = False) -> None:
    """Raise OpenAI's error if a create body is invalid."""
    _check_kinds(body)
    _check_ranges(body)
    _check_choices(body)
    _check_lengths(body)
    _check_metadata(read_object(body, "metadata"))
    _check_includes(read_list(body, "include"))
    _check_tools(read_list(body, "tools"))
    _check_input(body)
    _check_format(body)
    _check_combinations(body)
    if strict_store and body.get("background") and body.get("store") is False:
        refuse_parameter("background=true requires store=true", "store", "invalid_value")


def _check_combinations(body: Json) -> None:
    if body.get("stream_options") is not None and not body.get("stream"):
        refuse_parameter("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    if body.get("previous_response_id") and body.get("conversation"):
        refuse_parameter(
            "Mutually exclusive parameters. Ensure you are only providing one of: 'previous_response_id' or"
            " 'conversation'.",
            "previous_response_id",
            "mutually_exclusive_parameters",
        )


def check_mode(body: Json, *, no_background: bool, no_background_stream: bool) -> None:
    """Raise the error of servers without background runs, or without streams of them."""
    if not body.get("background"):
        return
    if no_background:
        refuse_parameter("Unsupported parameter: 'background'.", "background", "unsupported_parameter")
    if no_background_stream and body.get("stream"):
        refuse_parameter("Streaming is not supported together with 'background'.", "stream", "unsupported_parameter")


def check_settings(body: Json, *, efforts: Collection[str], sampling: bool) -> None:
    """Raise if the model does not accept a parameter of the body."""
    model = body["model"]
    effort = read_object(body, "reasoning").get("effort")
    if effort is not None and effort not in efforts:
        refuse_parameter(
            f"Unsupported value: '{effort}' is not supported with the '{model}' model."
            f" Supported values are: {quote_values(efforts)}.",
            "reasoning.effort",
            "unsupported_value",
        )
    for name in ("temperature", "top_p", "top_logprobs"):
        if body.get(name) is not None and not sampling:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            refuse_parameter(message, name, "unsupported_parameter")


def _check_kinds(body: Json) -> None:
    for name, value in body.items():
        if name not in _PARAMETERS:
            refuse_parameter(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        if value is not None:
            check_kind(name, value, *_PARAMETERS[name])
    if body.get("model") is None:
        refuse_missing("model")


def _check_ranges(body: Json) -> None:
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is not None:
            check_range(name, _PARAMETERS[name][0], value, low, high)


def _check_choices(body: Json) -> None:
    for path, choices in _CHOICES.items():
        value = _find_value(body, path)
        if value is not None:
            check_choice(".".join(path), value, choices)


def _check_lengths(body: Json) -> None:
    for name, limit in _LENGTHS.items():
        check_length(name, body.get(name) or "", limit)


def _check_metadata(metadata: Json) -> None:
    if len(metadata) > 16:
        refuse_parameter(
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object"
            f" with {len(metadata)} properties instead.",
            "metadata",
            "object_above_max_properties",
        )
    for key, value in metadata.items():
        check_length("metadata", key, 64)
        check_kind(f"metadata.{key}", value, "string")
        check_length(f"metadata.{key}", value, 512)


def _check_tools(tools: Sequence[Any]) -> None:
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        check_kind(where, tool, "object")
        kind = tool.get("type")
        if kind is None:
            refuse_missing(f"{where}.type")
        check_choice(f"{where}.type", kind, _TOOLS)
        check_present(where, tool, _REQUIRED.get(kind, ()))
        match kind:
            case "mcp":
                _check_mcp_tool(where, tool)
            case "function":
                _check_function_tool(where, tool)
            case _:
                pass


def _check_mcp_tool(where: str, tool: Json) -> None:
    if not any(tool.get(name) for name in _SERVERS):
        one_of = ", ".join(f"'{name}'" for name in _SERVERS)
        refuse_parameter(
            f"Missing required parameter: one of {one_of} must be provided.", where, "missing_required_parameter"
        )


def _check_function_tool(where: str, tool: Json) -> None:
    strict, parameters = bool(tool.get("strict")), tool.get("parameters")
    if not strict and not parameters:
        return
    what = f"function '{tool['name']}'"
    check_schema(parameters, what, f"{where}.parameters", "invalid_function_parameters", strict=strict)


def _check_includes(include: Sequence[Any]) -> None:
    for index, value in enumerate(include):
        check_choice(f"include[{index}]", value, _INCLUDES)


def _check_format(body: Json) -> None:
    given = read_object(body, "text").get("format")
    if given is not None:
        check_kind("text.format", given, "object")
        check_format(body)


def _check_input(body: Json) -> None:
    if all(body.get(name) is None for name in ("input", "previous_response_id", "prompt", "conversation")):
        refuse_parameter(
            "One of 'input' or 'previous_response_id' or 'prompt' or 'conversation' must be provided.",
            "input",
            "missing_required_parameter",
        )
    for index, item in enumerate(read_list(body, "input")):
        check_kind(f"input[{index}]", item, "object")


def _find_value(body: Json, path: tuple[str, ...]) -> Any:
    *outer, name = path
    return reduce(read_object, outer, body).get(name)
