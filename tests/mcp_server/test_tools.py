"""The tools, through a real MCP client, over the emulated upstream."""

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from hosts import SPEED, eventually, hosting, script_prompt
from upstream_log import creates, list_statuses, runs, size

from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.errors import RequestError
from agent_jobs.jobs.queries import GATHERED_MAX
from agent_jobs.mcp_server import tools
from agent_jobs.settings.settings import Settings
from agent_jobs.store import open_store
from agent_jobs.text import compact_json


async def test_start_returns_an_id_and_polls_return_the_full_output(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 5, "length": 3000})
        assert started["status"] == "queued"
        assert started["response_id"].startswith("resp_")
        assert started["next"] == f"agent_poll job_id={started['job_id']}"
        answer = await host.end(started["job_id"])
    assert answer == {"job_id": started["job_id"], "status": "completed", "output": answer["output"]}
    assert len(answer["output"]) == 3000
    assert creates(upstream) == 1


async def test_quick_job_is_answered_by_its_start(settings: Settings) -> None:
    async with hosting(settings) as host:
        answer = await host.start(emulate={"duration_s": 0.5, "text": "42"}, wait_s=20)
    assert answer["status"] == "completed"
    assert answer["output"] == "42"


async def test_wait_that_runs_out_is_no_error_and_stops_nothing(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 60})
        answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=3)
        assert answer["status"] == "in_progress"
        assert answer["elapsed_s"] >= 3
        await host.call("agent_cancel", job_id=started["job_id"])


async def test_cancel_reaches_upstream_and_returns_its_answer(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"})
        answer = await host.call("agent_cancel", job_id=started["job_id"])
        assert answer["status"] == "cancelled"
        again = await host.call("agent_cancel", job_id=started["job_id"])
    assert again["status"] == "cancelled"
    assert upstream.emulator.counters()["cancels"] == 1


@pytest.mark.parametrize("cancel_status", [200, 400, 409])
async def test_late_cancel_shows_the_result_for_every_answer_of_upstream(
    settings: Settings, upstream: RunningServer, cancel_status: int
) -> None:
    script = {"duration_s": 0.1, "text": "done before", "faults": [{"cancel_status": cancel_status}]}
    async with hosting(replace(settings, follow=0), speed=0.2) as host:  # so slow that no look sees the end first
        started = await host.start(emulate=script)
        await eventually(lambda: list_statuses(upstream) == ["completed"])
        answer = await host.call("agent_cancel", job_id=started["job_id"])
    assert answer["output"] == "done before"
    assert upstream.emulator.counters()["cancels"] == 1


async def test_failure_has_its_reason_and_the_next_step(settings: Settings) -> None:
    script = {"duration_s": 1, "end": "failed", "error_code": "server_error", "error_message": "It broke."}
    async with hosting(settings) as host:
        answer = await host.end((await host.start(emulate=script))["job_id"])
    assert answer["error"] == {"code": "server_error", "message": "It broke.", "retryable": True}
    assert answer["next"] == "agent_start again in 60 s"


async def test_output_cut_by_upstream_is_shown_with_its_reason(settings: Settings) -> None:
    async with hosting(settings) as host:
        answer = await host.end((await host.start(emulate={"duration_s": 1, "end": "incomplete"}))["job_id"])
    assert answer["status"] == "incomplete"
    assert answer["error"]["code"] == "max_output_tokens"
    assert "max_output_tokens" in answer["next"]
    assert answer["output"]


async def test_refusal_is_output(settings: Settings) -> None:
    async with hosting(settings) as host:
        answer = await host.end((await host.start(emulate={"duration_s": 1, "end": "refusal"}))["job_id"])
    assert answer["status"] == "completed"
    assert answer["output"]


async def test_only_the_final_answer_is_shown_where_phases_are_marked(settings: Settings) -> None:
    script = {"duration_s": 1, "phase": True, "text": "The answer."}
    async with hosting(settings) as host:
        answer = await host.end((await host.start(emulate=script))["job_id"])
    assert answer["output"] == "The answer."


@pytest.mark.parametrize("length", [61_000, 300_000])
async def test_pages_of_a_long_output_put_together_are_the_output(
    settings: Settings, upstream: RunningServer, length: int
) -> None:
    async with hosting(settings) as host:
        answer = await host.end((await host.start(emulate={"duration_s": 1, "length": length}))["job_id"])
        pages = [answer["output"]]
        assert answer["bytes"] > len(pages[0].encode())
        while "next" in answer:
            tool, job, offset = answer["next"].split()
            answer = await host.call(tool, job_id=job.partition("=")[2], offset=int(offset.partition("=")[2]))
            assert len(compact_json(answer["output"]).encode()) <= 24 * 1024
            pages.append(answer["output"])
    assert len("".join(pages)) == length


async def test_empty_output_is_an_output(settings: Settings) -> None:
    async with hosting(settings) as host:
        answer = await host.end((await host.start(emulate={"duration_s": 1, "text": ""}))["job_id"])
    assert answer["status"] == "completed"
    assert answer["output"] == ""


async def test_running_job_has_no_result_yet(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"})
        assert "agent_poll" in await host.refused("agent_result", job_id=started["job_id"])
        await host.call("agent_cancel", job_id=started["job_id"])


async def test_every_answer_and_the_tool_list_keep_their_sizes(settings: Settings) -> None:
    async with hosting(settings) as host:
        tools = {tool.name: tool for tool in (await host.client.list_tools()).tools}
        listed = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools.values()]
        assert set(tools) == {"agent_start", "agent_poll", "agent_result", "agent_list", "agent_reply", "agent_cancel"}
        assert len(compact_json(listed).encode()) <= 4000
        assert host.client.instructions is not None
        assert len(host.client.instructions) <= 800
        started = await host.start(emulate={"end": "never", "searches": 12}, options={"instructions": "x" * 1000})
        assert size(started) <= 240
        running_answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=5)
        assert size(running_answer) <= 200
        await host.call("agent_cancel", job_id=started["job_id"])


