"""The protocols of a store: reading and changing jobs, claiming them, waiting for changes, and housekeeping."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, Self

from agent_jobs.jobs.job import Job, Mode, Output
from agent_jobs.jobs.queries import (
    NEWEST_FIRST,
    Event,
    JobFilter,
    JobOrder,
    JobPage,
    OutputFile,
    ServerInfo,
    StoreInfo,
    TurnRecord,
)
from agent_jobs.jobs.response import JSON, Call
from agent_jobs.jobs.response_steps import Step
from agent_jobs.jobs.status import Status
from agent_jobs.store.report_records import ReportRecords, SearchRecords
from agent_jobs.store.team_records import (
    AuditRecords,
    CallbackRecords,
    FeedRecords,
    FileRecords,
    MetricsRecords,
    OwnerRecords,
    TokenRecords,
    TraceRecords,
    WebhookRecords,
)
from agent_jobs.store.values import NO_LIMIT, Budget, Mark, ResponseAddress, Tombstone, Upload


class JobRecords(Protocol):
    """Reads jobs and what belongs to them."""

    async def get(self, job_id: str, *, has_request: bool = True) -> Job | None:
        """Return the job with its current turn, and the text of that turn's output; the request may be left out."""
        ...

    async def get_output(self, job_id: str) -> Output | None:
        """Return the newest output of the job, with the response object."""
        ...

    async def find(self, group: JobFilter, limit: int) -> list[Job]:
        """Return the newest matching jobs, newest first, without their outputs."""
        ...

    async def list_jobs(self, group: JobFilter, limit: int, since: float, order: JobOrder = NEWEST_FIRST) -> JobPage:
        """Return the first matching jobs with the number of all matching jobs in each status, all at one moment.

        Also return the spending in USD of the day from `since` on, counting an active job with its reservation.
        """
        ...

    async def find_ids(self, prefix: str, limit: int) -> list[str]:
        """Return the ids with this prefix, sorted."""
        ...

    async def find_unobserved(self, group: JobFilter, limit: int) -> list[Job]:
        """Return the newest matching jobs that run while no living process observes them or will.

        Their requests are left out: they may be large, and most callers show only the rows. A job that waits for
        an answer is not included. The filter's own statuses do not count.
        """
        ...

    async def get_exchanges(self, job_id: str, before_turn: int | None = None) -> list[tuple[JSON, JSON]]:
        """Return requests and responses of the job's turns and of the jobs before it, oldest first.

        Empty if one of them is gone: the rest would mean something else.
        """
        ...

    async def get_calls(self, job_id: str, turn: int | None = None) -> list[Call]:
        """Return the calls of a turn, or of all turns of a job, in their order."""
        ...

    async def get_prompt(self, job_id: str) -> str:
        """Return what the caller asked, in the caller's words; empty if there is no such job."""
        ...

    async def get_turns(self, job_id: str) -> list[TurnRecord]:
        """Return the turns of a job, first to last."""
        ...

    async def get_steps(self, job_id: str) -> list[Step]:
        """Return what the turns of a job did, in the order of their outputs."""
        ...

    async def get_uploads(self, job_id: str) -> list[Upload]:
        """Return the files that go to the provider with a job."""
        ...

    async def get_output_files(self, job_id: str) -> list[OutputFile]:
        """Return the files that a job's run made."""
        ...

    async def get_tombstone(self, job_id: str) -> Tombstone | None:
        """Return the end of a purged job."""
        ...

    async def store_info(self) -> StoreInfo:
        """Return where the jobs are stored, and which other living processes work on them."""
        ...


