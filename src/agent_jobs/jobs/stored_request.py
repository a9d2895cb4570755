"""Reads a stored request: its prompt, files, model and effort. Pure."""

import json
import re
from html import unescape
from typing import NamedTuple

from agent_jobs.jobs.response import JSON, items_of, mapping_of

#: The tag before an attached text or image, with its name.
_NAMED_FILE = re.compile(r"<(?P<tag>file|image)(?:-\d+)? name=(?P<quote>[\"'])(?P<name>.*?)(?P=quote)")
_KINDS = {"file": "text", "image": "image"}


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
    if isinstance(effort, str):
        return effort
    return ""


def model_of(request: JSON) -> str:
    """Return the model that a request names; empty if it names none."""
    model = request.get("model")
    if isinstance(model, str):
        return model
    return ""


def parse_request(body: object) -> JSON:
    """Return the stored body of a request; empty if it is none."""
    try:
        return mapping_of(json.loads(str(body)))
    except ValueError:
        return {}


class AttachedFile(NamedTuple):
    """A file that came with a request."""

    name: str
    kind: str  #: text, image or file
    chars: int  #: of the text in the request


def attached_files_of(request: JSON) -> list[AttachedFile]:
    """Return the files in the last message of a request's user, as `attachments` writes them there."""
    messages = [item for item in items_of(request.get("input")) if item.get("role") == "user"]
    if not messages:
        return []
    parts = items_of(messages[-1].get("content"))
    files: list[AttachedFile] = []
    for number, part in enumerate(parts):
        if part.get("type") == "input_file":
            data = part.get("file_data")
            files.append(AttachedFile(str(part.get("filename") or "file"), "file", len(str(data or ""))))
        elif number and part.get("type") == "input_text":
            text = str(part.get("text"))
            if named := _NAMED_FILE.match(text):
                files.append(AttachedFile(unescape(named["name"]), _KINDS[named["tag"]], len(text)))
    return files
