"""The protocols for reads across many jobs: search, and sums of what they cost."""

from collections.abc import Sequence
from typing import Protocol

from agent_jobs.jobs.queries import JobFilter, SearchHit, Spending, SpendingKey
from agent_jobs.jobs.response import JSON
from agent_jobs.jobs.status import Status


class SearchRecords(Protocol):
    """Finds jobs by their texts."""

    async def search(self, words: str, limit: int, statuses: frozenset[Status] = frozenset()) -> list[SearchHit]:
        """Return the newest jobs whose title, prompt or output has all of these words, newest first.

        With `statuses`, only jobs that have one of them.

        A word may be the beginning of one; words in double quotes must be adjacent. Of an active job only the
        prompt is searched.

        Raises:
            StoreError: The database cannot search.
        """
        ...

    async def count_unindexed(self) -> int:
        """Return how many finished jobs the next search adds to its index first."""
        ...


class ReportRecords(Protocol):
    """Reads what people look up about jobs that are over."""

    async def get_first_request(self, job_id: str) -> JSON:
        """Return the request of a job's first turn; empty if there is no such job."""
        ...

    async def sum_spending(self, keys: Sequence[SpendingKey], group: JobFilter) -> dict[SpendingKey, list[Spending]]:
        """Return the sums of the matching jobs by each key: days newest first, other names by cost, highest first."""
        ...

    async def has_conversation(self, conversation_id: str) -> bool:
        """Return True if a job belongs to this conversation of the provider's."""
        ...

    async def sum_day(self, since: float, *, spent: bool) -> float:
        """Return the spending in USD of the day from `since` on, as a budget counts it; see `Budget`."""
        ...
