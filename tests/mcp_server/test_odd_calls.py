"""Invalid calls of a model: undeclared names, and ids that are missing or used twice."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from hosts import Host, eventually, hosting
from test_agent_loop import (
    SHOP,
    add_tool_servers,
    ledger_entry,
    log,
    read_lines,
    read_outputs,
    script_with_calls,
    start_with_ledger,
    tool_call,
)
from test_follow_ups import KEY
from upstream_log import runs

from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings

__all__ = ["log"]

LEDGER = ["ledger__read", "ledger__write"]


@pytest.fixture
async def host(settings: Settings, log: Path) -> AsyncGenerator[Host]:
    async with hosting(add_tool_servers(settings, ledger=ledger_entry(log))) as host:
        yield host


def inputs(upstream: RunningServer) -> list[dict[str, Any]]:
    """Return the input items of the newest response, the oldest first."""
    newest = f"{upstream.base_url}/responses/{runs(upstream)[-1]['id']}/input_items?order=asc&limit=100"
    return httpx2.get(newest, headers=KEY).json()["data"]


#: Undeclared names, and the function that each most likely means.
MEANT = {
    "read": "ledger__read",
    "LEDGER__READ": "ledger__read",
    "Ledger.write": "ledger__write",
    "other__ledger__read": "ledger__read",
    "ledger__raed": "ledger__read",
    "ledger__delete_everything": None,
    "send_mail": None,
    "": None,
    "x" * 300: None,
    "\ud83d": None,
}


async def test_undeclared_function_is_answered_with_the_declared_ones(host: Host, log: Path) -> None:
    job_id = await start_with_ledger(host, script_with_calls([tool_call(name, n=1) for name in MEANT]))
    answer = await host.end(job_id)
    assert (answer["status"], answer["output"]) == ("completed", "the end")
    assert read_lines(log) == [], "nothing is executed under another name"
    for outcome, (name, meant) in zip(await read_outputs(host, job_id), MEANT.items(), strict=True):
        assert outcome.startswith("There is no function ") and all(each in outcome for each in LEDGER)
        assert (f"Did you mean '{meant}'?" in outcome) is (meant is not None), name


async def test_valid_calls_beside_an_undeclared_function_are_made(host: Host, log: Path) -> None:
    job_id = await start_with_ledger(
        host, script_with_calls([tool_call("nothing"), tool_call("ledger__write", n=1), tool_call("ledger__read", n=2)])
    )
    assert (await host.end(job_id))["output"] == "the end"
    first, *others = await read_outputs(host, job_id)
    assert first.startswith("There is no function 'nothing'") and others == ["write 1", "read 2"]
    assert sorted(read_lines(log)) == ["begin read 2", "begin write 1", "end read 2", "end write 1"]


@pytest.mark.parametrize("boxed", [True, False], ids=["beside a toolbox", "alone"])
async def test_only_the_callers_own_functions_are_waited_for(host: Host, log: Path, boxed: bool) -> None:
    calls = [tool_call("shopp"), tool_call("shop"), *([tool_call("ledger__write", n=1)] if boxed else [])]
    options = {"tools": [SHOP], "toolbox": ["ledger"] if boxed else "none"}
    job_id = (await host.start(emulate=script_with_calls(calls), options=options))["job_id"]
    (asked,) = (await host.end(job_id))["needs"]
    assert asked["name"] == "shop"
    await host.call("agent_reply", job_id=job_id, outputs=[{"call_id": asked["call_id"], "output": "bought"}])
    assert (await host.end(job_id))["output"] == "the end"
    outcome, *others = await read_outputs(host, job_id)
    assert "Did you mean 'shop'?" in outcome
    assert others == ["bought", *(["write 1"] if boxed else [])]
    assert read_lines(log) == (["begin write 1", "end write 1"] if boxed else [])


@pytest.mark.parametrize("tools", [[], [SHOP]], ids=["no functions", "a function of the caller"])
async def test_job_that_calls_only_undeclared_functions_does_not_wait(host: Host, tools: list[dict[str, Any]]) -> None:
    job_id = (await host.start(emulate=script_with_calls([tool_call("lookup")]), options={"tools": tools}))["job_id"]
    assert (await host.end(job_id))["output"] == "the end"
    (outcome,) = await read_outputs(host, job_id)
    assert ("shop" in outcome) is bool(tools)


async def test_calls_of_an_undeclared_function_stay_within_the_limits(host: Host) -> None:
    turns = [[tool_call("nothing", n=n)] for n in range(25)]
    ended = await host.end(await start_with_ledger(host, script_with_calls(*turns, duration_s=0, queued_s=0)))
    assert ended["error"]["code"] == "max_turns"
    ended = await host.end(
        await start_with_ledger(host, script_with_calls(*turns, duration_s=0, queued_s=0), max_tool_calls=2)
    )
    assert ended["error"]["code"] == "max_tool_calls"


async def test_invented_name_is_sent_back_in_a_form_that_the_api_accepts(host: Host, upstream: RunningServer) -> None:
    script = script_with_calls([tool_call("files.read all")], faults=[{"ignore_background": True}])
    assert (await host.end(await start_with_ledger(host, script)))["output"] == "the end"
    assert [item["name"] for item in inputs(upstream) if item["type"] == "function_call"] == ["files_read_all"]


WRITE_1, WRITE_2, READ_1 = (
    tool_call("ledger__write", n=1),
    tool_call("ledger__write", n=2),
    tool_call("ledger__read", n=1),
)


@pytest.mark.parametrize(
    ("calls", "ids", "held"),
    [
        ([WRITE_1, WRITE_1], ["a", "a"], False),
        ([WRITE_1, WRITE_2], ["a", "a"], True),
        ([WRITE_1, WRITE_2, READ_1], ["a", "a", "a"], False),
        ([WRITE_1, READ_1, WRITE_2], ["a", "a~2", "a"], False),
        ([WRITE_1], [""], False),
        ([WRITE_1, WRITE_2], [None, None], False),
        ([WRITE_1, WRITE_2, READ_1], [7, "", None], True),
        ([WRITE_1, tool_call("nothing")], ["a", "a"], False),
    ],
)
async def test_calls_with_any_ids_are_made_and_answered_with_their_calls(
    host: Host, log: Path, upstream: RunningServer, calls: list[dict[str, Any]], ids: list[object], held: bool
) -> None:
    faults = [{"ignore_background": True}] if held else []
    script = script_with_calls([{**each, "call_id": id} for each, id in zip(calls, ids, strict=True)], faults=faults)
    job_id = await start_with_ledger(host, script)
    answer = await host.end(job_id)
    assert (answer["status"], answer["output"]) == ("completed", "the end")
    made = [each for each in calls if each["name"] in LEDGER]
    ends = [f"{each['name'].removeprefix('ledger__')} {each['arguments']['n']}" for each in made]
    assert sorted(line for line in read_lines(log) if line.startswith("end")) == sorted(f"end {end}" for end in ends)
    assert [outcome for outcome in await read_outputs(host, job_id) if not outcome.startswith("There is no")] == ends
    sent = inputs(upstream)
    asked = [item["call_id"] for item in sent if item["type"] == "function_call"]
    outcome = [item["call_id"] for item in sent if item["type"] == "function_call_output"]
    assert outcome == asked and len(set(outcome)) == len(calls), "repeated, each with an id of its own"


async def test_calls_of_one_id_that_wait_are_answered_one_by_one(host: Host, upstream: RunningServer) -> None:
    calls = [{**tool_call("shop", n=n), "call_id": "a"} for n in (1, 2)]
    options = {"tools": [SHOP], "toolbox": "none"}
    job_id = (await host.start(emulate=script_with_calls(calls), options=options))["job_id"]
    asked = (await host.end(job_id))["needs"]
    assert [each["arguments"] for each in asked] == ['{"n": 1}', '{"n": 2}']
    for each, output in reversed(list(zip(asked, ["one", "two"], strict=True))):
        await host.call("agent_reply", job_id=job_id, outputs=[{"call_id": each["call_id"], "output": output}])
    assert (await host.end(job_id))["output"] == "the end"
    assert [item["output"] for item in inputs(upstream) if "output" in item] == ["one", "two"]


async def test_approvals_of_one_id_are_answered_one_by_one(settings: Settings, upstream: RunningServer) -> None:
    asks = [{"server_label": "tracker", "name": name, "arguments": "{}", "id": "mcpr_a"} for name in ("add", "drop")]
    tool = {"type": "mcp", "server_label": "tracker", "server_url": "https://tracker.example.org/mcp"}
    async with hosting(replace(settings, approvals="model")) as host:
        job_id = (await host.start(emulate=script_with_calls(asks), options={"tools": [tool]}))["job_id"]
        asked = (await host.end(job_id))["needs"]
        assert [each["name"] for each in asked] == ["tracker/add", "tracker/drop"]
        add, drop = (each["call_id"] for each in asked)
        await host.call("agent_reply", job_id=job_id, approve=[add], deny=[drop])
        assert (await host.end(job_id))["output"] == "the end"
    sent = inputs(upstream)
    answers = {item["approval_request_id"]: item["approve"] for item in sent if "approval_request_id" in item}
    assert [answers[item["id"]] for item in sent if item["type"] == "mcp_approval_request"] == [True, False]


async def test_in_a_conversation_calls_of_one_id_are_answered_by_it(host: Host, upstream: RunningServer) -> None:
    script = script_with_calls([{**WRITE_1, "call_id": "a"}, {**WRITE_2, "call_id": "a"}])
    assert (await host.end(await start_with_ledger(host, script, conversation=True)))["output"] == "the end"
    outcome = [(item["call_id"], item["output"]) for item in inputs(upstream) if item["type"] == "function_call_output"]
    assert outcome == [("a", "write 1"), ("a", "write 2")]


async def test_calls_of_one_id_outlive_their_process(settings: Settings, log: Path, tmp_path: Path) -> None:
    ours, left = add_tool_servers(settings, ledger=ledger_entry(log)), tmp_path / "left"
    calls = [{**tool_call("ledger__read", n=n, until=str(left)), "call_id": "a"} for n in (1, 2)]
    async with hosting(ours) as host:
        job_id = await start_with_ledger(host, script_with_calls(calls))
        await eventually(lambda: sorted(read_lines(log)) == ["begin read 1", "begin read 2"])
    left.touch()
    async with hosting(ours) as host:
        with anyio.fail_after(60):
            assert (await host.end(job_id))["output"] == "the end"
        assert await read_outputs(host, job_id) == ["read 1", "read 2"]


# Follow-ups of jobs that left calls open.

TRACKER = {"type": "mcp", "server_label": "tracker", "server_url": "https://tracker.example.org/mcp"}
ASK = {"server_label": "tracker", "name": "add", "arguments": "{}"}


@pytest.mark.parametrize("known", [True, False], ids=["by id", "repeated"])
@pytest.mark.parametrize(
    "calls",
    [
        [tool_call("shop")],
        [tool_call("shop", n=1), tool_call("shop", n=2)],
        [{**tool_call("shop"), "call_id": "a"}] * 2,
        [ASK],
    ],
    ids=["one", "two", "two of one id", "an approval"],
)
async def test_follow_up_closes_the_calls_that_a_cut_response_left_open(
    settings: Settings, upstream: RunningServer, calls: list[dict[str, Any]], known: bool
) -> None:
    async with hosting(settings) as host:
        script = {"duration_s": 0.2, "reasoning": 0, "function_calls": calls, "end": "incomplete"}
        first = (await host.start(emulate=script, options={"tools": [SHOP, TRACKER]}))["job_id"]
        assert (await host.end(first))["status"] == "incomplete"
        if not known:
            upstream.forget(response_id=runs(upstream)[-1]["id"])
        second = (await host.start(emulate={"text": "on"}, previous_job_id=first))["job_id"]
        answer = await host.end(second)
        assert (answer["status"], answer["output"]) == ("completed", "on")
    *closed, prompt = [item for item in inputs(upstream) if "call" not in item["type"] or "output" in item]
    closed = [item for item in closed if "output" in item or "reason" in item]
    notes = [item.get("output") or item["reason"] for item in closed]
    assert notes == ["This call was not made: the response was cut before it ended."] * len(calls)
    assert prompt["role"] == "user"


async def finish_with_open_calls(host: Host, how: str) -> str:
    """Return a job that finished before all calls of its second turn were answered."""
    turns = [[WRITE_1], [WRITE_2, tool_call("shop")]]
    options = {"tools": [SHOP], "max_tool_calls": 2 if how == "failed" else 9}
    job_id = await start_with_ledger(host, script_with_calls(*turns), **options)
    asked = await host.end(job_id)
    if how == "cancelled":
        assert asked["status"] == "input_required"
        await host.call("agent_cancel", job_id=job_id)
    assert (await host.end(job_id))["status"] == how
    return job_id


@pytest.mark.parametrize(
    ("how", "second"),
    [("cancelled", "write 2"), ("failed", "This call was not made: the job ended failed before that.")],
)
async def test_follow_up_of_a_job_that_finished_amid_its_calls_has_their_answers(
    host: Host, upstream: RunningServer, how: str, second: str
) -> None:
    first = await finish_with_open_calls(host, how)
    follow_up = (await host.start(emulate={"text": "on"}, previous_job_id=first))["job_id"]
    assert (await host.end(follow_up))["output"] == "on"
    notes = [item["output"] for item in inputs(upstream) if item["type"] == "function_call_output"]
    assert notes == ["write 1", second, f"This call was not made: the job ended {how} before that."]


async def test_follow_up_of_a_job_whose_later_turn_failed_has_the_earlier_turns(
    host: Host, upstream: RunningServer
) -> None:
    script = script_with_calls([WRITE_1])
    script["turns"][1] = {"end": "failed", "error_code": "bad", "error_message": "No.", "length": 0}
    first = await start_with_ledger(host, script)
    assert (await host.end(first))["status"] == "failed"
    second = (await host.start(emulate={"text": "on"}, previous_job_id=first))["job_id"]
    assert (await host.end(second))["output"] == "on"
    assert [item["output"] for item in inputs(upstream) if item["type"] == "function_call_output"] == ["write 1"]


async def test_job_that_cannot_be_continued_says_why(host: Host) -> None:
    first = (await host.start(emulate=script_with_calls([tool_call("shop")]), options={"tools": [SHOP]}))["job_id"]
    assert (await host.end(first))["status"] == "input_required"
    sentence = await host.refused("agent_start", prompt="on", previous_job_id=first)
    assert sentence.startswith(f"{first} waits for answers") and "agent_reply" in sentence
    await host.call("agent_cancel", job_id=first)
    sentence = await host.refused("agent_start", prompt="on", previous_job_id=first)
    assert "ended cancelled without an output to continue, only with calls that were not made" in sentence
