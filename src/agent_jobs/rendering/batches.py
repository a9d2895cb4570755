"""Render several jobs in one answer: a batch, a list, or those that were cancelled."""

from collections import Counter
from collections.abc import Callable, Sequence

from agent_jobs.errors import AgentJobsError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.poll_schedule import next_poll_ms
from agent_jobs.jobs.queries import BatchState, JobFilter, JobPage
from agent_jobs.jobs.status import Status
from agent_jobs.rendering.answers import (
    ADVICE,
    ADVICE_BYTES,
    LIST_TITLE_CHARS,
    Answer,
    drop_falsy,
    drop_missing,
    format_filter_arguments,
    render_job,
    round_usd,
)
from agent_jobs.rendering.paging import OUTPUT_BYTES, count_json_bytes, select_page
from agent_jobs.text import truncate


def render_batch(
    state: BatchState,
    group: JobFilter,
    now: float,
    *,
    advise: bool = False,
    host_note: str = "",
    limit_bytes: int = OUTPUT_BYTES,
    rows_bytes: int = ADVICE_BYTES,
) -> tuple[Answer, list[Job]]:
    """Return the answer to a poll of several jobs, and the jobs that it reports: as many as fit `rows_bytes`.

    If one job has finished, its output is included, provided that it fits. If several have, they come by title.
    """
    poll = f"agent_poll {format_filter_arguments(group)}".strip() + host_note
    if not state.done:
        return _render_waiting(state, group, now, poll, advise=advise), []
    if len(state.done) == 1:
        alone = render_job(state.done[0], now, limit_bytes=limit_bytes)
        if "next" not in alone:  # there is nothing to do about it and nothing more to read
            return _render_alone(state, alone, poll), state.done
    rows = [_render_row(state.done[0])]
    for job in state.done[1:]:
        more_rows = [*rows, _render_row(job)]
        if count_json_bytes(_render_rows(state, more_rows, poll)) > rows_bytes:
            break
        rows = more_rows
    return _render_rows(state, rows, poll), state.done[: len(rows)]


def _render_waiting(state: BatchState, group: JobFilter, now: float, poll: str, *, advise: bool) -> Answer:
    """Return the answer when there is no job to report."""
    answer = _count_unfinished(state) | drop_falsy({"delivered": state.delivered})
    unfinished = [*state.running, *state.asking]
    if not unfinished:
        answer["next"] = f"all results were reported before: agent_list {format_filter_arguments(group)}".strip()
        return answer
    answer["next_poll_ms"] = min(next_poll_ms(job, now) for job in unfinished)
    answer["next"] = "agent_list status=input_required, then agent_poll each"
    if state.running:
        answer["next"] = poll
    if advise:
        answer["advice"] = ADVICE
    return answer


def _render_alone(state: BatchState, job: Answer, poll: str) -> Answer:
    """Return the answer that reports a single job with its output."""
    answer = _count_unfinished(state)
    if state.running:
        answer["next"] = poll
    answer["done"] = [job]
    return answer


def _render_rows(state: BatchState, rows: Sequence[Answer], poll: str) -> Answer:
    """Return the answer that reports jobs by their rows."""
    more = len(state.done) - len(rows)
    steps = _list_next_steps(rows)
    if state.running or more:
        steps.append(poll)
    return drop_falsy({"more": more}) | _count_unfinished(state) | {"next": "; ".join(steps), "done": rows}


def _count_unfinished(state: BatchState) -> Answer:
    return {"running": len(state.running)} | drop_falsy({"input_required": len(state.asking)})


def _list_next_steps(rows: Sequence[Answer]) -> list[str]:
    """Return what to do with the jobs of these rows."""
    is_asking = [row["status"] == Status.INPUT_REQUIRED for row in rows]
    if not any(is_asking):
        return ["agent_result for each"]
    steps = ["agent_poll each that is input_required"]
    if not all(is_asking):
        steps.insert(0, "agent_result for each finished one")
    return steps


def render_list(
    found: JobPage, now: float, describe: Callable[[AgentJobsError], str], limit_bytes: int | None = None
) -> Answer:
    """Return the answer to a search: the number of jobs in each status, today's cost if known, and a row for each.

    With a limit only as many rows come as fit it.
    """
    rows = [_render_list_row(job, now) for job in found.jobs]
    if limit_bytes is not None:
        rows, _ = select_page(rows, 0, limit_bytes)
    more = sum(found.counts.values()) - len(rows)
    known = drop_falsy({"today_usd": round_usd(found.today_usd), "warnings": list(map(describe, found.warnings))})
    return drop_falsy({"more": more}) | {"counts": found.counts, **known, "jobs": rows}


def _render_list_row(job: Job, now: float) -> Answer:
    row = _render_row(job)
    row |= {"batch": job.batch, "age_s": max(0, round(now - job.created_at)), "cost_usd": round_usd(job.cost_usd)}
    return drop_missing(row) | drop_falsy({"undelivered": job.is_undelivered})


def _render_row(job: Job) -> Answer:
    """Return the few facts that identify a job for a model."""
    return drop_falsy(
        {
            "job_id": job.id,
            "status": job.status,
            "title": truncate(job.title, LIST_TITLE_CHARS),
            "bytes": job.output_bytes,
        }
    )


def render_cancel(jobs: Sequence[Job], group: JobFilter) -> Answer:
    """Return the answer to a cancel of several jobs."""
    answer: Answer = {"counts": Counter(str(job.status) for job in jobs)}
    if not all(job.is_terminal for job in jobs):
        answer["next"] = f"agent_poll {format_filter_arguments(group)}"
    return answer
