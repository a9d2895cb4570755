"""Several jobs at once: which are meant, and how they stand. Pure."""

from dataclasses import dataclass

from agent_jobs.job import Job, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Which jobs are asked about together: these, those of a batch, those in which something goes on, or all."""

    job_ids: tuple[str, ...] = ()
    batch: str = ""
    statuses: frozenset[Status] = frozenset()
    words: str = ""  #: in the title
    since: float = 0.0  #: started, or ended where `active`, no earlier
    active: bool = False  #: open, or ended and handed to nobody yet


@dataclass(frozen=True, slots=True)
class Gathered:
    """How the jobs of a group stand; none with its output."""

    done: list[Job]  #: over, or waiting for an answer, and handed to nobody yet; what ended first comes first
    running: list[Job]
    delivered: int  #: how many were handed out before


@dataclass(frozen=True, slots=True)
class Listed:
    """Some jobs, newest first and without their outputs, with what is known of all that were asked for."""

    jobs: list[Job]
    counts: dict[Status, int]
    today_usd: float
