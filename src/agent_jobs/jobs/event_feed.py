"""The events of an owner's jobs, which hosts poll or subscribe to: a job finished, or needs input. Pure."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from agent_jobs.errors import RequestError
from agent_jobs.jobs.job import Job

FINISHED = "finished"
NEEDS_INPUT = "needs_input"
#: The kinds of events.
KINDS = (FINISHED, NEEDS_INPUT)
DEFAULT_LIFETIME_S = 3_600.0  # of a subscription
MAX_LIFETIME_S = 86_400.0  # longer ones would send to receivers that are gone
_CURSOR = re.compile(r"e(?P<number>[0-9]{1,15})")


class FeedEvent(NamedTuple):
    """An event of a job: ids and the status, without prompts and answers."""

    id: str  #: the same wherever it is sent
    job_id: str
    kind: str
    status: str  #: of the job at that time
    error_code: str
    batch: str
    key: str  #: the caller's own key of the job; empty if there is none
    at: float
    number: int = 0  #: in the order of publication; 0 before that


class FeedFilter(NamedTuple):
    """Which events a reader asks for."""

    kind: str
    job_id: str = ""  #: empty for all jobs
    batch: str = ""  #: empty for all jobs


class FeedPage(NamedTuple):
    """Events that were polled."""

    events: Sequence[FeedEvent]
    cursor: str
    is_truncated: bool  #: events after the given cursor were skipped: they are deleted, or older than the caller wants
    has_more: bool


class Subscribed(NamedTuple):
    """A subscription that was made or refreshed."""

    id: str
    cursor: str
    expires_at: float
    is_truncated: bool


class Subscription(NamedTuple):
    """A host's request to have events sent to an address."""

    wanted: FeedFilter
    url: str
    secret: str
    lifetime_s: float = DEFAULT_LIFETIME_S
    cursor: str | None = None  #: from which events are sent; None means from now
    max_age_s: float | None = None


class FeedError(RequestError):
    """A request about events that cannot be met. Its data goes to the caller.

    Args:
        reason: Its class in the protocol: invalid, not_found, exhausted, unsupported or unverified.
        problem: One sentence.
        data: What the protocol adds to an error of this reason.
    """

    def __init__(self, reason: str, problem: str, /, **data: object) -> None:
        super().__init__(problem)
        self.reason = reason
        self.data = data


def find_event(old: Job, new: Job) -> tuple[str, float] | None:
    """Return the kind and the time of the event that a change of a job is; None if it is none."""
    if new.finished_at is not None and new.finished_at != old.finished_at:
        return FINISHED, new.finished_at
    asked_at = new.waits_since
    if asked_at is None or asked_at == old.waits_since:
        return None
    return NEEDS_INPUT, asked_at


def make_event(event_id: str, job: Job, kind: str, at: float) -> FeedEvent:
    """Return the event of a job."""
    return FeedEvent(event_id, job.id, kind, job.status, job.error_code, job.batch, job.key or "", at)


def render_event(event: FeedEvent) -> dict[str, Any]:
    """Return an event as the protocol has it, without a cursor."""
    data = {"job_id": event.job_id, "status": event.status}
    optional = {"batch": event.batch, "key": event.key, "error": event.error_code}
    data |= {name: value for name, value in optional.items() if value}
    return {"eventId": event.id, "name": f"job.{event.kind}", "timestamp": iso_time(event.at), "data": data}


def iso_time(time: float) -> str:
    """Return a time as ISO 8601."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_cursor(number: int) -> str:
    """Return the cursor after the event with this number."""
    return f"e{number}"


def read_cursor(cursor: str) -> int | None:
    """Return the number of the event that a cursor stands after; None if it is no cursor of ours."""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        return None
    return int(found["number"])
