"""The accelerator: a stream read in this process tells of a job's end within a moment, and of its progress.

Nothing depends on it. Whatever a stream does, looks go on underneath, and a job ends only by a response object.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from math import inf
from typing import TypeVar

import anyio

from agent_jobs.clock import Clock
from agent_jobs.errors import RefusedError, StoreError, UpstreamError
from agent_jobs.jobs.job import Job, Mode
from agent_jobs.jobs.response import JSON, activity_of, calls_of, has_answer, items_of, mapping_of, text_of
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ANSWERED_JSON

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Progress is written at most so often; ends and changes of status at once.
WRITE_S = 1.0
#: An attachment that lasts no longer counts as one that failed, whatever it brought.
BRIEF_S = 30.0
#: How often a run that is held open, which no look asks about, sees whether somebody cancelled it.
HELD_S = 5.0
#: The tail that is kept of what the model writes while it does. A run that is held open has no other copy.
PARTIAL_CHARS, HELD_PARTIAL_CHARS = 2_000, 200_000
#: The tail that is kept of what it tells of its reasoning.
REASONING_CHARS = 1_000


class StreamReader:
    """The streams that this process reads, each until its job's end or its own.

    Args:
        limit: How many at once; the jobs beyond it are looked at.
        closed: Puts to an ended job what is written down with its end.
        resend: Has the turn of a failed job sent again where that is right; returns whether it does.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        limit: int,
        closed: Callable[[Job], Awaitable[Job]],
        resend: Callable[[Job], Awaitable[bool]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._limit = limit
        self._closed = closed
        self._resend = resend
        self._errors: dict[str, JSON] = {}
        self._readings: dict[str, _Reading] = {}
        self._told = anyio.Event()

    @property
    def has_room(self) -> bool:
        """Whether one more stream may be read."""
        return len(self._readings) < self._limit

    def is_streaming(self, job_id: str) -> bool:
        """Whether this process reads the job's stream."""
        return job_id in self._readings

    def leave(self, job_id: str) -> None:
        """Stop reading the job's stream: somebody saw its end elsewhere."""
        if job_id in self._readings:
            self._readings[job_id].scope.cancel()

    async def mark_background(self, job_id: str, mode: Mode) -> bool:
        """Take a held run for one of this mode, which goes on without its stream; False where none is read here."""
        reading = self._readings.get(job_id)
        if reading is None or reading.job.is_terminal or reading.job.turn.has_open_calls:
            return False
        reading.job = replace(reading.job, turn=replace(reading.job.turn, mode=mode))
        return await self._save(reading)

    def take_error(self, job_id: str) -> JSON | None:
        """Return the error event that a job's stream ended with, once."""
        return self._errors.pop(job_id, None)

    async def keep(self) -> None:
        """Write down what the streams tell, for ever: all together, since one write costs about what many do."""
        while True:
            with self._clock.limit(HELD_S if any(reading.held for reading in self._readings.values()) else inf):
                await self._told.wait()
            self._told = anyio.Event()
            # A cancel of a run that is held open is seen by writing: a silent one writes, too.
            behind = [reading for reading in self._readings.values() if reading.behind or reading.held]
            if not behind:
                continue  # a change of status took it along
            try:
                await self._keep(behind)
            except StoreError as error:
                logger.warning("the progress of streams (%d) cannot be written: %s", len(behind), error)
                for reading in behind:
                    reading.behind = True
                self._told.set()
            except Exception:
                logger.exception("progress cannot be written; it goes on")
            await self._clock.sleep(WRITE_S)

    async def read_stream(
        self, job: Job, events: AsyncGenerator[JSON], limit_s: float = inf, *, attached: bool = False
    ) -> Job:
        """Read events and write down what they show, until the job ends, the stream does or the time is over.

        Returns the job as last known; where it is not terminal, only a GET says how it stands. `attached` says that
        the stream is not the create's own: one that is cut soon again, or is JSON, is not attached to for ever.
        """
        reading, began = _Reading(job), self._clock.now()
        with self._clock.limit(limit_s) as limit, reading.scope:
            self._readings[job.id] = reading
            self._told.set()
            try:
                async with aclosing(events):
                    await self._read(reading, events)
            except RefusedError as error:
                logger.info("%s: its stream cannot be read: %s", job.id, error)
                return reading.written().mark_stream_failed(for_good=True)
            except UpstreamError as error:
                logger.info("%s: its stream broke: %s", job.id, error)
            finally:
                del self._readings[job.id]
        if reading.error is not None and not reading.job.is_terminal:
            self._errors[job.id] = reading.error
        if limit.cancelled_caught:
            return reading.written().mark_timed_out(self._clock.now())
        if not (reading.job.is_terminal or reading.heard):
            return reading.job.mark_stream_failed()
        brief = self._clock.now() - began < BRIEF_S
        ended = reading.ended()
        if attached and reading.answered_json:
            return ended.mark_stream_failed(for_good=True)
        if attached and brief:
            # Events alone are no progress: a stream that is always cut soon is attached to less and less often.
            ended = replace(ended, turn=replace(ended.turn, stream_failures=job.turn.stream_failures))
            return ended.mark_stream_failed()
        return ended

    async def _read(self, reading: "_Reading", events: AsyncGenerator[JSON]) -> None:
        async for event in events:
            # First, since what is taken in may be written down as seen at any time.
            reading.answered_json |= event.get("type") == ANSWERED_JSON
            if event.get("response"):
                await self._apply(reading, event)
            if not reading.behind:
                self._told.set()
            reading.take(event)
            if reading.moved and (
                not await self._save(reading) or reading.job.is_terminal or reading.job.turn.has_open_calls
            ):
                return

    async def _apply(self, reading: "_Reading", event: JSON) -> None:
        now = self._clock.now()
        event = reading.completed(event)
        applied = reading.job.apply_event(event, now)
        if applied.is_terminal or applied.turn.has_open_calls:
            # A cancel may have been asked for by another process; then only a GET finalises.
            row = await self.insist(applied, lambda: self._store.get(applied.id))
            cancel_requested_at = row.cancel_requested_at if row else None
            applied = replace(reading.job, cancel_requested_at=cancel_requested_at).apply_event(event, now)
        reading.moved |= applied.status is not reading.job.status or applied.turn.has_open_calls
        reading.job = applied

    async def _save(self, reading: "_Reading") -> bool:
        """Write the job down where it moved; returns whether it is still ours to follow."""
        job = reading.written()
        ends = job.is_terminal or job.turn.has_open_calls

        async def save() -> Job | None:
            if await self._resend(job):
                return None
            return await self._store.save(await self._closed(job))

        try:
            saved = await (self.insist(job, save) if ends else save())
        except StoreError as error:
            if ends:
                raise
            logger.warning("%s: its status cannot be written: %s", job.id, error)
            return True
        reading.moved = False
        return saved is not None and not _stopped(saved, saved.cancel_requested_at)

    async def insist(self, job: Job, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what the database answers; for a run that is held open, ask until it does.

        The stream of such a run is the only copy of its result.
        """
        while True:
            try:
                return await ask()
            except StoreError as error:
                if job.turn.mode != "foreground":
                    raise
                logger.error("%s: its end cannot be written; it is tried until it can: %s", job.id, error)
            await self._clock.sleep(WRITE_S)

    async def _keep(self, behind: "Sequence[_Reading]") -> None:
        ours = await self._store.save_progress([reading.written() for reading in behind])
        for reading in behind:
            if reading.job.id not in ours or _stopped(reading.job, ours[reading.job.id]):
                reading.scope.cancel()


def _stopped(job: Job, cancel_requested_at: float | None) -> bool:
    """Whether reading on would keep alive what somebody wants to end."""
    return job.turn.mode == "foreground" and cancel_requested_at is not None


@dataclass(slots=True)
class _Reading:
    """A job and what its stream told since it was last written. Mutable: most events only add a word."""

    job: Job
    cursor: int = -1
    heard: bool = False
    behind: bool = False  #: it told what `job` has not
    moved: bool = False  #: to where `progress` does not go
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    items: list[JSON] = field(default_factory=list[JSON])
    done: dict[int, JSON] = field(default_factory=dict[int, JSON])  #: finished items by their place in the output
    answered_json: bool = False  #: it is no stream
    error: JSON | None = None  #: the event that told of one
    worded: set[object] = field(default_factory=set[object])  #: items of which text was taken in, by their place
    said: list[str] = field(default_factory=list[str])  #: all words of this stream
    words: list[str] = field(default_factory=list[str])
    thoughts: list[str] = field(default_factory=list[str])

    @property
    def held(self) -> bool:
        """Whether the run lives by this connection alone."""
        return self.job.turn.mode == "foreground"

    def take(self, event: JSON) -> None:
        """Take in what an event tells, unless that was done before. Called for each of thousands."""
        number = event.get("sequence_number")
        if type(number) is int:
            if number <= self.cursor:
                return
            self.cursor = number
        self.heard = self.behind = True
        kind = event.get("type")
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            self._add_words(event, str(event.get("delta")))
        elif kind == "response.output_item.added" and isinstance(event.get("item"), dict):
            self.items.append(event["item"])
        elif kind == "response.output_item.done" and isinstance(event.get("item"), dict):
            self._finish_item(event)
        elif kind in ("response.output_text.done", "response.refusal.done"):
            if event.get("output_index") not in self.worded:
                self._add_words(event, str(event.get("text") or event.get("refusal") or ""))
        elif kind == "error":
            self.error = event
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self.thoughts.append(str(event.get("delta")))
        elif kind == "response.reasoning_summary_part.added":
            self.thoughts.append("\n\n")

    def _add_words(self, event: JSON, words: str) -> None:
        self.worded.add(event.get("output_index"))
        self.words.append(words)
        self.said.append(words)

    def _finish_item(self, event: JSON) -> None:
        index, item = event.get("output_index"), event["item"]
        place = index if type(index) is int else len(self.done)
        self.done[place] = item
        if place not in self.worded and index not in self.worded and (text := text_of([item])):
            self._add_words({"output_index": place}, text)

    def _finished_items(self) -> list[JSON]:
        """Return the output as its items came; empty where one of them was not read to its end."""
        places = sorted(self.done)
        if places != list(range(len(places))) or len(self.items) > len(places):
            return []
        return [self.done[place] for place in places]

    def completed(self, event: JSON) -> JSON:
        """Return the event; a finished response without its answer gets the items that were streamed before it."""
        response = mapping_of(event.get("response"))
        if response.get("status") not in ("completed", "incomplete", "failed", "cancelled"):
            return event
        self.written()
        if has_answer(items_of(response.get("output"))):
            return event
        items = self._finished_items()
        if len(items) > len(items_of(response.get("output"))) or has_answer(items):
            return {**event, "response": {**response, "output": items}}
        if self.said and response.get("status") == "completed":
            # Rows of running jobs keep a short tail; here it may be the only copy of the answer.
            text = "".join(self.said)
            before = self.job.turn.partial
            whole = text if text.endswith(before) else before
            self.job = replace(self.job, turn=replace(self.job.turn, partial=whole[-HELD_PARTIAL_CHARS:]))
        return event

    def ended(self) -> Job:
        """Return the job after its stream; a held run has its answer as `counted` where all of it was read."""
        job = self.written()
        if not self.held or job.is_terminal or job.turn.has_open_calls or self.error is not None:
            return job
        items = self._finished_items()
        last: JSON = items[-1] if items else {}
        answered = text_of([last]) or calls_of([last]) or str(last.get("type")).endswith("image_generation_call")
        if answered and last.get("status") not in ("incomplete", "in_progress"):
            response = {"id": job.turn.response_id, **(job.counted or {}), "status": "completed", "output": items}
            return replace(job, counted=response)
        return job

    def written(self) -> Job:
        """The job with all that was told; what was told becomes a part of it."""
        limit = HELD_PARTIAL_CHARS if self.held or self.job.turn.empty_completions else PARTIAL_CHARS
        partial = (self.job.turn.partial + "".join(self.words))[-limit:]
        reasoning = (self.job.turn.reasoning + "".join(self.thoughts)).lstrip("\n")[-REASONING_CHARS:]
        self.words.clear()
        self.thoughts.clear()
        self.behind = False
        self.job = self.job.with_progress(self.cursor, activity_of(self.items), partial, reasoning)
        return self.job
