"""Say what becomes of jobs when a command stops watching them."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.status import TERMINAL, Status


class Fate(NamedTuple):
    """The sentences for what becomes of jobs."""

    one: str  #: of a single job
    all: str  #: of several jobs that share it
    some: str  #: of a part of several jobs


#: By its order the sentences of several fates follow each other.
FATES = {
    "running": Fate(
        "It is still running at the provider.",
        "They are still running at the provider.",
        "Still running at the provider: {count}.",
    ),
    "unconfirmed": Fate(
        "It may be running and billed: the provider has not confirmed it yet.",
        "They may be running and billed: the provider has not confirmed them yet.",
        "Not confirmed by the provider yet, may be running and billed: {count}.",
    ),
    "held_here": Fate(
        "It stops with this process.",
        "They stop with this process.",
        "Stopping with this process: {count}.",
    ),
    "held_elsewhere": Fate(
        "It stops with the process that sent it.",
        "They stop with the processes that sent them.",
        "Stopping with the process that sent them: {count}.",
    ),
    "unsent": Fate(
        "It has not been sent yet.",
        "They have not been sent yet.",
        "Not sent yet: {count}.",
    ),
    "finished": Fate(
        "It has finished.",
        "They have finished.",
        "Finished: {count}.",
    ),
}


#: The key in `FATES` by the status of a job that no process holds open; any other status means running.
FATES_BY_STATUS = {
    Status.PENDING: "unsent",
    Status.STARTING: "unconfirmed",
    **dict.fromkeys(TERMINAL, "finished"),
}


def format_resume_hint(*job_ids: str) -> str:
    """Return the sentence with the command that watches these jobs again, or all jobs."""
    names = " ".join(job_ids) or "--all"
    return f"Resume with: agent-jobs watch {names}"


def describe_detached(jobs: Sequence[Job], resume: str, *, sent_here: bool = False) -> str:
    """Return what happens to jobs when this process stops, and how to resume watching them.

    Args:
        jobs: The jobs that the command watched.
        resume: The sentence with the command that resumes watching them.
        sent_here: True if this process sent the jobs itself.
    """
    active = [job for job in jobs if not job.is_terminal] or jobs
    counts = Counter(_find_fate(job, sent_here=sent_here) for job in active)
    sentences = [_describe_stop(active), *_describe_fates(counts)]
    if "held_here" not in counts:
        sentences.append(resume)
    return " ".join(sentences)


def _find_fate(job: Job, *, sent_here: bool) -> str:
    """Return the key in `FATES` of what becomes of a job."""
    if not job.is_held_open:
        return FATES_BY_STATUS.get(job.status, "running")
    if sent_here:
        return "held_here"
    return "held_elsewhere"


def _describe_stop(jobs: Sequence[Job]) -> str:
    match jobs:
        case [job]:
            return f"Stopped watching {job.id}."
        case _:
            return f"Stopped watching {len(jobs)} jobs."


def _describe_fates(counts: Counter[str]) -> list[str]:
    match list(counts.items()):
        case [(fate, 1)]:
            return [FATES[fate].one]
        case [(fate, _)]:
            return [FATES[fate].all]
        case _:
            return [sentences.some.format(count=counts[fate]) for fate, sentences in FATES.items() if counts[fate]]
