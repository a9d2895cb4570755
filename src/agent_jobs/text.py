"""Helpers for text that several packages share. Pure."""

from collections.abc import Iterable, Sequence

#: A longer name is compared by its beginning: the comparison takes quadratic time.
COMPARED_CHARS = 200
#: The default of difflib: a lower one brings names that share little but their length.
CUTOFF = 0.6
#: A shorter beginning fits too many names.
MIN_PREFIX_CHARS = 2
#: More names in one sentence help nobody.
LISTED_NAMES = 40


def nearest(name: str, names: Iterable[str], cutoff: float = CUTOFF) -> str | None:
    """Return the one of `names` that was probably meant, whatever its case, or None."""
    import difflib  # only for mistakes: start-up does without it

    by_folded = {each.casefold(): each for each in names}
    written = name[:COMPARED_CHARS].casefold()
    close = difflib.get_close_matches(written, by_folded, n=5, cutoff=cutoff)
    # Swapped letters are the likeliest slip: MODLE means MODEL, although MODE scores higher.
    close.sort(key=lambda each: sorted(each) != sorted(written))
    if not close and len(written) >= MIN_PREFIX_CHARS:
        close = sorted((each for each in by_folded if each.startswith(written)), key=len)
    return by_folded[close[0]] if close else None


def suggest_name(name: str, names: Sequence[str]) -> str:
    """Return the end of a sentence that refuses a name: the nearest one, or all."""
    near = nearest(name, names)
    if near is not None:
        return f"did you mean {near!r}?"
    return f"use one of {', '.join(names[:LISTED_NAMES]) or '(none)'}."
