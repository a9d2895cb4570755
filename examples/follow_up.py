"""Ask, then ask again: a follow-up job continues a finished one and knows the whole conversation.

uv run examples/follow_up.py "Name a good first telescope." "And one for half the price?" "Which shows Saturn better?"
"""

import sys

import anyio
from start_and_poll import read_output, wait_until_done
from tools import open_tools

TALK = ["Name a good first telescope.", "And one for half the price?", "Which of the two shows Saturn better?"]


async def main() -> None:
    jobs: list[str] = []
    async with open_tools() as call:
        for question in sys.argv[1:] or TALK:
            before = {"previous_job_id": jobs[-1]} if jobs else {}
            answer = await wait_until_done(call, await call("agent_start", prompt=question, preset="quick", **before))
            jobs.append(answer["job_id"])
            print(f"--- {question}\n{await read_output(call, answer['job_id'])}\n", flush=True)
        metas = [(await call("agent_result", job_id=job_id, part="meta"))["meta"] for job_id in jobs]
    assert [meta.get("previous_job_id") for meta in metas] == [None, *jobs[:-1]]


if __name__ == "__main__":
    anyio.run(main)
