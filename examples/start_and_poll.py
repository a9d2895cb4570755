"""Start a job, wait for it as a host's model would, and read its output.

    uv run examples/start_and_poll.py "Why is the sky blue?"

It talks to the real API when OPENAI_API_KEY is set, otherwise to the emulated one.
"""

import os
import sys
import tempfile
from contextlib import ExitStack
from typing import Any

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from agent_jobs.emulator import running


async def work(question: str, environment: dict[str, str]) -> str:
    """The loop of every host: start, poll while the answer says so, read."""
    server = StdioServerParameters(command=sys.executable, args=["-m", "agent_jobs"], env={**os.environ, **environment})
    async with Client(server) as host:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            return (await host.call_tool(tool, arguments)).structured_content or {}

        answer = await call("agent_start", prompt=question)
        while "next_poll_ms" in answer:
            print(answer["status"], answer.get("activity", ""), flush=True)
            answer = await call("agent_poll", job_id=answer["job_id"])
    assert answer["status"] == "completed", answer
    return answer["output"]


def main() -> None:
    question = " ".join(sys.argv[1:]) or "Why is the sky blue?"
    with ExitStack() as stack:
        environment: dict[str, str] = {}
        if not os.environ.get("OPENAI_API_KEY"):
            upstream = stack.enter_context(running())
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            environment = {
                "OPENAI_API_KEY": "emulated",
                "OPENAI_BASE_URL": upstream.base_url,
                "AGENT_JOBS_DATA_DIR": folder,
            }
        print(anyio.run(work, question, environment))


if __name__ == "__main__":
    main()
