"""Recognize a file by its content, show it to the model with its name, and count its tokens."""

import base64
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count
from math import ceil
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple
from xml.sax.saxutils import quoteattr

from agent_jobs.attachments.decoding import Decoded, decode_file, is_text

Kind = Literal["text", "image", "pdf", "data"]

HEAD_BYTES = 8_000  # enough to recognize a file; git reads the same number
#: Files for the code interpreter rather than for the model to read.
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

ASCII_PER_TOKEN = 4  # in English prose
OTHER_BYTES_PER_TOKEN = 3  # a CJK character is about one token and 3 bytes of UTF-8
PATCH_PIXELS = 32  # models since gpt-5.6 count an image as patches of 32 x 32 pixels, without an upper limit
IMAGE_TOKENS = 1_536  # an image whose size cannot be read: most older models shrink every image to this
PDF_PAGE_TOKENS = 1_500  # the model reads a page as its text and as a picture of it
PDF_PAGE_BYTES = 50_000  # a page of text with some graphics, for a PDF whose pages are compressed

WHITE_SPACE = b" \t\r\n\f\v"
#: Endings of files that have a format: an empty one is a failed download or export.
NEVER_EMPTY = {".pdf", ".png", ".jpg", ".jpeg", ".gif", ".webp", *DATA_TYPES} - {".csv", ".tsv", ".db"}


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file as it was read. The model sees `name`, which is relative to the root and written with `/`."""

    name: str
    kind: Kind
    media_type: str
    data: bytes


def recognize(name: str, head: bytes, *, upload: bool = False) -> tuple[Kind, str] | None:
    """Return the kind and the media type by the first HEAD_BYTES of a file, None if no model can read it.

    Args:
        name: Its name, whose ending decides only where the content does not.
        head: Its first bytes.
        upload: Whether it may be uploaded to the code interpreter: then a file of DATA_TYPES is `data`.
    """
    suffix = suffix_of(name)
    if upload and suffix in DATA_TYPES:
        return "data", DATA_TYPES[suffix]
    if head.startswith(b"%PDF-") or (suffix == ".pdf" and b"%PDF-" in head[:1024]):
        return "pdf", "application/pdf"
    if image := _recognize_image(head):
        return "image", image
    if is_text(head):
        return "text", "text/plain"
    return None


def suffix_of(name: str) -> str:
    """Return the ending of a name in small letters."""
    return PurePosixPath(name.rstrip()).suffix.lower()


def is_private_key(head: bytes) -> bool:
    """Return True if a file begins as a private key does, in any encoding."""
    plain = head[:400].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe" + WHITE_SPACE)
    return plain.startswith(b"-----BEGIN ") and b"PRIVATE KEY" in plain[:80]


def build_content_parts(attachments: Iterable[Attachment]) -> list[dict[str, Any]]:
    """Return the attachments as content parts of a message to the Responses API.

    Text is between tags that have its name and do not occur in it; an image follows its name. `data` has no part,
    since it is uploaded.
    """
    return list(chain.from_iterable(map(_build_parts_of, attachments)))


def estimate_tokens(attachments: Iterable[Attachment]) -> int:
    """Return about how many input tokens the attachments cost; upstream's own count may differ by a third or more."""
    return sum(map(_estimate_tokens_of, attachments))


def describe_attachments(attachments: Iterable[Attachment]) -> list[dict[str, Any]]:
    """Return the attachments as a dry run shows them: name, bytes and kind."""
    return [{"name": one.name, "bytes": len(one.data), "kind": one.kind} for one in attachments]


def _build_parts_of(attachment: Attachment) -> list[dict[str, Any]]:
    match attachment.kind:
        case "text":
            return [{"type": "input_text", "text": _fence_text(attachment)}]
        case "image":
            named = f"<image name={quoteattr(attachment.name)}/>"
            return [
                {"type": "input_text", "text": named},
                {"type": "input_image", "detail": "auto", "image_url": _encode_data_url(attachment)},
            ]
        case "pdf":
            return [{"type": "input_file", "filename": attachment.name, "file_data": _encode_data_url(attachment)}]
        case "data":
            return []


