"""Costs of jobs and the day's budget, through the tools and over processes."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, hosting, script_prompt
from processes import Server, answer_of, serving
from test_follow_ups import Now, complete_job, get_response_of
from test_many import poll_until_done
from test_tools import creates, runs

from agent_jobs.emulator.server import RunningServer
from agent_jobs.pricing.prices import DAY_S, find_day_start
from agent_jobs.settings.settings import Settings

PRICES = """
[models."gpt-6.1-sol"]
input = 2.0
cached = 0.2
cache_write = 2.5
output = 10.0
context_tokens = 400_000
tiers = { flex = 0.5, priority = 2.0 }

[tools.web_search]
per_1000 = 10.0
tokens = 20_000
"""
#: 60,000 at 2.00, 40,000 at 0.20 and 20,000 at 10.00 a million: 0.12 + 0.008 + 0.20.
USAGE = {
    "input_tokens": 100_000,
    "input_tokens_details": {"cached_tokens": 40_000},
    "output_tokens": 20_000,
}
USD = 0.328
#: Tokens of output with which a short prompt costs a little over 1.00 at most.
DOLLAR = {"max_output_tokens": 100_000}
SCALE = {"options": {**DOLLAR, "service_tier": "scale"}}


@pytest.fixture
def priced(settings: Settings, tmp_path: Path) -> Settings:
    table = tmp_path / "prices.toml"
    table.write_text(PRICES)
    return replace(settings, prices=table)


def costs_of(listed: dict[str, Any]) -> dict[str, Any]:
    """Return the cost of each job of a list."""
    return {row["job_id"]: row.get("cost_usd") for row in listed["jobs"]}


async def read_usage(host: Host, job_id: str) -> dict[str, Any]:
    return (await host.call("agent_result", job_id=job_id, part="usage"))["usage"]


# The cost of a job.


async def test_cost_is_shown_with_the_result_in_lists_and_with_usage(priced: Settings) -> None:
    async with hosting(priced) as host:
        started = await host.start(emulate={"duration_s": 1, "usage": USAGE})
        answer = await host.end(started["job_id"])
        listed = await host.call("agent_list")
        usage = await read_usage(host, started["job_id"])
    assert answer["cost_usd"] == USD
    assert costs_of(listed) == {started["job_id"]: USD}
    assert listed["today_usd"] == USD
    assert (usage["cost_usd"], usage["cached_tokens"]) == (USD, 40_000)


@pytest.mark.parametrize(
    ("more", "usd"),
    [
        ({"options": {"service_tier": "flex"}}, USD / 2),
        ({"options": {"service_tier": "fast"}}, USD * 2),  # the priority tier, by its name in answers
        ({"web_search": True}, USD + 2 * 0.01),  # the emulator searches twice
        ({"web_search": True, "options": {"service_tier": "flex"}}, USD / 2 + 2 * 0.01),
    ],
    ids=["flex", "fast", "searches", "flex with searches"],
)
async def test_cost_includes_tiers_and_searches(priced: Settings, more: dict[str, Any], usd: float) -> None:
    async with hosting(priced) as host:
        started = await host.start(emulate={"duration_s": 1, "usage": USAGE}, **more)
        assert (await host.end(started["job_id"]))["cost_usd"] == pytest.approx(usd)


@pytest.mark.parametrize(
    ("script", "more"),
    [
        ({"usage": None}, {}),
        ({}, {"model": "gpt-6-sol"}),
        ({}, {"options": {"service_tier": "scale"}}),
        (
            {"container_files": [{"filename": "a.txt", "text": "a"}]},
            {"options": {"tools": [{"type": "code_interpreter"}]}},
        ),
    ],
    ids=["no usage", "model", "tier", "tool"],
)
async def test_unknown_cost_is_left_out(priced: Settings, script: dict[str, Any], more: dict[str, Any]) -> None:
    async with hosting(priced) as host:
        started = await host.start(emulate={"duration_s": 1, **script}, **more)
        answer = await host.end(started["job_id"])
        listed = await host.call("agent_list")
        usage = await read_usage(host, started["job_id"])
    assert answer["status"] == "completed"
    assert "cost_usd" not in answer
    assert "cost_usd" not in listed["jobs"][0]
    assert "today_usd" not in listed
    assert "cost_usd" not in usage


async def test_start_that_was_never_accepted_cost_nothing(priced: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(priced, max_concurrent=1)) as host:
        running = await host.start(emulate={"end": "never"})
        parked = await host.start()
        await host.call("agent_cancel", job_id=parked["job_id"])
        await host.call("agent_cancel", job_id=running["job_id"])
        upstream.queue_fault(on="create", status=400, body={"error": {"code": "unsupported_value", "message": "no"}})
        refused = await host.start(wait_s=5)
        assert refused["status"] == "failed"
        costs = costs_of(await host.call("agent_list"))
    assert costs == {parked["job_id"]: 0, refused["job_id"]: 0, running["job_id"]: None}


async def test_unconfirmed_start_has_no_known_cost(priced: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="create", drop="after_accept")
    async with hosting(priced) as host:
        started = await host.start(emulate={"duration_s": 1, "usage": USAGE}, wait_s=5)
        assert started["error"]["code"] == "start_unconfirmed"
        assert costs_of(await host.call("agent_list")) == {started["job_id"]: None}
        [run] = runs(upstream)
        await (await host.app.engine()).adopt(started["job_id"], run["id"])
        assert (await host.end(started["job_id"]))["cost_usd"] == USD


@pytest.mark.parametrize("status", ["cancelled", "failed", "incomplete"])
@pytest.mark.parametrize("output", [True, False], ids=["with an output", "without"])
async def test_incomplete_run_costs_what_upstream_counted(
    priced: Settings, upstream: RunningServer, status: str, output: bool
) -> None:
    async with hosting(replace(priced, follow=0)) as host:
        started = await host.start(emulate={"end": "never", "reasoning": 0})
        message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "so far"}]}
        ended = get_response_of(upstream, started["job_id"]) | {
            "status": status, "usage": USAGE, "output": [message] if output else [],
        }  # fmt: skip
        upstream.queue_fault(on="retrieve", status=200, body=ended, times=-1)
        answer = await host.call("agent_cancel", job_id=started["job_id"])
        listed = await host.call("agent_list")
    assert (answer["status"], answer["cost_usd"]) == (status, USD)
    assert ("output" in answer) == output
    assert costs_of(listed) == {started["job_id"]: USD}


@pytest.mark.parametrize("follow", [0, 200], ids=["looked at", "followed"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["by its server", "by another server"])
async def test_every_way_of_finishing_stores_the_cost(priced: Settings, follow: int, elsewhere: bool) -> None:
    observed = replace(priced, follow=follow)
    async with hosting(observed) as host:
        started = await host.start(emulate={"duration_s": 3, "usage": USAGE})
        if not elsewhere:
            assert (await host.end(started["job_id"]))["cost_usd"] == USD
    async with hosting(observed) as host:
        assert (await host.end(started["job_id"]))["cost_usd"] == USD


async def test_cancel_by_another_server_stores_the_cost(priced: Settings) -> None:
    script = {"end": "completed", "duration_s": 200, "usage": USAGE, "faults": [{"complete_after_cancel": True}]}
    async with hosting(priced) as host, hosting(priced) as other:
        started = await host.start(emulate=script)
        await other.call("agent_cancel", job_id=started["job_id"])
        assert (await other.end(started["job_id"]))["cost_usd"] == USD


# The day's budget.


def environment(priced: Settings, budget_usd: float) -> dict[str, str]:
    return {"AGENT_JOBS_PRICES": str(priced.prices), "AGENT_JOBS_DAILY_BUDGET_USD": str(budget_usd)}


@contextmanager
def run_servers(priced: Settings, upstream: RunningServer, count: int, **environment: str) -> Generator[list[Server]]:
    """Run this many servers of one user as real processes."""
    assert priced.data_dir is not None
    with ExitStack() as stack:
        made = [stack.enter_context(serving(priced.data_dir, upstream.base_url, **environment)) for _ in range(count)]
        for server in made:
            server.initialize()
        yield made


def test_budget_for_five_admits_five_of_twenty_starts_over_two_servers(
    priced: Settings, upstream: RunningServer
) -> None:
    with run_servers(priced, upstream, 2, **environment(priced, 5.1)) as both:
        asked: list[tuple[Server, int]] = []
        for number in range(20):
            arguments = {"prompt": script_prompt(f"work {number}", {"end": "never"}), "wait_s": 0, "options": DOLLAR}
            server = both[number % 2]
            asked.append((server, server.send("tools/call", {"name": "agent_start", "arguments": arguments})))
        answers = [answer_of(server.answer(number)) for server, number in asked]
        listed = both[0].call("agent_list")
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert len(refused) == 15
    assert {error["code"] for error in refused} == {"budget_exceeded"}
    assert "AGENT_JOBS_DAILY_BUDGET_USD" in refused[0]["message"]
    assert creates(upstream) == len(listed["jobs"]) == 5


async def test_finished_job_replaces_its_reservation_with_its_cost(priced: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(priced, daily_budget_usd=2.1)) as host:
        first = await complete_job(host, "one", options=DOLLAR)
        second = await host.start("two", emulate={"duration_s": 1, "usage": USAGE}, options=DOLLAR)
        await host.end(second["job_id"])
        assert 0.32 < (await host.call("agent_list"))["today_usd"] < 0.34
        running = await host.start("three", emulate={"end": "never"}, options=DOLLAR)
        assert "2.33 USD" in await host.refused("agent_start", prompt="four", options=DOLLAR)
        await host.call("agent_cancel", job_id=running["job_id"])
        assert "2.33 USD" in await host.refused("agent_start", prompt="four", options=DOLLAR), "its cost is not known"
        assert (await host.call("agent_start", prompt="four", options={"max_output_tokens": 50_000}))["job_id"]
    assert first in {run["metadata"]["job_id"] for run in runs(upstream)}


async def test_unsent_job_returns_its_reservation(priced: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(priced, daily_budget_usd=1.1, base_url="http://127.0.0.1:9/v1")) as host:
        first = await host.start(options=DOLLAR)
        assert "budget" in await host.refused("agent_start", prompt="second", options=DOLLAR)
        await host.call("agent_cancel", job_id=first["job_id"])
        assert (await host.start("second", options=DOLLAR))["status"] == "pending"


async def test_budget_is_full_again_at_midnight_utc(priced: Settings) -> None:
    now = Now()
    now.pass_s(find_day_start(now()) + DAY_S / 2 - now())  # noon
    async with hosting(replace(priced, daily_budget_usd=1.1), clock=now.clock()) as host:
        await complete_job(host, "morning", options={**DOLLAR, "metadata": {"emulate": '{"usage": null}'}})
        now.pass_s(DAY_S / 2 - 3600)
        assert "budget" in await host.refused("agent_start", prompt="late", options=DOLLAR)
        now.pass_s(2 * 3600)
        assert "today_usd" not in await host.call("agent_list")
        assert (await host.start("next day", options=DOLLAR))["job_id"]


@pytest.mark.parametrize(
    ("asked", "more", "hint"),
    [
        (
            "a budget",
            {"model": "gpt-6-sol"},
            "'gpt-6-sol' costs in the default tier. Ask the user to add it to the price table of AGENT",
        ),
        (
            "max_cost_usd",
            {"model": "gpt-6-sol"},
            "'gpt-6-sol' costs in the default tier. Ask the user to add it to the price table of",
        ),
        ("a budget", SCALE, "in the scale tier. Ask the user to add it to the price table of"),
        ("max_cost_usd", SCALE, "in the scale tier. Ask the user to add it to the price table of"),
        ("max_cost_usd", {"options": {}}, "Set options.max_output_tokens"),
        ("max_cost_usd", {"web_search": True}, "Set options.max_tool_calls"),
    ],
    ids=["budget, model", "limit, model", "budget, tier", "limit, tier", "limit, output", "limit, searches"],
)
async def test_start_without_a_cost_bound_is_refused_with_the_setting_to_change(
    priced: Settings, upstream: RunningServer, asked: str, more: dict[str, Any], hint: str
) -> None:
    options = more.get("options", DOLLAR) | ({} if asked == "a budget" else {"max_cost_usd": 50})
    async with hosting(replace(priced, daily_budget_usd=50) if asked == "a budget" else priced) as host:
        assert hint in await host.refused("agent_start", **{"prompt": "x", **more, "options": options})
    assert creates(upstream) == 0


async def test_batch_is_started_in_full_or_not_at_all(priced: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(priced, daily_budget_usd=2.1)) as host:
        prompts = [script_prompt(f"part {n}", {"duration_s": 0.5}) for n in range(3)]
        assert "budget" in await host.refused("agent_start", prompts=prompts, options=DOLLAR)
        assert (await host.call("agent_list"))["jobs"] == []
        assert creates(upstream) == 0
        started = await host.call("agent_start", prompts=prompts[:2], options=DOLLAR)
        assert len(await poll_until_done(host, batch=started["batch"])) == 2


async def test_repeated_start_uses_no_more_of_the_budget(priced: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(priced, daily_budget_usd=1.1)) as host:
        first = await host.start("same", emulate={"end": "never"}, options=DOLLAR)
        again = await host.start("same", emulate={"end": "never"}, options=DOLLAR)
    assert again["job_id"] == first["job_id"]


async def test_follow_up_with_its_history_fits_a_budget(priced: Settings, upstream: RunningServer) -> None:
    searching = {**DOLLAR, "max_tool_calls": 3, "include": ["reasoning.encrypted_content"]}
    async with hosting(replace(priced, daily_budget_usd=20)) as host:
        first = await complete_job(host, "one", web_search=True, options=searching)
    upstream.forget(response_id=get_response_of(upstream, first)["id"])
    async with hosting(replace(priced, daily_budget_usd=20, mode="foreground")) as host:
        second = await complete_job(host, "two", previous_job_id=first, options=searching)
        third = await complete_job(host, "three", previous_job_id=second, options=searching)
        assert (await host.end(third))["context"] == "rebuilt"


# The limit of one start, and dry runs.


async def test_start_over_its_cost_limit_is_refused(priced: Settings, upstream: RunningServer) -> None:
    async with hosting(priced) as host:
        sentence = await host.refused("agent_start", prompt="x", options={**DOLLAR, "max_cost_usd": 0.5})
        assert "up to 1.00 USD, over options.max_cost_usd" in sentence
        assert creates(upstream) == 0
        started = await host.start(emulate={"duration_s": 1}, options={**DOLLAR, "max_cost_usd": 1.5})
        assert (await host.end(started["job_id"]))["status"] == "completed"


async def test_dry_run_shows_the_bound_and_starts_nothing(priced: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(priced, daily_budget_usd=5)) as host:
        asked = {**DOLLAR, "dry_run": True}
        alone = await host.call("agent_start", prompt="x", options=asked)
        together = await host.call("agent_start", prompts=["x", "y"], options=asked)
        limited = await host.call("agent_start", prompt="x", options={"dry_run": True})
        listed = await host.call("agent_list")
    assert 1.0 < alone["cost_bound_usd"] < 1.01
    assert together["cost_bound_usd"] == pytest.approx(2 * alone["cost_bound_usd"])
    assert together["jobs"] == 2
    assert alone["bound_parts"].endswith("output 1.00 USD (up to 100,000 tokens)")
    assert 0 < limited["cost_bound_usd"] <= 0.5
    assert listed == {"jobs": [], "counts": {}}
    assert upstream.emulator.log() == []


# Limits that a budget adds where the caller sets none.


@pytest.mark.parametrize(
    ("budget_usd", "arguments"),
    [
        (20, {}),
        (1, {}),
        (0.1, {}),
        (20, {"preset": "deep_research"}),
        (20, {"preset": "think"}),
        (5, {"preset": "review"}),
        (1, {"preset": "quick"}),
        (20, {"web_search": True}),
        (20, {"web_search": True, "options": {"max_output_tokens": 50_000}}),
        (20, {"preset": "deep_research", "model": "gpt-6-sol"}),
    ],
)
async def test_budget_adds_limits_to_ordinary_work(
    priced: Settings, upstream: RunningServer, budget_usd: float, arguments: dict[str, Any]
) -> None:
    # Without the user's own price of gpt-6-sol, the emulator's host has none.
    table = priced.prices
    assert table is not None
    table.write_text(PRICES.replace("tokens = 20_000\n", "") + PRICES.split("[tools")[0].replace("6.1-sol", "6-sol"))
    async with hosting(replace(priced, daily_budget_usd=budget_usd)) as host:
        asked = {"prompt": "hi", **arguments}
        options = {**arguments.get("options", {}), "dry_run": True}
        estimate = await host.call("agent_start", **{**asked, "options": options})
        started = await host.call("agent_start", **asked)
        listed = await host.call("agent_list")
    assert 0 < estimate["cost_bound_usd"] <= budget_usd
    assert "input" in estimate["bound_parts"]
    assert "output" in estimate["bound_parts"]
    assert listed["today_usd"] <= budget_usd
    body = get_response_of(upstream, started["job_id"])
    assert body["max_output_tokens"] == arguments.get("options", {}).get("max_output_tokens", body["max_output_tokens"])
    assert ("web_search" in str(body.get("tools"))) == bool(body.get("max_tool_calls"))


async def test_limits_of_a_budget_do_not_change_the_identity_of_a_prompt(
    priced: Settings, upstream: RunningServer
) -> None:
    async with hosting(priced) as host:
        first = await host.start("same", emulate={"end": "never"})
    async with hosting(replace(priced, daily_budget_usd=20)) as host:
        second = await host.start("same", emulate={"end": "never"})
    assert second["job_id"] == first["job_id"]
    assert creates(upstream) == 1


async def test_refusal_lists_the_parts_of_the_bound(priced: Settings) -> None:
    async with hosting(replace(priced, daily_budget_usd=0.5)) as host:
        refusal = await host.refused("agent_start", prompt="x", options=DOLLAR)
        assert "output 1.00 USD (up to 100,000 tokens)" in refusal
        searching = {**DOLLAR, "max_tool_calls": 3}
        refusal = await host.refused("agent_start", prompt="x", web_search=True, options=searching)
        assert "4 readings of" in refusal
        assert "calls 0.03 USD" in refusal
        refusal = await host.refused("agent_start", prompt="x", options={**DOLLAR, "max_cost_usd": 0.2})
        assert "output 1.00 USD (up to 100,000 tokens)" in refusal


async def test_budget_of_spent_money_refuses_once_it_is_spent(priced: Settings, upstream: RunningServer) -> None:
    counted = replace(priced, daily_budget_usd=USD * 1.5, budget_mode="spent")
    async with hosting(counted) as host:
        running = await host.start("running", emulate={"end": "never"}, preset="deep_research")
        assert "max_output_tokens" not in {
            k for k, v in get_response_of(upstream, running["job_id"]).items() if v is not None
        }
        for prompt in ("one", "two"):
            started = await host.start(prompt, emulate={"duration_s": 1, "usage": USAGE})
            await host.end(started["job_id"])
        refusal = await host.refused("agent_start", prompt="three")
    assert f"is spent ({USD * 2:.2f} USD)" in refusal
    assert "AGENT_JOBS_DAILY_BUDGET_USD" in refusal


# Usage that can be read only in part.

#: A usage with a missing or renamed count, and the counts that are known of it.
PARTLY: dict[str, tuple[Any, dict[str, int] | None]] = {
    "null": ({**USAGE, "output_tokens": None}, {"input_tokens": 100_000}),
    "negative": ({**USAGE, "input_tokens": -1}, {"output_tokens": 20_000}),
    "a text": ({**USAGE, "output_tokens": "20000"}, {"input_tokens": 100_000}),
    "a flag": ({**USAGE, "output_tokens": True}, {"input_tokens": 100_000}),
    "no such name": ({"input_tokens": 100_000}, {"input_tokens": 100_000}),
    "only a total": ({"total_tokens": 120_000}, {}),
    "old names, one null": ({"prompt_tokens": 100_000, "completion_tokens": None}, {"input_tokens": 100_000}),
    "nothing": ({}, None),
    "not an object": ([1], None),
}


async def complete_with_usage(
    host: Host, upstream: RunningServer, usage: object, *, prompt: str = "one", **more: Any
) -> str:
    """Complete a job with this usage, and return it."""
    started = await host.start(prompt, emulate={"end": "never", "reasoning": 0}, **more)
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]}
    ended = get_response_of(upstream, started["job_id"]) | {"status": "completed", "usage": usage, "output": [message]}
    upstream.queue_fault(on="retrieve", status=200, body=ended)
    assert (await host.end(started["job_id"]))["status"] == "completed"
    return started["job_id"]


@pytest.mark.parametrize("name", PARTLY)
async def test_partly_unknown_usage_keeps_its_reservation_and_has_no_cost(
    priced: Settings, upstream: RunningServer, name: str
) -> None:
    usage, known = PARTLY[name]
    async with hosting(replace(priced, follow=0, daily_budget_usd=1.1)) as host:
        job_id = await complete_with_usage(host, upstream, usage, options=DOLLAR)
        listed = await host.call("agent_list")
        shown = {} if known is None else await read_usage(host, job_id)
        assert "2.00 USD" in await host.refused("agent_start", prompt="two", options=DOLLAR)
    assert costs_of(listed) == {job_id: None}
    assert listed["today_usd"] == pytest.approx(1.0, abs=0.01)
    partly = {count: value for count, value in shown.items() if count != "cached_tokens"}
    assert partly == ({} if known is None else {**known, "partial": True})


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 100_000, "prompt_tokens_details": {"cached_tokens": 40_000}, "completion_tokens": 20_000},
        {**USAGE, "prompt_tokens": 0, "completion_tokens": 0},
        {
            "input_tokens": 0, "output_tokens": 0, "prompt_tokens": 100_000, "completion_tokens": 20_000,
            "prompt_tokens_details": {"cached_tokens": 40_000},
        },
        {**USAGE, "output_tokens_details": None},
        {**USAGE, "total_tokens": None},
    ],
    ids=["old names", "old names empty", "new names empty", "no details", "no total"],
)  # fmt: skip
async def test_usage_is_read_by_the_names_of_chat_completions_too(
    priced: Settings, upstream: RunningServer, usage: dict[str, Any]
) -> None:
    async with hosting(replace(priced, follow=0)) as host:
        job_id = await complete_with_usage(host, upstream, usage)
        assert costs_of(await host.call("agent_list")) == {job_id: USD}


async def test_completed_response_without_input_tokens_has_no_cost(priced: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(priced, follow=0)) as host:
        job_id = await complete_with_usage(host, upstream, {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0})
        assert costs_of(await host.call("agent_list")) == {job_id: None}


async def test_follow_up_of_a_partly_counted_job_has_no_bound(priced: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(priced, follow=0, daily_budget_usd=10)) as host:
        before = await complete_with_usage(host, upstream, {**USAGE, "input_tokens": None}, options=DOLLAR)
        refusal = await host.refused("agent_start", prompt="two", previous_job_id=before, options=DOLLAR)
    assert "tokens of the previous job is not known" in refusal


@pytest.mark.parametrize(("model", "refused"), [("small", True), ("other", False)])
async def test_prompt_over_the_model_s_context_is_not_sent(
    priced: Settings, upstream: RunningServer, model: str, refused: bool
) -> None:
    assert priced.prices is not None
    priced.prices.write_text(PRICES.replace("gpt-6.1-sol", "small").replace("400_000", "10_000"))
    async with hosting(priced) as host:
        if refused:
            refusal = await host.refused("agent_start", prompt="x" * 90_000, model=model)
            assert "at least 11,250 tokens" in refusal
            assert "10,000" in refusal
        else:
            await host.call("agent_start", prompt="x" * 90_000, model=model)
    assert creates(upstream) == (0 if refused else 1)
