"""Find the Markdown headings of a text."""

import re
from collections.abc import Iterator
from itertools import islice

from agent_jobs.rendering.short_lines import TITLE_CHARS, Entry, shorten_to_line
from agent_jobs.text import encode_text

MAX_HEADINGS = 1_000
MAX_INDENT = 3  # a line that is indented deeper is code in Markdown
TAB_WIDTH = 4

#: A line that opens or closes code, or one that is a heading. In lists, code is indented as deep as the list.
#: A line with more backticks behind the first ones is inline code.
_FENCE_OR_HEADING = re.compile(
    r"^(?P<indent>[ \t]*)(?:(?P<fence>`{3,}(?!.*`)|~{3,})(?P<info>.*)|(?P<marks>#{1,6})[ \t]+(?P<title>.*))$", re.M
)


def find_headings(text: str) -> list[Entry]:
    """Return the headings of a text outside code, each with the byte offset of its line.

    An entry is like `{"offset": 120, "level": 2, "title": "Costs"}`. Only headings marked by `#` count, and at most
    MAX_HEADINGS of them are returned.
    """
    return list(islice(_iterate_headings(text), MAX_HEADINGS))


def _iterate_headings(text: str) -> Iterator[Entry]:
    open_fence = ""
    counted_chars = 0
    offset = 0
    for line in _FENCE_OR_HEADING.finditer(text):
        if line["fence"]:
            open_fence = _next_fence(open_fence, line["fence"], line["info"])
            continue
        if open_fence or len(line["indent"].expandtabs(TAB_WIDTH)) > MAX_INDENT:
            continue
        title = _clean_heading(line["title"])
        if not title:
            continue
        offset += len(encode_text(text[counted_chars : line.start()]))
        counted_chars = line.start()
        yield {"offset": offset, "level": len(line["marks"]), "title": title}


def _next_fence(open_fence: str, mark: str, info: str) -> str:
    """Return the fence that is open after a line of a fence; empty if none is."""
    if not open_fence:
        return mark
    if mark.startswith(open_fence) and not info.strip():
        return ""
    return open_fence


def _clean_heading(title: str) -> str:
    """Return a heading's title without its closing marks."""
    without_marks = title.strip().rstrip("#")
    if without_marks[-1:] not in ("", " ", "\t"):
        return shorten_to_line(title, TITLE_CHARS)  # the marks belong to a word, as in C#
    return shorten_to_line(without_marks, TITLE_CHARS)
