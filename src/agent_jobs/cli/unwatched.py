"""Jobs that no process observes: retrieved before a command shows them, else named as what they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_jobs.cli import terminal
from agent_jobs.cli.session import Session
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.status import Status

#: Seconds that a command which only reads waits for upstream; a person waits for its answer.
RETRIEVE_S = 1.0


@dataclass(frozen=True)
class Unwatched:
    """The jobs that no process observes, by their ids, and which of them were retrieved just now."""

    ids: frozenset[str] = frozenset()
    retrieved: frozenset[str] = frozenset()

    def fields(self, job: Job, now: float) -> Mapping[str, Any]:
        """Return what `--json` says of a job beside its status; nothing where a process observes it."""
        if job.is_terminal or job.id not in self.ids:
            return {}
        known = {"watched_by": list[str]()}
        if job.status is Status.PENDING:
            return known
        seen_s = 0.0 if job.id in self.retrieved else now - _seen_at(job)
        return {**known, "last_seen_s": max(0, round(seen_s))}

    def note(self, job: Job, now: float) -> str:
        """Return how old what is shown of a job is, such as `not being watched; last seen 13 s ago`."""
        if job.is_terminal or job.id not in self.ids or job.id in self.retrieved:
            return ""
        return f"not being watched; {_age_of(job, now)}"

    def lines(self, jobs: Sequence[Job], now: float) -> Iterator[str]:
        """Yield the notes of a list of jobs: a line for those that were sent, and one for those that were not."""
        stale = [job for job in jobs if self.note(job, now)]
        unsent = [job for job in stale if job.status is Status.PENDING]
        sent = [job for job in stale if job.status is not Status.PENDING]
        for some, verb in ((sent, "collects"), (unsent, "sends")):
            if len(some) == 1:
                [job] = some
                yield f"{job.id}: {self.note(job, now)}. agent-jobs watch {job.id[:10]} {verb} it."
            elif some:
                age = _span(some, now) if some is sent else _age_of(some[0], now)
                yield f"{len(some)} jobs: not being watched; {age}. agent-jobs watch {verb} them."


async def retrieve_unwatched(session: Session, group: JobFilter) -> Unwatched:
    """Retrieve the jobs of a group that go on and that no process observes, as far as that takes a moment."""
    jobs = await session.engine.find_unobserved(group)
    if not jobs:
        return Unwatched()
    retrieved = await session.app.collect(jobs, RETRIEVE_S)
    return Unwatched(frozenset(job.id for job in jobs), frozenset(retrieved))


def _age_of(job: Job, now: float) -> str:
    if job.status is Status.PENDING:
        return "not sent yet"
    if job.turn.not_found_since is not None:
        return f"upstream has not found it for {terminal.duration(now - job.turn.not_found_since)}"
    return f"last seen {terminal.duration(now - _seen_at(job))} ago"


def _span(jobs: Sequence[Job], now: float) -> str:
    newest, *_, oldest = sorted(now - _seen_at(job) for job in jobs)
    return f"last seen {' to '.join(dict.fromkeys(map(terminal.duration, (newest, oldest))))} ago"


def _seen_at(job: Job) -> float:
    return job.turn.polled_at or job.turn.sent_at or job.created_at
