"""The questions about jobs, and their answers: filters, pages, batches, results, estimates and replies. Pure.

Values that are only handed on are NamedTuples: a frozen dataclass takes ten times as long to create.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from agent_jobs.errors import AgentJobsError, ConfigError
from agent_jobs.jobs.job import Job, Mode
from agent_jobs.jobs.response import JSON, Call, Usage
from agent_jobs.jobs.response_steps import Step
from agent_jobs.jobs.status import Status

GATHERED_MAX = 1_000  # jobs that one query covers

#: Parts of a job's result that a caller can read.
Part = Literal["text", "outline", "sources", "items", "files", "reasoning", "usage", "meta", "partial"]
#: Parts that exist while a job runs.
SO_FAR: tuple[Part, ...] = ("partial", "reasoning")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Selects jobs: these ids, those of a batch, those that are active or undelivered, or all."""

    job_ids: tuple[str, ...] = ()
    batch: str = ""
    statuses: frozenset[Status] = frozenset()
    words: str = ""  #: in the title
    since: float = 0.0  #: started no earlier; with `active`, ended no earlier
    active: bool = False  #: only active jobs, and those whose result no reader received
    model: str = ""  #: the beginning of the model's name, in any case
    preset: str = ""
    client: str = ""  #: the beginning of the name of the host that started it, in any case
    unread: bool = False  #: only finished jobs whose result no reader received
    owner: str | None = None  #: exactly this one's; '' is the single user's
    previous_job_id: str = ""  #: the job that they continue


#: The sort keys of a list of jobs.
SortKey = Literal["created", "cost", "duration", "status"]


class JobOrder(NamedTuple):
    """The order of a list: the newest, costliest or longest jobs first, or those that need the user."""

    key: SortKey = "created"
    now: float = 0.0  #: until when an active job has run so far


#: The newest jobs first.
NEWEST_FIRST = JobOrder()
#: What spending is summed up by.
SpendingKey = Literal["day", "model", "preset", "client", "owner"]


class Spending(NamedTuple):
    """The sums of the jobs that share a day, model, preset or client."""

    name: str  #: of a day, as `2026-11-01` in UTC; empty where it is not known
    jobs: int
    active: int  #: jobs that have not finished
    input_tokens: int
    output_tokens: int
    uncounted: int  #: finished jobs that ran and whose tokens are not, or not all, known
    cost_usd: float  #: of the jobs whose cost is known
    unpriced: int  #: finished jobs that ran and whose cost is not known


class DayBudget(NamedTuple):
    """The budget of a day, and what counts against it."""

    usd: float
    used_usd: float


@dataclass(frozen=True, slots=True)
class BatchState:
    """The jobs of a filter, grouped by the caller's next step, without their outputs."""

    done: list[Job]  #: ended and undelivered, first ended first; then those with a question not yet reported
    running: list[Job]
    asking: list[Job]  #: those that wait for an answer, and whose question was reported
    delivered: int  #: number of those that were delivered before

    @property
    def is_running(self) -> bool:
        """Return True if one of the jobs may still change."""
        return bool(self.running or self.asking)


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, newest first and without their outputs, with the counts of all that match."""

    jobs: list[Job]
    counts: dict[Status, int]
    today_usd: float
    warnings: tuple[ConfigError, ...] = ()  #: settings that the user should change


#: Kind of the event that a part of finalizing a job failed.
UNSETTLED = "unsettled"
#: Kinds of the events that no process observes a running job any more, and that one does again.
UNWATCHED, WATCHED = "unwatched", "watched"
#: In place of the status of a job that is in another database now.
MOVED = "moved"


class Event(NamedTuple):
    """Something that happened to a job."""

    at: float
    kind: str
    text: str


class TurnRecord(NamedTuple):
    """One turn of a job, as it is shown to people."""

    number: int
    mode: Mode
    sent_at: float | None
    response_id: str | None
    usage: Usage | None  #: of this turn alone
    cost_usd: float | None  #: of this turn alone


class SearchHit(NamedTuple):
    """A job that a search found, with a passage of its title, prompt or output.

    The matches in the passage are between `MATCH_BEGIN` and `MATCH_END`.
    """

    job: Job
    passage: str


#: Characters around a match, which no text of a terminal or page may contain.
MATCH_BEGIN = "\x02"
MATCH_END = "\x03"


class OutputFile(NamedTuple):
    """A file that a job's run made, as it was written here."""

    name: str
    path: str
    bytes: int


