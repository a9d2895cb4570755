"""What is asked of the store on SQLite; none of it changes anything."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent_jobs.errors import StoreError
from agent_jobs.jobs.job import Job, Mode, Output
from agent_jobs.jobs.queries import JobFilter, JobPage, StoreInfo, WorkerInfo
from agent_jobs.jobs.response import JSON, Call
from agent_jobs.jobs.status import ACTIVE as OPEN_STATUSES
from agent_jobs.jobs.status import Status
from agent_jobs.store.base import Event, Mark, OutputFile, Tombstone, Upload
from agent_jobs.store.database import Database, damaged
from agent_jobs.store.rows import COLUMNS, OPEN, call_of, job_of, where

JOB = f"""SELECT {COLUMNS}, request.body, output.text, output.bytes FROM job
          JOIN turn ON turn.job_id = job.id AND turn.number = job.turn
          JOIN request ON request.job_id = job.id AND request.turn = job.turn
          LEFT JOIN output ON output.job_id = job.id AND output.turn = job.turn"""
_ONE_JOB = f"{JOB} WHERE job.id = :id"
#: The same without what may be large, none of which is read for it.
_HEAD = f"""SELECT {COLUMNS}, NULL, NULL,
                   (SELECT bytes FROM output INDEXED BY output_size WHERE job_id = job.id AND turn = job.turn)
            FROM job JOIN turn ON turn.job_id = job.id AND turn.number = job.turn"""
#: What the jobs of a day cost, or may cost as long as their cost may grow.
SPENT = f"""SELECT SUM(CASE WHEN status IN {OPEN} THEN MAX(COALESCE(cost_usd, 0.0), COALESCE(reserved_usd, 0.0))
                            ELSE COALESCE(cost_usd, reserved_usd, cost_before_usd, 0.0) END) AS usd
             FROM job WHERE created_at >= :since AND created_at < :since + 86400"""
#: What they cost so far; where that is not known of an ended job, what was reserved for it.
PAID = f"""SELECT SUM(CASE WHEN status IN {OPEN} THEN COALESCE(cost_usd, cost_before_usd, 0.0)
                           ELSE COALESCE(cost_usd, reserved_usd, cost_before_usd, 0.0) END) AS usd
            FROM job WHERE created_at >= :since AND created_at < :since + 86400"""

#: In the table of modes, what stands before a refused parameter in the place of a model, whose name never begins so.
REFUSED = "-"

#: Statuses in which a job goes on by itself.
UNATTENDED = OPEN_STATUSES - {Status.INPUT_REQUIRED}

#: What happened to a job that people wait for, and when: its end, or that it asks.
_NEWS = """SELECT id, finished_at AS at FROM job
           WHERE finished_at > :since AND noticed_at IS NOT finished_at
             AND (NOT unsettled OR finished_at < :settled_before)
           UNION ALL
           SELECT id, asked_at FROM job JOIN turn ON turn.job_id = job.id AND turn.number = job.turn
           WHERE status = 'input_required' AND asked_at > :since AND asked_at < :asked_before
             AND noticed_at IS NOT asked_at
           ORDER BY at LIMIT 1"""


class Questions:
    """The half of `Store` that only reads."""

    def __init__(self, db: Database, folder: Path) -> None:
        self._db = db
        self._folder = folder

    async def get(self, job_id: str) -> Job | None:
        rows = await self._db.read(_ONE_JOB, id=job_id)
        return self._job(rows[0]) if rows else None

    async def get_output(self, job_id: str) -> Output | None:
        rows = await self._db.fetch(
            "SELECT text, response FROM output WHERE job_id = :id ORDER BY turn DESC LIMIT 1", id=job_id
        )
        return Output(rows[0]["text"], json.loads(rows[0]["response"])) if rows else None

    async def find(self, group: JobFilter, limit: int) -> list[Job]:
        sql, values = _newest(group, limit)
        return [self._job(row) for row in await self._db.fetch(sql, **values)]

    async def list_jobs(self, group: JobFilter, limit: int, since: float) -> JobPage:
        sql, values = _newest(group, limit)
        async with self._db.reading():
            jobs = [self._job(row) for row in await self._db.execute(sql, **values)]
            spent = await self._db.execute(SPENT, since=since)
            return JobPage(jobs, await self._counts(group), spent[0]["usd"] or 0.0)

    async def _counts(self, group: JobFilter) -> dict[Status, int]:
        if group == JobFilter(statuses=group.statuses):
            rows = await self._db.execute("SELECT status, jobs AS n FROM tally WHERE jobs > 0")
        else:
            clauses, values = where(group)
            rows = await self._db.execute(
                # With the sign no index over the statuses is taken, which would have all jobs read.
                f"SELECT status, COUNT(*) AS n FROM job WHERE {clauses} GROUP BY +status",
                **values,
            )
        counts = {Status(row["status"]): row["n"] for row in rows}
        return {status: n for status, n in counts.items() if not group.statuses or status in group.statuses}

    async def find_ids(self, prefix: str, limit: int) -> list[str]:
        rows = await self._db.fetch(
            "SELECT id FROM job WHERE id >= :prefix AND id < :prefix || char(1114111) ORDER BY id LIMIT :limit",
            prefix=prefix,
            limit=limit,
        )
        return [row["id"] for row in rows]

    async def get_exchanges(self, job_id: str, before_turn: int | None = None) -> list[tuple[JSON, JSON]]:
        rows = await self._db.fetch(
            """WITH RECURSIVE thread (id, previous, depth) AS (
                   SELECT id, previous_job_id, 0 FROM job WHERE id = :id
                   UNION ALL
                   SELECT thread.previous, job.previous_job_id, depth + 1
                   FROM thread LEFT JOIN job ON job.id = thread.previous WHERE thread.previous IS NOT NULL)
               SELECT request.body AS request, turn.rebuilt, output.response FROM thread
               LEFT JOIN turn ON turn.job_id = thread.id
               LEFT JOIN request ON request.job_id = thread.id AND request.turn = turn.number
               LEFT JOIN output ON output.job_id = thread.id AND output.turn = turn.number
               WHERE depth > 0 OR :before IS NULL OR turn.number < :before
               ORDER BY depth, turn.number DESC""",
            id=job_id,
            before=before_turn,
        )
        exchanges: list[tuple[JSON, JSON]] = []
        for row in rows:
            if row["request"] is None or row["response"] is None:
                return []
            exchanges.insert(0, (json.loads(row["request"]), json.loads(row["response"])))
            if row["rebuilt"]:
                break  # it tells all that was said before it
        return exchanges

    async def get_uploads(self, job_id: str) -> list[Upload]:
        rows = await self._db.fetch(
            "SELECT name, data, file_id FROM upload WHERE job_id = :id ORDER BY name", id=job_id
        )
        return [Upload(**row) for row in rows]

    async def get_calls(self, job_id: str, turn: int | None = None) -> list[Call]:
        rows = await self._db.fetch(
            """SELECT id, kind, name, arguments, needs, state, output FROM call
               WHERE job_id = :id AND (:turn IS NULL OR turn = :turn) ORDER BY turn, position""",
            id=job_id,
            turn=turn,
        )
        return [call_of(row) for row in rows]

    async def get_output_files(self, job_id: str) -> list[OutputFile]:
        rows = await self._db.fetch("SELECT name, path, bytes FROM made WHERE job_id = :id ORDER BY name", id=job_id)
        return [OutputFile(**row) for row in rows]

    async def get_events(self, job_id: str) -> list[Event]:
        rows = await self._db.fetch("SELECT at, kind, text FROM event WHERE job_id = :id ORDER BY at", id=job_id)
        return [Event(row["at"], row["kind"], row["text"]) for row in rows]

    async def learned_mode(self, base_url: str, model: str, since: float) -> Mode | None:
        rows = await self._db.fetch(
            "SELECT mode FROM mode WHERE base_url = :base_url AND model = :model AND learned_at > :since",
            base_url=base_url,
            model=model,
            since=since,
        )
        return rows[0]["mode"] if rows else None

    async def refused_parameters(self, base_url: str, since: float) -> frozenset[str]:
        rows = await self._db.fetch(
            """SELECT model FROM mode WHERE base_url = :base_url AND model >= :first AND model < :after
               AND learned_at > :since""",
            base_url=base_url,
            first=REFUSED,
            after=chr(ord(REFUSED) + 1),
            since=since,
        )
        return frozenset(row["model"].removeprefix(REFUSED) for row in rows)

    async def count_unread(self, before: float) -> int:
        rows = await self._db.fetch(
            f"""SELECT COUNT(*) AS n FROM job INDEXED BY job_untold
                WHERE delivered_at IS NULL AND finished_at < :before AND status NOT IN {OPEN}""",
            before=before,
        )
        return rows[0]["n"]

    async def get_tombstone(self, job_id: str) -> Tombstone | None:
        rows = await self._db.fetch("SELECT status, finished_at FROM tombstone WHERE job_id = :id", id=job_id)
        return Tombstone(rows[0]["status"], rows[0]["finished_at"]) if rows else None

    async def count_ahead(self, job: Job) -> int:
        rows = await self._db.fetch(
            """SELECT COUNT(*) AS n FROM job WHERE status = 'pending'
               AND (priority > :priority OR priority = :priority AND created_at < :created_at)""",
            priority=job.priority,
            created_at=job.created_at,
        )
        return rows[0]["n"]

    async def pending_notification(
        self, since: float, *, settled_before: float, asked_before: float
    ) -> tuple[str, float] | None:
        rows = await self._db.fetch(_NEWS, since=since, settled_before=settled_before, asked_before=asked_before)
        return (rows[0]["id"], rows[0]["at"]) if rows else None

    async def store_info(self) -> StoreInfo:
        schema = (await self._db.fetch("PRAGMA user_version"))[0][0]
        journal = (await self._db.fetch("PRAGMA journal_mode"))[0][0]
        watchers = tuple(
            WorkerInfo(int(name.partition("-")[0]), str(said.get("what")), str(said.get("base_url")))
            for name, said in self._db.others().items()
        )
        return StoreInfo(str(self._db.path), schema, journal, self._db.size_bytes(), watchers)

    async def find_unobserved(self, group: JobFilter, limit: int) -> list[Job]:
        clauses, values = where(replace(group, statuses=UNATTENDED, active=False))
        watched = {str(said.get("base_url")) for said in self._db.others().values()}
        rows = await self._db.fetch(
            f"""SELECT job.id, job.holder FROM job JOIN turn ON turn.job_id = job.id AND turn.number = job.turn
                WHERE {clauses} AND turn.base_url NOT IN (SELECT value FROM json_each(:watched))
                ORDER BY job.created_at DESC, job.id LIMIT :limit""",
            **values,
            watched=json.dumps(sorted(watched)),
            limit=limit,
        )
        dead = {holder: self._db.holder.dead(holder) for holder in {row["holder"] for row in rows} - {None}}
        left = [row["id"] for row in rows if row["holder"] is None or dead[row["holder"]]]
        if not left:
            return []
        jobs = await self._db.fetch(f"{JOB} WHERE job.id IN (SELECT value FROM json_each(:ids))", ids=json.dumps(left))
        found = {job.id: job for job in map(self._job, jobs)}
        return [found[job_id] for job_id in left if job_id in found]

    async def wait_for_change(self, job_id: str, revision: int) -> None:
        await self._db.changed(job_id, revision)

    async def change_mark(self) -> Mark:
        return await self._db.mark()

    async def wait_for_any_change(self, mark: Mark) -> None:
        await self._db.moved(mark)

    def _job(self, row: sqlite3.Row) -> Job:
        try:
            return job_of(row)
        except (ValueError, TypeError) as error:  # SQLite checks the shape of a page, not what stands in it
            raise StoreError(f"{damaged(self._folder)} ({error})") from error


def _newest(group: JobFilter, limit: int) -> tuple[str, dict[str, Any]]:
    clauses, values = where(group)
    order = "ORDER BY job.created_at DESC, job.id LIMIT :limit"
    return f"{_HEAD} WHERE {clauses} {order}", {**values, "limit": limit}
