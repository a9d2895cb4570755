"""Where jobs are kept: what the engine asks of a store, and how one is opened."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from agent_jobs.jobs.job import Job, Mode, Output
from agent_jobs.jobs.queries import Event, JobFilter, JobPage, OutputFile, StoreInfo
from agent_jobs.jobs.response import JSON, Call

#: How many changes this process has seen of its own, and of the others'.
Mark = tuple[int, int]
#: More runs at once than anybody has.
NO_LIMIT = 2**31


class Tombstone(NamedTuple):
    """How a job ended that was purged since."""

    status: str
    finished_at: float


class Place(NamedTuple):
    """Where a response is."""

    base_url: str
    response_id: str


class Budget(NamedTuple):
    """What may be spent on the jobs started in the day from a moment on.

    A job counts with its cost, until its end with what it may cost at most.
    """

    usd: float
    since: float
    spent: bool = False  #: only what was spent counts, and not what running jobs may cost
    parts: str = ""  #: of what the bound of a new job is made, for the refusal


class Upload(NamedTuple):
    """A file that goes to the provider with a job."""

    name: str
    data: bytes
    file_id: str | None = None  #: the provider's, once it is there


class Store(Protocol):
    """What the engine needs of a store. Each method is one change or one question, atomic and durable.

    Every method raises StoreError when the database does not do it; nothing of it has happened then.
    """

    async def add(
        self, *jobs: Job, allow_duplicate: bool = False, budget: Budget | None = None, uploads: Sequence[Upload] = ()
    ) -> list[Job | None]:
        """Write down new jobs with their turns, all or none, held by this process, which advances them now.

        Returns for each None; or, and then it was not written, the job that answers for the same work: one of the
        same key, or of the same request that goes on, whose result nobody was handed yet, or whose start is
        unconfirmed.

        Raises:
            BudgetError: What the jobs may cost at most is not left of the budget.
        """
        ...

    async def get(self, job_id: str) -> Job | None:
        """The job with its current turn, and the text of its output once it has ended."""
        ...

    async def get_output(self, job_id: str) -> Output | None:
        """What the job's current turn brought, once it has ended, with the response object."""
        ...

    async def find(self, group: JobFilter, limit: int) -> list[Job]:
        """The jobs of a group that were started last, newest first, without their outputs."""
        ...

    async def list_jobs(self, group: JobFilter, limit: int, since: float) -> JobPage:
        """The same jobs, and how many of the group stand where, all at one moment.

        Beside it stands what the jobs started in the day from `since` on cost, in USD; of those that run, what they
        may cost.
        """
        ...

    async def find_ids(self, prefix: str, limit: int) -> list[str]:
        """The ids that begin so, in their order."""
        ...

    async def get_exchanges(self, job_id: str, before_turn: int | None = None) -> list[tuple[JSON, JSON]]:
        """Requests and responses of a job's turns and of the jobs it goes on from, oldest first.

        Empty where one of them is gone: what is left would mean something else.
        """
        ...

    async def get_uploads(self, job_id: str) -> list[Upload]:
        """The files that go to the provider with a job."""
        ...

    async def record_upload(self, job_id: str, name: str, file_id: str) -> None:
        """Keep the id that the provider gave a file, so that it is removed there at the end, also where that came."""
        ...

    async def rewrite_request(self, job: Job) -> bool:
        """Write a pending job's request anew, with how its context came into it; False when someone was first."""
        ...

    async def reset_for_resend(self, job: Job, failed_id: str) -> bool:
        """Have a running job's turn sent again as it now stands, for its holder, in place of a response that failed.

        False when another response is there by now, or the job is to be cancelled.
        """
        ...

    async def get_calls(self, job_id: str, turn: int | None = None) -> list[Call]:
        """What a turn asks for, or all turns of a job, in their order."""
        ...

    async def save_call(self, job: Job, call: Call, *before: str) -> bool:
        """Write down how a call stands, for the job's holder, if it stood in one of these states before."""
        ...

    async def wait_for_input(self, job: Job, now: float, timeout_s: float) -> bool:
        """Have a job that this process holds wait for an answer, due again `timeout_s` after it asked.

        False when nothing is waited for any more: all was answered meanwhile, or the job is to be cancelled.
        """
        ...

    async def record_reply(self, job: Job, calls: Sequence[Call], now: float) -> bool:
        """Answer calls that a waiting job asks for, all or none; the job is due once nothing is waited for.

        False when one of them was answered before, or the job does not wait any more.
        """
        ...

    async def begin_next_turn(self, job: Job, budget: Budget | None = None) -> bool:
        """Begin the job's next turn, for its holder; False when it was begun or cancelled before.

        Raises:
            BudgetError: What the job may cost at most with it is not left of the budget; nothing was written.
        """
        ...

    async def mark_finalized(self, job_id: str, result_path: str = "", made: Sequence[OutputFile] = ()) -> None:
        """All was done that follows the job's end; its uploads are gone."""
        ...

    async def get_output_files(self, job_id: str) -> list[OutputFile]:
        """The files that a job's run made."""
        ...

    async def begin_sending(self, job: Job, limit: int = NO_LIMIT) -> bool:
        """Move pending to starting, for its holder, while nobody cancelled it and fewer than `limit` run.

        That is the only right to POST.
        """
        ...

    async def record_response_id(
        self, job_id: str, number: int, response_id: str, now: float, *, mode: Mode | None = None
    ) -> Job | None:
        """Keep a turn's response id, whatever the job's status, and how upstream runs it; the first id stays.

        It re-opens a job that ended because nobody knew its id, or because nobody could look at it.

        Returns the job as it now stands, with a cancel that was requested meanwhile; None if there is no such job.
        """
        ...

    async def save(self, job: Job, *, held: bool = True) -> Job | None:
        """Write what `apply` and `observe` own, if the job may still go there; its output in the same change.

        Returns the job as it now stands, None when someone was first: its end is written, what it would wait for
        was answered, or, with `held`, another process holds it.
        """
        ...

    async def save_progress(self, jobs: Sequence[Job]) -> dict[str, float | None]:
        """Write how far the streams of running jobs came, for their holder: cursor, activity, what they told.

        Returns when a cancel was requested, by the ids of those that were written; for the others someone was first.
        """
        ...

    async def request_cancel(self, job_id: str, now: float) -> Job | None:
        """Note that the job is to be cancelled; a pending one is cancelled by that. None if there is no such job."""
        ...

    async def claim_cancel(self, job_id: str, now: float, again_after_s: float) -> bool:
        """The right to send the cancel upstream, given to one caller in `again_after_s`."""
        ...

    async def clear_cancel_claim(self, job_id: str) -> None:
        """The cancel did not reach upstream: whoever comes next may send it."""
        ...

    async def mark_watched(self, job_id: str, now: float, until: float) -> None:
        """Somebody waits for this job: pull its next look to now, one second after the last at the earliest."""
        ...

    async def schedule(self, job_id: str, now: float, after_s: float, not_before_s: float = 0.0) -> None:
        """Have its holder advance the job after so many seconds, sooner if watched, never before `not_before_s`.

        An ended job was due at its end: at once it is not due again, since another step may be settling it by then.
        """
        ...

    async def release_claim(self, job_id: str, at: float) -> None:
        """Free a job for another process, due again at this time."""
        ...

    async def find_due(self, now: float, base_url: str, fingerprint: str = "") -> list[str]:
        """Claim the jobs at this endpoint that are due and not held by another process.

        A job of another key is left for half a minute to a process that has that key.
        """
        ...

    async def learned_mode(self, base_url: str, model: str, since: float) -> Mode | None:
        """What an endpoint taught us to send for a model, if it did after this time."""
        ...

    async def learn_mode(self, base_url: str, model: str, mode: Mode, now: float, answer: str) -> None:
        """Keep what an endpoint taught us, with the answer that did."""
        ...

    async def refused_parameters(self, base_url: str, since: float) -> frozenset[str]:
        """Return the parameters that an endpoint refused after this time."""
        ...

    async def learn_refused_parameter(self, base_url: str, parameter: str, now: float, answer: str) -> None:
        """Keep that an endpoint refuses a parameter, with the answer that said so."""
        ...

    async def purge(self, before: float, *, unread: bool = False) -> dict[str, list[Place]]:
        """Forget the jobs that ended before this time but for a tombstone, a few at a time.

        A job whose end was delivered to no reader is kept unless `unread` is set.

        Returns the ids of those that are gone by this, each with where the responses of all its turns are.
        """
        ...

    async def count_unread(self, before: float) -> int:
        """Return how many jobs ended before this time and were delivered to no reader."""
        ...

    async def claim_lost(self, base_url: str, *, sent_before: float, created_before: float) -> list[str]:
        """Claim the jobs at other endpoints than this one that no process holds and that were sent so long ago.

        Where nothing was ever sent, when they were made counts.
        """
        ...

    async def get_tombstone(self, job_id: str) -> Tombstone | None:
        """What is left of a purged job."""
        ...

    async def wait_for_slot(self, job_id: str, activity: str) -> None:
        """Let go of a pending job until there is a slot for it."""
        ...

    async def claim_free_slots(self, base_url: str, limit: int) -> list[str]:
        """Claim as many parked jobs as there are free slots, by priority and age."""
        ...

    async def count_ahead(self, job: Job) -> int:
        """How many pending jobs go before this one."""
        ...

    async def mark_delivered(self, job_ids: Sequence[str], now: float) -> None:
        """Note that the jobs' ends were handed to a host."""
        ...

    async def pending_notification(
        self, since: float, *, settled_before: float, asked_before: float
    ) -> tuple[str, float] | None:
        """A job that ended or asked after `since`, and when: of those that nobody claimed for that, the first.

        Where something is still to be done after an end, that is left to be done until `settled_before`; and a
        question to be answered until `asked_before`.
        """
        ...

    async def claim_notification(self, job_id: str, at: float) -> bool:
        """Claim what happened to a job then, which goes to one caller, for ever; False where it is not so any more."""
        ...

    async def next_due_at(self, base_url: str, fingerprint: str = "") -> float | None:
        """When the next job at this endpoint is due here."""
        ...

    async def reclaim_from_dead(self, now: float) -> int:
        """Free the jobs whose holder is dead, due at once; returns how many.

        Free jobs that are due far ahead, by the clock of a process that disagreed with ours, are due at once too.
        """
        ...

    async def release_claims(self, now: float) -> None:
        """Free the jobs that this process holds, due at once, for whoever comes next."""
        ...

    async def announce(self, what: str, base_url: str) -> None:
        """Let other processes know that this one works on the jobs of an endpoint, as long as it lives."""
        ...

    async def store_info(self) -> StoreInfo:
        """Where the jobs are kept, and which other living processes work on them."""
        ...

    async def find_unobserved(self, group: JobFilter, limit: int) -> list[Job]:
        """Return the newest jobs of a group that go on by themselves and that no living process observes or will.

        A job that waits for an answer is none of them. The group's own statuses do not count.
        """
        ...

    async def record_event(self, job_id: str, at: float, kind: str, text: str = "") -> None:
        """Note for people what happened to a job."""
        ...

    async def get_events(self, job_id: str) -> list[Event]:
        """What happened to a job, oldest first."""
        ...

    async def wait_for_change(self, job_id: str, revision: int) -> None:
        """Return once the job has another revision than this one, written by any process."""
        ...

    async def change_mark(self) -> Mark:
        """How far the jobs have moved, for `moved`."""
        ...

    async def wait_for_any_change(self, mark: Mark) -> None:
        """Return once any job changed since this mark, written by any process."""
        ...


#: Our own writes take under a millisecond; whoever holds the lock longer than this is another program, and a
#: process that is asked to end must not wait for it much longer.
BUSY_TIMEOUT_S = 1.5


@asynccontextmanager
async def open_store(folder: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> AsyncGenerator[Store]:
    """Open the SQLite database in this folder, made if need be, and close it at the end.

    Raises:
        StoreError: It cannot be opened, is damaged, or was written by a newer version (it is left untouched then).
    """
    from agent_jobs.store.records import open_sqlite  # sqlite3 is not needed to answer `initialize`

    async with open_sqlite(folder, busy_timeout_s) as store:
        yield store
