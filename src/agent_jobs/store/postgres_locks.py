"""Begin a transaction and take its locks in one round trip, because most changes need only a few statements."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from agent_jobs.store.postgres_errors import ANY_ERROR

if TYPE_CHECKING:
    from agent_jobs.store.postgres_errors import PostgresConnection

#: Ids that can stand in a statement: a text of several statements has no parameters.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_LOCK_JOBS = "SELECT 1 FROM job WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE"


@asynccontextmanager
async def locking_transaction(
    connection: PostgresConnection, names: Sequence[str], job_ids: Sequence[str], *, is_shared: bool = False
) -> AsyncGenerator[None]:
    """Run what follows in a transaction that holds these advisory locks, and then the rows of these jobs."""
    lock = "pg_advisory_xact_lock"
    if is_shared:
        lock = "pg_advisory_xact_lock_shared"
    opening = ["BEGIN", *(f"SELECT {lock}({_hash_name(name)})" for name in names)]
    are_plain = all(map(_PLAIN_ID.fullmatch, job_ids))
    if job_ids and are_plain:
        listed = ", ".join(f"'{job_id}'" for job_id in job_ids)
        opening.append(f"SELECT 1 FROM job WHERE id IN ({listed}) ORDER BY id FOR UPDATE")
    try:
        await connection.execute("; ".join(opening))
        if not are_plain:
            await connection.fetch(_LOCK_JOBS, list(job_ids))
        yield
        await connection.execute("COMMIT")
    except BaseException:
        await _roll_back(connection)
        raise


async def _roll_back(connection: PostgresConnection) -> None:
    """Roll back, or give the connection up: the pool must not lend one inside a transaction."""
    try:
        await connection.execute("ROLLBACK")
    except ANY_ERROR:
        connection.terminate()


def _hash_name(name: str) -> int:
    """Return the number of the advisory lock with this name, which is the same in all processes."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
