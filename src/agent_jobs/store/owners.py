"""Keeps what an operator set for the owners of a team server, and their tokens."""

from collections.abc import Sequence

from agent_jobs.jobs.owners import Owner, OwnerLimits, OwnerUse, Token
from agent_jobs.store.database import Row, StorePart, Transaction
from agent_jobs.store.records import sum_spent
from agent_jobs.store.rows import RUNNING_SQL

#: Seconds between two notes that a token is used: a write for each request would be too many.
NOTE_USE_EVERY_S = 60.0
_TOKEN_COLUMNS = "id, owner, note, created_at, expires_at, revoked_at, last_used_at"
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

    async def add_token(self, token: Token, digest: str) -> None:
        await self._db.write(
            f"""INSERT INTO token (id, hash, owner, note, created_at, expires_at)
                SELECT :id, :digest, new.owner, :note, :created_at, :expires_at
                FROM (SELECT :token_owner AS owner) AS new WHERE {self._scope.condition("new")}""",
            id=token.id,
            digest=digest,
            token_owner=token.owner,
            note=token.note,
            created_at=token.created_at,
            expires_at=token.expires_at,
            **self._scope.values,
        )

    async def list_tokens(self) -> list[Token]:
        rows = await self._db.fetch(
            f"""SELECT {_TOKEN_COLUMNS} FROM token WHERE {self._scope.condition("token")}
                ORDER BY owner, created_at, id""",
            **self._scope.values,
        )
        return _convert_tokens(rows)

    async def find_token(self, digest: str) -> Token | None:
        rows = await self._db.read(
            f"SELECT {_TOKEN_COLUMNS} FROM token WHERE hash = :digest AND {self._scope.condition('token')}",
            digest=digest,
            **self._scope.values,
        )
        return next(iter(_convert_tokens(rows)), None)

    async def revoke_token(self, token_id: str, now: float) -> bool:
        revoked = await self._db.write(
            f"""UPDATE token SET revoked_at = COALESCE(revoked_at, :now)
                WHERE id = :id AND {self._scope.condition("token")} RETURNING id""",
            id=token_id,
            now=now,
            **self._scope.values,
        )
        return bool(revoked)

    async def mark_token_used(self, token: Token, now: float) -> None:
        if token.last_used_at is not None and now - token.last_used_at < NOTE_USE_EVERY_S:
            return
        await self._db.write(
            f"""UPDATE token SET last_used_at = :now
                WHERE id = :id AND (last_used_at IS NULL OR last_used_at <= :before)
                  AND {self._scope.condition("token")}""",
            id=token.id,
            now=now,
            before=now - NOTE_USE_EVERY_S,
            **self._scope.values,
        )


def _convert_owner(row: Row) -> Owner:
    limits = OwnerLimits(row["max_concurrent"], row["daily_budget_usd"], row["starts_per_minute"])
    return Owner(row["name"], limits, row["key_ref"] or "")


def _convert_tokens(rows: Sequence[Row]) -> list[Token]:
    return [Token(**{name: row[name] for name in Token._fields}) for row in rows]
