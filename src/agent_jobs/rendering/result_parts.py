"""Render the parts of a job's result that `agent_result` and `agent-jobs show` read."""

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import OutputFile, Result
from agent_jobs.jobs.response import Call
from agent_jobs.rendering.answers import (
    MESSAGE_CHARS,
    Answer,
    drop_falsy,
    drop_missing,
    list_token_counts,
    page_output,
    read_output_text,
    read_response,
    round_known,
    round_usd,
)
from agent_jobs.rendering.outline import find_headings
from agent_jobs.rendering.output import find_sources, join_reasoning, list_files, list_items
from agent_jobs.rendering.paging import count_json_bytes, cut_page, select_page
from agent_jobs.rendering.questions import ARGUMENT_CHARS
from agent_jobs.rendering.redaction import redact_request
from agent_jobs.text import truncate

MAX_EVENTS = 40  # older events are not shown

#: A page of a part and the offset of the next one, or None if there is none.
_Page = tuple[Any, int | None]


def render_part(result: Result, name: str, offset: int, limit_bytes: int) -> Answer:
    """Return one part of a job's result: a page of a text or of a list, and the call that reads the next one."""
    job = result.job
    read_part = _PART_READERS.get(name)
    if read_part is None:
        return drop_falsy({"job_id": job.id, "offset": offset}) | page_output(job, offset, limit_bytes)
    part, after = read_part(result, offset, limit_bytes)
    answer: Answer = {"job_id": job.id}
    if after is not None:
        answer["next"] = f"agent_result job_id={job.id} part={name} offset={after}"
    return answer | {name: part}


def _page_outline(result: Result, offset: int, limit_bytes: int) -> _Page:
    return select_page(find_headings(read_output_text(result.job)), offset, limit_bytes)


def _page_sources(result: Result, offset: int, limit_bytes: int) -> _Page:
    return select_page(find_sources(_read_output_items(result.job)), offset, limit_bytes)


def _page_items(result: Result, offset: int, limit_bytes: int) -> _Page:
    entries = [*_list_calls(result), *list_items(_read_output_items(result.job))]
    return select_page(entries, offset, limit_bytes)


def _page_files(result: Result, offset: int, limit_bytes: int) -> _Page:
    return select_page(_list_result_files(result), offset, limit_bytes)


def _page_reasoning(result: Result, offset: int, limit_bytes: int) -> _Page:
    text = join_reasoning(_read_output_items(result.job)) or result.job.turn.reasoning
    return cut_page(text, offset, limit_bytes)


def _page_partial(result: Result, offset: int, limit_bytes: int) -> _Page:
    text = read_output_text(result.job) or result.job.turn.partial
    return cut_page(text, offset, limit_bytes)


def _render_usage(result: Result, offset: int, limit_bytes: int) -> _Page:
    counts = list_token_counts(result.job.usage) or {}
    if "partial" in counts:  # a 0 then means that upstream did not count
        counts = drop_falsy(counts)
    return counts | drop_missing({"cost_usd": round_usd(result.job.cost_usd)}), None


def _render_meta(result: Result, offset: int, limit_bytes: int) -> _Page:
    """Return the facts of a job beside its output: its ids, its delivery mode, its events and its request.

    If that is too long, the first events are left out, and then the request.
    """
    job = result.job
    events = [f"{round(event.at)} {event.kind} {event.text}".strip() for event in result.events[-MAX_EVENTS:]]
    meta = drop_missing(
        {
            "title": job.title,
            "status": job.status,
            "batch": job.batch,
            "previous_job_id": job.previous_job_id,
            "context": job.context,
            "response_id": job.turn.response_id,
            "request_id": job.turn.request_id,
            "mode": job.turn.mode,
            "attempts": job.turn.attempt,
            "looks": job.turn.polls,
            "created_at": round(job.created_at),
            "finished_at": round_known(job.finished_at),
            "result_path": job.result_path,
            "events": events,
            "request": redact_request(job.turn.request),
        }
    )
    while count_json_bytes(meta) > limit_bytes and events:
        del events[0]
    if count_json_bytes(meta) > limit_bytes:
        del meta["request"]
    return meta, None


#: By the name of a part; every other name is that of the output's text.
_PART_READERS: Mapping[str, Callable[[Result, int, int], _Page]] = {
    "outline": _page_outline,
    "sources": _page_sources,
    "items": _page_items,
    "files": _page_files,
    "reasoning": _page_reasoning,
    "partial": _page_partial,
    "usage": _render_usage,
    "meta": _render_meta,
}


def _read_output_items(job: Job) -> object:
    """Return the `output` of the response of a job's last turn, as upstream sent it."""
    return read_response(job).get("output")


def _list_calls(result: Result) -> list[Answer]:
    """Return the calls of all turns with their answers. The arguments of an open call come in full, in pieces."""
    entries: list[Answer] = []
    for call in result.calls:
        if call.state == "open":
            entries += _split_open_call(call)
        else:
            entries.append(_render_call(call, is_over=result.job.is_terminal))
    return entries


def _split_open_call(call: Call) -> list[Answer]:
    common: Answer = {"type": "call", "name": call.name, "state": call.state, "call_id": call.id}
    starts = range(0, max(1, len(call.arguments)), ARGUMENT_CHARS)
    return [{**common, "arguments": call.arguments[start : start + ARGUMENT_CHARS]} for start in starts]


def _render_call(call: Call, *, is_over: bool) -> Answer:
    state: str = call.state
    if state == "running" and is_over:  # the process that made the call stopped before it had the answer
        state = "unknown"
    entry: Answer = {"type": "call", "name": call.name, "state": state, "arguments": _shorten_line(call.arguments)}
    if call.output is not None:
        entry["output"] = _shorten_line(_join_output_texts(call.output))
    return drop_missing(entry)


def _join_output_texts(output: object) -> str:
    """Return an answer to a call as a text, with a note in place of each image."""
    if not isinstance(output, list):
        return str(output)
    parts = cast("list[dict[str, Any]]", output)
    return " ".join("[image]" if part["type"] == "input_image" else part["text"] for part in parts)


def _shorten_line(text: str) -> str:
    return truncate(" ".join(text.split()), MESSAGE_CHARS)


def _list_result_files(result: Result) -> list[Answer]:
    """Return the files of a run: the path of each, or its known facts."""
    files = list_files(_read_output_items(result.job))
    if not result.made:
        return files
    saved_names = {_simplify_name(file.name) for file in result.made}
    sandbox_files = (file for file in files if file["type"] == "sandbox_file")
    unsaved = [file for file in sandbox_files if _simplify_name(file["filename"]) not in saved_names]
    return [*map(OutputFile._asdict, result.made), *unsaved]


def _simplify_name(name: str) -> str:
    """Return the part of a file's name that survives saving."""
    return re.sub(r"[\W_]+", "", name).casefold()
