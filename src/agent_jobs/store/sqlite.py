"""Combine the parts of the store over one SQLite database."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from agent_jobs.store.audit_log import AuditLog
from agent_jobs.store.callbacks import Callbacks
from agent_jobs.store.changes import Changes
from agent_jobs.store.claims import Claims
from agent_jobs.store.event_feeds import EventFeeds
from agent_jobs.store.housekeeping import Housekeeping
from agent_jobs.store.job_writes import JobWrites
from agent_jobs.store.metrics import MetricsQueries
from agent_jobs.store.owners import Owners
from agent_jobs.store.provider_webhooks import ProviderWebhooks
from agent_jobs.store.reports import Reports
from agent_jobs.store.search_index import SearchIndex
from agent_jobs.store.sqlite_database import open_database
from agent_jobs.store.team_files import TeamFiles
from agent_jobs.store.tokens import Tokens
from agent_jobs.store.traces import Traces


class SQLiteStore(
    JobWrites,
    Claims,
    Changes,
    SearchIndex,
    Reports,
    Housekeeping,
    Owners,
    Tokens,
    AuditLog,
    ProviderWebhooks,
    Callbacks,
    EventFeeds,
    TeamFiles,
    MetricsQueries,
    Traces,
):
    """`Store` on SQLite: see the protocols for what each method promises."""


@asynccontextmanager
async def open_sqlite(folder: Path, busy_timeout_s: float) -> AsyncGenerator[SQLiteStore]:
    """Open the store in this folder; see `open_store`."""
    async with open_database(folder, busy_timeout_s) as database:
        yield SQLiteStore(database)
