"""Counts what this process did since it began, for the operator of a team server."""

from dataclasses import dataclass
from typing import NamedTuple

from agent_jobs.store.team_records import StoreFigures


@dataclass(slots=True)
class Activity:
    """The counts of one process."""

    starts: int = 0  #: jobs that were started
    polls: int = 0  #: calls that asked for a job


class Figures(NamedTuple):
    """What an operator watches."""

    stored: StoreFigures  #: of all processes on the database
    starts: int
    polls: int
    waits: int
    waits_open: int
    retrievals: int
    webhook_age_s: float | None  #: since the last webhook; None without webhooks
    lateness_s: float  #: of the step that is overdue for the longest
