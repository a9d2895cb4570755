"""Traces: spans of finished jobs by the GenAI conventions, sent once, without prompts and answers."""

import json
import logging
import os
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hosts import SPEED, Host, eventually, hosting, read
from mcp import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from receiver import Receiver, receiving
from test_agent_loop import add_tool_servers, ledger_entry, script_with_calls, start_with_ledger, tool_call

from agent_jobs.app import open_app
from agent_jobs.clock import create_fast_clock
from agent_jobs.engine.job_traces import TraceRunner, to_ns
from agent_jobs.engine.span_exporter import NO_EXTRA, captures_content, find_endpoint_variable
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings.settings import Settings
from agent_jobs.store import open_store

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACE_PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


@pytest.fixture(autouse=True)
def no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


async def trace_jobs(folder: Path, *, has_content: bool = False) -> list[ReadableSpan]:
    """Trace the finished jobs of a folder; return the spans in order of their start."""
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with open_store(folder) as store:
        runner = TraceRunner(store, create_fast_clock(1), provider.get_tracer("t"), has_content=has_content)
        await runner.trace_finished()
    return sorted(spans.get_finished_spans(), key=lambda span: span.start_time or 0)


def read_attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def find_named(spans: Sequence[ReadableSpan], beginning: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name.startswith(beginning)]


async def run_job_with_tools(settings: Settings, log: Path) -> tuple[str, Path]:
    """Run a job of three turns with three calls; return its id and the folder of the jobs."""
    assert settings.data_dir is not None
    usage = {"input_tokens": 100, "output_tokens": 10}
    turns = [[tool_call("ledger__write", n=1), tool_call("ledger__read", n=2)], [tool_call("ledger__write", n=3)]]
    async with hosting(add_tool_servers(settings, ledger=ledger_entry(log)), speed=1.0) as host:
        job_id = await start_with_ledger(host, script_with_calls(*turns, usage=usage))
        await host.end(job_id)
    return job_id, settings.data_dir


async def test_job_is_a_span_with_its_turns_and_calls_below(settings: Settings, tmp_path: Path):
    job_id, folder = await run_job_with_tools(settings, tmp_path / "ledger")
    spans = await trace_jobs(folder)
    [job] = find_named(spans, "invoke_agent")
    turns, calls = find_named(spans, "chat "), find_named(spans, "execute_tool")
    assert (len(turns), len(calls), len(spans)) == (3, 3, 7)
    assert {span.context.trace_id for span in spans if span.context} == {job.context and job.context.trace_id}
    assert {span.parent and span.parent.span_id for span in (*turns, *calls)} == {job.context and job.context.span_id}
    facts = read_attributes(job)
    assert facts["gen_ai.operation.name"] == "invoke_agent"
    assert facts["gen_ai.provider.name"] == "openai"
    assert (facts["gen_ai.usage.input_tokens"], facts["gen_ai.usage.output_tokens"]) == (300, 30)
    assert (facts["agent_jobs.job_id"], facts["agent_jobs.status"]) == (job_id, "completed")
    for number, turn in enumerate(turns, 1):
        facts = read_attributes(turn)
        assert turn.name == f"chat {facts['gen_ai.request.model']}"
        assert (facts["gen_ai.operation.name"], facts["agent_jobs.turn"]) == ("chat", number)
        assert (facts["gen_ai.usage.input_tokens"], facts["gen_ai.usage.output_tokens"]) == (100, 10)
        assert facts["gen_ai.response.id"].startswith("resp_")
    assert sorted(read_attributes(each)["gen_ai.tool.name"] for each in calls) == [
        "ledger__read", "ledger__write", "ledger__write",
    ]  # fmt: skip


async def test_spans_have_the_times_of_the_original_events(settings: Settings, tmp_path: Path):
    job_id, folder = await run_job_with_tools(settings, tmp_path / "ledger")
    spans = await trace_jobs(folder)
    [job] = find_named(spans, "invoke_agent")
    assert job.start_time is not None and job.end_time is not None
    for span in spans:
        assert span.start_time is not None and span.end_time is not None
        assert job.start_time <= span.start_time <= span.end_time <= job.end_time
    turns = find_named(spans, "chat ")
    for before, after in pairwise(turns):
        assert before.end_time is not None and after.start_time is not None
        assert before.end_time <= after.start_time
    async with open_store(folder) as store:
        stored = await store.get(job_id)
    assert stored is not None and stored.finished_at is not None
    assert (job.start_time, job.end_time) == (to_ns(stored.created_at), to_ns(stored.finished_at))


async def test_job_is_below_the_span_that_started_it(settings: Settings):
    assert settings.data_dir is not None
    async with hosting(settings) as host:
        arguments = {"prompt": "with a parent", "wait_s": 0}
        meta: Any = {"traceparent": TRACE_PARENT}
        result = await host.client.call_tool("agent_start", arguments, meta=meta)
        job_id = read(result)["job_id"]
        await host.end(job_id)
    [job, *below] = await trace_jobs(settings.data_dir)
    assert job.parent is not None and below
    # The parent is the client's own span if an SDK is installed, else the caller's.
    assert {f"{span.context.trace_id:032x}" for span in (job, *below) if span.context} == {TRACE_ID}


