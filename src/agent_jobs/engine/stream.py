"""Read the streams of running responses, for progress and a finished job within a moment.

Nothing depends on a stream. Polls continue beside it, and only a response object ends a job.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from math import inf
from typing import TypeVar

import anyio

from agent_jobs.clock import Clock
from agent_jobs.engine.live_text import HELD_PARTIAL_CHARS, PARTIAL_CHARS, UNREAD, LiveText
from agent_jobs.engine.read_again import reread_job
from agent_jobs.errors import RefusedError, StoreError, UpstreamError
from agent_jobs.jobs.job import Job, Mode
from agent_jobs.jobs.response import JSON, activity_of, calls_of, has_answer, items_of, mapping_of, string_of, text_of
from agent_jobs.jobs.response_steps import Step, merge_step, read_step
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ANSWERED_JSON

logger = logging.getLogger(__name__)

T = TypeVar("T")

WRITE_S = 1.0  # between writes of progress; a changed status is written at once
BRIEF_S = 30.0  # a stream that is cut sooner counts as failed, even with events
HELD_WRITE_S = 5.0  # a run that is held open is not polled, so a write is how it notices a cancel
FAR_POLL_S = 290.0  # a stream may live and still miss the end, so its job is polled too, but seldom
REASONING_CHARS = 1_000  # of the reasoning so far: the tail that `reasoning` shows


class StreamReader:
    """The streams that this process reads.

    Args:
        limit: Streams that are read at once; the jobs beyond it are polled.
        save: Stores a job that may have finished; returns None if this process must stop reading.
    """

    def __init__(self, store: Store, clock: Clock, limit: int, save: Callable[[Job], Awaitable[Job | None]]) -> None:
        self._store = store
        self._clock = clock
        self._limit = limit
        self._save = save
        self._errors: dict[str, JSON] = {}
        self._readings: dict[str, _Reading] = {}
        self._live_texts: dict[str, LiveText] = {}
        self._news = anyio.Event()

    @property
    def has_room(self) -> bool:
        """Return True if one more stream may be read."""
        return len(self._readings) < self._limit

    def is_streaming(self, job_id: str) -> bool:
        """Return True if this process reads the job's stream."""
        return job_id in self._readings

    def follow_text(self, job_id: str) -> LiveText:
        """Return the text of a job, which grows while this process reads its stream."""
        return self._live_texts.setdefault(job_id, LiveText())

    def stop_reading(self, job_id: str) -> None:
        """Stop reading the job's stream: a poll or a cancel saw its end."""
        if job_id in self._readings:
            self._readings[job_id].scope.cancel()

    async def mark_background(self, job_id: str, mode: Mode) -> bool:
        """Mark a held run as one that continues without its stream; return False if none is read here."""
        reading = self._readings.get(job_id)
        if reading is None or reading.job.has_ended_turn:
            return False
        reading.job = replace(reading.job, turn=replace(reading.job.turn, mode=mode))
        return await self._save_status(reading)

    def take_error(self, job_id: str) -> JSON | None:
        """Return the error event that a job's stream ended with, once."""
        return self._errors.pop(job_id, None)

    async def write_progress(self) -> None:
        """Write the progress of all streams together, until cancelled: one write costs about as much as many."""
        while True:
            await self._wait_for_news()
            # A held run is written even without news: the write shows whether a cancel was requested.
            behind = [reading for reading in self._readings.values() if reading.is_behind or reading.is_held_open]
            if not behind:
                continue  # a change of status was written with all of it
            try:
                await self._write_readings(behind)
            except StoreError as error:
                logger.warning("the progress of streams (%d) cannot be written: %s", len(behind), error)
                for reading in behind:
                    reading.is_behind = True
                self._news.set()
            except Exception:
                logger.exception("the progress of streams cannot be written; retrying")
            await self._clock.sleep(WRITE_S)

    async def read_stream(
        self, job: Job, events: AsyncGenerator[JSON], limit_s: float = inf, *, attached: bool = False
    ) -> Job:
        """Read events and store what they show, until the job finishes, the stream ends or the time is over.

        `attached` is True unless the stream is the POST's own. An attached stream that is soon cut again, or that is
        JSON, counts as failed, so that it is not attached again endlessly.

        Returns the job as last known. If it is not terminal, only a GET shows its state.
        """
        reading, began = _Reading(job, self._clock.now), self._clock.now()
        is_refused = False
        with self._clock.limit(limit_s) as limit, reading.scope:
            is_refused = await self._read_until_end(reading, events)
        if is_refused:
            return reading.flush_to_job().mark_stream_failed(for_good=True)
        if reading.error is not None and not reading.job.is_terminal:
            self._errors[job.id] = reading.error
        if limit.cancelled_caught:
            return reading.flush_to_job().mark_timed_out(self._clock.now())
        if not (reading.job.is_terminal or reading.has_events):
            return reading.job.mark_stream_failed()
        if not attached:
            return reading.finish_job()
        is_brief = self._clock.now() - began < BRIEF_S
        return reading.finish_attached_job(job.turn.stream_failures, is_brief=is_brief)

    async def retry_until_stored(self, job: Job, operation: Callable[[], Awaitable[T]]) -> T:
        """Return what a database operation returns; for a held run, repeat it until the database answers.

        The stream of such a run is the only copy of its result.
        """
        while True:
            try:
                return await operation()
            except StoreError as error:
                if job.turn.mode != "foreground":
                    raise
                logger.error("%s: its end cannot be written; retrying until it can: %s", job.id, error)
            await self._clock.sleep(WRITE_S)

    async def _wait_for_news(self) -> None:
        limit_s = inf
        if any(reading.is_held_open for reading in self._readings.values()):
            limit_s = HELD_WRITE_S
        with self._clock.limit(limit_s):
            await self._news.wait()
        self._news = anyio.Event()

    async def _read_until_end(self, reading: "_Reading", events: AsyncGenerator[JSON]) -> bool:
        """Read a stream to its end; return True if upstream refuses to serve it."""
        job_id = reading.job.id
        self._readings[job_id] = reading
        reading.live = self._live_texts.get(job_id, reading.live)
        reading.live.begin_stream(reading.job)
        self._news.set()
        try:
            async with aclosing(events):
                await self._read_events(reading, events)
        except RefusedError as error:
            logger.info("%s: its stream cannot be read: %s", job_id, error)
            return True
        except UpstreamError as error:
            logger.info("%s: its stream broke: %s", job_id, error)
        finally:
            del self._readings[job_id]
            reading.live.end_stream()
        return False

    async def _read_events(self, reading: "_Reading", events: AsyncGenerator[JSON]) -> None:
        """Apply each event, and store each changed status. Runs for each of thousands of events."""
        async for event in events:
            # First: the job may be written at any time, and must not then count as a stream.
            reading.answered_json |= event.get("type") == ANSWERED_JSON
            if event.get("response"):
                await self._apply_response(reading, event)
            if not reading.is_behind:
                self._news.set()
            reading.take_event(event)
            if reading.has_moved and not await self._save_status(reading):
                return

    async def _apply_response(self, reading: "_Reading", event: JSON) -> None:
        now = self._clock.now()
        event = reading.complete_event(event)
        applied = reading.job.apply_event(event, now)
        if applied.has_ended_turn:
            # Another process may have requested a cancel; then only a GET ends the job.
            row = await self.retry_until_stored(applied, lambda: reread_job(self._store, reading.job))
            applied = replace(reading.job, cancel_requested_at=row.cancel_requested_at).apply_event(event, now)
        reading.has_moved |= applied.status is not reading.job.status or applied.turn.has_open_calls
        reading.job = applied
        for step in applied.turn.steps:
            reading.take_step(step)

    async def _save_status(self, reading: "_Reading") -> bool:
        """Store a job whose status changed; return True if this process should read on."""
        job = reading.flush_to_job()
        if job.has_ended_turn:
            await self.retry_until_stored(job, lambda: self._save(job))
            reading.forget_stored_steps(job.turn.steps)
            return False
        try:
            saved = await self._save(job)
        except StoreError as error:
            logger.warning("%s: its status cannot be written: %s", job.id, error)
            return True
        reading.has_moved = False
        reading.forget_stored_steps(job.turn.steps)
        return saved is not None and not _should_stop(saved, saved.cancel_requested_at)

    async def _write_readings(self, behind: "Sequence[_Reading]") -> None:
        """Write progress, and stop the streams whose jobs this process lost or should stop."""
        jobs = [reading.flush_to_job() for reading in behind]
        ours = await self._store.save_progress(jobs)
        for reading, job in zip(behind, jobs, strict=True):
            reading.forget_stored_steps(job.turn.steps)
            if reading.job.id not in ours or _should_stop(reading.job, ours[reading.job.id]):
                reading.scope.cancel()


