"""Combine the parts of the store over one PostgreSQL database."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from agent_jobs.store.audit_log import AuditLog
from agent_jobs.store.callbacks import Callbacks
from agent_jobs.store.changes import Changes
from agent_jobs.store.claims import Claims
from agent_jobs.store.event_feeds import EventFeeds
from agent_jobs.store.housekeeping import Housekeeping
from agent_jobs.store.job_writes import JobWrites
from agent_jobs.store.metrics import MetricsQueries
from agent_jobs.store.owners import Owners
from agent_jobs.store.postgres_address import PostgresAddress
from agent_jobs.store.postgres_database import open_database
from agent_jobs.store.postgres_search import PostgresSearch
from agent_jobs.store.provider_webhooks import ProviderWebhooks
from agent_jobs.store.reports import Reports
from agent_jobs.store.team_files import TeamFiles
from agent_jobs.store.tokens import Tokens
from agent_jobs.store.traces import Traces


class PostgresStore(
    JobWrites,
    Claims,
    Changes,
    PostgresSearch,
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
    """`Store` on PostgreSQL: see the protocols for what each method promises."""


@asynccontextmanager
async def open_postgres(address: PostgresAddress) -> AsyncGenerator[PostgresStore]:
    """Open the store at this address; see `open_store`."""
    async with open_database(address) as database:
        yield PostgresStore(database)
