"""Prepare what the templates show: plain values with the words for a person. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import MATCH_BEGIN, MATCH_END, DayBudget, JobDetails, SearchHit, TurnRecord
from agent_jobs.jobs.response import Call
from agent_jobs.jobs.status import ACTIVE, Status
from agent_jobs.page.formats import (
    format_age,
    format_duration,
    format_machine_time,
    format_span,
    format_time,
    format_tokens,
    format_usd,
)
from agent_jobs.page.wording import describe_remedy
from agent_jobs.rendering import answers
from agent_jobs.rendering.citations import cite_output, insert_numbers
from agent_jobs.rendering.last_sentence import find_last_sentence
from agent_jobs.rendering.output import find_sources
from agent_jobs.rendering.questions import escape_invisible, name_tool
from agent_jobs.rendering.timeline import Moment, build_timeline

#: Names of statuses for a person: those that the terminal and the tools have.
STATUS_WORDS = {status: status.replace("_", " ") for status in Status}
#: A step of less than this is shown without its time.
MIN_SHOWN_S = 0.05
#: Levels of a conversation that a list indents.
MAX_DEPTH = 3


#: Marks in the titles of pages, which a reader sees in a row of tabs.
_TITLE_MARKS = {
    Status.INPUT_REQUIRED: "(1) ",
    Status.COMPLETED: "\N{CHECK MARK} ",
    Status.FAILED: "\N{BALLOT X} ",
    Status.EXPIRED: "\N{BALLOT X} ",
    Status.INCOMPLETE: "\N{BALLOT X} ",
}


class JobRow(NamedTuple):
    """One job in a list."""

    id: str
    title: str
    status: Status
    status_words: str
    is_active: bool
    is_unread: bool
    activity: str  #: its activity, its last sentence, or the reason of its end
    remedy: str  #: the next step for a person after its end
    model: str
    owner: str
    started: str
    started_at: str  #: in full
    machine_time: str
    elapsed: str
    cost: str
    limit: str  #: its highest cost
    title_mark: str  #: stands before the title of its page
    previous: str  #: the job that it continues
    depth: int = 0  #: in its conversation, below the first job that the list shows
    passage: Sequence[tuple[str, bool]] = ()  #: pieces of a passage that a search found, and whether each matched
    questions: Sequence[Mapping[str, str]] = ()
    turn: int = 0


class TimelineRow(NamedTuple):
    """One moment of a job's life."""

    kind: str
    what: str
    detail: str
    error: str
    machine_time: str
    started_at: str  #: in full
    after: str  #: time since the start of the job; empty if the moment before has the same
    took: str  #: empty if it took no time worth a word
    tokens: str
    is_running: bool


class CitedSource(NamedTuple):
    """A source of an answer; without a URL that a browser may open there is only its name."""

    name: str
    url: str


class Meter(NamedTuple):
    """The spent amount, beside its limit."""

    used: float
    limit: float
    words: str


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
        remedy=describe_remedy(job),
        model=escape_invisible(" ".join(filter(None, (job.model, job.effort)))),
        owner=job.owner,
        started=format_age(job.created_at, now),
        started_at=format_time(job.created_at),
        machine_time=format_machine_time(job.created_at),
        elapsed=format_duration(_find_elapsed_s(job, now)),
        cost=format_usd(job.cost_usd),
        limit=format_usd(job.max_cost_usd),
        title_mark=_TITLE_MARKS.get(job.status, ""),
        previous=job.previous_job_id or "",
        turn=job.turn.number,
    )


def build_hit(hit: SearchHit, now: float) -> JobRow:
    """Return a job that a search found as a row, with the passage that matches."""
    pieces: list[tuple[str, bool]] = []
    for part in hit.passage.split(MATCH_BEGIN):
        matched, _, rest = part.rpartition(MATCH_END)
        pieces += [(escape_invisible(matched), True), (escape_invisible(rest), False)]
    return build_row(hit.job, now)._replace(passage=[piece for piece in pieces if piece[0]])


def arrange_threads(rows: Iterable[JobRow]) -> list[JobRow]:
    """Return rows as trees: each job is followed by the jobs that continue it, oldest first, which are indented."""
    listed = {row.id: row for row in rows}
    children: dict[str, list[JobRow]] = {}
    for row in reversed(listed.values()):
        if row.previous in listed:
            children.setdefault(row.previous, []).append(row)
    roots = [row for row in listed.values() if row.previous not in listed]
    return list(_walk_threads(roots, children))


