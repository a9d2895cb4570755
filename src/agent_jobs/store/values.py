"""The plain values that a store accepts and returns, besides jobs and the answers to queries."""

from typing import NamedTuple

#: How many changes this process has seen of its own, and of the others'.
Mark = tuple[int, int]
#: Our own changes take under a millisecond: only another program holds the lock longer than this. A process that is to
#: end must not wait for it much longer.
BUSY_TIMEOUT_S = 1.5
#: More jobs than ever run at once.
NO_LIMIT = 2**31


class Tombstone(NamedTuple):
    """The end of a job that was purged since."""

    status: str
    finished_at: float


class ResponseAddress(NamedTuple):
    """The endpoint and the id of a response, and whose key it was created with."""

    base_url: str
    response_id: str
    owner: str = ""
    fingerprint: str = ""


class Budget(NamedTuple):
    """The most that may be spent on the jobs that are started in the day from `since` on.

    A finished job counts with its cost, deleted or not, and an active one with its highest cost.
    """

    usd: float
    since: float
    spent: bool = False  #: count only what was spent, not what running jobs may cost
    parts: str = ""  #: how the bound of a new job is made up, for the refusal
    owner: str | None = None  #: whose jobs count; None means all


class Upload(NamedTuple):
    """A file that goes to the provider with a job."""

    name: str
    data: bytes
    file_id: str | None = None  #: the provider's, once it is there
