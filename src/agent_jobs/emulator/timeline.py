"""From a Script to the events of a run and the output items they carry. Pure."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, cast

from .item_events import Beat, Build, item, pieces
from .script import Script
from .tool_items import (
    Container,
    Source,
    allowed,
    approval,
    code,
    function_call,
    hologram,
    image,
    mcp_call,
    mcp_tools,
    search,
    unasked,
)

__all__ = ["Asked", "Step", "timeline"]

Json = dict[str, Any]

_THOUGHTS = (
    "Looking at the request",
    "Weighing the possible approaches",
    "Checking the details against the sources",
    "Putting the answer in order",
)
_SERVER: Json = {"type": "mcp", "server_label": "emulated", "require_approval": "never"}


@dataclass(frozen=True)
class Step:
    """An event and when it comes, in emulated seconds after the run began."""

    at_s: float
    event: Json


@dataclass(frozen=True)
class Asked:
    """What a request says about the shape of its output, whatever the script makes of it."""

    include: Collection[str] = ()
    summary: bool = False
    tools: Sequence[Json] = ()

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Asked":
        """Read it from a create body."""
        reasoning = cast("Json", body.get("reasoning") or {})
        return cls(body.get("include") or (), bool(reasoning.get("summary")), body.get("tools") or ())

    def kind(self, type: str) -> list[Json]:
        """Give the tools of a type."""
        return [tool for tool in self.tools if tool["type"] == type]


def timeline(
    script: Script,
    response_id: str,
    text: str,
    asked: Asked | None = None,
    container: Container | None = None,
    *,
    unknown: bool = False,
) -> list[Step]:
    """Give every event between in_progress and the terminal one, in order."""
    builds = _builds(script, text, asked or Asked(), container, unknown=unknown)
    beats: list[Beat] = []
    for index, (prefix, build) in enumerate(builds):
        digest = hashlib.sha256(f"{response_id}:{index}".encode()).hexdigest()
        beats += build(index, f"{prefix}_{digest[:48]}")
    total = sum(beat.weight for beat in beats) or 1
    times = accumulate(script.duration_s * beat.weight / total for beat in beats)
    return [Step(at_s, beat.event) for at_s, beat in zip(times, beats, strict=True)]


def _builds(
    script: Script, text: str, asked: Asked, container: Container | None, *, unknown: bool
) -> Iterator[tuple[str, Build]]:
    for server in asked.kind("mcp"):
        yield "mcpl", partial(mcp_tools, tool=server)
    if script.reasoning:
        yield "rs", partial(_reasoning, parts=script.reasoning, asked=asked)
    for number in range(script.searches):
        yield "ws", partial(search, number=number, include=asked.include)
    if container and script.container_files:
        yield "ci", partial(code, container=container, include=asked.include)
    for _ in range(script.images):
        shown = sum(tool.get("partial_images") or 0 for tool in asked.kind("image_generation"))
        yield "ig", partial(image, side_px=script.image_px, partial=shown, given=script.image_base64)
    free, asking = _mcp_calls(script, asked.kind("mcp") or [_SERVER])
    for server, name in free:
        yield "mcp", partial(mcp_call, tool=server, name=name)
    if unknown:
        yield "holo", hologram
    if script.function_calls:
        for call in script.function_calls:
            asks = "server_label" in call
            yield ("mcpr", partial(approval, call=call)) if asks else ("fc", partial(function_call, call=call))
    elif asking:
        yield "mcpr", partial(approval, call=asking)
    else:
        yield from _messages(script, text, container)


def _mcp_calls(script: Script, servers: Sequence[Json]) -> tuple[list[tuple[Json, str]], Json | None]:
    """Give the calls that need no approval, and the one, if any, that the turn ends with a request for."""
    wanted = [(server, allowed(server)[0]) for server in servers]
    wanted = [wanted[number % len(wanted)] for number in range(script.mcp_calls)]
    free = [(server, name) for server, name in wanted if unasked(server, name)]
    if script.mcp_approval or len(free) == len(wanted):
        return free, script.mcp_approval
    server, name = next(call for call in wanted if call not in free)
    return free, {"server_label": server["server_label"], "name": name, "arguments": '{"query": "emulated"}'}


def _messages(script: Script, text: str, container: Container | None) -> Iterator[tuple[str, Build]]:
    if script.end == "refusal":
        yield "msg", _refusal
        return
    if script.phase:
        said = "I will look into this."
        yield "msg", partial(_message, script=script, text=said, notes=[], phase="commentary")
    if text or script.end != "incomplete":
        notes = [*_url_citations(text, script.searches), *_file_citations(text, container)]
        phase = "final_answer" if script.phase else None
        yield "msg", partial(_message, script=script, text=text, notes=notes, phase=phase)


def _reasoning(index: int, item_id: str, parts: int, asked: Asked) -> list[Beat]:
    inner: list[Beat] = []
    summary: list[Json] = []
    for number in range(parts if asked.summary else 0):
        thought = _THOUGHTS[number % len(_THOUGHTS)]
        part = {"type": "summary_text", "text": f"**{thought}**\n\nThis is emulated reasoning, part {number + 1}."}
        summary.append(part)
        inner += _summary_part({"item_id": item_id, "output_index": index, "summary_index": number}, part)
    opening: Json = {"id": item_id, "type": "reasoning", "summary": []}
    if "reasoning.encrypted_content" in asked.include:
        opening["encrypted_content"] = "gAAAAAemulated" + item_id.removeprefix("rs_")
    added, *rest = item(index, opening, inner, opening | {"summary": summary})
    silent = [] if summary else [Beat(rest.pop().event, 3 * parts)]  # who thinks in silence thinks as long
    return [added, *rest, *silent]


def _summary_part(where: Json, part: Json) -> list[Beat]:
    prefix = "response.reasoning_summary"
    text = part["text"]
    return [
        Beat({"type": f"{prefix}_part.added", **where, "part": part | {"text": ""}}),
        *[Beat({"type": f"{prefix}_text.delta", **where, "delta": piece}, 1) for piece in pieces(text, count=3)],
        Beat({"type": f"{prefix}_text.done", **where, "text": text}),
        Beat({"type": f"{prefix}_part.done", **where, "part": part}),
    ]


def _url_citations(text: str, searches: int) -> list[Json]:
    """Cite the page of each search, and that of the first once more."""
    cited = [*range(searches), 0] if searches else []
    spans = [(at * len(text) // len(cited), (at + 1) * len(text) // len(cited)) for at in range(len(cited))]
    return [
        Source(number).citation(start, min(end, start + 40))
        for number, (start, end) in zip(cited, spans, strict=True)
        if end > start
    ]


def _file_citations(text: str, container: Container | None) -> list[Json]:
    if container is None or "sandbox:/" in text:  # linked, and not cited
        return []
    where = {"container_id": container.id, "start_index": max(0, len(text) - 20), "end_index": len(text)}
    return [
        {"type": "container_file_citation", **where, "file_id": file_id, "filename": name}
        for file_id, name in container.files
    ]


def _opening(item_id: str) -> Json:
    return {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}


def _message(
    index: int, item_id: str, script: Script, text: str, notes: Sequence[Json], phase: str | None
) -> list[Beat]:
    final = phase != "commentary"
    opening = _opening(item_id) | ({"phase": phase} if phase else {})
    part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    where = {"item_id": item_id, "output_index": index, "content_index": 0}
    deltas = [
        Beat({"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}, 1)
        for piece in pieces(text, script.chunk)
    ]
    added = Beat({"type": "response.content_part.added", **where, "part": part | {"text": ""}})
    if final and script.end in ("failed", "never"):
        return item(index, opening, [added, *deltas[: len(deltas) // 2]], opening)[:-1]
    part = part | {"annotations": list(notes)}
    status = "incomplete" if final and script.end == "incomplete" else "completed"
    inner = [added, *deltas, *_text_ending(where, part)]
    return item(index, opening, inner, opening | {"status": status, "content": [part]})


def _text_ending(where: Json, part: Json) -> list[Beat]:
    noted = [
        {"type": "response.output_text.annotation.added", **where, "annotation_index": number, "annotation": note}
        for number, note in enumerate(part["annotations"])
    ]
    return [
        *map(Beat, noted),
        Beat({"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}),
        Beat({"type": "response.content_part.done", **where, "part": part}),
    ]


def _refusal(index: int, item_id: str) -> list[Beat]:
    text = "I'm sorry, but I can't help with that (emulated)."
    opening = _opening(item_id)
    part = {"type": "refusal", "refusal": text}
    where = {"item_id": item_id, "output_index": index, "content_index": 0}
    inner = [
        Beat({"type": "response.content_part.added", **where, "part": part | {"refusal": ""}}),
        *[Beat({"type": "response.refusal.delta", **where, "delta": piece}, 1) for piece in pieces(text, count=3)],
        Beat({"type": "response.refusal.done", **where, "refusal": text}),
        Beat({"type": "response.content_part.done", **where, "part": part}),
    ]
    return item(index, opening, inner, opening | {"status": "completed", "content": [part]})
