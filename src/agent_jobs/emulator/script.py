"""Read the directive in a request into a Script, and write the text of the answer. Pure."""

import json
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

from .parameters import as_list, as_object, as_text, read_list, read_object
from .structured import write_sample

__all__ = ["Script", "answer_text", "read_question", "read_request"]

Json = dict[str, Any]

_MARK = "[emulate "
_NUMBERS: dict[str, tuple[str, tuple[type, ...]]] = {
    "duration_s": ("number", (int, float)),
    "queued_s": ("number", (int, float)),
    "length": ("whole number", (int,)),
    "reasoning": ("whole number", (int,)),
    "searches": ("whole number", (int,)),
    "images": ("whole number", (int,)),
    "image_px": ("whole number", (int,)),
    "mcp_calls": ("whole number", (int,)),
}
_ENDS = ("completed", "failed", "incomplete", "refusal", "never")
_CALLS = ("function_calls", "mcp_approval", "mcp_calls")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_ANSWERS = (*_OUTPUTS, "mcp_approval_response")
_WEB_SEARCH = "web_search"
QUOTED_CHARS = 80  # of a question or an output in the answer
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
    """The course and the end of a response; times are in emulated seconds."""

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
    turns: tuple[Json, ...] | None = None  #: the turns that follow; None if the directive has no turns


def read_request(body: Json, coming: Sequence[Json] | None = None) -> tuple[Script, Json]:
    """Return the script that a create body asks for, and the body without the directive in its text.

    Args:
        body: The request.
        coming: The turns that were left after the previous response, if that was one of several.
    """
    directive = _parse_directive(read_object(body, "metadata").get("emulate", "{}"))
    turns: Sequence[Json] | None = None
    if _has_answers(body):
        # Every turn has the same metadata: a turn with the outputs must not ask for them again.
        directive = _drop_calls(directive)
        turns = coming

    def cut_out(text: str) -> str:
        part, rest = _split_directive(text)
        directive.update(part)
        return rest

    clean = _map_user_text(body, cut_out)
    answer_count = _count_answers(body)
    if turns is None:
        turns = _drop_answered_turns(directive.get("turns"), answer_count)
    if turns is None and answer_count:
        # The text is sent again, but its calls have answers by now.
        directive = _drop_calls(directive)
    directive.pop("turns", None)
    directive = _choose_turn(directive, turns)
    if "searches" not in directive and _has_web_search(body):
        directive["searches"] = 2
    return _build_script(directive), clean


def _drop_calls(directive: Json) -> Json:
    return {key: value for key, value in directive.items() if key not in _CALLS}


def _drop_answered_turns(given: Any, answer_count: int) -> list[Json] | None:
    """Return the turns that are not answered yet; None if the directive has no turns."""
    if given is None:
        return None
    turns = _check_turns(given)
    while turns and answer_count > 0:
        answer_count -= len(read_list(turns[0], "function_calls")) or 1
        turns = turns[1:]
    return turns


def _check_turns(given: Any) -> list[Json]:
    turns: list[Any] = as_list(given)
    if not turns:
        raise ValueError("turns is a list of directives")
    for turn in turns:
        if not isinstance(turn, dict) or "turns" in turn:
            raise ValueError("turns is a list of directives")
    return turns


def _choose_turn(common: Json, turns: Sequence[Json] | None) -> Json:
    """Return the directive of the first turn, with the later ones in it; after the last one nothing is called."""
    if turns is None:
        return common
    rest = {"turns": tuple(common | turn for turn in turns[1:])}
    if not turns:
        return common | rest
    return common | turns[0] | rest


def read_question(body: Json) -> str:
    """Return the last text of the user."""
    texts: list[str] = []

    def keep(text: str) -> str:
        texts.append(text)
        return text

    _map_user_text(body, keep)
    return " ".join(text for text in texts if text).strip()


