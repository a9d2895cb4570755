"""One step of a job: read its row, do one thing upstream, write down what it showed, say when to come back.

A step may be cut off anywhere by the death of the process. What another process then needs is in the row.
"""

import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

import anyio

from agent_jobs.clock import Clock
from agent_jobs.errors import (
    AccountError,
    BusyError,
    MissingError,
    RefusedError,
    StoreError,
    UnclearError,
    UnsentError,
    UpstreamError,
)
from agent_jobs.follow import Follower
from agent_jobs.job import JSON, Job, Status
from agent_jobs.responses import ResponsesClient
from agent_jobs.store import Store

logger = logging.getLogger(__name__)

#: A connection that sends anything is read on for the id so long (seen: 301 s of nothing but keepalives).
BIRTH_LIMIT_S = 900.0
#: At shutdown an id that is on its way gets so long to arrive; hosts kill soon after.
BIRTH_GRACE_S = 1.5
RELAUNCH_MIN_S, RELAUNCH_MAX_S = 2.0, 60.0
#: A stream that lives may still miss the end, so a followed job is looked at all the same, seldom.
FAR_LOOK_S = 290.0
FOLLOW_AUTO = 200
CANCEL_AGAIN_S, CANCEL_RETRY_S = 30.0, 5.0
STORE_RETRY_S = 1.0
#: What is wrong with an account, where upstream's code tells a person what to mend.
ACCOUNT_CODES = frozenset({"invalid_api_key", "insufficient_quota"})


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do for this job, here."""


@dataclass(frozen=True, slots=True)
class After:
    """Come back after so many seconds, sooner if somebody watches, but never before `not_before_s`."""

    s: float
    not_before_s: float = 0.0


class Advancer:
    """The steps of jobs at one endpoint."""

    def __init__(self, store: Store, client: ResponsesClient, clock: Clock, *, follow: int = FOLLOW_AUTO) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._follower = Follower(store, clock, follow)
        self._births: set[anyio.CancelScope] = set()

    async def advance(self, job_id: str) -> Done | After:
        """Take the one step that the job's row asks for: launch, cancel or look."""
        job = await self._store.get(job_id)
        if job is None or job.terminal:
            return Done()
        if job.turn.response_id is None:
            return await (self._launch(job) if job.status is Status.PENDING else self._orphaned(job))
        if job.cancel_requested_at is not None:
            return await self.cancel(job)
        return await self._look(job)

    async def cancel(self, job: Job) -> Done | After:
        """Have upstream stop, and read how the response stands after it. Takes no claim on the job."""
        response_id = job.turn.response_id
        if response_id is None:
            return Done()  # its launcher sees the request as soon as there is an id
        if await self._store.claim_cancel(job.id, self._clock.now(), CANCEL_AGAIN_S):
            try:
                await self._client.cancel(response_id)
            except MissingError:
                pass  # the look counts it
            except UpstreamError as error:
                await self._store.forget_cancel(job.id)
                await self._store.save(job.unreached(f"cannot cancel: {error}", self._clock.now()), held=False)
                return After(error.retry_after_s or CANCEL_RETRY_S)
        return await self._look(job, held=False)

    def hurry(self) -> None:
        """Give the ids that are on their way a last moment to arrive."""
        for birth in self._births:
            birth.deadline = min(birth.deadline, anyio.current_time() + BIRTH_GRACE_S)

    async def _launch(self, job: Job) -> Done | After:
        """Send the POST, if this caller wins the right to, and stay until the response has an id."""
        if job.cancel_requested_at is not None:
            await self._store.save(job.cancelled(self._clock.now()))
            return Done()
        # Not to be cancelled between the first byte and the id: the run would be paid and lost.
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + BIRTH_LIMIT_S) as birth:
            self._births.add(birth)
            try:
                return await self._create(job, birth)
            except (UnsentError, BusyError) as error:
                return await self._relaunch(job, error)
            except AccountError as error:
                code = error.code if error.code in ACCOUNT_CODES else "account_refused"
                await self._fail(job, code, str(error))
            except RefusedError as error:
                await self._fail(job, error.code or "upstream_rejected", str(error))
            except UnclearError as error:
                await self._fail(job, "start_unconfirmed", str(error))
            except _NotOursError:
                pass
            finally:
                self._births.discard(birth)
            return Done()
        return After(0)  # the limit ended it: the row says whether anything was sent

    async def _create(self, job: Job, birth: anyio.CancelScope) -> Done | After:
        """POST, write the id down, and read on: for speed, or because the run would end with the connection."""

        async def before_sending() -> None:
            nonlocal job
            job = job.sent(self._clock.now())
            if not await self._store.begin(job):
                raise _NotOursError

        create = self._client.create(job.turn.request, request_id=job.turn.request_id, before_sending=before_sending)
        async with aclosing(create) as events:
            async for event in events:
                job = job.apply(event, self._clock.now())
                if job.turn.response_id is None:
                    continue
                cancelling = await self._born(job, job.turn.response_id)
                self._births.discard(birth)
                birth.shield, birth.deadline = False, float("inf")
                if job.terminal or cancelling:
                    return After(0)
                in_background = _in_background(event)
                if self._follower.has_room or not in_background:
                    return await self._follow(job, events, in_background=in_background)
                return await self._poll(job)
        raise UnclearError("upstream ended its answer before it named an id", code="no_id")

    async def _born(self, job: Job, response_id: str) -> bool:
        """Write the id down before anybody is told of it; returns whether a cancel waited for it."""
        while True:
            try:
                row = await self._store.attach(job.id, job.turn.number, response_id, self._clock.now())
                break
            except StoreError as error:
                # The log is the last place that can keep a paid run findable.
                logger.error("%s: cannot write down its response id %s: %s", job.id, response_id, error)
                await self._clock.sleep(STORE_RETRY_S)
        logger.info("%s: is response %s", job.id, response_id)
        if job.status is not Status.QUEUED:
            await self._store.save(job)
        return row is not None and row.cancel_requested_at is not None

    async def _follow(self, job: Job, events: AsyncGenerator[JSON], *, in_background: bool = True) -> After:
        """Read the job's stream; what it leaves open, a GET decides."""
        await self._store.record(job.id, self._clock.now(), "following")
        if in_background:
            # A stream may live on and say nothing of an end; GETs of a foreground response may not be served.
            await self._store.schedule(job.id, self._clock.now(), FAR_LOOK_S, FAR_LOOK_S)
        job = await self._follower.follow(job, events)
        if job.terminal:
            logger.info("%s: ended, %s", job.id, job.status)
            return After(0)
        return await self._poll(job, 0 if job.turn.detached == 0 else 2.0**job.turn.detached)

    async def _poll(self, job: Job, after_s: float | None = None) -> After:
        """From here on the job is looked at."""
        now = self._clock.now()
        await self._store.save(replace(job, observed_by="polling"))
        await self._store.record(job.id, now, "polling")
        return After(job.next_look_s(now) if after_s is None else after_s)

    async def _relaunch(self, job: Job, error: UpstreamError) -> After:
        """Upstream provably did not accept the POST: it is sent again, less often as the job gets older."""
        now = self._clock.now()
        await self._store.save(job.unsent(f"{error}; trying again"))
        wait_s = min(RELAUNCH_MAX_S, max(RELAUNCH_MIN_S, (now - job.created_at) / 4))
        wait_s = max(wait_s, error.retry_after_s or 0.0)
        return After(wait_s, wait_s)

    async def _orphaned(self, job: Job) -> Done:
        """The first byte of the POST left, and nobody listens for its id any more."""
        await self._fail(job, "start_unconfirmed", "the process that sent it ended before upstream named an id")
        return Done()

    async def _fail(self, job: Job, code: str, why: str) -> None:
        logger.info("%s: failed, %s", job.id, code)
        await self._store.save(job.failed(code, why, self._clock.now()))

    async def _look(self, job: Job, *, held: bool = True) -> Done | After:
        """GET the response and take in what it says; no failure of a look ends a job."""
        now, not_before_s = self._clock.now(), 0.0
        try:
            look = await self._client.retrieve(job.turn.response_id or "")
            now, not_before_s = self._clock.now(), look.poll_after_s or 0.0
            seen = job.observe(look.response, now)
        except MissingError:
            seen = job.missed(now)
        except UpstreamError as error:
            not_before_s = error.retry_after_s or 0.0
            seen = job.unreached(f"cannot look: {error}", now)
        saved = await self._store.save(seen, held=held)
        if saved is None or saved.terminal:
            self._follower.leave(job.id)
            logger.info("%s: %s", job.id, "is somebody else's" if saved is None else f"ended, {saved.status}")
            return Done()
        if self._follower.follows(job.id):
            return After(FAR_LOOK_S, FAR_LOOK_S)
        if held and self._follower.has_room and saved.followable(now):
            events = self._client.stream(saved.turn.response_id or "", starting_after=saved.turn.sequence_number)
            return await self._follow(saved, events)
        return After(saved.next_look_s(now) * random.uniform(1.0, 1.1), not_before_s)


class _NotOursError(Exception):
    """Somebody cancelled the job or took it before its POST began."""


def _in_background(event: JSON) -> bool:
    """Whether upstream says that the run goes on without this connection; some accept `background` and ignore it."""
    response = event.get("response")
    return isinstance(response, dict) and cast(JSON, response).get("background") is True
