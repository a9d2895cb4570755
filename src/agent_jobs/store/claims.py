"""Assign jobs to processes: claims, due times and free slots. Each claim is one statement, so that one caller wins."""

from collections.abc import Sequence
from typing import Any

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.poll_schedule import WATCHED_RETRIEVE_MAX_S
from agent_jobs.jobs.queries import UNWATCHED, WATCHED
from agent_jobs.jobs.status import RUNNING
from agent_jobs.store.database import StorePart, Transaction
from agent_jobs.store.rows import ACTIVE_SQL, RUNNING_SQL
from agent_jobs.store.values import NO_LIMIT

#: Unclaimed jobs that are due further ahead than this were scheduled by a process with a wrong clock.
UNCLAIMED_AHEAD_S = 120.0
#: A job that was sent with another key is left this long to a process that has that key.
OTHER_KEY_DELAY_S = 30.0
#: Retrieves of one job are at least this far apart, however many callers wait for it.
MIN_RETRIEVE_S = 1.0
#: The job's current turn is at our endpoint, and no other process has claimed the job.
_OURS = """(holder IS NULL OR holder = :me) AND turn.job_id = job.id AND turn.number = job.turn
           AND turn.base_url = :base_url"""
#: Processes of a team server all have the keys of the owners.
_DUE_AT = """next_at + CASE WHEN turn.fingerprint IN ('', :fingerprint) OR owner <> '' THEN 0
                            ELSE :other_key_delay_s END"""

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


#: Earliest time at which a job that was retrieved or sent before may be retrieved again.
_RETRIEVABLE_AT = """(:min_retrieve_s + COALESCE((SELECT COALESCE(looked_at, sent_at) FROM turn
                                                 WHERE job_id = job.id AND number = job.turn), 0))"""
#: Finds out if a job waits and a slot is free: this is much cheaper than the fair assignment, and rarely true.
_ANY_TO_SHARE = f"""SELECT 1 WHERE (SELECT COUNT(*) FROM job WHERE status IN {RUNNING_SQL}) < :limit
                    AND EXISTS (SELECT 1 FROM job WHERE status = 'pending' AND next_at IS NULL AND holder IS NULL)"""
#: Jobs that one statement claims: other processes take the others at the same time.
CLAIMED_AT_ONCE = 20


