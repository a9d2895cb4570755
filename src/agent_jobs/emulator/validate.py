"""Refuses invalid create requests, in OpenAI's words."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn, cast

from .errors import ApiError
from .structured import check_format, check_schema

__all__ = ["EFFORTS", "check_create", "check_mode", "check_settings", "read_object"]

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
    "function": "name",
    "custom": "name",
    "code_interpreter": "container",
    "file_search": "vector_store_ids",
    "mcp": "server_label",
}
_SERVERS = ("server_url", "connector_id", "tunnel_id")
_INCLUDES = (
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
    "reasoning.encrypted_content", "message.output_text.logprobs",
)  # fmt: skip

_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
}
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
    _check_types(body)
    _check_ranges(body)
    _check_choices(body)
    _check_lengths(body)
    _check_metadata(body.get("metadata") or {})
    _check_includes(body.get("include") or [])
    _check_tools(body.get("tools") or [])
    _check_input(body)
    _check_format(body)
    _check_combinations(body)
    if strict_store and body.get("background") and body.get("store") is False:
        _refuse_parameter("background=true requires store=true", "store", "invalid_value")


def _check_combinations(body: Json) -> None:
    if body.get("stream_options") is not None and not body.get("stream"):
        _refuse_parameter("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    if body.get("previous_response_id") and body.get("conversation"):
        _refuse_parameter(
            "Mutually exclusive parameters. Ensure you are only providing one of: 'previous_response_id' or"
            " 'conversation'.",
            "previous_response_id",
            "mutually_exclusive_parameters",
        )


def check_mode(body: Json, *, no_background: bool, no_background_stream: bool) -> None:
    """Raise the error of servers without background runs, or without streams of them."""
    if no_background and body.get("background"):
        _refuse_parameter("Unsupported parameter: 'background'.", "background", "unsupported_parameter")
    if no_background_stream and body.get("background") and body.get("stream"):
        _refuse_parameter("Streaming is not supported together with 'background'.", "stream", "unsupported_parameter")


def check_settings(body: Json, *, efforts: Collection[str], sampling: bool) -> None:
    """Raise if the model does not accept a parameter of the body."""
    model = body["model"]
    effort = read_object(body, "reasoning").get("effort")
    if effort is not None and effort not in efforts:
        _refuse_parameter(
            f"Unsupported value: '{effort}' is not supported with the '{model}' model."
            f" Supported values are: {_quote_values(efforts)}.",
            "reasoning.effort",
            "unsupported_value",
        )
    for name in ("temperature", "top_p", "top_logprobs"):
        if body.get(name) is not None and not sampling:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            _refuse_parameter(message, name, "unsupported_parameter")


def read_object(body: Json, name: str) -> Json:
    """Return an object inside the body; an empty one if it is null or missing."""
    return cast("Json", body.get(name) or {})


def _check_types(body: Json) -> None:
    for name, value in body.items():
        if name not in _PARAMETERS:
            _refuse_parameter(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        kinds = _PARAMETERS[name]
        if value is not None and not any(_is_kind(value, kind) for kind in kinds):
            wanted = " or ".join(_add_article(kind) for kind in kinds)
            _refuse_parameter(
                f"Invalid type for '{name}': expected {wanted}, but got {_add_article(_name_kind(value))} instead.",
                name,
                "invalid_type",
            )
    if body.get("model") is None:
        _refuse_parameter("Missing required parameter: 'model'.", "model", "missing_required_parameter")


def _check_ranges(body: Json) -> None:
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is None:
            continue
        if value < low:
            _refuse_range(
                name, f"below minimum value. Expected a value >= {low:g}, but got {value} instead.", "below_min"
            )
        if value > high:
            _refuse_range(
                name, f"above maximum value. Expected a value <= {high:g}, but got {value} instead.", "above_max"
            )


def _refuse_range(name: str, message: str, code: str) -> NoReturn:
    kind = _PARAMETERS[name][0]
    _refuse_parameter(f"Invalid '{name}': {kind} {message}", name, f"{kind}_{code}_value")


def _check_choices(body: Json) -> None:
    for path, choices in _CHOICES.items():
        value = _find_value(body, path)
        if value is not None and value not in choices:
            message = f"Invalid value: '{value}'. Supported values are: {_quote_values(choices)}."
            _refuse_parameter(message, ".".join(path), "invalid_value")


def _check_lengths(body: Json) -> None:
    for name, limit in _LENGTHS.items():
        if len(body.get(name) or "") > limit:
            _refuse_length(name, limit, body[name])


def _check_metadata(metadata: Json) -> None:
    if len(metadata) > 16:
        _refuse_parameter(
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object"
            f" with {len(metadata)} properties instead.",
            "metadata",
            "object_above_max_properties",
        )
    for key, value in metadata.items():
        if len(key) > 64:
            _refuse_length("metadata", 64, key)
        if not isinstance(value, str):
            kind = _add_article(_name_kind(value))
            message = f"Invalid type for 'metadata.{key}': expected a string, but got {kind} instead."
            _refuse_parameter(message, f"metadata.{key}", "invalid_type")
        if len(value) > 512:
            _refuse_length(f"metadata.{key}", 512, value)


def _check_tools(tools: Sequence[Any]) -> None:
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        _check_object(where, tool)
        kind = tool.get("type")
        if kind is None:
            _refuse_parameter(
                f"Missing required parameter: '{where}.type'.", f"{where}.type", "missing_required_parameter"
            )
        if kind not in _TOOLS:
            message = f"Invalid value: '{kind}'. Supported values are: {_quote_values(_TOOLS)}."
            _refuse_parameter(message, f"{where}.type", "invalid_value")
        _check_tool(where, tool)


def _check_tool(where: str, tool: Json) -> None:
    required = _REQUIRED.get(tool["type"])
    if required and not tool.get(required):
        _refuse_parameter(
            f"Missing required parameter: '{where}.{required}'.", f"{where}.{required}", "missing_required_parameter"
        )
    if tool["type"] == "mcp" and not any(tool.get(name) for name in _SERVERS):
        one_of = ", ".join(f"'{name}'" for name in _SERVERS)
        _refuse_parameter(
            f"Missing required parameter: one of {one_of} must be provided.", where, "missing_required_parameter"
        )
    if tool["type"] == "function":
        _check_function_tool(where, tool)


def _check_function_tool(where: str, tool: Json) -> None:
    strict, parameters = bool(tool.get("strict")), tool.get("parameters")
    if not strict and not parameters:
        return
    what = f"function '{tool['name']}'"
    check_schema(parameters, what, f"{where}.parameters", "invalid_function_parameters", strict=strict)


def _check_includes(include: Sequence[Any]) -> None:
    for index, value in enumerate(include):
        if value not in _INCLUDES:
            message = f"Invalid value: '{value}'. Supported values are: {_quote_values(_INCLUDES)}."
            _refuse_parameter(message, f"include[{index}]", "invalid_value")


def _check_format(body: Json) -> None:
    given = read_object(body, "text").get("format")
    if given is not None:
        _check_object("text.format", given)
        check_format(body)


def _check_input(body: Json) -> None:
    if all(body.get(name) is None for name in ("input", "previous_response_id", "prompt", "conversation")):
        _refuse_parameter(
            "One of 'input' or 'previous_response_id' or 'prompt' or 'conversation' must be provided.",
            "input",
            "missing_required_parameter",
        )
    given: Any = body.get("input")
    if isinstance(given, str):
        return
    for index, item in enumerate(given or ()):
        _check_object(f"input[{index}]", item)


def _check_object(where: str, value: Any) -> None:
    if not isinstance(value, dict):
        message = f"Invalid type for '{where}': expected an object, but got {_add_article(_name_kind(value))} instead."
        _refuse_parameter(message, where, "invalid_type")


def _refuse_parameter(message: str, param: str, code: str | None = None) -> NoReturn:
    raise ApiError(400, message, param=param, code=code)


def _refuse_length(name: str, limit: int, value: str) -> NoReturn:
    _refuse_parameter(
        f"Invalid '{name}': string too long. Expected a string with maximum length {limit}, but got a string with"
        f" length {len(value)} instead.",
        name,
        "string_above_max_length",
    )


def _find_value(body: Json, path: tuple[str, ...]) -> Any:
    for name in path[:-1]:
        body = read_object(body, name)
    return body.get(path[-1])


def _is_kind(value: object, kind: str) -> bool:
    # A bool is an int in Python, but not in JSON.
    return isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _name_kind(value: object) -> str:
    return next((kind for kind in _KINDS if _is_kind(value, kind)), "null")


def _add_article(kind: str) -> str:
    if kind[0] in "aeiou":
        return f"an {kind}"
    return f"a {kind}"


def _quote_values(values: Collection[str]) -> str:
    quoted = [f"'{value}'" for value in values]
    if len(quoted) == 1:
        return quoted[0]
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"
