"""What is asked about jobs, and what is known of them: several at once, or all of one. Pure.

What is only handed on is a NamedTuple: a frozen dataclass takes ten times as long to make, and a host waits for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.response import Call
from agent_jobs.jobs.status import Status

#: What can be read of a job's result.
Part = Literal["text", "outline", "sources", "items", "files", "reasoning", "usage", "meta", "partial"]
#: What of it is there while a job runs.
SO_FAR: tuple[Part, ...] = ("partial", "reasoning")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs are asked about together: these, those of a batch, those in which something goes on, or all."""

    job_ids: tuple[str, ...] = ()
    batch: str = ""
    statuses: frozenset[Status] = frozenset()
    words: str = ""  #: in the title
    since: float = 0.0  #: started, or ended where `active`, no earlier
    active: bool = False  #: open, or ended and handed to nobody yet


@dataclass(frozen=True, slots=True)
class BatchState:
    """How the jobs of a group stand; none with its output."""

    done: list[Job]  #: over and handed to nobody yet, what ended first comes first; then what asks and was not told
    running: list[Job]
    asking: list[Job]  #: what waits for an answer, and was told
    delivered: int  #: how many were handed out before

    @property
    def is_running(self) -> bool:
        """Whether something may still come."""
        return bool(self.running or self.asking)


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, newest first and without their outputs, with what is known of all that were asked for."""

    jobs: list[Job]
    counts: dict[Status, int]
    today_usd: float
    warnings: tuple[str, ...] = ()  #: what the user should set otherwise


#: The kind of the event that something which follows a job's end failed.
UNSETTLED = "unsettled"


class Event(NamedTuple):
    """Something that happened to a job."""

    at: float
    kind: str
    text: str


class OutputFile(NamedTuple):
    """A file that a job's run made, as it was written here."""

    name: str
    path: str
    bytes: int


class Pruned(NamedTuple):
    """What a removal of old jobs deleted and what it kept."""

    deleted: int = 0
    unread: int = 0  #: jobs that are old enough, but whose results were delivered to no reader
    responses: int = 0  #: responses of the deleted jobs
    deleted_upstream: int = 0  #: how many of these responses were deleted at the provider


class WorkerInfo(NamedTuple):
    """A living process that works on the jobs of an endpoint."""

    pid: int
    what: str  #: its command, such as `server` or `watch`
    base_url: str


class StoreInfo(NamedTuple):
    """Where the jobs are kept, and who else works on them."""

    path: str
    schema: int
    journal: str  #: SQLite's journal_mode
    bytes: int  #: with its log
    watchers: tuple[WorkerInfo, ...]


class Result(NamedTuple):
    """All that is kept of a job: its output with the whole response, what happened, the files that it made."""

    job: Job
    events: list[Event]
    made: list[OutputFile]
    calls: list[Call]


class Estimate(NamedTuple):
    """What an order would send and cost."""

    jobs: int
    model: str
    files: list[dict[str, Any]]
    input_tokens: int  #: roughly, of one job, without what it goes on from
    cost_bound_usd: float | None  #: of all jobs
    unbounded: str  #: why there is no bound
    bound_parts: str = ""  #: of what one job's bound is made


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What somebody answers to a job that asks."""

    outputs: Mapping[str, object] = field(default_factory=dict[str, object])  #: of functions, by call_id
    approve: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    message: str = ""  #: instead of what is not answered otherwise
    turn: int | None = None  #: whose calls are meant, where it was asked a while ago; None: those of now
