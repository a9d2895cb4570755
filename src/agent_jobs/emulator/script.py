"""What a request asks the emulator to do: the directive, read into a Script, and the text it answers with. Pure."""

import json
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

from .structured import sample_text

__all__ = ["Script", "answer_text", "question", "read_request"]

Json = dict[str, Any]

_MARK = "[emulate "
_ENDS = ("completed", "failed", "incomplete", "refusal", "never")
_TIMES = ("duration_s", "queued_s")
_COUNTS = ("length", "reasoning", "searches", "images", "image_px", "mcp_calls")
_CALLS = ("function_calls", "mcp_approval", "mcp_calls")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_ANSWERS = (*_OUTPUTS, "mcp_approval_response")
_WEB_SEARCH = "web_search"
_DEFAULT_CALL: Json = {"server_label": "emulated", "name": "lookup", "arguments": "{}"}

_WORDS = (
    "agents", "answer", "background", "café", "change", "check", "claim", "clear", "client", "cost", "delta",
    "detail", "draft", "event", "evidence", "first", "follow", "growth", "handle", "idea", "index", "job", "keep",
    "label", "large", "later", "market", "measure", "naïve", "notes", "number", "often", "open", "order", "output",
    "plan", "poll", "quick", "range", "report", "result", "review", "run", "sample", "search", "second", "server",
    "signal", "simple", "small", "source", "state", "steady", "step", "stream", "summary", "table", "test", "time",
    "total", "trend", "turn", "update", "usage", "value", "wait", "week", "work", "東京", "≈", "—", "€", "über",
)  # fmt: skip


@dataclass(frozen=True)
class Script:
    """How a response runs and ends; times are in emulated seconds."""

    duration_s: float = 3.0
    queued_s: float = 0.2
    length: int = 600
    text: str | None = None
    reasoning: int = 1
    searches: int = 0
    function_calls: tuple[Json, ...] = ()
    mcp_approval: Json | None = None
    mcp_calls: int = 0
    container_files: tuple[Json, ...] = ()
    images: int = 0
    image_px: int = 8
    image_base64: str | None = None
    end: str = "completed"
    error_code: str = "server_error"
    error_message: str = "An error occurred while processing your request. You can retry your request."
    reason: str = "max_output_tokens"
    phase: bool = False
    chunk: int | None = None
    usage: Mapping[str, Any] | None = field(default_factory=dict[str, Any])
    faults: tuple[Json, ...] = ()
    turns: tuple[Json, ...] | None = None  #: those that follow; None where there is nothing of the kind


def read_request(body: Json, coming: Sequence[Json] | None = None) -> tuple[Script, Json]:
    """Give the script a create body asks for, and the body without the directive in its text.

    Args:
        body: The request.
        coming: The turns that were left after the response it goes on from, where that was one of several.
    """
    lasting = _from_metadata(body.get("metadata"))
    if _answers_tools(body):
        # The same metadata comes with every turn: a turn that brings the outputs must not ask for them again.
        lasting = {key: value for key, value in lasting.items() if key not in _CALLS}
    found: list[Json] = []

    def without(text: str) -> str:
        directive, rest = _split(text)
        found.append(directive)
        return rest

    clean = _map_user_text(body, without)
    directive = dict(lasting)
    for part in found:
        directive = directive | part
    answered = _answered(body)
    turns = coming if coming is not None and _answers_tools(body) else _left(directive.get("turns"), answered)
    if turns is None and answered:
        # The text is said again: what it asked for was answered since.
        directive = {key: value for key, value in directive.items() if key not in _CALLS}
    directive = _turn({key: value for key, value in directive.items() if key != "turns"}, turns)
    if "searches" not in directive and any(
        _is_web_search(tool) for tool in cast("list[Json]", body.get("tools") or [])
    ):
        directive["searches"] = 2
    return _script(directive), clean


def _left(turns: Any, answered: int) -> list[Json] | None:
    """Give the turns that an input with so many answers leaves to come; None where there are none."""
    if turns is None:
        return None
    each = list(cast("list[Json]", turns if isinstance(turns, list) else []))
    if not each or any(not isinstance(turn, dict) or "turns" in turn for turn in cast("list[object]", each)):
        raise ValueError("turns is a list of directives")
    while each and answered > 0:
        answered -= len(each[0].get("function_calls") or ()) or 1
        each = each[1:]
    return each


def _turn(common: Json, turns: Sequence[Json] | None) -> Json:
    """Give the directive of the turn that comes first, with those after it; after the last one nothing is called."""
    if turns is None:
        return common
    first = turns[0] if turns else {}
    return common | first | {"turns": tuple(common | turn for turn in turns[1:])}


def question(body: Json) -> str:
    """Give the last text of the user."""
    texts: list[str] = []

    def keep(text: str) -> str:
        texts.append(text)
        return text

    _map_user_text(body, keep)
    return " ".join(text for text in texts if text).strip()


