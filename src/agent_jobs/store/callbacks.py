"""Store the callbacks of jobs until their receivers accept them. Each event is claimed once, for all processes."""

from agent_jobs.store.database import StorePart, Transaction
from agent_jobs.store.team_records import CallbackMessage, PendingCallback

#: Events that one call returns; the next call returns the others.
FOUND_AT_ONCE = 100
_EVENT_COLUMNS = "job.id AS job_id, status, batch, key, error_code"
#: The events whose caller is to be called back, and that no process has claimed.
_PENDING = f"""SELECT {_EVENT_COLUMNS}, 'job.finished' AS kind, finished_at AS at FROM job
               WHERE callback_url <> '' AND finished_at > :since
                 AND (called_back_at IS NULL OR called_back_at <> finished_at)
               UNION ALL
               SELECT {_EVENT_COLUMNS}, 'job.needs_input', asked_at FROM job
               JOIN turn ON turn.job_id = job.id AND turn.number = job.turn
               WHERE callback_url <> '' AND status = 'input_required' AND asked_at > :since
                 AND (called_back_at IS NULL OR called_back_at <> asked_at)
               LIMIT {FOUND_AT_ONCE}"""


class Callbacks(StorePart):
    """`CallbackRecords` on any database."""

    async def find_callbacks(self, since: float) -> list[PendingCallback]:
        rows = await self._db.fetch(_PENDING, since=since)
        return [PendingCallback(**row) for row in rows]

    async def add_callback(self, pending: PendingCallback, message_id: str, body: str, now: float) -> bool:
        async def claim(transaction: Transaction) -> bool:
            claimed = await transaction.execute(
                """UPDATE job SET called_back_at = :at
                   WHERE id = :id AND (called_back_at IS NULL OR called_back_at <> :at) RETURNING id""",
                id=pending.job_id,
                at=pending.at,
            )
            if not claimed:
                return False
            await transaction.execute(
                """INSERT INTO callback (id, job_id, body, created_at, next_at)
                   VALUES (:id, :job_id, :body, :now, :now)""",
                id=message_id,
                job_id=pending.job_id,
                body=body,
                now=now,
            )
            return True

        return await self._db.change(claim)

    async def claim_callbacks(self, now: float, again_at: float, limit: int) -> list[CallbackMessage]:
        claimed = await self._db.write(
            """WITH due AS MATERIALIZED (
                   SELECT id FROM callback WHERE next_at <= :now ORDER BY next_at LIMIT :limit
                   /*! FOR UPDATE SKIP LOCKED */)
               UPDATE callback SET next_at = :again_at, attempts = attempts + 1
               WHERE id IN (SELECT id FROM due)
               RETURNING id, job_id, body, created_at, attempts, subscription_id, number,
                         (SELECT callback_url FROM job WHERE job.id = job_id) AS url""",
            now=now,
            again_at=again_at,
            limit=limit,
        )
        return [CallbackMessage(**row) for row in claimed]

    async def schedule_callback(self, message_id: str, at: float) -> None:
        await self._db.write("UPDATE callback SET next_at = :at WHERE id = :id", id=message_id, at=at)

    async def finish_callback(self, message_id: str) -> None:
        await self._db.write("DELETE FROM callback WHERE id = :id", id=message_id)
