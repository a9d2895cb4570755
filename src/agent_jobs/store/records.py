"""Read jobs and what belongs to them."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from agent_jobs.errors import StoreError
from agent_jobs.jobs.job import Job, Output
from agent_jobs.jobs.queries import (
    NEWEST_FIRST,
    JobFilter,
    JobOrder,
    JobPage,
    OutputFile,
    StoreInfo,
    TurnRecord,
)
from agent_jobs.jobs.response import JSON, Call
from agent_jobs.jobs.response_steps import Step
from agent_jobs.jobs.status import ACTIVE, Status
from agent_jobs.store.database import Row, StorePart, Transaction
from agent_jobs.store.owner_scope import OwnerScope
from agent_jobs.store.rows import ACTIVE_SQL, COLUMNS, build_order_by, build_where, call_of, job_of, turn_record_of
from agent_jobs.store.values import Tombstone, Upload

DAY_S = 86_400.0
JOB = f"""SELECT {COLUMNS}, request.body, output.text, output.bytes FROM job
          JOIN turn ON turn.job_id = job.id AND turn.number = job.turn
          JOIN request ON request.job_id = job.id AND request.turn = job.turn
          LEFT JOIN output ON output.job_id = job.id AND output.turn = job.turn"""
ONE_JOB = f"{JOB} WHERE job.id = :id"
#: One job without its request, which is often as long as its output.
ONE_JOB_WITHOUT_REQUEST = f"""SELECT {COLUMNS}, NULL, output.text, output.bytes FROM job
                              JOIN turn ON turn.job_id = job.id AND turn.number = job.turn
                              LEFT JOIN output ON output.job_id = job.id AND output.turn = job.turn
                              WHERE job.id = :id"""
#: Jobs without the large columns, which are then not read.
JOB_WITHOUT_TEXTS = f"""SELECT {COLUMNS}, NULL, NULL,
                                (SELECT bytes FROM output INDEXED BY output_size
                                 WHERE job_id = job.id AND turn = job.turn)
                         FROM job JOIN turn ON turn.job_id = job.id AND turn.number = job.turn"""
#: One job without its request and output, for a change that needs neither.
ONE_JOB_WITHOUT_TEXTS = f"""SELECT {COLUMNS}, NULL, NULL, NULL FROM job
                            JOIN turn ON turn.job_id = job.id AND turn.number = job.turn WHERE job.id = :id"""
#: Cost in USD of an ended job; one of unknown cost counts with its reservation.
ENDED_USD = "COALESCE(cost_usd, reserved_usd, cost_before_usd, 0.0)"
_OF_DAY = "created_at >= :since AND created_at < :since + :day_s"
#: The cost of a job in USD; for an active job, its highest cost.
_BOUND_USD = f"""CASE WHEN status NOT IN {ACTIVE_SQL} THEN {ENDED_USD}
                      WHEN COALESCE(cost_usd, 0.0) > COALESCE(reserved_usd, 0.0) THEN cost_usd
                      ELSE COALESCE(reserved_usd, 0.0) END"""
#: The same with the amount spent so far.
_PAID_USD = f"""CASE WHEN status IN {ACTIVE_SQL} THEN COALESCE(cost_usd, cost_before_usd, 0.0)
                     ELSE {ENDED_USD} END"""

#: Statuses in which a job continues without the user.
_UNATTENDED = ACTIVE - {Status.INPUT_REQUIRED}


@lru_cache
def _select_one_job(statement: str, condition: str) -> str:
    """Return the statement that reads a job on this condition: the same text each time, whose hash is known."""
    return f"{statement} AND {condition}"


class Records(StorePart):
    """`JobRecords` on any database."""

    async def get(self, job_id: str, *, has_request: bool = True) -> Job | None:
        statement = ONE_JOB if has_request else ONE_JOB_WITHOUT_REQUEST
        rows = await self._db.read(_select_one_job(statement, self._scope.job), id=job_id, **self._scope.values)
        return next(map(self._read_row, rows), None)

    async def get_output(self, job_id: str) -> Output | None:
        rows = await self._fetch_of_job("SELECT text, response FROM output", job_id, "ORDER BY turn DESC LIMIT 1")
        if rows:
            return Output(rows[0]["text"], json.loads(rows[0]["response"]))
        return None

    async def find(self, group: JobFilter, limit: int) -> list[Job]:
        sql, values = _newest_jobs(self._scope.restrict(group), limit)
        return list(map(self._read_row, await self._db.fetch(sql, **values)))

    async def list_jobs(self, group: JobFilter, limit: int, since: float, order: JobOrder = NEWEST_FIRST) -> JobPage:
        group = self._scope.restrict(group)

        async def read_page(transaction: Transaction) -> tuple[Sequence[Row], float, dict[Status, int]]:
            sql, values = _first_jobs(group, limit, order)
            rows = await transaction.execute(sql, **values)
            spent = await sum_spent(transaction, since, group.owner)
            return rows, spent, await _count_by_status(transaction, group)

        rows, spent_usd, counts = await self._db.query(read_page)
        return JobPage(list(map(self._read_row, rows)), counts, spent_usd)

    async def find_ids(self, prefix: str, limit: int) -> list[str]:
        rows = await self._db.fetch(
            f"""SELECT id FROM job WHERE id >= :prefix AND id < :after AND {self._scope.job}
                ORDER BY id LIMIT :limit""",
            **self._scope.values,
            prefix=prefix,
            after=prefix + chr(sys.maxunicode),
            limit=limit,
        )
        return [row["id"] for row in rows]

    async def get_exchanges(self, job_id: str, before_turn: int | None = None) -> list[tuple[JSON, JSON]]:
        rows = await self._db.fetch(
            f"""WITH RECURSIVE thread (id, previous, depth) AS (
                   SELECT id, previous_job_id, 0 FROM job WHERE id = :id AND {self._scope.job}
                   UNION ALL
                   SELECT thread.previous, job.previous_job_id, depth + 1
                   FROM thread LEFT JOIN job ON job.id = thread.previous AND {self._scope.job}
                   WHERE thread.previous IS NOT NULL)
               SELECT request.body AS request, turn.rebuilt, output.response FROM thread
               LEFT JOIN turn ON turn.job_id = thread.id
               LEFT JOIN request ON request.job_id = thread.id AND request.turn = turn.number
               LEFT JOIN output ON output.job_id = thread.id AND output.turn = turn.number
               WHERE depth > 0 OR :before IS NULL OR turn.number < :before
               ORDER BY depth, turn.number DESC""",
            id=job_id,
            before=before_turn,
            **self._scope.values,
        )
        exchanges: list[tuple[JSON, JSON]] = []
        for row in rows:
            if row["request"] is None or row["response"] is None:
                return []
            exchanges.insert(0, (json.loads(row["request"]), json.loads(row["response"])))
            if row["rebuilt"]:
                break  # it repeats the whole conversation before it
        return exchanges

    async def get_prompt(self, job_id: str) -> str:
        rows = await self._fetch_of_job("SELECT text FROM prompt", job_id)
        if rows:
            return rows[0]["text"]
        return ""

    async def get_turns(self, job_id: str) -> list[TurnRecord]:
        rows = await self._fetch_of_job(
            "SELECT number, mode, sent_at, response_id, usage, cost_usd FROM turn", job_id, "ORDER BY number"
        )
        return list(map(turn_record_of, rows))

    async def get_steps(self, job_id: str) -> list[Step]:
        rows = await self._fetch_of_job(
            "SELECT turn, position, kind, name, detail, error, seen_at, finished_at FROM step",
            job_id,
            "ORDER BY turn, position",
        )
        return [Step(**row) for row in rows]

    async def get_uploads(self, job_id: str) -> list[Upload]:
        rows = await self._fetch_of_job("SELECT name, data, file_id FROM upload", job_id, "ORDER BY name")
        return [Upload(**row) for row in rows]

    async def get_calls(self, job_id: str, turn: int | None = None) -> list[Call]:
        rows = await self._fetch_of_job(
            "SELECT id, kind, name, arguments, needs, state, output, started_at, finished_at FROM call",
            job_id,
            "AND (:turn IS NULL OR turn = :turn) ORDER BY turn, position",
            turn=turn,
        )
        return list(map(call_of, rows))

    async def get_output_files(self, job_id: str) -> list[OutputFile]:
        rows = await self._fetch_of_job("SELECT name, path, bytes FROM made", job_id, "ORDER BY name")
        return [OutputFile(**row) for row in rows]

    async def get_tombstone(self, job_id: str) -> Tombstone | None:
        rows = await self._db.fetch(
            f"SELECT status, finished_at FROM tombstone WHERE job_id = :id AND {self._scope.condition('tombstone')}",
            id=job_id,
            **self._scope.values,
        )
        if rows:
            return Tombstone(rows[0]["status"], rows[0]["finished_at"])
        return None

    async def store_info(self) -> StoreInfo:
        return await self._db.store_info()

    async def find_unobserved(self, group: JobFilter, limit: int) -> list[Job]:
        clauses, values = build_where(replace(self._scope.restrict(group), statuses=_UNATTENDED, active=False))
        workers = await self._db.other_workers()
        watched = {str(announced.get("base_url")) for announced in workers.values()}
        rows = await self._db.fetch(
            f"""SELECT job.id, job.holder FROM job JOIN turn ON turn.job_id = job.id AND turn.number = job.turn
                WHERE {clauses} AND turn.base_url NOT IN (:*watched)
                ORDER BY job.created_at DESC, job.id LIMIT :limit""",
            **values,
            watched=sorted(watched),
            limit=limit,
        )
        unobserved = [row["id"] for row in await self._find_unclaimed(rows)]
        if not unobserved:
            return []
        found = await self._db.fetch(f"{JOB_WITHOUT_TEXTS} WHERE job.id IN (:*ids)", ids=unobserved)
        jobs = {job.id: job for job in map(self._read_row, found)}
        return [jobs[job_id] for job_id in unobserved if job_id in jobs]

    def _read_row(self, row: Row) -> Job:
        return read_job(row, self._db.damage_error)

    async def _fetch_of_job(self, select: str, job_id: str, rest: str = "", **values: Any) -> Sequence[Row]:
        """Return the rows of a job in another table than its own, by the beginning and the end of the query."""
        return await self._db.fetch(
            f"{select} WHERE job_id = :id AND {self._scope.part} {rest}", id=job_id, **values, **self._scope.values
        )

    async def _find_unclaimed(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows of jobs that no living process has claimed."""
        workers = {row["holder"] for row in rows} - {None}
        dead = await self._db.find_dead_workers(workers)
        return [row for row in rows if row["holder"] is None or row["holder"] in dead]


