"""Turn the errors of SQLite and the file system into errors whose code leads to their fix."""

import re
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from agent_jobs.errors import StoreError

#: Words for unreadable content.
_DAMAGE = "malformed|not a database"
#: Words for other failures, each with the problem and its code; the first that fit count.
_FAILURES = (
    ("locked|busy", "The database in {folder} is locked by another program ({cause}).", "database_locked"),
    ("full|No space", "The disk of {folder} is full ({cause}).", "disk_full"),
    ("", "The database in {folder} cannot be used ({cause}).", "database_unusable"),
)


@contextmanager
def as_store_error(folder: Path) -> Generator[None]:
    """Raise StoreError with a code for what SQLite and the file system raise in this folder."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a defect of agent-jobs: no advice about the folder would help
    except (sqlite3.Error, OSError) as error:
        raise _explain_failure(error, folder) from error


def damage_error(error: Exception, folder: Path) -> StoreError:
    """Return the error for a database with unreadable content."""
    return StoreError("{path} is damaged ({cause}).", "database_damaged", path=folder / "jobs.db", cause=error)


def _explain_failure(error: Exception, folder: Path) -> StoreError:
    if re.search(_DAMAGE, str(error)):
        return damage_error(error, folder)
    problem, code = next((problem, code) for words, problem, code in _FAILURES if re.search(words, str(error)))
    return StoreError(problem, code, folder=folder, cause=error)
