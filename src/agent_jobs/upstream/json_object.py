"""Read a server's text as a JSON object."""

import json
from collections.abc import Mapping
from typing import Any, cast

JSON = Mapping[str, Any]


def parse_object(text: str) -> JSON | None:
    """Return the JSON object in a text, None for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return cast(JSON, value)
