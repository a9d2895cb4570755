"""Render jobs as flat mappings that state each known fact once.

A model pays again on every turn for what it has read, so the sizes are part of the contract: bytes of compact JSON.
Fields that may be long come last. Some hosts cut an answer at its end or in its middle, and the next step has to
survive that.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from agent_jobs.errors import (
    AgentJobsError,
    BudgetError,
    ConfigError,
    JobNotFoundError,
    RequestError,
    StoreError,
    ToolServerError,
)
from agent_jobs.jobs.job import UNANSWERED, Job
from agent_jobs.jobs.poll_schedule import POLL_MIN_MS, next_poll_ms
from agent_jobs.jobs.queries import Estimate, JobFilter
from agent_jobs.jobs.response import JSON, Failure, Usage, drop_fields
from agent_jobs.jobs.status import Status
from agent_jobs.rendering.owner_steps import OWNER_NEXT_STEPS
from agent_jobs.rendering.paging import OUTPUT_BYTES, count_json_bytes, cut_encoded_page, select_page
from agent_jobs.request.json_schema import find_mismatch
from agent_jobs.text import compact_json, encode_text, truncate

Answer = dict[str, Any]

START_BYTES = 240
RUNNING_BYTES = 200
ADVICE_BYTES = 400  # also the rows of a poll of several jobs
DRY_RUN_BYTES = 4_000
CODE_CHARS = 60
MESSAGE_CHARS = 300
LIST_TITLE_CHARS = 40  # fits one terminal row
MAX_ECHOED_IDS = 8  # more ids cost more tokens than they save
PROGRESS_CHARS = 200  # hosts cut a progress message there

ADVICE = (
    "Long work is normal and nothing is lost. End your turn now, tell the user this job_id, and poll when they ask."
)
#: The next step after a failure, by its code. After any other failure the request has to change.
NEXT_STEPS = {
    "start_unconfirmed": "it may be running and billed: search the provider's dashboard for metadata job_id={id} "
    "before you start it again with options.allow_duplicate",
    "expired": "agent_start again",
    "deadline_exceeded": "agent_start again with a narrower prompt, or ask the user to raise AGENT_JOBS_JOB_TIMEOUT_S",
    "endpoint_lost": "ask the user to start agent-jobs with that OPENAI_BASE_URL and its key and adopt the response",
    "no_such_endpoint": "ask the user to set OPENAI_BASE_URL to the API's address, which usually ends in /v1",
    "missing_secret": "ask the user to set it, to list it in AGENT_JOBS_SECRETS and to restart the server, then "
    "agent_start again",
    "invalid_api_key": "ask the user to run `agent-jobs key set`, or to correct OPENAI_API_KEY, and to restart this "
    "server, then agent_start again",
    "account_refused": "ask the user to check the key, its permissions and the credit, then agent_start again",
    "insufficient_quota": "ask the user to add credit at the provider, then agent_start again",
    "model_not_found": "agent_start with another model",
    "max_turns": "agent_start again with a narrower prompt or other tools",
    "max_tool_calls": "agent_start again with a higher options.max_tool_calls or a narrower prompt",
    "budget_exceeded": "agent_start again once its limit is higher: options.max_cost_usd, or, set by the user, "
    "AGENT_JOBS_DAILY_BUDGET_USD",
    "max_output_tokens": "agent_start with a higher options.max_output_tokens or a narrower prompt",
}

#: The field `lasts` by the delivery mode; a turn in another mode has no such limit.
_LASTS: Mapping[str, str] = {"foreground": "while this server runs"}
#: The field `observed_by`; a job whose stream is read, which is usual, has none.
_UNUSUAL_OBSERVERS: Mapping[str, str] = {"polling": "polling"}
#: Warnings about an output, by the code that `find_warning` returns.
WARNINGS = {
    "cut_output": "The output is the part that arrived before the connection ended; it may be cut.",
    "empty_output": "The provider reported success without any output.",
    "sandbox_links": "Links to its sandbox do not work. agent_result part=files lists the files that were saved.",
}
#: Failures after which the output is what had arrived by then.
_CUTTING_FAILURES = ("interrupted", "expired")
#: Python, JavaScript and others read these as the end of a line, and JSON allows them in a text.
LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}

_ERROR_CODES: Mapping[type[AgentJobsError], str] = {
    JobNotFoundError: "job_not_found",
    BudgetError: "budget_exceeded",
    RequestError: "bad_request",
    ConfigError: "config",
    StoreError: "storage",
    ToolServerError: "tool_server",
}


# A start.


def render_start(
    job: Job,
    now: float,
    *,
    duplicate: bool = False,
    host_note: str = "",
    view: str = "",
    limit_bytes: int = OUTPUT_BYTES,
) -> Answer:
    """Return the answer to a start: the ids and the next step. At most START_BYTES for an unfinished job.

    `host_note` says what is special about the next poll in the caller's host; `view` is where the user can watch the
    job.
    """
    note = drop_falsy({"duplicate": duplicate})
    if job.is_terminal:
        return _move_output_last(_collect_outcome(job, limit_bytes) | note)
    ids = drop_falsy({"job_id": job.id, **note, "response_id": job.turn.response_id, "view": view})
    answer = _fit_activity(ids | _describe_progress(job, now, host_note), START_BYTES)
    # Some gateways give ids of 421 characters, which no reader needs.
    return _leave_out_until_it_fits(answer, START_BYTES, "response_id", "view")


def build_page_path(jobs: Sequence[Job]) -> str:
    """Return the path on the page at which the user can watch these jobs together."""
    if len(jobs) == 1:
        return f"/jobs/{jobs[0].id}"
    batch = _select_together(jobs).batch
    if not batch:
        return "/"
    return f"/?{urlencode({'batch': batch})}"


def render_starts(jobs: Sequence[Job], duplicates: int, view: str = "") -> Answer:
    """Return the answer to a start of several jobs, with the way to poll them together. At most ADVICE_BYTES.

    `view` is where the user can watch them.
    """
    together = _select_together(jobs)
    answer = drop_falsy(
        {
            "batch": together.batch,
            "jobs": len(jobs),
            "duplicates": duplicates,
            "view": view,
            "next_poll_ms": POLL_MIN_MS,
            "next": f"agent_poll {format_filter_arguments(together)}",
            "job_ids": [job.id for job in jobs],
        }
    )
    with_ids = _leave_out_until_it_fits(answer, ADVICE_BYTES, "view")
    if not together.batch or count_json_bytes(with_ids) <= ADVICE_BYTES:
        return with_ids
    del answer["job_ids"]
    answer["next"] += f"; agent_list batch={together.batch} lists the job_ids"
    return _leave_out_until_it_fits(answer, ADVICE_BYTES, "view")


def _select_together(jobs: Sequence[Job]) -> JobFilter:
    """Return the shortest filter that selects these jobs."""
    batches = {job.batch for job in jobs}
    # A duplicate belongs to the batch of its first start, or to none.
    if len(batches) == 1 and (batch := batches.pop()):
        return JobFilter(batch=batch)
    return JobFilter(job_ids=tuple(job.id for job in jobs))


def render_estimate(estimate: Estimate, unbounded: str) -> Answer:
    """Return the answer to a dry run: the request and its cost bound. As many files come as fit DRY_RUN_BYTES.

    `unbounded` says for the reader why there is no bound.
    """
    files, _ = select_page(estimate.files, 0, DRY_RUN_BYTES)
    answer: Answer = {"dry_run": True}
    if estimate.jobs > 1:
        answer["jobs"] = estimate.jobs
    answer |= {
        "model": estimate.model,
        "more_files": len(estimate.files) - len(files) or None,
        "input_tokens": estimate.input_tokens,
        "cost_bound_usd": round_usd(estimate.cost_bound_usd),
        "bound_parts": estimate.bound_parts,
        "unbounded": unbounded,
    }
    return drop_missing(answer) | drop_falsy({"files": files})


# One job.


def render_job(
    job: Job, now: float, *, advise: bool = False, note: str = "", host_note: str = "", limit_bytes: int = OUTPUT_BYTES
) -> Answer:
    """Return the answer to a poll: the result, the failure, or the progress. At most RUNNING_BYTES while it runs.

    `note` says what became of an answer that the user gave before; `host_note`, what is special about the next poll in
    the caller's host.
    """
    if job.is_terminal:
        return _move_output_last(_collect_outcome(job, limit_bytes) | drop_missing({"note": note}))
    answer = {"job_id": job.id, **_describe_progress(job, now, host_note)}
    limit = RUNNING_BYTES
    if advise:
        answer["advice"] = ADVICE
        limit = ADVICE_BYTES
    elif job.observed_by == "polling":
        limit = START_BYTES
    return _fit_activity(answer, limit) | drop_missing({"note": note})


def render_finished_job(job: Job, limit_bytes: int = OUTPUT_BYTES) -> Answer:
    """Return a finished job: as much of its output as fits one answer, its failure and the next step after it."""
    return _move_output_last(_collect_outcome(job, limit_bytes))


def _collect_outcome(job: Job, limit_bytes: int) -> Answer:
    answer: Answer = {"job_id": job.id, "status": job.status}
    if job.error is not None:
        answer["error"] = _render_failure(job.error)
        answer["next"] = _suggest_next_step(job, job.error)
    if job.output is not None or job.status is Status.COMPLETED:
        answer |= page_output(job, 0, limit_bytes)
    facts: Answer = {
        "warning": WARNINGS.get(find_warning(job)),
        "cost_usd": round_usd(job.cost_usd),
        "context": job.context,
        "result_path": job.result_path,
    }
    if job.status is Status.COMPLETED:
        facts = {"invalid": find_mismatch(read_output_text(job), job.turn.request), **facts}
    return answer | drop_falsy(facts)


def _move_output_last(answer: Answer) -> Answer:
    if "output" in answer:
        answer["output"] = answer.pop("output")
    return answer


def _describe_progress(job: Job, now: float, host_note: str) -> Answer:
    """Return the state of an unfinished job, its activity and the next step."""
    return drop_falsy(
        {
            "status": job.status,
            "cancel_requested": job.cancel_requested_at is not None,
            "elapsed_s": max(0, round(now - job.created_at)),
            "activity": _describe_activity(job),
            "lasts": _LASTS.get(job.turn.mode),
            "observed_by": _UNUSUAL_OBSERVERS.get(job.observed_by),
            "next_poll_ms": next_poll_ms(job, now),
            "next": f"agent_poll job_id={job.id}{host_note}",
        }
    )


def _describe_activity(job: Job) -> str:
    if job.turn.number == 1:
        return job.activity
    return f"turn {job.turn.number}; {job.activity}".removesuffix("; ")


def summarize_activity(jobs: Sequence[Job]) -> str:
    """Return what open jobs do, for a line that a host shows its user, without their prompts and outputs."""
    if len(jobs) != 1:
        counts = Counter(str(job.status) for job in jobs)
        return ", ".join(f"{count} {status}" for status, count in counts.items())
    [job] = jobs
    return truncate(_describe_activity(job) or str(job.status), PROGRESS_CHARS)


def _render_failure(error: Failure) -> Answer:
    answer: Answer = {"code": error.code[:CODE_CHARS], "message": error.message[:MESSAGE_CHARS]}
    return answer | drop_falsy({"retryable": error.is_retryable})


def _suggest_next_step(job: Job, error: Failure) -> str:
    if error.is_retryable:
        return "agent_start again in 60 s"
    if error == UNANSWERED:
        return "agent_start again once the user can answer"
    steps: Mapping[str, str] = NEXT_STEPS
    if job.owner:
        steps = {**NEXT_STEPS, **OWNER_NEXT_STEPS}
    if error.code in steps:
        return steps[error.code].format(id=job.id)
    if job.status is Status.INCOMPLETE:
        return "output has the part that arrived"
    return "change the request, then agent_start again"


def find_warning(job: Job) -> str:
    """Return the code of the warning about an output that upstream did not finish or did not return."""
    if _is_empty_success(job):
        return "empty_output"
    text = read_output_text(job)
    if text and text == job.turn.partial and _is_cut(job):
        return "cut_output"
    if "sandbox:/" in text:
        return "sandbox_links"
    return ""


def _is_empty_success(job: Job) -> bool:
    if job.status is not Status.COMPLETED or job.output is not None:
        return False
    return job.turn.empty_completions > 0 or job.usage is not None


def _is_cut(job: Job) -> bool:
    """Return True if upstream ended before it had sent the whole output."""
    return job.turn.empty_completions > 0 or job.error_code in _CUTTING_FAILURES


def page_output(job: Job, offset: int, limit_bytes: int = OUTPUT_BYTES) -> Answer:
    """Return one page of a job's output from a byte offset, and the call that reads the next one."""
    data = encode_text(read_output_text(job))
    part, after = cut_encoded_page(data, offset, limit_bytes)
    if after is None:
        return {"output": part}
    call = f"agent_result job_id={job.id} offset={after}"
    return {"bytes": len(data), "next": call, "output": part}


