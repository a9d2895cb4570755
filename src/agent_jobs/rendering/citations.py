"""Number the sources that a text cites, and put the numbers where the text cites them."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent_jobs.jobs.response import JSON, items_of, string_of, text_of
from agent_jobs.rendering.output import add_source, list_parts
from agent_jobs.rendering.short_lines import Entry

#: A link of Markdown, or several of them, in parentheses or not: its number says the same in fewer characters.
_LINK = re.compile(r"\s*\(?(?:\[[^\]]*\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*\)[,;]?\s*)+\)?")
#: A block of code, which no number may interrupt: the number goes before it.
_CODE_BLOCK = re.compile(r"^(?P<fence>```+|~~~+).*?(?:^(?P=fence)|\Z)", re.MULTILINE | re.DOTALL)
#: Code in a line, or the address of a link: the number goes behind it.
_CODE_OR_ADDRESS = re.compile(r"`[^`\n]+`|\]\([^()\s]*\)")
#: What models leave in a text in place of a citation: `cite` with names of search results, between characters of
#: private use or bare, and names of files in brackets. The end of one may still be missing while a text is written.
_MARK = (
    r"[ \t]*(?:"
    r"\ue200[^\ue201\n]*(?:\ue201|$)"
    r"|【(?:\d[\d:,\s]*|[^】\n]*(?:†|turn\d)[^】\n]*)(?:】|\Z)"
    r"|\[\d+(?::\d+)?†[^\]\n]*\]"
    r"|(?<![A-Za-z])(?:file|nav)?(?:cite|list)(?:turn\d+[a-z]+\d+)+"
    r"|[\[(](?:cite:\s*)?(?:turn\d+[a-z]+\d+[,;\s]*)+[\])]"
    r"|(?:::?contentReference)?\[oaicite:\s*\d+\](?:\{index=\d+\})?"
    r")"
)
_MARKS = re.compile(f"(?:{_MARK})+")
#: A part of a text whose place a number takes.
_LINK_OR_MARKS = re.compile(f"{_LINK.pattern}|{_MARKS.pattern}")
#: Code, in which nothing is a mark, or a mark.
_CODE_OR_MARK = re.compile(rf"(?P<code>{_CODE_BLOCK.pattern}|`[^`\n]+`)|(?P<mark>{_MARK})", re.MULTILINE | re.DOTALL)
#: Two characters inside a word of a script that has blanks between words.
_LETTERS = re.compile(r"[A-Za-z0-9]{2}")


class Citation(NamedTuple):
    """A place in a text that cites a source."""

    start: int
    end: int
    number: int
    is_at_mark: bool = False  #: the place is known by one position, and counts only if a mark stands there


class Citations:
    """The sources of an answer, numbered in the order of their citation. Mutable: a stream brings them one by one."""

    def __init__(self) -> None:
        self._found: dict[str, Entry] = {}

    @property
    def sources(self) -> list[Entry]:
        """Return the cited sources; the first has the number 1."""
        return list(self._found.values())

    def cite(self, annotation: JSON, offset: int) -> Citation | None:
        """Return the place that an annotation names, with the number of its source; None if it names no source.

        `offset` says where the annotated part begins in the text.
        """
        if annotation.get("type") == "file_path":
            return None
        key = add_source(self._found, annotation, cited=1)
        if not key:
            return None
        number = list(self._found).index(key) + 1
        place: JSON = {"start_index": None, "end_index": None, **annotation}
        match place:
            case {"start_index": None, "end_index": None, "index": int() as position}:
                return Citation(offset + position, offset + position, number, is_at_mark=True)
            case {"start_index": int() as start, "end_index": int() as end} if 0 <= start <= end:
                return Citation(offset + start, offset + end, number)
            case _:
                return Citation(-1, -1, number)  # it is only listed


def cite_output(output: object) -> tuple[list[Citation], list[Entry]]:
    """Return the citations in the text of an output, and the numbered sources."""
    citations, places = Citations(), list[Citation]()
    text = text_of(items_of(output))
    at = 0
    for part in list_parts(output):
        words = string_of(part.get("text"))
        found = text.find(words, at) if words else -1
        places += _cite_part(citations, items_of(part.get("annotations")), found)
        if found >= 0:
            at = found + len(words)
    return places, citations.sources


def _cite_part(citations: Citations, annotations: Sequence[JSON], offset: int) -> Iterable[Citation]:
    """Yield the citations of a part; one that is not in the text only adds its sources."""
    for annotation in annotations:
        place = citations.cite(annotation, offset)
        if place is not None and offset >= 0 and place.start >= 0:
            yield place


def insert_numbers(text: str, citations: Iterable[Citation], *, begin: int = 0) -> str:
    """Return a piece of Markdown with the numbers of the sources that it cites.

    A link to a source and a mark in place of one are replaced by the number; other cited words are followed by it.
    Marks that cite nothing known are left out.

    Args:
        text: The piece.
        citations: Places in the whole text.
        begin: Where the piece begins in the whole text.
    """
    places = sorted(set(_locate_places(text, citations, begin)))
    parts: list[str] = []
    at = 0
    for given_end, start, number in places:
        if not 0 < given_end <= len(text):
            continue  # its end, which has the number, is in another piece
        end = _move_out_of_code(text, _move_to_word_end(text, given_end))
        if end == 0:
            continue  # the text begins with code: the source is in the list alone
        if start >= at and _LINK_OR_MARKS.fullmatch(text[start:end]):
            parts.append(text[at:start].rstrip(" "))
            parts.append(" ")
        else:
            parts.append(text[at : max(at, end)])
        parts.append(f"\\[{number}\\]")
        at = max(at, end)
    return remove_marks("".join(parts) + text[at:])


def remove_marks(text: str) -> str:
    """Return a text without the marks that models leave in place of citations; code stays as it is."""
    return _CODE_OR_MARK.sub(lambda found: found["code"] or "", text)


def _locate_places(text: str, citations: Iterable[Citation], begin: int) -> Iterable[tuple[int, int, int]]:
    """Yield the end, the start and the number of each place in a piece of text."""
    marks = [found.span() for found in _MARKS.finditer(text)]
    for place in citations:
        start, end = place.start - begin, place.end - begin
        mark = next((mark for mark in marks if mark[0] <= start <= end <= mark[1]), None)
        if mark is not None and (place.is_at_mark or start < end):
            yield mark[1], mark[0], place.number
        elif not place.is_at_mark:
            yield end, start, place.number


def _move_to_word_end(text: str, end: int) -> int:
    """Return the end of the word in which a place ends: upstream counts in other units at times."""
    while text[end - 1 : end].isspace():
        end -= 1
    while _LETTERS.fullmatch(text[end - 1 : end + 1]):
        end += 1
    return end


def _move_out_of_code(text: str, end: int) -> int:
    """Return a place for a number that is in no code and in no address; 0 if there is none."""
    for block in _CODE_BLOCK.finditer(text):
        if block.start() < end <= block.end():
            return len(text[: block.start()].rstrip())
    for span in _CODE_OR_ADDRESS.finditer(text):
        if span.start() < end < span.end():
            return span.end()
    return end