def _should_stop(job: Job, cancel_requested_at: float | None) -> bool:
    """Return True if further reading would keep a cancelled run alive."""
    return job.turn.mode == "foreground" and cancel_requested_at is not None


@dataclass(slots=True)
class _Reading:
    """A job with what its stream brought since the last write. Mutable: most events only add a word."""

    job: Job
    now: Callable[[], float]
    cursor: int = -1
    has_events: bool = False
    is_behind: bool = False  #: the stream brought more than `job` has
    has_moved: bool = False  #: the status changed, which `save_progress` does not write
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    items: list[JSON] = field(default_factory=list[JSON])
    finished_items: dict[int, JSON] = field(default_factory=dict[int, JSON])  #: by their index in the output
    answered_json: bool = False  #: the answer is a JSON object and no stream
    error: JSON | None = None  #: the stream's error event
    indexes_with_text: set[object] = field(default_factory=set[object])  #: output indexes whose text was read
    live: LiveText = field(default_factory=lambda: UNREAD)  #: the text for callers in this process
    all_words: list[str] = field(default_factory=list[str])
    new_words: list[str] = field(default_factory=list[str])
    new_reasoning: list[str] = field(default_factory=list[str])
    new_steps: dict[int, Step] = field(default_factory=dict[int, Step])  #: by position, until they are stored

    @property
    def is_held_open(self) -> bool:
        """Return True if the run ends with this connection."""
        return self.job.turn.mode == "foreground"

    def take_event(self, event: JSON) -> None:
        """Note what an event shows, unless an event of its number or a later one was read before."""
        number = event.get("sequence_number")
        if type(number) is int:
            if number <= self.cursor:
                return
            self.cursor = number
        self.has_events = self.is_behind = True
        handle = _EVENT_HANDLERS.get(string_of(event.get("type")), _Reading.ignore)
        handle(self, event)

    def ignore(self, event: JSON) -> None:
        """Note nothing of an event that only shows that the stream lives."""

    def take_words(self, event: JSON) -> None:
        """Note words that the model wrote. Most events are of this kind."""
        words = str(event.get("delta"))
        self.indexes_with_text.add(event.get("output_index"))
        self.new_words.append(words)
        self.all_words.append(words)
        self.live.add_words(event.get("output_index"), words)

    def take_whole_text(self, event: JSON) -> None:
        """Store a text that arrived in full, unless its parts arrived before."""
        index = event.get("output_index")
        if index not in self.indexes_with_text:
            self._add_words(index, str(event.get("text") or event.get("refusal") or ""))

    def take_new_item(self, event: JSON) -> None:
        """Note an output item that the model began."""
        item, index = event.get("item"), event.get("output_index")
        if not isinstance(item, dict):
            return
        self.items.append(event["item"])
        position = _choose_position(index, len(self.items) - 1)
        self._read_step(position, event["item"], is_finished=False)
        self.live.add_item(index, event["item"])

    def take_finished_item(self, event: JSON) -> None:
        """Store a full output item, with its text unless the parts of it arrived before."""
        index, item = event.get("output_index"), event.get("item")
        if not isinstance(item, dict):
            return
        place = _choose_position(index, len(self.finished_items))
        self.finished_items[place] = event["item"]
        self._read_step(place, event["item"], is_finished=True)
        if self.indexes_with_text.isdisjoint((place, index)) and (text := text_of([event["item"]])):
            self._add_words(place, text)

    def take_annotation(self, event: JSON) -> None:
        """Note a source of what the model wrote."""
        self.live.add_note(event)

    def take_reasoning(self, event: JSON) -> None:
        """Note words of the model's reasoning."""
        self.new_reasoning.append(str(event.get("delta")))

    def take_new_summary(self, event: JSON) -> None:
        """Note that another part of the reasoning summary begins."""
        self.new_reasoning.append("\n\n")

    def take_error(self, event: JSON) -> None:
        """Note the error that the stream reports."""
        self.error = event

    def complete_event(self, event: JSON) -> JSON:
        """Return the event; a finished response without its answer gets the items that were streamed before it."""
        response = mapping_of(event.get("response"))
        if response.get("status") not in ("completed", "incomplete", "failed", "cancelled"):
            return event
        self.flush_to_job()
        sent = items_of(response.get("output"))
        if has_answer(sent):
            return event
        items = self._list_finished_items()
        if len(items) > len(sent) or has_answer(items):
            return {**event, "response": {**response, "output": items}}
        if response.get("status") == "completed":
            self._keep_whole_text()
        return event

    def finish_job(self) -> Job:
        """Return the job after its stream; a held run whose answer was read in full has it as `counted`."""
        job = self.flush_to_job()
        if not self.is_held_open or job.has_ended_turn or self.error is not None:
            return job
        items = self._list_finished_items()
        if not _ends_with_answer(items):
            return job
        response = {"id": job.turn.response_id, **job.counted, "status": "completed", "output": items}
        return replace(job, counted=response)

    def finish_attached_job(self, stream_failures: int, *, is_brief: bool) -> Job:
        """Return the job after a stream that a GET opened.

        Args:
            stream_failures: In a row, before this stream.
            is_brief: True if the stream ended soon.
        """
        job = self.finish_job()
        if self.answered_json:
            return job.mark_stream_failed(for_good=True)
        if is_brief:
            # Events alone are no progress: a stream that is always cut soon is attached to less and less often.
            return replace(job, turn=replace(job.turn, stream_failures=stream_failures)).mark_stream_failed()
        return job

    def flush_to_job(self) -> Job:
        """Move what the stream brought into the job, and return the job."""
        limit = PARTIAL_CHARS
        if self.is_held_open or self.job.turn.empty_completions:
            limit = HELD_PARTIAL_CHARS
        partial = (self.job.turn.partial + "".join(self.new_words))[-limit:]
        reasoning = (self.job.turn.reasoning + "".join(self.new_reasoning)).lstrip("\n")[-REASONING_CHARS:]
        self.new_words.clear()
        self.new_reasoning.clear()
        self.is_behind = False
        self.job = self.job.with_progress(self.cursor, activity_of(self.items), partial, reasoning)
        self.job = replace(self.job, turn=replace(self.job.turn, steps=tuple(self.new_steps.values())))
        return self.job

    def forget_stored_steps(self, stored: Sequence[Step]) -> None:
        """Drop the steps that the database has by now, except those that changed in the meantime."""
        for step in stored:
            if self.new_steps.get(step.position) is step:
                del self.new_steps[step.position]

    def take_step(self, step: Step) -> None:
        """Record a step as seen now; a step that is not yet stored keeps its times."""
        known = self.new_steps.get(step.position)
        self.new_steps[step.position] = step if known is None else merge_step(known, step)

    def _read_step(self, position: int, item: JSON, *, is_finished: bool) -> None:
        self.take_step(read_step(item, self.job.turn.number, position, self.now(), is_finished=is_finished))

    def _add_words(self, index: object, words: str) -> None:
        self.indexes_with_text.add(index)
        self.new_words.append(words)
        self.all_words.append(words)
        self.live.add_words(index, words)

    def _list_finished_items(self) -> list[JSON]:
        """Return the output as its items arrived; empty if one of them was not read to its end."""
        places = range(max(len(self.items), len(self.finished_items)))
        if self.finished_items.keys() != set(places):
            return []
        return [self.finished_items[place] for place in places]

    def _keep_whole_text(self) -> None:
        """Keep all words of the stream: rows of running jobs have a short tail, and this may be the only copy."""
        text, before = "".join(self.all_words), self.job.turn.partial
        if not text.endswith(before):
            text = before
        self.job = replace(self.job, turn=replace(self.job.turn, partial=text[-HELD_PARTIAL_CHARS:]))


