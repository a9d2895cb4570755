"""A job as every face shows it: one flat mapping, each fact once, nothing that is not known.

What a model reads it pays for on every later turn, so the sizes are part of the contract (bytes of compact JSON).
What may be long stands last: some hosts cut an answer at its end or in its middle, and how to go on must survive that.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

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
from agent_jobs.jobs.queries import BatchState, Estimate, JobFilter, JobPage, Result
from agent_jobs.jobs.response import Call, Failure, Usage
from agent_jobs.jobs.status import Status
from agent_jobs.rendering import content, paging
from agent_jobs.rendering.paging import OUTPUT_BYTES, page, page_of
from agent_jobs.request.body import mismatch

START_BYTES, RUNNING_BYTES, ADVICE_BYTES = 240, 200, 400
CODE_CHARS, MESSAGE_CHARS = 60, 300
DRY_RUN_BYTES = 4_000
#: Of a title in a row; job ids that are repeated to the model at most.
ROW_CHARS, FEW = 40, 8
#: Of what a call was asked with, as far as it fits; of its name; calls that are told of at once.
ARGUMENT_CHARS, ARGUMENT_CHARS_LEAST, NAME_CHARS, CALLS = 2_000, 120, 80, 20
#: All that a waiting job needs, unless one call's id alone takes it.
ASKING_BYTES = 8_000
PROGRESS_CHARS = 200  # hosts cut a progress message there
#: What happened last to a job is told so often.
EVENTS = 40

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
    "missing_secret": "ask the user to do that and restart the server, then agent_start again",
    "invalid_api_key": "ask the user to set a valid OPENAI_API_KEY, then agent_start again",
    "account_refused": "ask the user to check the key, its permissions and the credit, then agent_start again",
    "insufficient_quota": "ask the user to add credit at the provider, then agent_start again",
    "model_not_found": "agent_start with another model",
    "max_turns": "agent_start again with a narrower prompt or other tools",
    "max_tool_calls": "agent_start again with a higher options.max_tool_calls or a narrower prompt",
    "budget_exceeded": "agent_start again once its limit is higher: options.max_cost_usd, or, set by the user, "
    "AGENT_JOBS_DAILY_BUDGET_USD",
    "max_output_tokens": "agent_start with a higher options.max_output_tokens or a narrower prompt",
}

#: Said of an output that only a stream brought, and of a success with nothing in it.
CUT = "The output is what arrived before the connection ended; it may be cut."
EMPTY = "Upstream reported success without any output."
SANDBOX = "Its sandbox: links open nowhere; agent_result part=files has the files that could be saved."
#: What Python, JavaScript and others take for the end of a line, and JSON allows in a text.
LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}

_CODES: dict[type[AgentJobsError], str] = {
    JobNotFoundError: "job_not_found",
    BudgetError: "budget_exceeded",
    RequestError: "bad_request",
    ConfigError: "config",
    StoreError: "storage",
    ToolServerError: "tool_server",
}


def started(
    job: Job, now: float, *, duplicate: bool = False, host_note: str = "", limit_bytes: int = OUTPUT_BYTES
) -> dict[str, Any]:
    """The answer to a start: the ids, and how to go on. At most START_BYTES while nothing ended.

    `host_note` says of the next poll what is special about the caller's host.
    """
    again = {"duplicate": True} if duplicate else {}
    if job.is_terminal:
        return _with_output_last(ended(job, limit_bytes) | again)
    answer = {"job_id": job.id, **again, "response_id": job.turn.response_id, **_going_on(job, now, host_note)}
    answer = _fitting(_compact(answer), START_BYTES)
    if len(dumps(answer).encode()) > START_BYTES:
        del answer["response_id"]  # some gateways give ids of 421 characters, which nobody reads
    return answer


def shown(
    job: Job, now: float, *, advise: bool = False, note: str = "", host_note: str = "", limit_bytes: int = OUTPUT_BYTES
) -> dict[str, Any]:
    """The answer to a poll: the result, the failure, or that it goes on. At most RUNNING_BYTES while it runs.

    The note says what became of an answer that was given before; `host_note`, of the next poll what is special
    about the caller's host.
    """
    if job.is_terminal:
        return _with_output_last(ended(job, limit_bytes) | _compact({"note": note}))
    answer = {"job_id": job.id, **_going_on(job, now, host_note)}
    if advise:
        answer = _fitting(_compact(answer | {"advice": ADVICE}), ADVICE_BYTES)
    else:
        answer = _fitting(_compact(answer), RUNNING_BYTES if job.observed_by != "polling" else START_BYTES)
    return answer | _compact({"note": note})


def started_together(jobs: Sequence[Job], duplicates: int) -> dict[str, Any]:
    """The answer to a start of several jobs: how to ask for them together. At most ADVICE_BYTES."""
    batches = {job.batch for job in jobs}
    # Jobs that were there before may be of another batch, or of none.
    batch = batches.pop() if len(batches) == 1 else ""
    together = JobFilter(batch=batch) if batch else JobFilter(job_ids=tuple(job.id for job in jobs))
    answer = _compact(
        {
            "batch": together.batch,
            "jobs": len(jobs),
            "duplicates": duplicates or None,
            "next_poll_ms": POLL_MIN_MS,
            "next": f"agent_poll {asked(together)}",
            "job_ids": [job.id for job in jobs],
        }
    )
    if together.batch and len(dumps(answer).encode()) > ADVICE_BYTES:
        answer |= {"next": f"{answer['next']}; agent_list batch={together.batch} tells the job_ids"}
        del answer["job_ids"]
    return answer


def gathered(
    told: BatchState,
    group: JobFilter,
    now: float,
    *,
    advise: bool = False,
    host_note: str = "",
    limit_bytes: int = OUTPUT_BYTES,
    rows_bytes: int = ADVICE_BYTES,
) -> tuple[dict[str, Any], list[Job]]:
    """The answer to a poll of several jobs, and the ended ones that it tells of: as many as fit `rows_bytes`.

    One that ended alone comes with its output, if that fits; the others by their titles.
    """
    running = len(told.running)
    poll = f"agent_poll {asked(group)}".strip() + host_note
    asks = len(told.asking) or None
    if not told.done:
        waiting: dict[str, Any] = {"running": running, "input_required": asks, "delivered": told.delivered or None}
        if told.is_running:
            hint = min(next_poll_ms(job, now) for job in [*told.running, *told.asking])
            then = poll if running else "agent_list status=input_required, then agent_poll each"
            waiting |= {"next_poll_ms": hint, "next": then, "advice": ADVICE if advise else None}
        else:
            waiting |= {"next": f"all were told before: agent_list {asked(group)}".strip()}
        return _compact(waiting), []
    if len(told.done) == 1 and "next" not in (alone := shown(told.done[0], now, limit_bytes=limit_bytes)):
        going_on = {"running": running, "input_required": asks, "next": poll if running else None}
        return _compact({**going_on, "done": [alone]}), told.done

    def of(rows: list[dict[str, Any]]) -> dict[str, Any]:
        more = len(told.done) - len(rows)
        then = "; ".join([*_each(rows), *[poll] * bool(running or more)])
        return _compact({"more": more or None, "running": running, "input_required": asks, "next": then, "done": rows})

    rows = [_row(told.done[0])]
    for job in told.done[1:]:
        if len(dumps(of([*rows, _row(job)])).encode()) > rows_bytes:
            break
        rows.append(_row(job))
    return of(rows), told.done[: len(rows)]


def _each(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What to do with each of these rows."""
    asking = [row["status"] == Status.INPUT_REQUIRED for row in rows]
    if not any(asking):
        return ["agent_result for each"]
    return ["agent_result for each that ended"] * (not all(asking)) + ["agent_poll each that is input_required"]


