"""Start a job with tools of your own: it reads a git repository on this machine and writes a report.

uv run examples/git_report.py /path/to/repository
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import anyio
from start_and_poll import read_output, wait_until_done
from tools import open_tools

HERE = Path(__file__).resolve().parent
TASK = """Report to a colleague who was away what happened in this git repository: what changed for its users, what is \
in progress, and what looks risky. Read the commits that matter, and name them by their ids."""
#: The calls of the emulated model, which reads no prompt; a real model decides by itself.
SCRIPT = {"duration_s": 0.5, "function_calls": [{"name": "git__log", "arguments": {"count": 5}}]}


async def main(toolbox: str) -> None:
    emulated = "" if os.environ.get("OPENAI_API_KEY") else f" [emulate {json.dumps(SCRIPT)}]"
    limits = {} if emulated else {"max_tool_calls": 40, "max_cost_usd": 2.0}
    async with open_tools(AGENT_JOBS_TOOLBOX=toolbox) as call:
        started = await call("agent_start", prompt=TASK + emulated, options={"toolbox": ["git"], **limits})
        answer = await wait_until_done(call, started)
        print(await read_output(call, answer["job_id"]))
        items = (await call("agent_result", job_id=answer["job_id"], part="items"))["items"]
        calls = [item for item in items if item["type"] == "call"]
        assert calls, "The job called no tool."
        print(f"\nIt made {len(calls)} calls of this machine's tools; the first: {calls[0]['name']}")


if __name__ == "__main__":
    repository = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE.parent
    server = {"command": sys.executable, "args": [str(HERE / "git_server.py"), str(repository)]}
    with tempfile.TemporaryDirectory() as folder:
        toolbox = Path(folder, "toolbox.json")
        toolbox.write_text(json.dumps({"mcpServers": {"git": server}}))
        anyio.run(main, str(toolbox))