def _walk_threads(roots: Sequence[JobRow], children: Mapping[str, Sequence[JobRow]]) -> Iterator[JobRow]:
    """Yield trees of rows, each row before its children. A stack: a conversation may be long."""
    waiting = list(reversed(roots))
    while waiting:
        row = waiting.pop()
        yield row
        below = [child._replace(depth=min(row.depth + 1, MAX_DEPTH)) for child in children.get(row.id, ())]
        waiting += reversed(below)


def is_unread(job: Job) -> bool:
    """Return True if a finished job's result was received by no reader."""
    return job.is_undelivered and job.read_at is None


def describe_state(job: Job) -> str:
    """Return the activity of a job with its last sentence, or the reason of its end."""
    if job.error is not None:
        return str(job.error)
    if job.is_terminal:
        return ""
    return find_last_sentence(job.turn.partial) or job.activity


def build_budget_meter(budget: DayBudget | None) -> Meter | None:
    """Return today's spending against the budget; None without a budget."""
    if budget is None:
        return None
    words = f"{format_usd(budget.used_usd)} of {format_usd(budget.usd)} today"
    return Meter(min(budget.used_usd, budget.usd), budget.usd, words)


def build_cost_meter(job: Job) -> Meter | None:
    """Return a job's cost against its limit; None without a limit."""
    if job.max_cost_usd is None:
        return None
    cost = job.cost_usd or 0.0
    return Meter(min(cost, job.max_cost_usd), job.max_cost_usd, f"{format_usd(cost)} of {format_usd(job.max_cost_usd)}")


def build_timeline_rows(details: JobDetails, now: float) -> list[TimelineRow]:
    """Return what happened to a job, oldest first, with the times in which no process observed it."""
    job = details.result.job
    turns = {turn.number: turn for turn in details.turns}
    rows: list[TimelineRow] = []
    after = ""
    for moment in build_timeline(details, now):
        if moment.kind in _LEFT_OUT:
            continue
        row = _build_timeline_row(moment, job.created_at, turns, now)
        if row.after == after:
            row = row._replace(after="")
        else:
            after = row.after
        rows.append(row)
    return rows


#: Kinds of moments that are no news to a reader of the page.
_LEFT_OUT = frozenset({"read", "delivered"})


def _build_timeline_row(
    moment: Moment, began: float, turns: Mapping[int, TurnRecord], now: float
) -> TimelineRow:  # fmt: skip
    took = ""
    until = moment.until
    if moment.is_running:
        until = now
    if until is not None and until - moment.at >= MIN_SHOWN_S:
        took = format_span(until - moment.at)
    detail, error = escape_invisible(moment.detail), ""
    if moment.is_error:
        detail, error = "", detail
    turn = turns.get(moment.turn)
    tokens = ""
    if moment.kind == "sent" and turn is not None:
        detail = ""  # the details have the id of the response
        tokens = " · ".join(filter(None, (format_tokens(turn.usage), format_usd(turn.cost_usd))))
    return TimelineRow(
        kind=moment.kind,
        what=escape_invisible(moment.what),
        detail=detail,
        error=error,
        machine_time=format_machine_time(moment.at),
        started_at=format_time(moment.at),
        after=format_span(moment.at - began),
        took=took,
        tokens=tokens,
        is_running=moment.is_running,
    )


def cite_answer(job: Job) -> tuple[str, list[CitedSource]]:
    """Return the answer of a job with the numbers of its sources, and these sources in the order of their numbers."""
    output = answers.read_response(job).get("output")
    text = answers.read_output_text(job)
    places, cited = cite_output(output)
    if not cited:
        return text, list(map(_build_source, find_sources(output)))
    return insert_numbers(text, places), list(map(_build_source, cited))


def _build_source(entry: dict[str, Any]) -> CitedSource:
    url = str(entry.get("url", ""))
    name = next((str(entry[field]) for field in ("title", "filename", "url", "file_id") if field in entry), "source")
    if not url.startswith(("http://", "https://")):
        url = ""
    return CitedSource(escape_invisible(name), url)


def build_question(call: Call) -> dict[str, str]:
    """Return the facts of a call for the person who decides about it."""
    name = call.name
    if call.needs == "approval":
        name = name_tool(name)
    return {
        "id": call.id,
        "kind": call.kind,
        "needs": call.needs,
        "name": escape_invisible(name),
        "arguments": _format_arguments(call.arguments),
    }


def _format_arguments(arguments: str) -> str:
    """Return the arguments of a call, those of an object one by one."""
    try:
        lines = json.dumps(json.loads(arguments), ensure_ascii=False, indent=2).splitlines()
    except (ValueError, RecursionError):
        lines = [arguments]
    return "\n".join(map(escape_invisible, lines))


def _find_elapsed_s(job: Job, now: float) -> float:
    until = job.finished_at or now
    return until - (job.running_since or job.created_at)
