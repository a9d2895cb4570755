"""Several jobs at once: batches, polls of many, lists and cancels."""

from typing import Any

import anyio
from hosts import Host, hosting, script_prompt
from test_tools import creates, size

from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings


async def poll_until_done(host: Host, **group: Any) -> list[dict[str, Any]]:
    """Poll a group as its answers advise until no job runs; return the reports of each job."""
    done: list[dict[str, Any]] = []
    with anyio.fail_after(60):
        while True:
            answer = await host.call("agent_poll", **group)
            done += answer.get("done", [])
            if not answer.get("running") and not answer.get("more"):
                return done


async def test_batch_is_started_in_one_call_and_each_job_is_reported_once(
    settings: Settings, upstream: RunningServer
) -> None:
    prompts = [script_prompt(f"question {n}", {"duration_s": 1 + n}) for n in range(5)]
    async with hosting(settings) as host:
        started = await host.call("agent_start", prompts=prompts)
        assert started["jobs"] == 5
        assert size(started) <= 400
        done = await poll_until_done(host, batch=started["batch"])
        again = await host.call("agent_poll", batch=started["batch"])
    assert sorted(row["job_id"] for row in done) == sorted(started["job_ids"])
    assert again["running"] == 0
    assert again["delivered"] == 5
    assert "agent_list" in again["next"]
    assert creates(upstream) == 5


async def test_job_that_finishes_alone_comes_with_its_output(settings: Settings) -> None:
    prompts = [script_prompt("quick", {"duration_s": 1, "text": "42"}), script_prompt("endless", {"end": "never"})]
    async with hosting(settings) as host:
        started = await host.call("agent_start", prompts=prompts, batch="mine")
        answer = await host.call("agent_poll", batch="mine")
        assert [row["output"] for row in answer["done"]] == ["42"]
        assert answer["running"] == 1
        assert answer["next"] == "agent_poll batch=mine"
        waiting = await host.call("agent_poll", batch="mine", wait_s=0)
        assert "done" not in waiting
        assert waiting["next_poll_ms"] > 0
        assert size(waiting) <= 400
        stopped = await host.call("agent_cancel", batch="mine")
    assert stopped["counts"] == {"completed": 1, "cancelled": 1}
    assert len(started["job_ids"]) == 2


async def test_many_finished_jobs_are_listed_by_title_within_the_limit(settings: Settings) -> None:
    prompts = [script_prompt(f"{'a long question ' * 5}{n}", {"duration_s": 0.5}) for n in range(20)]
    async with hosting(settings) as host:
        started = await host.call("agent_start", prompts=prompts, wait_s=40)
        assert "job_ids" not in started, "twenty ids do not fit"
        assert size(started) <= 400
        reported: list[str] = []
        while len(reported) < 20:
            answer = await host.call("agent_poll", batch=started["batch"])
            assert size(answer) <= 400 or "output" in answer["done"][0]
            reported += [row["job_id"] for row in answer["done"]]
    assert len(set(reported)) == 20


async def test_same_prompt_ten_times_is_ten_jobs_and_a_repeated_call_returns_them(
    settings: Settings, upstream: RunningServer
) -> None:
    prompts = [script_prompt("roll a die", {"duration_s": 20})] * 10
    async with hosting(settings) as host:
        first = await host.call("agent_start", prompts=prompts)
        second = await host.call("agent_start", prompts=prompts)
        await host.call("agent_cancel", batch=first["batch"])
    assert second["job_ids"] == first["job_ids"]
    assert second["batch"] == first["batch"]
    assert second["duplicates"] == 10
    assert creates(upstream) == 10


async def test_poll_without_arguments_finds_active_and_unread_jobs(settings: Settings) -> None:
    async with hosting(settings) as host:
        one = await host.start(emulate={"duration_s": 1, "text": "one"})
        two = await host.start(emulate={"duration_s": 2, "text": "two"})
        outputs = {row["job_id"]: row for row in await poll_until_done(host)}
        nothing = await host.call("agent_poll")
    assert set(outputs) == {one["job_id"], two["job_id"]}
    assert nothing["running"] == 0


async def test_result_of_one_poll_is_not_reported_by_the_next(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "one"})
        assert (await host.end(started["job_id"]))["output"] == "one"
        assert "done" not in await host.call("agent_poll", wait_s=0)
        assert (await host.end(started["job_id"]))["output"] == "one", "a poll by its id returns it again"


async def test_jobs_of_several_starts_are_polled_together(settings: Settings) -> None:
    async with hosting(settings) as host:
        ids = [(await host.start(emulate={"duration_s": n}))["job_id"] for n in (1, 2)]
        done = await poll_until_done(host, job_ids=ids)
        assert sorted(row["job_id"] for row in done) == sorted(ids)
        await host.refused("agent_poll", job_ids=[*ids, "job_unknown"])


async def test_sixth_empty_wait_for_a_batch_brings_advice(settings: Settings) -> None:
    async with hosting(settings) as host:
        await host.call("agent_start", prompts=[script_prompt("a", {"end": "never"})], batch="b")
        answers = [await host.call("agent_poll", batch="b", wait_s=1) for _ in range(6)]
        assert all("advice" not in answer for answer in answers[:5])
        assert "poll when they ask" in answers[5]["advice"]
        assert size(answers[5]) <= 400
        await host.call("agent_cancel", batch="b")


async def test_list_finds_jobs_by_status_batch_and_words_newest_first(settings: Settings) -> None:
    async with hosting(settings) as host:
        first = await host.call("agent_start", prompt=script_prompt("tea in China", {"duration_s": 0.2}), wait_s=20)
        await host.call("agent_start", prompts=[script_prompt("tea in_Japan", {"end": "never"})], batch="asia")
        second = await host.call("agent_start", prompt=script_prompt("100% coffee", {"end": "never"}), wait_s=0)
        listed = await host.call("agent_list")
        assert [job["title"][:6] for job in listed["jobs"]] == ["100% c", "tea in", "tea in"]
        assert listed["counts"] == {"completed": 1, "in_progress": 2} or "queued" in listed["counts"]
        found = {
            name: [job["job_id"] for job in (await host.call("agent_list", **asked))["jobs"]]
            for name, asked in {
                "completed": {"status": "completed"},
                "words": {"query": "100%"},
                "wildcard": {"query": "in_"},
                "batch": {"batch": "asia"},
                "days": {"days": 1},
                "one": {"limit": 1},
            }.items()
        }
        open_jobs = await host.call("agent_list", status="open")
        for job in open_jobs["jobs"]:
            await host.call("agent_cancel", job_id=job["job_id"])
    assert found["completed"] == [first["job_id"]]
    assert found["words"] == [second["job_id"]]
    assert found["wildcard"] == found["batch"] != []
    assert len(found["days"]) == 3
    assert found["one"] == [second["job_id"]]
    assert len(open_jobs["jobs"]) == 2
    assert "today_usd" not in listed, "no price is known of this endpoint, and 0 would be one"
