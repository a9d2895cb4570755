"""Find the database of the settings; upgrade a PostgreSQL database, and import jobs into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_jobs.clock import Clock
from agent_jobs.errors import ConfigError

if TYPE_CHECKING:  # SQLite, the default, does without them
    from pathlib import Path

    from agent_jobs.settings.settings import Settings
    from agent_jobs.store.base import Store
    from agent_jobs.store.job_import import ImportCounts
    from agent_jobs.store.postgres_address import PostgresAddress
    from agent_jobs.store.postgres_schema import SchemaState


def find_postgres(settings: Settings) -> PostgresAddress | None:
    """Return the address of the PostgreSQL database; None if the jobs are in a file.

    Raises:
        ConfigError: The file with its password cannot be read.
    """
    if settings.database_url is None:
        return None
    from agent_jobs.settings.secret_values import read_password_file
    from agent_jobs.store.postgres_address import PostgresAddress

    listen_url, password_file = settings.database_listen_url, settings.database_password_file
    return PostgresAddress(
        settings.database_url.get_secret_value(),
        listen_url and listen_url.get_secret_value(),
        password_file and read_password_file(password_file),
        settings.pool,
    )


def find_made_folder(settings: Settings) -> Path:
    """Return the folder of the files that jobs make."""
    return settings.result_dir or settings.data_path() / "made"


async def follow_database(store: Store, clock: Clock) -> Clock:
    """Return the clock of the database if there is one: those of several machines may disagree."""
    before = clock.now()
    time = await store.read_clock()
    if time is None:
        return clock
    return clock.shifted(time - (before + clock.now()) / 2)


async def upgrade_database(settings: Settings) -> SchemaState:
    """Bring the schema of the PostgreSQL database up to date; return its version before, and after.

    Raises:
        ConfigError: No such database is set.
        StoreError: It cannot be used.
    """
    address = _require_postgres(settings)
    from agent_jobs.store.postgres_schema import upgrade

    return await upgrade(address)


async def read_schema_state(settings: Settings) -> SchemaState:
    """Return the version of the schema of the PostgreSQL database, and the one that this program needs."""
    address = _require_postgres(settings)
    from agent_jobs.store import postgres_schema

    return await postgres_schema.read_schema_state(address)


async def import_job_file(settings: Settings, path: Path, owner: str | None, is_dry_run: bool) -> ImportCounts:
    """Move the jobs of a SQLite file into the PostgreSQL database, or only count them.

    Raises:
        ConfigError: No such database is set.
        StoreError: There is no such file, a process works on it, or a database cannot be used.
    """
    if find_postgres(settings) is None:
        raise ConfigError(
            "AGENT_JOBS_DATABASE_URL is not set, so there is no PostgreSQL database to import into.", "no_import_target"
        )
    address = _require_postgres(settings)
    from agent_jobs.engine.owner_files import MADE_BYTES, create_made_id
    from agent_jobs.store.job_import import JobImport, import_jobs

    order = JobImport(path, address, find_made_folder(settings), owner, Clock().now(), create_made_id, MADE_BYTES)
    return await import_jobs(order, is_dry_run=is_dry_run)


def _require_postgres(settings: Settings) -> PostgresAddress:
    from agent_jobs.store.postgres_address import check_extra

    address = find_postgres(settings)
    if address is None:
        raise ConfigError(
            "AGENT_JOBS_DATABASE_URL is not set, so the jobs are in a file, which each version upgrades by itself.",
            "no_postgres",
        )
    check_extra()
    return address
