"""Prepare what the templates show: plain values with the words for a person. Pure."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobDetails, SearchHit
from agent_jobs.jobs.response import Call, Usage
from agent_jobs.jobs.status import ACTIVE, Status
from agent_jobs.jobs.steps import Step
from agent_jobs.rendering import answers
from agent_jobs.rendering.citations import cite_output, insert_numbers
from agent_jobs.rendering.output import find_sources
from agent_jobs.rendering.questions import escape_invisible
from agent_jobs.rendering.timeline import build_timeline

#: Names of statuses for a person.
STATUS_WORDS = {
    Status.PENDING: "waiting",
    Status.STARTING: "starting",
    Status.QUEUED: "queued",
    Status.IN_PROGRESS: "running",
    Status.INPUT_REQUIRED: "needs you",
    Status.COMPLETED: "done",
    Status.INCOMPLETE: "cut short",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
    Status.EXPIRED: "lost",
}
MINUTE_S = 60
HOUR_S = 3600


class JobRow(NamedTuple):
    """One job in a list."""

    id: str
    title: str
    status: Status
    status_words: str
    is_active: bool
    is_unread: bool
    activity: str
    model: str
    created_at: float
    elapsed: str
    cost: str
    passage: Sequence[tuple[str, bool]] = ()  #: pieces of a passage that a search found, and whether each matched


class StepRow(NamedTuple):
    """One step in a timeline."""

    kind: str
    name: str
    detail: str
    error: str
    seen_at: float
    duration: str
    is_running: bool


class Source(NamedTuple):
    """A source of an answer; without a URL that a browser may open there is only its name."""

    name: str
    url: str


def build_row(job: Job, now: float) -> JobRow:
    """Return a job as a row of a list."""
    return JobRow(
        id=job.id,
        title=escape_invisible(job.title),
        status=job.status,
        status_words=STATUS_WORDS[job.status],
        is_active=job.status in ACTIVE,
        is_unread=is_unread(job),
        activity=escape_invisible(describe_state(job)),
        model=job.model,
        created_at=job.created_at,
        elapsed=format_duration(_find_elapsed_s(job, now)),
        cost=format_usd(job.cost_usd),
    )


def build_hit(hit: SearchHit, now: float) -> JobRow:
    """Return a job that a search found as a row, with the passage that matches."""
    from agent_jobs.jobs.queries import MATCH_BEGIN, MATCH_END

    pieces: list[tuple[str, bool]] = []
    for part in hit.passage.split(MATCH_BEGIN):
        matched, _, rest = part.rpartition(MATCH_END)
        pieces += [(escape_invisible(matched), True), (escape_invisible(rest), False)]
    return build_row(hit.job, now)._replace(passage=[piece for piece in pieces if piece[0]])


def is_unread(job: Job) -> bool:
    """Return True if a finished job's result was received by no reader."""
    return job.is_terminal and job.delivered_at is None and job.read_at is None


def describe_state(job: Job) -> str:
    """Return what a job does, or why it ended so."""
    if job.error is not None:
        return f"{job.error.code}: {job.error.message}"
    return job.activity


def build_steps(steps: Sequence[Step], now: float) -> list[StepRow]:
    """Return the steps of a job in the order in which they were seen."""
    return [_build_step(step, now) for step in sorted(steps, key=lambda step: (step.turn, step.position))]


def _build_step(step: Step, now: float) -> StepRow:
    until = step.finished_at or now
    duration = ""
    if until > step.seen_at:
        duration = format_duration(until - step.seen_at)
    return StepRow(
        kind=step.kind.replace("_", " "),
        name=escape_invisible(step.name),
        detail=escape_invisible(step.detail),
        error=escape_invisible(step.error),
        seen_at=step.seen_at,
        duration=duration,
        is_running=step.finished_at is None,
    )


def cite_answer(job: Job) -> tuple[str, list[Source]]:
    """Return the answer of a job with the numbers of its sources, and these sources in the order of their numbers."""
    response = (job.output and job.output.response) or {}
    text = answers.output_text(job)
    places, cited = cite_output(response.get("output"))
    if not cited:
        return text, [_build_source(entry) for entry in find_sources(response.get("output"))]
    return insert_numbers(text, places), [_build_source(entry) for entry in cited]


def find_gaps(details: JobDetails, now: float) -> list[str]:
    """Return the times in which no process observed a job, in words."""
    gaps = [moment for moment in build_timeline(details, now) if moment.kind == "gap"]
    return [f"Not observed from {_format_gap_time(gap.at)} for {format_duration(gap.took_s or 0)}" for gap in gaps]


def _format_gap_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _build_source(entry: dict[str, Any]) -> Source:
    url = str(entry.get("url") or "")
    name = next((str(entry[field]) for field in ("title", "filename", "url", "file_id") if entry.get(field)), "source")
    if not url.startswith(("http://", "https://")):
        url = ""
    return Source(escape_invisible(name), url)


def build_question(call: Call) -> dict[str, str]:
    """Return what a person has to decide about a call."""
    return {
        "id": call.id,
        "kind": call.kind,
        "needs": call.needs,
        "name": escape_invisible(call.name),
        "arguments": escape_invisible(call.arguments),
    }


def format_duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    whole = max(0, round(seconds))
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02} s"
    return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S:02} min"


def format_usd(usd: float | None) -> str:
    """Return an amount with as many digits as it needs; empty while it is not known."""
    if usd is None:
        return ""
    if 0 < usd < 0.01:
        return f"${usd:.4f}"
    return f"${usd:,.2f}"


def format_tokens(usage: Usage | None) -> str:
    """Return the tokens of a job or turn; empty while they are not known."""
    if usage is None:
        return ""
    tokens = f"{usage.input_tokens:,} in, {usage.output_tokens:,} out"
    if usage.partial:
        return f"at least {tokens}"
    return tokens


def _find_elapsed_s(job: Job, now: float) -> float:
    until = job.finished_at or now
    return until - (job.running_since or job.created_at)
