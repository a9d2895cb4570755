"""The verbs that look up stored jobs, sum up what they cost, and delete them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

from agent_jobs.clock import Clock
from agent_jobs.errors import ConfigError, UpstreamError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobDetails, JobFilter, Pruned, Result, SearchHit, Spending, SpendingKey
from agent_jobs.jobs.status import Status
from agent_jobs.store.base import Store
from agent_jobs.store.values import ResponseAddress

if TYPE_CHECKING:  # a terminal that only reads jobs should not load what sends them
    from agent_jobs.engine.owner_clients import OwnerClients

DAY_S = 86_400.0
#: Gets an action of the caller, and the jobs that it was about with their costs as far as they are known.
ActionReporter = Callable[[str, Mapping[str, float | None]], Awaitable[None]]
#: Statuses of jobs that can be continued.
CONTINUABLE = frozenset({Status.COMPLETED, Status.INCOMPLETE})


async def ignore_action(_action: str, _costs_usd: Mapping[str, float | None]) -> None:
    """Report nothing, where no audit log is kept."""


class StoredJobs(ABC):
    """Looks up stored jobs. A base of `Engine`."""

    _store: Store
    _clock: Clock
    _action_reporter: ActionReporter

    @abstractmethod
    async def result(self, job_id: str) -> Result:
        """Return all stored facts of a job."""

    @abstractmethod
    def require_clients(self) -> OwnerClients:
        """Return the clients of the endpoint, or raise the ConfigError that says why there are none."""

    async def details(self, job_id: str) -> JobDetails:
        """Return all stored facts of a job, with its prompt, its turns and their steps.

        Raises:
            JobNotFoundError: There is no such job.
        """
        result = await self.result(job_id)
        return JobDetails(
            result,
            await self._store.get_prompt(job_id),
            await self._store.get_turns(job_id),
            await self._store.get_steps(job_id),
            await self._store.get_first_request(job_id),
        )

    async def find_newest(self, group: JobFilter, limit: int) -> list[Job]:
        """Return the newest jobs of a group without their texts; nothing is counted, which `find` does."""
        return await self._store.find(group, limit)

    async def find_progress(self, job_id: str) -> Job:
        """Return a job without its texts, which costs little.

        Raises:
            JobNotFoundError: There is no such job.
        """
        found = await self._store.find(JobFilter(job_ids=(job_id,)), 1)
        if not found:
            return (await self.result(job_id)).job  # or raises an error with the known facts
        return found[0]

    async def progress(self, job_id: str) -> JobDetails:
        """Return what changes while a job runs: not its prompt and its requests, and no output.

        Raises:
            JobNotFoundError: There is no such job.
        """
        job = await self.find_progress(job_id)
        events, calls = await self._store.get_events(job_id), await self._store.get_calls(job_id)
        turns, steps = await self._store.get_turns(job_id), await self._store.get_steps(job_id)
        return JobDetails(Result(job, events, [], calls), "", turns, steps, {})

    async def search(self, words: str, limit: int, statuses: frozenset[Status] = frozenset()) -> list[SearchHit]:
        """Return the newest jobs whose title, prompt or output has all of these words.

        Raises:
            StoreError: The database cannot search.
        """
        return await self._store.search(words, limit, statuses)

    async def count_unindexed(self) -> int:
        """Return how many finished jobs the next search has to read first."""
        return await self._store.count_unindexed()

    async def sum_spending(self, keys: Sequence[SpendingKey], group: JobFilter) -> dict[SpendingKey, list[Spending]]:
        """Return the sums of these jobs by each key: day, model, preset or client."""
        return await self._store.sum_spending(keys, group)

    async def sum_today(self, *, spent: bool) -> float:
        """Return what counts against the daily budget today, in USD; with `spent` without reservations."""
        now = self._clock.now()
        return await self._store.sum_day(now - now % DAY_S, spent=spent)

    async def find_newest_finished(self, client: str) -> Job | None:
        """Return the newest job of a client that can be continued; None if there is none."""
        jobs = await self._store.find(JobFilter(client=client, statuses=CONTINUABLE), 1)
        return next(iter(jobs), None)

    async def delete(self, job_ids: Sequence[str], *, upstream: bool = False) -> Pruned:
        """Delete these jobs, whether read or not; active ones stay. With `upstream`, also the provider's copies.

        Raises:
            ConfigError: `upstream` is set, and this process can send nothing.
        """
        clients = self._find_deleting_clients(upstream=upstream)
        deleted = await self._store.delete_jobs(job_ids)
        if deleted:
            await self._action_reporter("delete", dict.fromkeys(deleted))
        addresses = list(chain.from_iterable(deleted.values()))
        return Pruned(len(deleted), 0, len(addresses), await delete_responses(addresses, clients))

    def _find_deleting_clients(self, *, upstream: bool) -> OwnerClients | None:
        """Return the clients that delete responses, if those at the provider are to be deleted, too."""
        if not upstream:
            return None
        return self.require_clients()


async def delete_responses(addresses: Iterable[ResponseAddress], clients: OwnerClients | None) -> int:
    """Delete responses at our endpoint, each with the key of its owner, and return how many; without clients none."""
    if clients is None:
        return 0
    deleted = 0
    for address in addresses:
        if address.base_url != clients.shared.endpoint.base_url:
            continue
        # One that cannot be deleted, or whose key is missing, must not keep the others.
        with suppress(UpstreamError, ConfigError):
            client = await clients.find_sender(address.owner, address.fingerprint)
            await client.delete(address.response_id)
            deleted += 1
    return deleted
