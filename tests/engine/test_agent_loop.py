"""Jobs that call the user's tools, from start to finish, over the emulator and real tool servers."""

import json
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from hosts import Host, eventually, hosting, script_prompt
from test_follow_ups import KEY, Now, get_response
from test_tools import runs

from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings

HERE = Path(__file__).parents[1] / "support"
#: The usage of an emulated turn, which costs a dollar.
MODEL, USED = "emulated", {"input_tokens": 100_000, "output_tokens": 0}
PRICES = '[models."emulated"]\ninput = 10\ncache_write = 10\noutput = 1\n'


def ledger_entry(log: Path, **more: Any) -> dict[str, Any]:
    """Return an entry for tests/support/ledger.py, whose tools run without approval."""
    entry = {"command": sys.executable, "args": ["-S", str(HERE / "ledger.py"), str(log)]}
    return {**entry, "approval": "never", **more}


def bad_server_entry(*flags: str, **more: Any) -> dict[str, Any]:
    """Return an entry for tests/support/tool_server.py, whose tools run without approval."""
    entry = {"command": sys.executable, "args": ["-S", str(HERE / "tool_server.py"), *flags]}
    return {**entry, "approval": "never", **more}


def tool_call(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def script_with_calls(*turns: list[dict[str, Any]], end: str = "the end", **common: Any) -> dict[str, Any]:
    """Return a script whose turns make these calls and whose last turn is a text."""
    each = [*({"function_calls": calls} for calls in turns), {"text": end}]
    return {"duration_s": 0.5, "reasoning": 0, **common, "turns": each}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def read_lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def add_tool_servers(settings: Settings, **servers: Any) -> Settings:
    """Return the settings with these tool servers."""
    assert settings.data_dir is not None
    path = settings.data_dir.with_name(f"{'-'.join(servers)}.json")
    path.write_text(json.dumps({"mcpServers": servers}))
    prices = path.with_name("prices.toml")
    prices.write_text(PRICES)
    return replace(settings, toolbox=path, prices=prices)


@pytest.fixture
async def host(settings: Settings, log: Path) -> AsyncGenerator[Host]:
    async with hosting(add_tool_servers(settings, ledger=ledger_entry(log))) as host:
        yield host


async def start_with_ledger(host: Host, emulate: dict[str, Any], **options: Any) -> str:
    answer = await host.start(emulate=emulate, options={"toolbox": ["ledger"], **options})
    return answer["job_id"]


async def read_outputs(host: Host, job_id: str) -> list[str]:
    """Return the output of each call as the model got it."""
    items = (await host.call("agent_result", job_id=job_id, part="items", max_bytes=100_000))["items"]
    return [str(item["output"]) for item in items if "output" in item]


async def test_job_calls_tools_over_several_turns_and_sums_its_usage(host: Host, log: Path) -> None:
    turns = [[tool_call("ledger__write", n=1), tool_call("ledger__read", n=2)], [tool_call("ledger__write", n=3)]]
    usage = {"input_tokens": 100, "output_tokens": 10}
    job_id = await start_with_ledger(host, script_with_calls(*turns, usage=usage))
    answer = await host.end(job_id)
    assert (answer["status"], answer["output"]) == ("completed", "the end")
    assert sorted(read_lines(log)[:4]) == ["begin read 2", "begin write 1", "end read 2", "end write 1"]
    assert read_lines(log)[4:] == ["begin write 3", "end write 3"]
    used = (await host.call("agent_result", job_id=job_id, part="usage"))["usage"]
    assert (used["input_tokens"], used["output_tokens"]) == (300, 30)


async def test_cost_of_a_job_includes_all_its_turns(host: Host) -> None:
    script = script_with_calls([tool_call("ledger__read")], [tool_call("ledger__read")], usage=USED)
    job = await host.start(model=MODEL, emulate=script, options={"toolbox": ["ledger"]})
    assert (await host.end(job["job_id"]))["cost_usd"] == pytest.approx(3)
    assert (await host.call("agent_list"))["today_usd"] == pytest.approx(3)


async def test_endless_tool_calls_end_after_twenty_turns(host: Host, log: Path) -> None:
    turns = [[tool_call("ledger__write", n=n)] for n in range(25)]
    answer = await host.end(await start_with_ledger(host, script_with_calls(*turns, duration_s=0, queued_s=0)))
    assert (answer["status"], answer["error"]["code"]) == ("failed", "max_turns")
    assert answer["error"]["message"] == "It made calls in each of 20 turns, the most that a job may have."
    assert read_lines(log)[-1] == "end write 18"


async def test_calls_over_the_limit_are_not_made(host: Host, log: Path) -> None:
    turns = [[tool_call("ledger__write", n=1)], [tool_call("ledger__write", n=2), tool_call("ledger__write", n=3)]]
    answer = await host.end(await start_with_ledger(host, script_with_calls(*turns), max_tool_calls=2))
    assert answer["error"]["code"] == "max_tool_calls"
    assert answer["error"]["message"] == "It asked for 3 calls, and its max_tool_calls allows 2."
    assert read_lines(log) == ["begin write 1", "end write 1"]


async def test_job_without_money_left_calls_no_tool(host: Host, log: Path) -> None:
    script = script_with_calls([tool_call("ledger__write", n=1)], [tool_call("ledger__write", n=2)], usage=USED)
    options = {"toolbox": ["ledger"], "max_cost_usd": 2.5, "max_output_tokens": 100, "max_tool_calls": 9}
    answer = await host.end((await host.start(model=MODEL, emulate=script, options=options))["job_id"])
    assert answer["error"]["code"] == "budget_exceeded"
    assert read_lines(log) == ["begin write 1", "end write 1"]


async def test_time_limit_stops_a_running_call(settings: Settings, log: Path, tmp_path: Path) -> None:
    now, passed = Now(), tmp_path / "passed"
    async with hosting(add_tool_servers(settings, ledger=ledger_entry(log)), clock=now.clock()) as host:
        calls = [tool_call("ledger__write", n=1, hang=True), tool_call("ledger__read", n=2, until=str(passed))]
        job_id = await start_with_ledger(host, script_with_calls(calls), timeout_s=3_600)
        await eventually(lambda: sorted(read_lines(log)) == ["begin read 2", "begin write 1"])
        now.pass_s(3_600)
        passed.touch()  # a call that ends has the time looked at
        answer = await host.end(job_id)
        assert answer["error"]["code"] == "deadline_exceeded"
        assert answer["error"]["message"].startswith("Its time limit passed while it called tools")
        await eventually(lambda: "cancelled write 1" in read_lines(log))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "from another process"])
