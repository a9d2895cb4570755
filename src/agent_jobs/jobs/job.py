"""A job's life as plain values: the job, its current turn, and the changes by events and retrieved responses.

Nothing here waits, reads a clock or does I/O. Time is an argument, a change is a new value, and every mapping
that comes from upstream may be incomplete, wrongly typed or from a server that reads the contract differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Literal

from agent_jobs.jobs.response import (
    JSON,
    Failure,
    Usage,
    activity_of,
    calls_of,
    has_answer,
    has_ended,
    items_of,
    mapping_of,
    read_end_failure,
    read_status,
    read_whole_number,
    string_of,
    text_of,
    with_text,
)
from agent_jobs.jobs.response_steps import Step, list_steps
from agent_jobs.jobs.status import RUNNING, TERMINAL, TRANSITIONS, Status

#: How a turn is sent: in the background with a stream, in the background without one, or held open by this process.
Mode = Literal["background_stream", "background", "foreground"]

#: Activity of a pending job while as many jobs run as the limit allows.
WAITING = "waiting for a free slot"
#: Error message of a run that our own deadline stopped.
DEADLINE_MESSAGE = "It ran longer than its time limit and was cancelled; the output so far is kept."

#: Error message of a run that was held open, when our side of its connection ended.
PROCESS_ENDED_MESSAGE = (
    "The process that held its connection ended, and the provider stops a run without its connection."
)
#: The same when the other side ended.
CONNECTION_CUT_MESSAGE = (
    "The provider ended the connection before the answer was finished, and does not serve the rest."
)

#: A `completed` without output is retrieved this many times again before it is believed (LiteLLM #36275).
MAX_EMPTY_COMPLETIONS = 3
#: Retrieves right after a create may fail for about 33 s (measured on Azure): `expired` needs this many in a row,
MIN_NOT_FOUND_COUNT = 4
#: over at least this long.
MIN_NOT_FOUND_S = 60.0

#: Upstream refuses to resume a stream that is older than five minutes (openai-python #2828).
STREAM_MAX_AGE_S = 290.0
#: Attempts to stream in a row without an event, after which a job is only polled.
MAX_STREAM_FAILURES = 3

#: Begins the activity of a job whose last poll got no answer from upstream.
CANNOT_POLL = "cannot poll: "
#: Ends the activity of a job that upstream did not accept, and that is sent again.
TRYING_AGAIN = "; trying again"

#: In place of the failure of a job that did not fail.
NO_FAILURE = Failure("", "")
#: Failure of a job whose question was not answered within the input timeout.
UNANSWERED = Failure("deadline_exceeded", "Its question was not answered in time.")

#: Errors of jobs that ended only because we lost sight of them: a response id re-opens them.
REOPENED_BY_ID = frozenset({"start_unconfirmed", "endpoint_lost"})


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a finished turn."""

    text: str
    response: JSON | None = None  #: the response object of the text, unchanged; None if only the text was read


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One upstream response of a job, from the request that creates it to the cursor of its stream."""

    number: int
    request: JSON  #: the body of POST /responses
    request_id: str  #: sent as X-Client-Request-Id
    base_url: str  #: where the response lives; only a process with this endpoint may retrieve it
    fingerprint: str = ""  #: of the key that creates it; only its owner's "not found" counts
    mode: Mode = "background_stream"
    attempt: int = 0  #: POSTs that sent at least one byte
    sent_at: float | None = None  #: first byte of the latest POST, epoch seconds
    response_id: str | None = None  #: the first id that upstream named; gateways change it from GET to GET
    sequence_number: int | None = None  #: of the last stream event
    polls: int = 0  #: retrieves, with those that failed
    polled_at: float | None = None
    not_found_count: int = 0  #: retrieves in a row that upstream answered with "not found"
    not_found_since: float | None = None
    empty_completions: int = 0  #: retrieves that showed `completed` without output
    stream_failures: int = 0  #: attempts to stream in a row that brought no event
    timed_out_at: float | None = None  #: when our own deadline had it cancelled
    has_open_calls: bool = False  #: it ended by asking for calls; the job continues with another turn
    rebuilt: bool = False  #: its request repeats the whole conversation before it
    asked_at: float | None = None  #: since when the job waits for an answer
    partial: str = ""  #: the tail of the text that the model has written so far
    reasoning: str = ""  #: the tail of the reasoning that it has streamed so far
    steps: tuple[Step, ...] = field(default=(), compare=False)  #: seen since they were last stored; not read back

    def get_response_id(self) -> str:
        """Return the id of the response, which upstream must have named before."""
        assert self.response_id is not None
        return self.response_id

    @property
    def cursor(self) -> int:
        """Return the number of the last stream event; -1 before the first one that has a number."""
        if self.sequence_number is None:
            return -1
        return self.sequence_number

    def move_cursor(self, number: int) -> "Turn":
        """Return the turn after the event of this number, unless it is after a later one already."""
        if number <= self.cursor:
            return self
        return replace(self, sequence_number=number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One piece of work that a host handed over, with its current turn."""

    id: str
    title: str
    status: Status
    created_at: float
    turn: Turn
    owner: str = ""  #: who started it on a team server; empty for a single user
    request_hash: str = ""  #: of the work alone, without the job's own id
    prompt: str = field(default="", compare=False)  #: as the caller wrote it; only a new job has it
    model: str = ""  #: as it was asked for
    effort: str = ""  #: of reasoning; empty where the model decides
    preset: str = ""
    client: str = ""  #: the host that started it, or the command
    callback_url: str = ""  #: is called when it finished or needs input
    trace_parent: str = ""  #: the span that started it, as a W3C traceparent
    key: str | None = None  #: the caller's own: one job for each
    priority: int = 0
    batch: str = ""
    previous_job_id: str | None = None
    context: Literal["", "rebuilt"] = ""  #: "rebuilt" if the conversation before it had to be sent again
    timeout_s: float | None = None  #: its own limit on all its turns; None means the process's
    running_since: float | None = None  #: start of its first POST, shifted forward by the time in `input_required`
    cost_usd: float | None = None  #: None while unknown
    reserved_usd: float | None = None  #: its highest cost, which the day's budget reserves
    delivered_at: float | None = None  #: when a host or a person first received its result
    read_at: float | None = None  #: when a person first opened it
    needs_finalizing: bool = False  #: it ended, and files are still to be written or removed
    result_path: str = ""
    finished_at: float | None = None
    activity: str = ""
    error: Failure | None = None
    usage: Usage | None = None  #: of all turns
    usage_before: Usage | None = None  #: of the turns before this one, and of a failed response that it repeats
    cost_before_usd: float | None = None
    max_cost_usd: float | None = None
    toolbox: Sequence[str] = ()  #: which tools of the user's servers it may call
    always_allowed: tuple[
        str, ...
    ] = ()  #: names of calls that the user allows without being asked again, until its end
    output: Output | None = None
    #: The response object of an end without output, for its price; empty without such an end; not stored.
    counted: JSON = field(default_factory=dict[str, Any])
    output_bytes: int = 0  #: of the text in UTF-8, also where it was not read
    cancel_requested_at: float | None = None
    observed_by: Literal["", "following", "polling"] = ""
    watched_until: float = 0.0  #: a caller polled the job: retrieve often until then
    revision: int = 0  #: grows with every change that a reader can see
    claimed_by: str | None = field(default=None, compare=False)  #: the process that works on it
    lost_claims: int = field(default=0, compare=False)  #: times that it was taken from a process that seemed dead
    due_at: float | None = field(default=None, compare=False)  #: next step; None during a step and after the last one
    not_before: float = field(default=0.0, compare=False)  #: upstream asked not to be called earlier

    @property
    def is_terminal(self) -> bool:
        """Return True if the job ended; only a response id that is found later can re-open it."""
        return self.status in TERMINAL

    @property
    def is_undelivered(self) -> bool:
        """Return True if the job ended and no reader received its result."""
        return self.is_terminal and self.delivered_at is None

    @property
    def has_ended_turn(self) -> bool:
        """Return True if the current turn finished: with the job, or with calls for which the job continues."""
        return self.is_terminal or self.turn.has_open_calls

    @property
    def is_stopping(self) -> bool:
        """Return True if a caller requested a cancel, or the time limit passed."""
        return self.cancel_requested_at is not None or self.turn.timed_out_at is not None

    @property
    def waits_since(self) -> float | None:
        """Return since when the job waits for an answer; None if it does not."""
        if self.status is not Status.INPUT_REQUIRED:
            return None
        return self.turn.asked_at

    @property
    def end_time(self) -> float:
        """Return when the job finished; 0 if it has not."""
        return self.finished_at or 0.0

    @property
    def is_held_open(self) -> bool:
        """Return True if the run ends with the process that sent it, which must stay to listen."""
        return self.turn.mode == "foreground" and self.status in RUNNING

    @property
    def can_be_retrieved(self) -> bool:
        """Return True if a GET of its response can show the progress of the job."""
        running = self.status in (Status.QUEUED, Status.IN_PROGRESS) and not self.turn.has_open_calls
        return running and self.turn.response_id is not None and self.turn.mode != "foreground"

    @property
    def has_unsent_turn(self) -> bool:
        """Return True if the current turn's request may be sent."""
        return self.status is Status.PENDING or (
            self.turn.number > 1 and self.turn.sent_at is None and self.turn.response_id is None
        )

    @property
    def failure(self) -> Failure:
        """Return the job's failure, with an empty code and message if there is none."""
        return self.error or NO_FAILURE

    @property
    def error_code(self) -> str:
        """Return the code of the job's failure; empty without one."""
        return self.failure.code

    @property
    def is_unconfirmed(self) -> bool:
        """Return True if the job failed because its POST got no answer: upstream may run it."""
        return self.status is Status.FAILED and self.error_code == "start_unconfirmed"

    @property
    def can_be_reopened(self) -> bool:
        """Return True if the job ended only because its response was out of our sight."""
        return self.status is Status.FAILED and self.error_code in REOPENED_BY_ID

    @property
    def response(self) -> JSON:
        """Return the response object with which the turn ended; empty if it was not read."""
        if self.output is not None and self.output.response:
            return self.output.response
        return self.counted

    @property
    def cost_limit_usd(self) -> float:
        """Return the most that the job may cost; infinite without a limit."""
        if self.max_cost_usd is None:
            return inf
        return self.max_cost_usd

    @property
    def has_no_earlier_response(self) -> bool:
        """Return True if upstream answered nothing for the job before the current response."""
        return self.turn.number == 1 and self.usage_before is None

    @property
    def turn_usage(self) -> Usage | None:
        """Return the tokens of the current turn; None while they are not known."""
        if self.usage is None or self.usage_before is None:
            return self.usage
        return self.usage.minus(self.usage_before)

    @property
    def turn_cost_usd(self) -> float | None:
        """Return the cost of the current turn; None while it is not known."""
        if self.cost_usd is None:
            return None
        return self.cost_usd - (self.cost_before_usd or 0.0)

    def apply_event(self, event: JSON, now: float) -> "Job":
        """Apply one stream event; one that was applied before changes nothing.

        The status in the event's response counts, not the event's name: one server ends a cancelled stream with
        `response.failed` around `"status": "cancelled"`. An empty completion, or an end while a cancel is under way,
        needs a GET.
        """
        response = mapping_of(event.get("response"))
        job = self.set_response_id(response.get("id"))  # also from an event that repeats
        number = read_whole_number(event.get("sequence_number"))
        if number is None:
            return job._apply_event_response(response, now)
        if number <= job.turn.cursor:
            return job
        job = replace(job, turn=job.turn.move_cursor(number))
        return job._apply_event_response(response, now)

    def _apply_event_response(self, response: JSON, now: float) -> "Job":
        """Apply the response in an event; the job does not change if the event has none."""
        if not response:
            return self
        is_cancelling = self.cancel_requested_at is not None and self.turn.mode != "foreground"
        if is_cancelling and has_ended(response):
            return self  # this event may be the only copy of the result of a run that is held open
        if self.is_terminal or not self._is_empty_completion(response):
            return self._apply_status(response, now)
        turn = replace(self.turn, empty_completions=max(1, self.turn.empty_completions))
        return replace(self, turn=turn, usage=self._sum_usage(Usage.of(response.get("usage"))), counted=response)

    def apply_response(self, response: JSON, now: float) -> "Job":
        """Apply a response object that upstream returned for a GET, POST or cancel."""
        empty_completions = 0
        if self._is_empty_completion(response):
            empty_completions = self.turn.empty_completions + 1
        turn = replace(
            self.turn,
            polls=self.turn.polls + 1,
            polled_at=now,
            not_found_count=0,
            not_found_since=None,
            empty_completions=empty_completions,
        )
        job = replace(self, turn=turn, activity="").set_response_id(response.get("id"))
        if 0 < empty_completions <= MAX_EMPTY_COMPLETIONS:
            return job
        return job._apply_status(response, now)

    def mark_not_found(self, now: float, *, is_doubtful: bool = False) -> "Job":
        """Record that upstream does not know the response; enough such answers over enough time expire the job.

        A held-open run, which ends with its connection, ends at once, unless the answer is doubtful: a gateway's page.
        """
        since = now if self.turn.not_found_since is None else self.turn.not_found_since
        turn = replace(
            self.turn,
            polls=self.turn.polls + 1,
            polled_at=now,
            not_found_count=self.turn.not_found_count + 1,
            not_found_since=since,
        )
        job = replace(self, turn=turn)
        is_certain = turn.not_found_count >= MIN_NOT_FOUND_COUNT and now - since >= MIN_NOT_FOUND_S
        if not is_certain and (turn.mode != "foreground" or is_doubtful):
            return job
        return job.with_partial()._end_unfound(now)

    def _end_unfound(self, now: float) -> "Job":
        """End a job whose response upstream does not have, with the text of its stream."""
        if self.turn.empty_completions and self.turn.partial:
            return self._end_as(Status.COMPLETED, now, None)
        if self.turn.mode != "foreground":
            lost = Failure("expired", "The provider no longer knows this response, and its result was never read.")
            return self._end_as(Status.EXPIRED, now, lost)
        if self.turn.stream_failures:
            return self.mark_failed("interrupted", CONNECTION_CUT_MESSAGE, now)
        return self.mark_failed("interrupted", PROCESS_ENDED_MESSAGE, now)

    def with_partial(self) -> "Job":
        """Return the job with the text that its stream brought as its output, if there is any."""
        if not self.turn.partial:
            return self
        return replace(self, output=Output(self.turn.partial, with_text(self.counted, self.turn.partial)))

    def _is_empty_completion(self, response: JSON) -> bool:
        """Return True if upstream reports success without the output: such a response is retrieved again."""
        if response.get("status") != "completed":
            return False
        items = items_of(response.get("output"))
        if self.turn.partial:
            return not has_answer(items)
        used = Usage.of(response.get("usage"))
        return not items and (used is None or used.output_tokens > 0)

    def mark_unreachable(self, reason: str, now: float) -> "Job":
        """Note a retrieve without an answer: its reason is shown, and it counts towards the next one's distance."""
        turn = replace(self.turn, polls=self.turn.polls + 1, polled_at=now)
        return replace(self, turn=turn, activity=reason)

    def set_response_id(self, given: object) -> "Job":
        """Keep the id that upstream gave the response; the first one stays.

        An id queues a job that was being sent. It re-opens one that ended because we had lost sight of its response.
        """
        response_id = string_of(given)
        if not response_id:
            return self
        job = self
        if self.turn.response_id is None:
            job = replace(self, turn=replace(self.turn, response_id=response_id), activity="")
        if self.status not in (Status.PENDING, Status.STARTING) and not self.can_be_reopened:
            return job
        return replace(
            job,
            status=Status.QUEUED,
            activity="",
            error=None,
            finished_at=None,
            needs_finalizing=False,
            delivered_at=None,
            read_at=None,
        )

    def mark_sending(self, now: float) -> "Job":
        """Note that the first byte of the POST is about to leave: from here on only upstream knows."""
        if not self.has_unsent_turn:
            return self
        job = replace(self, turn=replace(self.turn, attempt=self.turn.attempt + 1, sent_at=now), activity="")
        if self.turn.number > 1:
            return job
        return replace(job, status=Status.STARTING, running_since=now)

    def mark_not_sent(self, reason: str) -> "Job":
        """Note that upstream provably did not accept the POST, so that it may be repeated."""
        if self.turn.response_id is None and self.turn.number > 1:
            return replace(self, turn=replace(self.turn, sent_at=None), activity=reason)
        if self.status not in (Status.PENDING, Status.STARTING):
            return self
        return replace(self, status=Status.PENDING, activity=reason)

    def mark_failed(self, code: str, message: str, now: float) -> "Job":
        """End the job with a failure of agent-jobs, or one that upstream reported outside a response object."""
        return self._end_as(Status.FAILED, now, Failure(code, message))

    def mark_cancelled(self, now: float) -> "Job":
        """End the job as cancelled; what it brought and cost stays."""
        return self._end_as(Status.CANCELLED, now, None)

    def with_progress(self, cursor: int, activity: str, partial: str, reasoning: str) -> "Job":
        """Apply the sum of many small stream events."""
        if self.is_terminal:
            return self
        turn = replace(self.turn, stream_failures=0, partial=partial, reasoning=reasoning).move_cursor(cursor)
        return replace(self, turn=turn, activity=activity or self.activity, observed_by="following")

    def mark_stream_failed(self, *, for_good: bool = False) -> "Job":
        """Note that an attempt to stream brought nothing; after the last one the job is only polled."""
        failures = MAX_STREAM_FAILURES if for_good else self.turn.stream_failures + 1
        return replace(self, turn=replace(self.turn, stream_failures=failures))

    def can_stream(self, now: float) -> bool:
        """Return True if another attempt to stream the response is worthwhile."""
        if self.turn.mode != "background_stream" or self.status not in (Status.QUEUED, Status.IN_PROGRESS):
            return False
        is_young = self.turn.sent_at is not None and now - self.turn.sent_at < STREAM_MAX_AGE_S
        # Without a cursor upstream repeats all events from the start, which would double the applied ones.
        is_resumable = self.turn.sequence_number is not None or not (self.turn.partial or self.turn.reasoning)
        return is_young and is_resumable and self.turn.stream_failures < MAX_STREAM_FAILURES

    def overdue_s(self, now: float, limit_s: float) -> float:
        """Return how many seconds the job is past its limit; negative before.

        All its turns count from the first byte of the first POST, with their calls, without the time in
        `input_required`. The job's own limit goes before the given one.
        """
        limit_s = limit_s if self.timeout_s is None else self.timeout_s
        if self.running_since is None:
            return -limit_s
        until = now
        if self.waits_since is not None:
            until = self.waits_since
        return until - self.running_since - limit_s

    def mark_timed_out(self, now: float) -> "Job":
        """Record that the deadline passed: the run will be cancelled, and end as a failure that reports this."""
        return replace(self, turn=replace(self.turn, timed_out_at=now))

    def end_at_deadline(self, now: float) -> "Job":
        """End a run that was held open until its limit: it stopped with its connection, and sends nothing more."""
        return self.with_partial().mark_failed("deadline_exceeded", DEADLINE_MESSAGE, now)

    def _apply_status(self, response: JSON, now: float) -> "Job":
        """Move as the response's own status says; an unknown or missing status counts as running."""
        if self.is_terminal:
            return self
        items = items_of(response.get("output"))
        steps = list_steps(items, self.turn.number, now, is_over=has_ended(response))
        turn = replace(self.turn, steps=steps)
        job = replace(self, activity=activity_of(items) or self.activity, turn=turn)
        status = read_status(response)
        if status == "queued":
            return job._move_to(Status.QUEUED)
        if has_ended(response):
            return job._apply_end(response, Status(str(status)), now)
        return job._move_to(Status.IN_PROGRESS)

    def _apply_end(self, response: JSON, end: Status, now: float) -> "Job":
        """Apply an ended response: the job ends with it, or continues with the calls that it asks for."""
        items = items_of(response.get("output"))
        if self.turn.partial and not has_answer(items):
            response = with_text(response, self.turn.partial)
            items = items_of(response["output"])
        job = replace(self, usage=self._sum_usage(Usage.of(response.get("usage"))), counted=response)
        if items:
            job = replace(job, output=Output(text_of(items), response), counted={})
        if end is Status.COMPLETED and calls_of(items):
            return job._await_calls(now)
        if end is Status.CANCELLED:
            return job._end_stopped(now)
        return job._end_as(end, now, read_end_failure(response, end))

    def _sum_usage(self, used: Usage | None) -> Usage | None:
        """Return the usage of all turns, given this one's; partial if that of any turn is not known."""
        if self.has_no_earlier_response:
            return used or self.usage
        if used is None and self.usage_before is None:
            return None
        return (used or Usage(partial=True)).plus(self.usage_before or Usage(partial=True))

    def _await_calls(self, now: float) -> "Job":
        """Keep the job running for the calls of its turn, unless it has to stop."""
        if self.is_stopping:
            return self._end_stopped(now)
        return replace(self._move_to(Status.IN_PROGRESS), turn=replace(self.turn, has_open_calls=True), activity="")

    def _end_stopped(self, now: float) -> "Job":
        """End a run that was stopped: as failed if only our own deadline stopped it, else as cancelled."""
        if self.turn.timed_out_at is not None and self.cancel_requested_at is None:
            return self.mark_failed("deadline_exceeded", DEADLINE_MESSAGE, now)
        return self.mark_cancelled(now)

    def with_next_turn(self, request: JSON, request_id: str, *, rebuilt: bool = False) -> "Job":
        """Return the job with another turn, not yet sent, whose request answers all calls of the last one."""
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

    def can_move_to(self, status: Status) -> bool:
        """Return True if the job may have this status next; within one that is no end it may stay."""
        return status in TRANSITIONS.get(self.status, ()) or (status is self.status and not self.is_terminal)

    def _move_to(self, status: Status) -> "Job":
        if status in TRANSITIONS.get(self.status, ()):
            return replace(self, status=status)
        return self

    def _end_as(self, status: Status, now: float, error: Failure | None) -> "Job":
        job = self._move_to(status)
        if job is not self:
            return replace(job, finished_at=now, error=error, activity="")
        return self
