"""Keeps the tokens of a team server."""

from collections.abc import Sequence

from agent_jobs.store.database import Row, StorePart
from agent_jobs.store.team_records import TokenRecord

_COLUMNS = "id, hash, owner, note, created_at, expires_at, revoked_at, last_used_at"


class Tokens(StorePart):
    """`TokenRecords` on any database."""

    async def add_token(self, token: TokenRecord) -> None:
        await self._db.write(
            f"""INSERT INTO token ({_COLUMNS})
                VALUES (:id, :hash, :owner, :note, :created_at, :expires_at, :revoked_at, :last_used_at)""",
            **token._asdict(),
        )

    async def find_token(self, token_hash: str) -> TokenRecord | None:
        rows = await self._db.fetch(f"SELECT {_COLUMNS} FROM token WHERE hash = :hash", hash=token_hash)
        return next(map(_read_token_row, rows), None)

    async def list_tokens(self) -> Sequence[TokenRecord]:
        rows = await self._db.fetch(f"SELECT {_COLUMNS} FROM token ORDER BY created_at, id")
        return [_read_token_row(row) for row in rows]

    async def revoke_token(self, token_id: str, now: float) -> bool:
        rows = await self._db.write(
            "UPDATE token SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL RETURNING id",
            id=token_id,
            now=now,
        )
        return bool(rows)

    async def mark_token_used(self, token_id: str, now: float) -> None:
        await self._db.write("UPDATE token SET last_used_at = :now WHERE id = :id", id=token_id, now=now)


def _read_token_row(row: Row) -> TokenRecord:
    return TokenRecord(*(row[name] for name in _COLUMNS.split(", ")))
