"""Find the settings and the limits of an owner, and the budgets to which a job counts."""

from agent_jobs.jobs.owners import UNLIMITED, Owner, OwnerLimits
from agent_jobs.pricing.prices import find_day_start
from agent_jobs.store.base import Store
from agent_jobs.store.values import Budget


async def find_owner(store: Store, name: str) -> Owner:
    """Return the settings that an operator stored for an owner, or empty settings."""
    return await store.get_owner(name) or Owner(name)


async def find_limits(store: Store, owner: str, default: OwnerLimits) -> OwnerLimits:
    """Return the limits of an owner, or else of all owners; a single user has no such limits."""
    if not owner:
        return UNLIMITED
    found = await find_owner(store, owner)
    return found.limits.with_defaults(default)


def list_budgets(
    day_usd: float | None, limits: OwnerLimits, owner: str, started_at: float, *, spent: bool, parts: str = ""
) -> list[Budget]:
    """Return the daily budgets to which a job counts: the one of all jobs, and the one of its owner.

    Args:
        day_usd: For the jobs of all owners together; None if there is no such budget.
        limits: Of the owner.
        owner: Whose job it is.
        started_at: When the job was started: its later turns count to the same day.
        spent: True if only spent money counts.
        parts: How the bound of a new job is made up.
    """
    since = find_day_start(started_at)
    most_usd_of = ((owner, limits.daily_budget_usd), (None, day_usd))
    return [Budget(usd, since, spent, parts, whose) for whose, usd in most_usd_of if usd is not None]
