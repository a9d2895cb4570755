"""A job's life as plain values: what may follow what, and what an event or a look at upstream changes.

Nothing here waits, reads a clock or does I/O. Time is an argument, a change is a new value, and every mapping
that comes from upstream may be incomplete, wrongly typed or from a server that reads the contract differently.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Self, cast

JSON = Mapping[str, Any]
#: How a turn is sent: in the background with a stream, in the background without one, or held open by this process.
Mode = Literal["background_stream", "background", "foreground"]


class Status(StrEnum):
    """Where a job stands. OpenAI's words, but for `pending`, `starting`, `input_required` (MCP's) and `expired`."""

    PENDING = "pending"  #: written down, nothing was sent
    STARTING = "starting"  #: the first byte of the POST was sent, upstream named no id yet
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"  #: upstream no longer knows it, and we never got its result


_ENDS = {Status.COMPLETED, Status.INCOMPLETE, Status.FAILED, Status.CANCELLED}

#: What may follow what. `apply` and `observe` obey it, and the store guards each write with the same table.
#: Only an id that is found may do more: see `Job.found`.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.STARTING, Status.CANCELLED, Status.FAILED}),
    # Back to pending: upstream provably did not accept the POST.
    Status.STARTING: frozenset({Status.PENDING, Status.QUEUED, Status.IN_PROGRESS, Status.INPUT_REQUIRED, *_ENDS}),
    Status.QUEUED: frozenset({Status.IN_PROGRESS, Status.INPUT_REQUIRED, Status.EXPIRED, *_ENDS}),
    Status.IN_PROGRESS: frozenset({Status.INPUT_REQUIRED, Status.EXPIRED, *_ENDS}),
    Status.INPUT_REQUIRED: frozenset({Status.IN_PROGRESS, Status.FAILED, Status.CANCELLED, Status.EXPIRED}),
}
ACTIVE = frozenset(TRANSITIONS)
TERMINAL = frozenset(Status) - ACTIVE

#: What a pending job does while as many run as may.
WAITING = "waiting for a free slot"
#: Said of a run that our own deadline stopped.
DEADLINE = "It ran longer than its time limit and was cancelled; what came until then is in the output."
#: Failures after which the same request may well succeed.
RETRYABLE = frozenset(
    {"server_error", "rate_limit_exceeded", "server_is_overloaded", "vector_store_timeout", "interrupted"}
)

#: Failures that time does not cure, whatever upstream says beside them. A start that is unconfirmed may be running:
#: starting it again could be paid twice.
NOT_RETRYABLE = frozenset(
    {"start_unconfirmed", "invalid_api_key", "account_refused", "insufficient_quota", "missing_secret"}
)
#: What upstream says of a failure that time alone cures.
_AGAIN = re.compile(r"\b(?:try(?:ing)? again|retry)\b.{0,30}?(?:\bin \d|\bafter \d|\blater\b|\bshortly\b)", re.I)
#: Ends as some servers write them.
_SPELLINGS = {"error": "failed", "errored": "failed", "canceled": "cancelled"}

#: Why a run that was held open has no result, by which side of its connection ended.
HOLDER_ENDED = "The process that held its connection ended, and upstream runs nothing without one."
CONNECTION_CUT = "Upstream ended the connection before the answer was finished, and cannot be asked for the rest."
#: Id of the message that holds what a stream brought of a text, where no response object has it.
PARTIAL_ID = "msg_from_stream"

#: A `completed` without output is looked at this often again before it is believed (LiteLLM #36275).
HOLLOW_LOOKS = 3
#: Reads right after a create may miss for ~33 s (measured on Azure), so `expired` needs this many misses, this long.
MISSING_LOOKS, MISSING_S = 4, 60.0

#: What asks to be answered, and the field of it that the answer names.
_ID_OF_CALL = {"function_call": "call_id", "mcp_approval_request": "id"}
#: How an id ends that is ours, because upstream gave a call none, or one of another call.
_MADE_ID = re.compile(r"~\d+$")

#: Upstream lets nobody attach to a stream that is older than five minutes (openai-python #2828).
ATTACH_S = 290.0
#: Attachments in a row without an event, after which a job is only looked at.
DETACHED_MAX = 3

POLL_MIN_MS, POLL_MAX_MS = 2_000, 30_000
LOOK_WATCHED_MAX_S, LOOK_MAX_S, LOOK_OLD_MAX_S, OLD_S = 5.0, 30.0, 60.0, 1_800.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job did not complete: upstream's code and words, or one of ours."""

    code: str
    message: str

    @property
    def is_retryable(self) -> bool:
        """Whether starting the same work again is sensible."""
        if self.code in NOT_RETRYABLE:
            return False
        return self.code in RETRYABLE or _AGAIN.search(self.message) is not None


