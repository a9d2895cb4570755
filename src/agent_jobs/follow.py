"""The accelerator: a stream read in this process tells of a job's end within a moment, and of its progress.

Nothing depends on it. Whatever a stream does, looks go on underneath, and a job ends only by a response object.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from math import inf

import anyio

from agent_jobs.clock import Clock
from agent_jobs.errors import RefusedError, StoreError, UpstreamError
from agent_jobs.job import JSON, Job, activity_of
from agent_jobs.store import Store

logger = logging.getLogger(__name__)

#: Progress is written at most so often for a job; ends and changes of status at once.
WRITE_S = 1.0
#: The tail that is kept of what the model writes while it does. A run that is held open has no other copy.
PARTIAL_CHARS, HELD_PARTIAL_CHARS = 2_000, 200_000
#: The tail that is kept of what it tells of its reasoning.
REASONING_CHARS = 1_000


class Follower:
    """The streams that this process reads, each until its job's end or its own.

    Args:
        limit: How many at once; the jobs beyond it are looked at.
        closed: Puts to an ended job what is written down with its end.
    """

    def __init__(self, store: Store, clock: Clock, limit: int, closed: Callable[[Job], Awaitable[Job]]) -> None:
        self._store = store
        self._clock = clock
        self._limit = limit
        self._closed = closed
        self._scopes: dict[str, anyio.CancelScope] = {}

    @property
    def has_room(self) -> bool:
        """Whether one more stream may be read."""
        return len(self._scopes) < self._limit

    def follows(self, job_id: str) -> bool:
        """Whether this process reads the job's stream."""
        return job_id in self._scopes

    def leave(self, job_id: str) -> None:
        """Stop reading the job's stream: somebody saw its end elsewhere."""
        if job_id in self._scopes:
            self._scopes[job_id].cancel()

    async def follow(self, job: Job, events: AsyncGenerator[JSON], limit_s: float = inf) -> Job:
        """Read events and write down what they show, until the job ends, the stream does or the time is over.

        Returns the job as last known; where it is not terminal, only a GET says how it stands.
        """
        reading = _Reading(job)
        with self._clock.limit(limit_s) as limit, anyio.CancelScope() as scope:
            self._scopes[job.id] = scope
            try:
                async with aclosing(events):
                    await self._read(reading, events)
            except RefusedError as error:
                logger.info("%s: its stream cannot be read: %s", job.id, error)
                return reading.written().unfollowed(for_good=True)
            except UpstreamError as error:
                logger.info("%s: its stream broke: %s", job.id, error)
            finally:
                del self._scopes[job.id]
        if limit.cancelled_caught:
            return reading.written().timed_out(self._clock.now())
        return reading.written() if reading.job.terminal or reading.heard else reading.job.unfollowed()

    async def _read(self, reading: "_Reading", events: AsyncGenerator[JSON]) -> None:
        wrote_at = 0.0
        async for event in events:
            if not reading.take(event):
                continue
            now = self._clock.now()
            if event.get("response"):
                before, reading.job = reading.job, await self._applied(reading.job, event, now)
                reading.moved |= reading.job.status is not before.status or reading.job.turn.acting
            if not reading.moved and now - wrote_at < WRITE_S:
                continue
            wrote_at = now
            if not await self._write(reading) or reading.job.terminal or reading.job.turn.acting:
                return

    async def _applied(self, job: Job, event: JSON, now: float) -> Job:
        applied = job.apply(event, now)
        if applied.terminal or applied.turn.acting:
            # A cancel may have been asked for by another process; then only a GET finalises.
            row = await self._store.get(job.id)
            applied = replace(job, cancel_requested_at=row.cancel_requested_at if row else None).apply(event, now)
        return applied

    async def _write(self, reading: "_Reading") -> bool:
        """Write the job down; returns whether it is still ours to follow."""
        job = await self._closed(reading.written())
        try:
            saved = await (self._store.save(job) if reading.moved else self._store.progress(job))
            reading.moved = False
            return saved is not None and not (job.turn.mode == "foreground" and saved.cancel_requested_at is not None)
        except StoreError as error:
            if job.terminal or job.turn.acting:
                raise
            logger.warning("%s: its progress cannot be written: %s", job.id, error)
            return True


@dataclass(slots=True)
class _Reading:
    """A job and what its stream told since it was last written. Mutable: most events only add a word."""

    job: Job
    cursor: int = -1
    heard: bool = False
    moved: bool = False  #: to where `progress` does not go
    items: list[JSON] = field(default_factory=list[JSON])
    words: list[str] = field(default_factory=list[str])
    thoughts: list[str] = field(default_factory=list[str])

    def take(self, event: JSON) -> bool:
        """Take in an event; returns False for one that was seen before. Called for each of thousands."""
        number = event.get("sequence_number")
        if type(number) is int:
            if number <= self.cursor:
                return False
            self.cursor = number
        self.heard = True
        kind = event.get("type")
        if kind == "response.output_text.delta":
            self.words.append(str(event.get("delta")))
        elif kind == "response.output_item.added" and isinstance(event.get("item"), dict):
            self.items.append(event["item"])
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self.thoughts.append(str(event.get("delta")))
        elif kind == "response.reasoning_summary_part.added":
            self.thoughts.append("\n\n")
        return True

    def written(self) -> Job:
        """The job with all that was told; what was told becomes a part of it."""
        limit = HELD_PARTIAL_CHARS if self.job.turn.mode == "foreground" else PARTIAL_CHARS
        partial = (self.job.turn.partial + "".join(self.words))[-limit:]
        reasoning = (self.job.turn.reasoning + "".join(self.thoughts)).lstrip("\n")[-REASONING_CHARS:]
        self.words.clear()
        self.thoughts.clear()
        self.job = self.job.progressed(self.cursor, activity_of(self.items), partial, reasoning)
        return self.job