def answer_text(script: Script, body: Json) -> str:
    """Return the text of the answer: the same for the same input, as long as the script or the format says."""
    if script.text is not None:
        return script.text
    structured = write_sample(body)
    if structured is None:
        return _write_answer_text(script, body)
    if script.end == "incomplete":
        return structured[: len(structured) // 2]
    return structured


def _write_answer_text(script: Script, body: Json) -> str:
    about = read_question(body)[:QUOTED_CHARS]
    outputs = _list_tool_outputs(body)
    if outputs:
        quotes = [f"{item.get('call_id')}: {as_text(item.get('output'))[:QUOTED_CHARS]}" for item in outputs]
        about = f"the outputs of {'; '.join(quotes)}"
    intro = f"This is an emulated answer to: {about}.\n\n"
    return (intro + _write_prose(zlib.crc32(intro.encode()), script.length - len(intro)))[: script.length]


def _write_prose(seed: int, length: int) -> str:
    pick = random.Random(seed)
    parts: list[str] = []
    written = 0
    while written < length:
        heading = f"## {pick.choice(_WORDS).capitalize()} and {pick.choice(_WORDS)}\n\n"
        part = heading + " ".join(_write_sentence(pick) for _ in range(6)) + "\n\n"
        parts.append(part)
        written += len(part)
    return "".join(parts)


def _write_sentence(pick: random.Random) -> str:
    return " ".join(pick.choices(_WORDS, k=pick.randint(6, 14))).capitalize() + "."


def _build_script(directive: Json) -> Script:
    if directive.pop("refuse", False):
        directive["end"] = "refusal"
    unknown = sorted(directive.keys() - {known.name for known in fields(Script)})
    if unknown:
        raise ValueError(f"unknown keys: {', '.join(unknown)}")
    _check_numbers(directive)
    if directive.get("end", "completed") not in _ENDS:
        raise ValueError(f"end is one of {', '.join(_ENDS)}")
    for turn in directive.get("turns", ()):
        _build_script(dict(turn))
    values = dict(directive)
    for name in ("function_calls", "container_files", "faults"):
        values[name] = tuple(values.get(name) or ())
    _check_container_files(values["container_files"])
    values["mcp_approval"] = _read_approval(values.get("mcp_approval"))
    return Script(**values)


def _check_container_files(files: Sequence[Json]) -> None:
    for file in files:
        if sorted(file) != ["filename", "text"]:
            raise ValueError('container_files is a list of {"filename": ..., "text": ...}')


def _check_numbers(directive: Json) -> None:
    for name, (meaning, types) in _NUMBERS.items():
        value = directive.get(name, 0)
        # A bool is an int in Python, so the types are compared exactly.
        if type(value) not in types or value < 0:
            raise ValueError(f"{name} is a {meaning} from 0")


def _read_approval(given: Any) -> Json | None:
    """Return the call that needs an approval; `true` stands for a default call."""
    if not given:
        return None
    return _DEFAULT_CALL | as_object(given)


def _split_directive(text: str) -> tuple[Json, str]:
    before, mark, rest = text.partition(_MARK)
    if not mark:
        return {}, text
    directive, end = json.JSONDecoder().raw_decode(rest)
    if not isinstance(directive, dict) or not rest[end:].lstrip().startswith("]"):
        raise ValueError("the directive reads [emulate {...}]")
    after = rest[end:].lstrip()[1:]
    return cast("Json", directive), (before + after).strip()


def _parse_directive(text: str) -> Json:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("the directive is a JSON object")
    return cast("Json", value)


def _map_user_text(body: Json, change: Callable[[str], str]) -> Json:
    given = body.get("input")
    if isinstance(given, str):
        return body | {"input": change(given)}
    items = list(read_list(body, "input"))
    last = _find_user_item(items)
    if last == len(items):
        return body
    content: Any = items[last].get("content")
    if isinstance(content, str):
        changed: Any = change(content)
    else:
        changed = [_map_part(part, change) for part in read_list(items[last], "content")]
    items[last] = items[last] | {"content": changed}
    return body | {"input": items}


def _map_part(part: Json, change: Callable[[str], str]) -> Json:
    if not isinstance(part.get("text"), str):
        return part
    return part | {"text": change(part["text"])}


def _find_user_item(items: Sequence[Json]) -> int:
    """Return the position of the user's last item; the position behind all items if there is none."""
    return max((at for at, item in enumerate(items) if item.get("role") == "user"), default=len(items))


def _list_tool_outputs(body: Json) -> list[Json]:
    return [item for item in read_list(body, "input") if item.get("type") in _OUTPUTS]


def _has_answers(body: Json) -> bool:
    return any(item.get("type") in _ANSWERS for item in read_list(body, "input"))


def _count_answers(body: Json) -> int:
    """Count the answers since the user's last text, if the input has the whole conversation."""
    items = read_list(body, "input")
    return sum(item.get("type") in _ANSWERS for item in items[_find_user_item(items) :])


def _has_web_search(body: Json) -> bool:
    return any(str(tool.get("type")).startswith(_WEB_SEARCH) for tool in read_list(body, "tools"))