#: Why a job ends that was waited with for somebody, as long as that may take.
UNANSWERED = Failure("deadline_exceeded", "Nobody answered what it asked for.")


#: The counts of a usage in the Responses API, and in chat completions.
INPUT_NAMES = ("input_tokens", "prompt_tokens")
OUTPUT_NAMES = ("output_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of a turn as upstream counted them; at least so many where it is partial."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    partial: bool = field(default=False, compare=False)  #: a count of input or output is missing from the sums

    @classmethod
    def of(cls, usage: object) -> Self | None:
        """Read `response.usage`, also by the names of chat completions; None while upstream has not counted."""
        counted = mapping_of(usage)
        if not counted:
            return None
        read, written = _counted(counted, *INPUT_NAMES), _counted(counted, *OUTPUT_NAMES)
        return cls(
            input_tokens=read or 0,
            cached_tokens=_detail(counted, INPUT_NAMES, "cached_tokens"),
            output_tokens=written or 0,
            reasoning_tokens=_detail(counted, OUTPUT_NAMES, "reasoning_tokens"),
            partial=read is None or written is None,
        )

    @property
    def exact_tokens(self) -> int | None:
        """Input and output together; None where a part of them is not known."""
        return None if self.partial else self.input_tokens + self.output_tokens

    def plus(self, other: "Usage | None") -> "Usage":
        """Both together."""
        if other is None:
            return self
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            partial=self.partial or other.partial,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Something that a turn asks for before the job can go on."""

    id: str  #: `call_id` of a function call, or the id of an approval request
    kind: Literal["function", "approval"]  #: the second: of a call that upstream itself makes to an MCP server
    name: str
    arguments: str  #: JSON as the model wrote it
    needs: Literal["", "run", "approval", "output"] = ""  #: what it waits for, once that was found out
    state: Literal["open", "approved", "running", "done"] = "open"
    output: object = None  #: what goes upstream as its answer


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
    looks: int = 0
    looked_at: float | None = None
    missing: int = 0  #: looks in a row that upstream answered with "not found"
    missing_since: float | None = None
    hollow: int = 0  #: looks that saw `completed` with nothing in it
    detached: int = 0  #: attachments to its stream in a row that brought no event
    timed_out_at: float | None = None  #: our own deadline had it cancelled
    acting: bool = False  #: it ended by asking for calls; the job goes on with another turn
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
    unsettled: bool = False  #: something is left to do after its end
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
        running = self.status in (Status.QUEUED, Status.IN_PROGRESS) and not self.turn.acting
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
        number = _number(event.get("sequence_number"))
        if number is not None:
            if job.turn.sequence_number is not None and number <= job.turn.sequence_number:
                return job
            job = replace(job, turn=replace(job.turn, sequence_number=number))
        stopping = job.cancel_requested_at is not None and job.turn.mode != "foreground"
        if _ended(response) and stopping:
            return job  # a run that is held open may have no other copy than this event
        if not job.is_terminal and job._is_hollow(response):
            hollow = replace(job.turn, hollow=max(1, job.turn.hollow))
            used = job._used(Usage.of(response.get("usage")))
            return replace(job, turn=hollow, usage=used, counted=response)
        return job._absorb(response, now) if response else job

    def apply_response(self, response: JSON, now: float) -> "Job":
        """Take in a response object that upstream answered to a GET, POST or cancel."""
        hollow = self.turn.hollow + 1 if self._is_hollow(response) else 0
        turn = replace(
            self.turn, looks=self.turn.looks + 1, looked_at=now, missing=0, missing_since=None, hollow=hollow
        )
        job = replace(self, turn=turn, activity="").set_response_id(response.get("id"))
        return job if 0 < hollow <= HOLLOW_LOOKS else job._absorb(response, now)

    def mark_not_found(self, now: float) -> "Job":
        """Take in that upstream does not know the response; it expires once that was said often and long enough."""
        since = now if self.turn.missing_since is None else self.turn.missing_since
        turn = replace(
            self.turn, looks=self.turn.looks + 1, looked_at=now, missing=self.turn.missing + 1, missing_since=since
        )
        job = replace(self, turn=turn)
        if turn.mode != "foreground" and (turn.missing < MISSING_LOOKS or now - since < MISSING_S):
            return job
        kept = job.with_partial()
        if turn.hollow and turn.partial:
            return kept._ended_as(Status.COMPLETED, now, None)
        if turn.mode == "foreground":
            return kept.mark_failed("interrupted", CONNECTION_CUT if turn.detached else HOLDER_ENDED, now)
        lost = Failure("expired", "Upstream no longer knows this response and its result was never read.")
        return kept._ended_as(Status.EXPIRED, now, lost)

    def with_partial(self) -> "Job":
        """Return the job with the text that its stream brought as its output, where there is any."""
        if not self.turn.partial:
            return self
        return replace(self, output=Output(self.turn.partial, with_text(self.counted or {}, self.turn.partial)))

    def _is_hollow(self, response: JSON) -> bool:
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
        turn = replace(self.turn, looks=self.turn.looks + 1, looked_at=now)
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
        return self._ended_as(Status.FAILED, now, Failure(code, message))

    def mark_cancelled(self, now: float) -> "Job":
        """End the job as cancelled without a word from upstream: right only where nothing was ever sent."""
        return self._ended_as(Status.CANCELLED, now, None)

    def with_progress(self, cursor: int, activity: str, partial: str, reasoning: str) -> "Job":
        """Take in what many small events of a stream told together."""
        if self.is_terminal:
            return self
        cursor = max(cursor, -1 if self.turn.sequence_number is None else self.turn.sequence_number)
        turn = replace(self.turn, detached=0, partial=partial, reasoning=reasoning)
        turn = replace(turn, sequence_number=None if cursor < 0 else cursor)
        return replace(self, turn=turn, activity=activity or self.activity, observed_by="following")

    def mark_stream_failed(self, *, for_good: bool = False) -> "Job":
        """An attachment to the stream brought nothing; from now on the job is looked at."""
        detached = DETACHED_MAX if for_good else self.turn.detached + 1
        return replace(self, turn=replace(self.turn, detached=detached))

    def can_stream(self, now: float) -> bool:
        """Whether attaching to the response's stream again is worth a try."""
        young = self.turn.sent_at is not None and now - self.turn.sent_at < ATTACH_S
        # Without a cursor upstream tells all from the start, which is right only where nothing was taken in yet.
        resumable = self.turn.sequence_number is not None or not (self.turn.partial or self.turn.reasoning)
        resumable = resumable and self.turn.mode == "background_stream"
        return (
            young
            and resumable
            and self.turn.detached < DETACHED_MAX
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
        return self.with_partial().mark_failed("deadline_exceeded", DEADLINE, now)

    def next_poll_ms(self, now: float) -> int:
        """When a poll that does not wait is next worthwhile: a tenth of the job's age, 2 to 30 s."""
        return min(POLL_MAX_MS, max(POLL_MIN_MS, round((now - self.created_at) / 10) * 1000))

    def next_retrieve_s(self, now: float) -> float:
        """Seconds until the next look at upstream: 1 to 5 while somebody watches, else doubling to 30 or 60."""
        if self.watched_until > now:
            return min(LOOK_WATCHED_MAX_S, self.turn.looks + 1.0)
        limit = LOOK_OLD_MAX_S if now - self.created_at > OLD_S else LOOK_MAX_S
        return min(limit, 2.0 ** min(self.turn.looks, 10))

    def _absorb(self, response: JSON, now: float) -> "Job":
        """Move on as the response's own status says; an unknown or missing status counts as running."""
        if self.is_terminal:
            return self
        items = items_of(response.get("output"))
        job = replace(self, activity=activity_of(items) or self.activity)
        match _status_of(response):
            case "queued":
                return job._to(Status.QUEUED)
            case "completed" | "incomplete" | "failed" | "cancelled" as end:
                if self.turn.partial and not has_answer(items):
                    response = with_text(response, self.turn.partial)
                    items = items_of(response["output"])
                text = text_of(items)
                known = replace(
                    job,
                    usage=job._used(Usage.of(response.get("usage"))),
                    output=Output(text, response) if items else job.output,
                    counted=None if items else response,
                )
                if end == "completed" and calls_of(items):
                    return known._asking(now)
                if end == "cancelled" and self.turn.timed_out_at is not None and self.cancel_requested_at is None:
                    return known.mark_failed("deadline_exceeded", DEADLINE, now)
                return known._ended_as(Status(end), now, _failure(response, str(end)))
            case _:
                return job._to(Status.IN_PROGRESS)

    def _used(self, used: Usage | None) -> Usage | None:
        """Return the usage of all turns, given this one's; partial where that of any turn is not known."""
        if self.turn.number == 1 and self.usage_before is None:
            return used or self.usage
        if used is None and self.usage_before is None:
            return None
        return (used or Usage(partial=True)).plus(self.usage_before or Usage(partial=True))

    def _asking(self, now: float) -> "Job":
        """The turn ended by asking for calls: the job goes on with them, unless it is to stop."""
        if self.cancel_requested_at is not None:
            return self.mark_cancelled(now)
        if self.turn.timed_out_at is not None:
            return self.mark_failed("deadline_exceeded", DEADLINE, now)
        return replace(self._to(Status.IN_PROGRESS), turn=replace(self.turn, acting=True), activity="")

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
            self._to(Status.IN_PROGRESS),
            turn=turn,
            usage_before=self.usage,
            cost_before_usd=self.cost_usd,
            output=None,
            activity="",
        )

    def _to(self, status: Status) -> "Job":
        return replace(self, status=status) if status in TRANSITIONS.get(self.status, ()) else self

    def _ended_as(self, status: Status, now: float, error: Failure | None) -> "Job":
        job = self._to(status)
        return replace(job, finished_at=now, error=error, activity="") if job is not self else self


def calls_of(items: list[JSON]) -> list[Call]:
    """What a response asks for: function calls without an output in it, and approvals of MCP calls."""
    answered = {str(item.get("call_id")) for item in items if str(item.get("type")).endswith("_call_output")}
    calls: list[Call] = []
    for item in with_call_ids(items):
        kind = str(item.get("type"))
        if kind not in _ID_OF_CALL:
            continue
        call_id = item[_ID_OF_CALL[kind]]
        if call_id not in answered:
            name, arguments = str(item.get("name") or ""), item.get("arguments")
            of_function = kind == "function_call"
            server = "" if of_function else f"{item.get('server_label') or 'mcp'}/"
            calls.append(
                Call(
                    id=call_id,
                    kind="function" if of_function else "approval",
                    name=f"{server}{name}",
                    arguments=arguments_text(arguments),
                    needs="" if of_function else "approval",
                )
            )
    return calls


def with_call_ids(items: list[JSON]) -> list[JSON]:
    """Return the items with an id for each call: one that is missing or was used before is replaced.

    The same items always get the same ids.
    """
    seen: set[str] = set()
    identified: list[JSON] = []
    for item in items:
        field_name = _ID_OF_CALL.get(str(item.get("type")))
        if field_name is not None:
            call_id = _free_call_id(item, field_name, seen)
            seen.add(call_id)
            if call_id != item.get(field_name):
                item = {**item, field_name: call_id}
        identified.append(item)
    return identified


def _free_call_id(item: JSON, field_name: str, taken: Collection[str]) -> str:
    given = item.get(field_name)
    if isinstance(given, str) and given and given not in taken and not _MADE_ID.search(given):
        return given
    base = next((each for each in (given, item.get("id")) if isinstance(each, str) and each), "call")
    number = 2 if base in taken else 1
    while (call_id := f"{base}~{number}") in taken:
        number += 1
    return call_id


def upstream_call_id(call_id: str) -> str:
    """Return the id by which upstream knows a call, as far as it gave the call one."""
    return _MADE_ID.sub("", call_id)


def arguments_text(arguments: object) -> str:
    """Return a call's arguments as JSON text; null and lists stay what they are."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)


def text_of(items: list[JSON]) -> str:
    """The text to show of a response's output: the final answer where phases are marked, refusals included."""
    messages = [item for item in items if item.get("type") == "message"]
    final = [message for message in messages if message.get("phase") == "final_answer"]
    texts = ["".join(_part_text(part) for part in items_of(message.get("content"))) for message in final or messages]
    return "\n\n".join(text for text in texts if text)


def has_answer(items: list[JSON]) -> bool:
    """Return True if the output holds text or asks for calls."""
    return bool(text_of(items) or calls_of(items))


def with_text(response: JSON, text: str) -> JSON:
    """Return the response with text that only its stream brought, as a message marked as incomplete."""
    part: JSON = {"type": "output_text", "text": text, "annotations": []}
    message: JSON = {
        "id": PARTIAL_ID,
        "type": "message",
        "role": "assistant",
        "status": "incomplete",
        "content": [part],
    }
    return {**response, "output": [*items_of(response.get("output")), message]}


def mapping_of(value: object) -> JSON:
    """The object that upstream should have sent here; empty for anything else."""
    return cast(JSON, value) if isinstance(value, dict) else {}


def items_of(value: object) -> list[JSON]:
    """The objects in a list that upstream should have sent here; what is something else is left out."""
    return (
        [cast(JSON, item) for item in cast("list[object]", value) if isinstance(item, dict)]
        if isinstance(value, list)
        else []
    )


#: How the items of a running response are told in a few words, in this order.
_WORDS = {
    "web_search_call": "searches",
    "file_search_call": "file searches",
    "code_interpreter_call": "code runs",
    "image_generation_call": "images",
    "mcp_call": "tool calls",
    "function_call": "function calls",
}


def activity_of(items: list[JSON]) -> str:
    """What a running response has done so far, like `3 searches; reasoning`; empty when nothing is known."""
    kinds = [item.get("type") for item in items]
    counted = [(kinds.count(kind), word) for kind, word in _WORDS.items()]
    words = [f"{n} {word if n > 1 else _singular(word)}" for n, word in counted if n]
    last = {"reasoning": "reasoning", "message": "writing"}.get(str(kinds[-1])) if kinds else None
    return "; ".join([*words, last] if last else words)


def _singular(word: str) -> str:
    return word.removesuffix("es") if word.endswith("ches") else word.removesuffix("s")


def _failure(response: JSON, end: str) -> Failure | None:
    """The reason of an end that is not `completed`, from wherever upstream wrote it."""
    details = mapping_of(response.get("incomplete_details"))
    if end == "failed":
        return failure_in(response) or Failure("failed", "Upstream gave no reason.")
    if end == "incomplete":
        return Failure(str(details.get("reason") or "incomplete"), "The output was cut short.")
    return None


def failure_in(response: JSON) -> Failure | None:
    """Return the error that a response names: an object, a text, or one or several of them in a list."""
    for name in ("error", "errors", "last_error", "detail", "message"):
        value = response.get(name)
        errors = cast("list[object]", value) if isinstance(value, list) else [value]
        found = [mapping_of(each) or {"message": each} for each in errors if each]
        codes = [each.get("code") or each.get("type") for each in found]
        words = [each.get("message") or each.get("msg") or each.get("detail") for each in found]
        if any(codes) or any(words):
            message = "; ".join(str(each) for each in words if each) or "Upstream gave no reason."
            return Failure(str(next(filter(None, codes), "failed")), message)
    return None


def _status_of(response: JSON) -> object:
    """Return the status in upstream's own spelling; an error without a status that is known is a failure."""
    status = response.get("status")
    if isinstance(status, str) and status in _SPELLINGS:
        return _SPELLINGS[status]
    return "failed" if status is None and response.get("error") else status


def _ended(response: JSON) -> bool:
    return _status_of(response) in ("completed", "incomplete", "failed", "cancelled")


def _part_text(part: JSON) -> str:
    texts = [text for text in (part.get("text"), part.get("refusal")) if isinstance(text, str)]
    return texts[0] if texts else ""


def _counted(counts: JSON, *names: str) -> int | None:
    """Return the count under any of these names; gateways fill the name that they do not use with 0."""
    return max((count for name in names if (count := _number(counts.get(name))) is not None), default=None)


def _detail(counts: JSON, names: Sequence[str], detail: str) -> int:
    return max(_number(mapping_of(counts.get(f"{name}_details")).get(detail)) or 0 for name in names)


def _number(value: object) -> int | None:
    """A whole number that fits a column, or None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
