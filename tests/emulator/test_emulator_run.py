from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
from emulator_client import MODEL, Json

from agent_jobs.emulator.faults import Fault
from agent_jobs.emulator.run import Clock, Run
from agent_jobs.emulator.script import Script

BODY: Json = {"model": MODEL, "input": "hello", "background": True, "stream": True}
SHORT = Script(duration_s=1, queued_s=1, length=20, chunk=5)


class BriefClock(Clock):
    """Makes of every wait a timer that is due at once."""

    def now(self) -> float:
        return 0.0


def new_run() -> Run:
    return Run("resp_1", BODY, SHORT, Fault(), BriefClock(1e8))


async def events_of(run: Run) -> list[Json]:
    return [event async for event in run.follow()]


def cancel(run: Run) -> None:
    run.cancel(Fault())


def hurry(run: Run) -> None:
    run.cancel(Fault(complete_after_cancel=True))


@pytest.mark.parametrize(("stop", "status"), [(cancel, "cancelled"), (hurry, "completed"), (Run.abandon, None)])
async def test_a_run_that_was_stopped_does_nothing_more_wherever_it_was(
    stop: Callable[[Run], None], status: str | None
) -> None:
    for turns in range(40):
        run = new_run()
        stopped: Json = {}
        seen: list[Json] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.play)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            if run.ended:
                return
            stop(run)
            stopped, seen = run.snapshot(), await events_of(run)
        assert status in (None, stopped["status"])
        assert (run.snapshot(), await events_of(run)) == (stopped, seen)
    raise AssertionError("40 turns of the loop were not enough to see a whole run")


async def test_followers_see_the_same_events_whenever_they_come() -> None:
    run = new_run()
    seen: list[list[Json]] = []

    async def follow() -> None:
        seen.append(await events_of(run))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        tasks.start_soon(run.play)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
            tasks.start_soon(follow)
    assert seen == [await events_of(run)] * 6
