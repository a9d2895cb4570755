"""What a tool answered, as the output of a function call: text within a limit, and images. Pure.

Bytes are taken for what they are, whatever their label says. What is not passed on is said in its place.
"""

import base64
import binascii
import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote_to_bytes

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
IMAGES = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR", re.S),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.S),
}
#: How much of that one call may bring, in base64.
MAX_IMAGES, IMAGES_CHARS = 8, 8 * 2**20
#: How much of a label is repeated.
LABEL_CHARS = 80
#: A text in structured content that is longer and nothing but base64 is no text for a model.
BASE64_CHARS = 1_000

#: `data:image/png;base64,`, which some put before what is base64 anyway.
_DATA_URL = re.compile(r"\s*data:([^,;]*)((?:;[^,;]*)*),", re.I)
_CHARSET = re.compile(r"charset=[\"']?([\w.:-]+)", re.I)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
#: Labels of what is written in letters though they do not begin with `text/`.
_TEXTUAL = re.compile(r"\s*(text/|[^;]*[/+.-](json|xml|yaml|toml|javascript|ecmascript|sql|csv|svg|markdown)\b)", re.I)
#: Characters that stand in no text.
_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
#: What is no text though all of it may be letters.
_NO_TEXT_BYTES = (b"%PDF-", b"%!PS")

