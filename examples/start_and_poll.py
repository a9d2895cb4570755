"""Start a job, wait for it as a host's model would, and read its output.

uv run examples/start_and_poll.py "Why is the sky blue?"
"""

import sys

import anyio
from tools import Answer, Call, connected


async def ended(call: Call, answer: Answer) -> Answer:
    """The loop of every host: call again while the answer says so; the server does the waiting."""
    while "next_poll_ms" in answer:
        print(answer["status"], answer.get("activity", ""), flush=True)
        answer = await call("agent_poll", job_id=answer["job_id"])
    assert answer["status"] == "completed", answer
    return answer


async def whole(call: Call, job_id: str) -> str:
    """A whole output, page by page: an answer holds as much of it as hosts take."""
    text, answer = "", {"next": "the first page"}
    while "next" in answer:
        answer = await call("agent_result", job_id=job_id, offset=len(text.encode()))
        text += answer["output"]
    return text


async def main() -> None:
    question = " ".join(sys.argv[1:]) or "Why is the sky blue?"
    async with connected() as call:
        answer = await ended(call, await call("agent_start", prompt=question))
        text = await whole(call, answer["job_id"])
    assert text.startswith(answer["output"])
    print(text)


if __name__ == "__main__":
    anyio.run(main)
