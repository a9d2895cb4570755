"""Store the settings of the owners of a team server."""

from agent_jobs.jobs.owners import Owner, OwnerLimits, OwnerUse
from agent_jobs.store.database import Row, StorePart, Transaction
from agent_jobs.store.records import sum_spent
from agent_jobs.store.rows import RUNNING_SQL

_OWNER_COLUMNS = "name, max_concurrent, daily_budget_usd, starts_per_minute, key_ref"


class Owners(StorePart):
    """`OwnerRecords` on any database. A store that is bound to an owner shows and changes that owner alone."""

    async def get_owner(self, name: str) -> Owner | None:
        rows = await self._db.read(
            f"SELECT {_OWNER_COLUMNS} FROM owner WHERE name = :name AND {self._scope.condition('owner', 'name')}",
            name=name,
            **self._scope.values,
        )
        if rows:
            return _convert_owner(rows[0])
        return None

    async def list_owners(self, since: float) -> list[OwnerUse]:
        async def read_owners(transaction: Transaction) -> list[OwnerUse]:
            rows = await transaction.execute(
                f"""WITH names AS (
                        SELECT name FROM owner
                        UNION SELECT owner FROM token
                        UNION SELECT owner FROM job WHERE owner <> '')
                    SELECT names.name, max_concurrent, daily_budget_usd, starts_per_minute, key_ref,
                           (SELECT COUNT(*) FROM job WHERE owner = names.name AND owner <> '') AS jobs,
                           (SELECT COUNT(*) FROM job WHERE owner = names.name AND status IN {RUNNING_SQL}) AS running,
                           (SELECT COUNT(*) FROM job WHERE owner = names.name AND status = 'pending') AS waiting
                    FROM names LEFT JOIN owner ON owner.name = names.name
                    WHERE {self._scope.condition("names", "name")} ORDER BY names.name""",
                **self._scope.values,
            )
            return [
                OwnerUse(
                    _convert_owner(row),
                    row["jobs"],
                    row["running"],
                    row["waiting"],
                    await sum_spent(transaction, since, row["name"]),
                )
                for row in rows
            ]

        return await self._db.query(read_owners)

    async def set_owner(self, owner: Owner) -> None:
        await self._db.write(
            f"""INSERT INTO owner ({_OWNER_COLUMNS})
                SELECT new.name, :max_concurrent, :daily_budget_usd, :starts_per_minute, :key_ref
                FROM (SELECT :name AS name) AS new WHERE {self._scope.condition("new", "name")}
                ON CONFLICT (name) DO UPDATE SET
                    max_concurrent = excluded.max_concurrent, daily_budget_usd = excluded.daily_budget_usd,
                    starts_per_minute = excluded.starts_per_minute, key_ref = excluded.key_ref""",
            name=owner.name,
            key_ref=owner.key_ref,
            **owner.limits._asdict(),
            **self._scope.values,
        )


def _convert_owner(row: Row) -> Owner:
    limits = OwnerLimits(row["max_concurrent"], row["daily_budget_usd"], row["starts_per_minute"])
    return Owner(row["name"], limits, row["key_ref"] or "")
