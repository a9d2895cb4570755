"""Cut a text or a list into pages that fit an answer.

Offsets and sizes are bytes of UTF-8.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

from agent_jobs.text import compact_json, encode_text

T = TypeVar("T")

#: Hosts cut answers at 25k tokens or 40,000 characters. This leaves room for the fields around the output.
OUTPUT_BYTES = 24_000
#: By the beginning of the client's name: hosts that cut 23.5 KB in the middle, or showed it as a file.
SMALLER_OUTPUT_BYTES = {"codex": 9_000, "copilot-cli": 9_000}
MAX_CACHED_CLIENTS = 256  # a server on stdio has one client
#: The most bytes of one character as JSON, with its quotes, so that every page has at least one.
MIN_PAGE_BYTES = 8
#: The longest character in UTF-8.
MAX_CHAR_BYTES = 4

_PARAGRAPH_ENDS = ("\n\n", "\r\n\r\n")
_LINE_ENDS = ("\n",)
_SENTENCE_ENDS = (". ", "! ", "? ", "。", "！", "？", "؟ ", "۔ ", "। ")
_WORD_ENDS = (" ", "\t", "\u3000")
#: The places where a page may end, the best first.
_PAGE_ENDS = (_PARAGRAPH_ENDS, _LINE_ENDS, _SENTENCE_ENDS, _WORD_ENDS)


def cut_page(text: str, offset: int, limit_bytes: int) -> tuple[str, int | None]:
    """Return the text from a byte offset that takes at most `limit_bytes` as JSON, and the offset after it.

    The second value is None at the end of the text. A page ends after a paragraph, line, sentence or word if one of
    them ends in its second half, otherwise between any two characters. The pages joined are the text. An offset
    inside a character counts as the beginning of this character. A limit below MIN_PAGE_BYTES counts as that.
    """
    return cut_encoded_page(encode_text(text), offset, limit_bytes)


def cut_encoded_page(data: bytes, offset: int, limit_bytes: int) -> tuple[str, int | None]:
    """Cut a page as `cut_page` does, from a text that is already UTF-8."""
    limit_bytes = max(MIN_PAGE_BYTES, limit_bytes)
    offset = min(max(0, offset), len(data))
    while offset < len(data) and data[offset] & 0xC0 == 0x80:  # a continuation byte
        offset -= 1
    ahead = data[offset : offset + limit_bytes + MAX_CHAR_BYTES].decode(errors="ignore")
    if count_json_bytes(ahead) <= limit_bytes:
        return ahead, None
    part = ahead[: _find_page_end(ahead, _count_fitting_chars(ahead, limit_bytes))]
    return part, offset + len(part.encode())


@lru_cache(MAX_CACHED_CLIENTS)
def find_page_cap_bytes(client: str) -> int:
    """Return how much of an output a client of this name shows uncut, in bytes of JSON."""
    name = client.strip().lower().replace(" ", "-").replace("_", "-")
    return next((limit for known, limit in SMALLER_OUTPUT_BYTES.items() if name.startswith(known)), OUTPUT_BYTES)


def select_page(entries: Sequence[T], offset: int, limit_bytes: int) -> tuple[list[T], int | None]:
    """Return the entries from an index that take at most `limit_bytes` as JSON, and the index after them.

    At least one entry comes, even if it is longer. The second value is None at the end of the list.
    """
    start = min(max(0, offset), len(entries))
    taken_bytes = len("[]")
    for index in range(start, len(entries)):
        taken_bytes += count_json_bytes(entries[index]) + len(",")
        if taken_bytes > limit_bytes and index > start:
            return [*entries[start:index]], index
    return [*entries[start:]], None


def count_json_bytes(value: object) -> int:
    """Return the number of bytes of a value as compact JSON."""
    return len(encode_text(compact_json(value)))


def _count_fitting_chars(ahead: str, limit_bytes: int) -> int:
    """Return how many characters of a text take at most `limit_bytes` as JSON.

    Each step encodes half as many characters as the one before: all together encode the text about once.
    """
    fits, left_bytes = 0, limit_bytes - len('""')
    for exponent in reversed(range(len(ahead).bit_length())):
        part = ahead[fits : fits + 2**exponent]
        part_bytes = count_json_bytes(part) - len('""')
        if part_bytes <= left_bytes:
            fits += len(part)
            left_bytes -= part_bytes
    return fits


def _find_page_end(ahead: str, fits: int) -> int:
    """Return how many characters of a text make the best page if at most `fits` of them fit."""
    head = ahead[:fits]
    for ends in _PAGE_ENDS:
        # The length up to and including the last such end; 0 if there is none.
        best = max(len(head) - len(head.rpartition(end)[2]) for end in ends)
        if best > fits // 2:
            return best
    return fits