def read_output_text(job: Job) -> str:
    """Return the text of a job's output; empty if there is none."""
    if job.output is None:
        return ""
    return job.output.text


def read_response(job: Job) -> JSON:
    """Return the response object of a job's last turn, as upstream sent it; empty if it was not read."""
    if job.output is None:
        return {}
    return job.output.response or {}


def list_token_counts(usage: Usage | None) -> Answer | None:
    """Return the counts of tokens by name, with a note if some are missing; None if nothing was counted."""
    if usage is None:
        return None
    counts: Answer = {name: getattr(usage, name) for name in Usage.__slots__ if name != "partial"}
    return counts | drop_falsy({"partial": usage.partial})


# Several jobs.


def format_filter_arguments(group: JobFilter) -> str:
    """Return the arguments by which a call selects a group of jobs."""
    if group.batch:
        return f"batch={group.batch}"
    match group.job_ids:
        case ():
            return ""
        case (job_id,):
            return format_job_argument(job_id)
        case job_ids if len(job_ids) > MAX_ECHOED_IDS:
            return "with the same job_ids"
        case job_ids:
            return f"job_ids={compact_json(job_ids)}"


def format_job_argument(job_id: str) -> str:
    """Return the argument by which a call selects one job."""
    return f"job_id={job_id}"