def listed(found: JobPage, now: float, limit_bytes: int | None = None) -> dict[str, Any]:
    """The answer to a search: how many jobs there are in each status, what today cost, if known, and a row for each.

    With a limit only as many rows as fit it.
    """
    rows = [
        _compact(
            {
                **_row(job),
                "batch": job.batch,
                "age_s": max(0, round(now - job.created_at)),
                "cost_usd": None if job.cost_usd is None else _usd(job.cost_usd),
                "undelivered": True if job.is_terminal and job.delivered_at is None else None,
            }
        )
        for job in found.jobs
    ]
    if limit_bytes is not None:
        rows, _ = page_of(rows, 0, limit_bytes)
    more = sum(found.counts.values()) - len(rows)
    known = {
        "more": more or None,
        "counts": found.counts,
        "today_usd": _usd(found.today_usd) or None,
        "warnings": list(found.warnings) or None,
    }
    return _compact(known) | {"jobs": rows}


def stopped(jobs: Sequence[Job], group: JobFilter) -> dict[str, Any]:
    """The answer to a cancel of several jobs."""
    counts = Counter(str(job.status) for job in jobs)
    still = any(not job.is_terminal for job in jobs)
    return _compact({"counts": counts, "next": f"agent_poll {asked(group)}" if still else None})


