"""When the file of an open database is taken away: the open one still has every job, and they are carried over."""

import json
import logging
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiosqlite

logger = logging.getLogger(__name__)

#: What belongs to a job, by the column that names it; a job's own row goes first.
_PARTS = {
    "job": "id",
    "turn": "job_id",
    "request": "job_id",
    "output": "job_id",
    "event": "job_id",
    "upload": "job_id",
    "made": "job_id",
    "call": "job_id",
}


def identity(path: Path) -> tuple[int, int] | None:
    """Which file stands at a path; None where none can be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_database(path: Path) -> None:
    """Raise where a file stands at this path that is no database, before anything beside it is touched."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        if file.read(16) not in (b"", b"SQLite format 3\0"):
            raise sqlite3.DatabaseError("file is not a database")


async def carry_over(db: aiosqlite.Connection, path: Path, me: str) -> None:
    """Write the jobs of an open database into the one that now stands at its path, which has our schema.

    A job that both have is taken from where it went on last, so that several processes may carry over the same jobs,
    and none of them takes a right to POST back that another has used. What damage makes unreadable is left behind.
    """
    await _run(db, "ATTACH :path AS there", path=str(path))
    try:
        try:
            newer = await _run(
                db,
                """SELECT mine.id FROM main.job AS mine LEFT JOIN there.job AS theirs ON theirs.id = mine.id
                   WHERE theirs.id IS NULL OR mine.revision > theirs.revision
                      OR mine.revision = theirs.revision AND mine.holder = :me""",
                me=me,
            )
            await _carry(db, [row[0] for row in newer])
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                raise
            await _salvage(db)
    finally:
        await _run(db, "DETACH there")


async def _salvage(db: aiosqlite.Connection) -> None:
    """Carry over, one by one, the jobs that a damaged database still gives."""
    try:
        ids = [row[0] for row in await _run(db, "SELECT id FROM main.job EXCEPT SELECT id FROM there.job")]
    except sqlite3.DatabaseError as error:
        logger.error("no job can be read from the damaged database: %s", error)
        return
    for job_id in ids:
        try:
            await _carry(db, [job_id])
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                raise
            logger.error("%s: cannot be read from the damaged database: %s", job_id, error)


async def _carry(db: aiosqlite.Connection, ids: list[str]) -> None:
    """Copy these jobs whole, in one transaction."""
    listed = json.dumps(ids)
    await _run(db, "BEGIN IMMEDIATE")
    try:
        these = "IN (SELECT value FROM json_each(:ids))"
        await _run(db, f"DELETE FROM there.job WHERE id {these}", ids=listed)
        # A caller's key names one job in a database.
        await _run(
            db, f"UPDATE main.job SET key = NULL WHERE id {these} AND key IN (SELECT key FROM there.job)", ids=listed
        )
        for table, column in _PARTS.items():
            await _run(db, f"INSERT INTO there.{table} SELECT * FROM main.{table} WHERE {column} {these}", ids=listed)
        await _run(db, "COMMIT")
    except BaseException:
        if db.in_transaction:
            await _run(db, "ROLLBACK")
        raise


async def _run(db: aiosqlite.Connection, sql: str, **values: Any) -> list[sqlite3.Row]:
    return list(await db.execute_fetchall(sql, values))


def _damaged(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
