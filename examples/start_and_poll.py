"""Start a job, wait for it as a host's model would, and read its output.

uv run examples/start_and_poll.py "Why is the sky blue?"
"""

import sys

import anyio
from tools import Answer, Call, open_tools


async def wait_until_done(call: Call, answer: Answer) -> Answer:
    """Poll while the answer asks for it, as every host does; the server does the waiting."""
    while "next_poll_ms" in answer:
        print(answer["status"], answer.get("activity", ""), flush=True)
        answer = await call("agent_poll", job_id=answer["job_id"])
    assert answer["status"] == "completed", answer
    return answer


async def read_output(call: Call, job_id: str) -> str:
    """Return the whole output, read page by page: one answer holds as much as hosts accept."""
    text, answer = "", {"next": "the first page"}
    while "next" in answer:
        answer = await call("agent_result", job_id=job_id, offset=len(text.encode()))
        text += answer["output"]
    return text


async def main() -> None:
    question = " ".join(sys.argv[1:]) or "Why is the sky blue?"
    async with open_tools() as call:
        answer = await wait_until_done(call, await call("agent_start", prompt=question))
        text = await read_output(call, answer["job_id"])
    assert text.startswith(answer["output"])
    print(text)


if __name__ == "__main__":
    anyio.run(main)
