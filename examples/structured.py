"""Get an answer as JSON of a given form; it is checked when it comes.

uv run examples/structured.py "The five largest lakes of Finland"
"""

import json
import sys

import anyio
from start_and_poll import ended, whole
from tools import connected

SCHEMA = {
    "type": "object",
    "properties": {
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "figure": {"type": "number"}, "unit": {"type": "string"}},
                "required": ["name", "figure", "unit"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["rows"],
    "additionalProperties": False,
}


async def main() -> None:
    wanted = " ".join(sys.argv[1:]) or "The five largest lakes of Finland"
    async with connected() as call:
        started = await call("agent_start", prompt=f"List: {wanted}.", effort="low", options={"json_schema": SCHEMA})
        answer = await ended(call, started)
        text = await whole(call, answer["job_id"])
    assert "invalid" not in answer, answer["invalid"]
    rows = json.loads(text)["rows"]
    assert rows
    for row in rows:
        print(f"{row['name']:<30} {row['figure']:>12,} {row['unit']}")


if __name__ == "__main__":
    anyio.run(main)