#: What an event of each type changes.
_EVENT_HANDLERS: Mapping[str, Callable[[_Reading, JSON], None]] = {
    "response.output_text.delta": _Reading.take_words,
    "response.refusal.delta": _Reading.take_words,
    "response.output_text.annotation.added": _Reading.take_annotation,
    "response.output_text.done": _Reading.take_whole_text,
    "response.refusal.done": _Reading.take_whole_text,
    "response.output_item.added": _Reading.take_new_item,
    "response.output_item.done": _Reading.take_finished_item,
    "response.reasoning_summary_text.delta": _Reading.take_reasoning,
    "response.reasoning_text.delta": _Reading.take_reasoning,
    "response.reasoning_summary_part.added": _Reading.take_new_summary,
    "error": _Reading.take_error,
}


def _choose_position(index: object, otherwise: int) -> int:
    """Return the index that an event names as an item's position; `otherwise` if it names none."""
    if type(index) is int:
        return index
    return otherwise


def _ends_with_answer(items: Sequence[JSON]) -> bool:
    """Return True if the last item is a finished answer: a text, calls or an image."""
    if not items or items[-1].get("status") in ("incomplete", "in_progress"):
        return False
    last = items[-1]
    return bool(text_of([last]) or calls_of([last])) or str(last.get("type")).endswith("image_generation_call")
