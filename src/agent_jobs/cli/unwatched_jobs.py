"""Retrieve the jobs that no process observes before a command shows them, and name the stale ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_jobs.cli.display import terminal
from agent_jobs.cli.session import Session
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.status import Status

#: Seconds that a command which only reads waits for the provider, while a person waits for the command.
RETRIEVE_S = 1.0
#: The commands have lines of their own, so that they are never broken and can be copied.
NO_WATCHER = (
    "No process is watching {jobs}. Install the service, or watch here:\n  agent-jobs service install\n  {watch}"
)


@dataclass(frozen=True)
class UnwatchedJobs:
    """The jobs that no process observes, by their ids, and those of them that were retrieved just now."""

    ids: frozenset[str] = frozenset()
    retrieved: frozenset[str] = frozenset()

    def list_fields(self, job: Job, now: float) -> Mapping[str, Any]:
        """Return what `--json` adds to the status of a job that no process observes."""
        if not self._is_unwatched(job):
            return {}
        fields = {"watched_by": list[str]()}
        if job.status is Status.PENDING:
            return fields
        seen_s = 0.0 if job.id in self.retrieved else now - _find_last_seen(job)
        return {**fields, "last_seen_s": max(0, round(seen_s))}

    def describe_age(self, job: Job, now: float) -> str:
        """Return the age of the shown status, such as `not being watched; last seen 13 s ago`; empty if it is fresh."""
        if not self._is_unwatched(job) or job.id in self.retrieved:
            return ""
        return f"not being watched; {_describe_last_seen(job, now)}"

    def describe_stale(self, jobs: Sequence[Job], now: float) -> Iterator[str]:
        """Yield lines for the stale jobs, sent and unsent, and others if no process runs the open jobs."""
        yield from self._describe_each_kind(jobs, now)
        if any(map(self._is_unwatched, jobs)):
            yield from NO_WATCHER.format(jobs="these", watch="agent-jobs watch").splitlines()

    def _is_unwatched(self, job: Job) -> bool:
        """Return True if a job is running and no process observes it."""
        return job.id in self.ids and not job.is_terminal

    def _describe_each_kind(self, jobs: Sequence[Job], now: float) -> Iterator[str]:
        """Yield a line for the stale jobs that were sent, and one for those that were not."""
        stale = [job for job in jobs if self.describe_age(job, now)]
        yield from _describe_group([job for job in stale if job.status is not Status.PENDING], now, "Collect")
        yield from _describe_group([job for job in stale if job.status is Status.PENDING], now, "Send")


async def retrieve_unwatched(session: Session, group: JobFilter) -> UnwatchedJobs:
    """Retrieve the running jobs of a group that no process observes, for at most `RETRIEVE_S`."""
    jobs = await session.engine.find_unobserved(group)
    if not jobs:
        return UnwatchedJobs()
    retrieved = await session.app.retrieve_unwatched(jobs, RETRIEVE_S)
    return UnwatchedJobs(frozenset(job.id for job in jobs), frozenset(retrieved))


def _describe_group(jobs: Sequence[Job], now: float, verb: str) -> Iterator[str]:
    """Yield a line for stale jobs that were all sent, or all not, with the next command; none for no jobs."""
    if len(jobs) == 1:
        job_id, age = jobs[0].id, _describe_last_seen(jobs[0], now)
        yield f"{job_id}: not being watched; {age}. {verb} it with: agent-jobs watch {job_id}"
    elif jobs:
        yield f"{len(jobs)} jobs: not being watched; {_describe_span(jobs, now)}. {verb} them with: agent-jobs watch"


def _describe_last_seen(job: Job, now: float) -> str:
    if job.status is Status.PENDING:
        return "not sent yet"
    if job.turn.not_found_since is not None:
        return f"the provider has not found it for {terminal.format_duration(now - job.turn.not_found_since)}"
    return f"last seen {terminal.format_duration(now - _find_last_seen(job))} ago"


def _describe_span(jobs: Sequence[Job], now: float) -> str:
    """Return when jobs were last seen, from the newest to the oldest, or that none of them was sent."""
    if jobs[0].status is Status.PENDING:
        return "not sent yet"
    ages = sorted(now - _find_last_seen(job) for job in jobs)
    newest, oldest = terminal.format_duration(ages[0]), terminal.format_duration(ages[-1])
    if newest == oldest:
        return f"last seen {newest} ago"
    return f"last seen {newest} to {oldest} ago"


def _find_last_seen(job: Job) -> float:
    """Return when a retrieval last showed the job, or when it was sent or created."""
    return job.turn.polled_at or job.turn.sent_at or job.created_at
