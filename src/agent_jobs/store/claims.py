"""Hands out jobs: claims, due times and free slots. Each claim is one statement, so that one caller wins."""

from typing import Any

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.poll_schedule import WATCHED_RETRIEVE_MAX_S
from agent_jobs.jobs.queries import UNWATCHED, WATCHED
from agent_jobs.jobs.status import RUNNING
from agent_jobs.store.database import Database, Transaction
from agent_jobs.store.error_advice import as_store_error
from agent_jobs.store.rows import ACTIVE_SQL, RUNNING_SQL

#: Unclaimed jobs that are due further ahead than this were scheduled by a process with a wrong clock.
UNCLAIMED_AHEAD_S = 120.0
#: A job that was sent with another key is left this long to a process that has that key.
OTHER_KEY_DELAY_S = 30.0
#: Retrieves of one job are at least this far apart, however many callers wait for it.
MIN_RETRIEVE_S = 1.0
#: The job's current turn is at our endpoint, and no other process has claimed the job.
_OURS = """(holder IS NULL OR holder = :me) AND turn.job_id = job.id AND turn.number = job.turn
           AND turn.base_url = :base_url"""
_DUE_AT = "next_at + CASE WHEN turn.fingerprint IN ('', :fingerprint) THEN 0 ELSE :other_key_delay_s END"

#: Notes that a process observes a job again, if it was noted that none does.
_NOTE_WATCHED = f"""INSERT INTO event (job_id, at, kind, text)
                    SELECT :id, :now, '{WATCHED}', '' WHERE '{UNWATCHED}' = (
                        SELECT kind FROM event WHERE job_id = :id AND kind IN ('{WATCHED}', '{UNWATCHED}')
                        ORDER BY at DESC LIMIT 1)"""
#: Notes that the process that observed a job has released it.
_NOTE_UNWATCHED = f"INSERT INTO event (job_id, at, kind, text) VALUES (:id, :now, '{UNWATCHED}', '')"
#: Notes the same of a process that died, with the last time at which it is known to have observed the job.
_NOTE_LAST_SEEN = f"""INSERT INTO event (job_id, at, kind, text)
                      SELECT :id, COALESCE(MAX(at), :now), '{UNWATCHED}', 'its process died' FROM (
                          SELECT at FROM event WHERE job_id = :id
                          UNION ALL SELECT COALESCE(finished_at, seen_at) FROM step WHERE job_id = :id
                          UNION ALL SELECT COALESCE(looked_at, sent_at) FROM turn WHERE job_id = :id) AS seen"""


