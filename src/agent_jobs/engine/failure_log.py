"""Log the failures of work for which no caller waits, so that the work continues."""

from collections.abc import Generator
from contextlib import contextmanager
from logging import Logger

from agent_jobs.errors import StoreError


@contextmanager
def log_store_errors(logger: Logger, message: str, *facts: object) -> Generator[None]:
    """Log an error of the database instead of raising it, in one line: `message` has a place for it after `facts`."""
    try:
        yield
    except StoreError as error:
        logger.warning(message, *facts, error)


@contextmanager
def log_failures(logger: Logger, store_message: str, message: str, *facts: object) -> Generator[None]:
    """Log any error instead of raising it: one of the database in one line, others, which are defects, in full."""
    try:
        with log_store_errors(logger, store_message, *facts):
            yield
    except Exception:
        logger.exception(message, *facts)
