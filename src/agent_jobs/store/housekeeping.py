"""Store the learned limits of endpoints, and delete old jobs."""

from collections.abc import Sequence
from math import inf

from agent_jobs.jobs.job import Mode
from agent_jobs.jobs.queries import ServerInfo
from agent_jobs.store.database import StorePart, Transaction
from agent_jobs.store.records import ENDED_USD
from agent_jobs.store.rows import ACTIVE_SQL
from agent_jobs.store.values import ResponseAddress

#: Jobs that one call deletes: each is a transaction of its own, and a caller may stop between two calls.
PURGED_AT_ONCE = 50
#: Precedes a refused parameter in the model column of the table of modes. No model's name begins so.
_REFUSED_PREFIX = "-"

#: True for a job that ended before a time.
_ENDED = f"finished_at < :before AND status NOT IN {ACTIVE_SQL}"


class Housekeeping(StorePart):
    """`HousekeepingRecords` on any database."""

    async def read_clock(self) -> float | None:
        return await self._db.read_clock()

    async def server_info(self) -> ServerInfo | None:
        return await self._db.server_info()

    async def learned_mode(self, base_url: str, model: str, since: float) -> Mode | None:
        rows = await self._db.fetch(
            "SELECT mode FROM mode WHERE base_url = :base_url AND model = :model AND learned_at > :since",
            base_url=base_url,
            model=model,
            since=since,
        )
        if rows:
            return rows[0]["mode"]
        return None

    async def refused_parameters(self, base_url: str, since: float) -> frozenset[str]:
        rows = await self._db.fetch(
            """SELECT model FROM mode WHERE base_url = :base_url AND model >= :first AND model < :after
               AND learned_at > :since""",
            base_url=base_url,
            first=_REFUSED_PREFIX,
            after=chr(ord(_REFUSED_PREFIX) + 1),
            since=since,
        )
        return frozenset(row["model"].removeprefix(_REFUSED_PREFIX) for row in rows)

    async def learn_mode(self, base_url: str, model: str, mode: Mode, now: float, answer: str) -> None:
        await self._write_lesson(base_url, model, mode, now, answer)

    async def learn_refused_parameter(self, base_url: str, parameter: str, now: float, answer: str) -> None:
        await self._write_lesson(base_url, f"{_REFUSED_PREFIX}{parameter}", "refused", now, answer)

    async def _write_lesson(self, base_url: str, model: str, mode: str, now: float, answer: str) -> None:
        await self._db.write(
            """INSERT INTO mode (base_url, model, mode, learned_at, answer)
               VALUES (:base_url, :model, :mode, :now, :answer)
               ON CONFLICT (base_url, model) DO UPDATE SET mode = excluded.mode, learned_at = excluded.learned_at,
                                                           answer = excluded.answer""",
            base_url=base_url,
            model=model,
            mode=mode,
            now=now,
            answer=answer,
        )

    async def purge(self, before: float, *, unread: bool = False) -> dict[str, list[ResponseAddress]]:
        old = f"{_ENDED} AND {self._scope.job}"
        if not unread:
            old += " AND delivered_at IS NOT NULL"
        rows = await self._db.fetch(
            f"SELECT id FROM job WHERE {old} LIMIT {PURGED_AT_ONCE}", before=before, **self._scope.values
        )
        return await self._delete_old_jobs([row["id"] for row in rows], old, before)

    async def delete_jobs(self, job_ids: Sequence[str]) -> dict[str, list[ResponseAddress]]:
        return await self._delete_old_jobs(job_ids, f"{_ENDED} AND {self._scope.job}", inf)

    async def count_unread(self, before: float) -> int:
        rows = await self._db.fetch(
            f"""SELECT COUNT(*) AS n FROM job INDEXED BY job_untold
                WHERE delivered_at IS NULL AND finished_at < :before AND status NOT IN {ACTIVE_SQL}
                  AND {self._scope.job}""",
            before=before,
            **self._scope.values,
        )
        return rows[0]["n"]

    async def _delete_old_jobs(
        self, job_ids: Sequence[str], old: str, before: float
    ) -> dict[str, list[ResponseAddress]]:
        """Delete those of these jobs that are still old; return the addresses of their responses."""
        deleted: dict[str, list[ResponseAddress]] = {}
        for job_id in job_ids:
            addresses = await self._db.change(
                lambda transaction, job_id=job_id: self._delete_old_job(transaction, job_id, old, before), job_id
            )
            if addresses is not None:
                deleted[job_id] = addresses
        return deleted

    async def _delete_old_job(
        self, transaction: Transaction, job_id: str, old: str, before: float
    ) -> list[ResponseAddress] | None:
        """Delete a job that is still old, leaving a tombstone; return the addresses of its responses, or None."""
        if not await transaction.execute(
            f"SELECT 1 FROM job WHERE id = :id AND {old}", id=job_id, before=before, **self._scope.values
        ):
            return None
        addresses = await transaction.execute(
            """SELECT base_url, response_id, owner, fingerprint FROM turn JOIN job ON job.id = turn.job_id
               WHERE job_id = :id AND response_id IS NOT NULL ORDER BY number""",
            id=job_id,
        )
        await transaction.execute(
            f"""INSERT INTO tombstone (job_id, owner, status, finished_at, created_at, model, preset, client, usage,
                                       cost_usd)
                SELECT id, owner, status, finished_at, created_at, model, preset, client, usage, {ENDED_USD}
                FROM job WHERE id = :id
                ON CONFLICT (job_id) DO NOTHING""",
            id=job_id,
        )
        await transaction.remove_from_search(job_id)
        await transaction.execute("DELETE FROM job WHERE id = :id", id=job_id)
        return [ResponseAddress(**place) for place in addresses]