class Queue:
    """`WorkQueue` on SQLite."""

    _db: Database

    async def mark_watched(self, job_id: str, now: float, until: float) -> None:
        await self._update_job(
            job_id,
            f"""UPDATE job SET watched_until = MAX(watched_until, :until),
                       next_at = MIN(next_at, MAX(:now, not_before, :min_retrieve_s + COALESCE(
                           (SELECT COALESCE(looked_at, sent_at) FROM turn
                            WHERE job_id = job.id AND number = job.turn), 0)))
                WHERE id = :id AND status IN {ACTIVE_SQL}""",
            now=now,
            until=until,
            min_retrieve_s=MIN_RETRIEVE_S,
        )

    async def schedule(self, job_id: str, now: float, after_s: float, not_before_s: float = 0.0) -> None:
        await self._update_job(
            job_id,
            f"""UPDATE job SET not_before = :not_before, next_at = MAX(:not_before,
                       CASE WHEN watched_until > :now THEN MIN(:at, :watched_at) ELSE :at END)
                WHERE id = :id AND holder = :me AND (status IN {ACTIVE_SQL} OR unsettled AND :after > 0)""",
            me=self._db.worker_lock.name,
            now=now,
            after=after_s,
            at=now + after_s,
            watched_at=now + WATCHED_RETRIEVE_MAX_S,
            not_before=now + not_before_s,
        )

    async def release_claim(self, job_id: str, at: float) -> None:
        await self._update_job(
            job_id,
            f"""UPDATE job SET holder = NULL, next_at = :at, not_before = :at
                WHERE id = :id AND holder = :me AND status IN {ACTIVE_SQL}""",
            me=self._db.worker_lock.name,
            at=at,
        )

    async def find_due(self, now: float, base_url: str, fingerprint: str = "") -> list[str]:
        def claim(transaction: Transaction) -> list[str]:
            rows = transaction.execute(
                f"""UPDATE job SET holder = :me, next_at = NULL
                    WHERE next_at <= :now AND EXISTS (SELECT 1 FROM turn WHERE {_OURS} AND {_DUE_AT} <= :now)
                    RETURNING id""",
                me=self._db.worker_lock.name,
                now=now,
                base_url=base_url,
                fingerprint=fingerprint,
                other_key_delay_s=OTHER_KEY_DELAY_S,
            )
            ids = [row["id"] for row in rows]
            transaction.execute_each(_NOTE_WATCHED, [{"id": job_id, "now": now} for job_id in ids])
            return ids

        return await self._db.change(claim)

    async def next_due_at(self, base_url: str, fingerprint: str = "") -> float | None:
        rows = await self._db.fetch(
            # CROSS has SQLite read the few jobs that have a due time first, not all turns.
            f"SELECT MIN({_DUE_AT}) AS at FROM job CROSS JOIN turn WHERE next_at IS NOT NULL AND {_OURS}",
            me=self._db.worker_lock.name,
            base_url=base_url,
            fingerprint=fingerprint,
            other_key_delay_s=OTHER_KEY_DELAY_S,
        )
        return rows[0]["at"]

    async def claim_lost(self, base_url: str, *, sent_before: float, created_before: float) -> list[str]:
        return await self._claim_jobs(
            f"""UPDATE job SET holder = :me, next_at = NULL
                WHERE holder IS NULL AND status IN {ACTIVE_SQL} AND EXISTS (
                    SELECT 1 FROM turn WHERE turn.job_id = job.id AND turn.number = job.turn
                    AND turn.base_url <> :base_url
                    AND (sent_at < :sent_before OR sent_at IS NULL AND created_at < :created_before))
                RETURNING id""",
            base_url=base_url,
            sent_before=sent_before,
            created_before=created_before,
        )

    async def claim_free_slots(self, base_url: str, limit: int) -> list[str]:
        return await self._claim_jobs(
            f"""UPDATE job SET holder = :me WHERE id IN (
                   SELECT id FROM job
                   WHERE status = 'pending' AND next_at IS NULL AND holder IS NULL
                     AND EXISTS (SELECT 1 FROM turn WHERE job_id = job.id AND base_url = :base_url)
                   ORDER BY priority DESC, created_at
                   LIMIT MAX(0, :limit - (SELECT COUNT(*) FROM job WHERE status IN {RUNNING_SQL})))
                RETURNING id""",
            base_url=base_url,
            limit=limit,
        )

    async def count_ahead(self, job: Job) -> int:
        rows = await self._db.fetch(
            """SELECT COUNT(*) AS n FROM job WHERE status = 'pending'
               AND (priority > :priority OR priority = :priority AND created_at < :created_at)""",
            priority=job.priority,
            created_at=job.created_at,
        )
        return rows[0]["n"]

    async def claim_cancel(self, job_id: str, now: float, again_after_s: float) -> bool:
        def claim(transaction: Transaction) -> bool:
            won = transaction.execute(
                """UPDATE job SET cancel_sent_at = :now
                   WHERE id = :id AND (cancel_sent_at IS NULL OR cancel_sent_at <= :before) RETURNING id""",
                id=job_id,
                now=now,
                before=now - again_after_s,
            )
            return bool(won)

        return await self._db.change(claim, job_id)

    async def clear_cancel_claim(self, job_id: str) -> None:
        await self._update_job(job_id, "UPDATE job SET cancel_sent_at = NULL WHERE id = :id")

    async def reclaim_from_dead(self, now: float) -> int:
        # The process that released these jobs had another time.
        await self._db.change(
            lambda transaction: transaction.execute(
                "UPDATE job SET next_at = :now WHERE holder IS NULL AND next_at > :latest",
                now=now,
                latest=now + UNCLAIMED_AHEAD_S,
            )
        )
        rows = await self._db.fetch(
            "SELECT DISTINCT holder FROM job WHERE holder IS NOT NULL AND holder <> :me",
            me=self._db.worker_lock.name,
        )
        names = [row["holder"] for row in rows]
        dead = [name for name in names if self._db.worker_lock.is_dead(name)]
        return sum([await self._free_jobs(name, now, _NOTE_LAST_SEEN) for name in dead])

    async def release_claims(self, now: float) -> None:
        await self._free_jobs(self._db.worker_lock.name, now, _NOTE_UNWATCHED)

    async def announce(self, what: str, base_url: str) -> None:
        with as_store_error(self._db.folder):
            self._db.worker_lock.announce({"what": what, "base_url": base_url})

    async def _update_job(self, job_id: str, sql: str, **values: Any) -> None:
        await self._db.change(lambda transaction: transaction.execute(sql, id=job_id, **values), job_id)

    async def _claim_jobs(self, sql: str, **values: Any) -> list[str]:
        """Run a statement that claims jobs for this process, and return their ids."""
        me = self._db.worker_lock.name
        rows = await self._db.change(lambda transaction: transaction.execute(sql, me=me, **values))
        return [row["id"] for row in rows]

    async def _free_jobs(self, worker: str, now: float, note: str) -> int:
        """Free the jobs that this process has claimed, due at once; return how many.

        `note` writes that no process observes a job any more.
        """

        def free(transaction: Transaction) -> int:
            rows = transaction.execute(
                f"""UPDATE job SET holder = NULL, next_at = :now
                    WHERE holder = :worker AND (status IN {ACTIVE_SQL} OR unsettled) RETURNING id, status""",
                worker=worker,
                now=now,
            )
            running = [row["id"] for row in rows if row["status"] in RUNNING]
            transaction.execute_each(note, [{"id": job_id, "now": now} for job_id in running])
            return len(rows)

        return await self._db.change(free)
