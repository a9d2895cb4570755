"""Read JSON as people write it: with comments, with trailing commas, in the encodings of Windows."""

import json
import re
from collections import Counter
from typing import Any, cast

from agent_jobs.files.text_file import decode_text

#: A string, which is kept, or a comment.
_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\r\n]*|/\*.*?\*/', re.S)
_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.S)


class Members(dict[str, Any]):
    """A JSON object that records which of its keys were written more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        times = Counter(name for name, _ in pairs)
        self.repeated = frozenset(name for name in times if times[name] > 1)


def read_members(value: Any) -> dict[str, Any]:
    """Return an object; empty for anything else."""
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    return {}


def read_jsonc(raw: bytes) -> Any:
    """Read JSON with comments; objects are `Members`.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    text = decode_text(raw)
    try:
        return json.loads(text, object_pairs_hook=Members)
    except ValueError:
        # Comments become their line breaks, so that an error still names the right line.
        bare = _COMMENT.sub(lambda found: found[1] or "\n" * found[0].count("\n") or " ", text)
        return json.loads(_COMMA.sub(r"\1", bare), object_pairs_hook=Members)
