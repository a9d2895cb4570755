"""Read JSON as people write it: with comments, with trailing commas, in the encodings of Windows."""

import json
import re
from typing import Any

from agent_jobs.files.text_file import decode_text

#: A string, which is kept, or a comment.
_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\r\n]*|/\*.*?\*/', re.S)
_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.S)


class Members(dict[str, Any]):
    """A JSON object that records which of its keys were written more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = frozenset(name for name in self if names.count(name) > 1)


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
        return json.loads(_COMMA.sub(lambda found: found[1] or "", bare), object_pairs_hook=Members)
