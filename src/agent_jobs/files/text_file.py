"""Read text files of other programs in the encoding of their byte order mark, and remove the mark."""

import io
from pathlib import Path
from typing import TextIO

BOM = "\ufeff"
_ENCODINGS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


def find_marked_encoding(data: bytes) -> str | None:
    """Return the encoding that a byte order mark names, None without a mark."""
    return next((encoding for mark, encoding in _ENCODINGS if data.startswith(mark)), None)


def decode_text(data: bytes, errors: str = "strict") -> str:
    """Return bytes as text without byte order marks: UTF-8, or what a mark at the beginning names.

    Programs on Windows write a mark, PowerShell also UTF-16. Files that were joined have one before a line.

    Raises:
        UnicodeDecodeError: The bytes are something else.
    """
    text = data.decode(find_marked_encoding(data) or "utf-8", errors)
    if BOM not in text:
        return text
    return text.lstrip(BOM).replace(f"\n{BOM}", "\n")


def read_text(path: Path) -> str:
    r"""Return the text of a file as `decode_text` does, with \n at the end of each line.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: It is not text.
    """
    return decode_text(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")


def explain_read_error(error: OSError | ValueError, not_text: str = "it is not text") -> str:
    """Return why a file cannot be read: in the system's words, or that it is not what it should be."""
    return getattr(error, "strerror", None) or not_text


def open_text(path: Path) -> TextIO:
    """Open a file to be read in parts, in the encoding of its mark; the mark is read as U+FEFF."""
    binary = path.open("rb")
    head = binary.peek(4)
    return io.TextIOWrapper(binary, find_marked_encoding(head) or "utf-8")
