"""Turn a Script into the events of a run and the output items they carry. Pure."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, cycle, islice
from typing import Any

from .item_events import Build, TimedEvent, build_deltas, cut_text, wrap_item
from .parameters import read_list, read_object
from .script import Script
from .tool_items import (
    Container,
    Source,
    build_approval,
    build_code,
    build_function_call,
    build_image,
    build_mcp_call,
    build_mcp_tools,
    build_search,
    build_unknown_item,
    is_preapproved,
    list_allowed_tools,
)

__all__ = ["OutputOptions", "Step", "build_timeline"]

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
    """An event and its time, in emulated seconds after the run began."""

    at_s: float
    event: Json


@dataclass(frozen=True)
class OutputOptions:
    """The parameters of a request that shape its output."""

    include: Collection[str] = ()
    summary: bool = False
    tools: Sequence[Json] = ()

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "OutputOptions":
        """Read the parameters from a create body."""
        has_summary = bool(read_object(body, "reasoning").get("summary"))
        return cls(read_list(body, "include"), has_summary, read_list(body, "tools"))

    def list_tools(self, type: str) -> list[Json]:
        """Return the tools of a type."""
        return [tool for tool in self.tools if tool["type"] == type]


_NO_OPTIONS = OutputOptions()


def build_timeline(
    script: Script,
    response_id: str,
    text: str,
    options: OutputOptions = _NO_OPTIONS,
    container: Container | None = None,
    *,
    unknown: bool = False,
) -> list[Step]:
    """Return every event between in_progress and the terminal one, in order."""
    builds = _list_builds(script, text, options, container, unknown=unknown)
    beats: list[TimedEvent] = []
    for index, (prefix, build) in enumerate(builds):
        digest = hashlib.sha256(f"{response_id}:{index}".encode()).hexdigest()
        beats += build(index, f"{prefix}_{digest[:48]}")
    total = sum(beat.weight for beat in beats) or 1
    times = accumulate(script.duration_s * beat.weight / total for beat in beats)
    return [Step(at_s, beat.event) for at_s, beat in zip(times, beats, strict=True)]


def _list_builds(
    script: Script, text: str, options: OutputOptions, container: Container | None, *, unknown: bool
) -> Iterator[tuple[str, Build]]:
    """Yield the prefix of the id and the builder of each output item."""
    for server in options.list_tools("mcp"):
        yield "mcpl", partial(build_mcp_tools, tool=server)
    if script.reasoning:
        yield "rs", partial(_build_reasoning, parts=script.reasoning, options=options)
    yield from _list_hosted_tools(script, options, container)
    calls, call_to_approve = _split_mcp_calls(script, options.list_tools("mcp") or [_SERVER])
    for server, name in calls:
        yield "mcp", partial(build_mcp_call, tool=server, name=name)
    if unknown:
        yield "holo", build_unknown_item
    if script.function_calls:
        yield from _list_function_calls(script.function_calls)
    elif call_to_approve:
        yield "mcpr", partial(build_approval, call=call_to_approve)
    else:
        yield from _list_messages(script, text, container)


def _list_hosted_tools(
    script: Script, options: OutputOptions, container: Container | None
) -> Iterator[tuple[str, Build]]:
    for number in range(script.searches):
        yield "ws", partial(build_search, number=number, include=options.include)
    if container and script.container_files:
        yield "ci", partial(build_code, container=container, include=options.include)
    partial_count = sum(tool.get("partial_images") or 0 for tool in options.list_tools("image_generation"))
    for _ in range(script.images):
        yield "ig", partial(build_image, side_px=script.image_px, partial=partial_count, given=script.image_base64)


def _list_function_calls(calls: Sequence[Json]) -> Iterator[tuple[str, Build]]:
    for call in calls:
        if "server_label" in call:
            yield "mcpr", partial(build_approval, call=call)
        else:
            yield "fc", partial(build_function_call, call=call)


def _split_mcp_calls(script: Script, servers: Sequence[Json]) -> tuple[list[tuple[Json, str]], Json | None]:
    """Return the calls that need no approval, and the call, if any, whose approval the turn ends with."""
    offered = [(server, list_allowed_tools(server)[0]) for server in servers]
    wanted = list(islice(cycle(offered), script.mcp_calls))
    free = [(server, name) for server, name in wanted if is_preapproved(server, name)]
    if script.mcp_approval or len(free) == len(wanted):
        return free, script.mcp_approval
    server, name = next(call for call in wanted if call not in free)
    return free, {"server_label": server["server_label"], "name": name, "arguments": '{"query": "emulated"}'}


def _list_messages(script: Script, text: str, container: Container | None) -> Iterator[tuple[str, Build]]:
    if script.end == "refusal":
        yield "msg", _build_refusal
        return
    label: Json = {}
    if script.phase:
        yield (
            "msg",
            partial(
                _build_message,
                script=replace(script, end="completed"),
                text="I will look into this.",
                notes=[],
                label={"phase": "commentary"},
            ),
        )
        label = {"phase": "final_answer"}
    if text or script.end != "incomplete":
        notes = [*_cite_pages(text, script.searches), *_cite_files(text, container)]
        yield "msg", partial(_build_message, script=script, text=text, notes=notes, label=label)


def _build_reasoning(index: int, item_id: str, parts: int, options: OutputOptions) -> list[TimedEvent]:
    inner: list[TimedEvent] = []
    summary: list[Json] = []
    count = 0
    if options.summary:
        count = parts
    for number in range(count):
        thought = _THOUGHTS[number % len(_THOUGHTS)]
        part = {"type": "summary_text", "text": f"**{thought}**\n\nThis is emulated reasoning, part {number + 1}."}
        summary.append(part)
        inner += _build_summary_part({"item_id": item_id, "output_index": index, "summary_index": number}, part)
    opening: Json = {"id": item_id, "type": "reasoning", "summary": []}
    if "reasoning.encrypted_content" in options.include:
        opening["encrypted_content"] = "gAAAAAemulated" + item_id.removeprefix("rs_")
    events = wrap_item(index, opening, inner, opening | {"summary": summary})
    if not summary:
        # Reasoning without a summary lasts as long, so its last event waits.
        events[-1] = TimedEvent(events[-1].event, 3 * parts)
    return events


def _build_summary_part(where: Json, part: Json) -> list[TimedEvent]:
    prefix = "response.reasoning_summary"
    text = part["text"]
    return [
        TimedEvent({"type": f"{prefix}_part.added", **where, "part": part | {"text": ""}}),
        *build_deltas(f"{prefix}_text.delta", where, cut_text(text, count=3)),
        TimedEvent({"type": f"{prefix}_text.done", **where, "text": text}),
        TimedEvent({"type": f"{prefix}_part.done", **where, "part": part}),
    ]


def _cite_pages(text: str, searches: int) -> list[Json]:
    """Cite the page of each search, and that of the first once more."""
    if not searches:
        return []
    cited = [*range(searches), 0]
    spans = [(at * len(text) // len(cited), (at + 1) * len(text) // len(cited)) for at in range(len(cited))]
    return [
        Source(number).citation(start, min(end, start + 40))
        for number, (start, end) in zip(cited, spans, strict=True)
        if end > start
    ]


def _cite_files(text: str, container: Container | None) -> list[Json]:
    if container is None or "sandbox:/" in text:  # files that the text links are not cited
        return []
    where = {"container_id": container.id, "start_index": max(0, len(text) - 20), "end_index": len(text)}
    return [
        {"type": "container_file_citation", **where, "file_id": file_id, "filename": name}
        for file_id, name in container.files
    ]


def _open_message(item_id: str) -> Json:
    return {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}


def _build_message(
    index: int, item_id: str, script: Script, text: str, notes: Sequence[Json], label: Json
) -> list[TimedEvent]:
    opening = _open_message(item_id) | label
    part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    where = {"item_id": item_id, "output_index": index, "content_index": 0}
    deltas = build_deltas("response.output_text.delta", where, cut_text(text, script.chunk), logprobs=[])
    added = TimedEvent({"type": "response.content_part.added", **where, "part": part | {"text": ""}})
    if script.end in ("failed", "never"):
        return wrap_item(index, opening, [added, *deltas[: len(deltas) // 2]], opening)[:-1]
    part = part | {"annotations": list(notes)}
    status = "completed"
    if script.end == "incomplete":
        status = "incomplete"
    inner = [added, *deltas, *_close_text(where, part)]
    return wrap_item(index, opening, inner, opening | {"status": status, "content": [part]})


def _close_text(where: Json, part: Json) -> list[TimedEvent]:
    annotation_events = [
        {"type": "response.output_text.annotation.added", **where, "annotation_index": number, "annotation": note}
        for number, note in enumerate(part["annotations"])
    ]
    return [
        *map(TimedEvent, annotation_events),
        TimedEvent({"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}),
        TimedEvent({"type": "response.content_part.done", **where, "part": part}),
    ]


def _build_refusal(index: int, item_id: str) -> list[TimedEvent]:
    text = "I'm sorry, but I can't help with that (emulated)."
    opening = _open_message(item_id)
    part = {"type": "refusal", "refusal": text}
    where = {"item_id": item_id, "output_index": index, "content_index": 0}
    inner = [
        TimedEvent({"type": "response.content_part.added", **where, "part": part | {"refusal": ""}}),
        *build_deltas("response.refusal.delta", where, cut_text(text, count=3)),
        TimedEvent({"type": "response.refusal.done", **where, "refusal": text}),
        TimedEvent({"type": "response.content_part.done", **where, "part": part}),
    ]
    return wrap_item(index, opening, inner, opening | {"status": "completed", "content": [part]})
