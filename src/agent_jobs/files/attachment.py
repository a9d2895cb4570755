"""What a file is to the model: recognised by its content, told with its name, counted in tokens."""

import base64
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import PurePosixPath
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

Kind = Literal["text", "image", "pdf", "data"]

#: Enough to tell what a file is; git looks at as much.
HEAD_BYTES = 8_000
#: What the code interpreter works on rather than the model reads.
DATA_TYPES: Mapping[str, str] = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".xls": "application/vnd.ms-excel",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".zip": "application/zip",
    ".tar": "application/x-tar",
    ".gz": "application/gzip",
    ".parquet": "application/vnd.apache.parquet",
    ".sqlite": "application/vnd.sqlite3",
    ".db": "application/vnd.sqlite3",
    ".pkl": "application/octet-stream",
    ".npy": "application/octet-stream",
    ".npz": "application/octet-stream",
}

#: English prose has about 4 characters a token; a CJK character is about one token and 3 bytes of UTF-8.
ASCII_PER_TOKEN, OTHER_BYTES_PER_TOKEN = 4, 3
#: Models since gpt-5.6 count an image as patches of 32 x 32 pixels, without an upper limit.
PATCH_PIXELS = 32
#: For an image whose size cannot be read: what most older models cut every image to.
IMAGE_TOKENS = 1_536
#: A page is given to the model as its text and as a picture of it.
PDF_PAGE_TOKENS = 1_500
#: For a PDF that packs its pages away: a page of text with some graphics.
PDF_PAGE_BYTES = 50_000

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
#: What no text holds in any encoding; form feed, backspace and escape do occur.
_CONTROLS = bytes({*range(32)} - {*b"\t\n\r\f\b\x1b"})


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file as it was read: `name` is relative to its root, with `/`, as the model is told."""

    name: str
    kind: Kind
    media_type: str
    data: bytes


def recognised(name: str, head: bytes, *, upload: bool = False) -> tuple[Kind, str] | None:
    """Kind and media type by the first HEAD_BYTES of a file, None for what no model can be shown.

    Args:
        name: Its name, whose ending decides only where the content does not.
        head: Its first bytes.
        upload: Whether it may be uploaded to the code interpreter: then what is known as data is `data`.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if upload and suffix in DATA_TYPES:
        return "data", DATA_TYPES[suffix]
    if head.startswith(b"%PDF-") or (suffix == ".pdf" and b"%PDF-" in head[:1024]):
        return "pdf", "application/pdf"
    if image := _image_type(head):
        return "image", image
    return ("text", "text/plain") if _marked(head) or b"\0" not in head else None


def text_of(data: bytes) -> tuple[str, str] | None:
    """The text of a whole file and its encoding, None for a binary file.

    UTF-8, and UTF-16 or UTF-32 with a byte order mark, are known; anything else without control characters is read as
    Latin-1, which reads every byte, and the model is told that this is a guess.
    """
    encoding = _marked(data) or "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8" or data.translate(None, _CONTROLS) != data:
            return None
        return data.decode("latin-1"), "latin-1"
    return None if "\0" in text else (text, encoding)


def parts(attachments: Iterable[Attachment]) -> list[dict[str, Any]]:
    """The attachments as content parts of a message to the Responses API.

    Text stands between tags that carry its name and do not occur in it; an image follows its name. What is `data` has
    no part: it is uploaded.
    """
    return [part for attachment in attachments for part in _parts(attachment)]


def estimate_tokens(attachments: Iterable[Attachment]) -> int:
    """Roughly how many input tokens the attachments cost; upstream's own count may differ by a third or more."""
    return sum(_tokens(attachment) for attachment in attachments)


def described(attachments: Iterable[Attachment]) -> list[dict[str, Any]]:
    """The attachments as a dry run shows them: name, bytes and kind."""
    return [{"name": one.name, "bytes": len(one.data), "kind": one.kind} for one in attachments]


def _parts(attachment: Attachment) -> list[dict[str, Any]]:
    match attachment.kind:
        case "text":
            return [{"type": "input_text", "text": _fenced(attachment)}]
        case "image":
            named = f"<image name={quoteattr(attachment.name)}/>"
            return [
                {"type": "input_text", "text": named},
                {"type": "input_image", "detail": "auto", "image_url": _data_url(attachment)},
            ]
        case "pdf":
            return [{"type": "input_file", "filename": attachment.name, "file_data": _data_url(attachment)}]
        case "data":
            return []


def _fenced(attachment: Attachment) -> str:
    text, encoding = text_of(attachment.data) or ("", "")
    guess = ' encoding="guessed: latin-1"' if encoding == "latin-1" else ""
    used = set(re.findall(r"</file((?:-\d+)?)>", text.lower()))
    tag = "file" + next(end for end in chain([""], (f"-{number}" for number in count(2))) if end not in used)
    return f"<{tag} name={quoteattr(attachment.name)}{guess}>\n{text.removesuffix(chr(10))}\n</{tag}>"


def _data_url(attachment: Attachment) -> str:
    return f"data:{attachment.media_type};base64,{base64.b64encode(attachment.data).decode()}"


def _tokens(attachment: Attachment) -> int:
    match attachment.kind:
        case "text":
            text = _fenced(attachment)
            ascii_chars = len(text.encode("ascii", "ignore"))
            other_bytes = len(text.encode()) - ascii_chars
            return -(-ascii_chars // ASCII_PER_TOKEN) + -(-other_bytes // OTHER_BYTES_PER_TOKEN)
        case "image":
            size = _pixels(attachment.data)
            return -(-size[0] // PATCH_PIXELS) * -(-size[1] // PATCH_PIXELS) if size else IMAGE_TOKENS
        case "pdf":
            pages = len(re.findall(rb"/Type\s*/Page(?![A-Za-z])", attachment.data))
            return PDF_PAGE_TOKENS * (pages or -(-len(attachment.data) // PDF_PAGE_BYTES))
        case "data":
            return 0


def _marked(data: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def _image_type(head: bytes) -> str | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def _pixels(data: bytes) -> tuple[int, int] | None:
    """Width and height as an image's header tells them."""
    try:
        if data.startswith(b"\x89PNG"):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(b"GIF"):
            return struct.unpack_from("<HH", data, 6)
        return _jpeg_pixels(data) if data.startswith(b"\xff\xd8") else _webp_pixels(data)
    except (struct.error, IndexError):
        return None


def _jpeg_pixels(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", data, at)
        # The frame headers, among which DHT, JPG and DAC have their markers.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + length
    return None


def _webp_pixels(data: bytes) -> tuple[int, int] | None:
    match data[12:16]:
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            return None
