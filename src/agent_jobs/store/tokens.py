"""Store the tokens of a team server."""

from collections.abc import Sequence
from typing import Any

from agent_jobs.store.database import Row, StorePart
from agent_jobs.store.team_records import TokenRecord

_COLUMNS = "id, hash, owner, note, created_at, expires_at, revoked_at, last_used_at"


class Tokens(StorePart):
    """`TokenRecords` on any database."""

    async def add_token(self, token: TokenRecord) -> None:
        await self._db.write(
            f"""INSERT INTO token ({_COLUMNS})
                SELECT :id, :hash, new.owner, :note, :created_at, :expires_at, :revoked_at, :last_used_at
                FROM (SELECT :token_owner AS owner) AS new WHERE {self._scope.condition("new")}""",
            **self._scope.values,
            **_token_values(token),
        )

    async def find_token(self, token_hash: str) -> TokenRecord | None:
        rows = await self._db.fetch(
            f"SELECT {_COLUMNS} FROM token WHERE hash = :hash AND {self._scope.condition('token')}",
            hash=token_hash,
            **self._scope.values,
        )
        return next(map(_read_token_row, rows), None)

    async def list_tokens(self) -> Sequence[TokenRecord]:
        rows = await self._db.fetch(
            f"SELECT {_COLUMNS} FROM token WHERE {self._scope.condition('token')} ORDER BY created_at, id",
            **self._scope.values,
        )
        return [_read_token_row(row) for row in rows]

    async def revoke_token(self, token_id: str, now: float) -> bool:
        rows = await self._db.write(
            f"""UPDATE token SET revoked_at = :now
                WHERE id = :id AND revoked_at IS NULL AND {self._scope.condition("token")} RETURNING id""",
            id=token_id,
            now=now,
            **self._scope.values,
        )
        return bool(rows)

    async def mark_token_used(self, token_id: str, now: float) -> None:
        await self._db.write(
            f"UPDATE token SET last_used_at = :now WHERE id = :id AND {self._scope.condition('token')}",
            id=token_id,
            now=now,
            **self._scope.values,
        )


def _token_values(token: TokenRecord) -> dict[str, Any]:
    """Return the values of a new row; `:owner` is that of the store's scope."""
    values = token._asdict()
    return {"token_owner": values.pop("owner"), **values}


def _read_token_row(row: Row) -> TokenRecord:
    return TokenRecord(*(row[name] for name in _COLUMNS.split(", ")))
