"""Changes of a job as it is stored, for `Store.transition`: which copy of a job may overwrite what, and when. Pure.

Each function takes the stored job and returns the new one, or None if the job may not change so by now.
"""

from collections.abc import Collection
from dataclasses import replace

from agent_jobs.jobs.job import Job, Mode, Turn
from agent_jobs.jobs.status import RUNNING, TRANSITIONS, Status

#: Statuses in which nothing runs upstream, so that a cancel ends the job at once.
_IDLE = frozenset({Status.PENDING, Status.INPUT_REQUIRED})
#: Seconds after which a job is due whose cancel was requested: the process that is to send it may die before that.
CANCEL_CHECK_S = 5.0


def can_become(stored: Job, new: Job) -> bool:
    """Return True if the table of statuses allows the change, or one of its two exceptions does.

    A response id that is found queues a job with any assumed status. A response that failed for
    lack of context is replaced by a turn that is sent again.
    """
    if new.status is stored.status or new.status in TRANSITIONS.get(stored.status, ()):
        return True
    has_response = new.turn.response_id is not None
    match new.status:
        case Status.QUEUED:
            return has_response and (stored.status is Status.PENDING or stored.can_be_reopened)
        case Status.PENDING:
            is_other_request = new.turn.request_id != stored.turn.request_id
            return stored.status in RUNNING and is_other_request and not has_response
        case _:
            return False


def begin_sending(stored: Job, sending: Job) -> Job | None:
    """Grant the right to POST the current turn: `sending` is a copy of this job after `mark_sending`."""
    if sending.turn.number != stored.turn.number or not _may_send(stored):
        return None
    is_first = stored.turn.number == 1
    turn = replace(
        stored.turn,
        attempt=sending.turn.attempt,
        sent_at=sending.turn.sent_at,
        mode=sending.turn.mode,
        fingerprint=sending.turn.fingerprint,
    )
    if not is_first:  # it has its slot already
        return replace(stored, turn=turn, activity="")
    return replace(stored, turn=turn, activity="", status=Status.STARTING, running_since=sending.running_since)


def _may_send(stored: Job) -> bool:
    """Return True if the current turn was not sent, or provably not accepted, and no cancel was requested."""
    if stored.cancel_requested_at is not None or stored.turn.response_id is not None:
        return False
    if stored.turn.number == 1:
        return stored.status is Status.PENDING
    return stored.status in (Status.PENDING, Status.IN_PROGRESS) and stored.turn.sent_at is None


def record_response_id(
    stored: Job, number: int, response_id: str, now: float, mode: Mode | None = None, fingerprint: str = ""
) -> Job:
    """Keep the response id of this turn, and how upstream runs it; a job that no process has claimed is due now."""
    if number != stored.turn.number:
        return stored
    job = stored.set_response_id(response_id)
    if stored.turn.response_id is None:
        turn = replace(job.turn, mode=mode or job.turn.mode, fingerprint=fingerprint or job.turn.fingerprint)
        job = replace(job, turn=turn)
    if job.status is not stored.status and stored.claimed_by is None:
        job = replace(job, due_at=now)
    return job


def with_observation(stored: Job, seen: Job) -> Job | None:
    """Apply what another copy of this job observed; None if the job may not go there, or has another turn by now.

    Changes by others stay: a cancel, the response id, a cursor that is further. Each observation is a
    change that waiters see.
    """
    if seen.turn.number != stored.turn.number or not stored.can_move_to(seen.status):
        return None
    has_output = seen.output is not None and seen.output.response is not None
    job = replace(
        stored,
        status=seen.status,
        finished_at=seen.finished_at,
        activity=seen.activity,
        observed_by=seen.observed_by,
        usage=seen.usage,
        error=seen.error,
        cost_usd=seen.cost_usd,
        needs_finalizing=seen.needs_finalizing,
        output=seen.output if has_output else stored.output,
        turn=_merge_turn(stored.turn, seen.turn),
        revision=stored.revision + 1,
    )
    if job.is_terminal:
        return _release_at_end(job)
    return job


def _merge_turn(stored: Turn, seen: Turn) -> Turn:
    """Return the observed turn with what only the store knows for certain."""
    merged = replace(
        seen,
        request=stored.request,
        request_id=stored.request_id,
        base_url=stored.base_url,
        fingerprint=stored.fingerprint,
        attempt=stored.attempt,
        response_id=stored.response_id,
        rebuilt=stored.rebuilt,
    )
    return merged.move_cursor(stored.cursor)


def _release_at_end(stored: Job) -> Job:
    """Return the ended job without a claim, due at once if files are still to be written or removed."""
    return replace(stored, claimed_by=None, due_at=stored.finished_at if stored.needs_finalizing else None)


def wait_for_input(stored: Job, number: int, now: float, timeout_s: float) -> Job | None:
    """Have the job wait for an answer to this turn, due again `timeout_s` after it asked."""
    is_cancelling = stored.cancel_requested_at is not None
    if number != stored.turn.number or is_cancelling or not stored.can_move_to(Status.INPUT_REQUIRED):
        return None
    asked_at = stored.waits_since
    if asked_at is None:
        asked_at = now
    return replace(
        stored,
        status=Status.INPUT_REQUIRED,
        activity="",
        not_before=0.0,
        due_at=asked_at + timeout_s,
        turn=replace(stored.turn, asked_at=asked_at),
    )


