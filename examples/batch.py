"""Start several jobs in one call, print each result as it arrives, and print what they cost together.

uv run examples/batch.py "Why is the sky blue?" "Why is the sea salty?" "Why do cats purr?"
"""

import sys
from collections.abc import AsyncGenerator

import anyio
from start_and_poll import read_output, wait_until_done
from tools import Answer, Call, open_tools

QUESTIONS = ["Why is the sky blue?", "Why is the sea salty?", "Why do cats purr?"]


async def iterate_results(call: Call, batch: str) -> AsyncGenerator[Answer]:
    """Yield the jobs of a batch as they finish: one poll waits for all of them, and reports each one once."""
    answer: Answer = {"running": 1}
    while answer["running"] or "more" in answer:
        answer = await call("agent_poll", batch=batch)
        for job in answer.get("done", []):
            yield job


async def iterate_single_result(call: Call, started: Answer) -> AsyncGenerator[Answer]:
    """Yield a single job once it has finished: it is no batch."""
    yield await wait_until_done(call, started)


async def main() -> None:
    questions = sys.argv[1:] or QUESTIONS
    asked = {"prompts": questions} if len(questions) > 1 else {"prompt": questions[0]}
    async with open_tools() as call:
        started = await call("agent_start", **asked)
        print(f"{started['jobs']} jobs in {started['batch']}\n" if "batch" in started else "1 job\n", flush=True)
        finished: list[str] = []
        async for job in (
            iterate_results(call, started["batch"]) if "batch" in started else iterate_single_result(call, started)
        ):
            finished.append(job["job_id"])
            print(f"--- {job['job_id']}\n{await read_output(call, job['job_id'])}\n", flush=True)
        listed = await call("agent_list", batch=started.get("batch", ""))
    assert len(finished) == len(set(finished)) == len(questions)
    assert "batch" not in started or listed["counts"] == {"completed": len(questions)}
    cost = f"{listed['today_usd']} USD" if "today_usd" in listed else "an unknown amount"
    results = "1 result" if len(finished) == 1 else f"{len(finished)} results"
    print(f"{results}; today's jobs cost {cost}")


if __name__ == "__main__":
    anyio.run(main)
