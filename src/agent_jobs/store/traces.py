"""Record the traced jobs. Each finished job is claimed once, for all processes."""

from agent_jobs.store.database import StorePart

#: A job is traced once its files are written and its cost is known; it may end again after it was found again.
_UNTRACED = "finished_at > :since AND NOT unsettled AND (traced_at IS NULL OR traced_at <> finished_at)"


class Traces(StorePart):
    """`TraceRecords` on any database."""

    async def claim_traces(self, since: float, limit: int) -> list[str]:
        claimed = await self._db.write(
            f"""WITH due AS MATERIALIZED (
                   SELECT id FROM job WHERE {_UNTRACED} LIMIT :limit
                   /*! FOR UPDATE SKIP LOCKED */)
               UPDATE job SET traced_at = finished_at WHERE id IN (SELECT id FROM due) RETURNING id""",
            since=since,
            limit=limit,
        )
        return [row["id"] for row in claimed]
