"""What a tool answered, as the output of a function call: text within a limit, and images. Pure."""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

#: As much text as a model reads of one call, about 10,000 tokens, and how much of it is the end of what is longer.
TEXT_CHARS, TAIL_CHARS = 40_000, 8_000
#: What the API takes as an image, by how it begins.
IMAGES = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/gif": b"GIF8", "image/webp": b"RIFF"}
#: How much of that one call may bring, in base64.
MAX_IMAGES, IMAGES_CHARS = 8, 8 * 2**20

Part = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Called:
    """What a call brought: the `output` of a `function_call_output`, and whether it tells of a failure."""

    output: str | list[Part]
    failed: bool = False


def called_of(result: CallToolResult, mask: Callable[[str], str]) -> Called:
    """What a tool server answered: a text, or the parts of an input where an image is among them.

    Args:
        result: The answer.
        mask: Takes what is secret out of a text.
    """
    parts = list(_joined(_within_limits(map(_part, result.content))))
    if not parts and result.structured_content is not None:
        parts = [_text(json.dumps(result.structured_content, ensure_ascii=False))]
    room = TEXT_CHARS
    for part in parts:
        if "text" in part:
            part["text"] = cut(mask(part["text"]), room)
            room = max(0, room - len(part["text"]))
    failed = bool(result.is_error)
    if any("image_url" in part for part in parts):
        return Called(parts, failed)
    return Called("".join(part["text"] for part in parts) or "(The tool answered nothing.)", failed)


def cut(text: str, room: int = TEXT_CHARS) -> str:
    """A text within its limit: its beginning and its end, with a note between them of what is missing."""
    text = text.encode(errors="replace").decode()  # half a surrogate pair has no place in a request
    if len(text) <= room:
        return text
    tail = min(TAIL_CHARS, room // 5)
    note = f"\n[{len(text) - room} characters are left out here: ask the tool for less]\n"
    return f"{text[: room - tail]}{note}{text[len(text) - tail :]}"


def _part(block: ContentBlock) -> Part:
    match block:
        case TextContent(text=text):
            return _text(text)
        case ImageContent(data=data, mime_type=mime):
            return _image(data, mime)
        case AudioContent(mime_type=mime):
            return _text(f"[{mime[:80]} is left out: no model here hears it]")
        case ResourceLink(name=name, uri=uri, description=description):
            return _text(" ".join(filter(None, (name, str(uri), description))))
        case EmbeddedResource(resource=resource):
            is_text = isinstance(resource, TextResourceContents)
            return _text(resource.text) if is_text else _image(resource.blob, resource.mime_type or "data")


def _image(data: str, mime: str) -> Part:
    try:
        begins = base64.b64decode(data[:16], validate=True)
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        begins = b""
    if mime in IMAGES and begins.startswith(IMAGES[mime]):
        return {"type": "input_image", "image_url": f"data:{mime};base64,{data}"}
    return _text(f"[{mime[:80]} of {len(data) * 3 // 4} bytes is left out: it is no image that a model takes]")


def _within_limits(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, with notes in the place of images that are too many."""
    images = chars = 0
    for part in parts:
        if "image_url" not in part:
            yield part
            continue
        images, chars = images + 1, chars + len(part["image_url"])
        fits = images <= MAX_IMAGES and chars <= IMAGES_CHARS
        yield part if fits else _text("[An image is left out: the call brought too much of them]")


def _joined(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, with texts that follow each other as one."""
    last: Part | None = None
    for part in parts:
        if last is not None and "text" in last and "text" in part:
            last["text"] += f"\n{part['text']}"
            continue
        last = part
        yield part


def _text(text: str) -> Part:
    return {"type": "input_text", "text": text}