Part = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a call brought: the `output` of a `function_call_output`, and whether it tells of a failure."""

    output: str | list[Part]
    failed: bool = False


def read_output(result: CallToolResult, mask: Callable[[str], str]) -> ToolOutput:
    """What a tool server answered: a text, or the parts of an input where an image is among them.

    Args:
        result: The answer.
        mask: Takes what is secret out of a text.
    """
    failed = bool(result.is_error)
    found = [_read_block(block) for block in result.content]
    structured = result.structured_content
    if structured is not None and not _is_repeated(structured, [part["text"] for part in found if "text" in part]):
        found.append(_build_text_part(json.dumps(_replace_base64(structured), ensure_ascii=False)))
    parts = list(_join_texts(_limit_images(found)))
    room = TEXT_CHARS
    for part in parts:
        if "text" in part:
            part["text"] = cut_text(mask(part["text"]), room)
            room = max(0, room - len(part["text"]))
    if any("image_url" in part for part in parts):
        return ToolOutput(parts, failed)
    nothing = "(The tool failed without a word.)" if failed else "(The tool answered nothing.)"
    text = "".join(part["text"] for part in parts)
    return ToolOutput(text if text.strip() else nothing, failed)


def cut_text(text: str, room: int = TEXT_CHARS) -> str:
    """A text within its limit: its beginning and its end, with a note between them of what is missing."""
    text = text.encode(errors="replace").decode()  # half a surrogate pair has no place in a request
    if len(text) <= room:
        return text
    tail = min(TAIL_CHARS, room // 5)
    note = f"\n[{len(text) - room} characters are left out here: ask the tool for less]\n"
    return f"{text[: room - tail]}{note}{text[len(text) - tail :]}"


def describe_left_out(what: str, why: str) -> str:
    """Return the line that stands where something is not passed on."""
    return f"[{what} is left out: {why}]"


def _read_block(block: ContentBlock) -> Part:
    match block:
        case TextContent(text=text):
            address = _DATA_URL.match(text)
            is_data = address is not None and _BASE64.fullmatch(text, address.end()) is not None
            return _read_bytes(text, "", is_document=True) if is_data else _build_text_part(text)
        case ImageContent(data=data, mime_type=mime):
            return _read_bytes(data, mime)
        case AudioContent(data=data, mime_type=mime):
            return _read_bytes(data, mime, is_sound=True)
        case ResourceLink(name=name, uri=uri, description=description):
            return _build_text_part(" ".join(filter(None, (name, str(uri), description))))
        case EmbeddedResource(resource=resource):
            if isinstance(resource, TextResourceContents):
                return _build_text_part(resource.text)
            return _read_bytes(resource.blob, resource.mime_type or "", is_document=True)


def _read_bytes(data: str, label: str, *, is_document: bool = False, is_sound: bool = False) -> Part:
    """Return what is in base64 as an image or a text if it is one, and else that it is left out.

    Args:
        data: The base64, or a data address.
        label: The type of it, as the tool has it.
        is_document: Whether it may be any text, and not only a drawing that is written in letters.
        is_sound: Whether it was sent as one.
    """
    raw, label = _decode_base64(data, label)
    name = label[:LABEL_CHARS].strip() or "data"
    if raw is None:
        if re.match(r"\s*https?://", data):
            return _build_text_part(
                describe_left_out(name, f"the tool sent an address and not the data: {data.strip()[:500]}")
            )
        size = len(data) * 3 // 4
        return _build_text_part(describe_left_out(f"{name} of {size} bytes", "it is not base64"))
    kind = next((mime for mime, begins in IMAGES.items() if begins.match(raw)), None)
    if kind is not None:
        return {"type": "input_image", "image_url": f"data:{kind};base64,{base64.b64encode(raw).decode()}"}
    written = _decode_text(raw, label)
    if written is not None and (is_document or re.match(r"\s*<(\?xml|!DOCTYPE svg|svg|!--)", written)):
        return _build_text_part(written)
    if is_sound:
        return _build_text_part(describe_left_out(name, "no model here hears it"))
    return _build_text_part(describe_left_out(f"{name} of {len(raw)} bytes", "it is no image that a model takes"))


def _decode_base64(data: str, label: str) -> tuple[bytes | None, str]:
    """Return the bytes of base64 in any of its forms, None where it is something else; and their label."""
    address = _DATA_URL.match(data)
    if address is not None:
        data, label = data[address.end() :], label or f"{address[1]}{address[2]}"
        if "base64" not in address[2].lower():
            return unquote_to_bytes(data), label
    letters = re.sub(r"\s+|%0[ad]", "", data, flags=re.I).replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")
    letters = letters.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True), label
    except (binascii.Error, ValueError):
        return None, label


def _decode_text(raw: bytes, label: str) -> str | None:
    """Return bytes as the text that they are; None where they are none."""
    if raw.startswith(_NO_TEXT_BYTES):
        return None
    named = _CHARSET.search(label)
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = None
    for charset in filter(None, (named and named[1], "utf-16" if wide else "utf-8-sig")):
        try:
            text = raw.decode(charset)
            break
        except (LookupError, ValueError):
            continue
    if text is None and _TEXTUAL.match(label):
        text = raw.decode("cp1252", errors="replace")  # what is left of older Windows
    return None if text is None or _NO_TEXT.search(text) else text


def _is_repeated(structured: Any, texts: Sequence[str]) -> bool:
    """Return True if the texts of an answer hold all that its structured content does."""
    if not texts:
        return False
    held: list[Any] = [structured]
    if isinstance(structured, dict) and cast("dict[str, Any]", structured).keys() == {"result"}:
        held.append(structured["result"])  # as servers wrap what is no object
    read = [_read_json(text) for text in texts]
    if any(each in read or each in texts or each == read or each == [*texts] for each in held):
        return True
    forms: Sequence[dict[str, Any]] = ({}, {"separators": (",", ":")}, {"indent": 2})
    return any(json.dumps(structured, ensure_ascii=False, **form) in text for form in forms for text in texts)


def _read_json(text: str) -> Any:
    """Return the value of a text that is JSON, also inside a fence; else something that equals nothing."""
    try:
        return json.loads(re.sub(r"\A\s*```\w*\n|\n```\s*\Z", "", text))
    except (ValueError, RecursionError):
        return object()


def _replace_base64(value: Any) -> Any:
    """Return structured content with a note in the place of each text that only a program can read."""
    if isinstance(value, str):
        if len(value) <= BASE64_CHARS or not _BASE64.fullmatch(value[value.find(",") + 1 :]):
            return value
        return describe_left_out(f"base64 of {len(value)} characters", "a model cannot read it")
    if isinstance(value, dict):
        return {name: _replace_base64(each) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_replace_base64(each) for each in cast("list[Any]", value)]
    return value


def _limit_images(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, with notes in the place of images that are too many."""
    images = chars = 0
    for part in parts:
        if "image_url" not in part:
            yield part
            continue
        images, chars = images + 1, chars + len(part["image_url"])
        fits = images <= MAX_IMAGES and chars <= IMAGES_CHARS
        yield part if fits else _build_text_part("[An image is left out: the call brought too much of them]")


def _join_texts(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, with texts that follow each other as one."""
    last: Part | None = None
    for part in parts:
        if last is not None and "text" in last and "text" in part:
            last["text"] += f"\n{part['text']}"
            continue
        last = part
        yield part


def _build_text_part(text: str) -> Part:
    return {"type": "input_text", "text": text}