async def sum_spent(
    transaction: Transaction, since: float, owner: str | None = None, *, only_paid: bool = False
) -> float:
    """Return the cost in USD of the jobs of the day from `since` on; of deleted ones, too: what was spent stays spent.

    An active job counts with its highest cost or, with `only_paid`, with its cost so far.
    """
    scope = OwnerScope(owner)
    usd = _PAID_USD if only_paid else _BOUND_USD
    rows = await transaction.execute(
        f"""SELECT COALESCE((SELECT SUM({usd}) FROM job WHERE {_OF_DAY} AND {scope.job}), 0.0)
                   + COALESCE((SELECT SUM(cost_usd) FROM tombstone
                               WHERE {_OF_DAY} AND {scope.condition("tombstone")}), 0.0) AS usd""",
        since=since,
        day_s=DAY_S,
        **scope.values,
    )
    return rows[0]["usd"]


def read_job(row: Row, damage_error: Callable[[Exception], StoreError]) -> Job:
    """Return the job in a row.

    Raises:
        StoreError: The row is unreadable. SQLite checks the structure of a page, not its values.
    """
    try:
        return job_of(row)
    except (ValueError, TypeError) as error:
        raise damage_error(error) from error


async def _count_by_status(transaction: Transaction, group: JobFilter) -> dict[Status, int]:
    if group == JobFilter(statuses=group.statuses):
        rows = await transaction.execute("SELECT status, jobs AS n FROM tally WHERE jobs > 0")
    else:
        clauses, values = build_where(group)
        # The other form keeps SQLite from an index over the statuses, with which it would read all jobs.
        rows = await transaction.execute(
            f"""SELECT status || '' AS status, COUNT(*) AS n FROM job WHERE {clauses} GROUP BY status || ''""", **values
        )
    counts = {Status(row["status"]): row["n"] for row in rows}
    wanted = group.statuses or Status
    return {status: counts[status] for status in Status if status in counts and status in wanted}


def _first_jobs(group: JobFilter, limit: int, order: JobOrder) -> tuple[str, dict[str, Any]]:
    """Return the query for the first jobs in an order; the turns are read of these alone."""
    if order.key == "created":
        return _newest_jobs(group, limit)
    clauses, values = build_where(group)
    sorting = build_order_by(order.key)
    ids = f"SELECT id FROM job WHERE {clauses} {sorting} LIMIT :limit"
    return f"{JOB_WITHOUT_TEXTS} WHERE job.id IN ({ids}) {sorting}", {**values, "limit": limit, "now": order.now}


def _newest_jobs(group: JobFilter, limit: int) -> tuple[str, dict[str, Any]]:
    clauses, values = build_where(group)
    order = "ORDER BY job.created_at DESC, job.id LIMIT :limit"
    return f"{JOB_WITHOUT_TEXTS} WHERE {clauses} {order}", {**values, "limit": limit}
