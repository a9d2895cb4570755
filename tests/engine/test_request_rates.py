"""No answer of an endpoint leads to a storm of requests for one response."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hosts import SPEED, hosting

from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings

AT_ONCE = 20  # requests for one response that may come together
A_SECOND = 2  # further requests per second


def list_request_times(emulator: Emulator) -> dict[str, list[float]]:
    """Return the times of all requests for each response, by its id."""
    times: dict[str, list[float]] = {}
    for entry in emulator.log():
        if entry["entry"] == "request" and entry["operation"] in ("retrieve", "stream", "cancel", "delete"):
            times.setdefault(entry["response_id"], []).append(entry["at"])
    return times


def check_rates(emulator: Emulator, speed: float = SPEED) -> None:
    """Check that no response was requested more often than allowed, by the seconds of our own clock."""
    for response_id, times in list_request_times(emulator).items():
        for number, at in enumerate(times, 1):
            most = AT_ONCE + A_SECOND * (at - times[0]) * speed
            assert number <= most, f"{number} requests for {response_id} in {at - times[0]:.3f} s at {speed:g}x"


FAULTS: dict[str, list[dict[str, Any]]] = {
    "JSON to an attach": [{"drop": {"after_events": 4}}, {"json_to_attach": True}],
    "every stream is cut": [
        {"drop": {"after_events": 4}},
        {"on": "stream", "drop": {"after_events": 3}, "times": -1},
    ],
    "every stream ends early": [
        {"drop": {"after_events": 4}},
        {"on": "stream", "drop": {"after_events": 3}, "eof_without_terminal": True, "times": -1},
    ],
    "no numbers": [{"no_sequence_numbers": True, "drop": {"after_events": 4}, "times": 1}],
    "503 to every GET for a while": [{"drop": {"after_events": 4}}, {"on": "retrieve", "status": 503, "times": 9}],
    "404 to an attach": [{"drop": {"after_events": 4}}, {"on": "stream", "status": 404, "times": -1}],
    "completed empty": [{"completed_empty": 99, "eof_without_terminal": True}],
    "JSON to the POST and to an attach": [{"json_instead_of_stream": True, "json_to_attach": True}],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("polls_s", [0.5, 10])
async def test_response_is_never_polled_faster_than_allowed(
    settings: Settings, upstream: RunningServer, faults: list[dict[str, Any]], polls_s: float
) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 30, "length": 4000, "faults": faults})
        answer = started
        while answer["status"] in ("pending", "starting", "queued", "in_progress"):
            answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=polls_s)
        engine = await host.app.engine()
        kinds = [event.kind for event in (await engine.result(started["job_id"])).events]
    assert answer["status"] == "completed"
    check_rates(upstream.emulator)
    assert sum(map(len, list_request_times(upstream.emulator).values())) <= 45
    assert all(one != other for one, other in pairwise(kinds)), kinds
    assert len(kinds) <= 9, kinds


async def test_job_is_polled_after_json_to_an_attach(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(settings)) as host:
        started = await host.start(emulate={"duration_s": 40, "faults": FAULTS["JSON to an attach"]})
        assert (await host.end(started["job_id"]))["status"] == "completed"
    assert upstream.emulator.counters()["streams"] == 1


#: Faults that are not in FAULTS.
SWITCHES: list[dict[str, Any]] = [
    *({name: True} for name in ("no_event_lines", "crlf", "cr", "bom", "comments", "done_marker")),
    *({name: True} for name in ("no_sequence_numbers", "duplicate_events", "no_deltas", "empty_terminal_event")),
    *({name: True} for name in ("sequence_gaps", "unknown_events", "stuck_queued", "ignore_background")),
    *({name: True} for name in ("background_unsaid", "complete_at_once", "id_changes", "missing_fields")),
    *({name: True} for name in ("eof_without_terminal", "json_instead_of_stream", "json_to_attach")),
    {"no_retrieve": True, "background_unsaid": True},
    {"no_retrieve": True, "drop": {"after_events": 4}},
    {"split_bytes": 7},
    {"delay_created_s": 5, "keepalives": 3},
    {"error_event": "flat", "eof_without_terminal": True},
    {"error_event": "nested", "drop": {"after_events": 6}},
    {"not_found_for_s": 30, "drop": {"after_events": 4}},
    {"not_found_after_end_s": 30, "eof_without_terminal": True},
    {"completed_empty": 2, "eof_without_terminal": True},
    {"unknown_status": "pondering", "json_instead_of_stream": True},
    {"poll_after_ms": 1, "json_instead_of_stream": True},
    {"late_complete": True, "stuck_queued": True},
    {"cancel_status": 409, "stuck_queued": True},
    {"cancel_clears_output": True, "stuck_queued": True},
    {"failed_event_on_cancel": True, "stuck_queued": True},
    {"complete_after_cancel": True, "stuck_queued": True},
    *({"drop": drop} for drop in ("after_terminal_open", "before_created", "after_accept")),
]


async def test_emulator_faults_cause_no_request_storm(settings: Settings, upstream: RunningServer) -> None:
    """Run each fault with a job of its own, all at once, until long after their limit: some never finish."""
    limited = replace(settings, job_timeout_s=30, max_concurrent=100, follow=20)
    async with hosting(limited) as host:
        engine = await host.app.engine()
        jobs = [await host.start(emulate={"duration_s": 20, "faults": [switch]}) for switch in SWITCHES]
        began = engine.now()
        with anyio.fail_after(60):
            while engine.now() < began + 60:
                for at in range(0, len(jobs), 20):
                    job_ids = [job["job_id"] for job in jobs[at : at + 20]]
                    await host.call("agent_poll", job_ids=job_ids, wait_s=2)
    check_rates(upstream.emulator)