class JobTransitions(Protocol):
    """Writes jobs. `transition` is the only writer of a stored job's status; most other methods are calls of it.

    Each method is one change, atomic and durable. Where a method returns False or None, nothing was written.
    """

    async def transition(
        self, job_id: str, change: Callable[[Job], Job | None], *, is_claimed: bool = False
    ) -> Job | None:
        """Read the job, call `change` with it, and write what differs, in one transaction.

        Args:
            job_id: The job.
            change: Returns the new job, the same one if nothing is to be written, or None to refuse. It must be pure
                and quick: it runs in the store's thread while no process can write.
            is_claimed: Refuse the change unless this process has claimed the job.

        Returns:
            The job as it is now. None if there is no such job, if the change was refused, or if its status may
            not follow the stored one.
        """
        ...

    async def add(
        self,
        *jobs: Job,
        allow_duplicate: bool = False,
        budgets: Sequence[Budget] = (),
        starts_per_minute: int | None = None,
        uploads: Sequence[Upload] = (),
    ) -> list[Job | None]:
        """Write new jobs with their turns, all or none, claimed by this process, which runs their first step.

        Returns None for each job that was written. For each other one, return the job that answers for it: one with
        the same key, or one with the same request that is active, undelivered, or of an unconfirmed start.

        Raises:
            BudgetError: The jobs may cost more than is left of one of the budgets.
            BusyOwnerError: With them an owner would have started more than `starts_per_minute` in the last minute.
        """
        ...

    async def begin_sending(self, job: Job, limit: int = NO_LIMIT, owner_limit: int = NO_LIMIT) -> bool:
        """Move a pending job to starting, for its claimant, unless it was cancelled or `limit` jobs run.

        Of its owner at most as many run as were set for the owner, or else `owner_limit`. That is the only right to
        POST.
        """
        ...

    async def record_response_id(
        self,
        job_id: str,
        number: int,
        response_id: str,
        now: float,
        *,
        mode: Mode | None = None,
        fingerprint: str = "",
    ) -> Job | None:
        """Store a turn's response id, whatever the job's status, how upstream runs it, and by which key.

        The first id stays.

        It re-opens a job that ended because its id was unknown, or because no process could retrieve it.

        Returns the job as it is now, with a cancel that was requested in the meantime; None if there is no such job.
        """
        ...

    async def save(self, job: Job, *, held: bool = True) -> Job | None:
        """Write what this copy of a job observed upstream, with its output.

        Returns the job as it is now. None if another process was first: the stored job ended, has another turn or
        an answer to its question, or, with `held`, another process has claimed it.
        """
        ...

    async def save_progress(self, jobs: Sequence[Job]) -> dict[str, float | None]:
        """Write the progress of streams, for the claimant of running jobs: cursor, activity, partial text.

        Returns when a cancel was requested, by the ids of the jobs that were written.
        """
        ...

    async def save_call(self, job: Job, call: Call, *before: str) -> bool:
        """Write a call, for the job's claimant, if its stored state is one of `before`."""
        ...

    async def wait_for_input(self, job: Job, now: float, timeout_s: float) -> bool:
        """Make a job that this process has claimed wait for an answer, due again `timeout_s` after it asked.

        Returns False if it has nothing to wait for by now: all is answered, or the job is to be cancelled.
        """
        ...

    async def record_reply(self, job: Job, calls: Sequence[Call], now: float, always: Collection[str] = ()) -> bool:
        """Answer calls of a waiting job, all or none; the job is due once it waits for nothing more.

        Calls with the names in `always` are allowed from now on.

        Returns False if one of them was answered before, or the job does not wait any more.
        """
        ...

    async def begin_next_turn(self, job: Job, budgets: Sequence[Budget] = ()) -> bool:
        """Begin the job's next turn, for its claimant; False if it was begun or cancelled before.

        Raises:
            BudgetError: With it the job may cost more than is left of one of the budgets; nothing was written.
        """
        ...

    async def rewrite_request(self, job: Job) -> bool:
        """Replace the request of a turn that was not accepted, and the way in which its context is sent."""
        ...

    async def reset_for_resend(self, job: Job, failed_id: str) -> bool:
        """Replace the response that failed with a turn that is to be sent, for the running job's claimant.

        Returns False if the turn has another response by now, or the job is to be cancelled.
        """
        ...

    async def request_cancel(self, job_id: str, now: float) -> Job | None:
        """Request the cancel of the job, which ends a job that is not running. None if there is no such job."""
        ...

    async def record_upload(self, job_id: str, name: str, file_id: str) -> None:
        """Store the provider's id of a file, which is deleted there after the job's end, also if that is past."""
        ...

    async def mark_finalized(self, job_id: str, result_path: str = "", made: Sequence[OutputFile] = ()) -> None:
        """Mark a finished job as finalized, and delete its uploads."""
        ...