async def test_tool_list_has_no_superfluous_fields(settings: Settings) -> None:
    async with hosting(settings) as host:
        listed = (await host.client.list_tools()).model_dump_json(by_alias=True, exclude_none=True)
    assert not any(noise in listed for noise in ('"title"', "anyOf", "outputSchema", '"null"'))


async def test_poll_that_comes_too_early_waits_for_its_hint(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 0.5, "text": "quick"})
        answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=0)
    assert answer["status"] == "completed", "held for up to next_poll_ms, which is longer than this job"


async def test_six_empty_waits_in_a_row_advise_the_model_to_leave(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"})
        answers = [await host.call("agent_poll", job_id=started["job_id"], wait_s=1) for _ in range(12)]
        assert [number for number, answer in enumerate(answers, 1) if "advice" in answer] == [6, 12]
        assert "job_id" in answers[5]["advice"]
        assert size(answers[5]) <= 400
        await host.call("agent_cancel", job_id=started["job_id"])


async def test_host_with_a_progress_token_gets_progress_while_it_waits(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "PROGRESS_S", 0.02)
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"})
        await host.client.call_tool("agent_poll", {"job_id": started["job_id"], "wait_s": 3}, progress_callback=hear)
        await host.call("agent_cancel", job_id=started["job_id"])
    assert heard == sorted(heard)
    assert len(heard) >= 2


# Answers of upstream to the POST.


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "body": {"error": {"code": "rate_limit_exceeded"}}, "headers": {"retry-after": "1"}},
        {"status": 503, "body": {"error": {"code": "server_is_overloaded", "message": "busy"}}},
    ],
    ids=["rate limit", "overloaded"],
)
async def test_request_that_upstream_did_not_accept_is_sent_again(
    settings: Settings, upstream: RunningServer, fault: dict[str, Any]
) -> None:
    upstream.queue_fault(on="create", **fault)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "at last"})
        assert started["status"] == "pending"
        assert "trying again" in started["activity"]
        answer = await host.end(started["job_id"])
    assert answer["output"] == "at last"
    assert list(upstream.emulator.counters()["creates_by_request_id"].values()) == [2]


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "after_accept": True},
        {"status": 500, "after_accept": True, "body": {"error": {"message": "Please try again in 5 seconds."}}},
        {"status": 502, "after_accept": True, "body": "<html>bad gateway</html>", "content_type": "text/html"},
        {"status": 503, "after_accept": True, "body": "<html>unavailable</html>", "content_type": "text/html"},
        {"drop": "after_accept"},
        {"drop": "before_created"},
        {"status": 200, "after_accept": True, "body": "<html>welcome</html>", "content_type": "text/html"},
        {"status": 200, "after_accept": True, "body": {"bad": 1}},
    ],
    ids=["500", "500, try again", "502 HTML", "503 HTML", "reset", "reset after headers", "HTML", "no response object"],
)
async def test_unconfirmed_start_is_not_sent_again_and_its_result_can_be_adopted(
    settings: Settings, upstream: RunningServer, fault: dict[str, Any]
) -> None:
    upstream.queue_fault(on="create", **fault)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "paid for"}, wait_s=5)
        assert started["status"] == "failed"
        assert started["error"]["code"] == "start_unconfirmed"
        assert "retryable" not in started["error"]
        assert started["job_id"] in started["next"]
        [run] = runs(upstream)
        engine = await host.app.engine()
        await engine.adopt(started["job_id"], run["id"])
        answer = await host.end(started["job_id"])
    assert answer["output"] == "paid for"
    assert creates(upstream) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"json_instead_of_stream": True},
        {"complete_at_once": True, "json_instead_of_stream": True},
        {"ignore_background": True},
        {"keepalives": 3, "delay_created_s": 9},
        {"no_event_lines": True},
        {"crlf": True, "comments": True},
        {"cr": True, "split_bytes": 7},
        {"bom": True, "no_event_lines": True},
        {"no_sequence_numbers": True, "unknown_events": True},
        {"missing_fields": True},
    ],
    ids=lambda fault: " ".join(fault),
)
async def test_job_completes_with_every_form_of_the_answer(
    settings: Settings, upstream: RunningServer, fault: dict[str, Any]
) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 3, "text": "in any form", "faults": [fault]})
        answer = await host.end(started["job_id"])
    assert answer["output"] == "in any form"
    assert creates(upstream) == 1


