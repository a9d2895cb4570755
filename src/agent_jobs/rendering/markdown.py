"""Write a finished job as a Markdown file."""

import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.response import JSON, Usage
from agent_jobs.rendering.answers import read_output_text, read_response
from agent_jobs.rendering.output import find_sources
from agent_jobs.rendering.short_lines import Entry, collect_lines
from agent_jobs.text import valid_unicode

#: Fields that can name a source, the best first.
_SOURCE_NAMES = ("title", "filename", "url", "file_id", "container_id")
_MARKDOWN_MARKS = re.compile(r"([\\`*_\[\]<>])")
#: Characters that would end a link's target early.
_UNSAFE_IN_TARGET = re.compile(r"[\s<>\\\x00-\x1f]")


def render_markdown(job: Job, prompt: str = "") -> str:
    """Return the Markdown file of a job: its facts as YAML, then its text unchanged, then its sources.

    With a prompt, the prompt is before the text.
    """
    response = read_response(job)
    facts = _collect_facts(job, response)
    question = ""
    if prompt:
        facts |= _collect_more_facts(job)
        question = f"## Prompt\n\n{_quote_block(prompt)}\n\n## Answer"
    parts = [_render_front_matter(collect_lines(facts)), question, read_output_text(job)]
    if sources := find_sources(response.get("output")):
        parts.append(_render_sources(sources))
    return valid_unicode("\n\n".join(filter(None, parts)) + "\n")


def _collect_facts(job: Job, response: JSON) -> dict[str, Any]:
    return {
        "title": job.title,
        "job_id": job.id,
        "status": job.status,
        "error": job.error and str(job.error),
        "model": response.get("model") or job.turn.request.get("model"),
        "response_id": job.turn.response_id,
        "started": _format_time(job.created_at),
        "finished": _format_time(job.finished_at),
        "tokens": _format_tokens(job.usage),
    }


def _collect_more_facts(job: Job) -> dict[str, Any]:
    """Return the facts of an export, which a file of results does not have."""
    facts = {
        "effort": job.effort,
        "preset": job.preset,
        "client": job.client,
        "batch": job.batch,
        "continues": job.previous_job_id,
    }
    if job.cost_usd is None:
        return facts
    return {"cost_usd": f"{job.cost_usd:.6g}", **facts}


def _quote_block(text: str) -> str:
    """Return a text as a quotation, so that none of its marks ends it."""
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _render_front_matter(facts: Entry) -> str:
    lines = (f"{name}: {json.dumps(line, ensure_ascii=False)}" for name, line in facts.items())
    return "\n".join(["---", *lines, "---"])


def _render_sources(sources: list[Entry]) -> str:
    lines = (f"{number}. {_render_link(source)}" for number, source in enumerate(sources, 1))
    return "\n".join(["## Sources", "", *lines])


def _render_link(source: Entry) -> str:
    url: str = source.get("url", "")
    name: str = next(source[field] for field in _SOURCE_NAMES if field in source)
    title = _MARKDOWN_MARKS.sub(r"\\\1", name)
    if not url.startswith(("http://", "https://")):
        return title
    target = _UNSAFE_IN_TARGET.sub(lambda found: quote(found[0]), url)
    return f"[{title}](<{target}>)"


def _format_time(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _format_tokens(usage: Usage | None) -> str | None:
    if usage is None:
        return None
    read = f"{usage.input_tokens} in ({usage.cached_tokens} cached)"
    counts = f"{read}, {usage.output_tokens} out ({usage.reasoning_tokens} reasoning)"
    if usage.partial:
        return f"{counts}, and more that the provider did not count"
    return counts