def estimated(estimate: Estimate) -> dict[str, Any]:
    """The answer to a dry run: what would be sent, and what it may cost. As many files as fit DRY_RUN_BYTES."""
    files, shown = page_of(estimate.files, 0, DRY_RUN_BYTES)
    return _compact(
        {
            "dry_run": True,
            "jobs": estimate.jobs if estimate.jobs > 1 else None,
            "model": estimate.model,
            "more_files": len(estimate.files) - shown if shown is not None else None,
            "input_tokens": estimate.input_tokens,
            "cost_bound_usd": None if estimate.cost_bound_usd is None else _usd(estimate.cost_bound_usd),
            "bound_parts": estimate.bound_parts,
            "unbounded": estimate.unbounded,
            "files": files or None,
        }
    )


def part(result: Result, name: str, offset: int, limit_bytes: int) -> dict[str, Any]:
    """One part of a job's result: a page of a text or of a list, and where the next one starts."""
    job = result.job
    output = job.output.response.get("output") if job.output and job.output.response else None
    shown: Any
    after: int | None = None
    match name:
        case "outline":
            shown, after = page_of(content.outline(_text(job)), offset, limit_bytes)
        case "sources":
            shown, after = page_of(content.sources(output), offset, limit_bytes)
        case "items":
            shown, after = page_of([*_calls(result), *content.items(output)], offset, limit_bytes)
        case "files":
            shown, after = page_of(_files(result, output), offset, limit_bytes)
        case "reasoning":
            shown, after = page(content.reasoning(output) or job.turn.reasoning, offset, limit_bytes)
        case "usage":
            shown = _usage(job)
        case "meta":
            shown = _meta(result, limit_bytes)
        case "partial":
            shown, after = page(_text(job) or job.turn.partial, offset, limit_bytes)
        case _:
            return _compact({"job_id": job.id, "offset": offset or None}) | output_of(job, offset, limit_bytes)
    more = f"agent_result job_id={job.id} part={name} offset={after}" if after is not None else None
    return _compact({"job_id": job.id, "next": more}) | {name: shown}


def asked(group: JobFilter) -> str:
    """The arguments by which a group of jobs is asked for."""
    if group.batch:
        return f"batch={group.batch}"
    if len(group.job_ids) > FEW:
        return "with the same job_ids"
    if len(group.job_ids) == 1:
        return f"job_id={group.job_ids[0]}"
    return f"job_ids={dumps(group.job_ids)}" if group.job_ids else ""