# Answers of upstream to a retrieval.


@pytest.mark.parametrize(
    "fault",
    [
        {"on": "retrieve", "status": 503, "body": "unavailable", "times": 3},
        {"on": "retrieve", "status": 500, "times": 3},
        {"on": "retrieve", "status": 429, "times": 2, "headers": {"retry-after": "1"}},
        {"on": "retrieve", "status": 401, "times": 2},
        {"on": "retrieve", "drop": "before_headers", "times": 2},
        {"on": "retrieve", "status": 404, "times": 3},
        {"on": "retrieve", "status": 200, "body": "<html></html>", "content_type": "text/html", "times": 2},
    ],
    ids=["503", "500", "429", "401", "reset", "404", "HTML"],
)
async def test_failed_retrieval_loses_no_result(
    settings: Settings, upstream: RunningServer, fault: dict[str, Any]
) -> None:
    upstream.queue_fault(**fault)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 2, "text": "still there"})
        answer = await host.end(started["job_id"])
    assert answer["output"] == "still there"


@pytest.mark.parametrize(
    "fault",
    [{"completed_empty": 2}, {"id_changes": True}, {"not_found_for_s": 20}, {"not_found_after_end_s": 20}],
    ids=lambda fault: " ".join(fault),
)
async def test_gateway_that_answers_oddly_loses_no_result(settings: Settings, fault: dict[str, Any]) -> None:
    script = {"duration_s": 2, "text": "the real one", "faults": [{"on": "any", **fault}]}
    async with hosting(settings) as host:
        answer = await host.end((await host.start(emulate=script))["job_id"])
    assert answer["output"] == "the real one"


async def test_response_that_upstream_deleted_expires(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="retrieve", status=404, times=-1)
    async with hosting(replace(settings, follow=0), speed=50) as host:
        answer = await host.end((await host.start(emulate={"duration_s": 2}))["job_id"])
    assert answer["status"] == "expired"
    assert answer["next"] == "agent_start again"


async def test_job_whose_upstream_is_down_waits_for_it(tmp_path: Path, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with hosting(replace(settings, base_url=f"http://127.0.0.1:{port}/v1")) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "worth the wait"})
        assert started["status"] == "pending"
        assert f"cannot connect to 127.0.0.1:{port}" in started["activity"]
        assert size(started) <= 240
        with run_emulator(port=port, time_scale=SPEED):
            answer = await host.end(started["job_id"])
    assert answer["output"] == "worth the wait"


async def test_pending_job_is_cancelled_without_upstream(settings: Settings) -> None:
    async with hosting(replace(settings, base_url="http://127.0.0.1:9/v1")) as host:
        started = await host.start()
        answer = await host.call("agent_cancel", job_id=started["job_id"])
    assert answer == {"job_id": started["job_id"], "status": "cancelled"}


async def test_cancel_before_the_id_is_sent_as_soon_as_there_is_one(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never", "faults": [{"delay_created_s": 8, "keepalives": 1}]})
        assert started["status"] == "starting"
        answer = await host.call("agent_cancel", job_id=started["job_id"])
        answer = answer if answer["status"] == "cancelled" else await host.end(started["job_id"])
    assert answer["status"] == "cancelled"
    assert upstream.emulator.counters()["cancels"] == 1


async def test_cancel_that_cannot_be_delivered_is_delivered_later(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="cancel", status=503, times=2)
    async with hosting(settings, speed=20) as host:
        started = await host.start(emulate={"end": "never"})
        await host.call("agent_cancel", job_id=started["job_id"])
        answer = await host.end(started["job_id"])
    assert answer["status"] == "cancelled"


# Hosts that disconnect, and processes that take over.


async def test_start_cancelled_by_the_host_during_a_post_keeps_its_response(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="create", delay_s=3 * SPEED)
    prompt = script_prompt("hi", {"duration_s": 1, "text": "kept"})
    async with hosting(settings) as host:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: host.call("agent_start", prompt=prompt, wait_s=30))
            await eventually(lambda: creates(upstream) == 1)
            tasks.cancel_scope.cancel()
        message = await host.refused("agent_poll", job_id="job_unknown")
        job_id = message.partition("The newest are ")[2].split()[0]
        answer = await host.end(job_id)
    assert answer["output"] == "kept"


