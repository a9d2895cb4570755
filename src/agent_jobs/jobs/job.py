"""A job's life as plain values: the job, its current turn, and what an event or a retrieved response changes.

Nothing here waits, reads a clock or does I/O. Time is an argument, a change is a new value, and every mapping
that comes from upstream may be incomplete, wrongly typed or from a server that reads the contract differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agent_jobs.jobs.response import (
    JSON,
    Failure,
    Usage,
    activity_of,
    calls_of,
    failure_of_end,
    has_answer,
    has_ended,
    items_of,
    mapping_of,
    response_status,
    text_of,
    whole_number,
    with_text,
)
from agent_jobs.jobs.status import TERMINAL, TRANSITIONS, Status

#: How a turn is sent: in the background with a stream, in the background without one, or held open by this process.
Mode = Literal["background_stream", "background", "foreground"]

#: What a pending job does while as many run as may.
WAITING = "waiting for a free slot"
#: Said of a run that our own deadline stopped.
DEADLINE_MESSAGE = "It ran longer than its time limit and was cancelled; what came until then is in the output."

#: Why a run that was held open has no result, by which side of its connection ended.
PROCESS_ENDED_MESSAGE = "The process that held its connection ended, and upstream runs nothing without one."
CONNECTION_CUT_MESSAGE = (
    "Upstream ended the connection before the answer was finished, and cannot be asked for the rest."
)

#: A `completed` without output is looked at this often again before it is believed (LiteLLM #36275).
MAX_EMPTY_COMPLETIONS = 3
#: Reads right after a create may miss for ~33 s (measured on Azure), so `expired` needs this many misses, this long.
MISSING_LOOKS, MISSING_S = 4, 60.0

#: Upstream lets nobody attach to a stream that is older than five minutes (openai-python #2828).
ATTACH_S = 290.0
#: Attachments in a row without an event, after which a job is only looked at.
MAX_STREAM_FAILURES = 3


#: Why a job ends that was waited with for somebody, as long as that may take.
UNANSWERED = Failure("deadline_exceeded", "Nobody answered what it asked for.")


@dataclass(frozen=True, slots=True)
class Output:
    """What a finished turn brought."""

    text: str
    response: JSON | None = None  #: the response object it came from, unchanged; None where only the text was read


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One upstream response of a job, from the request we wrote down to the cursor of its stream."""

    number: int
    request: JSON  #: the body of POST /responses
    request_id: str  #: sent as X-Client-Request-Id
    base_url: str  #: where the response lives; only a process that talks to it may look
    fingerprint: str = ""  #: of the key that creates it; only its owner's "not found" counts
    mode: Mode = "background_stream"
    attempt: int = 0  #: POSTs of which a byte was sent
    sent_at: float | None = None  #: first byte of the latest POST, epoch seconds
    response_id: str | None = None  #: the first one we were told; gateways change it from GET to GET
    sequence_number: int | None = None
    polls: int = 0
    polled_at: float | None = None
    not_found_count: int = 0  #: looks in a row that upstream answered with "not found"
    not_found_since: float | None = None
    empty_completions: int = 0  #: looks that saw `completed` with nothing in it
    stream_failures: int = 0  #: attachments to its stream in a row that brought no event
    timed_out_at: float | None = None  #: our own deadline had it cancelled
    has_open_calls: bool = False  #: it ended by asking for calls; the job goes on with another turn
    rebuilt: bool = False  #: its request tells all that was said before it
    asked_at: float | None = None  #: since when somebody is waited for
    partial: str = ""  #: the tail of what the model has written so far
    reasoning: str = ""  #: the tail of what it has told of its reasoning so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One piece of work that a host handed over, with its current turn."""

    id: str
    title: str
    status: Status
    created_at: float
    turn: Turn
    request_hash: str = ""  #: what was asked for, without the job's own id
    key: str | None = None  #: the caller's own: one job for each
    priority: int = 0
    batch: str = ""
    previous_job_id: str | None = None
    context: Literal["", "rebuilt"] = ""  #: how what went before came into this job's request
    timeout_s: float | None = None  #: its own limit on all its turns; None takes the process's
    running_since: float | None = None  #: the first byte of its first POST, later by as long as somebody was waited for
    cost_usd: float | None = None  #: None while unknown
    reserved_usd: float | None = None  #: the most it may cost, held against the day's budget
    delivered_at: float | None = None
    needs_finalizing: bool = False  #: something is left to do after its end
    result_path: str = ""
    finished_at: float | None = None
    activity: str = ""
    error: Failure | None = None
    usage: Usage | None = None  #: of all turns
    usage_before: Usage | None = None  #: of the turns before this one, and of a failed response that it repeats
    cost_before_usd: float | None = None
    max_cost_usd: float | None = None
    toolbox: Sequence[str] = ()  #: which tools of the user's servers it may call
    output: Output | None = None
    counted: JSON | None = None  #: the response object of an end without output, for its price; not kept
    output_bytes: int = 0  #: of the text in UTF-8, also where it was not read
    cancel_requested_at: float | None = None
    observed_by: Literal["", "following", "polling"] = ""
    watched_until: float = 0.0  #: somebody polled; look often until then
    revision: int = 0  #: grows with every write, so that a waiter sees a change

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will happen to this job, unless a lost id is found."""
        return self.status in TERMINAL

    @property
    def is_held_open(self) -> bool:
        """Whether its run ends with the process that sent it, which must stay to listen."""
        running = (Status.STARTING, Status.QUEUED, Status.IN_PROGRESS)
        return self.turn.mode == "foreground" and self.status in running

    @property
    def can_be_retrieved(self) -> bool:
        """Return True if a GET of its response can show how the job goes on."""
        running = self.status in (Status.QUEUED, Status.IN_PROGRESS) and not self.turn.has_open_calls
        return running and self.turn.response_id is not None and self.turn.mode != "foreground"

    @property
    def has_unsent_turn(self) -> bool:
        """Whether the current turn's request may be sent."""
        return self.status is Status.PENDING or (
            self.turn.number > 1 and self.turn.sent_at is None and self.turn.response_id is None
        )

    @property
    def is_unconfirmed(self) -> bool:
        """Whether the job ended because nobody knows if upstream accepted it."""
        return self.status is Status.FAILED and self.error is not None and self.error.code == "start_unconfirmed"

    def apply_event(self, event: JSON, now: float) -> "Job":
        """Take in one stream event; one that was seen before changes nothing.

        The status in the event's response counts, not the event's name: one server ends a cancelled stream with
        `response.failed` around `"status": "cancelled"`. Only a GET finalises what is hollow or being cancelled.
        """
        response = mapping_of(event.get("response"))
        job = self.set_response_id(response.get("id"))  # whatever its number is
        number = whole_number(event.get("sequence_number"))
        if number is not None:
            if job.turn.sequence_number is not None and number <= job.turn.sequence_number:
                return job
            job = replace(job, turn=replace(job.turn, sequence_number=number))
        stopping = job.cancel_requested_at is not None and job.turn.mode != "foreground"
        if has_ended(response) and stopping:
            return job  # a run that is held open may have no other copy than this event
        if not job.is_terminal and job._is_empty_completion(response):
            hollow = replace(job.turn, empty_completions=max(1, job.turn.empty_completions))
            used = job._sum_usage(Usage.of(response.get("usage")))
            return replace(job, turn=hollow, usage=used, counted=response)
        return job._apply_status(response, now) if response else job

    def apply_response(self, response: JSON, now: float) -> "Job":
        """Take in a response object that upstream answered to a GET, POST or cancel."""
        hollow = self.turn.empty_completions + 1 if self._is_empty_completion(response) else 0
        turn = replace(
            self.turn,
            polls=self.turn.polls + 1,
            polled_at=now,
            not_found_count=0,
            not_found_since=None,
            empty_completions=hollow,
        )
        job = replace(self, turn=turn, activity="").set_response_id(response.get("id"))
        return job if 0 < hollow <= MAX_EMPTY_COMPLETIONS else job._apply_status(response, now)

    def mark_not_found(self, now: float) -> "Job":
        """Take in that upstream does not know the response; it expires once that was said often and long enough."""
        since = now if self.turn.not_found_since is None else self.turn.not_found_since
        turn = replace(
            self.turn,
            polls=self.turn.polls + 1,
            polled_at=now,
            not_found_count=self.turn.not_found_count + 1,
            not_found_since=since,
        )
        job = replace(self, turn=turn)
        if turn.mode != "foreground" and (turn.not_found_count < MISSING_LOOKS or now - since < MISSING_S):
            return job
        kept = job.with_partial()
        if turn.empty_completions and turn.partial:
            return kept._end_as(Status.COMPLETED, now, None)
        if turn.mode == "foreground":
            return kept.mark_failed(
                "interrupted", CONNECTION_CUT_MESSAGE if turn.stream_failures else PROCESS_ENDED_MESSAGE, now
            )
        lost = Failure("expired", "Upstream no longer knows this response and its result was never read.")
        return kept._end_as(Status.EXPIRED, now, lost)

    def with_partial(self) -> "Job":
        """Return the job with the text that its stream brought as its output, where there is any."""
        if not self.turn.partial:
            return self
        return replace(self, output=Output(self.turn.partial, with_text(self.counted or {}, self.turn.partial)))

    def _is_empty_completion(self, response: JSON) -> bool:
        """Return True if upstream reports success without what it wrote: such an answer is asked for again."""
        if response.get("status") != "completed":
            return False
        items = items_of(response.get("output"))
        if self.turn.partial:
            return not has_answer(items)
        used = Usage.of(response.get("usage"))
        return not items and (used is None or used.output_tokens > 0)

    def mark_unreachable(self, reason: str, now: float) -> "Job":
        """Take in a look that brought no answer: it is told, and counts towards the next look's distance."""
        turn = replace(self.turn, polls=self.turn.polls + 1, polled_at=now)
        return replace(self, turn=turn, activity=reason)

    def set_response_id(self, response_id: object) -> "Job":
        """Take in the id upstream gave the response. The first one stays, and it re-opens an unconfirmed start."""
        if self.turn.response_id is not None or not isinstance(response_id, str) or not response_id:
            return self
        job = replace(self, turn=replace(self.turn, response_id=response_id), activity="")
        if self.is_unconfirmed or self.status in (Status.PENDING, Status.STARTING):
            return replace(job, status=Status.QUEUED, error=None, finished_at=None)
        return job

    def mark_sending(self, now: float) -> "Job":
        """The first byte of the POST is about to leave: from here on only upstream knows."""
        if not self.has_unsent_turn:
            return self
        job = replace(self, turn=replace(self.turn, attempt=self.turn.attempt + 1, sent_at=now), activity="")
        return replace(job, status=Status.STARTING, running_since=now) if self.turn.number == 1 else job

    def mark_not_sent(self, reason: str) -> "Job":
        """Upstream provably did not accept the POST, so it may be repeated."""
        if self.turn.response_id is None and self.turn.number > 1:
            return replace(self, turn=replace(self.turn, sent_at=None), activity=reason)
        if self.status not in (Status.PENDING, Status.STARTING):
            return self
        return replace(self, status=Status.PENDING, activity=reason)

    def mark_failed(self, code: str, message: str, now: float) -> "Job":
        """End the job with a failure of ours or one that upstream named outside a response object."""
        return self._end_as(Status.FAILED, now, Failure(code, message))

    def mark_cancelled(self, now: float) -> "Job":
        """End the job as cancelled without a word from upstream: right only where nothing was ever sent."""
        return self._end_as(Status.CANCELLED, now, None)

    def with_progress(self, cursor: int, activity: str, partial: str, reasoning: str) -> "Job":
        """Take in what many small events of a stream told together."""
        if self.is_terminal:
            return self
        cursor = max(cursor, -1 if self.turn.sequence_number is None else self.turn.sequence_number)
        turn = replace(self.turn, stream_failures=0, partial=partial, reasoning=reasoning)
        turn = replace(turn, sequence_number=None if cursor < 0 else cursor)
        return replace(self, turn=turn, activity=activity or self.activity, observed_by="following")

    def mark_stream_failed(self, *, for_good: bool = False) -> "Job":
        """An attachment to the stream brought nothing; from now on the job is looked at."""
        detached = MAX_STREAM_FAILURES if for_good else self.turn.stream_failures + 1
        return replace(self, turn=replace(self.turn, stream_failures=detached))

    def can_stream(self, now: float) -> bool:
        """Whether attaching to the response's stream again is worth a try."""
        young = self.turn.sent_at is not None and now - self.turn.sent_at < ATTACH_S
        # Without a cursor upstream tells all from the start, which is right only where nothing was taken in yet.
        resumable = self.turn.sequence_number is not None or not (self.turn.partial or self.turn.reasoning)
        resumable = resumable and self.turn.mode == "background_stream"
        return (
            young
            and resumable
            and self.turn.stream_failures < MAX_STREAM_FAILURES
            and self.status in (Status.QUEUED, Status.IN_PROGRESS)
        )

    def overdue_s(self, now: float, limit_s: float) -> float:
        """How long the job has been past its limit; below 0 before.

        All its turns count from the first byte of the first POST, with their calls, but not what somebody is waited
        for. The job's own limit, where it has one, goes before the one that is given.
        """
        limit_s = limit_s if self.timeout_s is None else self.timeout_s
        if self.running_since is None:
            return -limit_s
        asked_at = self.turn.asked_at if self.status is Status.INPUT_REQUIRED else None
        return (now if asked_at is None else asked_at) - self.running_since - limit_s

    def mark_timed_out(self, now: float) -> "Job":
        """Our deadline has come: the run is to be cancelled, and its end will be a failure that says so."""
        return replace(self, turn=replace(self.turn, timed_out_at=now))

    def end_at_deadline(self, now: float) -> "Job":
        """End a run that was held open until its limit: it stopped with its connection, and no more will come."""
        return self.with_partial().mark_failed("deadline_exceeded", DEADLINE_MESSAGE, now)

    def _apply_status(self, response: JSON, now: float) -> "Job":
        """Move on as the response's own status says; an unknown or missing status counts as running."""
        if self.is_terminal:
            return self
        items = items_of(response.get("output"))
        job = replace(self, activity=activity_of(items) or self.activity)
        match response_status(response):
            case "queued":
                return job._move_to(Status.QUEUED)
            case "completed" | "incomplete" | "failed" | "cancelled" as end:
                if self.turn.partial and not has_answer(items):
                    response = with_text(response, self.turn.partial)
                    items = items_of(response["output"])
                text = text_of(items)
                known = replace(
                    job,
                    usage=job._sum_usage(Usage.of(response.get("usage"))),
                    output=Output(text, response) if items else job.output,
                    counted=None if items else response,
                )
                if end == "completed" and calls_of(items):
                    return known._await_calls(now)
                if end == "cancelled" and self.turn.timed_out_at is not None and self.cancel_requested_at is None:
                    return known.mark_failed("deadline_exceeded", DEADLINE_MESSAGE, now)
                return known._end_as(Status(end), now, failure_of_end(response, str(end)))
            case _:
                return job._move_to(Status.IN_PROGRESS)

    def _sum_usage(self, used: Usage | None) -> Usage | None:
        """Return the usage of all turns, given this one's; partial where that of any turn is not known."""
        if self.turn.number == 1 and self.usage_before is None:
            return used or self.usage
        if used is None and self.usage_before is None:
            return None
        return (used or Usage(partial=True)).plus(self.usage_before or Usage(partial=True))

    def _await_calls(self, now: float) -> "Job":
        """The turn ended by asking for calls: the job goes on with them, unless it is to stop."""
        if self.cancel_requested_at is not None:
            return self.mark_cancelled(now)
        if self.turn.timed_out_at is not None:
            return self.mark_failed("deadline_exceeded", DEADLINE_MESSAGE, now)
        return replace(self._move_to(Status.IN_PROGRESS), turn=replace(self.turn, has_open_calls=True), activity="")

    def with_next_turn(self, request: JSON, request_id: str, *, rebuilt: bool = False) -> "Job":
        """The job with another turn, not yet sent, for which all that the last one asked for is there."""
        turn = Turn(
            number=self.turn.number + 1,
            request=request,
            request_id=request_id,
            base_url=self.turn.base_url,
            fingerprint=self.turn.fingerprint,
            mode=self.turn.mode,
            rebuilt=rebuilt,
        )
        return replace(
            self._move_to(Status.IN_PROGRESS),
            turn=turn,
            usage_before=self.usage,
            cost_before_usd=self.cost_usd,
            output=None,
            activity="",
        )

    def _move_to(self, status: Status) -> "Job":
        return replace(self, status=status) if status in TRANSITIONS.get(self.status, ()) else self

    def _end_as(self, status: Status, now: float, error: Failure | None) -> "Job":
        job = self._move_to(status)
        return replace(job, finished_at=now, error=error, activity="") if job is not self else self
