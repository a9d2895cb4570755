"""A job as every face shows it: one flat mapping, each fact once, nothing that is not known.

What a model reads it pays for on every later turn, so the sizes are part of the contract (bytes of compact JSON).
"""

import json
from typing import Any

from agent_jobs.job import Failure, Job, Status

START_BYTES, RUNNING_BYTES, ADVICE_BYTES = 240, 200, 400
#: Under the 25k-token and 40,000-character cuts of the hosts, with room for what stands around it.
OUTPUT_BYTES = 24_000
CODE_CHARS, MESSAGE_CHARS = 60, 300

ADVICE = (
    "Long work is normal and nothing is lost. End your turn now, tell the user this job_id, and poll when they ask."
)
#: What to do after a failure, by its code; the others are a matter of the request.
_NEXT = {
    "start_unconfirmed": "it may be running and billed: look for metadata job_id={id} in the provider's dashboard "
    "before you start it again with options.allow_duplicate",
    "expired": "agent_start again",
    "deadline_exceeded": "agent_start again with a narrower prompt, or ask the user to raise AGENT_JOBS_JOB_TIMEOUT_S",
    "endpoint_lost": "ask the user to start agent-jobs with that OPENAI_BASE_URL and its key and adopt the response",
    "no_such_endpoint": "ask the user to set OPENAI_BASE_URL to the API's address, which usually ends in /v1",
    "invalid_api_key": "ask the user to set a valid OPENAI_API_KEY, then agent_start again",
    "account_refused": "ask the user to check the key, its permissions and the credit, then agent_start again",
    "insufficient_quota": "ask the user to add credit at the provider, then agent_start again",
    "model_not_found": "agent_start with another model",
    "max_output_tokens": "agent_start with a higher options.max_output_tokens or a narrower prompt",
}


def started(job: Job, now: float, *, duplicate: bool = False) -> dict[str, Any]:
    """The answer to a start: the ids, and how to go on. At most START_BYTES while nothing ended."""
    again = {"duplicate": True} if duplicate else {}
    if job.terminal:
        return shown(job, now) | again
    answer = {"job_id": job.id, **again, "response_id": job.turn.response_id, **_going_on(job, now)}
    answer = _fitting(_compact(answer), START_BYTES)
    if len(dumps(answer).encode()) > START_BYTES:
        del answer["response_id"]  # some gateways give ids of 421 characters, which nobody reads
    return answer


def shown(job: Job, now: float, *, advise: bool = False) -> dict[str, Any]:
    """The answer to a poll: the result, the failure, or that it goes on. At most RUNNING_BYTES while it runs."""
    if job.terminal:
        return ended(job)
    answer = {"job_id": job.id, **_going_on(job, now)}
    if advise:
        return _fitting(_compact(answer | {"advice": ADVICE}), ADVICE_BYTES)
    return _fitting(_compact(answer), RUNNING_BYTES if job.observed_by != "polling" else START_BYTES)


def ended(job: Job) -> dict[str, Any]:
    """A job that is over: its output as far as it fits one answer, its failure and what to do about it."""
    answer: dict[str, Any] = {"job_id": job.id, "status": job.status}
    if job.error is not None:
        answer |= {"error": _error(job.error), "next": _next(job, job.error)}
    if job.output is not None or job.status is Status.COMPLETED:
        answer |= output(job, 0)
    return answer


def output(job: Job, offset: int) -> dict[str, Any]:
    """One page of a job's output from a byte offset, and where the next one starts."""
    text = job.output.text if job.output else ""
    part, after = page(text, offset, OUTPUT_BYTES)
    shown: dict[str, Any] = {"output": part}
    if after is not None:
        shown |= {"bytes": len(text.encode()), "next": f"agent_result job_id={job.id} offset={after}"}
    return shown


def page(text: str, offset: int, limit: int) -> tuple[str, int | None]:
    """The text from a byte offset that takes at most `limit` bytes as JSON, and the offset after it or None at the end.

    Pages are cut at the end of a paragraph or a line where there is one in their second half, never inside a
    character, and put together they are the text.
    """
    data = text.encode()
    offset = min(max(0, offset), len(data))
    while offset < len(data) and data[offset] & 0xC0 == 0x80:
        offset -= 1
    part = data[offset : offset + limit].decode(errors="ignore")
    while (size := len(dumps(part).encode())) > limit:
        part = part[: min(len(part) - 1, len(part) * limit // size)]
    if offset + len(part.encode()) < len(data):
        ends = (part.rfind("\n\n") + 2, part.rfind("\n") + 1)
        part = part[: next((end for end in ends if end > len(part) // 2), len(part))]
    after = offset + len(part.encode())
    return part, after if after < len(data) else None


def dumps(answer: object) -> str:
    """Compact JSON as it goes to the host."""
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def _going_on(job: Job, now: float) -> dict[str, Any]:
    return {
        "status": job.status,
        "cancel_requested": True if job.cancel_requested_at is not None else None,
        "elapsed_s": max(0, round(now - job.created_at)) or None,
        "activity": job.activity,
        "lasts": "while this server runs" if job.turn.mode == "foreground" else None,
        "observed_by": job.observed_by if job.observed_by == "polling" else None,
        "next_poll_ms": job.next_poll_ms(now),
        "next": f"agent_poll job_id={job.id}",
    }


def _error(error: Failure) -> dict[str, Any]:
    shown: dict[str, Any] = {"code": error.code[:CODE_CHARS], "message": error.message[:MESSAGE_CHARS]}
    return shown | {"retryable": True} if error.retryable else shown


def _next(job: Job, error: Failure) -> str:
    if error.retryable:
        return "agent_start again in 60 s"
    if job.status is Status.INCOMPLETE and error.code not in _NEXT:
        return "what came is in output"
    return _NEXT.get(error.code, "change the request, then agent_start again").format(id=job.id)


def _compact(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if value not in (None, "")}


def _fitting(answer: dict[str, Any], limit: int) -> dict[str, Any]:
    """Shorten the activity, the one free text, until the answer fits."""
    while (over := len(dumps(answer).encode()) - limit) > 0 and answer.get("activity"):
        kept = answer["activity"].removesuffix("…")[: -max(1, over)]
        answer = _compact(answer | {"activity": kept and kept.rstrip() + "…"})
    return answer