async def test_next_process_collects_jobs_of_the_last_one(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 3, "text": "across processes"})
    async with hosting(settings) as other:
        answer = await other.end(started["job_id"])
    assert answer["output"] == "across processes"
    assert creates(upstream) == 1


async def test_poll_sees_changes_that_another_process_observes(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as one, hosting(settings) as other:
        started = await one.start(emulate={"duration_s": 3, "text": "seen by both"})
        answer = await other.end(started["job_id"])
        assert answer["output"] == "seen by both"
        cancelled = await one.start(emulate={"end": "never"})
        answer = await other.call("agent_cancel", job_id=cancelled["job_id"])
    assert answer["status"] == "cancelled"
    assert upstream.emulator.counters()["cancels"] == 1


async def test_id_is_adopted_once(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1})
        await host.end(started["job_id"])
        engine = await host.app.engine()
        with pytest.raises(RequestError, match="already has the response"):
            await engine.adopt(started["job_id"], "resp_another")


async def test_job_that_is_adopted_while_its_start_still_listens_keeps_its_response(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(replace(settings, start_timeout_s=1)) as host:
        silent = {"on": "create", "delay_created_s": 4_000}
        started = await host.start(emulate={"duration_s": 60, "text": "paid for", "faults": [silent]})
        assert started["status"] == "starting"
        [run] = runs(upstream)
        engine = await host.app.engine()
        await engine.adopt(started["job_id"], run["id"])
        began = engine.now()
        await eventually(lambda: engine.now() > began + 30)
        job = await engine.poll(started["job_id"])
        assert (job.is_terminal, job.turn.response_id) == (False, run["id"])
        await host.call("agent_cancel", job_id=job.id)


async def test_running_job_behind_a_thousand_finished_ones_is_polled_and_cancelled(
    settings: Settings, upstream: RunningServer
) -> None:
    assert settings.data_dir is not None
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"}, batch="night")
        async with open_store(settings.data_dir) as store:
            job = await store.get(started["job_id"])
            assert job is not None
            later = [
                replace(job, id=f"job_{n:012}", request_hash=str(n), created_at=job.created_at + 1 + n)
                for n in range(GATHERED_MAX)
            ]
            await store.add(*[replace(each, turn=replace(each.turn, response_id=None)) for each in later])
            for each in later:
                await store.save(each.mark_cancelled(each.created_at), held=False)
        polled = await host.call("agent_poll", batch="night", wait_s=0)
        assert polled["running"] == 1
        await host.call("agent_cancel", batch="night")
    assert list_statuses(upstream) == ["cancelled"]


async def test_response_of_another_job_is_not_adopted(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        other = await host.start("another question", emulate={"text": "for another"})
        await host.end(other["job_id"])
        upstream.queue_fault(on="create", status=500, after_accept=True)
        lost = await host.start("my question", wait_s=5)
        engine = await host.app.engine()
        with pytest.raises(RequestError, match=f"is the response of '{other['job_id']}'"):
            await engine.adopt(lost["job_id"], other["response_id"])
        [own] = [run["id"] for run in runs(upstream) if run["metadata"]["job_id"] == lost["job_id"]]
        await engine.adopt(lost["job_id"], own)
        assert (await host.end(lost["job_id"]))["status"] == "completed"


async def test_sent_request_is_the_one_of_the_caller(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        started = await host.start(
            "say it",
            model="gpt-6-luna",
            effort="high",
            web_search=True,
            options={"instructions": "Be brief.", "verbosity": "low", "metadata": {"team": "blue"}},
        )
    address = f"{settings.base_url}/responses/{started['response_id']}"
    sent = httpx2.get(address, headers={"Authorization": "Bearer test"}).json()
    assert sent["model"] == "gpt-6-luna"
    assert sent["reasoning"]["effort"] == "high"
    assert sent["metadata"] == {"team": "blue", "job_id": started["job_id"]}
    assert sent["store"] is True and sent["background"] is True
    assert sent["instructions"] == "Be brief."