async def test_calls_of_hosted_tools_are_below_their_turn(settings: Settings):
    assert settings.data_dir is not None
    async with hosting(settings) as host:
        await host.end((await host.start(emulate={"searches": 2, "duration_s": 5}, web_search=True))["job_id"])
    spans = await trace_jobs(settings.data_dir)
    [turn], calls = find_named(spans, "chat "), find_named(spans, "execute_tool")
    assert [read_attributes(each)["gen_ai.tool.name"] for each in calls] == ["web_search", "web_search"]
    assert {each.parent and each.parent.span_id for each in calls} == {turn.context and turn.context.span_id}
    assert {read_attributes(each)["gen_ai.tool.type"] for each in calls} == {"extension"}


async def test_failure_is_an_error_with_its_code_and_without_its_message(settings: Settings):
    assert settings.data_dir is not None
    emulate = {"end": "failed", "error": {"code": "server_error", "message": "words of the provider"}}
    async with hosting(settings) as host:
        answer = await host.end((await host.start(emulate=emulate))["job_id"])
        assert answer["status"] == "failed"
    spans = await trace_jobs(settings.data_dir)
    for span in (*find_named(spans, "invoke_agent"), *find_named(spans, "chat ")):
        assert span.status.status_code is StatusCode.ERROR
        assert read_attributes(span)["error.type"] == answer["error"]["code"]
    assert "words of the provider" not in str([span.to_json() for span in spans])


@pytest.mark.parametrize("has_content", [False, True])
async def test_content_is_in_spans_only_if_requested(settings: Settings, tmp_path: Path, has_content: bool):
    _, folder = await run_job_with_tools(settings, tmp_path / "ledger")
    spans = await trace_jobs(folder, has_content=has_content)
    written = " ".join(span.to_json() for span in spans)
    assert ("the end" in written) is has_content
    assert any("gen_ai.tool.call.arguments" in read_attributes(span) for span in spans) is has_content
    if has_content:
        [job] = find_named(spans, "invoke_agent")
        [message] = json.loads(read_attributes(job)["gen_ai.output.messages"])
        assert message["parts"] == [{"type": "text", "content": "the end"}]


async def test_finished_job_is_traced_once(settings: Settings):
    assert settings.data_dir is not None
    async with hosting(settings) as host:
        await host.end((await host.start())["job_id"])
        await host.start(emulate={"end": "never"})
    assert len(find_named(await trace_jobs(settings.data_dir), "invoke_agent")) == 1
    assert await trace_jobs(settings.data_dir) == []


@asynccontextmanager
async def hosting_as(what: str, settings: Settings) -> AsyncGenerator[Host]:
    async with (
        open_app(settings, create_fast_clock(SPEED), what=what) as app,
        Client(build_server(app.engine)) as client,
    ):
        yield Host(app, client)


def read_names(collector: Receiver) -> list[str]:
    """Return the names of the spans that a collector received."""
    requests = [ExportTraceServiceRequest.FromString(each.body) for each in collector.received]
    resources = [spans for request in requests for spans in request.resource_spans]
    return [span.name for spans in resources for scope in spans.scope_spans for span in scope.spans]


@pytest.mark.parametrize(("what", "captured"), [("work", ""), ("serve --http", "true")])
async def test_spans_reach_a_collector(
    settings: Settings, collector: Receiver, monkeypatch: pytest.MonkeyPatch, what: str, captured: str
):
    monkeypatch.setenv(ENDPOINT, collector.url)
    monkeypatch.setenv(CAPTURE, captured)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with hosting_as(what, settings) as host:
        await host.end((await host.start("the secret question", emulate={"text": "the secret answer"}))["job_id"])
        await eventually(lambda: "invoke_agent agent-jobs" in read_names(collector))
    assert {each.path for each in collector.received} == {"/v1/traces"}
    sent = b" ".join(each.body for each in collector.received)
    assert b"agent-jobs" in sent and b"gen_ai.usage.input_tokens" in sent
    assert (b"the secret question" in sent, b"the secret answer" in sent) == (bool(captured),) * 2
    assert b"sk-secret" not in sent


async def test_server_of_a_host_sends_no_traces(
    settings: Settings, collector: Receiver, monkeypatch: pytest.MonkeyPatch
):
    """The variable may be meant for the host itself, which passes it on to its servers."""
    monkeypatch.setenv(ENDPOINT, collector.url)
    async with hosting_as("server", settings) as host:
        await host.end((await host.start())["job_id"])
    assert settings.data_dir is not None
    assert find_named(await trace_jobs(settings.data_dir), "invoke_agent"), "no process had claimed it"
    assert collector.received == []


async def test_process_without_the_extra_warns_once_and_works(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    async with hosting_as("work", settings) as host:
        answer = await host.end((await host.start())["job_id"])
        assert answer["status"] == "completed"
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in warned] == [NO_EXTRA % ENDPOINT]


async def test_collector_that_cannot_be_reached_stops_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    async with hosting_as("work", settings) as host:
        assert (await host.end((await host.start())["job_id"]))["status"] == "completed"


@pytest.mark.parametrize("value", ["", "true", "SPAN_ONLY", "no_content", "event_only", "0"])
def test_variable_says_if_content_is_captured(value: str):
    assert captures_content({CAPTURE: value}) is (value.lower() in {"true", "span_only"})


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, ""),
        ({ENDPOINT: " "}, ""),
        ({ENDPOINT: "http://collector:4318"}, ENDPOINT),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, ""),
    ],
)
def test_traces_are_sent_where_a_variable_names_a_collector(environ: dict[str, str], variable: str):
    assert find_endpoint_variable(environ) == variable
