"""Waiting for a long job costs a model turns, and bytes that it reads again on every later turn."""

from typing import Any

import pytest
from hosts import Host, hosting
from mcp_types import Implementation
from test_tools import size

from agent_jobs.settings.settings import Settings

#: Factor of the fast clock: ten minutes pass in two seconds. Time outside of the waits can only reduce the turns.
SPEED = 300.0
#: Seconds that the host waits for the job, by the fast clock.
LENGTH_S = 600.0
#: A client whose calls may wait 240 s. Unknown clients get 45 s.
PATIENT = "codex"


async def follow_answers(host: Host) -> list[dict[str, Any]]:
    """Return the answers to a host that does what `next` says, until the job is `LENGTH_S` old.

    The run never finishes by itself, so the number of answers depends on the waits alone and not on the machine. The
    last answer counts as the result, which would be shorter.
    """
    answers = [await host.start(emulate={"duration_s": 0.1, "end": "never", "searches": 12}, wait_s=5)]
    while answers[-1].get("elapsed_s", 0) < LENGTH_S:
        tool, job = answers[-1]["next"].split()
        answers.append(await host.call(tool, job_id=job.removeprefix("job_id=")))
    await host.call("agent_cancel", job_id=answers[0]["job_id"])
    return answers


@pytest.mark.parametrize(("client", "turns"), [("a host", 16), (PATIENT, 5)], ids=["45 s", "240 s"])
async def test_ten_minutes_of_waiting_cost_few_turns_and_few_bytes(settings: Settings, client: str, turns: int) -> None:
    async with hosting(settings, speed=SPEED, client_info=Implementation(name=client, version="1")) as host:
        answers = await follow_answers(host)
    assert len(answers) <= turns
    assert sum(size(answer) for answer in answers) <= 3_000
    assert "searches" in answers[-1]["activity"]
