"""From a Script to the events of a run and the output items they carry. Pure."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .script import Script

__all__ = ["Step", "timeline"]

Json = dict[str, Any]

_DELTAS = 40  # enough to look alive, few enough for a log of thousands of runs
_THOUGHTS = (
    "Looking at the request",
    "Weighing the possible approaches",
    "Checking the details against the sources",
    "Putting the answer in order",
)


@dataclass(frozen=True)
class Step:
    """An event and when it comes, in emulated seconds after the run began."""

    at_s: float
    event: Json


@dataclass(frozen=True)
class _Beat:
    event: Json
    weight: int = 0  # share of the run's time that passes before the event


_Builder = Callable[[int, str], list[_Beat]]


def timeline(script: Script, response_id: str, text: str, include: Collection[str], *, unknown: bool) -> list[Step]:
    """Give every event between in_progress and the terminal one, in order."""
    builders = list(_builders(script, text, include, unknown=unknown))
    beats: list[_Beat] = []
    for index, (prefix, build) in enumerate(builders):
        digest = hashlib.sha256(f"{response_id}:{index}".encode()).hexdigest()
        beats += build(index, f"{prefix}_{digest[:48]}")
    total = sum(beat.weight for beat in beats) or 1
    times = accumulate(script.duration_s * beat.weight / total for beat in beats)
    return [Step(at_s, beat.event) for at_s, beat in zip(times, beats, strict=True)]


def _builders(script: Script, text: str, include: Collection[str], *, unknown: bool) -> Iterator[tuple[str, _Builder]]:
    if script.reasoning:
        yield "rs", lambda index, id: _reasoning(index, id, script.reasoning, include)
    for number in range(script.searches):
        yield "ws", lambda index, id, number=number: _search(index, id, number, include)
    if unknown:
        yield "holo", _hologram
    if script.function_calls:
        for call in script.function_calls:
            yield "fc", lambda index, id, call=call: _function_call(index, id, call)
    elif script.mcp_approval:
        yield "mcpr", lambda index, id: _approval(index, id, script.mcp_approval or {})
    else:
        yield from _messages(script, text)


def _messages(script: Script, text: str) -> Iterator[tuple[str, _Builder]]:
    if script.end == "refusal":
        yield "msg", _refusal
        return
    if script.phase:
        yield "msg", lambda index, id: _message(index, id, script, "I will look into this.", "commentary")
    if text or script.end != "incomplete":
        phase = "final_answer" if script.phase else None
        yield "msg", lambda index, id: _message(index, id, script, text, phase)


def _item(index: int, opening: Json, inner: list[_Beat], item: Json) -> list[_Beat]:
    added = {"type": "response.output_item.added", "output_index": index, "item": opening}
    done = {"type": "response.output_item.done", "output_index": index, "item": item}
    return [_Beat(added), *inner, _Beat(done)]


def _pieces(text: str, size: int | None = None, count: int = _DELTAS) -> list[str]:
    size = size or -(-len(text) // count) or 1
    return [text[at : at + size] for at in range(0, len(text), size)]


def _reasoning(index: int, item_id: str, parts: int, include: Collection[str]) -> list[_Beat]:
    inner: list[_Beat] = []
    summary: list[Json] = []
    for number in range(parts):
        thought = _THOUGHTS[number % len(_THOUGHTS)]
        part = {"type": "summary_text", "text": f"**{thought}**\n\nThis is emulated reasoning, part {number + 1}."}
        summary.append(part)
        inner += _summary_part({"item_id": item_id, "output_index": index, "summary_index": number}, part)
    opening: Json = {"id": item_id, "type": "reasoning", "summary": []}
    if "reasoning.encrypted_content" in include:
        opening["encrypted_content"] = "gAAAAAemulated"
    return _item(index, opening, inner, opening | {"summary": summary})


def _summary_part(where: Json, part: Json) -> list[_Beat]:
    prefix = "response.reasoning_summary"
    text = part["text"]
    return [
        _Beat({"type": f"{prefix}_part.added", **where, "part": part | {"text": ""}}),
        *[_Beat({"type": f"{prefix}_text.delta", **where, "delta": piece}, 1) for piece in _pieces(text, count=3)],
        _Beat({"type": f"{prefix}_text.done", **where, "text": text}),
        _Beat({"type": f"{prefix}_part.done", **where, "part": part}),
    ]


def _search(index: int, item_id: str, number: int, include: Collection[str]) -> list[_Beat]:
    query = f"emulated query {number + 1}"
    action: Json = {"type": "search", "query": query, "queries": [query]}
    if "web_search_call.action.sources" in include:
        action["sources"] = [{"type": "url", "url": _source(number)["url"]}]
    opening: Json = {"id": item_id, "type": "web_search_call", "status": "in_progress", "action": action}
    where = {"item_id": item_id, "output_index": index}
    inner = [
        _Beat({"type": "response.web_search_call.in_progress", **where}),
        _Beat({"type": "response.web_search_call.searching", **where}),
        _Beat({"type": "response.web_search_call.completed", **where}, 2),
    ]
    return _item(index, opening, inner, opening | {"status": "completed"})


def _source(number: int) -> Json:
    return {"url": f"https://example.com/emulated/{number + 1}", "title": f"Emulated source {number + 1}"}


def _annotations(text: str, searches: int) -> list[Json]:
    spans = [(number * len(text) // searches, (number + 1) * len(text) // searches) for number in range(searches)]
    return [
        {"type": "url_citation", "start_index": start, "end_index": min(end, start + 40), **_source(number)}
        for number, (start, end) in enumerate(spans)
        if end > start
    ]


def _message(index: int, item_id: str, script: Script, text: str, phase: str | None) -> list[_Beat]:
    final = phase != "commentary"
    opening: Json = {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    if phase:
        opening["phase"] = phase
    part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    where = {"item_id": item_id, "output_index": index, "content_index": 0}
    deltas = [
        _Beat({"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}, 1)
        for piece in _pieces(text, script.chunk)
    ]
    added = _Beat({"type": "response.content_part.added", **where, "part": part | {"text": ""}})
    if final and script.end in ("failed", "never"):
        return _item(index, opening, [added, *deltas[: len(deltas) // 2]], opening)[:-1]
    part = part | {"annotations": _annotations(text, script.searches if final else 0)}
    status = "incomplete" if final and script.end == "incomplete" else "completed"
    inner = [added, *deltas, *_text_ending(where, part)]
    return _item(index, opening, inner, opening | {"status": status, "content": [part]})


def _text_ending(where: Json, part: Json) -> list[_Beat]:
    noted = [
        _Beat(
            {
                "type": "response.output_text.annotation.added",
                **where,
                "annotation_index": number,
                "annotation": annotation,
            }
        )
        for number, annotation in enumerate(part["annotations"])
    ]
    return [
        *noted,
        _Beat({"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}),
        _Beat({"type": "response.content_part.done", **where, "part": part}),
    ]


def _refusal(index: int, item_id: str) -> list[_Beat]:
    text = "I'm sorry, but I can't help with that (emulated)."
    opening: Json = {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    part = {"type": "refusal", "refusal": text}
    where = {"item_id": item_id, "output_index": index, "content_index": 0}
    inner = [
        _Beat({"type": "response.content_part.added", **where, "part": part | {"refusal": ""}}),
        *[_Beat({"type": "response.refusal.delta", **where, "delta": p}, 1) for p in _pieces(text, count=3)],
        _Beat({"type": "response.refusal.done", **where, "refusal": text}),
        _Beat({"type": "response.content_part.done", **where, "part": part}),
    ]
    return _item(index, opening, inner, opening | {"status": "completed", "content": [part]})


def _function_call(index: int, item_id: str, call: Json) -> list[_Beat]:
    given = call.get("arguments", {})
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    item: Json = {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "call_id": call.get("call_id") or item_id.replace("fc_", "call_")[:29],
        "name": call.get("name", "emulated_function"),
        "arguments": arguments,
    }
    where = {"item_id": item_id, "output_index": index}
    kind = "response.function_call_arguments"
    inner = [
        *[_Beat({"type": f"{kind}.delta", **where, "delta": p}, 1) for p in _pieces(arguments, count=3)],
        _Beat({"type": f"{kind}.done", **where, "name": item["name"], "arguments": arguments}),
    ]
    return _item(index, item | {"status": "in_progress", "arguments": ""}, inner, item)


def _approval(index: int, item_id: str, call: Json) -> list[_Beat]:
    item = {"id": item_id, "type": "mcp_approval_request", **call}
    return _item(index, item, [], item)


def _hologram(index: int, item_id: str) -> list[_Beat]:
    """Stand for an item and events that no client knows yet."""
    item = {"id": item_id, "type": "hologram_call", "status": "completed", "shape": {"sides": 5}}
    inner = [_Beat({"type": "response.hologram_call.rendering", "item_id": item_id, "output_index": index}, 1)]
    return _item(index, item | {"status": "in_progress"}, inner, item)
