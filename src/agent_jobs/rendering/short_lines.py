"""Turn free text into short single lines without base64."""

import math
import re
from collections.abc import Mapping
from typing import Any

from agent_jobs.jobs.response import string_of
from agent_jobs.text import truncate, valid_unicode

Entry = dict[str, Any]

LINE_CHARS = 160  # one free text of an entry
TITLE_CHARS = 120
NAME_CHARS = 80
URL_CHARS = 2_000
FACT_CHARS = 600  # ids are facts, and some gateways give ids of 421 characters
BLOB_CHARS = 500  # a word this long without a space or a dot is neither language nor an id

# Two patterns: each begins with characters that can be searched for quickly, their union does not.
_DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+=-]+)*;base64,[\w+/=%-]*", re.ASCII)
_BASE64 = re.compile(rf"(?<![\w+/-])[\w+/-]{{{BLOB_CHARS},}}=*", re.ASCII)


def shorten_to_line(value: object, chars: int) -> str:
    """Return a text as one line without base64, truncated; empty if the value is no text."""
    return truncate(" ".join(hide_base64(string_of(value)).split()), chars)


def collect_lines(values: Mapping[str, Any]) -> Entry:
    """Return the texts among these values, each as one line."""
    return {name: line for name, value in values.items() if (line := shorten_to_line(value, FACT_CHARS))}


def hide_base64(text: str) -> str:
    """Return a text with a note of its size in place of each piece of base64."""
    for pattern in (_DATA_URI, _BASE64):
        text = pattern.sub(lambda found: describe_hidden(found[0]), text)
    return valid_unicode(text)


def describe_hidden(hidden: str) -> str:
    """Return the note in place of a text."""
    return f"[{len(hidden)} bytes not shown]"


def finite_or_none(number: float) -> float | None:
    """Return a number if JSON can express it, else None."""
    if math.isfinite(number):
        return number
    return None