class WorkQueue(Protocol):
    """Assigns jobs to processes: claims, due times, slots."""

    async def find_due(self, now: float, base_url: str, fingerprint: str = "") -> list[str]:
        """Claim the jobs at this endpoint that are due and not claimed by another process.

        A job of another key is left half a minute to a process that has that key.
        """
        ...

    async def next_due_at(self, base_url: str, fingerprint: str = "") -> float | None:
        """Return when the next job at this endpoint is due for this process."""
        ...

    async def schedule(
        self,
        job_id: str,
        now: float,
        after_s: float,
        not_before_s: float = 0.0,
        *,
        lost_claims: int | None = None,
        releases: bool = False,
    ) -> None:
        """Have this process, its claimant, run the job's next step in `after_s`, sooner if a caller waits for it.

        It never runs before `not_before_s`. An ended job was due at its end: with 0 it is not due again, since another
        step may be finalizing it by then.

        Args:
            job_id: The job.
            now: The time.
            after_s: From now.
            not_before_s: From now.
            lost_claims: Change nothing if the claim was lost since the job had this number, even if it was taken again.
            releases: Let any process run the step, if the store is that of several machines. There a job that is due
                while its claimant is dead would wait until this is noticed.
        """
        ...

    async def mark_watched(self, job_id: str, now: float, until: float) -> None:
        """Note that a caller waits for this job: retrieve it now, or one second after the last time."""
        ...

    async def release_claim(self, job_id: str, at: float) -> None:
        """Free a job for another process, due again at this time."""
        ...

    async def release_claims(self, now: float) -> None:
        """Free all jobs that this process has claimed, due at once."""
        ...

    async def reclaim_from_dead(self, now: float) -> int:
        """Free the jobs that dead processes have claimed, due at once; return how many.

        Free jobs that are due far ahead, by the clock of a process that disagreed with ours, become due at once too.
        """
        ...

    async def renew_claims(self, running: Sequence[str], now: float) -> None:
        """Make the jobs that this process has claimed due now, except the ones that are running or already due.

        They were claimed by a change whose answer was lost with the connection, or stored by one.
        """
        ...

    async def claim_lost(self, base_url: str, *, sent_before: float, created_before: float) -> list[str]:
        """Claim the jobs at other endpoints that no process has claimed and that were sent before this time.

        If a job was never sent, its creation counts.
        """
        ...

    async def wait_for_slot(self, job_id: str, activity: str) -> None:
        """Release the claim on a pending job until there is a slot for it."""
        ...

    async def claim_free_slots(self, base_url: str, limit: int, owner_limit: int = NO_LIMIT) -> list[str]:
        """Claim as many waiting jobs as there are free slots: of the owner with the fewest first, by priority and age.

        Of an owner at most as many run as were set for the owner, or else `owner_limit`.
        """
        ...

    async def count_ahead(self, job: Job) -> int:
        """Return how many pending jobs go before this one."""
        ...

    async def claim_cancel(self, job_id: str, now: float, again_after_s: float) -> bool:
        """Return True if the caller may send the cancel upstream: one caller may within `again_after_s`."""
        ...

    async def clear_cancel_claim(self, job_id: str) -> None:
        """Let another caller send the cancel now, because this one did not reach upstream."""
        ...

    async def announce(self, what: str, base_url: str) -> None:
        """Publish that this process works on the jobs of an endpoint, while it lives."""
        ...