def asking(
    job: Job, calls: Sequence[Call], *, may_approve: bool, dialog: bool = False, note: str = ""
) -> dict[str, Any]:
    """The answer to a poll of a job that waits for one: what it needs, and how to give it. At most ASKING_BYTES.

    `dialog` says that a poll asks the user directly; the note, what became of an answer that was given before.
    """
    count, chars = min(len(calls), CALLS), ARGUMENT_CHARS
    while True:
        answer = _asking(job, calls, count, chars, may_approve=may_approve, dialog=dialog, note=note)
        if len(dumps(answer).encode("utf-8", "replace")) <= ASKING_BYTES or (count, chars) == (1, ARGUMENT_CHARS_LEAST):
            return answer
        if chars > ARGUMENT_CHARS_LEAST:
            chars = max(ARGUMENT_CHARS_LEAST, chars // 2)
        else:
            count -= 1


def question(job: Job, call: Call) -> str:
    """What a person reads before they let a job make a call, without characters that could dress it up."""
    return (
        f"The job {_plain(job.title, ROW_CHARS)} ({job.id}) asks to call {_plain(call.name, NAME_CHARS)} with:\n"
        f"{_ends(call.arguments, job)}\nAccept to let it, decline to refuse."
    )


def ended(job: Job, limit_bytes: int = OUTPUT_BYTES) -> dict[str, Any]:
    """A job that is over: its output as far as it fits one answer, its failure and what to do about it."""
    answer: dict[str, Any] = {"job_id": job.id, "status": job.status}
    if job.error is not None:
        answer |= {"error": _error(job.error), "next": _next(job, job.error)}
    if job.output is not None or job.status is Status.COMPLETED:
        answer |= output_of(job, 0, limit_bytes)
    told = {
        "invalid": mismatch(_text(job), job.turn.request) if job.status is Status.COMPLETED else None,
        "warning": warning_of(job),
        "cost_usd": _usd(job.cost_usd) if job.cost_usd else None,
        "context": job.context,
        "result_path": job.result_path,
    }
    return _with_output_last(answer | _compact(told))


def warning_of(job: Job) -> str:
    """Return what a reader must know of an output that upstream did not finish or did not give; else nothing."""
    if job.status is Status.COMPLETED and job.output is None and (job.turn.empty_completions or job.usage is not None):
        return EMPTY
    unfinished = job.turn.empty_completions > 0 or (
        job.error is not None and job.error.code in ("interrupted", "expired")
    )
    if unfinished and _text(job) and _text(job) == job.turn.partial:
        return CUT
    return SANDBOX if "sandbox:/" in _text(job) else ""


def output_of(job: Job, offset: int, limit_bytes: int = OUTPUT_BYTES) -> dict[str, Any]:
    """One page of a job's output from a byte offset, and where the next one starts."""
    text = _text(job)
    part, after = page(text, offset, limit_bytes)
    if after is None:
        return {"output": part}
    more = f"agent_result job_id={job.id} offset={after}"
    return {"bytes": len(text.encode("utf-8", "replace")), "next": more, "output": part}


def refused(error: AgentJobsError) -> dict[str, Any]:
    """The answer where nothing was done."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), "internal")
    return {"error": {"code": code, "message": str(error)}}


def dumps(answer: object) -> str:
    """Compact JSON as it goes to the host."""
    return paging.dumps(answer)


def json_line(answer: object, *, compact: bool = True) -> str:
    """Return JSON as one line for every reader: what only some take for the end of a line is an escape.

    Half a surrogate pair of a model's stays an escape as well.
    """
    text = dumps(answer) if compact else json.dumps(answer, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode().translate(LINE_ENDS)


def _text(job: Job) -> str:
    return job.output.text if job.output else ""


def _usage(job: Job) -> dict[str, Any]:
    counted: dict[str, Any] = {}
    if job.usage is not None:
        counted = {name: getattr(job.usage, name) for name in Usage.__slots__ if name != "partial"}
        if job.usage.partial:  # a 0 is then no count
            counted = {name: count for name, count in counted.items() if count} | {"partial": True}
    return counted | _compact({"cost_usd": None if job.cost_usd is None else _usd(job.cost_usd)})


def _meta(result: Result, limit_bytes: int) -> dict[str, Any]:
    """What is known of a job beside its output: ids, how it was sent, what happened, and its request.

    Where that is too long, the first events are left out, and then the request.
    """
    job = result.job
    events = [f"{round(event.at)} {event.kind} {event.text}".strip() for event in result.events[-EVENTS:]]
    meta = _compact(
        {
            "title": job.title,
            "status": job.status,
            "batch": job.batch,
            "previous_job_id": job.previous_job_id,
            "context": job.context,
            "response_id": job.turn.response_id,
            "request_id": job.turn.request_id,
            "mode": job.turn.mode,
            "attempts": job.turn.attempt,
            "looks": job.turn.polls,
            "created_at": round(job.created_at),
            "finished_at": round(job.finished_at) if job.finished_at else None,
            "result_path": job.result_path,
            "events": events,
            "request": content.shown_request(job.turn.request),
        }
    )
    while len(dumps(meta).encode("utf-8", "replace")) > limit_bytes and events:
        del events[0]
    if len(dumps(meta).encode("utf-8", "replace")) > limit_bytes:
        del meta["request"]
    return meta


def _calls(result: Result) -> list[dict[str, Any]]:
    """What the job's turns asked for, and the answers; what is not answered yet as a whole, in pieces if it is long."""
    entries: list[dict[str, Any]] = []
    for call in result.calls:
        # Who made it was stopped, or died, before it heard of an answer.
        state = "unknown" if call.state == "running" and result.job.is_terminal else call.state
        entry = {"type": "call", "name": call.name, "state": state}
        if call.state == "open":
            pieces = range(0, max(1, len(call.arguments)), ARGUMENT_CHARS)
            entries += [
                {**entry, "call_id": call.id, "arguments": call.arguments[at : at + ARGUMENT_CHARS]} for at in pieces
            ]
        else:
            output = None if call.output is None else _line(_said(call.output))
            entries.append(_compact({**entry, "arguments": _line(call.arguments), "output": output}))
    return entries


def _said(output: object) -> str:
    """An answer to a call in words: of its parts, those that are text."""
    if not isinstance(output, list):
        return str(output)
    parts = cast("list[dict[str, Any]]", output)
    return " ".join("[image]" if part["type"] == "input_image" else part["text"] for part in parts)


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 1] + "…"


