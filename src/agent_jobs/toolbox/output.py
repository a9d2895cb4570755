"""Convert the answer of a tool to the output of a function call: text within a limit, and images. Pure.

Bytes are recognized by their content, not by their label. A note replaces an omitted part.
"""

import base64
import binascii
import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

TEXT_CHARS = 40_000  # of one call, about 10,000 tokens: more would fill the context of a long job
TAIL_CHARS = 8_000  # of a longer text the end is kept, too, where programs print their errors
#: The image types that the API accepts, by their first bytes.
IMAGES = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR", re.S),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.S),
}
MAX_IMAGES = 8  # of one call: each image costs about as much as a page of text
IMAGES_CHARS = 8 * 2**20  # base64 of the images of one call: every turn sends them again
LABEL_CHARS = 80  # of a label in a note, which may be of any length
ADDRESS_CHARS = 500  # of an address in a note
BASE64_CHARS = 1_000  # a longer base64 string in structured content is no text for a model

#: `data:image/png;base64,`, which some servers put before base64.
_DATA_URL = re.compile(r"\s*data:([^,;]*)((?:;[^,;]*)*),", re.I)
_CHARSET = re.compile(r"charset=[\"']?([\w.:-]+)", re.I)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
#: Media types of texts, also those that do not begin with `text/`.
_TEXTUAL = re.compile(r"\s*(text/|[^;]*[/+.-](json|xml|yaml|toml|javascript|ecmascript|sql|csv|svg|markdown)\b)", re.I)
#: Characters that occur in no text.
_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
#: Beginnings of documents that are no text, although all bytes may be letters.
_NO_TEXT_BYTES = (b"%PDF-", b"%!PS")
_DRAWING = re.compile(r"\s*<(\?xml|!DOCTYPE svg|svg|!--)")
_WEB_ADDRESS = re.compile(r"\s*https?://")
#: The forms in which servers write their structured content as JSON into a text.
_JSON_FORMS: Sequence[dict[str, Any]] = ({}, {"separators": (",", ":")}, {"indent": 2})
#: The output of a call without any, by whether it failed.
_WORDS_FOR_NOTHING = {False: "(The tool returned nothing.)", True: "(The tool failed without a message.)"}

Part = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """The `output` of a `function_call_output`, and whether the call failed."""

    output: str | list[Part]
    failed: bool = False


def read_output(result: CallToolResult, mask: Callable[[str], str]) -> ToolOutput:
    """Return the answer of a tool server: a text, or the parts of an input if there are images in it.

    Args:
        result: The answer.
        mask: Removes secrets from a text.
    """
    failed = bool(result.is_error)
    found = [*map(_read_block, result.content)]
    structured = result.structured_content
    if structured is not None and not _is_repeated(structured, [part["text"] for part in found if "text" in part]):
        found.append(_build_text_part(json.dumps(_replace_base64(structured), ensure_ascii=False)))
    match list(_limit_texts(_limit_images(found), mask)):
        case [{"text": text}] if text.strip():
            return ToolOutput(text, failed)
        case [] | [{"text": _}]:
            return ToolOutput(_WORDS_FOR_NOTHING[failed], failed)
        case parts:
            return ToolOutput(parts, failed)


def cut_text(text: str, room: int = TEXT_CHARS) -> str:
    """Return a text within its limit: its beginning and its end, with a note about the omission between them."""
    text = text.encode(errors="replace").decode()  # a request cannot contain half a surrogate pair
    if len(text) <= room:
        return text
    tail = min(TAIL_CHARS, room // 5)
    note = f"\n[{len(text) - room} characters are left out here: ask the tool for less]\n"
    return f"{text[: room - tail]}{note}{text[len(text) - tail :]}"


def describe_left_out(what: str, why: str) -> str:
    """Return the note in place of an omitted part."""
    return f"[{what} is left out: {why}]"


def _read_block(block: ContentBlock) -> Part:
    match block:
        case TextContent(text=text):
            return _read_text(text)
        case ImageContent(data=data, mime_type=mime):
            return _read_bytes(data, mime)
        case AudioContent(data=data, mime_type=mime):
            return _read_bytes(data, mime, is_sound=True)
        case ResourceLink(name=name, uri=uri, description=description):
            return _build_text_part(" ".join(filter(None, (name, str(uri), description))))
        case EmbeddedResource(resource=resource):
            return _read_resource(resource)


def _read_resource(resource: TextResourceContents | BlobResourceContents) -> Part:
    match resource:
        case TextResourceContents(text=text):
            return _build_text_part(text)
        case BlobResourceContents(blob=blob, mime_type=mime):
            return _read_bytes(blob, mime or "", is_document=True)


def _read_text(text: str) -> Part:
    """Return a text, or the content of a data address that stands in its place."""
    address = _DATA_URL.match(text)
    if address is not None and _BASE64.fullmatch(text, address.end()):
        return _read_bytes(text, "", is_document=True)
    return _build_text_part(text)


def _read_bytes(data: str, label: str, *, is_document: bool = False, is_sound: bool = False) -> Part:
    """Return the content of base64 as an image or a text if it is one, else a note that it is left out.

    Args:
        data: The base64, or a data address.
        label: Its media type according to the tool.
        is_document: Whether any text is accepted, and not only a drawing in XML.
        is_sound: Whether it was sent as sound.
    """
    raw, label = _decode_base64(data, label)
    name = label[:LABEL_CHARS].strip() or "data"
    if raw is None:
        return _describe_no_base64(data, name)
    kind = _recognize_api_image(raw)
    if kind is not None:
        return {"type": "input_image", "image_url": f"data:{kind};base64,{base64.b64encode(raw).decode()}"}
    text = _decode_text(raw, label)
    if text is not None and (is_document or _DRAWING.match(text)):
        return _build_text_part(text)
    if is_sound:
        return _build_text_part(describe_left_out(name, "models do not accept sound here"))
    return _build_text_part(describe_left_out(f"{name} of {len(raw)} bytes", "it is not an image that a model accepts"))


def _describe_no_base64(data: str, name: str) -> Part:
    if _WEB_ADDRESS.match(data):
        reason = f"the tool sent an address and not the data: {data.strip()[:ADDRESS_CHARS]}"
        return _build_text_part(describe_left_out(name, reason))
    size = len(data) * 3 // 4
    return _build_text_part(describe_left_out(f"{name} of {size} bytes", "it is not base64"))


def _recognize_api_image(raw: bytes) -> str | None:
    return next((media_type for media_type, begin in IMAGES.items() if begin.match(raw)), None)


def _decode_base64(data: str, label: str) -> tuple[bytes | None, str]:
    """Return the bytes of base64 in any of its forms, None for anything else; and their label."""
    address = _DATA_URL.match(data)
    if address is not None:
        data = data[address.end() :]
        label = label or f"{address[1]}{address[2]}"
        if "base64" not in address[2].lower():
            return unquote_to_bytes(data), label
    letters = re.sub(r"\s+|%0[ad]", "", data, flags=re.I).replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")
    letters = letters.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True), label
    except (binascii.Error, ValueError):
        return None, label


