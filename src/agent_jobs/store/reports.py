"""Sums up what jobs cost, and reads what they were asked with."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

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
}
#: True of a finished job that upstream ran, or may have run.
_RAN = f"""status NOT IN {ACTIVE_SQL}
           AND (usage IS NOT NULL OR error_code = 'start_unconfirmed' OR EXISTS (
               SELECT 1 FROM turn WHERE job_id = job.id AND response_id IS NOT NULL))"""

#: What was spent on each job, deleted ones included: those count as they do in the budget of their day.
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

    async def sum_spending(self, key: SpendingKey, group: JobFilter) -> list[Spending]:
        clauses, values = build_where(self._scope.restrict(group))
        order = "cost_usd DESC, jobs DESC, name"
        if key == "day":
            order = "name DESC"
        rows = await self._db.fetch(
            f"""SELECT {_GROUPED_BY[key]} AS name, COUNT(*) AS jobs,
                       SUM(CASE WHEN status IN {ACTIVE_SQL} THEN 1 ELSE 0 END) AS active,
                       SUM(COALESCE(json_extract(usage, '$.input_tokens'), 0)) AS input_tokens,
                       SUM(COALESCE(json_extract(usage, '$.output_tokens'), 0)) AS output_tokens,
                       SUM(CASE WHEN COALESCE(json_extract(usage, '$.partial'), 1) = 0 THEN 0
                                ELSE ran END) AS uncounted,
                       SUM(COALESCE(cost_usd, 0.0)) AS cost_usd,
                       SUM(CASE WHEN cost_usd IS NOT NULL THEN 0 ELSE ran END) AS unpriced
                FROM ({_SPENDING}) AS job WHERE {clauses} GROUP BY 1 ORDER BY {order}""",
            **values,
        )
        return [Spending(_format_name(row["name"], key), *row[1:]) for row in rows]

    async def has_conversation(self, conversation_id: str) -> bool:
        # The text finds candidates; it may also stand in metadata, which callers choose.
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


def _format_name(name: str | int, key: SpendingKey) -> str:
    if key != "day":
        return str(name)
    return datetime.fromtimestamp(int(name) * DAY_S, UTC).date().isoformat()
