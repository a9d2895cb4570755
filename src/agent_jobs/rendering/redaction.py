"""Hide base64, encrypted content, secrets and prompts in requests and responses."""

import re
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any, cast

from agent_jobs.jobs.response import JSON, string_of
from agent_jobs.rendering.paging import count_json_bytes
from agent_jobs.rendering.short_lines import (
    LINE_CHARS,
    NAME_CHARS,
    TITLE_CHARS,
    describe_hidden,
    finite_or_none,
    hide_base64,
    shorten_to_line,
)
from agent_jobs.text import valid_unicode
from agent_jobs.web_address import split_address

REQUEST_BYTES = 4_000
MAX_DEPTH = 40  # no real JSON is deeper, and deeper JSON could not be serialized again
TOO_DEEP = "[nested too deep]"
MASK = "***"

#: Fields that hold base64 or encrypted content.
_BLOB_FIELDS = frozenset({"encrypted_content", "partial_image_b64", "b64_json", "file_data"})
_IMAGE_BLOB_FIELDS = _BLOB_FIELDS | {"result"}
_SECRET_NAME = re.compile(
    r"headers?$|authorization|cookie|credential|secret|passw|api[_-]?key|^token$|(access|auth|bearer|refresh)[_-]?token",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\$\{\w+\}")
#: Fields whose texts are prompts.
_PROMPT_FIELDS = frozenset({"input", "instructions", "variables"})
#: Fields inside a prompt that are no prompts themselves.
_LABEL_FIELDS = frozenset({"type", "role", "status", "phase", "detail", "id", "call_id", "file_id", "filename", "name"})


class _Treatment(Enum):
    """The way in which a value of a request is shown."""

    PLAIN = auto()
    AS_SIZE = auto()  #: texts by their size: it is a prompt
    MASKED = auto()  #: only the `${NAME}` placeholders: it is a secret


def hide_blobs(response: JSON) -> dict[str, Any]:
    """Return the response with a note of its size, like `[5120 bytes not shown]`, for all base64 and encrypted content.

    Secrets of tools, which some servers echo, are masked as in `redact_request`.
    """
    return _hide_blobs_in(response, MAX_DEPTH)


def mask_tool_secrets(response: JSON) -> JSON:
    """Return the response with the secrets of its tools masked, which some servers echo; all else is unchanged."""
    tools = response.get("tools")
    if not tools:
        return response
    return {**response, "tools": _mask_secret_field("tools", tools, MAX_DEPTH)}


def redact_request(body: JSON) -> dict[str, Any]:
    """Return a request that a reader may see, in at most REQUEST_BYTES of JSON.

    A secret becomes its `${NAME}` placeholder or `***`, an address its host, a prompt or a file its size. Fields that
    are still too long become a note of their size.
    """
    fields = {name: value for name, value in body.items() if not name.startswith("_")}  # the others are our own notes
    redacted = _redact_value("", fields, MAX_DEPTH + 1)
    sizes = {name: count_json_bytes({name: value}) for name, value in redacted.items()}
    largest_first = sorted(sizes, key=lambda name: sizes[name], reverse=True)
    while sum(sizes.values()) > REQUEST_BYTES:
        if not largest_first:
            return {"fields": len(body)}
        name = largest_first.pop(0)
        redacted[name] = f"[{sizes[name]} bytes]"
        sizes[name] = count_json_bytes({name: redacted[name]})
    return redacted


def _hide_blobs_in(value: Any, depth: int) -> Any:
    match value:
        case {"type": "image_generation_call"}:
            return _rebuild_container(value, depth, partial(_hide_blob_field, _IMAGE_BLOB_FIELDS), valid_unicode)
        case dict() | list():
            return _rebuild_container(value, depth, partial(_hide_blob_field, _BLOB_FIELDS), valid_unicode)
        case _:
            return _hide_scalar_blob(value)


def _rebuild_container(
    value: Any, depth: int, visit: Callable[[str, Any, int], Any], write_name: Callable[[str], str] = str
) -> Any:
    """Return a list or an object with each value visited, unless it is deeper than any real JSON.

    Args:
        value: The list or object.
        depth: How many levels may still follow.
        visit: Returns the new value, given its name and depth; in a list the name is empty.
        write_name: Returns the new name of a field.
    """
    if not depth:
        return TOO_DEEP
    if isinstance(value, list):
        return [visit("", each, depth - 1) for each in cast("list[Any]", value)]
    return {write_name(name): visit(name, each, depth - 1) for name, each in value.items()}


def _hide_scalar_blob(value: Any) -> Any:
    match value:
        case str():
            return hide_base64(value)
        case float():
            return finite_or_none(value)
        case _:
            return value


def _hide_blob_field(blobs: frozenset[str], name: str, value: Any, depth: int) -> Any:
    if name in blobs and string_of(value):
        return describe_hidden(value)
    if _SECRET_NAME.search(name):
        return _redact_value(name, value, depth, _Treatment.MASKED)
    return _hide_blobs_in(value, depth)


def _mask_secret_field(name: str, value: Any, depth: int) -> Any:
    if _SECRET_NAME.search(name):
        return _redact_value(name, value, depth, _Treatment.MASKED)
    if isinstance(value, dict | list):
        return _rebuild_container(value, depth, _mask_secret_field)
    return value


def _redact_value(name: str, value: Any, depth: int, treatment: _Treatment = _Treatment.PLAIN) -> Any:
    """Return a value of a request without secrets, prompts and addresses, which its name gives away."""
    treatment = _choose_treatment(name, treatment)
    if isinstance(value, dict | list):
        return _rebuild_container(value, depth, partial(_redact_value, treatment=treatment), _shorten_field_name)
    return _REDACT_SCALAR[treatment](name, value)


def _shorten_field_name(name: str) -> str:
    return shorten_to_line(name, NAME_CHARS)


def _choose_treatment(name: str, inherited: _Treatment) -> _Treatment:
    """Return the treatment of a field, which has that of the value around it unless its name needs a stricter one."""
    if _SECRET_NAME.search(name):
        return _Treatment.MASKED
    if name in _PROMPT_FIELDS and inherited is _Treatment.PLAIN:
        return _Treatment.AS_SIZE
    return inherited


def _redact_plain(name: str, value: Any) -> Any:
    match value:
        case float():
            return finite_or_none(value)
        case str() if name.endswith("url"):
            return _redact_url(value)
        case str():
            return shorten_to_line(value, LINE_CHARS)
        case _:
            return value


def _redact_prompt(name: str, value: Any) -> Any:
    if isinstance(value, str) and name not in _LABEL_FIELDS:
        return f"[{len(value.encode('utf-8', 'replace'))} bytes]"
    return _redact_plain(name, value)


def _redact_secret(name: str, value: Any) -> Any:
    if isinstance(value, bool | None):
        return value
    return " ".join(_PLACEHOLDER.findall(string_of(value))) or MASK


_REDACT_SCALAR: dict[_Treatment, Callable[[str, Any], Any]] = {
    _Treatment.PLAIN: _redact_plain,
    _Treatment.AS_SIZE: _redact_prompt,
    _Treatment.MASKED: _redact_secret,
}


def _redact_url(url: str) -> str:
    """Return the scheme and host of an address: keys hide in the rest."""
    parts = split_address(url)
    if not parts.hostname:
        return MASK
    return shorten_to_line(f"{parts.scheme}://{parts.hostname}/…", TITLE_CHARS)
