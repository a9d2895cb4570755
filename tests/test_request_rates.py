"""However an endpoint answers, one response is never asked about in a storm."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from agent_jobs.emulator.serve import RunningServer
from agent_jobs.settings import Settings
from hosts import SPEED, hosting

#: Requests for one response: so many at once, and so many more in a second.
AT_ONCE, A_SECOND = 20, 2

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
async def test_one_response_is_never_asked_about_in_a_storm(
    settings: Settings, upstream: RunningServer, faults: list[dict[str, Any]], polls_s: float
) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 30, "length": 4000, "faults": faults})
        answer = started
        while answer["status"] in ("starting", "queued", "in_progress"):
            answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=polls_s)
        engine = await host.app.engine()
        kinds = [event.kind for event in (await engine.result(started["job_id"])).events]
    assert answer["status"] == "completed"
    asked = [e for e in upstream.emulator.log() if e["entry"] == "request" and e["operation"] in ("retrieve", "stream")]
    began = min((entry["at"] for entry in asked), default=0.0)
    for number, entry in enumerate(asked, 1):
        assert number <= AT_ONCE + A_SECOND * (entry["at"] - began) * SPEED
    assert len(asked) <= 45
    assert all(one != other for one, other in pairwise(kinds)), kinds
    assert len(kinds) <= 9, kinds


async def test_json_to_an_attach_means_that_the_job_is_polled_from_then_on(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(replace(settings)) as host:
        started = await host.start(emulate={"duration_s": 40, "faults": FAULTS["JSON to an attach"]})
        assert (await host.end(started["job_id"]))["status"] == "completed"
    assert upstream.emulator.counters()["streams"] == 1
