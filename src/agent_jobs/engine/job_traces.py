"""Trace finished jobs: a span for each job, each of its turns and each of its tool calls, by the GenAI conventions.

The spans are written when a job has finished, from its rows and with their times: a job may run on one process, end on
another, and outlive both. One process claims each finished job first, so its spans are sent at most once.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.propagate import extract
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from agent_jobs.clock import Clock
from agent_jobs.engine.failure_log import log_failures
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import TurnRecord
from agent_jobs.jobs.response import Call, Usage
from agent_jobs.jobs.response_steps import Step
from agent_jobs.rendering.answers import drop_missing, read_output_text
from agent_jobs.store.base import Store

logger = logging.getLogger(__name__)

CHECK_S = 2.0  # between checks for finished jobs: collectors accept late spans
NEWS_S = 3600.0  # a job that finished longer ago is not traced any more
AT_ONCE = 50  # jobs that one process claims at once
CONTENT_CHARS = 32_000  # of one attribute; collectors refuse messages of several megabytes
TOOL_NAME = "agent-jobs"  #: the agent's name where a job has no preset
#: Steps that are no calls of tools of the provider. A function is called by this side, and has a record of its own.
NO_TOOL_KINDS = frozenset({"message", "reasoning", "function", "approval", "unknown"})
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class JobRecord:
    """All that the spans of a job are made of."""

    job: Job
    turns: Sequence[TurnRecord]
    steps: Sequence[Step]
    calls: Sequence[Call]
    prompt: str


class TraceRunner:
    """Traces all jobs on this database that no other process traced.

    Args:
        store: The store of all owners.
        clock: The time.
        tracer: Takes the spans.
        has_content: True if spans may have prompts, answers, and arguments and results of tools.
    """

    def __init__(self, store: Store, clock: Clock, tracer: Tracer, *, has_content: bool) -> None:
        self._store = store
        self._clock = clock
        self._writer = SpanWriter(tracer, has_content=has_content)

    async def run(self) -> None:
        """Trace finished jobs until cancelled."""
        while True:
            with log_failures(logger, "cannot read the jobs to trace: %s", "traces failed; they continue"):
                await self.trace_finished()
            await self._clock.sleep(CHECK_S)

    async def trace_finished(self) -> None:
        """Write the spans of the jobs that finished since the last check."""
        for job_id in await self._store.claim_traces(self._clock.now() - NEWS_S, AT_ONCE):
            record = await self._read_record(job_id)
            if record is not None:
                self._writer.write_job(record)

    async def _read_record(self, job_id: str) -> JobRecord | None:
        store = self._store
        job = await store.get(job_id)
        if job is None or job.finished_at is None:
            return None  # deleted, or found again, just now
        turns, steps = await store.get_turns(job_id), await store.get_steps(job_id)
        return JobRecord(job, turns, steps, await store.get_calls(job_id), await store.get_prompt(job_id))


class SpanWriter:
    """Writes the spans of finished jobs.

    Args:
        tracer: Takes the spans.
        has_content: True if spans may have prompts, answers, and arguments and results of tools.
    """

    def __init__(self, tracer: Tracer, *, has_content: bool) -> None:
        self._tracer = tracer
        self._has_content = has_content

    def write_job(self, record: JobRecord) -> None:
        """Write the span of a job, below the span that started it, and those of its turns and calls."""
        job, end = record.job, record.job.end_time
        parent = extract({"traceparent": job.trace_parent}, Context())
        attributes = describe_job(job) | self._add_content(describe_messages(record))
        span = self._write_span(f"invoke_agent {job.preset or TOOL_NAME}", (job.created_at, end), attributes, parent)
        below = set_span_in_context(span, parent)
        sent = [turn for turn in record.turns if turn.sent_at is not None]
        for turn, times in zip(sent, list_turn_times(sent, record.steps, end), strict=True):
            self._write_turn(record, turn, times, below)
        for call in record.calls:
            self._write_call(call, below, end)
        mark_span_failed(span, job.error_code)
        span.end(to_ns(end))

    def _write_turn(self, record: JobRecord, turn: TurnRecord, times: tuple[float, float], parent: Context) -> None:
        job, (begin, end) = record.job, times
        ids = drop_missing({"gen_ai.response.id": turn.response_id, "agent_jobs.turn": turn.number})
        attributes = {**describe_model(job, "chat"), **describe_usage(turn.usage), **ids}
        span = self._write_span(f"chat {job.model}", times, attributes, parent, SpanKind.CLIENT)
        below = set_span_in_context(span, parent)
        for step in record.steps:
            if step.turn == turn.number and step.kind not in NO_TOOL_KINDS:
                self._write_step(step, below, end)
        if turn.number == job.turn.number:
            mark_span_failed(span, job.error_code)
        span.end(to_ns(max(begin, end)))

    def _write_step(self, step: Step, parent: Context, turn_end: float) -> None:
        """Write the span of a call that the provider made."""
        name = step.name or step.kind
        attributes = describe_tool(name, "extension") | self._add_content({"gen_ai.tool.call.arguments": step.detail})
        times = (step.seen_at, step.finished_at or turn_end)
        span = self._write_span(f"execute_tool {name}", times, attributes, parent)
        if step.error:
            mark_span_failed(span, "tool_error")
        span.end(to_ns(max(times)))

    def _write_call(self, call: Call, parent: Context, job_end: float) -> None:
        """Write the span of a call that this side made."""
        if call.started_at is None:
            return  # a person or the host answered it
        content = {"gen_ai.tool.call.arguments": call.arguments, "gen_ai.tool.call.result": write_json(call.output)}
        attributes = {**describe_tool(call.name, "function"), "gen_ai.tool.call.id": call.id}
        times = (call.started_at, call.finished_at or job_end)
        span = self._write_span(f"execute_tool {call.name}", times, attributes | self._add_content(content), parent)
        span.end(to_ns(max(times)))

    def _write_span(
        self,
        name: str,
        times: tuple[float, float],
        attributes: Attributes,
        parent: Context,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        """Begin a span at its time; the caller ends it."""
        return self._tracer.start_span(name, parent, kind, attributes, start_time=to_ns(times[0]))

    def _add_content(self, content: Attributes) -> dict[str, str]:
        if not self._has_content:
            return {}
        return {name: text[:CONTENT_CHARS] for name, text in content.items() if text}


def list_turn_times(turns: Sequence[TurnRecord], steps: Sequence[Step], job_end: float) -> list[tuple[float, float]]:
    """Return when each turn was sent, and when it ended: with its last step, or else before the next turn."""
    begins = [turn.sent_at or 0.0 for turn in turns]
    latest = [*begins, job_end][1:]
    finished: dict[int, float] = {}
    for step in steps:
        if step.finished_at is not None:
            finished[step.turn] = max(step.finished_at, finished.get(step.turn, 0.0))
    ends = [finished.get(turn.number, limit) for turn, limit in zip(turns[:-1], latest[:-1], strict=True)]
    ends += latest[-1:]
    return [(begin, max(begin, end)) for begin, end in zip(begins, ends, strict=True)]


def describe_job(job: Job) -> dict[str, Any]:
    """Return the attributes of a job's span."""
    optional = {"agent_jobs.owner": job.owner, "agent_jobs.batch": job.batch, "agent_jobs.cost_usd": job.cost_usd}
    return {
        **describe_model(job, "invoke_agent"),
        **describe_usage(job.usage),
        "gen_ai.agent.name": job.preset or TOOL_NAME,
        "agent_jobs.job_id": job.id,
        "agent_jobs.status": str(job.status),
        **drop_missing(optional),
    }


