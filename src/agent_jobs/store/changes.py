"""Waits for changes of jobs, and keeps what happened to them for the user and for notifications."""

import json
from collections.abc import Sequence

import anyio
import anyio.lowlevel

from agent_jobs.jobs.queries import Event
from agent_jobs.store.base import Mark
from agent_jobs.store.database import Database, Transaction
from agent_jobs.store.rows import ACTIVE_SQL

#: Seconds between two looks for changes of other processes: SQLite does not announce them.
OTHERS_POLL_S = 0.2
#: The first job that ended or asked a question, with the time of that, if no process claimed it for a notification.
_PENDING_NOTIFICATION = """SELECT id, finished_at AS at FROM job
           WHERE finished_at > :since AND noticed_at IS NOT finished_at
             AND (NOT unsettled OR finished_at < :settled_before)
           UNION ALL
           SELECT id, asked_at FROM job JOIN turn ON turn.job_id = job.id AND turn.number = job.turn
           WHERE status = 'input_required' AND asked_at > :since AND asked_at < :asked_before
             AND noticed_at IS NOT asked_at
           ORDER BY at LIMIT 1"""


class Changes:
    """`ChangeFeed` on SQLite."""

    _db: Database

    async def wait_for_change(self, job_id: str, revision: int) -> None:
        while True:
            event = self._db.signals.event_of(job_id)
            rows = await self._db.read("SELECT revision FROM job WHERE id = :id", id=job_id)
            if not rows or rows[0]["revision"] != revision:
                # Reading does not yield: a caller that waits in a loop must leave room for its own time limit.
                await anyio.lowlevel.checkpoint()
                return
            with anyio.move_on_after(OTHERS_POLL_S):
                await event.wait()

    async def change_mark(self) -> Mark:
        # The first number counts our own changes. The second moves when another connection commits.
        return self._db.signals.count, (await self._db.fetch("PRAGMA data_version"))[0][0]

    async def wait_for_any_change(self, mark: Mark) -> None:
        while mark == await self.change_mark():
            with anyio.move_on_after(OTHERS_POLL_S):
                await self._db.signals.event_of_any().wait()

    async def mark_delivered(self, job_ids: Sequence[str], now: float) -> None:
        await self._db.change(
            lambda transaction: transaction.execute(
                f"""UPDATE job SET delivered_at = :now
                    WHERE id IN (SELECT value FROM json_each(:ids)) AND delivered_at IS NULL
                      AND status NOT IN {ACTIVE_SQL}""",
                ids=json.dumps(list(job_ids)),
                now=now,
            )
        )

    async def mark_read(self, job_ids: Sequence[str], now: float) -> None:
        await self._db.change(
            lambda transaction: transaction.execute(
                f"""UPDATE job SET delivered_at = COALESCE(delivered_at, :now), read_at = :now
                    WHERE id IN (SELECT value FROM json_each(:ids)) AND read_at IS NULL
                      AND status NOT IN {ACTIVE_SQL}""",
                ids=json.dumps(list(job_ids)),
                now=now,
            )
        )

    async def pending_notification(
        self, since: float, *, settled_before: float, asked_before: float
    ) -> tuple[str, float] | None:
        rows = await self._db.fetch(
            _PENDING_NOTIFICATION, since=since, settled_before=settled_before, asked_before=asked_before
        )
        if rows:
            return (rows[0]["id"], rows[0]["at"])
        return None

    async def claim_notification(self, job_id: str, at: float) -> bool:
        def claim(transaction: Transaction) -> bool:
            won = transaction.execute(
                """UPDATE job SET noticed_at = :at
                   WHERE id = :id AND noticed_at IS NOT :at
                     AND (finished_at = :at OR status = 'input_required' AND EXISTS (
                         SELECT 1 FROM turn WHERE job_id = job.id AND number = job.turn AND asked_at = :at))
                   RETURNING id""",
                id=job_id,
                at=at,
            )
            return bool(won)

        return await self._db.change(claim)

    async def record_event(self, job_id: str, at: float, kind: str, text: str = "") -> None:
        await self._db.change(
            lambda transaction: transaction.execute(
                "INSERT INTO event (job_id, at, kind, text) VALUES (:id, :at, :kind, :text)",
                id=job_id,
                at=at,
                kind=kind,
                text=text,
            )
        )

    async def get_events(self, job_id: str) -> list[Event]:
        rows = await self._db.fetch("SELECT at, kind, text FROM event WHERE job_id = :id ORDER BY at", id=job_id)
        return [Event(row["at"], row["kind"], row["text"]) for row in rows]
