"""Reads what a stored request asks: its prompt, model and effort. Pure."""

import json

from agent_jobs.jobs.response import JSON, items_of, mapping_of


def prompt_of(request: JSON) -> str:
    """Return the text that a stored request asks with: the last message of its user, without attached files."""
    asked = request.get("input")
    if isinstance(asked, str):
        return asked
    messages = [item for item in items_of(asked) if item.get("role") == "user"]
    if not messages:
        return ""
    content = messages[-1].get("content")
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in items_of(content) if part.get("type") == "input_text"]
    return next((text for text in texts if isinstance(text, str)), "")


def effort_of(request: JSON) -> str:
    """Return the reasoning effort that a request names; empty if it names none."""
    effort = mapping_of(request.get("reasoning")).get("effort")
    return effort if isinstance(effort, str) else ""


def model_of(request: JSON) -> str:
    """Return the model that a request names; empty if it names none."""
    model = request.get("model")
    return model if isinstance(model, str) else ""


def parse_request(body: object) -> JSON:
    """Return the stored body of a request; empty if it is none."""
    try:
        return mapping_of(json.loads(str(body)))
    except ValueError:
        return {}