class Pruned(NamedTuple):
    """The outcome of a removal of old jobs."""

    deleted: int = 0
    unread: int = 0  #: jobs that are old enough, but whose results were delivered to no reader
    responses: int = 0  #: responses of the deleted jobs
    deleted_upstream: int = 0  #: how many of these responses were deleted at the provider


class WorkerInfo(NamedTuple):
    """A living process that works on the jobs of an endpoint."""

    pid: int
    what: str  #: its command, such as `server` or `watch`
    base_url: str

    @property
    def page_url(self) -> str:
        """Return the address of the page that it serves; empty if it serves none."""
        command, _, address = self.what.partition(" ")
        if command != "ui":
            return ""
        return address


class StoreInfo(NamedTuple):
    """The place of the stored jobs, and the other processes that work on them."""

    path: str
    schema: int
    journal: str  #: SQLite's journal_mode
    bytes: int  #: with its log
    watchers: tuple[WorkerInfo, ...]


class ReplicaInfo(NamedTuple):
    """A process that has a shared database open."""

    name: str
    what: str  #: its role for the jobs of an endpoint; empty if it works on none
    silent_s: float  #: since it last wrote the time
    is_dead: bool


class ServerInfo(NamedTuple):
    """The state of a database server that processes of several machines share."""

    version: int  #: its major one
    replicas: tuple[ReplicaInfo, ...]  #: without the process that asks
    due: int  #: jobs whose next step is due and that no process has claimed
    oldest_due_s: float  #: of these jobs; 0 or less if there are none
    waiting: int  #: jobs that wait for a slot
    message_s: float | None  #: how long a message from process to process takes; None if it does not arrive
    pool: tuple[int, int]  #: connections of the process that asks, and their limit
    connections: tuple[int, int]  #: of the server, and their limit


class Result(NamedTuple):
    """All that is stored of a job: its output with the full response, its events, files and calls."""

    job: Job
    events: list[Event]
    made: list[OutputFile]
    calls: list[Call]


class JobDetails(NamedTuple):
    """All stored facts of a job, with its prompt and the steps of each turn."""

    result: Result
    prompt: str
    turns: list[TurnRecord]
    steps: list[Step]
    request: JSON  #: of the first turn


class Estimate(NamedTuple):
    """The content and the cost of a start."""

    jobs: int
    model: str
    files: list[dict[str, Any]]
    input_tokens: int  #: roughly, of one job, without the conversation before it
    cost_bound_usd: float | None  #: of all jobs
    unbounded: AgentJobsError | None  #: the reason if there is no bound
    bound_parts: str = ""  #: how one job's bound is made up
    effort: str = ""  #: of the reasoning; empty means the model's own
    tools: tuple[str, ...] = ()  #: by type, functions by name
    expected_usd: float | None = None  #: of all jobs, by what such requests usually write
    expected_tokens: int = 0  #: that one job usually writes
    expected_searches: int = 0  #: that one job usually makes
    request_hash: str = ""  #: of the only job
    existing: Job | None = None  #: the job that answers for an identical request


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer to the calls of a job that waits for input."""

    outputs: Mapping[str, object] = field(default_factory=dict[str, object])  #: of functions, by call_id
    approve: tuple[str, ...] = ()
    always: tuple[str, ...] = ()  #: approves these and, until the job ends, all other calls of the same tools
    deny: tuple[str, ...] = ()
    message: str = ""  #: answers every call that nothing else answers
    turn: int | None = None  #: the turn whose calls are meant; None means the current one
