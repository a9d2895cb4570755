"""The limits that the user set for runs."""

from dataclasses import dataclass

from agent_jobs.jobs.job import Mode
from agent_jobs.jobs.owners import UNLIMITED, OwnerLimits
from agent_jobs.store.values import NO_LIMIT

PENDING_MAX_S = 7 * 86_400.0  # the caller does not expect work that could not be sent for a week


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """Limits on running jobs.

    Args:
        streams: Streams that this process reads at once.
        concurrent: Runs upstream at once, over all processes on the database.
        job_timeout_s: Seconds from the first byte of a job's first POST until it is ended. All turns and calls count,
            time in `input_required` does not.
        input_timeout_s: Seconds until an unanswered question fails its job.
        turns: Upstream runs of one job.
        budget_usd: The most that the jobs of one day (UTC) may cost; a job counts to the day on which it was started.
        owner: The limits of an owner, where none were set for the owner.
        budget_spent: True if only finished jobs count to the budget, without reservations for running ones.
        resubmit: Repeat a POST once if it is unknown whether upstream accepted it. May cost twice.
        expects_webhooks: True if the provider's webhooks reach a server on this database.
        mode: Delivery mode for every request; None lets each endpoint's answers decide.
    """

    streams: int = 200
    concurrent: int = 10
    job_timeout_s: float = 10_800.0
    input_timeout_s: float = 7 * 86_400.0
    turns: int = 20
    budget_usd: float | None = None
    owner: OwnerLimits = UNLIMITED
    budget_spent: bool = False
    resubmit: bool = False
    expects_webhooks: bool = False
    mode: Mode | None = None

    @property
    def owner_concurrent(self) -> int:
        """Return how many jobs of an owner run at once, where nothing was set for the owner."""
        if self.owner.max_concurrent is None:
            return NO_LIMIT
        return self.owner.max_concurrent
