"""Refuse what would exceed a limit of all jobs or of one owner: budgets, starts in a minute, slots."""

from collections import Counter
from collections.abc import Sequence
from math import ceil

from agent_jobs.errors import BudgetError, BusyOwnerError, RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.store.database import Row, Transaction
from agent_jobs.store.records import sum_spent
from agent_jobs.store.rows import RUNNING_SQL
from agent_jobs.store.values import NO_LIMIT, Budget

_RUNNING_AND_LIMIT = f"""SELECT (SELECT COUNT(*) FROM job WHERE status IN {RUNNING_SQL}) AS running,
                                (SELECT max_concurrent FROM owner WHERE name = :owner) AS own_limit"""
_MAY_RUN = f"(status IN {RUNNING_SQL} OR status = 'pending' AND holder IS NOT NULL)"
_TAKEN = f"""SELECT (SELECT COUNT(*) FROM job WHERE {_MAY_RUN}) AS taken,
                    (SELECT COUNT(*) FROM job WHERE {_MAY_RUN} AND owner = :owner) AS own_taken,
                    (SELECT max_concurrent FROM owner WHERE name = :owner) AS own_limit"""
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


async def has_ample_slots(transaction: Transaction, owner: str, limit: int, owner_limit: int) -> bool:
    """Return True if there is a slot for each job that runs or that any process may be about to send.

    The count is right even if other changes are not committed yet. So changes that ask this need not wait for others.
    """
    rows = await transaction.execute(_TAKEN, owner=owner)
    if rows[0]["taken"] > limit:
        return False
    return not owner or rows[0]["own_taken"] <= _find_own_limit(rows[0], owner_limit)


async def has_slot(transaction: Transaction, owner: str, limit: int, owner_limit: int) -> bool:
    """Return True if one more job of this owner may run."""
    rows = await transaction.execute(_RUNNING_AND_LIMIT, owner=owner)  # one statement: all other starts wait for it
    if rows[0]["running"] >= limit:
        return False
    if not owner:
        return True
    most = _find_own_limit(rows[0], owner_limit)
    return most >= NO_LIMIT or await _count_running_of(transaction, owner) < most


def _find_own_limit(row: Row, owner_limit: int) -> int:
    """Return how many jobs of an owner may run: what is set for the owner, or for all owners."""
    if row["own_limit"] is None:
        return owner_limit
    return row["own_limit"]


async def _count_running_of(transaction: Transaction, owner: str) -> int:
    rows = await transaction.execute(
        f"SELECT COUNT(*) AS n FROM job WHERE status IN {RUNNING_SQL} AND owner = :owner", owner=owner
    )
    return rows[0]["n"]
