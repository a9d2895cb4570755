"""Retrieve the jobs that no process observes, for a command that only reads."""

import logging
import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import anyio
from anyio.from_thread import run_sync
from anyio.lowlevel import current_token

from agent_jobs.clock import Clock
from agent_jobs.engine.failure_log import log_failures
from agent_jobs.engine.finalize import Finalizer
from agent_jobs.engine.resend import Resender
from agent_jobs.engine.retrieve import RetrieveOutcome, retrieve
from agent_jobs.errors import MissingError
from agent_jobs.jobs.job import Job
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

#: Variables that send requests through a proxy.
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


class UnwatchedRetriever:
    """Retrieves jobs that no process observes, for a command that only reads.

    It sends nothing but GETs: it launches, cancels and deletes nothing, and leaves calls of tools and further turns to
    the next process that works on the job. It claims no job.
    """

    def __init__(self, store: Store, client: ResponsesClient, clock: Clock, finalizer: Finalizer) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._finalizer = finalizer
        self._resender = Resender(store, client, clock, finalizer)
        self._retrieved: dict[str, Job] = {}
        self._saving = anyio.Lock()
        self._has_store_failed = False

    async def retrieve(self, jobs: Sequence[Job], limit_s: float) -> dict[str, Job]:
        """Retrieve the jobs side by side and save them; return those that upstream answered in time.

        Args:
            jobs: They have response ids and no open calls, and no process observes them. Requests may be left out.
            limit_s: Real seconds for all that waits for upstream.
        """
        with anyio.move_on_after(limit_s):
            await _resolve_host(self._client.endpoint.base_url)
            async with anyio.create_task_group() as tasks:
                for job in jobs:
                    tasks.start_soon(self._retrieve_job, job)
        return self._retrieved

    async def _retrieve_job(self, job: Job) -> None:
        """Retrieve and save one job; its failures do not stop the others."""
        with log_failures(logger, "%s: %s", "%s: cannot be retrieved", job.id):
            outcome = await self._retrieve_whole(job.id)
            seen = _select_usable(outcome)
            if seen is None:
                return
            if await self._resender.find_rewritten(seen) is not None:
                return  # the next process that works on the job sends its turn again
            saved = await self._save_once(seen)
            if saved is None:
                return  # another process was first
            if outcome.error is None:
                self._retrieved[job.id] = saved
            await self._finalize_ended(saved)

    async def _retrieve_whole(self, job_id: str) -> RetrieveOutcome:
        """Retrieve a job with its request; return an outcome without a job if another process was first."""
        job = await self._store.get(job_id)
        if job is None or not job.can_be_retrieved:
            return RetrieveOutcome(None)
        return await retrieve(self._client, self._clock, job)

    async def _finalize_ended(self, job: Job) -> None:
        if not job.is_terminal:
            return
        logger.info("%s: finished, %s", job.id, job.status)
        if job.needs_finalizing:
            await self._finalizer.finalize(job, delete_uploads=False)

    async def _save_once(self, job: Job) -> Job | None:
        """Save a job, unless an earlier write failed: the command waits for a locked database only once."""
        with anyio.CancelScope(shield=True):  # an answer that arrived in time must be stored
            job = await self._finalizer.prepare_end(job)
            async with self._saving:
                if self._has_store_failed:
                    return None
                self._has_store_failed = True
                saved = await self._store.save(job, held=False)
                self._has_store_failed = False
                return saved
        return None


def _select_usable(outcome: RetrieveOutcome) -> Job | None:
    """Return the job if the GET showed anything of its run."""
    if outcome.error is None or isinstance(outcome.error, MissingError):
        return outcome.job
    return None


async def _resolve_host(base_url: str) -> None:
    """Return once the resolver has answered for a host, even if it failed.

    A lookup cannot be stopped. A thread of the pool would delay the end of the process; this daemon thread does not.
    """
    if any(os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES):
        return  # the proxy resolves the host
    answered, token, host = anyio.Event(), current_token(), urlsplit(base_url).hostname

    def resolve_in_thread() -> None:
        with suppress(OSError, UnicodeError):  # the GET meets the same error and reports it
            socket.getaddrinfo(host, None)
        with suppress(RuntimeError):  # the command ended before the lookup
            run_sync(answered.set, token=token)

    threading.Thread(target=resolve_in_thread, daemon=True).start()
    await answered.wait()
