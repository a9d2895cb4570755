"""GETs of responses: one for the step of a job, and several for the jobs that no process observes."""

import logging
import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio
from anyio.from_thread import run_sync
from anyio.lowlevel import current_token

from agent_jobs.clock import Clock
from agent_jobs.engine.finalize import Finalizer
from agent_jobs.engine.resend import Resender
from agent_jobs.errors import AccountError, MissingError, StoreError, UpstreamError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.status import Status
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

#: Upstream may ask not to be retrieved from, but not for so long that a result could be gone.
MAX_ASKED_WAIT_S = 120.0
#: Variables with which requests go through a proxy.
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


class RetrieveOutcome(NamedTuple):
    """A job as a GET of its response shows it, and what the GET said beside that."""

    job: Job | None  #: None where only another key can see the response
    not_before_s: float = 0.0  #: upstream asks not to be asked again sooner
    error: UpstreamError | None = None  #: why there was no response object


async def retrieve(client: ResponsesClient, clock: Clock, job: Job) -> RetrieveOutcome:
    """GET a job's response and take in what it shows; no failure of that ends a job, unless it is not there."""
    now = clock.now()
    try:
        look = await client.retrieve(job.turn.response_id or "")
    except (MissingError, AccountError) as error:
        if job.turn.fingerprint not in ("", client.endpoint.fingerprint):
            return RetrieveOutcome(None, error=error)  # whoever has its key can see it
        seen = (
            job.mark_not_found(now)
            if isinstance(error, MissingError)
            else job.mark_unreachable(f"cannot look: {error}", now)
        )
        return RetrieveOutcome(seen, error=error)
    except UpstreamError as error:
        lost = job.turn.mode == "foreground" and is_not_served(error)
        seen = job.mark_not_found(now) if lost else job.mark_unreachable(f"cannot look: {error}", now)
        if error.code == "not_a_responses_api":
            logger.warning("%s: %s", job.id, error)
        return RetrieveOutcome(seen, min(error.retry_after_s or 0.0, MAX_ASKED_WAIT_S), error)
    seen = _with_actual_mode(job.apply_response(look.response, clock.now()))
    return RetrieveOutcome(seen, min(look.poll_after_s or 0.0, MAX_ASKED_WAIT_S))


def _with_actual_mode(seen: Job) -> Job:
    """Return a job that a GET shows running; where no process holds its connection, it goes on without one."""
    if (
        seen.turn.mode != "foreground"
        or seen.status not in (Status.QUEUED, Status.IN_PROGRESS)
        or seen.turn.has_open_calls
    ):
        return seen
    return replace(seen, turn=replace(seen.turn, mode="background"))


def is_not_served(error: UpstreamError) -> bool:
    """Return True if upstream answers that it has no such response, or no such path."""
    return isinstance(error, MissingError) or error.status in (404, 405, 501) or error.code == "not_a_responses_api"


async def _resolve(base_url: str) -> None:
    """Return once the resolver has answered for a host, whatever it said.

    No lookup can be stopped once it began. The pool's threads hold up the end of a process then; this one does not.
    """
    if any(os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES):
        return  # only the proxy looks the host up
    answered, token, host = anyio.Event(), current_token(), urlsplit(base_url).hostname

    def look_up() -> None:
        with suppress(OSError, UnicodeError):  # the GET meets the same and says so
            socket.getaddrinfo(host, None)
        with suppress(RuntimeError):  # the command has ended before it
            run_sync(answered.set, token=token)

    threading.Thread(target=look_up, daemon=True).start()
    await answered.wait()


class Collector:
    """Retrieves jobs that no process observes, for a command that only reads.

    It sends nothing but GETs: it launches, cancels and deletes nothing, and leaves calls of tools and further turns to
    the next process that works on the job. It claims no job.
    """

    def __init__(self, store: Store, client: ResponsesClient, clock: Clock, settler: Finalizer) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._settler = settler
        self._resender = Resender(store, client, clock, settler)
        self._retrieved: dict[str, Job] = {}
        self._saving = anyio.Lock()
        self._store_failed = False

    async def collect(self, jobs: Sequence[Job], limit_s: float) -> dict[str, Job]:
        """Retrieve the jobs side by side and write down what is seen; return those that upstream answered in time.

        Args:
            jobs: They have response ids and no open calls, and no process observes them.
            limit_s: Real seconds for all that waits for upstream.
        """
        with anyio.move_on_after(limit_s):
            await _resolve(self._client.endpoint.base_url)
            async with anyio.create_task_group() as tasks:
                for job in jobs:
                    tasks.start_soon(self._collect, job)
        return self._retrieved

    async def _collect(self, job: Job) -> None:
        try:
            retrieved = await retrieve(self._client, self._clock, job)
            if retrieved.job is None or not (retrieved.error is None or isinstance(retrieved.error, MissingError)):
                return  # nothing was learned of the run
            if await self._resender.find_rewritten(retrieved.job) is not None:
                return  # the next process sends the turn again
            saved = await self._save(retrieved.job)
            if saved is None:
                return  # another process was first
            if retrieved.error is None:
                self._retrieved[job.id] = saved
            if saved.is_terminal:
                logger.info("%s: ended, %s", job.id, saved.status)
            if saved.is_terminal and saved.needs_finalizing:
                await self._settler.finalize(saved, delete_uploads=False)
        except StoreError as error:
            logger.warning("%s: %s", job.id, error)
        except Exception:
            logger.exception("%s: cannot be retrieved", job.id)

    async def _save(self, job: Job) -> Job | None:
        """Write down what was seen, unless a write before failed: a locked database is waited for once."""
        saved: Job | None = None
        with anyio.CancelScope(shield=True):  # what arrived in time is kept
            job = await self._settler.prepare_end(job)
            async with self._saving:
                if not self._store_failed:
                    self._store_failed = True
                    saved = await self._store.save(job, held=False)
                    self._store_failed = False
        return saved
