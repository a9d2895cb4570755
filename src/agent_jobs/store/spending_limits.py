"""Refuses what would exceed a limit of all jobs or of one owner: budgets, starts in a minute, slots."""

from collections import Counter
from collections.abc import Sequence
from math import ceil

from agent_jobs.errors import BudgetError, BusyOwnerError, RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.store.base import NO_LIMIT, Budget
from agent_jobs.store.database import Transaction
from agent_jobs.store.records import sum_spent
from agent_jobs.store.rows import RUNNING_SQL

MINUTE_S = 60.0
DAY_S = 86_400.0


async def check_budgets(transaction: Transaction, budgets: Sequence[Budget]) -> None:
    """Refuse the change if more may be spent with it than one of the budgets allows."""
    for budget in budgets:
        if budget.spent:
            await _check_spent(transaction, budget)
        else:
            await _check_bound(transaction, budget)


async def _check_spent(transaction: Transaction, budget: Budget) -> None:
    spent_usd = await sum_spent(transaction, budget.since, budget.owner, only_paid=True)
    if spent_usd < budget.usd:
        return
    problem = "The day's budget of {budget_usd:g} USD is spent ({spent_usd:.2f} USD)."
    facts = {"budget_usd": budget.usd, "spent_usd": spent_usd, "ends_at": budget.since + DAY_S}
    if budget.owner is None:
        raise BudgetError(problem, "budget_spent", **facts)
    raise BudgetError(problem, "owner_budget_spent", **facts)


async def _check_bound(transaction: Transaction, budget: Budget) -> None:
    bound_usd = await sum_spent(transaction, budget.since, budget.owner)
    if bound_usd <= budget.usd:
        return
    problem = (
        "The day's budget of {budget_usd:g} USD does not allow it: with this, up to {bound_usd:.2f} USD would be "
        "spent{parts}."
    )
    facts: dict[str, object] = {"budget_usd": budget.usd, "bound_usd": bound_usd, "ends_at": budget.since + DAY_S}
    facts["parts"] = f" (a job: {budget.parts})" if budget.parts else ""
    if budget.owner is None:
        raise BudgetError(problem, "budget_too_small", **facts)
    raise BudgetError(problem, "owner_budget_too_small", **facts)


async def check_start_rate(transaction: Transaction, added: Sequence[Job], limit: int | None) -> None:
    """Refuse new jobs, which are written already, if their owner started more than the limit within a minute.

    Raises:
        BusyOwnerError: With the seconds until they may be started.
        RequestError: They are more than the limit by themselves.
    """
    if limit is None:
        return
    for owner, count in Counter(job.owner for job in added).items():
        now = max(job.created_at for job in added)
        times = await _read_start_times(transaction, owner, now - MINUTE_S)
        excess = len(times) - limit
        if excess <= 0:
            continue
        if count > limit:
            raise RequestError("At most {limit} jobs may be started within a minute.", "too_many_prompts", limit=limit)
        # There is room for the new ones once as many of the others are a minute old.
        raise BusyOwnerError(
            "More than {limit} jobs would be started within a minute.",
            "too_many_starts",
            limit=limit,
            seconds=max(1, ceil(times[excess - 1] + MINUTE_S - now)),
        )


async def _read_start_times(transaction: Transaction, owner: str, since: float) -> list[float]:
    """Return when the owner's jobs were started after this time, deleted ones included, oldest first."""
    rows = await transaction.execute(
        """SELECT created_at FROM job WHERE owner = :owner AND owner <> '' AND created_at > :since
           UNION ALL
           SELECT created_at FROM tombstone WHERE owner = :owner AND created_at > :since
           ORDER BY created_at""",
        owner=owner,
        since=since,
    )
    return [row["created_at"] for row in rows]


async def has_slot(transaction: Transaction, owner: str, limit: int, owner_limit: int) -> bool:
    """Return True if one more job of this owner may run."""
    if limit < NO_LIMIT and await _count_running(transaction) >= limit:
        return False
    if not owner:
        return True
    rows = await transaction.execute("SELECT max_concurrent FROM owner WHERE name = :owner", owner=owner)
    own_limits = [row["max_concurrent"] for row in rows if row["max_concurrent"] is not None]
    most = next(iter(own_limits), owner_limit)
    return most >= NO_LIMIT or await _count_running_of(transaction, owner) < most


async def _count_running(transaction: Transaction) -> int:
    rows = await transaction.execute(f"SELECT COUNT(*) AS n FROM job WHERE status IN {RUNNING_SQL}")
    return rows[0]["n"]


async def _count_running_of(transaction: Transaction, owner: str) -> int:
    rows = await transaction.execute(
        f"SELECT COUNT(*) AS n FROM job WHERE status IN {RUNNING_SQL} AND owner = :owner", owner=owner
    )
    return rows[0]["n"]
