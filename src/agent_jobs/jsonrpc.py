"""Texts that should be JSON-RPC messages: repaired where that is possible, else answered with what is wrong."""

import json
import re
from contextlib import suppress
from typing import Any, cast

from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    jsonrpc_message_adapter,
)

from agent_jobs.text_file import BOM

#: The SDK reads about 200 levels; what lies below this one in an answer is cut off.
MAX_DEPTH = 100
TOO_DEEP = '"[nested too deeply]"'
#: In the place of what a text says that is no JSON.
_BROKEN = object()

#: A text in JSON, or a bracket. Braces in texts count for nothing.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
#: The id in a line that cannot be parsed, after its name.
_ID = re.compile(r'\s*:\s*(\d{1,18}|"[\w-]{1,100}")(?=\s*[,}])')


def read_message(text: str | bytes) -> JSONRPCMessage | None:
    """Return the message in a text, or None if the SDK cannot read it as one."""
    with suppress(ValueError):
        return jsonrpc_message_adapter.validate_json(text, by_name=False)
    return None


def is_message(text: str | bytes) -> bool:
    """Return True if the SDK can read a text as a message."""
    return read_message(text) is not None


def read_request(line: str) -> tuple[JSONRPCMessage | None, JSONRPCError | None]:
    """Return the message in a line, without half surrogate pairs; or the error that answers a line without one."""
    if (message := read_message(line)) is not None:
        return message, None
    code, why = PARSE_ERROR, "This line is not JSON."
    parsed = _parse_json(line)
    if parsed is not _BROKEN:
        if (message := read_message(_write_json(parsed))) is not None:
            return message, None
        code, why = INVALID_REQUEST, "This line is no JSON-RPC message: send one request a line."
    number = _find_id(line) if parsed is _BROKEN else _id_of_request(parsed)
    return None, JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=code, message=why))


def repair_message(text: str, request_id: int | str | None = None) -> str | None:
    """Return a message of a tool server in a form that the SDK reads: repaired, or an error in the place of an answer.

    Repaired are byte order marks, bad UTF-8 (as decoded with "replace"), half surrogate pairs, control characters in
    texts, and nesting that is too deep. None stands for what answers nothing, such as a print that was forgotten.

    Args:
        text: What the server sent.
        request_id: The request that it must answer, where that is certain.
    """
    text = text.lstrip(f"{BOM} \t\r\n")
    message = _unwrap_batch(_parse_json(_cut_depths(text))) if text.startswith(("{", "[")) else _BROKEN
    if message is not _BROKEN and is_message(written := _write_json(message)):
        return written
    if message is _BROKEN:
        number, why = id_of_broken_answer(text), "its answer is not JSON"
    else:
        number, why = _id_of_answer(message), "its answer is no JSON-RPC message"
    if request_id is not None and not _is_notification(text, message):
        number = request_id
    if number is None:
        return None
    error = JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=INTERNAL_ERROR, message=why))
    return error.model_dump_json(by_alias=True, exclude_unset=True)


def _parse_json(text: str) -> object:
    with suppress(ValueError, RecursionError):
        return json.loads(text, strict=False)
    return _BROKEN


def _unwrap_batch(message: object) -> object:
    """Return the message in a batch of one."""
    if not isinstance(message, list):
        return message
    batch = cast("list[object]", message)
    return batch[0] if len(batch) == 1 else batch


def _write_json(message: object) -> str:
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "replace").decode()


def _cut_depths(text: str) -> str:
    """Return a JSON text with a note in the place of what is nested too deeply; what is no JSON stays that."""
    kept: list[str] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept += [text[start : token.start()], TOO_DEEP]
        elif token[0] in "]}":
            if depth == MAX_DEPTH + 1:
                start = token.end()
            depth -= 1
    return text if not kept else "".join([*kept, text[start:] if depth <= MAX_DEPTH else ""])


def _id_of_request(message: object) -> int | str | None:
    """Return the id of a request; None for an answer, whose id is one of ours, and for anything without an id."""
    if not isinstance(message, dict):
        return None
    fields = cast("dict[str, Any]", message)
    number = fields.get("id")
    return None if _is_answer(fields) or isinstance(number, bool) or not isinstance(number, int | str) else number


def _id_of_answer(message: object) -> int | None:
    """Return the id of an answer to us, whose ids are numbers."""
    fields = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
    number = fields.get("id")
    is_ours = "jsonrpc" in fields and _is_answer(fields) and isinstance(number, int) and not isinstance(number, bool)
    return cast(int, number) if is_ours else None


def id_of_broken_answer(text: str) -> int | None:
    """Return the id of an answer to us in a text that is no JSON."""
    if not ('"jsonrpc"' in text and ('"result"' in text or '"error"' in text)):
        return None  # somebody's log
    number = _find_id(text)
    return number if isinstance(number, int) else None


def _is_answer(fields: dict[str, Any]) -> bool:
    return "result" in fields or "error" in fields


def _is_notification(text: str, message: object) -> bool:
    return '"method"' in text if message is _BROKEN else isinstance(message, dict) and "method" in message


def _find_id(line: str) -> int | str | None:
    """Return the id of a message in a line that is no JSON: the first at its top level, not one of an argument."""
    braces = brackets = 0
    for token in _TOKEN.finditer(line):
        match token[0]:
            case "{":
                braces += 1
            case "}":
                braces -= 1
            case "[":
                brackets += 1
            case "]":
                brackets -= 1
            case '"id"' if braces == 1 and brackets == 0 and (found := _ID.match(line, token.end())):
                return json.loads(found[1])
            case _:
                pass
    return None