def _files(result: Result, output: object) -> list[dict[str, Any]]:
    """What the run made: where it was written, or what is known of it."""
    known = content.files(output)
    if not result.made:
        return known
    saved = {_letters_of(file.name) for file in result.made}
    linked = [file for file in known if file["type"] == "sandbox_file" and _letters_of(file["filename"]) not in saved]
    return [*({"name": file.name, "path": file.path, "bytes": file.bytes} for file in result.made), *linked]


def _letters_of(name: str) -> str:
    """Return what is left of a file's name wherever it is saved."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _asking(
    job: Job, calls: Sequence[Call], count: int, chars: int, *, may_approve: bool, dialog: bool, note: str
) -> dict[str, Any]:
    """What a waiting job needs: so many of its calls, so much of their arguments."""
    needs = [
        {"call_id": call.id, "name": call.name[:NAME_CHARS], "arguments": call.arguments[:chars]}
        | ({"cut": len(call.arguments) - chars} if len(call.arguments) > chars else {})
        | ({"approval": True} if call.needs == "approval" else {})
        for call in calls[:count]
    ]
    cut = count < len(calls) or any("cut" in call for call in needs)
    kinds = {call.needs for call in calls}
    reply, poll = f"agent_reply job_id={job.id}", f"agent_poll job_id={job.id}"
    how = ["outputs=[{call_id,output}]"] * ("output" in kinds)
    how += ["approve=[...] or deny=[...]"] * ("approval" in kinds and may_approve)
    user = None
    if "approval" in kinds and not may_approve:
        ask = f"{poll} asks them" if dialog else f"tell them to run `agent-jobs reply {job.id}` in a terminal"
        user = f"only the user may approve: {ask}. What they refuse: {reply} deny=[...]"
    return _compact(
        {
            "job_id": job.id,
            "status": job.status,
            "more": len(calls) - count or None,
            "whole": f"agent_result job_id={job.id} part=items" if cut else None,
            "user": user,
            "next": f"{reply} {' '.join(how)}" if how else f"{poll} once they did",
            "note": note,
            "needs": needs,
        }
    )


def visible(text: str) -> str:
    """A text on one line, with what is no visible character written as an escape: for a person who decides on it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def _plain(text: str, limit: int) -> str:
    seen = visible(text)
    return seen if len(seen) <= limit else f"{seen[: limit - 1]}…"


