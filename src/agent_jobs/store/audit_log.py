"""Store the audit log of a team server. Rows are only added."""

from collections.abc import Sequence

from agent_jobs.store.database import Row, StorePart
from agent_jobs.store.owner_scope import OwnerScope
from agent_jobs.store.team_records import AuditEntry

_COLUMNS = "at, owner, token_id, client, action, job_id, cost_usd, address"

_ADD = f"""INSERT INTO audit ({_COLUMNS})
           VALUES (:at, :owner, :token_id, :client, :action, :job_id, :cost_usd, :address)"""


class AuditLog(StorePart):
    """`AuditRecords` on any database."""

    async def add_audit(self, entries: Sequence[AuditEntry]) -> None:
        if len(entries) == 1:
            await self._db.write(_ADD, **entries[0]._asdict())  # by far the most, and one round trip instead of three
            return
        rows = [entry._asdict() for entry in entries]
        await self._db.change(lambda transaction: transaction.execute_each(_ADD, rows))

    async def read_audit(
        self, *, since: float = 0.0, owner: str | None = None, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, AuditEntry]]:
        scope = self._scope
        if scope.owner is None:
            scope = OwnerScope(owner)
        rows = await self._db.fetch(
            f"""SELECT number, {_COLUMNS} FROM audit WHERE number > :after AND at >= :since
                  AND {scope.condition("audit")}
                ORDER BY number LIMIT :limit""",
            after=after,
            since=since,
            limit=limit,
            **scope.values,
        )
        return [(row["number"], _read_entry(row)) for row in rows]


def _read_entry(row: Row) -> AuditEntry:
    return AuditEntry(*(row[name] for name in _COLUMNS.split(", ")))
