"""Where the jobs of a run are kept: in a file that the servers share, or in PostgreSQL, each with its own folder."""

import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import asyncpg
from postgres_server import new_database, running_template

from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

KINDS = ("sqlite", "postgresql")
_ROWS = "SELECT id, title, status FROM job"


class JobDatabase(Protocol):
    """A database as the driver of a run uses it."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables by which a server finds it."""
        ...

    def data_dir(self, window: str) -> Path:
        """Return the data folder of a window's server."""
        ...

    def settings(self, settings: Settings) -> Settings:
        """Return settings that name it."""
        ...

    async def read_rows(self) -> dict[str, tuple[str, str]]:
        """Return the title and status of all jobs, by their ids."""
        ...


@dataclass(frozen=True)
class JobFile:
    """`jobs.db` in a folder."""

    folder: Path

    @property
    def environment(self) -> Mapping[str, str]:
        return {}

    def data_dir(self, window: str) -> Path:
        return self.folder

    def settings(self, settings: Settings) -> Settings:
        return replace(settings, data_dir=self.folder)

    async def read_rows(self) -> dict[str, tuple[str, str]]:
        with closing(sqlite3.connect(self.folder / "jobs.db")) as db:
            return {job_id: (title, status) for job_id, title, status in db.execute(_ROWS)}


@dataclass(frozen=True)
class SharedDatabase:
    """A PostgreSQL database, whose replicas share no folder, as if each were on a machine of its own."""

    url: str
    folder: Path

    @property
    def environment(self) -> Mapping[str, str]:
        return {"AGENT_JOBS_DATABASE_URL": self.url}

    def data_dir(self, window: str) -> Path:
        return self.folder / f"machine-{window}"

    def settings(self, settings: Settings) -> Settings:
        return replace(settings, data_dir=self.folder / "driver", database_url=SecretStr(self.url))

    async def read_rows(self) -> dict[str, tuple[str, str]]:
        connection = await asyncpg.connect(self.url)
        try:
            return {row["id"]: (row["title"], row["status"]) for row in await connection.fetch(_ROWS)}
        finally:
            await connection.close()


@contextmanager
def open_job_database(kind: str, folder: Path) -> Generator[JobDatabase]:
    """Yield the database of a run; of PostgreSQL a new one, on a server that is started for it or is named."""
    if kind == "sqlite":
        yield JobFile(folder)
        return
    with running_template() as server, new_database(server) as url:
        yield SharedDatabase(url, folder)