def _ends(arguments: str, job: Job) -> str:
    """The beginning and the end of arguments, and how much is missing between."""
    seen = visible(arguments)
    if len(seen) <= ARGUMENT_CHARS:
        return seen
    head, tail = ARGUMENT_CHARS * 3 // 4, ARGUMENT_CHARS // 4
    missing = f"[{len(seen) - head - tail} characters are not shown: agent_result job_id={job.id} part=items]"
    return f"{seen[:head]}\n{missing}\n{seen[-tail:]}"


def _row(job: Job) -> dict[str, Any]:
    """A job in a few words."""
    return _compact(
        {
            "job_id": job.id,
            "status": job.status,
            "title": job.title if len(job.title) <= ROW_CHARS else job.title[: ROW_CHARS - 1] + "…",
            "bytes": job.output_bytes or None,
        }
    )


def _usd(usd: float) -> float:
    """As exact as anybody needs: to a hundredth of a cent, small sums to two digits."""
    return float(f"{usd:.2g}") if usd < 0.01 else round(usd, 4)


def activity(jobs: Sequence[Job]) -> str:
    """Return what open jobs do, for a line that a host shows its user: nothing of their prompts and outputs."""
    if len(jobs) != 1:
        counts = Counter(str(job.status) for job in jobs)
        return ", ".join(f"{count} {status}" for status, count in counts.items())
    [job] = jobs
    doing = _activity_of(job) or str(job.status)
    return doing if len(doing) <= PROGRESS_CHARS else f"{doing[: PROGRESS_CHARS - 1]}…"


def _activity_of(job: Job) -> str:
    turn = f"turn {job.turn.number}" if job.turn.number > 1 else ""
    return "; ".join(filter(None, [turn, job.activity]))


def _going_on(job: Job, now: float, host_note: str) -> dict[str, Any]:
    return {
        "status": job.status,
        "cancel_requested": True if job.cancel_requested_at is not None else None,
        "elapsed_s": max(0, round(now - job.created_at)) or None,
        "activity": _activity_of(job),
        "lasts": "while this server runs" if job.turn.mode == "foreground" else None,
        "observed_by": job.observed_by if job.observed_by == "polling" else None,
        "next_poll_ms": next_poll_ms(job, now),
        "next": f"agent_poll job_id={job.id}{host_note}",
    }


def _error(error: Failure) -> dict[str, Any]:
    shown: dict[str, Any] = {"code": error.code[:CODE_CHARS], "message": error.message[:MESSAGE_CHARS]}
    return shown | {"retryable": True} if error.is_retryable else shown


def _next(job: Job, error: Failure) -> str:
    if error.is_retryable:
        return "agent_start again in 60 s"
    if error == UNANSWERED:
        return "agent_start again once somebody can answer"
    if job.status is Status.INCOMPLETE and error.code not in _NEXT:
        return "what came is in output"
    return _NEXT.get(error.code, "change the request, then agent_start again").format(id=job.id)


def _with_output_last(answer: dict[str, Any]) -> dict[str, Any]:
    facts = {name: value for name, value in answer.items() if name != "output"}
    return facts | {"output": answer["output"]} if "output" in answer else facts


def _compact(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if value not in (None, "")}


def _fitting(answer: dict[str, Any], limit: int) -> dict[str, Any]:
    """Shorten the activity, the one free text, until the answer fits."""
    while (over := len(dumps(answer).encode()) - limit) > 0 and answer.get("activity"):
        kept = answer["activity"].removesuffix("…")[: -max(1, over)]
        answer = _compact(answer | {"activity": kept and kept.rstrip() + "…"})
    return answer