class ChangeFeed(Protocol):
    """Waits for changes by any process, and stores events for people and notifications."""

    async def wait_for_change(self, job_id: str, revision: int) -> None:
        """Return once the job has another revision than this one."""
        ...

    async def wait_for_status(self, job_id: str, status: Status) -> None:
        """Return once the job has another status than this one. The progress of a run does not wake it."""
        ...

    async def change_mark(self) -> Mark:
        """Return the number of changes up to now, for `wait_for_any_change`."""
        ...

    async def wait_for_any_change(self, mark: Mark) -> None:
        """Return once any job changed since this mark."""
        ...

    async def mark_delivered(self, job_ids: Sequence[str], now: float) -> None:
        """Note that a reader received the jobs' results."""
        ...

    async def mark_read(self, job_ids: Sequence[str], now: float) -> None:
        """Note that a person opened the jobs' results, which also marks them as delivered."""
        ...

    async def pending_notification(
        self, since: float, *, settled_before: float, asked_before: float
    ) -> tuple[str, float] | None:
        """Return the first job that ended or asked after `since` without a claimed notification, and when it did.

        A job that needs finalizing counts once it ended before `settled_before`, and a question once it was asked
        before `asked_before`.
        """
        ...

    async def claim_notification(self, job_id: str, at: float) -> bool:
        """Claim the notification of this time for good; False if it is claimed or out of date."""
        ...

    async def record_event(self, job_id: str, at: float, kind: str, text: str = "") -> None:
        """Note for people what happened to a job."""
        ...

    async def get_events(self, job_id: str) -> list[Event]:
        """Return what happened to a job, oldest first."""
        ...


class HousekeepingRecords(Protocol):
    """Stores the learned limits of endpoints, deletes old jobs, and returns the time that all processes share."""

    async def read_clock(self) -> float | None:
        """Return the time of the database in epoch seconds; None if its processes share the clock of one machine."""
        ...

    async def server_info(self) -> ServerInfo | None:
        """Return the state of a server that processes of several machines share; None if there is none."""
        ...

    async def learned_mode(self, base_url: str, model: str, since: float) -> Mode | None:
        """Return the mode that an endpoint accepts for a model, if it was learned after this time."""
        ...

    async def learn_mode(self, base_url: str, model: str, mode: Mode, now: float, answer: str) -> None:
        """Store the mode that an endpoint accepts, with the answer that said so."""
        ...

    async def refused_parameters(self, base_url: str, since: float) -> frozenset[str]:
        """Return the parameters that an endpoint refused after this time."""
        ...

    async def learn_refused_parameter(self, base_url: str, parameter: str, now: float, answer: str) -> None:
        """Store that an endpoint refuses a parameter, with the answer that said so."""
        ...

    async def purge(self, before: float, *, unread: bool = False) -> dict[str, list[ResponseAddress]]:
        """Delete some jobs that ended before this time, leaving a tombstone each.

        A job whose result no reader received is kept unless `unread` is set.

        Returns the ids of the deleted jobs, each with the addresses of all its responses; empty once none is left.
        """
        ...

    async def delete_jobs(self, job_ids: Sequence[str]) -> dict[str, list[ResponseAddress]]:
        """Delete these jobs, leaving a tombstone each; active ones stay.

        Returns the ids of the deleted jobs, each with the addresses of all its responses.
        """
        ...

    async def count_unread(self, before: float) -> int:
        """Return how many jobs ended before this time without a reader of their result."""
        ...


class Store(
    JobRecords,
    JobTransitions,
    WorkQueue,
    ChangeFeed,
    SearchRecords,
    ReportRecords,
    HousekeepingRecords,
    OwnerRecords,
    TokenRecords,
    AuditRecords,
    WebhookRecords,
    CallbackRecords,
    FeedRecords,
    FileRecords,
    MetricsRecords,
    TraceRecords,
    Protocol,
):
    """All that the engine needs of a store. Each method is one change or one query, atomic and durable.

    Every method raises StoreError if the database fails; then nothing was written.
    """

    def for_owner(self, owner: str) -> Self:
        """Return the store of one owner, which shares all else with this one.

        Jobs that it adds are this owner's. The jobs of others do not exist for it: it reads, counts and changes none.
        Without an owner a store shows all jobs, for workers and for a single user.
        """
        ...
