"""Tools that the user always allows in a job: until it ends, in every process, and until the user takes it back."""

from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from hosts import SPEED, script_prompt
from test_agent_loop import add_tool_servers, ledger_entry, read_lines, script_with_calls, tool_call

from agent_jobs.app import open_app
from agent_jobs.clock import create_fast_clock
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import Reply
from agent_jobs.jobs.status import Status
from agent_jobs.rendering.questions import list_always_allowed
from agent_jobs.request.start_request import StartRequest
from agent_jobs.settings.settings import Settings

TRACKER = {"type": "mcp", "server_label": "tracker", "server_url": "https://tracker.example/mcp"}


def asking(*names: str) -> dict[str, Any]:
    """Return a script whose turns ask for an approval of these tools, one after another."""
    approvals = [{"mcp_approval": {"server_label": "tracker", "name": name, "arguments": "{}"}} for name in names]
    return {"duration_s": 0.5, "turns": [*approvals, {"text": "Closed."}]}


async def start(engine: Engine, script: dict[str, Any], **options: Any) -> Job:
    request = StartRequest(prompts=[script_prompt("Close", script)], options=options)
    [started] = await engine.start(request, id_wait_s=0)
    return await until_asked(engine, started.job.id)


async def until_asked(engine: Engine, job_id: str) -> Job:
    """Return a job once it waits for the user or has ended."""
    with anyio.fail_after(60):
        while not ((job := await engine.poll(job_id, wait_s=1)).is_terminal or job.status is Status.INPUT_REQUIRED):
            pass
    return job


async def reply(engine: Engine, job: Job, answer: Literal["approve", "always"]) -> Job:
    """Give this answer to the first call that a job asks for."""
    [call, *_] = await engine.open_calls(job)
    given = {"approve": Reply(approve=(call.id,)), "always": Reply(always=(call.id,))}
    await engine.reply(job.id, given[answer])
    return await until_asked(engine, job.id)


async def test_tool_stays_allowed_in_the_next_process_and_until_it_is_taken_back(settings: Settings):
    async with open_app(settings, create_fast_clock(SPEED)) as app:
        engine = await app.engine()
        job = await start(engine, asking("close", "close", "open", "close"), tools=[TRACKER])
        job = await reply(engine, job, "always")
        assert (job.turn.number, [each.name for each in await engine.open_calls(job)]) == (3, ["tracker/open"])
        assert list_always_allowed(job) == ["tracker/close"]
    async with open_app(settings, create_fast_clock(SPEED)) as app:
        engine = await app.engine()
        assert list_always_allowed(await engine.poll(job.id)) == ["tracker/close"]
        with pytest.raises(RequestError, match="does not always allow 'tracker/open'"):
            await engine.ask_again(job.id, "tracker/open")
        assert list_always_allowed(await engine.ask_again(job.id, "tracker/close")) == []
        job = await reply(engine, job, "approve")
        assert (job.turn.number, [each.name for each in await engine.open_calls(job)]) == (4, ["tracker/close"])
        job = await reply(engine, job, "always")
    assert job.status is Status.COMPLETED
    assert list_always_allowed(job) == []


async def test_approval_of_one_call_allows_no_other_one(settings: Settings):
    async with open_app(settings, create_fast_clock(SPEED)) as app:
        engine = await app.engine()
        job = await reply(engine, await start(engine, asking("close", "close"), tools=[TRACKER]), "approve")
        assert (job.turn.number, job.status, job.always_allowed) == (2, Status.INPUT_REQUIRED, ())
        other = await start(engine, asking("close"), tools=[TRACKER], allow_duplicate=True)
        assert other.status is Status.INPUT_REQUIRED
        await reply(engine, job, "always")
        again = await start(engine, asking("close"), tools=[TRACKER], allow_duplicate=True)
        assert (again.status, again.always_allowed) == (Status.INPUT_REQUIRED, ()), "each job is asked about"


async def test_other_calls_of_the_same_turn_are_allowed_with_it(settings: Settings, tmp_path: Path):
    log = tmp_path / "ledger"
    servers = add_tool_servers(settings, ledger=ledger_entry(log, approval={"write": "always", "*": "never"}))
    turns = [tool_call("ledger__write", n=1), tool_call("ledger__write", n=2)], [tool_call("ledger__write", n=3)]
    async with open_app(servers, create_fast_clock(SPEED)) as app:
        engine = await app.engine()
        job = await start(engine, script_with_calls(*turns), toolbox=["ledger"])
        assert len(await engine.open_calls(job)) == 2
        job = await reply(engine, job, "always")
    assert (job.status, job.turn.number) == (Status.COMPLETED, 3)
    assert sorted(line for line in read_lines(log) if line.startswith("end")) == [f"end write {n}" for n in (1, 2, 3)]


async def test_refused_call_stays_refused_beside_one_that_is_always_allowed(settings: Settings, tmp_path: Path):
    log = tmp_path / "ledger"
    servers = add_tool_servers(settings, ledger=ledger_entry(log, approval="always"))
    async with open_app(servers, create_fast_clock(SPEED)) as app:
        engine = await app.engine()
        turn = [tool_call("ledger__write", n=1), tool_call("ledger__write", n=2)]
        job = await start(engine, script_with_calls(turn), toolbox=["ledger"])
        first, second = await engine.open_calls(job)
        for wrong in (Reply(always=(first.id, first.id)), Reply(always=(first.id,), deny=(first.id,))):
            with pytest.raises(RequestError, match="answered twice"):
                await engine.reply(job.id, wrong)
        with pytest.raises(RequestError, match="does not ask for 'call_x'"):
            await engine.reply(job.id, Reply(always=("call_x",)))
        assert (await engine.poll(job.id)).always_allowed == ()
        await engine.reply(job.id, Reply(always=(second.id,), deny=(first.id,)))
        await until_asked(engine, job.id)
    assert read_lines(log) == ["begin write 2", "end write 2"]


async def test_output_of_a_function_cannot_be_allowed(settings: Settings):
    function: dict[str, Any] = {"type": "function", "name": "mine", "parameters": {"type": "object", "properties": {}}}
    async with open_app(settings, create_fast_clock(SPEED)) as app:
        engine = await app.engine()
        job = await start(engine, script_with_calls([tool_call("mine")]), tools=[function])
        with pytest.raises(RequestError, match="waits for an output, not for an approval"):
            await reply(engine, job, "always")
        assert (await engine.poll(job.id)).always_allowed == ()
