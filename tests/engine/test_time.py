"""Changed clocks, differing clocks and sleeping machines end no run and leave none unobserved."""

import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from hosts import SPEED, eventually, hosting, script_prompt
from processes import serving
from test_fault_table import line_to, repair

from agent_jobs.clock import Clock, create_steady_clock
from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.settings.settings import Settings

FOLLOW = pytest.mark.parametrize("follow", [0, 200], ids=["looked at", "followed"])
HOUR_S = 3600.0


class Sleeper:
    """The clock of a machine that may sleep."""

    def __init__(self) -> None:
        self._now = create_steady_clock(SPEED)
        self.slept_s = 0.0

    def __call__(self) -> float:
        return self._now() + self.slept_s


def list_statuses(upstream: RunningServer) -> list[str]:
    return [entry["status"] for entry in upstream.emulator.log() if entry["entry"] == "response"]


#: Python imports this before anything else.
SET_BY_HAND = """
import os, time
wall, here = time.time, os.path.dirname(__file__)
time.time = lambda: wall() + sum(float(name[4:]) for name in os.listdir(here) if name.startswith("set "))
"""


@FOLLOW
@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["forward", "back"])
def test_changed_wall_clock_neither_ends_a_run_nor_leaves_it_unobserved(
    settings: Settings, upstream: RunningServer, tmp_path: Path, follow: int, jump_s: float
) -> None:
    assert settings.data_dir is not None
    (tmp_path / "sitecustomize.py").write_text(SET_BY_HAND)
    limited = {"AGENT_JOBS_JOB_TIMEOUT_S": f"{HOUR_S / 2:.0f}", "AGENT_JOBS_FOLLOW": str(follow)}
    with serving(settings.data_dir, upstream.base_url, **limited, PYTHONPATH=str(tmp_path)) as server:
        server.initialize()
        prompt = script_prompt("long work", {"duration_s": 40, "text": "in any time"})
        started = server.call("agent_start", prompt=prompt, wait_s=0)
        assert "next_poll_ms" in server.call("agent_poll", job_id=started["job_id"], wait_s=1.5)
        (tmp_path / f"set {jump_s}").touch()
        assert server.call("agent_poll", job_id=started["job_id"], wait_s=15)["output"] == "in any time"
    assert list_statuses(upstream) == ["completed"]


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S], ids=["ahead", "behind"])
async def test_job_of_a_process_with_another_time_is_polled_at_once(
    settings: Settings, upstream: RunningServer, ahead_s: float
) -> None:
    other = create_steady_clock(SPEED)
    async with hosting(settings, clock=Clock(SPEED, lambda: other() + ahead_s)) as host:
        started = await host.start(emulate={"duration_s": 3, "text": "found"})
    async with hosting(settings) as host:
        assert (await host.end(started["job_id"]))["output"] == "found"


@FOLLOW
async def test_run_that_finished_while_the_machine_slept_is_kept_past_its_limit(
    settings: Settings, upstream: RunningServer, follow: int
) -> None:
    asleep = Sleeper()
    async with hosting(replace(settings, follow=follow), clock=Clock(SPEED, asleep)) as host:
        upstream.queue_fault(on="any", status=503, skip=1, times=-1)
        script = {"duration_s": 10, "text": "while you slept", "faults": [{"drop": {"after_events": 6}}]}
        started = await host.start(emulate=script)
        await eventually(lambda: list_statuses(upstream) == ["completed"])
        repair(upstream)
        asleep.slept_s = 5 * HOUR_S
        assert (await host.end(started["job_id"]))["output"] == "while you slept"
    assert list_statuses(upstream) == ["completed"]


async def test_run_that_still_runs_after_its_limit_passed_in_sleep_is_cancelled(
    settings: Settings, upstream: RunningServer
) -> None:
    asleep = Sleeper()
    async with hosting(replace(settings, follow=0), clock=Clock(SPEED, asleep)) as host:
        started = await host.start(emulate={"end": "never"})
        asleep.slept_s = 5 * HOUR_S
        assert (await host.end(started["job_id"]))["error"]["code"] == "deadline_exceeded"
    assert list_statuses(upstream) == ["cancelled"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows stops no process")
async def test_server_suspended_during_a_run_returns_its_result(settings: Settings) -> None:
    assert settings.data_dir is not None
    with run_emulator(time_scale=1000) as upstream:
        async with line_to(upstream) as line:
            with serving(settings.data_dir, line.base_url) as server:

                async def call(tool: str, **arguments: Any) -> dict[str, Any]:
                    return await to_thread.run_sync(partial(server.call, tool, **arguments))

                await to_thread.run_sync(server.initialize)
                prompt = script_prompt("long work", {"duration_s": HOUR_S, "text": "over the night"})
                started = await call("agent_start", prompt=prompt, wait_s=0)
                os.kill(server.process.pid, signal.SIGSTOP)
                line.cut()
                await eventually(lambda: list_statuses(upstream) == ["completed"])
                await line.repair()
                os.kill(server.process.pid, signal.SIGCONT)
                answer = await call("agent_poll", job_id=started["job_id"], wait_s=15)
                assert answer["output"] == "over the night"
        assert upstream.emulator.counters()["creates"] == 1