async def test_cancel_stops_a_running_call(settings: Settings, host: Host, log: Path, elsewhere: bool) -> None:
    job_id = await start_with_ledger(host, script_with_calls([tool_call("ledger__write", n=1, hang=True)]))
    await eventually(lambda: read_lines(log) == ["begin write 1"])
    async with hosting(settings) as other:
        answer = await (other if elsewhere else host).call("agent_cancel", job_id=job_id)
    assert answer["status"] == "cancelled"
    await eventually(lambda: read_lines(log) == ["begin write 1", "cancelled write 1"])


async def test_follow_up_keeps_the_tools_and_may_name_others(host: Host, log: Path, upstream: RunningServer) -> None:
    first = await start_with_ledger(host, script_with_calls([tool_call("ledger__write", n=1)]))
    assert (await host.end(first))["status"] == "completed"
    for n, options in enumerate([{}, {"toolbox": ["ledger/write"]}], 2):
        script = script_with_calls([tool_call("ledger__write", n=n)])
        second = await host.start(emulate=script, previous_job_id=first, options=options)
        assert (await host.end(second["job_id"]))["output"] == "the end"
    assert read_lines(log)[-4:] == ["begin write 2", "end write 2", "begin write 3", "end write 3"]


SHOP: dict[str, Any] = {"type": "function", "name": "shop", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("options", "offered"),
    [
        ({}, ["code_interpreter", "ledger__read", "ledger__write"]),
        ({"toolbox": ["ledger/read"]}, ["code_interpreter", "ledger__read"]),
        ({"toolbox": "none"}, ["code_interpreter"]),
        ({"tools": [SHOP]}, ["ledger__read", "ledger__write", "shop"]),
        ({"tools": [SHOP], "toolbox": ["other/echo"]}, ["other__echo", "shop"]),
    ],
    ids=["nothing", "fewer", "none", "tools", "both"],
)
async def test_follow_up_offers_the_tools_it_names_or_the_previous_ones(
    settings: Settings, log: Path, upstream: RunningServer, options: dict[str, Any], offered: list[str]
) -> None:
    async with hosting(add_tool_servers(settings, ledger=ledger_entry(log), other=bad_server_entry())) as host:
        first = await start_with_ledger(host, {"text": "one"}, tools=[{"type": "code_interpreter"}])
        assert (await host.end(first))["output"] == "one"
        script = script_with_calls([tool_call(name)] if (name := "ledger__read") in offered else [])
        second = await host.start(emulate=script, previous_job_id=first, options=options)
        assert (await host.end(second["job_id"]))["status"] == "completed"
    tools = get_response(upstream, runs(upstream)[-1]["id"])["tools"]
    assert sorted(tool.get("name", tool["type"]) for tool in tools) == offered


