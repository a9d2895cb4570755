"""Have files reviewed: first ask what would be sent and what it may cost, then send it.

    uv run examples/review.py src/agent_jobs/mcp_server/repeated_polls.py "src/agent_jobs/store/*.py"

Files are read below AGENT_JOBS_FILE_ROOTS only; the example opens the folder in which you start it.
"""

import os
import sys

import anyio
from start_and_poll import read_output, wait_until_done
from tools import open_tools

TASK = "Review the attached files: what is wrong, what is missing, and what would you change first?"
HERE, ITSELF = os.path.split(os.path.abspath(__file__))


async def main() -> None:
    root, files = (os.getcwd(), sys.argv[1:]) if sys.argv[1:] else (HERE, [ITSELF])
    review = {"prompt": TASK, "preset": "review", "files": files}
    bounded = {"max_output_tokens": 20_000}
    async with open_tools(AGENT_JOBS_FILE_ROOTS=root) as call:
        estimate = await call("agent_start", **review, options={**bounded, "dry_run": True})
        assert "job_id" not in estimate and estimate["files"], estimate
        for file in estimate["files"]:
            print(f"{file['name']:<30} {file['bytes']:>8} bytes")
        print(f"about {estimate['input_tokens']} tokens to read;", end=" ")
        print(f"at most {estimate['cost_bound_usd']} USD" if "cost_bound_usd" in estimate else estimate["unbounded"])

        answer = await wait_until_done(call, await call("agent_start", **review, options=bounded))
        print(f"\n{await read_output(call, answer['job_id'])}\n")
        usage = (await call("agent_result", job_id=answer["job_id"], part="usage"))["usage"]
    assert usage["input_tokens"] > len(TASK) / 4, "the files were read"
    print(f"read {usage['input_tokens']} tokens, wrote {usage['output_tokens']}")


if __name__ == "__main__":
    anyio.run(main)
