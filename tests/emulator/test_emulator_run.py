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
    """A clock with which every wait ends at once."""

    def __init__(self) -> None:
        super().__init__(1e8)
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    async def sleep_until(self, at_s: float) -> None:
        await self.sleep(0)
        self.now_s = max(self.now_s, at_s)


class StandingClock(BriefClock):
    """A clock with which no wait ends: the waiting task is never scheduled again."""

    async def sleep_until(self, at_s: float) -> None:
        await anyio.sleep_forever()


def new_run() -> Run:
    return Run("resp_1", BODY, SHORT, Fault(), BriefClock())


async def events_of(run: Run) -> list[Json]:
    return [event async for event in run.follow()]


def cancel(run: Run) -> None:
    run.cancel(Fault())


def play_at_once(run: Run) -> None:
    run.cancel(Fault(complete_after_cancel=True))


@pytest.mark.parametrize(("stop", "status"), [(cancel, "cancelled"), (play_at_once, "completed"), (Run.abandon, None)])
async def test_stopped_run_emits_no_more_events(stop: Callable[[Run], None], status: str | None) -> None:
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


async def test_late_readers_see_the_same_events() -> None:
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


@pytest.mark.parametrize("late_s", [0.0, 1.0, 500.0])
async def test_run_ends_on_time_even_if_it_is_played_late(late_s: float) -> None:
    script = Script(duration_s=100, queued_s=5, reasoning=0, text="x")
    run = Run("resp_1", BODY, script, Fault(), clock := BriefClock())
    clock.now_s = late_s
    created: Json = {}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run.play)
        created = await run.wait_until_created()
    types = [event["type"].removeprefix("response.") for event in await events_of(run)]
    assert (created["status"], run.ended_s) == ("queued", 105.0)
    assert types[:8] == [
        "created", "queued", "in_progress", "output_item.added", "content_part.added", *["keepalive"] * 3,
    ]  # fmt: skip


async def test_response_is_up_to_date_even_if_it_was_not_played() -> None:
    run = Run("resp_1", BODY, SHORT, Fault(), clock := StandingClock())
    for now_s, status in ((0.5, "queued"), (1.5, "in_progress"), (3.0, "completed")):
        clock.now_s = now_s
        run.catch_up()
        assert run.snapshot()["status"] == status