def describe_model(job: Job, operation: str) -> dict[str, Any]:
    """Return the attributes of a span in which a model is used."""
    host = urlsplit(job.turn.base_url).hostname or ""
    provider = "openai"
    if host.endswith((".openai.azure.com", ".services.ai.azure.com")):
        provider = "azure.ai.openai"
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": job.model,
        "server.address": host,
    }


def describe_usage(usage: Usage | None) -> dict[str, int]:
    """Return the attributes for tokens; none while they are unknown."""
    if usage is None:
        return {}
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }


def describe_tool(name: str, tool_type: str) -> dict[str, str]:
    """Return the attributes of a tool call's span; an extension is called by the provider, a function by this side."""
    return {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name, "gen_ai.tool.type": tool_type}


def describe_messages(record: JobRecord) -> dict[str, str]:
    """Return the attributes with a job's prompt and answer, in the form of the GenAI conventions."""
    texts = (record.prompt, read_output_text(record.job))
    asked, answered = ({"type": "text", "content": text[: CONTENT_CHARS // 2]} for text in texts)
    return {
        "gen_ai.input.messages": write_json([{"role": "user", "parts": [asked]}]),
        "gen_ai.output.messages": write_json(
            [{"role": "assistant", "parts": [answered], "finish_reason": str(record.job.status)}]
        ),
    }


def mark_span_failed(span: Span, code: str) -> None:
    """Mark a span as failed, unless the code is empty. The message is left out, because it may repeat the prompt."""
    if not code:
        return
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR))


def write_json(value: object) -> str:
    """Return JSON without blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def to_ns(at: float) -> int:
    """Return a time in the unit of OpenTelemetry."""
    return int(at * 1_000_000_000)