async def test_follow_up_without_its_tool_servers_is_refused_and_may_start_without_them(
    settings: Settings, host: Host, upstream: RunningServer
) -> None:
    first = await start_with_ledger(host, {"text": "one"})
    await host.end(first)
    async with hosting(settings) as other:
        sentence = await other.refused("agent_start", prompt="two", previous_job_id=first)
        assert sentence == (
            "There are no tool servers for the tools of the previous job. "
            "Ask the user to set AGENT_JOBS_TOOLBOX, or start it with options.toolbox none."
        )
        second = await other.start(emulate={}, previous_job_id=first, options={"toolbox": "none"})
        assert (await other.end(second["job_id"]))["status"] == "completed"
    assert get_response(upstream, second["response_id"])["tools"] == []
    async with hosting(add_tool_servers(settings, other=bad_server_entry())) as other:
        assert "no tool server 'ledger'" in await other.refused("agent_start", prompt="two", previous_job_id=first)


async def test_turn_after_a_forgotten_response_repeats_the_history(
    host: Host, log: Path, upstream: RunningServer, tmp_path: Path
) -> None:
    are_deleted = tmp_path / "forgot"
    script = script_with_calls(
        [tool_call("ledger__write", n=1)], [tool_call("ledger__write", n=2, until=str(are_deleted))]
    )
    job_id = await start_with_ledger(host, script)
    await eventually(lambda: "begin write 2" in read_lines(log))
    deleted_ids = [entry["id"] for entry in upstream.emulator.log() if entry["entry"] == "response"]
    for response_id in deleted_ids:
        upstream.emulator.forget(response_id=response_id)
    are_deleted.touch()
    answer = await host.end(job_id)
    assert (answer["status"], answer["output"]) == ("completed", "the end")
    assert read_lines(log) == ["begin write 1", "end write 1", "begin write 2", "end write 2"]


async def test_job_with_calls_runs_at_an_endpoint_without_background_mode(host: Host, log: Path) -> None:
    script = script_with_calls(
        [tool_call("ledger__write", n=1), tool_call("ledger__read", n=2)],
        [tool_call("ledger__write", n=3)],
        faults=[{"ignore_background": True}],
    )
    answer = await host.end(await start_with_ledger(host, script))
    assert (answer["status"], answer["output"]) == ("completed", "the end")
    assert [line for line in read_lines(log) if line.startswith("end write")] == ["end write 1", "end write 3"]


@pytest.mark.parametrize(
    ("flags", "tool", "outcome"),
    [
        ((), "hang", "did not answer hang within 1 s"),
        ((), "crash", "its last words: cannot go on"),
        ((), "huge", "did not answer huge: the answer was longer than 16 MiB"),
        ((), "odd", "in a form that the protocol defines"),
        ((), "fail", "it went wrong"),
        (("garbage",), "echo", "hallo"),
        (("many",), "tool_199", ""),
        (("bad-schemas",), "bad_0", ""),
    ],
)
async def test_job_continues_after_any_failure_of_a_tool_server(
    settings: Settings, flags: tuple[str, ...], tool: str, outcome: str
) -> None:
    servers = {"bad": bad_server_entry(*flags, timeout_s=1 if tool == "hang" else 50), "good": bad_server_entry()}
    script = script_with_calls([tool_call(f"bad__{tool}", text="hallo"), tool_call("good__echo", text="well")])
    async with hosting(add_tool_servers(settings, **servers)) as host:
        job = await host.start(emulate=script, options={"toolbox": [f"bad/{tool}", "good/echo"]})
        answer = await host.end(job["job_id"])
        assert (answer["status"], answer["output"]) == ("completed", "the end")
        first, second = await read_outputs(host, job["job_id"])
        assert outcome in first and second == "well"


