"""Short forms of text, JSON and sizes, and the nearest of several names. Pure."""

import json
from collections.abc import Iterable

COMPARED_CHARS = 200  # a longer name is compared by its beginning, since the comparison takes quadratic time
CUTOFF = 0.6  # the default of difflib; below it, names share little but their length
MIN_PREFIX_CHARS = 2  # a shorter beginning fits too many names
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
#: Made once: `json.dumps` makes an encoder for each call that asks for another form than its own.
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def truncate(text: str, max_chars: int) -> str:
    """Return the text in at most `max_chars` characters, with an ellipsis in place of what was cut."""
    if len(text) <= max_chars:
        return text
    return f"{text[: max_chars - 1]}…"


def encode_text(text: str) -> bytes:
    """Return the text as UTF-8. Half a surrogate pair, which UTF-8 cannot carry, becomes a question mark."""
    return text.encode("utf-8", "replace")


def valid_unicode(text: str) -> str:
    """Return the text with a question mark in place of half a surrogate pair, so that it can be encoded."""
    if text.isascii():  # nearly always, and many times faster
        return str(text)
    return encode_text(text).decode()


def compact_json(value: object) -> str:
    """Return the value as JSON without blanks, and without escapes for letters."""
    return _COMPACT.encode(value)


def human_size(size_bytes: int) -> str:
    """Return a number of bytes in the largest unit that fits, like 1.5 KiB."""
    for unit, factor in _UNITS:
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"


def nearest(name: str, names: Iterable[str], cutoff: float = CUTOFF) -> str | None:
    """Return the one of `names` that was probably meant, in any case, or None."""
    import difflib  # only for mistakes: start-up does without it

    by_folded = {each.casefold(): each for each in names}
    written = name[:COMPARED_CHARS].casefold()
    close = difflib.get_close_matches(written, by_folded, n=5, cutoff=cutoff)
    # Swapped letters are the likeliest slip: MODLE means MODEL, although MODE scores higher.
    # Of names that are equally near, the first one is the one that is used most.
    known = list(by_folded)

    def rank(each: str) -> tuple[bool, float, int]:
        nearness = difflib.SequenceMatcher(None, written, each).ratio()
        return sorted(each) != sorted(written), -nearness, known.index(each)

    if close:
        return by_folded[min(close, key=rank)]
    if len(written) < MIN_PREFIX_CHARS:
        return None
    longer = [each for each in by_folded if each.startswith(written)]
    return by_folded.get(min(longer, key=len, default=""))


def ask_if_meant(name: str, names: Iterable[str], cutoff: float = CUTOFF) -> str:
    """Return the question for the nearest name as a sentence, or nothing if none is near."""
    near = nearest(name, names, cutoff)
    if near is None:
        return ""
    return f"Did you mean {near!r}?"


def describe_listen_error(error: OSError | ValueError) -> str:
    """Return why an address cannot be listened at, without the address, which Python appends as a tuple."""
    if isinstance(error, ValueError):  # IDNA cannot encode the name
        return "it is not a host name"
    return (error.strerror or str(error)).partition(" (while attempting")[0]
