"""Read a stored request: its prompt, files, model and effort. Pure."""

import json
import re
from html import unescape
from typing import NamedTuple

from agent_jobs.jobs.response import JSON, items_of, mapping_of, string_of

#: The tag before an attached text or image, with its name.
_NAMED_FILE = re.compile(r"<(?P<tag>file|image)(?:-\d+)? name=(?P<quote>[\"'])(?P<name>.*?)(?P=quote)")
_KINDS = {"file": "text", "image": "image"}


def prompt_of(request: JSON) -> str:
    """Return the text that a stored request asks with: the last message of its user, without attached files."""
    asked = request.get("input")
    if isinstance(asked, str):
        return asked
    content = _find_last_content(request)
    if isinstance(content, str):
        return content
    texts = [string_of(part.get("text")) for part in items_of(content) if part.get("type") == "input_text"]
    return next(iter(texts), "")


def effort_of(request: JSON) -> str:
    """Return the reasoning effort that a request names; empty if it names none."""
    return string_of(mapping_of(request.get("reasoning")).get("effort"))


def model_of(request: JSON) -> str:
    """Return the model that a request names; empty if it names none."""
    return string_of(request.get("model"))


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
    files: list[AttachedFile] = []
    for number, part in enumerate(items_of(_find_last_content(request))):
        match part:
            case {"type": "input_file"}:
                name = string_of(part.get("filename")) or "file"
                files.append(AttachedFile(name, "file", len(string_of(part.get("file_data")))))
            case {"type": "input_text", "text": str() as text} if number and (named := _NAMED_FILE.match(text)):
                files.append(AttachedFile(unescape(named["name"]), _KINDS[named["tag"]], len(text)))
            case _:
                pass
    return files


def _find_last_content(request: JSON) -> object:
    """Return the content of the last message of a request's user; None if there is none."""
    contents = [item.get("content") for item in items_of(request.get("input")) if item.get("role") == "user"]
    return next(reversed(contents), None)
