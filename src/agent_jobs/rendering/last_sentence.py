"""Find the last sentence of a text that is being written, for one line about a running job. Pure."""

import re

from agent_jobs.text import truncate

#: Characters of that line.
SENTENCE_CHARS = 180
#: A sentence ends there.
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+|\n+")
_FULL_STOPS = (".", "!", "?")
#: Marks of Markdown, which a single line shows as noise.
_MARKS = re.compile(r"[*_`#>|]+|\[\d+\]|^\s*[-+]\s+|\]\([^)]*\)?|\[", re.MULTILINE)


def find_last_sentence(text: str) -> str:
    """Return the last sentence of a text without its Markdown; empty without any words.

    A sentence that has just begun is shown only if no other has ended.
    """
    plain = _MARKS.sub("", text)
    sentences = [" ".join(each.split()) for each in _SENTENCE_END.split(plain) if any(map(str.isalnum, each))]
    if not sentences:
        return ""
    ended = [each for each in sentences[-2:] if each.endswith(_FULL_STOPS)]
    shown = ended or sentences
    return truncate(shown[-1], SENTENCE_CHARS)
