"""Starts take turns, and a slow one does not keep the others waiting."""

from contextlib import suppress

import anyio
import pytest

from agent_jobs.engine import start_turns
from agent_jobs.engine.start_turns import TURNS, StartTurns


async def test_starts_begin_in_their_order_and_few_at_once():
    turns, began, end = StartTurns(), list[int](), anyio.Event()

    async def start(number: int) -> None:
        async with turns.take():
            began.append(number)
            await end.wait()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(3 * TURNS):
                tasks.start_soon(start, number)
            await anyio.wait_all_tasks_blocked()
            assert began == list(range(TURNS))
            end.set()
    assert began == list(range(3 * TURNS))


async def test_slow_start_lets_others_begin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(start_turns, "TURN_S", 0.01)
    turns, began, end = StartTurns(), list[int](), anyio.Event()

    async def start(number: int) -> None:
        async with turns.take():
            began.append(number)
            if len(began) == 3 * TURNS:
                end.set()
            await end.wait()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(3 * TURNS):
                tasks.start_soon(start, number)
    assert began == list(range(3 * TURNS))


@pytest.mark.parametrize("end", ["refused", "cancelled while it runs", "cancelled while it waits"])
async def test_turn_of_a_start_that_fails_goes_to_the_next(end: str):
    turns = StartTurns()

    async def fail() -> None:
        with suppress(ValueError):
            async with turns.take():
                raise ValueError

    async def run_for_ever() -> None:
        async with turns.take():
            await anyio.sleep_forever()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(2 * TURNS):
                tasks.start_soon(fail if end == "refused" else run_for_ever)
            if end == "cancelled while it waits":
                await anyio.wait_all_tasks_blocked()
            else:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        for _ in range(TURNS):
            await turns.take().__aenter__()
