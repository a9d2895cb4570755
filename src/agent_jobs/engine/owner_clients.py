"""Choose the client of a job by its owner: some owners have an API key of their own.

A key that is missing is never replaced by the shared one: the wrong account would pay, and read the job.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from agent_jobs.engine.live_text import LiveText
from agent_jobs.engine.owner_limits import find_owner
from agent_jobs.engine.step_result import Done, RunAgain, WaitForSlot
from agent_jobs.errors import ConfigError
from agent_jobs.jobs.job import Job
from agent_jobs.store.base import Store

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from agent_jobs.engine.step import JobStepper
    from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

MISSING_KEY_RETRY_S = 30.0  # until an operator puts a key back that a job was started with


class OwnerClients:
    """The clients of one endpoint: one with the shared key, and one for each other key, opened when it is needed.

    Args:
        store: Says which owners have a key of their own.
        shared: The client of all others.
        open_client: Opens the client with the key that a reference names, or raises the ConfigError that says why not.
    """

    def __init__(
        self, store: Store, shared: ResponsesClient, open_client: Callable[[str], Awaitable[ResponsesClient]]
    ) -> None:
        self._store = store
        self.shared = shared
        self._open_client = open_client
        self._clients: dict[str, ResponsesClient] = {}
        self._opening = anyio.Lock()

    async def find(self, owner: str) -> ResponsesClient:
        """Return the client of an owner's jobs.

        Raises:
            ConfigError: The owner's key is missing.
        """
        if not owner:
            return self.shared
        key_ref = (await find_owner(self._store, owner)).key_ref
        if not key_ref:
            return self.shared
        async with self._opening:
            if key_ref not in self._clients:
                self._clients[key_ref] = await self._open_client(key_ref)
        return self._clients[key_ref]

    async def find_sender(self, owner: str, fingerprint: str) -> ResponsesClient:
        """Return the client with the key that created a response, if this process has it; else that of its owner.

        The owner may have got another key since. Only the key of the same account sees the response.

        Raises:
            ConfigError: The owner's key is missing.
        """
        if fingerprint:
            for client in (self.shared, *self._clients.values()):
                if client.endpoint.fingerprint == fingerprint:
                    return client
        return await self.find(owner)


class _KeylessStepper:
    """In place of a stepper whose key is missing: the job waits until an operator stores the key again."""

    async def cancel(self, _job: Job) -> RunAgain:
        """Return when the worker tries the cancel again."""
        return RunAgain(MISSING_KEY_RETRY_S)

    async def run_job_step(self, _job: Job) -> RunAgain:
        """Return when the worker tries the step again."""
        return RunAgain(MISSING_KEY_RETRY_S)


class OwnerSteppers:
    """Runs the steps of jobs, each with the client of its owner.

    Args:
        store: The jobs.
        clients: The clients.
        shared: The stepper with the shared key.
        create: Returns a stepper for another client.
        tasks: Runs what steppers do beside steps.
    """

    def __init__(
        self,
        store: Store,
        clients: OwnerClients,
        shared: JobStepper,
        create: Callable[[ResponsesClient], JobStepper],
        tasks: TaskGroup,
    ) -> None:
        self._store = store
        self._clients = clients
        self._shared = shared
        self._create = create
        self._tasks = tasks
        self._others: dict[int, JobStepper] = {}  #: by the identity of their client

    @property
    def pause_reason(self) -> str | None:
        """Return why nothing new should be sent with the shared key now; None if it may be tried."""
        return self._shared.pause_reason

    def end_pause(self) -> None:
        """Allow new POSTs: there is another key."""
        for stepper in self._list_steppers():
            stepper.end_pause()

    def is_deciding(self, job_id: str) -> bool:
        """Return True while it is unknown whether the job's run continues without this process."""
        return any(stepper.is_deciding(job_id) for stepper in self._list_steppers())

    def is_streaming(self, job_id: str) -> bool:
        """Return True if this process reads the job's stream."""
        return any(stepper.is_streaming(job_id) for stepper in self._list_steppers())

    def follow_text(self, job_id: str) -> LiveText:
        """Return the text of a job, which grows while this process reads its stream."""
        reading = (stepper for stepper in self._others.values() if stepper.is_streaming(job_id))
        return next(reading, self._shared).follow_text(job_id)

    def begin_shutdown(self) -> None:
        """Wait a last moment for response ids that have not arrived yet."""
        for stepper in self._list_steppers():
            stepper.begin_shutdown()

    async def write_progress(self) -> None:
        """Write the progress of all streams until cancelled."""
        await self._shared.write_progress()

    async def end_abandoned(self) -> None:
        """End the jobs of other endpoints that no process worked on until a day past their deadline."""
        await self._shared.end_abandoned()

    async def cancel(self, job: Job) -> Done | RunAgain:
        """Ask upstream to stop the run, then poll it. The job is not claimed for this."""
        stepper = await self._find_stepper(job)
        return await stepper.cancel(job)

    async def run_step(self, job_id: str) -> Done | RunAgain | WaitForSlot:
        """Run the one step that the job's row asks for."""
        job = await self._store.get(job_id)
        if job is None:
            return Done()
        stepper = await self._find_stepper(job)
        return await stepper.run_job_step(job)

    async def _find_stepper(self, job: Job) -> JobStepper | _KeylessStepper:
        """Return the stepper with the key of the job's owner, or that of a run under way."""
        fingerprint = job.turn.fingerprint if job.turn.response_id is not None else ""
        try:
            client = await self._clients.find_sender(job.owner, fingerprint)
        except ConfigError as error:
            logger.warning("%s waits: %s", job.id, error)
            return _KeylessStepper()
        if client is self._clients.shared:
            return self._shared
        if id(client) not in self._others:
            stepper = self._others[id(client)] = self._create(client)
            self._tasks.start_soon(stepper.write_progress)
        return self._others[id(client)]

    def _list_steppers(self) -> list[JobStepper]:
        return [self._shared, *self._others.values()]
