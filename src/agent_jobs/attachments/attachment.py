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

from agent_jobs.attachments.decoding import Decoded, decode, is_text

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

WHITE_SPACE = b" \t\r\n\f\v"
#: What is opened by its ending: an empty one is a download or an export that failed.
NEVER_EMPTY = {".pdf", ".png", ".jpg", ".jpeg", ".gif", ".webp", *DATA_TYPES} - {".csv", ".tsv", ".db"}


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
    suffix = suffix_of(name)
    if upload and suffix in DATA_TYPES:
        return "data", DATA_TYPES[suffix]
    if head.startswith(b"%PDF-") or (suffix == ".pdf" and b"%PDF-" in head[:1024]):
        return "pdf", "application/pdf"
    if image := _image_type(head):
        return "image", image
    return ("text", "text/plain") if is_text(head) else None


def suffix_of(name: str) -> str:
    """Return the ending of a name, in small letters."""
    return PurePosixPath(name.rstrip()).suffix.lower()


def is_private_key(head: bytes) -> bool:
    """Return True if a file begins as a private key does, in any encoding."""
    plain = head[:400].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe" + WHITE_SPACE)
    return plain.startswith(b"-----BEGIN ") and b"PRIVATE KEY" in plain[:80]


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
    decoded = decode(attachment.data) or Decoded("", "utf-8")
    text = decoded.text
    used = set(re.findall(r"</file((?:-\d+)?)>", text.lower()))
    tag = "file" + next(end for end in chain([""], (f"-{number}" for number in count(2))) if end not in used)
    return f"<{tag} name={quoteattr(attachment.name)}{_remarks(decoded)}>\n{text.removesuffix(chr(10))}\n</{tag}>"


def _remarks(decoded: Decoded) -> str:
    """Return as attributes what the model has to know of how the text was read."""
    guess = f' encoding="guessed: {decoded.encoding}"' if decoded.is_guess else ""
    if not decoded.unreadable:
        return guess
    places = "1 place is" if decoded.unreadable == 1 else f"{decoded.unreadable:,} places are"
    return f'{guess} damaged="{places} not {decoded.encoding}; U+FFFD stands there"'


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
