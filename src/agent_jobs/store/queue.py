"""Who works on a job of the store on SQLite, and when it is due."""

import sqlite3

from agent_jobs.store.database import Database, Statement
from agent_jobs.store.rows import OPEN, RUNNING

#: A job that nobody holds is never due later than this from now, as clocks go that agree.
FREE_AHEAD_S = 120.0
#: Another process may hold a job, and a job at another endpoint can only be looked at by a process that talks to it.
_MINE = """(holder IS NULL OR holder = :me) AND turn.job_id = job.id AND turn.number = job.turn
           AND turn.base_url = :base_url"""
#: A job of another key is left to a process that has that key for so long.
_WHEN = "next_at + CASE WHEN turn.fingerprint IN ('', :fingerprint) THEN 0 ELSE 30 END"


class Queue:
    """The part of `Store` that hands jobs out: each claim is one statement, so that one caller wins."""

    _db: Database

    async def mark_watched(self, job_id: str, now: float, until: float) -> None:
        watching = Statement(
            f"""UPDATE job SET watched_until = MAX(watched_until, :until),
                       next_at = MIN(next_at, MAX(:now, not_before, 1 + COALESCE(
                           (SELECT COALESCE(looked_at, sent_at) FROM turn
                            WHERE job_id = job.id AND number = job.turn), 0)))
                WHERE id = :id AND status IN {OPEN}""",
            {"id": job_id, "now": now, "until": until},
        )
        await self._db.change(job_id, watching)

    async def schedule(self, job_id: str, now: float, after_s: float, not_before_s: float = 0.0) -> None:
        scheduling = Statement(
            f"""UPDATE job SET not_before = :not_before, next_at = MAX(:not_before,
                       CASE WHEN watched_until > :now THEN MIN(:at, :now + 5) ELSE :at END)
                WHERE id = :id AND holder = :me AND (status IN {OPEN} OR unsettled AND :after > 0)""",
            {
                "id": job_id,
                "me": self._db.holder.name,
                "now": now,
                "after": after_s,
                "at": now + after_s,
                "not_before": now + not_before_s,
            },
        )
        await self._db.change(job_id, scheduling)

    async def release_claim(self, job_id: str, at: float) -> None:
        async with self._db.changing(job_id):
            await self._db.execute(
                f"""UPDATE job SET holder = NULL, next_at = :at, not_before = :at
                    WHERE id = :id AND holder = :me AND status IN {OPEN}""",
                id=job_id,
                me=self._db.holder.name,
                at=at,
            )

    async def find_due(self, now: float, base_url: str, fingerprint: str = "") -> list[str]:
        async with self._db.changing():
            rows = await self._db.execute(
                f"""UPDATE job SET holder = :me, next_at = NULL
                    WHERE next_at <= :now AND EXISTS (SELECT 1 FROM turn WHERE {_MINE} AND {_WHEN} <= :now)
                    RETURNING id""",
                now=now,
                me=self._db.holder.name,
                base_url=base_url,
                fingerprint=fingerprint,
            )
        return [row["id"] for row in rows]

    async def next_due_at(self, base_url: str, fingerprint: str = "") -> float | None:
        rows = await self._db.fetch(
            # CROSS: the few jobs that are due at some time are to be read first, not all turns.
            f"SELECT MIN({_WHEN}) AS at FROM job CROSS JOIN turn WHERE next_at IS NOT NULL AND {_MINE}",
            me=self._db.holder.name,
            base_url=base_url,
            fingerprint=fingerprint,
        )
        return rows[0]["at"]

    async def claim_lost(self, base_url: str, *, sent_before: float, created_before: float) -> list[str]:
        async with self._db.changing():
            rows = await self._db.execute(
                f"""UPDATE job SET holder = :me, next_at = NULL
                    WHERE holder IS NULL AND status IN {OPEN} AND EXISTS (
                        SELECT 1 FROM turn WHERE turn.job_id = job.id AND turn.number = job.turn
                        AND turn.base_url <> :base_url
                        AND (sent_at < :sent_before OR sent_at IS NULL AND created_at < :created_before))
                    RETURNING id""",
                me=self._db.holder.name,
                base_url=base_url,
                sent_before=sent_before,
                created_before=created_before,
            )
        return [row["id"] for row in rows]

    async def wait_for_slot(self, job_id: str, activity: str) -> None:
        async with self._db.changing(job_id):
            await self._db.execute(
                """UPDATE job SET holder = NULL, next_at = NULL, activity = :activity, revision = revision + 1
                   WHERE id = :id AND status = 'pending' AND holder = :me""",
                id=job_id,
                me=self._db.holder.name,
                activity=activity,
            )

    async def claim_free_slots(self, base_url: str, limit: int) -> list[str]:
        async with self._db.changing():
            rows = await self._db.execute(
                f"""UPDATE job SET holder = :me WHERE id IN (
                       SELECT id FROM job
                       WHERE status = 'pending' AND next_at IS NULL AND holder IS NULL
                         AND EXISTS (SELECT 1 FROM turn WHERE job_id = job.id AND base_url = :base_url)
                       ORDER BY priority DESC, created_at
                       LIMIT MAX(0, :limit - (SELECT COUNT(*) FROM job
                                              WHERE status IN {RUNNING})))
                   RETURNING id""",
                me=self._db.holder.name,
                base_url=base_url,
                limit=limit,
            )
        return [row["id"] for row in rows]

    async def claim_cancel(self, job_id: str, now: float, again_after_s: float) -> bool:
        async with self._db.changing(job_id):
            won = await self._db.execute(
                """UPDATE job SET cancel_sent_at = :now
                   WHERE id = :id AND (cancel_sent_at IS NULL OR cancel_sent_at <= :before) RETURNING id""",
                id=job_id,
                now=now,
                before=now - again_after_s,
            )
        return bool(won)

    async def clear_cancel_claim(self, job_id: str) -> None:
        async with self._db.changing(job_id):
            await self._db.execute("UPDATE job SET cancel_sent_at = NULL WHERE id = :id", id=job_id)

    async def claim_notification(self, job_id: str, at: float) -> bool:
        won: list[sqlite3.Row] = []
        async with self._db.changing():
            won = await self._db.execute(
                """UPDATE job SET noticed_at = :at
                   WHERE id = :id AND noticed_at IS NOT :at
                     AND (finished_at = :at OR status = 'input_required' AND EXISTS (
                         SELECT 1 FROM turn WHERE job_id = job.id AND number = job.turn AND asked_at = :at))
                   RETURNING id""",
                id=job_id,
                at=at,
            )
        return bool(won)

    async def reclaim_from_dead(self, now: float) -> int:
        # The process that freed a job may have had another time.
        await self._db.fetch(
            "UPDATE job SET next_at = :now WHERE holder IS NULL AND next_at > :now + :ahead_s RETURNING id",
            now=now,
            ahead_s=FREE_AHEAD_S,
        )
        others = await self._db.fetch(
            "SELECT DISTINCT holder FROM job WHERE holder IS NOT NULL AND holder <> :me", me=self._db.holder.name
        )
        return sum([await self._free(row["holder"], now) for row in others if self._db.holder.dead(row["holder"])])

    async def release_claims(self, now: float) -> None:
        await self._free(self._db.holder.name, now)

    async def announce(self, what: str, base_url: str) -> None:
        self._db.announce({"what": what, "base_url": base_url})

    async def _free(self, holder: str, now: float) -> int:
        async with self._db.changing():
            rows = await self._db.execute(
                f"""UPDATE job SET holder = NULL, next_at = :now
                    WHERE holder = :holder AND (status IN {OPEN} OR unsettled) RETURNING id""",
                holder=holder,
                now=now,
            )
        return len(rows)
