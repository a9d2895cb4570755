"""Get an answer as JSON of a given form; agent-jobs checks it.

uv run examples/structured.py "The five largest lakes of Finland"
"""

import json
import sys

import anyio
from start_and_poll import read_output, wait_until_done
from tools import open_tools

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
    async with open_tools() as call:
        started = await call("agent_start", prompt=f"List: {wanted}.", effort="low", options={"json_schema": SCHEMA})
        answer = await wait_until_done(call, started)
        text = await read_output(call, answer["job_id"])
    assert "invalid" not in answer, answer["invalid"]
    rows = json.loads(text)["rows"]
    assert rows
    for row in rows:
        print(f"{row['name']:<30} {row['figure']:>12,} {row['unit']}")


if __name__ == "__main__":
    anyio.run(main)