# Errors and values.


def render_error(error: AgentJobsError, message: str) -> Answer:
    """Return the answer to a call that did nothing, with a message for its reader."""
    code = next((_ERROR_CODES[kind] for kind in type(error).__mro__ if kind in _ERROR_CODES), "internal")
    return {"error": {"code": code, "message": message}}


def format_json_line(answer: object, *, compact: bool = True) -> str:
    """Return JSON as one line for every reader: characters that only some read as a line end are escaped.

    Half a surrogate pair, which a model may write, stays an escape as well.
    """
    text = compact_json(answer) if compact else json.dumps(answer, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode().translate(LINE_ENDS)


def round_usd(usd: float | None) -> float | None:
    """Return a sum rounded to a hundredth of a cent, and one below a cent to two digits."""
    if usd is None:
        return None
    if usd < 0.01:
        return float(f"{usd:.2g}")
    return round(usd, 4)


def round_known(value: float | None, digits: int | None = None) -> float | None:
    """Return a number rounded; None stays None."""
    if value is None:
        return None
    return round(value, digits)


def drop_missing(answer: Answer) -> Answer:
    """Return an answer without the fields that are None or empty texts."""
    return {name: value for name, value in answer.items() if value not in (None, "")}


def drop_falsy(answer: Answer) -> Answer:
    """Return an answer without the fields that are false, 0 or empty."""
    return {name: value for name, value in answer.items() if value}


def _leave_out_until_it_fits(answer: Answer, limit_bytes: int, *names: str) -> Answer:
    """Return an answer without those of these fields, in their order, for which it has no room."""
    for name in names:
        if count_json_bytes(answer) > limit_bytes:
            answer = drop_fields(answer, name)
    return answer


def _fit_activity(answer: Answer, limit_bytes: int) -> Answer:
    """Shorten the activity, the one free text, until the answer fits."""
    while (excess := count_json_bytes(answer) - limit_bytes) > 0 and answer.get("activity"):
        kept = answer["activity"].removesuffix("…")[:-excess].rstrip()
        answer = drop_missing(answer | {"activity": kept and f"{kept}…"})
    return answer
