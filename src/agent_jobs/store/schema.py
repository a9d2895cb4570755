"""Upgrade a database file of any older version to the schema of this version."""

import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path

import aiosqlite
import anyio

from agent_jobs.errors import StoreError
from agent_jobs.jobs.response import JSON
from agent_jobs.jobs.stored_request import effort_of, model_of, parse_request, prompt_of
from agent_jobs.text import valid_unicode

#: Version of schema.sql, which a database stores as its user_version.
SCHEMA_VERSION = 11
#: The tables of the search index, which are not part of the schema: the texts, and all words of them.
SEARCH_INDEX, SEARCH_TERMS = "job_search", "search_term"
#: Seconds between two attempts to switch to WAL.
WAL_RETRY_S = 0.02
#: Tables whose rows an upgrade copies, in this order. The tally is counted by its triggers.
_COPIED_TABLES = (
    "job",
    "turn",
    "request",
    "prompt",
    "step",
    "output",
    "call",
    "upload",
    "made",
    "event",
    "tombstone",
    "mode",
    "owner",
    "token",
    "audit",
    "webhook",
    "feed",
    "subscription",
    "callback",
    "shelf",
)
#: Statements that fill columns which an older version did not have, in this order.
_FILL_UPS = {
    "request.body": "INSERT INTO request (job_id, turn, body) SELECT job_id, number, request FROM old_turn",
    "output.bytes": "UPDATE output SET bytes = length(CAST(text AS BLOB))",
    "turn.rebuilt": """UPDATE turn SET rebuilt = 1
                       WHERE number = 1 AND job_id IN (SELECT id FROM job WHERE context = 'rebuilt')""",
    "job.model": """UPDATE job SET (model, effort) = (SELECT model_of(body), effort_of(body) FROM request
                                                      WHERE job_id = job.id AND turn = 1)
                    WHERE id IN (SELECT job_id FROM request WHERE turn = 1)""",
    "prompt.text": """INSERT INTO prompt (job_id, text) SELECT id, prompt_of(body)
                      FROM job JOIN request ON job_id = id AND request.turn = 1 ORDER BY created_at, id""",
    "turn.cost_usd": """UPDATE turn SET (usage, cost_usd) = (SELECT usage, cost_usd FROM job WHERE id = job_id)
                        WHERE number = 1 AND job_id IN (SELECT id FROM job WHERE turn = 1)""",
    "job.running_since": "UPDATE job SET running_since = (SELECT MAX(sent_at) FROM turn WHERE job_id = job.id)",
}


async def migrate(db: aiosqlite.Connection, path: Path) -> None:
    """Create the tables in a new database, or copy those of an older version into new ones, all or none."""
    if await _read_version(db) == SCHEMA_VERSION:
        return
    async with immediate_transaction(db):
        version = await _read_version(db)
        if version > SCHEMA_VERSION:
            raise StoreError(
                "{path} was written by a newer agent-jobs (schema {version}, this one knows {known}).",
                "database_newer",
                path=path,
                version=version,
                known=SCHEMA_VERSION,
            )
        if version == 0:
            await _create_tables(db)
        elif version < SCHEMA_VERSION:
            await _upgrade_tables(db)
        await db.execute_fetchall(f"PRAGMA user_version = {SCHEMA_VERSION}")


@asynccontextmanager
async def immediate_transaction(db: aiosqlite.Connection) -> AsyncGenerator[None]:
    """Run the body in one transaction, during which no other process can write; roll it back after an error."""
    await db.execute_fetchall("BEGIN IMMEDIATE")
    try:
        yield
        await db.execute_fetchall("COMMIT")
    except BaseException:
        with anyio.CancelScope(shield=True):
            if db.in_transaction:  # a failed COMMIT may already have rolled back
                await db.execute_fetchall("ROLLBACK")
        raise


async def enable_write_ahead_log(db: aiosqlite.Connection, timeout_s: float) -> None:
    """Switch to WAL, which SQLite refuses at once, without its busy timeout, while another process does the same."""
    give_up_at = anyio.current_time() + timeout_s
    while True:
        try:
            await db.execute_fetchall("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or anyio.current_time() > give_up_at:
                raise
        await anyio.sleep(WAL_RETRY_S)


async def column_names(db: aiosqlite.Connection, table: str, schema: str = "main") -> list[str]:
    """Return the columns of a table; empty if there is no such table."""
    rows = await db.execute_fetchall("SELECT name FROM pragma_table_info(?, ?)", (table, schema))
    return [row[0] for row in rows]


async def _create_tables(db: aiosqlite.Connection) -> None:
    for statement in _split_statements(resources.files("agent_jobs.store").joinpath("schema.sql").read_text()):
        await db.execute_fetchall(statement)


async def _upgrade_tables(db: aiosqlite.Connection) -> None:
    """Put the old tables aside, create the new ones, and copy the columns that both have."""
    old_tables = await _put_tables_aside(db)
    await _create_tables(db)
    await _add_request_functions(db)
    new_columns = [f"{table}.{name}" for table in _COPIED_TABLES for name in await _copy_rows(db, table)]
    for column, statement in _FILL_UPS.items():
        if column in new_columns:
            await db.execute_fetchall(statement)
    for table in reversed(old_tables):
        await db.execute_fetchall(f"DROP TABLE old_{table}")


async def _add_request_functions(db: aiosqlite.Connection) -> None:
    """Let SQL read the prompt, model and effort in the body of a request."""
    for function in (prompt_of, model_of, effort_of):
        await db.create_function(  # pyright: ignore[reportUnknownMemberType]
            function.__name__, 1, partial(_read_body, function), deterministic=True
        )


def _read_body(read: Callable[[JSON], str], body: str) -> str:
    return valid_unicode(read(parse_request(body)))


async def _put_tables_aside(db: aiosqlite.Connection) -> list[str]:
    """Rename all tables, without their indexes, triggers and views, and return their names before that.

    The search index is dropped: it is made again when it is next needed.
    """
    for table in (SEARCH_INDEX, SEARCH_TERMS):
        await db.execute_fetchall(f"DROP TABLE IF EXISTS {table}")
    parts = list(await db.execute_fetchall("SELECT type, name FROM sqlite_schema WHERE sql IS NOT NULL"))
    for kind, name in parts:
        if kind in ("index", "trigger", "view"):
            await db.execute_fetchall(f"DROP {kind} {name}")
    tables = [name for kind, name in parts if kind == "table"]
    for table in tables:
        await db.execute_fetchall(f"ALTER TABLE {table} RENAME TO old_{table}")
    return tables


async def _copy_rows(db: aiosqlite.Connection, table: str) -> list[str]:
    """Copy the columns that the old table has, and return the others."""
    columns, old_columns = await column_names(db, table), await column_names(db, f"old_{table}")
    shared = ", ".join(name for name in columns if name in old_columns)
    if shared:
        await db.execute_fetchall(f"INSERT INTO {table} ({shared}) SELECT {shared} FROM old_{table}")
    return [name for name in columns if name not in old_columns]


async def _read_version(db: aiosqlite.Connection) -> int:
    return next(iter(await db.execute_fetchall("PRAGMA user_version")))[0]


def _split_statements(script: str) -> Iterator[str]:
    """Yield the statements of a script: `executescript` would commit the transaction around them."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