def _fence_text(attachment: Attachment) -> str:
    decoded = decode_file(attachment.data) or Decoded("", "utf-8")
    text = decoded.text
    used = set(re.findall(r"</file((?:-\d+)?)>", text.lower()))
    endings = chain([""], (f"-{number}" for number in count(2)))
    tag = "file" + next(ending for ending in endings if ending not in used)
    attributes = f"name={quoteattr(attachment.name)}{_describe_decoding(decoded)}"
    return f"<{tag} {attributes}>\n{text.removesuffix(chr(10))}\n</{tag}>"


def _describe_decoding(decoded: Decoded) -> str:
    """Return attributes that warn the model of a guessed encoding and of unreadable places."""
    attributes = ""
    if decoded.is_guess:
        attributes += f' encoding="guessed: {decoded.encoding}"'
    if decoded.unreadable:
        places = f"{decoded.unreadable:,} places are"
        if decoded.unreadable == 1:
            places = "1 place is"
        attributes += f' damaged="{places} not {decoded.encoding}; U+FFFD stands there"'
    return attributes


def _encode_data_url(attachment: Attachment) -> str:
    return f"data:{attachment.media_type};base64,{base64.b64encode(attachment.data).decode()}"


def _estimate_tokens_of(attachment: Attachment) -> int:
    match attachment.kind:
        case "text":
            return _estimate_text_tokens(_fence_text(attachment))
        case "image":
            return _estimate_image_tokens(attachment.media_type, attachment.data)
        case "pdf":
            pages = len(re.findall(rb"/Type\s*/Page(?![A-Za-z])", attachment.data))
            return PDF_PAGE_TOKENS * (pages or ceil(len(attachment.data) / PDF_PAGE_BYTES))
        case "data":
            return 0


def _estimate_text_tokens(text: str) -> int:
    ascii_chars = len(text.encode("ascii", "ignore"))
    other_bytes = len(text.encode()) - ascii_chars
    return ceil(ascii_chars / ASCII_PER_TOKEN) + ceil(other_bytes / OTHER_BYTES_PER_TOKEN)


def _estimate_image_tokens(media_type: str, data: bytes) -> int:
    try:
        size = _IMAGES[media_type].read_size(data)
    except (struct.error, IndexError):
        size = None
    if size is None:
        return IMAGE_TOKENS
    width, height = size
    return ceil(width / PATCH_PIXELS) * ceil(height / PATCH_PIXELS)


def _recognize_image(head: bytes) -> str | None:
    return next((media_type for media_type, image in _IMAGES.items() if image.begin.match(head)), None)


def _read_png_size(data: bytes) -> tuple[int, int]:
    return struct.unpack_from(">II", data, 16)


def _read_gif_size(data: bytes) -> tuple[int, int]:
    return struct.unpack_from("<HH", data, 6)


def _read_jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", data, at)
        # The frame headers, among which DHT, JPG and DAC have their markers.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + length
    return None


def _read_webp_size(data: bytes) -> tuple[int, int] | None:
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


class _ImageFormat(NamedTuple):
    """The first bytes of an image, and the function that reads its width and height; None if they are not there."""

    begin: re.Pattern[bytes]
    read_size: Callable[[bytes], tuple[int, int] | None]


#: The images that the API accepts, by their media type.
_IMAGES = {
    "image/png": _ImageFormat(re.compile(rb"\x89PNG\r\n\x1a\n"), _read_png_size),
    "image/jpeg": _ImageFormat(re.compile(rb"\xff\xd8\xff"), _read_jpeg_size),
    "image/gif": _ImageFormat(re.compile(rb"GIF8[79]a"), _read_gif_size),
    "image/webp": _ImageFormat(re.compile(rb"RIFF.{4}WEBP", re.DOTALL), _read_webp_size),
}
