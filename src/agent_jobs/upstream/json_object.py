"""Read a server's text as a JSON object."""

import json
from collections.abc import Mapping, Sequence
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


def object_of(value: object) -> JSON:
    """Return the object that a server should have sent here; empty for anything else."""
    if isinstance(value, dict):
        return cast(JSON, value)
    return {}


def objects_of(value: object) -> Sequence[JSON]:
    """Return the objects in a list that a server should have sent here, without anything else in it."""
    if not isinstance(value, list):
        return ()
    return [cast(JSON, item) for item in cast("list[object]", value) if isinstance(item, dict)]
