"""Turns the errors of SQLite and the file system into sentences that say what to do."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from agent_jobs.errors import StoreError


@contextmanager
def as_store_error(folder: Path) -> Generator[None]:
    """Raise StoreError with advice for what SQLite and the file system raise in this folder."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a defect of ours: no advice about the folder would help
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{_error_advice(error, folder)} ({error})") from error


def damage_advice(folder: Path) -> str:
    """Return what to do about a database that holds nonsense."""
    return f"{folder / 'jobs.db'} is damaged: move it away, or set AGENT_JOBS_DATA_DIR to another folder"


def _error_advice(error: Exception, folder: Path) -> str:
    words = str(error)
    if "locked" in words or "busy" in words:
        return f"The database in {folder} is locked by another program: close it, then try again"
    if "full" in words or "No space" in words:
        return f"The disk of {folder} is full: free some space, then try again; no job is lost"
    if "malformed" in words or "not a database" in words:
        return damage_advice(folder)
    return f"The database in {folder} cannot be used: make the folder writable or set AGENT_JOBS_DATA_DIR to another"
