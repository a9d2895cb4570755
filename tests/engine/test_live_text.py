"""The text of a job as it is written: from the stream in memory, or from the tail that another process stores."""

from dataclasses import replace
from typing import Any

import anyio
import pytest
from hosts import SPEED, script_prompt

from agent_jobs.app import open_app
from agent_jobs.clock import create_fast_clock
from agent_jobs.emulator.server import RunningServer
from agent_jobs.engine.engine import Engine
from agent_jobs.engine.live_text import PARTIAL_CHARS, LiveText
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.queries import Reply
from agent_jobs.jobs.status import Status
from agent_jobs.request.start_request import StartRequest
from agent_jobs.settings.settings import Settings

LONG_TEXT = " ".join(f"word{number}" for number in range(900))
FUNCTION: dict[str, Any] = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}


async def read_until_end(engine: Engine, live: LiveText, job_id: str) -> tuple[Job, list[str]]:
    """Return the finished job, and each text that was read while it ran."""
    seen: list[str] = []
    with anyio.fail_after(60):
        while True:
            job = await engine.poll(job_id, wait_s=0.2)
            live.observe(job)
            if live.text and live.text not in seen:
                seen.append(live.text)
            if job.is_terminal:
                return job, seen


@pytest.mark.parametrize(
    "script",
    [
        {},
        {"faults": [{"drop": {"after_events": 30}}]},
        {"phase": True, "searches": 1},
        {"faults": [{"no_sequence_numbers": True}]},
    ],
    ids=["streamed", "dropped and resumed", "with commentary before", "without sequence numbers"],
)
async def test_text_grows_to_the_answer_from_its_beginning(settings: Settings, script: dict[str, Any]):
    async with open_app(settings, create_fast_clock(SPEED)) as app:
        engine = await app.engine()
        prompt = script_prompt("Write", {"duration_s": 30, "text": LONG_TEXT, **script})
        [started] = await engine.submit(await engine.plan(StartRequest(prompts=[prompt])))
        live = engine.follow_text(started.job.id)
        job, seen = await read_until_end(engine, live, started.job.id)
    assert job.output is not None
    assert job.output.text == LONG_TEXT
    assert len(seen) > 3
    assert all(LONG_TEXT.startswith(text) for text in seen)
    assert live.text == LONG_TEXT


async def test_text_begins_again_with_another_turn(settings: Settings):
    turns: list[dict[str, Any]] = [
        {"text": "I look it up first.", "function_calls": [{"name": "lookup", "arguments": {}}]},
        {"text": "It is blue."},
    ]
    async with open_app(settings, create_fast_clock(SPEED)) as app:
        engine = await app.engine()
        request = StartRequest(
            prompts=[script_prompt("Ask", {"duration_s": 5, "turns": turns})], options={"tools": [FUNCTION]}
        )
        [started] = await engine.submit(await engine.plan(request))
        live = engine.follow_text(started.job.id)
        with anyio.fail_after(60):
            while (job := await engine.poll(started.job.id, wait_s=1)).status is not Status.INPUT_REQUIRED:
                pass
        [call] = await engine.open_calls(job)
        await engine.reply(job.id, Reply(outputs={call.id: "blue"}))
        job, seen = await read_until_end(engine, live, job.id)
    assert job.status is Status.COMPLETED
    assert live.text == "It is blue."
    assert seen[-1] == "It is blue."


async def test_text_of_another_process_is_followed_by_its_stored_tail(settings: Settings, upstream: RunningServer):
    async with (
        open_app(settings, create_fast_clock(SPEED)) as theirs,
        open_app(settings, create_fast_clock(SPEED), role="acts") as ours,
    ):
        engine, watcher = await theirs.engine(), await ours.engine()
        prompt = script_prompt("Write", {"duration_s": 60, "text": LONG_TEXT})
        [started] = await engine.submit(await engine.plan(StartRequest(prompts=[prompt])))
        live = watcher.follow_text(started.job.id)
        job, seen = await read_until_end(watcher, live, started.job.id)
    assert job.status is Status.COMPLETED
    assert seen
    assert all(LONG_TEXT.startswith(text) for text in seen)


def running_job(partial: str, *, number: int = 1, response_id: str = "resp_1") -> Job:
    turn = Turn(number=number, request={}, request_id="r", base_url="http://x/v1", response_id=response_id)
    return Job(
        id="job_1", title="t", status=Status.IN_PROGRESS, created_at=0.0, turn=replace(turn, partial=partial)
    )  # fmt: skip


def tail_of(text: str) -> str:
    return text[-PARTIAL_CHARS:]


@pytest.mark.parametrize(
    ("stored", "text", "is_cut"),
    [
        (["One", "One two"], "One two", False),
        ([LONG_TEXT[:1900], tail_of(LONG_TEXT[:2900])], LONG_TEXT[:2900], False),
        ([LONG_TEXT[:1900], tail_of(LONG_TEXT[:2900]), tail_of(LONG_TEXT[:4400])], LONG_TEXT[:4400], False),
        ([LONG_TEXT[:1500], tail_of(LONG_TEXT)], LONG_TEXT[:1500], False),  # too much came meanwhile
        ([tail_of(LONG_TEXT)], "", True),  # it was not followed from its beginning
        (["ab" * 900, tail_of("ab" * 1500)], "ab" * 900, False),  # the tail could continue it in many places
        (["One", ""], "One", False),
    ],
    ids=["grows", "past the tail", "twice", "gap", "late", "repeats", "nothing new"],
)
def test_stored_tails_continue_a_text_only_where_that_is_certain(stored: list[str], text: str, is_cut: bool):
    live = LiveText()
    for partial in stored:
        live.observe(running_job(partial))
    assert (live.text, live.is_cut) == (text, is_cut)


@pytest.mark.parametrize(
    "again", [running_job("", number=2), running_job("", response_id="resp_2")], ids=["turn", "sent again"]
)
def test_another_response_clears_the_text(again: Job):
    live = LiveText()
    live.observe(running_job("One"))
    live.observe(again)
    assert live.text == ""


def test_final_messages_replace_those_without_a_phase():
    live = LiveText()
    live.begin_stream(running_job(""))
    for index, phase in enumerate(["commentary", "", "final_answer"]):
        live.add_item(index, {"type": "message", "phase": phase})
        live.add_words(index, f"words {index}")
        assert live.text == ["", "words 1", "words 2"][index]
    assert live.list_offsets() == {2: 0}
