"""Read texts that should be JSON-RPC messages: repair them where possible, else answer with an error."""

import json
import re
from contextlib import suppress
from typing import Any

from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    jsonrpc_message_adapter,
)

from agent_jobs.files.text_file import BOM
from agent_jobs.text import valid_unicode

MAX_DEPTH = 100  # the SDK reads about 200 levels; deeper levels of an answer are cut off
TOO_DEEP = '"[nested too deeply]"'
#: The value of a text that is not JSON.
_BROKEN = object()

#: A string in JSON, or a bracket. Brackets in strings do not count.
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
    parsed = _parse_json(line)
    if parsed is _BROKEN:
        return None, _build_error(_find_id(line), PARSE_ERROR, "This line is not JSON.")
    if (message := read_message(_write_json(parsed))) is not None:
        return message, None
    words = "This line is not a JSON-RPC message: send one request a line."
    return None, _build_error(_id_of_request(parsed), INVALID_REQUEST, words)


def repair_message(text: str, request_id: int | str | None = None) -> str | None:
    """Return a message of a tool server in a form that the SDK reads: repaired, or an error in the place of an answer.

    These are repaired: byte order marks, bad UTF-8 (decoded with "replace"), half surrogate pairs, control characters
    in strings, and nesting that is too deep. None means that the text answers nothing, such as a forgotten print.

    Args:
        text: The text that the server sent.
        request_id: The request that it must answer, if that is certain.
    """
    text = text.lstrip(f"{BOM} \t\r\n")
    message = _parse_message(text)
    if message is not _BROKEN and is_message(written := _write_json(message)):
        return written
    if message is _BROKEN:
        number, words = find_id_of_broken_answer(text), "its answer is not JSON"
    else:
        number, words = _id_of_answer(message), "its answer is not a JSON-RPC message"
    if request_id is not None and not _is_notification(text, message):
        number = request_id
    if number is None:
        return None
    return _build_error(number, INTERNAL_ERROR, words).model_dump_json(by_alias=True, exclude_unset=True)


def _parse_message(text: str) -> object:
    if not text.startswith(("{", "[")):
        return _BROKEN
    return _unwrap_batch(_parse_json(_cut_depths(text)))


def _build_error(number: int | str | None, code: int, words: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=code, message=words))


def _parse_json(text: str) -> object:
    with suppress(ValueError, RecursionError):
        return json.loads(text, strict=False)
    return _BROKEN


def _unwrap_batch(message: Any) -> object:
    """Return the message in a batch of one."""
    match message:
        case [only]:
            return only
        case _:
            return message


def _write_json(message: object) -> str:
    return valid_unicode(json.dumps(message, ensure_ascii=False))


def _cut_depths(text: str) -> str:
    """Return a JSON text with a note in the place of values that are nested too deeply."""
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
    if not kept:
        return text
    if depth <= MAX_DEPTH:
        kept.append(text[start:])
    return "".join(kept)


def _id_of_request(message: Any) -> int | str | None:
    """Return the id of a request; None for a message without one, and for an answer with an id of this process."""
    match message:
        case {"result": _} | {"error": _} | {"id": bool()}:
            return None
        case {"id": int() | str() as number}:
            return number
        case _:
            return None


def _id_of_answer(message: Any) -> int | None:
    """Return the id of an answer to a request of this process, whose ids are numbers."""
    match message:
        case {"id": bool()}:
            return None
        case {"jsonrpc": _, "id": int() as number, "result": _} | {"jsonrpc": _, "id": int() as number, "error": _}:
            return number
        case _:
            return None


def find_id_of_broken_answer(text: str) -> int | None:
    """Return the id of an answer to us in a text that is not JSON."""
    if '"jsonrpc"' not in text or ('"result"' not in text and '"error"' not in text):
        return None  # a log line
    number = _find_id(text)
    if not isinstance(number, int):
        return None
    return number


def _is_notification(text: str, message: object) -> bool:
    if message is _BROKEN:
        return '"method"' in text
    return isinstance(message, dict) and "method" in message


def _find_id(line: str) -> int | str | None:
    """Return the id of a message in a line that is not JSON: the first at its top level, not one of an argument."""
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
