"""Read the text of a file in the encoding in which it was saved."""

import re
import unicodedata
from dataclasses import dataclass

from agent_jobs.files.text_file import BOM, find_marked_encoding

#: Bytes that do not occur in text of any encoding; form feed, backspace and escape do occur.
_CONTROLS = bytes({*range(32)} - {*b"\t\n\r\f\b\x1b"})
_NOT_IN_TEXT = {"Cc", "Cn", "Co", "Cs"}  # controls, unassigned, private, surrogates
_WITHOUT_WHITE_SPACE = dict.fromkeys(b"\t\n\r\f")  # of the controls, text has these
SAMPLE_BYTES = 8_000  # UTF-16 without a mark shows within these
REPLACEMENT = "\ufffd"
#: Characters of UTF-8. As Windows-1252 the first are Â or Ã before a symbol, which hardly any text holds; the others
#: may be a capital before a closing quote.
_CERTAIN = re.compile(rb"[\xc2\xc3][\x80-\xbf]")
_LIKELY = re.compile(rb"[\xc4-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_WINDOWS = re.compile(rb"[\x80-\x9f]")  # characters in Windows-1252 and controls in Latin-1
_UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")  # no characters in either


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text, its encoding, and the number of unreadable places, which are now U+FFFD."""

    text: str
    encoding: str
    is_guess: bool = False
    unreadable: int = 0


def is_text(head: bytes) -> bool:
    """Return True if a file that begins so may be text."""
    return find_marked_encoding(head) is not None or b"\0" not in head or _detect_utf16(head) is not None


def decode_file(data: bytes) -> Decoded | None:
    """Return the text of a whole file, None for a binary file.

    UTF-8, and UTF-16 or UTF-32 with a byte order mark, are known. Everything else is a guess: UTF-16 without a mark,
    UTF-8 with a few bytes that are not, Windows-1252, Latin-1.
    """
    if encoding := find_marked_encoding(data):
        return _decode_marked(data, encoding)
    if b"\0" in data:
        return _decode_unmarked_utf16(data)
    try:
        return Decoded(data.decode(), "utf-8")
    except UnicodeDecodeError:
        return _guess_encoding(data)


def _decode_marked(data: bytes, encoding: str) -> Decoded | None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return _decode_replacing(data, encoding)
    if "\0" in text:
        return None
    return Decoded(text.lstrip(BOM), encoding)


def _decode_unmarked_utf16(data: bytes) -> Decoded | None:
    encoding = _detect_utf16(data[:SAMPLE_BYTES])
    if encoding is None:
        return None
    return _decode_replacing(data, encoding, is_guess=True)


def _guess_encoding(data: bytes) -> Decoded | None:
    """Decode bytes that are not UTF-8 in the encoding that leaves the fewest strange characters."""
    if data.translate(None, _CONTROLS) != data:
        return None
    as_utf8 = _decode_replacing(data, "utf-8")
    if as_utf8 and 2 * len(_CERTAIN.findall(data)) + len(_LIKELY.findall(data)) > as_utf8.unreadable:
        return as_utf8
    if len(_WINDOWS.findall(data)) > 2 * len(_UNDEFINED.findall(data)):
        return _decode_replacing(data, "windows-1252", is_guess=True)
    return Decoded(data.decode("latin-1"), "latin-1", is_guess=True)


def _decode_replacing(data: bytes, encoding: str, *, is_guess: bool = False) -> Decoded | None:
    """Return the text with U+FFFD in its unreadable places, None if these are more than half of it."""
    text = data.decode(encoding, "replace").lstrip(BOM)
    written = REPLACEMENT.encode(encoding, "ignore")
    unreadable = text.count(REPLACEMENT)
    if written:
        unreadable -= data.count(written)  # the file itself may hold U+FFFD
    if "\0" in text or 2 * unreadable > len(text):
        return None
    return Decoded(text, encoding, is_guess, unreadable)


def _detect_utf16(head: bytes) -> str | None:
    """Return the byte order of UTF-16 without a mark, where every second byte of most characters is zero; else None."""
    pairs = len(head) // 2
    zeros = (head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0))
    if pairs < 2 or min(zeros) or 2 * max(zeros) < pairs:
        return None
    encoding = "utf-16-be"
    if zeros[1]:
        encoding = "utf-16-le"
    text = head[: 2 * pairs].decode(encoding, "replace")
    categories = map(unicodedata.category, text.translate(_WITHOUT_WHITE_SPACE))
    if _NOT_IN_TEXT.isdisjoint(categories):
        return encoding
    return None
