"""Limits of a job with several turns: its time, its cost limit and the day's budget."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, eventually, hosting, script_prompt
from test_agent_loop import (
    MODEL,
    USED,
    add_tool_servers,
    bad_server_entry,
    ledger_entry,
    read_lines,
    read_outputs,
    script_with_calls,
    start_with_ledger,
    tool_call,
)
from test_asking import answer_needs as answers_to
from test_asking import asking, script
from test_durable import read_counters
from test_follow_ups import Now
from test_tools import runs

from agent_jobs.emulator.server import RunningServer
from agent_jobs.pricing.prices import DAY_S, find_day_start
from agent_jobs.settings.settings import Settings

HOUR_S = 3600.0
#: A short first turn costs at most a fraction of a cent; a turn after USED at most a little over a dollar.
BOUNDED = {"max_output_tokens": 100, "max_tool_calls": 99}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def boxed(settings: Settings, log: Path) -> Settings:
    return add_tool_servers(settings, ledger=ledger_entry(log))


@pytest.fixture
async def host(boxed: Settings) -> AsyncGenerator[Host]:
    async with hosting(boxed) as host:
        yield host


# Time.


async def test_time_limit_covers_all_turns_together(host: Host, upstream: RunningServer) -> None:
    turns = [[tool_call("ledger__read", n=n)] for n in range(15)]
    answer = await host.end(
        await start_with_ledger(host, script_with_calls(*turns, duration_s=4, queued_s=0), timeout_s=30)
    )
    assert (answer["status"], answer["error"]["code"]) == ("failed", "deadline_exceeded")
    assert 1 < len(runs(upstream)) < 15


async def test_running_turn_is_cancelled_at_the_limit_and_keeps_its_text(host: Host, upstream: RunningServer) -> None:
    end = {"duration_s": 400, "reasoning": 0, "length": 4000}
    script = {"duration_s": 0.5, "turns": [{"function_calls": [tool_call("ledger__read", n=1)]}, end]}
    answer = await host.end(await start_with_ledger(host, script, timeout_s=60))
    assert answer["error"]["code"] == "deadline_exceeded"
    assert answer["output"].startswith("This is an emulated answer")
    assert [run["status"] for run in runs(upstream)] == ["completed", "cancelled"]


async def test_call_stopped_by_the_limit_is_unknown_and_the_others_keep_their_outputs(host: Host, log: Path) -> None:
    turns = [
        [tool_call("ledger__read", n=1)],
        [tool_call("ledger__read", n=2), tool_call("ledger__write", n=3, hang=True)],
    ]
    job_id = await start_with_ledger(host, script_with_calls(*turns), timeout_s=40)
    assert (await host.end(job_id))["error"]["code"] == "deadline_exceeded"
    items = (await host.call("agent_result", job_id=job_id, part="items"))["items"]
    assert [(item["name"], item["state"]) for item in items if item["type"] == "call"] == [
        ("ledger__read", "done"), ("ledger__read", "done"), ("ledger__write", "unknown")
    ]  # fmt: skip
    assert await read_outputs(host, job_id) == ["read 1", "read 2"]
    await eventually(lambda: read_lines(log)[-1] == "cancelled write 3")


async def test_time_spent_waiting_for_an_answer_does_not_count(settings: Settings, upstream: RunningServer) -> None:
    now = Now()
    limited = replace(settings, job_timeout_s=HOUR_S)
    turns = [{"function_calls": [tool_call("lookup", word=word)]} for word in ("one", "two")]
    never = {"end": "never", "reasoning": 0}
    async with hosting(limited, clock=now.clock()) as host:
        waiting_job = await asking(host, turns=[*turns, never])
        now.pass_s(5 * HOUR_S)
    async with hosting(limited, clock=now.clock()) as host:
        await host.call("agent_reply", job_id=waiting_job["job_id"], outputs=answers_to(waiting_job))
        waiting_job = await host.call("agent_poll", job_id=waiting_job["job_id"], wait_s=20)
        assert waiting_job["status"] == "input_required"
        now.pass_s(5 * HOUR_S)
        await host.call("agent_reply", job_id=waiting_job["job_id"], outputs=answers_to(waiting_job))
        await eventually(lambda: read_counters(upstream)["accepted"] == 3)
        assert "next_poll_ms" in await host.call("agent_poll", job_id=waiting_job["job_id"], wait_s=5)
        now.pass_s(HOUR_S)
        assert (await host.end(waiting_job["job_id"]))["error"]["code"] == "deadline_exceeded"


async def test_turn_that_upstream_accepts_too_late_is_not_sent(host: Host, upstream: RunningServer) -> None:
    body = {"error": {"code": "server_is_overloaded", "message": "later"}}
    upstream.queue_fault(on="create", status=503, body=body, skip=1, times=-1)
    answer = await host.end(
        await start_with_ledger(host, script_with_calls([tool_call("ledger__read", n=1)]), timeout_s=20)
    )
    assert answer["error"]["code"] == "deadline_exceeded"
    assert answer["error"]["message"] == "Its time limit passed before turn 2 began."
    assert read_counters(upstream)["accepted"] == 1


async def test_job_whose_tool_servers_are_gone_ends_at_its_limit(boxed: Settings) -> None:
    async with hosting(boxed) as host:
        job_id = await start_with_ledger(
            host, script_with_calls([tool_call("ledger__read", n=1)], duration_s=2), timeout_s=100
        )
    async with hosting(replace(boxed, toolbox=None), speed=100) as host:
        assert (await host.end(job_id))["error"]["code"] == "deadline_exceeded"


# Money.


def script_of_turns(count: int) -> dict[str, Any]:
    """Return a script of `count` turns of a dollar each, before a last turn that costs another dollar."""
    return script_with_calls(*([tool_call("ledger__read", n=n)] for n in range(count)), usage=USED)


async def start_paid_turns(host: Host, count: int, prompt: str | None = None, **options: Any) -> dict[str, Any]:
    """Start a job that makes calls in `count` turns of a dollar each."""
    options = {"toolbox": ["ledger"], **BOUNDED, "allow_duplicate": True, **options}
    return await host.start(prompt, model=MODEL, emulate=script_of_turns(count), options=options)


@pytest.mark.parametrize(
    ("limit", "words"), [("max_cost_usd", "over its max_cost_usd"), ("DAILY_BUDGET_USD", "The day's budget of 3.5 USD")]
)
async def test_turn_over_the_cost_limit_is_not_begun_and_outputs_are_kept(
    boxed: Settings, upstream: RunningServer, log: Path, limit: str, words: str
) -> None:
    of_job = limit == "max_cost_usd"
    async with hosting(boxed if of_job else replace(boxed, daily_budget_usd=3.5)) as host:
        job = await start_paid_turns(host, 9, max_cost_usd=3.5 if of_job else 99)
        answer = await host.end(job["job_id"])
        assert (answer["status"], answer["error"]["code"]) == ("failed", "budget_exceeded")
        assert answer["error"]["message"].startswith("Turn 4 was not begun. ")
        assert words in answer["error"]["message"] and limit in answer["next"]
        assert (answer["cost_usd"], len(runs(upstream))) == (pytest.approx(3), 3)
        assert (await read_outputs(host, job["job_id"]))[:2] == ["read 0", "read 1"]
        assert (await host.call("agent_list"))["today_usd"] == pytest.approx(3)


async def test_tool_is_not_called_if_no_turn_could_read_its_output(host: Host, log: Path) -> None:
    answer = await host.end((await start_paid_turns(host, 9, max_cost_usd=2.5))["job_id"])
    assert answer["error"]["code"] == "budget_exceeded"
    assert [line for line in read_lines(log) if line.startswith("begin")] == ["begin read 0"]


async def test_job_within_its_bounds_completes(boxed: Settings) -> None:
    async with hosting(replace(boxed, daily_budget_usd=4.5)) as host:
        answer = await host.end((await start_paid_turns(host, 2, max_cost_usd=3.5))["job_id"])
        assert (answer["status"], answer["cost_usd"]) == ("completed", pytest.approx(3))


async def test_turn_of_one_job_reduces_the_budget_for_another_start(boxed: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(boxed, daily_budget_usd=2.5)) as host:
        script = {**script_with_calls([tool_call("ledger__read", n=1)], usage=USED)}
        script["turns"][1] = {"end": "never"}
        job = await host.start(model=MODEL, emulate=script, options={"toolbox": ["ledger"], **BOUNDED})
        await eventually(lambda: read_counters(upstream)["accepted"] == 2)
        words = {"model": MODEL, "options": {"max_output_tokens": 600_000}}
        assert "up to 2.6" in await host.refused("agent_start", prompt="x", **words)
        await host.call("agent_cancel", job_id=job["job_id"])
        assert "up to 2.6" in await host.refused("agent_start", prompt="x", **words), "its cost is not known"


async def test_budget_limits_turns_of_many_jobs_at_once(boxed: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(boxed, daily_budget_usd=6.5)) as host:
        # One call starts all jobs: no turn of the first can use the budget that the last one needs to start.
        asked = [script_prompt("word " * 20_000, script_of_turns(1))] * 5
        options = {"toolbox": ["ledger"], **BOUNDED, "allow_duplicate": True}
        started = await host.call("agent_start", prompts=asked, model=MODEL, options=options, wait_s=0)
        ends = [await host.end(job_id) for job_id in started["job_ids"]]
        assert (await host.call("agent_list"))["today_usd"] == pytest.approx(len(runs(upstream)))
    assert len(runs(upstream)) == 6
    assert {end["status"] for end in ends} == {"completed", "failed"}
    assert {end["error"]["code"] for end in ends if end["status"] == "failed"} == {"budget_exceeded"}


async def test_turns_count_toward_the_day_of_the_start(settings: Settings, upstream: RunningServer) -> None:
    now = Now()
    now.pass_s(find_day_start(now()) + DAY_S - HOUR_S - now())  # an hour before midnight
    priced = replace(add_tool_servers(settings, ledger=ledger_entry(Path("/dev/null"))), daily_budget_usd=2.5)
    async with hosting(priced, clock=now.clock()) as host:
        asks = script(usage=USED, function_calls=[tool_call("lookup", word="one")])
        job = await host.start(model=MODEL, emulate=asks["emulate"], options={**BOUNDED, **asks["options"]})
        waiting_job = await host.call("agent_poll", job_id=job["job_id"], wait_s=20)
        now.pass_s(2 * HOUR_S)
        next_day = await host.start(model=MODEL, emulate={"usage": USED}, options=BOUNDED)
        await host.end(next_day["job_id"])
        await host.call("agent_reply", job_id=waiting_job["job_id"], outputs=answers_to(waiting_job))
        assert (await host.end(waiting_job["job_id"]))["status"] == "completed"
        assert (await host.call("agent_list"))["today_usd"] == pytest.approx(1)


async def test_turn_without_a_bound_is_not_begun_under_a_budget(settings: Settings, tmp_path: Path) -> None:
    script = script_with_calls([tool_call("bad__image")], usage=USED)
    options = {"toolbox": ["bad"], **BOUNDED, "max_cost_usd": 50}
    async with hosting(add_tool_servers(settings, bad=bad_server_entry())) as host:
        answer = await host.end((await host.start(model=MODEL, emulate=script, options=options))["job_id"])
    assert answer["error"]["code"] == "budget_exceeded"
    assert "Files and images have no known number of tokens" in answer["error"]["message"]


async def test_dry_run_of_a_job_with_tools_bounds_all_its_turns(host: Host) -> None:
    def build_dry_run(**options: Any) -> dict[str, Any]:
        return {"prompt": "x", "model": MODEL, "options": {"dry_run": True, **BOUNDED, **options}}

    boxed = await host.call("agent_start", **build_dry_run(toolbox=["ledger"]))
    assert boxed["unbounded"].endswith(" Set options.max_cost_usd, which limits them all.")
    assert "cost_bound_usd" not in boxed
    limited = await host.call("agent_start", **build_dry_run(toolbox=["ledger"], max_cost_usd=2.5))
    assert limited["cost_bound_usd"] == 2.5
    assert (await host.call("agent_start", **build_dry_run()))["cost_bound_usd"] < 0.1


@pytest.mark.parametrize("last", [1, 0], ids=["of the last turn", "of the first turn"])
async def test_cost_with_an_unknown_turn_is_hidden_and_counts_with_its_bound(boxed: Settings, last: int) -> None:
    script = script_with_calls([tool_call("ledger__read", n=1)], usage=USED)
    script["turns"][last]["usage"] = None
    async with hosting(boxed) as host:
        job = await host.start(model=MODEL, emulate=script, options={"toolbox": ["ledger"]})
        answer = await host.end(job["job_id"])
        assert (answer["status"], answer.get("cost_usd")) == ("completed", None)
        assert (await host.call("agent_list")).get("today_usd") == (pytest.approx(1) if last else None)