def _decode_text(raw: bytes, label: str) -> str | None:
    """Return bytes as the text that they are, None if they are no text."""
    if raw.startswith(_NO_TEXT_BYTES):
        return None
    text = _decode_charsets(raw, label)
    if text is None or _NO_TEXT.search(text):
        return None
    return text


def _decode_charsets(raw: bytes, label: str) -> str | None:
    """Return bytes in the charset of the label, else as UTF, else what the label calls a text; None if it does not."""
    charsets: list[str] = _CHARSET.findall(label)[:1]
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        charsets.append("utf-16")
    else:
        charsets.append("utf-8-sig")
    for charset in charsets:
        with suppress(LookupError, ValueError):
            return raw.decode(charset)
    if _TEXTUAL.match(label):
        return raw.decode("cp1252", errors="replace")  # the encoding of older programs on Windows
    return None


def _is_repeated(structured: Any, texts: Sequence[str]) -> bool:
    """Return True if the texts of an answer contain all of its structured content."""
    if not texts:
        return False
    values = [structured]
    match structured:
        case {"result": result, **others} if not others:  # the form in which servers wrap values that are no objects
            values.append(result)
        case _:
            pass
    return any(_is_value_of_texts(value, texts) for value in values) or any(
        _has_json(structured, text) for text in texts
    )


def _is_value_of_texts(value: Any, texts: Sequence[str]) -> bool:
    """Return True if a value is one of the texts, as it is or as JSON, or the list of all."""
    parsed = [*map(_read_json, texts)]
    return value in (*texts, *parsed, [*texts], parsed)


def _has_json(structured: Any, text: str) -> bool:
    return any(json.dumps(structured, ensure_ascii=False, **form) in text for form in _JSON_FORMS)


def _read_json(text: str) -> Any:
    """Return the value of a text that is JSON, also inside a fence; else an object that equals no other."""
    try:
        return json.loads(re.sub(r"\A\s*```\w*\n|\n```\s*\Z", "", text))
    except (ValueError, RecursionError):
        return object()


def _replace_base64(value: Any) -> Any:
    """Return structured content with a note in the place of each string of base64."""
    match value:
        case str():
            if len(value) <= BASE64_CHARS or not _BASE64.fullmatch(value[value.find(",") + 1 :]):
                return value
            return describe_left_out(f"base64 of {len(value)} characters", "a model cannot read it")
        case dict():
            return {name: _replace_base64(each) for name, each in cast("dict[str, Any]", value).items()}
        case list():
            return [_replace_base64(each) for each in cast("list[Any]", value)]
        case _:
            return value


def _limit_images(parts: Iterable[Part]) -> Iterator[Part]:
    """Yield the parts, with notes in the place of images that are too many."""
    images = chars = 0
    for part in parts:
        if "image_url" not in part:
            yield part
            continue
        images += 1
        chars += len(part["image_url"])
        if images <= MAX_IMAGES and chars <= IMAGES_CHARS:
            yield part
        else:
            yield _build_text_part("[An image is left out: the call returned too many]")


def _limit_texts(parts: Iterable[Part], mask: Callable[[str], str]) -> Iterator[Part]:
    """Yield the parts, with adjacent texts joined, masked, and cut to their common limit."""
    room = TEXT_CHARS
    for is_text, run in groupby(parts, lambda part: "text" in part):
        if is_text:
            text = cut_text(mask("\n".join(part["text"] for part in run)), room)
            room = max(0, room - len(text))
            yield _build_text_part(text)
        else:
            yield from run


def _build_text_part(text: str) -> Part:
    return {"type": "input_text", "text": text}
