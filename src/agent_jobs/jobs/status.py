"""The statuses of a job, and which of them may follow which."""

from collections.abc import Mapping
from enum import StrEnum


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
#: Statuses of a job that runs at the provider, or may: it takes a slot.
RUNNING = frozenset({Status.STARTING, Status.QUEUED, Status.IN_PROGRESS})