@pytest.mark.parametrize("broken", [False, True], ids=["its server is there", "its server does not start"])
async def test_interrupted_call_is_reported_to_the_model_as_unknown(
    settings: Settings, log: Path, broken: bool
) -> None:
    async with hosting(add_tool_servers(settings, ledger=ledger_entry(log))) as host:
        job_id = await start_with_ledger(host, script_with_calls([tool_call("ledger__write", n=1, hang=True)]))
        await eventually(lambda: read_lines(log) == ["begin write 1"])
    entry = {"command": "/no/such/program"} if broken else ledger_entry(log)
    async with hosting(add_tool_servers(settings, ledger=entry)) as host:
        assert (await host.end(job_id))["output"] == "the end"
        assert [outcome[:35] for outcome in await read_outputs(host, job_id)] == ["The outcome of this call is unknown"]
    assert "end write 1" not in read_lines(log) and read_lines(log).count("begin write 1") == 1


async def test_interrupted_read_only_call_is_repeated(settings: Settings, log: Path, tmp_path: Path) -> None:
    left = tmp_path / "left"
    async with hosting(add_tool_servers(settings, ledger=ledger_entry(log))) as host:
        job_id = await start_with_ledger(host, script_with_calls([tool_call("ledger__read", n=1, until=str(left))]))
        await eventually(lambda: read_lines(log) == ["begin read 1"])
    left.touch()
    async with hosting(add_tool_servers(settings, ledger=ledger_entry(log))) as host:
        assert (await host.end(job_id))["output"] == "the end"
        assert await read_outputs(host, job_id) == ["read 1"]
    assert read_lines(log).count("begin read 1") == 2


async def test_waiting_call_of_a_dead_process_is_made_by_the_next(settings: Settings, log: Path) -> None:
    ours = replace(add_tool_servers(settings, ledger=ledger_entry(log)), tool_concurrency=1)
    async with hosting(ours) as host:
        job_id = await start_with_ledger(
            host, script_with_calls([tool_call("ledger__write", n=n, hang=True) for n in (1, 2)])
        )
        await eventually(lambda: len(read_lines(log)) == 1)
        begun = int(read_lines(log)[0].split()[-1])
    async with hosting(ours) as host:
        await eventually(lambda: f"begin write {3 - begun}" in read_lines(log))
        await host.call("agent_cancel", job_id=job_id)
        items = (await host.call("agent_result", job_id=job_id, part="items"))["items"]
    assert read_lines(log).count(f"begin write {begun}") == 1
    assert items[begun - 1]["output"].startswith("The outcome of this call is unknown")


async def test_activity_names_turn_calls_and_hosted_tools(host: Host, log: Path) -> None:
    reading = [tool_call("ledger__read", n=n, hang=True) for n in range(4)]
    script = script_with_calls([tool_call("ledger__write", n=0)], reading)
    script["turns"][1]["searches"] = 2
    job_id = await start_with_ledger(host, script)
    await eventually(lambda: len(read_lines(log)) == 6)
    assert (await host.call("agent_poll", job_id=job_id, wait_s=0))["activity"] == "turn 2; read x4; 2 searches"
    await host.call("agent_cancel", job_id=job_id)


