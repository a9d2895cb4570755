"""Upgrade a PostgreSQL database to the schema of this version: numbered scripts, each run once."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from agent_jobs.errors import StoreError
from agent_jobs.store.postgres_address import PostgresAddress
from agent_jobs.store.postgres_errors import as_postgres_error

if TYPE_CHECKING:
    from agent_jobs.store.postgres_errors import PostgresConnection

#: The advisory lock of an upgrade.
_UPGRADE_LOCK = "hashtextextended('agent-jobs upgrade', 0)"


class Script(NamedTuple):
    """One step from a version of the schema to the next one."""

    version: int
    text: str


class SchemaState(NamedTuple):
    """The version of a database's schema, and the one that this program needs."""

    version: int  #: 0 if there is none
    needed: int


def read_scripts() -> list[Script]:
    """Return the scripts in their order."""
    folder = resources.files("agent_jobs.store").joinpath("postgres_sql")
    found = [(file.name, file.read_text()) for file in folder.iterdir() if file.name.endswith(".sql")]
    return [Script(int(name.removesuffix(".sql")), text) for name, text in sorted(found)]


async def upgrade(address: PostgresAddress) -> SchemaState:
    """Upgrade the schema completely or not at all; a second upgrade at the same time waits and has nothing to do.

    Returns the version before, and the one after.

    Raises:
        StoreError: A newer version wrote the schema, or the database cannot be used.
    """
    with as_postgres_error(address):
        connection = await asyncpg.connect(**address.listen_arguments)
        try:
            async with connection.transaction():
                await connection.execute(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})")
                state = await _read_schema_state(connection)
                check_not_newer(state, address)
                for script in _missing_scripts(state):
                    await connection.execute(script.text)
                    await connection.execute("INSERT INTO schema_version (version) VALUES ($1)", script.version)
            return state
        finally:
            await connection.close()


async def read_schema_state(address: PostgresAddress) -> SchemaState:
    """Return the version of the schema, and the one that this program needs."""
    with as_postgres_error(address):
        connection = await asyncpg.connect(**address.listen_arguments)
        try:
            return await _read_schema_state(connection, creates=False)
        finally:
            await connection.close()


async def check_schema(connection: PostgresConnection, address: PostgresAddress) -> int:
    """Return the version of the schema.

    Raises:
        StoreError: It is not the one that this program needs.
    """
    state = await _read_schema_state(connection, creates=False)
    check_not_newer(state, address)
    if state.version < state.needed:
        found = f"has schema {state.version} of agent-jobs" if state.version else "has no tables of agent-jobs yet"
        raise StoreError(
            "The {address} {found}, and this version needs schema {needed}.",
            "postgres_older",
            address=address,
            found=found,
            needed=state.needed,
        )
    return state.version


def check_not_newer(state: SchemaState, address: PostgresAddress) -> None:
    """Raise StoreError if a newer version wrote the schema."""
    if state.version > state.needed:
        raise StoreError(
            "The {address} was upgraded by a newer agent-jobs (schema {version}, this one knows {needed}).",
            "postgres_newer",
            address=address,
            version=state.version,
            needed=state.needed,
        )


async def _read_schema_state(connection: PostgresConnection, *, creates: bool = True) -> SchemaState:
    if creates:
        await connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY)")
    needed = read_scripts()[-1].version
    if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
        return SchemaState(0, needed)
    return SchemaState(await connection.fetchval("SELECT COALESCE(MAX(version), 0) FROM schema_version"), needed)


def _missing_scripts(state: SchemaState) -> Iterator[Script]:
    return (script for script in read_scripts() if script.version > state.version)
