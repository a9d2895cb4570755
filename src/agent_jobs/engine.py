"""The verbs that the faces call. Each one is bounded in time and safe to cancel."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import choice
from uuid import uuid4

from agent_jobs import request
from agent_jobs.advance import Advancer
from agent_jobs.clock import Clock
from agent_jobs.errors import ConfigError, JobNotFoundError, RequestError
from agent_jobs.job import JSON, WAITING, Job, Status, Turn
from agent_jobs.responses import Endpoint
from agent_jobs.runner import Runner
from agent_jobs.store import Event, Store

#: A start waits so long for upstream to name an id; the launch itself goes on.
ID_WAIT_S = 5.0
CANCEL_WAIT_S = 10.0
#: A poll counts as watching for so long after it.
WATCHED_S = 60.0
#: No vowels and no look-alikes: ids are read aloud, and should spell nothing.
ID_LETTERS, ID_LENGTH = "0123456789bcdfghjkmnpqrstvwxz", 12


@dataclass(frozen=True, slots=True)
class Upstream:
    """The endpoint this process works with, and who runs its jobs."""

    endpoint: Endpoint
    advancer: Advancer
    runner: Runner


@dataclass(frozen=True, slots=True)
class Started:
    """The job that answers for a start, and whether it was there before."""

    job: Job
    duplicate: bool


class Engine:
    """Jobs of one user, on one store.

    Args:
        store: Where the jobs are kept.
        upstream: Who works on them; or, as an error, why nothing can be sent from here. Jobs can be read even so.
        clock: The time.
        model: What to ask for where the caller names no model; None takes the one in data/.
    """

    def __init__(self, store: Store, upstream: Upstream | ConfigError, clock: Clock, model: str | None = None) -> None:
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._model = model

    def now(self) -> float:
        """The engine's time in epoch seconds, by which answers tell ages."""
        return self._clock.now()

    async def start(
        self,
        prompt: str,
        *,
        model: str | None = None,
        effort: str | None = None,
        web_search: bool = False,
        options: JSON | None = None,
        priority: int = 0,
        wait_s: float = 0.0,
    ) -> Started:
        """Write a job down, have it launched, and wait until upstream named its id or `wait_s` for its end.

        Work that was asked for before is not started again, while the job that does it goes on, or its result was
        handed to nobody yet, or its start is unconfirmed: that job answers. `options.allow_duplicate` starts another,
        `options.key` makes one job for each key.

        Raises:
            RequestError: Nothing was started; the sentence says what to change.
            ConfigError: Nothing was started; a person must change a setting.
            StoreError: Nothing was started.
        """
        upstream, began = self._working(), self._clock.now()
        if upstream.advancer.paused is not None:
            raise ConfigError(f"Upstream refuses this key: {upstream.advancer.paused} Ask the user; try again in 60 s.")
        job_id = "job_" + "".join(choice(ID_LETTERS) for _ in range(ID_LENGTH))
        body = request.build(
            prompt, job_id=job_id, model=model or self._model, effort=effort, web_search=web_search, options=options
        )
        turn = Turn(
            number=1,
            request=body,
            request_id=str(uuid4()),
            base_url=upstream.endpoint.base_url,
            fingerprint=upstream.endpoint.fingerprint,
        )
        job = Job(
            id=job_id,
            title=request.title_of(prompt),
            status=Status.PENDING,
            created_at=self._clock.now(),
            turn=turn,
            request_hash=request.hash_of(body),
            key=request.key_of(options),
            priority=priority,
        )
        existing = await self._store.add(job, allow_duplicate=bool((options or {}).get("allow_duplicate")))
        if existing is None:
            upstream.runner.launch(job.id)
        job = existing or job
        job = await self._until(job, lambda job: job.turn.response_id is not None or bool(job.activity), ID_WAIT_S)
        if wait_s > 0 and not job.terminal:
            job = await self._watched(job, wait_s - (self._clock.now() - began))
        return Started(await self._placed(job), duplicate=existing is not None)

    async def poll(self, job_id: str, *, wait_s: float = 0.0) -> Job:
        """The job as it stands, once it ended or after `wait_s`; its output with it when it ended.

        Raises:
            JobNotFoundError: There is no such job; the sentence names the newest.
        """
        job = await self._existing(job_id)
        return job if job.terminal else await self._placed(await self._watched(job, wait_s))

    async def delivered(self, job: Job) -> None:
        """Take note that the job's result was handed to a host."""
        if job.terminal and job.delivered_at is None:
            await self._store.deliver(job.id, self._clock.now())

    async def cancel(self, job_id: str) -> Job:
        """Have upstream stop the job, and wait a moment for it to say so.

        Returns the job as upstream left it; while it is not terminal, the cancel is delivered later.
        """
        job = await self._existing(job_id)
        if job.terminal:
            return job
        upstream = self._working()
        job = await self._store.request_cancel(job_id, self._clock.now()) or job
        if not job.terminal and job.turn.response_id is not None and job.turn.base_url == upstream.endpoint.base_url:
            upstream.runner.cancel(job)
        return job if job.terminal else await self._watched(job, CANCEL_WAIT_S)

    async def adopt(self, job_id: str, response_id: str) -> Job:
        """Give a job the response id that was found elsewhere, so that its result is collected after all."""
        job = await self._existing(job_id)
        if job.turn.response_id not in (None, response_id):
            raise RequestError(f"{job_id} already has the response {job.turn.response_id}.")
        await self._store.attach(job_id, job.turn.number, response_id, self._clock.now())
        self._working().runner.wake()
        return await self._existing(job_id)

    async def events(self, job_id: str) -> list[Event]:
        """What happened to a job, for people, oldest first."""
        return await self._store.events((await self._existing(job_id)).id)

    async def _existing(self, job_id: str) -> Job:
        job = await self._store.get(job_id)
        if job is not None:
            return job
        purged = await self._store.tombstone(job_id)
        if purged is not None:
            days = round((self._clock.now() - purged.finished_at) / 86_400)
            raise JobNotFoundError(f"{job_id} ended {purged.status} {days} days ago and was purged; start it again.")
        newest = [f"{job.id} ({job.title[:30]})" for job in await self._store.newest(3)]
        hint = f"The newest are {', '.join(newest)}." if newest else "There are no jobs yet; agent_start makes one."
        raise JobNotFoundError(f"There is no job {job_id[:40]!r}. {hint}")

    async def _watched(self, job: Job, wait_s: float) -> Job:
        """Wait for the job's end with upstream looked at often; a wait that runs out is no error."""
        now = self._clock.now()
        await self._store.watch(job.id, now, now + max(0.0, wait_s) + WATCHED_S)
        if isinstance(self._upstream, Upstream):
            self._upstream.runner.wake()
        return await self._until(job, lambda job: job.status is Status.INPUT_REQUIRED, wait_s)

    async def _placed(self, job: Job) -> Job:
        """The job; where it waits for a slot, with how many go before it."""
        if job.status is not Status.PENDING or job.activity != WAITING:
            return job
        return replace(job, activity=f"{WAITING}, {await self._store.ahead(job)} ahead")

    async def _until(self, job: Job, arrived: Callable[[Job], bool], wait_s: float) -> Job:
        """The job once it has ended or arrived somewhere, or as it stands after `wait_s`."""
        with self._clock.limit(wait_s):
            while not (job.terminal or arrived(job)):
                await self._store.changed(job.id, job.revision)
                job = await self._store.get(job.id) or job
        return job

    def _working(self) -> Upstream:
        if isinstance(self._upstream, ConfigError):
            raise self._upstream
        return self._upstream
