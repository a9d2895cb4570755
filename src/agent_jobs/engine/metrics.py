"""Count the work of this process for the metrics of a team server."""

from dataclasses import dataclass, field
from typing import NamedTuple

from agent_jobs.store.team_records import StoreMetrics

#: Challenges for one owner in a minute: an allowed host must not be flooded with them.
CHALLENGES_A_MINUTE = 10
MINUTE_S = 60.0


class ChallengeLimit:
    """Counts the challenges that were sent for each owner in the current minute."""

    def __init__(self) -> None:
        self._minute = 0
        self._sent: dict[str, int] = {}

    def admit(self, owner: str, now: float) -> bool:
        """Count a challenge; return False if the owner has had too many."""
        minute = int(now / MINUTE_S)
        if minute != self._minute:
            self._minute, self._sent = minute, {}
        self._sent[owner] = self._sent.get(owner, 0) + 1
        return self._sent[owner] <= CHALLENGES_A_MINUTE


@dataclass(slots=True)
class ProcessCounters:
    """The counts of one process."""

    starts: int = 0  #: jobs that were started
    polls: int = 0  #: calls that asked for a job
    challenges: ChallengeLimit = field(default_factory=ChallengeLimit)


class EngineMetrics(NamedTuple):
    """The metrics of an engine."""

    stored: StoreMetrics  #: of all processes on the database
    starts: int
    polls: int
    waits: int
    waits_open: int
    retrievals: int
    webhook_age_s: float | None  #: since the last webhook; None without webhooks
    lateness_s: float  #: of the most overdue step
