"""How a database file comes to have the schema of this version."""

import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import aiosqlite
import anyio

from agent_jobs.errors import StoreError


async def migrate(db: aiosqlite.Connection, path: Path) -> None:
    """Apply the numbered SQL files that this database has not seen, all or none."""
    scripts = sorted(entry.name for entry in resources.files("agent_jobs.store").joinpath("migrations").iterdir())
    newest = int(scripts[-1].partition("_")[0])
    if await _version(db) == newest:
        return
    await db.execute_fetchall("BEGIN IMMEDIATE")
    try:
        version = await _version(db)
        if version > newest:
            raise StoreError(
                f"{path} was written by a newer agent-jobs (schema {version}, this one knows {newest}): "
                "update agent-jobs, or set AGENT_JOBS_DATA_DIR to another folder."
            )
        for script in scripts[version:]:
            for statement in _statements(
                resources.files("agent_jobs.store").joinpath("migrations", script).read_text()
            ):
                await db.execute_fetchall(statement)
        await db.execute_fetchall(f"PRAGMA user_version = {newest}")
        await db.execute_fetchall("COMMIT")
    except BaseException:
        with anyio.CancelScope(shield=True):
            if db.in_transaction:
                await db.execute_fetchall("ROLLBACK")
        raise


async def write_ahead(db: aiosqlite.Connection, timeout_s: float) -> None:
    """Switch to WAL, which SQLite refuses at once, without its busy timeout, while another process does the same."""
    give_up_at = anyio.current_time() + timeout_s
    while True:
        try:
            await db.execute_fetchall("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or anyio.current_time() > give_up_at:
                raise
        await anyio.sleep(0.02)


async def _version(db: aiosqlite.Connection) -> int:
    return next(iter(await db.execute_fetchall("PRAGMA user_version")))[0]


def _statements(script: str) -> Iterator[str]:
    """The statements of a script: `executescript` would commit the transaction that they belong in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
