"""Repeated, simultaneous and interrupted starts: one job for each request, and each result delivered once."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hosts import SPEED, Host, hosting, read, script_prompt
from mcp_types import Implementation
from processes import Server, answer_of
from test_costs import run_servers
from test_tools import creates, list_statuses, runs

from agent_jobs.clock import Clock
from agent_jobs.emulator.server import RunningServer
from agent_jobs.engine.engine import Engine, NoUpstream
from agent_jobs.errors import ConfigError
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.mcp_server import tools
from agent_jobs.request.start_request import StartRequest
from agent_jobs.settings.settings import Settings
from agent_jobs.store import open_store

ENDLESS = {"end": "never"}


def list_undelivered(listed: dict[str, Any]) -> set[str]:
    return {row["job_id"] for row in listed["jobs"] if row.get("undelivered")}


# Duplicates over several processes.


@pytest.mark.parametrize("key", [False, True], ids=["one request", "one key"])
def test_twenty_equal_starts_over_two_servers_are_one_job(
    settings: Settings, upstream: RunningServer, key: bool
) -> None:
    with run_servers(settings, upstream, 2) as both:
        asked: list[tuple[Server, int]] = []
        for number in range(20):
            prompt = script_prompt(f"same, said {number} times" if key else "same", ENDLESS)
            arguments = {"prompt": prompt, "wait_s": 0, "options": {"key": "monday"} if key else {}}
            one = both[number % 2]
            asked.append((one, one.send("tools/call", {"name": "agent_start", "arguments": arguments})))
        answers = [answer_of(one.answer(number)) for one, number in asked]
    assert len({answer["job_id"] for answer in answers}) == 1
    assert [answer.get("duplicate") for answer in answers].count(None) == 1
    assert creates(upstream) == 1


def test_batch_of_ten_equal_prompts_at_two_servers_is_ten_jobs(settings: Settings, upstream: RunningServer) -> None:
    with run_servers(settings, upstream, 2, AGENT_JOBS_MAX_CONCURRENT="20") as both:
        arguments = {"prompts": [script_prompt("roll a die", ENDLESS)] * 10}
        asked = [(one, one.send("tools/call", {"name": "agent_start", "arguments": arguments})) for one in both]
        answers = [answer_of(one.answer(number)) for one, number in asked]
    assert set(answers[0]["job_ids"]) == set(answers[1]["job_ids"])
    assert sorted(answer.get("duplicates", 0) for answer in answers) == [0, 10]
    assert creates(upstream) == 10


async def test_waiting_jobs_go_by_priority_over_all_servers(settings: Settings, upstream: RunningServer) -> None:
    one_at_once = replace(settings, max_concurrent=1)
    async with hosting(one_at_once) as one, hosting(one_at_once) as other:
        first = await one.start(emulate=ENDLESS)
        normal = await one.start(emulate={"duration_s": 1})
        high = await other.start(emulate={"duration_s": 1}, priority="high")
        await one.call("agent_cancel", job_id=first["job_id"])
        for waiting in (high, normal):
            await one.end(waiting["job_id"])
    order = [run["metadata"]["job_id"] for run in runs(upstream)]
    assert order == [first["job_id"], high["job_id"], normal["job_id"]]


# Delivery.


def test_poll_cancelled_as_the_job_ends_delivers_only_if_it_was_answered(
    settings: Settings, upstream: RunningServer
) -> None:
    with run_servers(settings, upstream, 1) as [one]:
        for number in range(12):
            started = one.call("agent_start", prompt=script_prompt(f"work {number}", {"duration_s": 5}), wait_s=0)
            poll = one.send("tools/call", {"name": "agent_poll", "arguments": {"job_id": started["job_id"]}})
            while list_statuses(upstream)[number:] != ["completed"]:
                time.sleep(0.001)  # the emulator's thread needs this one's core
            for _ in range(number):  # a round trip later each time
                one.request("ping")
            one.notify("notifications/cancelled", {"requestId": poll})
            listed = one.call("agent_list")
            while listed["counts"].get("completed") != number + 1:
                listed = one.call("agent_list")
            # On a busy machine the wait of the poll may be over before the job.
            is_told = one.answered(poll) and answer_of(one.answer(poll))["status"] == "completed"
            # A delivery is recorded after the answer was sent.
            while is_told and started["job_id"] in list_undelivered(listed):
                listed = one.call("agent_list")
            assert (started["job_id"] in list_undelivered(listed)) == (not is_told)


async def test_result_of_a_cancelled_poll_is_delivered_to_the_next_start(
    settings: Settings, upstream: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    same: dict[str, Any] = {"prompt": "same", "emulate": {"duration_s": 2, "text": "paid once"}}
    async with hosting(settings) as host:
        first = await host.start(**same)
        with anyio.CancelScope() as scope:
            engine = await host.app.engine()
            poll = engine.poll

            async def cancelled_at_the_end(job_id: str, **more: Any) -> Any:
                job = await poll(job_id, **more)
                assert job.is_terminal
                scope.cancel()
                await anyio.sleep_forever()

            monkeypatch.setattr(engine, "poll", cancelled_at_the_end)
            await host.call("agent_poll", job_id=first["job_id"])
        monkeypatch.undo()
        assert list_undelivered(await host.call("agent_list")) == {first["job_id"]}
        again = await host.start(**same)
        assert (again["job_id"], again["output"], again["duplicate"]) == (first["job_id"], "paid once", True)
        await eventually_delivered(host)
        assert (await host.start(**same))["job_id"] != first["job_id"]
    assert creates(upstream) == 2


async def eventually_delivered(host: Host) -> None:
    with anyio.fail_after(60):
        while list_undelivered(await host.call("agent_list")):
            pass


def test_result_of_a_closed_host_is_delivered_to_the_next(settings: Settings, upstream: RunningServer) -> None:
    same = {"prompt": script_prompt("same", {"duration_s": 10, "text": "paid once"}), "wait_s": 0}
    with run_servers(settings, upstream, 1) as [one]:
        first = one.call("agent_start", **same)
        one.send("tools/call", {"name": "agent_poll", "arguments": {"job_id": first["job_id"]}})
        one.end()
    with run_servers(settings, upstream, 1) as [one]:
        while one.call("agent_list")["counts"] != {"completed": 1}:
            pass
        again = one.call("agent_start", **same)
    assert (again["job_id"], again["output"]) == (first["job_id"], "paid once")
    assert creates(upstream) == 1


# Time limits and waits.


async def test_job_ends_at_its_own_deadline_and_the_others_continue(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        going_on = await host.start(emulate={"duration_s": 30, "text": "in time"})
        ended = await host.end((await host.start(emulate=ENDLESS, options={"timeout_s": 6}))["job_id"])
        assert ended["error"]["code"] == "deadline_exceeded"
        assert (await host.end(going_on["job_id"]))["output"] == "in time"
    assert upstream.emulator.counters()["cancels"] == 1


async def test_job_may_run_longer_than_the_others(settings: Settings) -> None:
    async with hosting(replace(settings, job_timeout_s=4)) as host:
        started = await host.start(emulate={"duration_s": 15, "text": "late"}, options={"timeout_s": 60})
        assert (await host.end(started["job_id"]))["output"] == "late"


@dataclass(frozen=True, slots=True)
class Impatient(Clock):
    """A clock that records the requested wait, and waits a second."""

    asked_s: list[float] = field(default_factory=list[float])

    def limit(self, seconds: float) -> anyio.CancelScope:
        if seconds != float("inf"):  # what has no limit stands within one
            self.asked_s.append(seconds)
        return Clock.limit(self, min(seconds, 1.0))


@pytest.mark.parametrize(
    ("client", "cap_s"),
    [("claude-code", 1500), ("codex-mcp-client", 240), ("qwen-cli-mcp-client-x", 540), ("mcp", 25), ("cursor", 45)],
)
async def test_call_waits_no_longer_than_its_client(settings: Settings, client: str, cap_s: float) -> None:
    clock = Impatient(SPEED)
    polled = replace(settings, follow=0)
    async with hosting(polled, clock=clock, client_info=Implementation(name=client, version="1")) as host:
        started = await host.start(emulate=ENDLESS, wait_s=10_000)
        assert started["next"].startswith(f"agent_poll job_id={started['job_id']}")
        assert cap_s - 5 < max(clock.asked_s) <= cap_s
        clock.asked_s.clear()
        assert "next_poll_ms" in await host.call("agent_poll", job_id=started["job_id"])
        assert max(clock.asked_s) == cap_s
        clock.asked_s.clear()
        assert "next_poll_ms" in await host.call("agent_poll", wait_s=10_000)
        assert max(clock.asked_s) == cap_s
        await host.call("agent_cancel", job_id=started["job_id"])


async def test_longest_waiting_start_returns_the_job_id_and_reports_progress(
    settings: Settings, upstream: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "PROGRESS_S", 0.2)
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with hosting(settings, client_info=Implementation(name="cursor", version="1")) as host:
        arguments = {"prompt": script_prompt("long work", ENDLESS), "wait_s": 45}
        result = await host.client.call_tool("agent_start", arguments, progress_callback=hear)
        assert not result.is_error
        answer = read(result)
        assert answer["status"] in ("queued", "in_progress")
        assert answer["elapsed_s"] >= 45
        await host.call("agent_cancel", job_id=answer["job_id"])
    assert len(heard) >= 2
    assert heard == sorted(heard)
    assert creates(upstream) == 1


async def test_process_that_cannot_send_shows_what_is_stored_and_says_why_it_sends_nothing(tmp_path: Path) -> None:
    missing = ConfigError("There is no API key.", "no_key")
    async with open_store(tmp_path / "jobs.db") as store, anyio.create_task_group() as tasks:
        whole = Engine(store, NoUpstream(missing), Clock(), tasks, {})
        for engine in (whole, whole.for_owner("alice")):
            assert (engine.base_url, await engine.read_budget()) == (None, None)
            assert (engine.is_deciding("job_1"), engine.follow_text("job_1").text) == (False, "")
            assert not engine.feed.can_send
            assert (await engine.find(JobFilter(), 1)).warnings == ()
            with pytest.raises(ConfigError) as refusal:
                await engine.start(StartRequest(prompts=["x"]))
            assert refusal.value is missing
