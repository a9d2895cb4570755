"""Start several jobs in one call, take each result as it comes, and say what they cost together.

uv run examples/batch.py "Why is the sky blue?" "Why is the sea salty?" "Why do cats purr?"
"""

import sys
from collections.abc import AsyncGenerator

import anyio
from start_and_poll import ended, whole
from tools import Answer, Call, connected

QUESTIONS = ["Why is the sky blue?", "Why is the sea salty?", "Why do cats purr?"]


async def ends(call: Call, batch: str) -> AsyncGenerator[Answer]:
    """The jobs of a batch as they end: one poll waits for all of them, and each is told of once."""
    answer: Answer = {"running": 1}
    while answer["running"] or "more" in answer:
        answer = await call("agent_poll", batch=batch)
        for job in answer.get("done", []):
            yield job


async def end(call: Call, started: Answer) -> AsyncGenerator[Answer]:
    """A single job as it ends: it is no batch."""
    yield await ended(call, started)


async def main() -> None:
    questions = sys.argv[1:] or QUESTIONS
    asked = {"prompts": questions} if len(questions) > 1 else {"prompt": questions[0]}
    async with connected() as call:
        started = await call("agent_start", **asked)
        print(f"{started['jobs']} jobs in {started['batch']}\n" if "batch" in started else "1 job\n", flush=True)
        told: list[str] = []
        async for job in ends(call, started["batch"]) if "batch" in started else end(call, started):
            told.append(job["job_id"])
            print(f"--- {job['job_id']}\n{await whole(call, job['job_id'])}\n", flush=True)
        listed = await call("agent_list", batch=started.get("batch", ""))
    assert len(told) == len(set(told)) == len(questions)
    assert "batch" not in started or listed["counts"] == {"completed": len(questions)}
    cost = f"{listed['today_usd']} USD" if "today_usd" in listed else "what is not known here"
    results = "1 result" if len(told) == 1 else f"{len(told)} results"
    print(f"{results}; today's jobs cost {cost}")


if __name__ == "__main__":
    anyio.run(main)