class Claims(StorePart):
    """`WorkQueue` on any database."""

    async def mark_watched(self, job_id: str, now: float, until: float) -> None:
        await self._db.write(
            f"""UPDATE job SET watched_until = CASE WHEN watched_until > :until THEN watched_until ELSE :until END,
                       next_at = CASE
                           WHEN next_at IS NULL OR next_at <= :now OR next_at <= not_before
                                OR next_at <= {_RETRIEVABLE_AT} THEN next_at
                           WHEN :now >= not_before AND :now >= {_RETRIEVABLE_AT} THEN :now
                           WHEN not_before >= {_RETRIEVABLE_AT} THEN not_before
                           ELSE {_RETRIEVABLE_AT} END
                WHERE id = :id AND status IN {ACTIVE_SQL} AND {self._scope.job}""",
            id=job_id,
            **self._scope.values,
            now=now,
            until=until,
            min_retrieve_s=MIN_RETRIEVE_S,
        )

    async def schedule(
        self,
        job_id: str,
        now: float,
        after_s: float,
        not_before_s: float = 0.0,
        *,
        lost_claims: int | None = None,
        releases: bool = False,
    ) -> None:
        not_before, at = now + not_before_s, now + after_s
        # A job without a claim that is due far ahead would look like one of a process with a wrong clock.
        is_soon = max(after_s, not_before_s) < UNCLAIMED_AHEAD_S / 2
        await self._db.write(
            f"""UPDATE job SET not_before = CASE WHEN hinted THEN 0 ELSE :not_before END,
                       holder = CASE WHEN :releases THEN NULL ELSE holder END,
                       next_at = CASE WHEN hinted THEN :now WHEN watched_until > :now THEN :watched_at ELSE :at END
                WHERE id = :id AND holder = :me AND (status IN {ACTIVE_SQL} OR unsettled AND :after > 0)
                  AND (:lost_claims IS NULL OR lost_claims = :lost_claims) AND {self._scope.job}""",
            id=job_id,
            **self._scope.values,
            me=self._db.worker,
            now=now,
            after=after_s,
            lost_claims=lost_claims,
            releases=releases and is_soon and self._db.is_shared,
            at=max(not_before, at),
            watched_at=max(not_before, min(at, now + WATCHED_RETRIEVE_MAX_S)),
            not_before=not_before,
        )

    async def release_claim(self, job_id: str, at: float) -> None:
        await self._db.write(
            f"""UPDATE job SET holder = NULL, next_at = :at, not_before = :at
                WHERE id = :id AND holder = :me AND status IN {ACTIVE_SQL} AND {self._scope.job}""",
            id=job_id,
            **self._scope.values,
            me=self._db.worker,
            at=at,
        )

    async def find_due(self, now: float, base_url: str, fingerprint: str = "") -> list[str]:
        async def claim(transaction: Transaction) -> list[str]:
            rows = await transaction.execute(
                f"""WITH due AS MATERIALIZED (
                        SELECT id FROM job
                        WHERE next_at <= :now AND {self._scope.job}
                          AND EXISTS (SELECT 1 FROM turn WHERE {_OURS} AND {_DUE_AT} <= :now)
                        ORDER BY next_at LIMIT {CLAIMED_AT_ONCE} /*! FOR UPDATE SKIP LOCKED */)
                    UPDATE job SET holder = :me, next_at = NULL, hinted = FALSE
                    WHERE id IN (SELECT id FROM due) RETURNING id""",
                me=self._db.worker,
                now=now,
                base_url=base_url,
                fingerprint=fingerprint,
                other_key_delay_s=OTHER_KEY_DELAY_S,
                **self._scope.values,
            )
            ids = sorted(row["id"] for row in rows)  # RETURNING has no order
            await transaction.execute_each(_NOTE_WATCHED, [{"id": job_id, "now": now} for job_id in ids])
            return ids

        return await self._db.change(claim)

    async def next_due_at(self, base_url: str, fingerprint: str = "") -> float | None:
        rows = await self._db.fetch(
            # No job is due before `next_at`, so only those until the first one's due time are read, not all with one.
            # CROSS has SQLite read jobs by their due times, and not all turns.
            f"""WITH first AS (
                    SELECT {_DUE_AT} AS at FROM job CROSS JOIN turn
                    WHERE next_at IS NOT NULL AND {self._scope.job} AND {_OURS} ORDER BY next_at LIMIT 1)
                SELECT MIN({_DUE_AT}) AS at FROM job CROSS JOIN turn
                WHERE next_at <= (SELECT at FROM first) AND {self._scope.job} AND {_OURS}""",
            **self._scope.values,
            me=self._db.worker,
            base_url=base_url,
            fingerprint=fingerprint,
            other_key_delay_s=OTHER_KEY_DELAY_S,
        )
        return rows[0]["at"]

    async def claim_lost(self, base_url: str, *, sent_before: float, created_before: float) -> list[str]:
        return await self._claim_jobs(
            f"""WITH lost AS MATERIALIZED (
                    SELECT id FROM job WHERE holder IS NULL AND status IN {ACTIVE_SQL} AND {self._scope.job}
                    AND EXISTS (
                        SELECT 1 FROM turn WHERE turn.job_id = job.id AND turn.number = job.turn
                        AND turn.base_url <> :base_url
                        AND (sent_at < :sent_before OR sent_at IS NULL AND created_at < :created_before))
                    /*! FOR UPDATE SKIP LOCKED */)
                UPDATE job SET holder = :me, next_at = NULL WHERE id IN (SELECT id FROM lost) RETURNING id""",
            base_url=base_url,
            sent_before=sent_before,
            created_before=created_before,
        )

    async def claim_free_slots(self, base_url: str, limit: int, owner_limit: int = NO_LIMIT) -> list[str]:
        if not await self._db.read(_ANY_TO_SHARE, limit=limit):
            return []
        return await self._claim_jobs(
            # Each waiting job gets the number that its owner would run with it. The lowest numbers go first, so that an
            # owner with few jobs is before one with many. Rows of a window cannot be locked, so that comes after.
            f"""WITH busy AS (SELECT owner, COUNT(*) AS n FROM job WHERE status IN {RUNNING_SQL} GROUP BY owner),
                     waiting AS (
                         SELECT job.id, job.owner, priority, created_at, COALESCE(busy.n, 0) + ROW_NUMBER() OVER (
                                    PARTITION BY job.owner ORDER BY priority DESC, created_at) AS number
                         FROM job LEFT JOIN busy ON busy.owner = job.owner
                         WHERE status = 'pending' AND next_at IS NULL AND holder IS NULL AND {self._scope.job}
                           AND EXISTS (SELECT 1 FROM turn WHERE job_id = job.id AND base_url = :base_url)),
                     next AS MATERIALIZED (
                         SELECT id FROM waiting LEFT JOIN owner ON owner.name = waiting.owner
                         WHERE waiting.owner = '' OR number <= COALESCE(owner.max_concurrent, :owner_limit)
                         ORDER BY number, priority DESC, created_at
                         LIMIT (SELECT CASE WHEN COALESCE(SUM(n), 0) >= :limit THEN 0
                                            ELSE :limit - CAST(COALESCE(SUM(n), 0) AS BIGINT) END FROM busy)),
                     free AS MATERIALIZED (
                         SELECT id FROM job WHERE id IN (SELECT id FROM next) AND status = 'pending' AND holder IS NULL
                         /*! FOR UPDATE SKIP LOCKED */)
                UPDATE job SET holder = :me WHERE id IN (SELECT id FROM free) RETURNING id""",
            base_url=base_url,
            limit=limit,
            owner_limit=owner_limit,
        )

    async def count_ahead(self, job: Job) -> int:
        rows = await self._db.fetch(
            """SELECT COUNT(*) AS n FROM job WHERE status = 'pending' AND owner = :owner
               AND (priority > :priority OR priority = :priority AND created_at < :created_at)""",
            owner=job.owner,
            priority=job.priority,
            created_at=job.created_at,
        )
        return rows[0]["n"]

    async def claim_cancel(self, job_id: str, now: float, again_after_s: float) -> bool:
        won = await self._db.write(
            f"""UPDATE job SET cancel_sent_at = :now
               WHERE id = :id AND {self._scope.job} AND (cancel_sent_at IS NULL OR cancel_sent_at <= :before)
               RETURNING id""",
            id=job_id,
            now=now,
            before=now - again_after_s,
            **self._scope.values,
        )
        return bool(won)

    async def clear_cancel_claim(self, job_id: str) -> None:
        await self._db.write(
            f"UPDATE job SET cancel_sent_at = NULL WHERE id = :id AND {self._scope.job}",
            id=job_id,
            **self._scope.values,
        )

    async def reclaim_from_dead(self, now: float) -> int:
        # The process that released these jobs had another time.
        await self._db.write(
            "UPDATE job SET next_at = :now WHERE holder IS NULL AND next_at > :latest",
            now=now,
            latest=now + UNCLAIMED_AHEAD_S,
        )
        rows = await self._db.fetch(
            "SELECT DISTINCT holder FROM job WHERE holder IS NOT NULL AND holder <> :me",
            me=self._db.worker,
        )
        dead = await self._db.find_dead_workers([row["holder"] for row in rows])
        return sum([await self._free_jobs(name, now, _NOTE_LAST_SEEN) for name in sorted(dead)])

    async def renew_claims(self, running: Sequence[str], now: float) -> None:
        await self._db.write(
            f"""UPDATE job SET next_at = :now
                WHERE holder = :me AND next_at IS NULL AND (status IN {ACTIVE_SQL} OR unsettled)
                  AND id NOT IN (:*running)""",
            me=self._db.worker,
            now=now,
            running=running,
        )

    async def release_claims(self, now: float) -> None:
        await self._free_jobs(self._db.worker, now, _NOTE_UNWATCHED)

    async def announce(self, what: str, base_url: str) -> None:
        await self._db.announce({"what": what, "base_url": base_url})

    async def _claim_jobs(self, sql: str, **values: Any) -> list[str]:
        """Run a statement that claims jobs for this process, and return their ids."""
        return [row["id"] for row in await self._db.write(sql, me=self._db.worker, **values, **self._scope.values)]

    async def _free_jobs(self, worker: str, now: float, note: str) -> int:
        """Free the jobs that this process has claimed, due at once; return how many.

        `note` writes that no process observes a job any more.
        """

        async def free(transaction: Transaction) -> int:
            rows = await transaction.execute(
                f"""UPDATE job SET holder = NULL, next_at = :now, lost_claims = lost_claims + :lost
                    WHERE holder = :worker AND (status IN {ACTIVE_SQL} OR unsettled) RETURNING id, status""",
                worker=worker,
                lost=int(worker != self._db.worker),
                now=now,
            )
            running = [row["id"] for row in rows if row["status"] in RUNNING]
            await transaction.execute_each(note, [{"id": job_id, "now": now} for job_id in running])
            return len(rows)

        return await self._db.change(free)
