"""Sum up what jobs cost, and read what they were asked with."""

import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agent_jobs.jobs.queries import JobFilter, Spending, SpendingKey
from agent_jobs.jobs.response import JSON
from agent_jobs.store.database import StorePart, Transaction
from agent_jobs.store.records import DAY_S, sum_spent
from agent_jobs.store.rows import ACTIVE_SQL, build_where, compact_json, escape_like

#: The column or value that jobs are grouped by.
_GROUPED_BY: Mapping[SpendingKey, str] = {
    "day": "CAST(/*! floor */ (created_at / 86400) AS INTEGER)",
    "model": "model",
    "preset": "preset",
    "client": "client",
    "owner": "owner",
}
#: True of a finished job that upstream ran, or may have run.
_RAN = f"""status NOT IN {ACTIVE_SQL}
           AND (usage IS NOT NULL OR error_code = 'start_unconfirmed' OR EXISTS (
               SELECT 1 FROM turn WHERE job_id = job.id AND response_id IS NOT NULL))"""

#: The amount spent on each job, including deleted ones, which count as in the budget of their day.
_SPENDING = f"""SELECT id, owner, title, batch, status, created_at, model, preset, client, previous_job_id, usage,
                       cost_usd, CASE WHEN {_RAN} THEN 1 ELSE 0 END AS ran
                FROM job
                UNION ALL
                SELECT job_id, owner, '', '', status, created_at, model, preset, client, NULL, usage,
                       cost_usd, CASE WHEN cost_usd > 0 THEN 1 ELSE 0 END
                FROM tombstone WHERE created_at IS NOT NULL"""


class Reports(StorePart):
    """`ReportRecords` on any database."""

    async def get_first_request(self, job_id: str) -> JSON:
        rows = await self._db.fetch(
            f"SELECT body FROM request WHERE job_id = :id AND {self._scope.part} ORDER BY turn LIMIT 1",
            id=job_id,
            **self._scope.values,
        )
        if rows:
            return json.loads(rows[0]["body"])
        return {}

    async def sum_spending(self, keys: Sequence[SpendingKey], group: JobFilter) -> dict[SpendingKey, list[Spending]]:
        clauses, values = build_where(self._scope.restrict(group))
        names = ", ".join(f"{_GROUPED_BY[key]} AS {key}_name" for key in keys)
        rows = await self._db.fetch(
            f"""SELECT {names}, COUNT(*) AS jobs,
                       SUM(CASE WHEN status IN {ACTIVE_SQL} THEN 1 ELSE 0 END) AS active,
                       SUM(COALESCE(json_extract(usage, '$.input_tokens'), 0)) AS input_tokens,
                       SUM(COALESCE(json_extract(usage, '$.output_tokens'), 0)) AS output_tokens,
                       SUM(CASE WHEN COALESCE(json_extract(usage, '$.partial'), 1) = 0 THEN 0
                                ELSE ran END) AS uncounted,
                       SUM(COALESCE(cost_usd, 0.0)) AS cost_usd,
                       SUM(CASE WHEN cost_usd IS NOT NULL THEN 0 ELSE ran END) AS unpriced
                FROM ({_SPENDING}) AS job WHERE {clauses}
                GROUP BY {", ".join(f"{key}_name" for key in keys)}""",
            **values,
        )
        return {
            key: _sum_rows([(row[column], row[len(keys) :]) for row in rows], key) for column, key in enumerate(keys)
        }

    async def has_conversation(self, conversation_id: str) -> bool:
        # The text finds candidates; metadata, which callers choose, may contain it, too.
        rows = await self._db.fetch(
            f"""SELECT body FROM request JOIN job ON job.id = request.job_id
                WHERE {self._scope.job} AND body LIKE :pattern ESCAPE '\\'""",
            pattern=f"%{escape_like(compact_json({'conversation': conversation_id})[1:-1])}%",
            **self._scope.values,
        )
        return any(json.loads(row["body"]).get("conversation") == conversation_id for row in rows)

    async def sum_day(self, since: float, *, spent: bool) -> float:
        async def sum_up(transaction: Transaction) -> float:
            return await sum_spent(transaction, since, self._scope.owner, only_paid=spent)

        return await self._db.query(sum_up)


def _sum_rows(rows: Iterable[tuple[str | int, Sequence[Any]]], key: SpendingKey) -> list[Spending]:
    """Return the sums of the rows with the same name; the figures of a row are in the order of `Spending`."""
    sums: dict[str | int, Sequence[Any]] = {}
    for name, figures in rows:
        known = sums.get(name, (0,) * len(figures))
        sums[name] = tuple(map(operator.add, known, figures))
    spending = [Spending(_format_name(name, key), *figures) for name, figures in sums.items()]
    if key == "day":
        return sorted(spending, key=lambda each: each.name, reverse=True)
    return sorted(spending, key=lambda each: (-each.cost_usd, -each.jobs, each.name))


def _format_name(name: str | int, key: SpendingKey) -> str:
    if key != "day":
        return str(name)
    return datetime.fromtimestamp(int(name) * DAY_S, UTC).date().isoformat()