def answer_text(script: Script, body: Json) -> str:
    """Give the text of the answer: the same for the same input, exactly as long as asked or as a format wants it."""
    if script.text is not None:
        return script.text
    structured = sample_text(body)
    if structured is not None:
        return structured[: len(structured) // 2] if script.end == "incomplete" else structured
    outputs = [f"{item.get('call_id')}: {_plain(item.get('output'))[:80]}" for item in _tool_outputs(body)]
    about = f"the outputs of {'; '.join(outputs)}" if outputs else question(body)[:80]
    intro = f"This is an emulated answer to: {about}.\n\n"
    return (intro + _prose(zlib.crc32(intro.encode()), script.length - len(intro)))[: script.length]


def _prose(seed: int, length: int) -> str:
    pick = random.Random(seed)
    parts: list[str] = []
    written = 0
    while written < length:
        heading = f"## {pick.choice(_WORDS).capitalize()} and {pick.choice(_WORDS)}\n\n"
        part = heading + " ".join(_sentence(pick) for _ in range(6)) + "\n\n"
        parts.append(part)
        written += len(part)
    return "".join(parts)


def _sentence(pick: random.Random) -> str:
    return " ".join(pick.choices(_WORDS, k=pick.randint(6, 14))).capitalize() + "."


def _script(directive: Json) -> Script:
    if directive.pop("refuse", False):
        directive["end"] = "refusal"
    unknown = sorted(directive.keys() - {known.name for known in fields(Script)})
    if unknown:
        raise ValueError(f"unknown keys: {', '.join(unknown)}")
    for name in (*_TIMES, *_COUNTS):
        value = directive.get(name, 0)
        kind = int if name in _COUNTS else int | float
        if isinstance(value, bool) or not isinstance(value, kind) or value < 0:
            raise ValueError(f"{name} is a {'whole ' if name in _COUNTS else ''}number from 0")
    if directive.get("end", "completed") not in _ENDS:
        raise ValueError(f"end is one of {', '.join(_ENDS)}")
    values = dict(directive)
    for turn in directive.get("turns") or ():
        _script(dict(turn))
    for name in ("function_calls", "container_files", "faults"):
        values[name] = tuple(values.get(name) or ())
    if any(sorted(file) != ["filename", "text"] for file in values["container_files"]):
        raise ValueError('container_files is a list of {"filename": ..., "text": ...}')
    approval = values.get("mcp_approval")
    if approval is not None:
        values["mcp_approval"] = (
            (_DEFAULT_CALL | (approval if isinstance(approval, dict) else {})) if approval else None
        )
    return Script(**values)


def _from_metadata(metadata: Any) -> Json:
    given = cast("Json", metadata).get("emulate") if isinstance(metadata, dict) else None
    return _object(given) if isinstance(given, str) else {}


def _split(text: str) -> tuple[Json, str]:
    before, mark, rest = text.partition(_MARK)
    if not mark:
        return {}, text
    directive, end = json.JSONDecoder().raw_decode(rest)
    if not isinstance(directive, dict) or not rest[end:].lstrip().startswith("]"):
        raise ValueError("the directive reads [emulate {...}]")
    after = rest[end:].lstrip()[1:]
    return cast("Json", directive), (before + after).strip()


def _object(text: str) -> Json:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("the directive is a JSON object")
    return cast("Json", value)


def _map_user_text(body: Json, change: Callable[[str], str]) -> Json:
    given = body.get("input")
    if isinstance(given, str):
        return body | {"input": change(given)}
    items = list(cast("list[Json]", given or []))
    last = next((at for at in reversed(range(len(items))) if items[at].get("role") == "user"), None)
    if last is None:
        return body
    content: Any = items[last].get("content")
    if isinstance(content, str):
        items[last] = items[last] | {"content": change(content)}
    else:
        items[last] = items[last] | {"content": [_map_part(part, change) for part in cast("list[Json]", content or [])]}
    return body | {"input": items}


def _map_part(part: Json, change: Callable[[str], str]) -> Json:
    return part | {"text": change(part["text"])} if isinstance(part.get("text"), str) else part


def _tool_outputs(body: Json) -> list[Json]:
    return [item for item in _items(body) if item.get("type") in _OUTPUTS]


def _answers_tools(body: Json) -> bool:
    return any(item.get("type") in _ANSWERS for item in _items(body))


def _answered(body: Json) -> int:
    """Count the answers that came since the user's last text, where an input tells all that was said."""
    items = _items(body)
    last = next((at for at in reversed(range(len(items))) if items[at].get("role") == "user"), None)
    return 0 if last is None else sum(item.get("type") in _ANSWERS for item in items[last:])


def _items(body: Json) -> list[Json]:
    given = body.get("input")
    return cast("list[Json]", given) if isinstance(given, list) else []


def _is_web_search(tool: Json) -> bool:
    return str(tool.get("type")).startswith(_WEB_SEARCH)


def _plain(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
