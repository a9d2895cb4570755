"""Write a part of a result as text for a person."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from agent_jobs.cli import terminal

#: Fields of an entry that are shown without their names.
PLAIN_FIELDS = ("type", "status", "state", "name")
#: Fields of a source or a file that name it, the best first.
NAME_FIELDS = ("title", "filename", "name", "url", "file_id", "id", "type")
TIME_FIELDS = ("created_at", "finished_at")
INDENT = "    "


def format_part(part: str, value: Any) -> str:
    """Return a part of a result as text; a part that is a text already stays as it is."""
    if isinstance(value, str):
        return value
    return _FORMATTERS[part](value)


def _format_outline(headings: Sequence[Mapping[str, Any]]) -> str:
    """Return the headings, each indented by its level."""
    lines = [f"{'  ' * (heading['level'] - 1)}{heading['title']}" for heading in headings]
    return "\n".join(lines) or "There are no headings."


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
    return "\n".join(lines) or "There are no sources."


def _format_items(items: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each item, with its details below it."""
    lines: list[str] = []
    for item in items:
        head = "  ".join(str(item[name]) for name in PLAIN_FIELDS if item.get(name))
        lines.append(head)
        lines += [f"{INDENT}{name}: {value}" for name, value in item.items() if name not in PLAIN_FIELDS]
    return "\n".join(lines) or "There are no items."


def _format_files(files: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each file: its path, or its known facts."""
    lines: list[str] = []
    for file in files:
        parts = [str(file.get("path") or _find_entry_name(file))]
        if isinstance(file.get("bytes"), int):
            parts.append(terminal.format_size(file["bytes"]))
        if "path" not in file:
            parts.append("not saved")
        lines.append("  ".join(parts))
    return "\n".join(lines) or "There are no files."


def _format_usage(usage: Mapping[str, Any]) -> str:
    rows = [(name.replace("_", " "), _format_figure(name, value)) for name, value in usage.items()]
    return terminal.format_pairs(rows) or "Nothing is known of its tokens."


def _format_figure(name: str, value: object) -> str:
    if name == "cost_usd" and isinstance(value, int | float):
        return terminal.format_usd(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _format_meta(meta: Mapping[str, Any]) -> str:
    """Return the facts of a job, its events and its request."""
    rows: list[tuple[str, str]] = []
    for name, value in meta.items():
        if name in TIME_FIELDS and isinstance(value, int | float):
            shown = _format_clock_time(value)
        elif name == "events":
            shown = "\n".join(map(_format_stored_event, value))
        elif isinstance(value, dict | list):
            shown = json.dumps(value, ensure_ascii=False, indent=2)
        else:
            shown = str(value)
        rows.append((name.replace("_", " "), shown))
    return terminal.format_pairs(rows)


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


_FORMATTERS: Mapping[str, Callable[[Any], str]] = {
    "outline": _format_outline,
    "sources": _format_sources,
    "items": _format_items,
    "files": _format_files,
    "usage": _format_usage,
    "meta": _format_meta,
}
