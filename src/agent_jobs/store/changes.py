"""Wait for changes of jobs, and store their events for the user and for notifications."""

from collections.abc import Sequence

from agent_jobs.jobs.queries import Event
from agent_jobs.jobs.status import Status
from agent_jobs.store.database import StorePart
from agent_jobs.store.known_state import KnownState
from agent_jobs.store.rows import ACTIVE_SQL
from agent_jobs.store.values import Mark

#: The first job that ended or asked a question, with the time of that, if no process claimed it for a notification.
_PENDING_NOTIFICATION = """SELECT id, finished_at AS at FROM job
           WHERE {mine} AND finished_at > :since AND (noticed_at IS NULL OR noticed_at <> finished_at)
             AND (NOT unsettled OR finished_at < :settled_before)
           UNION ALL
           SELECT id, asked_at FROM job JOIN turn ON turn.job_id = job.id AND turn.number = job.turn
           WHERE {mine} AND status = 'input_required' AND asked_at > :since AND asked_at < :asked_before
             AND (noticed_at IS NULL OR noticed_at <> asked_at)
           ORDER BY at LIMIT 1"""


class Changes(StorePart):
    """`ChangeFeed` on any database."""

    async def wait_for_change(self, job_id: str, revision: int) -> None:
        await self._db.wait_for_change(KnownState(job_id, revision=revision), self._scope)

    async def wait_for_status(self, job_id: str, status: Status) -> None:
        await self._db.wait_for_change(KnownState(job_id, status=status), self._scope)

    async def change_mark(self) -> Mark:
        return await self._db.change_mark()

    async def wait_for_any_change(self, mark: Mark) -> None:
        await self._db.wait_for_any_change(mark)

    async def mark_delivered(self, job_ids: Sequence[str], now: float) -> None:
        await self._db.write(
            f"""UPDATE job SET delivered_at = :now
                WHERE id IN (:*ids) AND delivered_at IS NULL AND status NOT IN {ACTIVE_SQL} AND {self._scope.job}""",
            ids=list(job_ids),
            **self._scope.values,
            now=now,
        )

    async def mark_read(self, job_ids: Sequence[str], now: float) -> None:
        await self._db.write(
            f"""UPDATE job SET delivered_at = COALESCE(delivered_at, :now), read_at = :now
                WHERE id IN (:*ids) AND read_at IS NULL AND status NOT IN {ACTIVE_SQL} AND {self._scope.job}""",
            ids=list(job_ids),
            **self._scope.values,
            now=now,
        )

    async def pending_notification(
        self, since: float, *, settled_before: float, asked_before: float
    ) -> tuple[str, float] | None:
        rows = await self._db.fetch(
            _PENDING_NOTIFICATION.format(mine=self._scope.job),
            since=since,
            settled_before=settled_before,
            asked_before=asked_before,
            **self._scope.values,
        )
        if rows:
            return (rows[0]["id"], rows[0]["at"])
        return None

    async def claim_notification(self, job_id: str, at: float) -> bool:
        won = await self._db.write(
            f"""UPDATE job SET noticed_at = :at
               WHERE id = :id AND {self._scope.job} AND (noticed_at IS NULL OR noticed_at <> :at)
                 AND (finished_at = :at OR status = 'input_required' AND EXISTS (
                     SELECT 1 FROM turn WHERE job_id = job.id AND number = job.turn AND asked_at = :at))
               RETURNING id""",
            id=job_id,
            at=at,
            **self._scope.values,
        )
        return bool(won)

    async def record_event(self, job_id: str, at: float, kind: str, text: str = "") -> None:
        await self._db.write(
            f"""INSERT INTO event (job_id, at, kind, text) SELECT new.job_id, :at, :kind, :text
                FROM (SELECT :id AS job_id) AS new WHERE {self._scope.part}""",
            id=job_id,
            at=at,
            kind=kind,
            text=text,
            **self._scope.values,
        )

    async def get_events(self, job_id: str) -> list[Event]:
        rows = await self._db.fetch(
            f"SELECT at, kind, text FROM event WHERE job_id = :id AND {self._scope.part} ORDER BY at",
            id=job_id,
            **self._scope.values,
        )
        return [Event(row["at"], row["kind"], row["text"]) for row in rows]
