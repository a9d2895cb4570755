"""Streams: progress arrives at once, and no fault of a stream loses a result."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hosts import Host, eventually, hosting

from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.settings.settings import Settings


def read_counters(upstream: RunningServer) -> dict[str, Any]:
    return upstream.emulator.counters()


async def wait_for_activity(host: Host, job_id: str, before: str) -> str:
    """Return the activity of a running job once it differs."""
    with anyio.fail_after(60):
        while (shown := (await host.call("agent_poll", job_id=job_id, wait_s=1)).get("activity", "")) == before:
            pass
    return shown


async def test_streamed_job_finishes_without_a_single_poll(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 40, "text": "by the stream"})
        assert "observed_by" not in started
        assert (await host.end(started["job_id"]))["output"] == "by the stream"
    assert read_counters(upstream)["retrieves"] == 0
    assert read_counters(upstream)["streams"] == 0


async def test_running_job_shows_its_progress(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 30, "searches": 3, "reasoning": 2, "length": 4000})
        shown: list[str] = []
        answer: dict[str, Any] = started
        while "next_poll_ms" in answer:
            answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=4)
            shown.append(answer.get("activity", ""))
    assert any("3 searches" in activity for activity in shown)
    assert any(activity.endswith("writing") for activity in shown)


async def test_progress_before_a_pause_of_the_stream_is_stored_during_it(settings: Settings) -> None:
    with run_emulator(time_scale=1.0) as slow:
        async with hosting(replace(settings, base_url=slow.base_url), speed=1.0) as host:
            # Its first events come at once; the next one is a keepalive, half a minute later.
            started = await host.start(emulate={"duration_s": 600, "searches": 2})
            assert await wait_for_activity(host, started["job_id"], "")
            await host.call("agent_cancel", job_id=started["job_id"])


async def test_progress_is_stored_once_the_database_accepts_it(
    settings: Settings, upstream: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 3000, "searches": 200, "length": 50_000})
        before = await wait_for_activity(host, started["job_id"], "")
        other = sqlite3.connect(settings.data_path() / "jobs.db", isolation_level=None, check_same_thread=False)
        with closing(other):
            await anyio.to_thread.run_sync(other.execute, "BEGIN IMMEDIATE")  # our own loop may have to let go first
            await eventually(lambda: "the progress of streams (1) cannot be written" in caplog.text)
            other.execute("ROLLBACK")
        assert await wait_for_activity(host, started["job_id"], before)
        assert read_counters(upstream)["streams"] == 0, "the stream was read on"
        await host.call("agent_cancel", job_id=started["job_id"])


@pytest.mark.parametrize(
    "fault",
    [
        {"drop": {"after_events": 9}},
        {"eof_without_terminal": True},
        {"drop": "after_terminal_open"},
        {"error_event": "nested"},
        {"error_event": "flat", "eof_without_terminal": True},
        {"sequence_gaps": True, "unknown_events": True, "comments": True},
        {"no_sequence_numbers": True, "drop": {"after_events": 9}},
        {"done_marker": True, "crlf": True, "no_event_lines": True},
    ],
    ids=lambda fault: " ".join(f"{name}={value}" for name, value in fault.items()),
)
async def test_full_result_arrives_once_after_any_fault_of_the_stream(
    settings: Settings, upstream: RunningServer, fault: dict[str, Any]
) -> None:
    script = {"duration_s": 10, "length": 2000, "searches": 1, "faults": [fault]}
    async with hosting(settings) as host:
        answer = await host.end((await host.start(emulate=script))["job_id"])
    [run] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
    assert answer["status"] == "completed"
    assert answer["output"] == run["text"]
    assert read_counters(upstream)["creates"] == 1


async def test_dropped_stream_is_resumed_after_its_last_event(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="stream", duplicate_events=True, times=-1)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 30, "faults": [{"drop": {"after_events": 9}}]})
        assert (await host.end(started["job_id"]))["status"] == "completed"
        assert read_counters(upstream)["streams"] == 1
        assert read_counters(upstream)["retrieves"] == 1, (
            "a GET decides how the job stands before the stream is read again"
        )


@pytest.mark.parametrize(
    "refusal",
    [
        {"status": 400, "body": {"error": {"message": "more than 5 minutes old", "param": "stream"}}},
        {"status": 404},
        {"drop": "before_headers"},
    ],
    ids=["too old", "unknown", "reset"],
)
async def test_job_is_polled_if_its_stream_cannot_be_resumed(
    settings: Settings, upstream: RunningServer, refusal: dict[str, Any]
) -> None:
    upstream.queue_fault(on="stream", times=-1, **refusal)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 30, "faults": [{"drop": {"after_events": 4}}]})
        answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=15)
        assert answer["observed_by"] == "polling"
        assert (await host.end(started["job_id"]))["status"] == "completed"
    assert read_counters(upstream)["streams"] <= 3


async def test_job_is_polled_if_streaming_is_disabled(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(settings, follow=0)) as host:
        started = await host.start(emulate={"duration_s": 10})
        answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=3)
        assert answer["observed_by"] == "polling"
        assert (await host.end(started["job_id"]))["status"] == "completed"
    assert read_counters(upstream)["streams"] == 0
    assert read_counters(upstream)["retrieves"] >= 2


async def test_jobs_over_the_stream_limit_are_polled(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(settings, follow=1)) as host:
        first, second = [await host.start(emulate={"duration_s": 20}) for _ in range(2)]
        assert (await host.end(second["job_id"]))["status"] == "completed"
        assert (await host.end(first["job_id"]))["status"] == "completed"
    assert read_counters(upstream)["retrieves"] >= 1


async def test_next_process_resumes_a_young_stream(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 20, "text": "followed on"})
    async with hosting(settings) as other:
        assert (await other.end(started["job_id"]))["output"] == "followed on"
    assert read_counters(upstream)["streams"] == 1
    assert read_counters(upstream)["retrieves"] == 1


async def test_cancel_of_a_streamed_job_is_confirmed_by_a_poll(settings: Settings, upstream: RunningServer) -> None:
    script = {"end": "never", "faults": [{"failed_event_on_cancel": True}]}
    async with hosting(settings) as host:
        started = await host.start(emulate=script)
        assert (await host.call("agent_cancel", job_id=started["job_id"]))["status"] == "cancelled"
    assert read_counters(upstream)["cancels"] == 1


async def test_failed_cancel_of_a_streamed_job_is_soon_sent_again(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="cancel", status=503)
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"})
        await host.call("agent_cancel", job_id=started["job_id"])
        with anyio.fail_after(60):
            assert (await host.end(started["job_id"]))["status"] == "cancelled"
    assert read_counters(upstream)["cancels"] == 2


GATEWAY_PAGE = {"status": 200, "body": "<html><body><h1>Bad gateway</h1></body></html>"}


@pytest.mark.parametrize("fault", [GATEWAY_PAGE, {"status": 200, "body": {}}, {"status": 409}, {"status": 400}])
async def test_cancel_that_upstream_ignores_is_soon_sent_again(
    settings: Settings, upstream: RunningServer, fault: dict[str, Any]
) -> None:
    upstream.queue_fault(on="cancel", **fault)
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"})
        assert (await host.call("agent_cancel", job_id=started["job_id"]))["status"] == "in_progress"
        with anyio.fail_after(60):
            assert (await host.end(started["job_id"]))["status"] == "cancelled"
    assert read_counters(upstream)["cancels"] == 2


async def test_cancel_of_a_process_that_ended_is_sent_again_by_the_process_that_streams(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="cancel", **GATEWAY_PAGE)
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"})
        await wait_for_activity(host, started["job_id"], "")
        async with hosting(settings) as other:
            assert (await other.call("agent_cancel", job_id=started["job_id"]))["status"] == "in_progress"
        with anyio.fail_after(60):
            assert (await host.end(started["job_id"]))["status"] == "cancelled"
    assert read_counters(upstream)["cancels"] == 2


async def test_history_of_a_job_is_stored_for_people(settings: Settings) -> None:
    async with hosting(replace(settings, follow=0)) as host:
        started = await host.start(emulate={"duration_s": 1})
        await host.end(started["job_id"])
        engine = await host.app.engine()
        kinds = [event.kind for event in (await engine.result(started["job_id"])).events]
    assert kinds[0] == "polling"
