"""The statuses of a job, and which of them may follow which."""

from collections.abc import Mapping
from enum import StrEnum


class Status(StrEnum):
    """The status of a job: OpenAI's words, except `pending`, `starting`, `input_required` (from MCP) and `expired`."""

    PENDING = "pending"  #: stored, nothing was sent
    STARTING = "starting"  #: the first byte of the POST was sent, upstream named no id yet
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"  #: upstream no longer has it, and its result was never read


_UPSTREAM_ENDS = {Status.COMPLETED, Status.INCOMPLETE, Status.FAILED, Status.CANCELLED}

#: The statuses that may follow each one. A job's own methods obey it, and `Store.transition` checks it again.
#: The two exceptions are in `transitions.can_become`.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.STARTING, Status.CANCELLED, Status.FAILED}),
    # Back to pending: upstream provably did not accept the POST.
    Status.STARTING: frozenset(
        {Status.PENDING, Status.QUEUED, Status.IN_PROGRESS, Status.INPUT_REQUIRED, *_UPSTREAM_ENDS}
    ),
    Status.QUEUED: frozenset({Status.IN_PROGRESS, Status.INPUT_REQUIRED, Status.EXPIRED, *_UPSTREAM_ENDS}),
    Status.IN_PROGRESS: frozenset({Status.INPUT_REQUIRED, Status.EXPIRED, *_UPSTREAM_ENDS}),
    Status.INPUT_REQUIRED: frozenset({Status.IN_PROGRESS, Status.FAILED, Status.CANCELLED, Status.EXPIRED}),
}
#: Statuses in which something may still happen.
ACTIVE = frozenset(TRANSITIONS)
#: Statuses in which nothing more happens.
TERMINAL = frozenset(Status) - ACTIVE
#: Statuses of a job that uses a slot, because it is running at the provider or may be.
RUNNING = frozenset({Status.STARTING, Status.QUEUED, Status.IN_PROGRESS})
