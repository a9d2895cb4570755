"""A text or a list by pages that fit an answer, however much its host shows. Offsets and sizes are bytes of UTF-8."""

import json
import unicodedata
from bisect import bisect_right
from typing import TypeVar

T = TypeVar("T")

#: Under the 25k-token and 40,000-character cuts of the hosts, with room for what stands around it.
OUTPUT_BYTES = 24_000
#: Hosts that show less, by the beginning of the client's name: 23.5 KB were cut in the middle, or shown as a file.
SMALLER_OUTPUT_BYTES = {"codex": 9_000, "copilot-cli": 9_000}

#: Made once: `json.dumps` makes one for each call that asks for another form than its own.
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

#: Where a page may end, the best first: behind a paragraph, a line, a sentence, a word.
_ENDS = (("\n\n", "\r\n\r\n"), ("\n",), (". ", "! ", "? ", "。", "！", "？", "؟ ", "۔ ", "। "), (" ", "\t", "\u3000"))
#: Characters that are shown as one are rarely longer; where they are, a page may end within.
_CLUSTER_CHARS = 64
_JOINER = "\u200d"


def page(text: str, offset: int, limit_bytes: int) -> tuple[str, int | None]:
    """The text from a byte offset that takes at most `limit_bytes` as JSON, and the offset after it or None at the end.

    Pages end behind a paragraph, else a line, a sentence or a word that ends in their second half; otherwise between
    two characters, and not between those that are shown as one. Put together they are the text. An offset within a
    character counts as its beginning. Any character fits 8 bytes, and a lower limit counts as that.
    """
    data, limit_bytes = text.encode("utf-8", "replace"), max(8, limit_bytes)
    offset = min(max(0, offset), len(data))
    while offset < len(data) and data[offset] & 0xC0 == 0x80:
        offset -= 1
    ahead = data[offset : offset + limit_bytes + 4].decode(errors="ignore")
    if size(ahead) <= limit_bytes:
        return ahead, None
    fits = bisect_right(range(1, len(ahead) + 1), limit_bytes, key=lambda count: size(ahead[:count]))
    part = ahead[: _end(ahead, fits)]
    return part, offset + len(part.encode())


def page_cap_bytes(client: str) -> int:
    """Return how much of an output a client of this name shows as a whole, as JSON."""
    name = client.strip().lower().replace(" ", "-").replace("_", "-")
    return next((limit for known, limit in SMALLER_OUTPUT_BYTES.items() if name.startswith(known)), OUTPUT_BYTES)


def page_of(entries: list[T], offset: int, limit_bytes: int) -> tuple[list[T], int | None]:
    """The entries from an index on that take at most `limit_bytes` as JSON, one at least, and the index after them."""
    start = after = min(max(0, offset), len(entries))
    taken = 2
    while after < len(entries):
        taken += size(entries[after]) + 1
        if taken > limit_bytes and after > start:
            return entries[start:after], after
        after += 1
    return entries[start:], None


def size(value: object) -> int:
    """What a value takes as compact JSON."""
    return len(dumps(value).encode("utf-8", "replace"))


def dumps(value: object) -> str:
    """Return a value as compact JSON."""
    return _COMPACT.encode(value)


def _end(ahead: str, fits: int) -> int:
    """Where to cut a text of which the first `fits` characters fit a page."""
    for ends in _ENDS:
        at = max((found + len(end) for end in ends if (found := ahead.rfind(end, 0, fits)) >= 0), default=0)
        if fits // 2 < at <= fits and not _joined(ahead, at):
            return at
    cluster = range(fits, max(0, fits - _CLUSTER_CHARS), -1)
    return next((at for at in cluster if not _joined(ahead, at)), fits)


def _joined(text: str, at: int) -> bool:
    """Whether a cut before this character would part what is shown as one (the common rules of UAX #29)."""
    before, after = text[at - 1], text[at]
    if after < "\u0300":
        return before == "\r" and after == "\n"
    if _is_flag_half(after) and _is_flag_half(before):
        run = next((length for length in range(1, at) if not _is_flag_half(text[at - 1 - length])), at)
        return run % 2 == 1
    return (
        before == _JOINER
        or after in ("\u200c", _JOINER)
        or unicodedata.category(after).startswith("M")
        or "\u1160" <= after <= "\u11ff"  # the vowels and endings of a Korean syllable
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= after <= "\U000e007f"  # the letters of a regional flag
    )


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