async def test_image_of_a_tool_reaches_the_model_and_is_listed_as_one(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(add_tool_servers(settings, bad=bad_server_entry())) as host:
        job = await host.start(emulate=script_with_calls([tool_call("bad__image")]), options={"toolbox": ["bad"]})
        assert (await host.end(job["job_id"]))["output"] == "the end"
        [outcome] = await read_outputs(host, job["job_id"])
    newest = f"{upstream.base_url}/responses/{runs(upstream)[-1]['id']}/input_items"
    [output] = [item["output"] for item in httpx2.get(newest, headers=KEY).json()["data"] if "output" in item]
    assert [part["type"] for part in output] == ["input_text", "input_image", "input_text"]
    assert outcome.startswith("look: [image] [image/png of 12 bytes is left out")


async def test_function_of_the_caller_is_not_mistaken_for_a_server_s_tool(
    host: Host,
) -> None:
    script = script_with_calls([tool_call("ledger__mine")])
    options = {"toolbox": "none", "tools": [{**SHOP, "name": "ledger__mine"}]}
    job = await host.start(emulate=script, options=options)
    [asked] = (await host.end(job["job_id"]))["needs"]
    outputs = [{"call_id": asked["call_id"], "output": "mine"}]
    await host.call("agent_reply", job_id=job["job_id"], outputs=outputs)
    assert (await host.end(job["job_id"]))["output"] == "the end"


async def test_reply_takes_effect_at_once_while_the_job_is_polled(settings: Settings, log: Path) -> None:
    servers = {"ledger": ledger_entry(log, approval="always")}
    settings = replace(add_tool_servers(settings, **servers), approvals="model")
    async with hosting(settings) as host:
        job_id = await start_with_ledger(
            host, script_with_calls([tool_call("ledger__write", n=1)], [tool_call("ledger__write", n=2)])
        )
        for n in (1, 2):
            answer = await host.end(job_id)
            assert answer["status"] == "input_required" and len(read_lines(log)) == 2 * (n - 1)
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(host.client.call_tool, "agent_poll", {"job_id": job_id, "wait_s": 1})
                await host.call("agent_reply", job_id=job_id, approve=[answer["needs"][0]["call_id"]])
        assert (await host.end(job_id))["output"] == "the end"
    assert read_lines(log) == ["begin write 1", "end write 1", "begin write 2", "end write 2"]


async def test_tools_over_the_api_s_limit_are_refused_and_the_server_continues(settings: Settings) -> None:
    async with hosting(add_tool_servers(settings, bad=bad_server_entry("many"))) as host:
        sentence = await host.refused(
            "agent_start", prompt=script_prompt("work", script_with_calls()), options={"toolbox": ["bad"]}, wait_s=0
        )
        assert "names 200 tools, and the API accepts 128" in sentence
        assert (await host.start(emulate={"text": "x"}))["job_id"]


@pytest.mark.parametrize(
    "lacking",
    [{}, {"other": bad_server_entry()}, {"ledger": {"command": "x", "deney": ["*"]}}],
    ids=["no servers", "other servers", "a mistake in its entry"],
)
async def test_job_continues_only_in_a_process_with_its_tool_servers(
    settings: Settings, log: Path, upstream: RunningServer, lacking: dict[str, Any]
) -> None:
    ours = add_tool_servers(settings, ledger=ledger_entry(log))
    async with hosting(ours) as host:  # which is gone before its run ends
        job_id = await start_with_ledger(host, script_with_calls([tool_call("ledger__write", n=1)], duration_s=12))
    async with hosting(add_tool_servers(settings, **lacking) if lacking else settings) as host:
        await eventually(lambda: runs(upstream)[0]["status"] == "completed")
        answer = await host.call("agent_poll", job_id=job_id, wait_s=10)
        assert (answer["status"], answer.get("needs")) == ("in_progress", None)
    assert read_lines(log) == []
    async with hosting(add_tool_servers(settings, ledger=ledger_entry(log)), speed=60) as host:
        assert (await host.end(job_id))["output"] == "the end"
    assert read_lines(log) == ["begin write 1", "end write 1"]


async def test_purge_deletes_the_responses_of_all_turns_even_if_one_fails(
    settings: Settings, host: Host, upstream: RunningServer
) -> None:
    await host.end(
        await start_with_ledger(host, script_with_calls(*[[tool_call("ledger__read", n=n)] for n in range(3)]))
    )
    ids = [run["id"] for run in runs(upstream)]
    upstream.forget(response_id=ids[0])
    upstream.queue_fault(on="delete", status=500, match=ids[1])
    async with hosting(replace(settings, retention_days=1, delete_upstream="yes"), speed=86_400):
        await eventually(lambda: upstream.emulator.counters()["deletes"] == 4)
    there = [httpx2.get(f"{upstream.base_url}/responses/{each}", headers=KEY).status_code for each in ids]
    assert there == [404, 200, 404, 404]


@pytest.mark.parametrize("written", [None, [], ["x"], 7, True, '{"n": 1', '"{\\"n\\": 1}"', "null", "[]", "not JSON"])
async def test_call_with_unreadable_arguments_is_never_executed(host: Host, log: Path, written: object) -> None:
    asked = {"name": "ledger__write", "raw_arguments": written}
    job_id = await start_with_ledger(host, script_with_calls([asked]))
    assert (await host.end(job_id))["status"] == "completed"
    assert read_lines(log) == []
    (outcome,) = await read_outputs(host, job_id)
    assert "JSON" in outcome


async def test_arguments_sent_as_an_object_are_used(host: Host, log: Path) -> None:
    job_id = await start_with_ledger(host, script_with_calls([{"name": "ledger__write", "raw_arguments": {"n": 5}}]))
    assert (await host.end(job_id))["status"] == "completed"
    assert read_lines(log) == ["begin write 5", "end write 5"]


async def run_with_toolbox(host: Host, *toolbox: str) -> str:
    answer = await host.start(emulate={"text": "x"}, options={"toolbox": toolbox} if toolbox else None)
    return (await host.end(answer["job_id"]))["status"]


async def test_invalid_entry_stops_only_jobs_that_name_it(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    odd = {
        "old": {"type": "sse", "url": "https://x/sse"},
        "typo": bad_server_entry(deney=["write"]),
        "off": bad_server_entry(enabled=False, anything="at all"),
        "n\u00f6": bad_server_entry(),
    }
    settings = add_tool_servers(settings, good=bad_server_entry(timeout=60, oauth={}, disabledTools=["write"]), **odd)
    async with hosting(settings) as host:
        assert await run_with_toolbox(host) == "completed"
        assert await run_with_toolbox(host, "good") == "completed"
        assert "warnings" not in await host.call("agent_list")
        messages_by_name = {
            name: await host.refused("agent_start", prompt="x", options={"toolbox": ["good", f"{name}/echo"]})
            for name in [*odd, "good/write"]
        }
        assert settings.toolbox is not None
        for name, sentence in {
            "old": f"AGENT_JOBS_TOOLBOX: {settings.toolbox}: old: type sse is not supported",
            "typo": f"AGENT_JOBS_TOOLBOX: {settings.toolbox}: typo: there is no key 'deney': did you mean 'deny'?",
            "off": "options.toolbox: off is switched off. Ask the user to switch it on",
            "n\u00f6": f"AGENT_JOBS_TOOLBOX: {settings.toolbox}: n\u00f6: a server's name has",
            "good/write": "options.toolbox: good has no tool 'write/echo'",
        }.items():
            assert messages_by_name[name].startswith(sentence)
        settings.toolbox.write_text(json.dumps({"mcpServers": {"typo": bad_server_entry()}}))
        assert await run_with_toolbox(host, "typo") == "completed"
    [record] = [record for record in caplog.records if "AGENT_JOBS_TOOLBOX" in record.getMessage()]
    for words in ("old: type sse", "typo: there is", "good: timeout is not used", "oauth is not used"):
        assert words in record.getMessage()


@pytest.mark.parametrize("written", [None, "{", '{"mcpServers": []}'], ids=["missing", "no JSON", "no servers"])
async def test_invalid_toolbox_file_stops_only_jobs_that_name_a_server(
    settings: Settings, tmp_path: Path, written: str | None
) -> None:
    path = tmp_path / "tools.json"
    if written is not None:
        path.write_text(written)
    async with hosting(replace(settings, toolbox=path)) as host:
        assert await run_with_toolbox(host) == "completed"
        [warning] = (await host.call("agent_list"))["warnings"]
        assert warning.startswith("AGENT_JOBS_TOOLBOX: ") and str(path) in warning
        refusal = await host.refused("agent_start", prompt="x", options={"toolbox": ["good"]})
        problem, _, fix = warning.partition(" Ask the user to ")
        assert fix == "correct the file."
        assert refusal.startswith(problem) and "Ask the user to correct that" in refusal
        path.write_text(json.dumps({"mcpServers": {"good": bad_server_entry()}}))
        assert await run_with_toolbox(host, "good") == "completed"
        assert "warnings" not in await host.call("agent_list")