def record_reply(stored: Job, now: float, *, is_answered: bool, always: Collection[str] = ()) -> Job | None:
    """Continue a waiting job if all its calls are answered; in any case it is due now.

    Calls with the names in `always` are allowed from now on.

    A step that is under way has no due time and keeps none: it sees the answers at its end, and a second step
    beside it would run the same calls.
    """
    if stored.status is not Status.INPUT_REQUIRED:
        return None
    due_at = None if stored.due_at is None else now
    allowed = tuple(sorted({*stored.always_allowed, *always}))
    job = replace(stored, due_at=due_at, not_before=0.0, revision=stored.revision + 1, always_allowed=allowed)
    if not is_answered:
        return job
    running_since = stored.running_since
    if running_since is not None and stored.turn.asked_at is not None:
        running_since += now - stored.turn.asked_at
    return replace(job, status=Status.IN_PROGRESS, running_since=running_since)


def ask_again(stored: Job, names: Collection[str]) -> Job:
    """Have the user asked again before calls with these names."""
    return replace(stored, always_allowed=tuple(name for name in stored.always_allowed if name not in names))


def begin_next_turn(stored: Job, following: Job) -> Job | None:
    """Begin the next turn: `following` is a copy of this job after `with_next_turn`."""
    is_next = following.turn.number == stored.turn.number + 1
    is_open = stored.status in (Status.IN_PROGRESS, Status.INPUT_REQUIRED)
    if not (is_next and is_open) or stored.cancel_requested_at is not None:
        return None
    return replace(
        stored,
        turn=following.turn,
        status=Status.IN_PROGRESS,
        usage_before=following.usage_before,
        cost_before_usd=following.cost_before_usd,
        reserved_usd=following.reserved_usd,
        activity="",
        output=None,
        output_bytes=0,
    )


def rewrite_request(stored: Job, rewritten: Job) -> Job | None:
    """Replace the request of a turn that was not accepted, and the way in which its context is sent."""
    is_unaccepted = stored.status is Status.PENDING or stored.turn.number > 1
    if rewritten.turn.number != stored.turn.number or not is_unaccepted:
        return None
    turn = replace(stored.turn, request=rewritten.turn.request, rebuilt=rewritten.turn.rebuilt)
    return replace(stored, context=rewritten.context, turn=turn)


def reset_for_resend(stored: Job, again: Job, failed_id: str) -> Job | None:
    """Put a turn that is not yet sent in the place of the response that failed; None if it has another one."""
    is_same_response = again.turn.number == stored.turn.number and stored.turn.response_id == failed_id
    if not is_same_response or stored.status not in RUNNING or stored.cancel_requested_at is not None:
        return None
    return replace(
        stored,
        turn=again.turn,
        status=again.status,
        context=again.context,
        activity="",
        observed_by="",
        usage=again.usage,
        usage_before=again.usage_before,
        cost_usd=again.cost_usd,
        cost_before_usd=again.cost_before_usd,
        reserved_usd=again.reserved_usd,
    )


def request_cancel(stored: Job, now: float, *, has_uploads: bool) -> Job:
    """Request the cancel of the job; a job that is not running is cancelled at once."""
    if stored.is_terminal:
        return stored
    requested_at = now if stored.cancel_requested_at is None else stored.cancel_requested_at
    job = replace(stored, cancel_requested_at=requested_at)
    if stored.status not in _IDLE:
        return _check_cancel_soon(job, now)
    if stored.status is Status.PENDING and stored.usage_before is None:
        job = replace(job, cost_usd=0.0)
    cancelled = replace(job, status=Status.CANCELLED, finished_at=now, activity="", needs_finalizing=has_uploads)
    return _release_at_end(cancelled)


def _check_cancel_soon(job: Job, now: float) -> Job:
    """Have a job be due soon: the caller may die before upstream obeys, and its next poll may be far away."""
    if job.due_at is None:
        return job
    soon = min(job.due_at, now + CANCEL_CHECK_S)
    return replace(job, due_at=soon, not_before=min(job.not_before, soon))


def mark_finalized(stored: Job, result_path: str) -> Job | None:
    """Note that the ended job's files are written and removed."""
    if not stored.is_terminal:
        return None
    return replace(stored, needs_finalizing=False, result_path=result_path, claimed_by=None, due_at=None)


def mark_needs_finalizing(stored: Job) -> Job | None:
    """Have an ended job finalized again, now."""
    if not stored.is_terminal:
        return None
    return replace(stored, needs_finalizing=True, due_at=stored.finished_at)


def wait_for_slot(stored: Job, activity: str) -> Job | None:
    """Release the claim on a pending job until there is a slot for it."""
    if stored.status is not Status.PENDING:
        return None
    return replace(stored, claimed_by=None, due_at=None, activity=activity)
