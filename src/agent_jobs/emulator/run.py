"""Run a response: its status, its output and the log of its events."""

import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel

from .faults import Fault, FaultQueue
from .script import Script, answer_text
from .timeline import OutputOptions, build_timeline
from .tool_items import Container

__all__ = ["KEEPALIVE_S", "TERMINAL", "Clock", "Run"]

Json = dict[str, Any]

KEEPALIVE_S = 30.0  # emulated seconds without an event after which OpenAI sends a keepalive
ROUNDING_S = 1e-6  # the error of added times
TERMINAL = ("response.completed", "response.failed", "response.incomplete")
_STATUS = {"refusal": "completed", "never": "completed"}
_DEFAULTS: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_REASONING: Json = {"effort": "medium", "summary": None}
_TEXT: Json = {"format": {"type": "text"}, "verbosity": "medium"}
_LOST = "Previous response with id '{id}' not found."
_SECRETS = ("authorization", "headers")  # never echoed by OpenAI


class Clock:
    """Emulated time: `scale` seconds pass in each real second."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._began = time.monotonic()

    def now(self) -> float:
        """Return the emulated seconds since the clock began."""
        return (time.monotonic() - self._began) * self._scale

    async def sleep(self, duration_s: float) -> None:
        """Let emulated seconds pass."""
        await anyio.sleep(duration_s / self._scale)
        # A sleep that ended together with the cancellation would return normally.
        await anyio.lowlevel.checkpoint_if_cancelled()

    async def sleep_until(self, at_s: float) -> None:
        """Sleep until an emulated moment; infinity never comes."""
        await self.sleep(max(0.0, at_s - self.now()))


class Run:
    """A response from its creation to its end, with or without a reader."""

    def __init__(
        self,
        response_id: str,
        body: Json,
        script: Script,
        fault: Fault,
        clock: Clock,
        container: Container | None = None,
    ) -> None:
        self.id = response_id
        self.body = body
        self.fault = fault
        self.background = bool(body.get("background")) and not (fault.ignore_background or fault.background_unsaid)
        self.brought = FaultQueue()
        self.client_request_id: str | None = None
        self.created_s = clock.now()
        self.ended_s = math.inf
        self.status = "queued" if self.background else "in_progress"
        self.ended = False
        self.output: list[Json] = []
        self.empty_answers = 0
        self._clock = clock
        self.script = script
        text = answer_text(script, body)
        steps = build_timeline(
            script, response_id, text, OutputOptions.from_body(body), container, unknown=fault.unknown_events
        )
        self._steps = deque(steps)
        previous_id = body.get("previous_response_id")
        if fault.fail_previous and previous_id:
            self.script = _fail_without_previous(script, fault, previous_id)
            self._steps.clear()
        self._base = _echo_request(body, response_id) | {"background": self.background}
        if fault.background_unsaid:
            del self._base["background"]
        self._ending: Json = {}
        self._input_tokens = count_tokens(body)
        self._events: list[Json] = []
        self._next_number = 0
        self._changed = anyio.Event()
        #: The run's own time is that of its current event, so a busy machine that plays it late changes nothing.
        self._at_s = self._due_s = self._last_event_s = self.created_s
        self._moments = self._live_through()
        self._playing = anyio.CancelScope()

    async def play(self) -> None:
        """Play the script until it ends or the response is cancelled."""
        with self._playing:
            while not self.ended:
                await self._clock.sleep_until(self._due_s)
                self.catch_up()

    def catch_up(self) -> None:
        """Do everything that is due by now."""
        while not self.ended and self._due_s <= self._clock.now():
            self._at_s = self._due_s
            self._due_s = next(self._moments, math.inf)

    def _live_through(self) -> Iterator[float]:
        """Play the script; yield each moment to wait for."""
        yield from self._open_run()
        began_s = self._at_s
        while self._steps:
            yield from self._silence_until(began_s + self._steps[0].at_s)
            self._emit_event(self._steps.popleft().event)
        yield from self._silence_until(began_s + self.script.duration_s)
        if self.script.end == "never":
            yield from self._silence_until(math.inf)
        self._finish_run()

    def cancel(self, fault: Fault) -> None:
        """End the run as cancelled, or as the fault says."""
        if fault.late_complete:
            return
        self._playing.cancel()
        self._at_s = self._clock.now()
        if fault.complete_after_cancel:
            while self._steps:
                self._emit_event(self._steps.popleft().event)
            self._finish_run()
            return
        self._keep_open_item()
        if fault.cancel_clears_output:
            self.output = []
        self._end_run("cancelled")
        if fault.failed_event_on_cancel:
            self._emit_event({"type": "response.failed", "response": self.snapshot()})

    def abandon(self) -> None:
        """Stop for good, as a foreground run does when its client disconnects."""
        self._playing.cancel()
        self.ended = True
        self._wake_readers()

    def snapshot(self) -> Json:
        """Return the response object as it is now."""
        return self._base | {"status": self.status, "output": list(self.output)} | self._ending

    def read_output_text(self) -> str:
        """Return the text of the messages in the output."""
        parts = [part for item in self.output if item["type"] == "message" for part in item["content"]]
        return "".join(part.get("text", "") for part in parts)

    def read_streamed_text(self) -> str:
        """Return the text in the events so far, also if it never became output."""
        return "".join(event["delta"] for event in self._events if event["type"] == "response.output_text.delta")

    async def wait_until_created(self) -> Json:
        """Wait for the event response.created, and return the response in it."""
        while True:
            shown = [event["response"] for event in self._events if event["type"] == "response.created"]
            if shown:
                return shown[0]
            if self.ended:
                return self.snapshot()
            await self._changed.wait()

    async def wait_until_ended(self) -> Json:
        """Wait for the end, and return the response."""
        while not self.ended:
            await self._changed.wait()
        return self.snapshot()

    async def follow(self, after: int = -1) -> AsyncIterator[Json]:
        """Yield the events after a sequence number, and then the new ones until the end."""
        index = 0
        while True:
            changed = self._changed
            while index < len(self._events):
                event = self._events[index]
                index += 1
                if event["sequence_number"] > after:
                    yield event
            if self.ended and index == len(self._events):
                return
            await changed.wait()

    def _open_run(self) -> Iterator[float]:
        for _ in range(self.fault.keepalives):
            yield self._at_s + self.fault.delay_created_s / self.fault.keepalives
            self._emit_event({"type": "keepalive"})
        yield self.created_s + self.fault.delay_created_s
        self._emit_status("response.created")
        if self.background:
            self._emit_status("response.queued")
            began_s = self._at_s + self.script.queued_s
            if self.fault.stuck_queued:
                began_s = math.inf
            yield from self._silence_until(began_s)
            self.status = "in_progress"
        self._emit_status("response.in_progress")

    def _silence_until(self, at_s: float) -> Iterator[float]:
        while at_s - self._last_event_s > KEEPALIVE_S + ROUNDING_S:
            yield self._last_event_s + KEEPALIVE_S
            self._emit_event({"type": "keepalive"})
        yield at_s

    def _finish_run(self) -> None:
        script = self.script
        self._keep_open_item()
        if script.end == "failed":
            self._ending["error"] = {"code": script.error_code, "message": script.error_message}
        if script.end == "incomplete":
            self._ending["incomplete_details"] = {"reason": script.reason}
        if self.fault.error_event:
            self._emit_event(_build_error_event(script, nested=self.fault.error_event == "nested"))
        self._ending |= {"usage": self._build_usage(), "tool_usage": _build_tool_usage(script)}
        status = _STATUS.get(script.end, script.end)
        if status == "completed":
            self._ending["completed_at"] = int(time.time())
        self._end_run(status)
        self._emit_status(f"response.{status}")

    def _end_run(self, status: str) -> None:
        self.status = status
        self.ended = True
        self.ended_s = self._at_s
        self._wake_readers()

    def _emit_status(self, type: str) -> None:
        self._emit_event({"type": type, "response": self.snapshot()})

    def _emit_event(self, event: Json) -> None:
        if event["type"] == "response.output_item.done":
            self.output.append(event["item"])
        self._events.append({"type": event["type"], "sequence_number": self._next_number, **event})
        self._next_number += 3 if self.fault.sequence_gaps else 1
        self._last_event_s = self._at_s
        self._wake_readers()

    def _wake_readers(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _keep_open_item(self) -> None:
        """Keep the unfinished item that was being written when the run stopped."""
        index = len(self.output)
        mine = [event for event in self._events if event.get("output_index") == index]
        if not mine:
            return
        opened = mine[0]["item"]
        status = "incomplete"
        if opened["type"] == "image_generation_call":
            status = "failed"
        item = opened | {"status": status}
        text = "".join(event["delta"] for event in mine if event["type"] == "response.output_text.delta")
        if text:
            part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
            item["content"] = [part]
        self.output.append(item)

    def _build_usage(self) -> Json | None:
        given = self.script.usage
        if given is None:
            return None
        reasoning = 64 * self.script.reasoning
        usage: Json = {
            "input_tokens": self._input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": reasoning + -(-len(self.read_output_text()) // 4),
            "output_tokens_details": {"reasoning_tokens": reasoning},
        }
        usage |= given
        counts = [usage["input_tokens"], usage["output_tokens"]]
        total = None
        if all(isinstance(count, int) for count in counts):
            total = sum(counts)
        return {"total_tokens": total} | usage


def _fail_without_previous(script: Script, fault: Fault, lost_id: str) -> Script:
    """Return the script of a run that fails because its previous response is lost."""
    words = _LOST
    if isinstance(fault.fail_previous, str):
        words = fault.fail_previous
    # Such a run uses no tokens, unless its script names some.
    return replace(script, end="failed", error_message=words.replace("{id}", lost_id), usage=script.usage or None)


def count_tokens(body: Json) -> int:
    """Estimate the input tokens of a request: four characters each."""
    counted = [body.get(name) for name in ("instructions", "input", "tools")]
    return sum(-(-len(str(part)) // 4) for part in counted if part)


def _echo_request(body: Json, response_id: str) -> Json:
    given = {name: value for name, value in body.items() if value is not None}
    base = _DEFAULTS | {name: given[name] for name in _DEFAULTS.keys() & given.keys()}
    conversation = given.get("conversation")
    if conversation is not None:
        if isinstance(conversation, str):
            conversation = {"id": conversation}
        base["conversation"] = conversation
    if base["service_tier"] == "fast":
        base["service_tier"] = "priority"
    return base | {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "metadata": given.get("metadata", {}),
        "model": given["model"],
        "reasoning": _REASONING | given.get("reasoning", {}),
        "text": _TEXT | given.get("text", {}),
        "tools": [_echo_tool(tool) for tool in given.get("tools", [])],
        "usage": None,
    }


def _echo_tool(tool: Json) -> Json:
    shown = {name: value for name, value in tool.items() if name not in _SECRETS}
    if tool["type"] != "function":
        return shown
    return {"strict": True, "parameters": None, "description": None} | shown


def _build_error_event(script: Script, *, nested: bool) -> Json:
    error = {"code": script.error_code, "message": script.error_message, "param": None}
    if nested:
        return {"type": "error", "error": {"type": "server_error", **error}}
    return {"type": "error", **error}


def _build_tool_usage(script: Script) -> Json:
    drawn = 100 * script.images
    split = {"image_tokens": 0, "text_tokens": 0}
    images: Json = {"input_tokens": 0, "input_tokens_details": split, "output_tokens": drawn, "total_tokens": drawn}
    return {"image_gen": images, "web_search": {"num_requests": script.searches}}
