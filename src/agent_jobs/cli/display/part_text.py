"""Write a part of a result as text for a person."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from agent_jobs.cli.display import terminal
from agent_jobs.text import human_size

#: Fields of an entry that are shown without their names.
PLAIN_FIELDS = ("type", "status", "state", "name")
#: Fields of a source or a file that name it, the best first.
NAME_FIELDS = ("title", "filename", "name", "url", "file_id", "id", "type")
INDENT = "    "


class _Form(NamedTuple):
    """The function that writes a part, and the sentence in place of an empty one."""

    write: Callable[[Any], str]
    nothing: str


def format_part(part: str, value: Any) -> str:
    """Return a part of a result as text; a part that is a text already stays as it is."""
    if isinstance(value, str):
        return value
    form = _FORMS[part]
    return form.write(value) or form.nothing


def _format_outline(headings: Sequence[Mapping[str, Any]]) -> str:
    """Return the headings, each indented by its level."""
    return "\n".join(f"{'  ' * (heading['level'] - 1)}{heading['title']}" for heading in headings)


def _format_sources(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return the numbered sources, each with its address and how often it is cited."""
    lines: list[str] = []
    for number, source in enumerate(sources, 1):
        name = _find_entry_name(source)
        cited = ""
        if source.get("cited", 0) > 1:
            cited = f" (cited {source['cited']} times)"
        lines.append(f"[{number}] {name}{cited}")
        if source.get("url") not in (None, name):
            lines.append(f"{INDENT}{source['url']}")
    return "\n".join(lines)


def _format_items(items: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each item, with its details below it."""
    lines: list[str] = []
    for item in items:
        head = "  ".join(str(item[name]) for name in PLAIN_FIELDS if item.get(name))
        lines.append(head)
        lines += [f"{INDENT}{name}: {value}" for name, value in item.items() if name not in PLAIN_FIELDS]
    return "\n".join(lines)


def _format_files(files: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each file: its path, or its known facts."""
    lines: list[str] = []
    for file in files:
        parts = [str(file.get("path") or _find_entry_name(file))]
        if isinstance(file.get("bytes"), int):
            parts.append(human_size(file["bytes"]))
        if "path" not in file:
            parts.append("not saved")
        lines.append("  ".join(parts))
    return "\n".join(lines)


def _format_usage(usage: Mapping[str, Any]) -> str:
    return _format_fields(usage, _format_figure)


def _format_figure(name: str, value: Any) -> str:
    match name, value:
        case "cost_usd", int() | float():
            return terminal.format_usd(value)
        case "partial", _:
            return str(value)
        case _, int():
            return f"{value:,}"
        case _:
            return str(value)


def _format_meta(meta: Mapping[str, Any]) -> str:
    """Return the facts of a job, its events and its request."""
    return _format_fields(meta, _format_fact)


def _format_fact(name: str, value: Any) -> str:
    match name, value:
        case "created_at" | "finished_at", int() | float():
            return _format_clock_time(value)
        case "events", _:
            return "\n".join(map(_format_stored_event, value))
        case _, dict() | list():
            return json.dumps(value, ensure_ascii=False, indent=2)
        case _:
            return str(value)


def _format_fields(fields: Mapping[str, Any], format_value: Callable[[str, Any], str]) -> str:
    """Return the names of fields with their values, one below the other."""
    return terminal.format_pairs([(name.replace("_", " "), format_value(name, fields[name])) for name in fields])


def _format_stored_event(event: str) -> str:
    """Return an event, which begins with its time in epoch seconds."""
    at, _, text = str(event).partition(" ")
    if at.isdigit():
        return f"{_format_clock_time(float(at))}  {text}"
    return str(event)


def _format_clock_time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _find_entry_name(entry: Mapping[str, Any]) -> str:
    return str(next((entry[name] for name in NAME_FIELDS if entry.get(name)), ""))


_FORMS: Mapping[str, _Form] = {
    "outline": _Form(_format_outline, "There are no headings."),
    "sources": _Form(_format_sources, "There are no sources."),
    "items": _Form(_format_items, "There are no items."),
    "files": _Form(_format_files, "There are no files."),
    "usage": _Form(_format_usage, "Nothing is known of its tokens."),
    "meta": _Form(_format_meta, ""),
}
