"""Sort the known moments of a job's life by time. Pure."""

from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import NamedTuple

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import UNWATCHED, WATCHED, Event, JobDetails, TurnRecord
from agent_jobs.jobs.response import Call
from agent_jobs.jobs.response_steps import Step

#: Characters of a line's text beside its kind.
TEXT_CHARS = 300
#: A shorter time without an observer is not worth a line.
MIN_GAP_S = 3.0
#: A command that prints a result marks it as delivered, and a moment later as read.
SAME_MOMENT_S = 2.0


class Moment(NamedTuple):
    """Something that happened to a job."""

    at: float
    kind: str  #: such as created, sent, step, call, event, gap, finished
    what: str  #: in a few words
    detail: str = ""  #: a query, arguments, an error
    until: float | None = None  #: its end, if it took time
    turn: int = 0
    is_running: bool = False
    is_error: bool = False

    @property
    def took_s(self) -> float | None:
        """Return how long it took; None if it took no time, or that is not known."""
        if self.until is None:
            return None
        return max(0.0, self.until - self.at)


def build_timeline(details: JobDetails, now: float) -> list[Moment]:
    """Return what happened to a job, oldest first."""
    job = details.result.job
    moments = [
        *_list_beginnings(job),
        *(_describe_turn(turn) for turn in details.turns if turn.sent_at is not None),
        *(_describe_step(step, is_over=job.is_terminal) for step in details.steps),
        *(_place_call(call, is_over=job.is_terminal) for call in details.result.calls if call.started_at),
        *_list_events(details),
        *_find_gaps(details.result.events, job.finished_at or now),
        *_list_ends(job),
    ]
    return sorted(moments, key=lambda moment: moment.at)


def _list_beginnings(job: Job) -> Iterator[Moment]:
    facts = [job.model, job.effort and f"effort {job.effort}", job.preset and f"preset {job.preset}"]
    what = "created"
    if job.client:
        what = f"created by {job.client}"
    yield Moment(job.created_at, "created", what, ", ".join(filter(None, facts)))
    if job.cancel_requested_at is not None:
        yield Moment(job.cancel_requested_at, "cancel", "cancel requested")
    if job.turn.asked_at is not None:
        yield Moment(job.turn.asked_at, "asked", "waits for an answer", turn=job.turn.number)


def _describe_turn(turn: TurnRecord) -> Moment:
    assert turn.sent_at is not None
    what = f"turn {turn.number} sent"
    if turn.number == 1:
        what = "sent"
    return Moment(turn.sent_at, "sent", what, turn.response_id or "no response id", turn=turn.number)


def _describe_step(step: Step, *, is_over: bool) -> Moment:
    what = name_step(step)
    detail = step.detail
    if step.error:
        what, detail = f"{what} failed", step.error
    return Moment(
        step.seen_at,
        "step",
        what,
        detail,
        step.finished_at,
        step.turn,
        is_running=step.finished_at is None and not is_over,
        is_error=bool(step.error),
    )


def name_step(step: Step) -> str:
    """Return the kind of a step in words, with the name of its tool."""
    kind = step.kind.replace("_", " ")
    return f"{kind} {step.name}".rstrip()


def _place_call(call: Call, *, is_over: bool) -> Moment:
    assert call.started_at is not None
    what = f"{call.name} ran here"
    return Moment(
        call.started_at,
        "call",
        what,
        call.arguments[:TEXT_CHARS],
        call.finished_at,
        is_running=call.finished_at is None and not is_over,
    )


def _list_events(details: JobDetails) -> Iterator[Moment]:
    kinds_shown_apart = {UNWATCHED, WATCHED}
    if any(call.started_at for call in details.result.calls):
        kinds_shown_apart.add("call")
    for event in details.result.events:
        if event.kind not in kinds_shown_apart:
            yield Moment(event.at, "event", name_event(event), event.text[:TEXT_CHARS])


def name_event(event: Event) -> str:
    """Return in words what happened."""
    return _EVENT_WORDS.get(event.kind, event.kind.replace("_", " "))


#: What the kinds of events mean.
_EVENT_WORDS = {
    "following": "stream opened",
    "polling": "polled from here on",
    UNWATCHED: "not watched from here on",
    WATCHED: "watched again",
    "resubmitted": "sent again",
    "rebuilt": "sent again with its conversation",
    "adopted": "its response was found",
    "foreground": "runs only while a process listens",
    "background": "runs in the background",
    "dropped": "sent again without a parameter",
    "deadline": "time limit reached, cancelling",
    "unsettled": "could not be finalized",
    "call": "called",
}


def _find_gaps(events: list[Event], end: float) -> Iterator[Moment]:
    """Yield the times in which no process watched the job."""
    changes = [event for event in [*events, Event(end, WATCHED, "")] if event.kind in (UNWATCHED, WATCHED)]
    firsts = [next(run) for _, run in groupby(changes, key=lambda event: event.kind)]
    for began, ended in pairwise(firsts):
        if began.kind == UNWATCHED and ended.at - began.at >= MIN_GAP_S:
            yield Moment(began.at, "gap", "not watched", until=ended.at)


def _list_ends(job: Job) -> Iterator[Moment]:
    if job.finished_at is not None:
        detail = ""
        if job.error is not None:
            detail = str(job.error)
        yield Moment(job.finished_at, "finished", str(job.status), detail)
    if job.delivered_at is not None and not _is_read_with(job):
        yield Moment(job.delivered_at, "delivered", "result delivered")
    if job.read_at is not None:
        yield Moment(job.read_at, "read", "result read")


def _is_read_with(job: Job) -> bool:
    """Return True if the result was read as it was delivered: one line says both."""
    assert job.delivered_at is not None
    return job.read_at is not None and abs(job.read_at - job.delivered_at) < SAME_MOMENT_S
