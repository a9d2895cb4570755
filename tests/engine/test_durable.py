"""Limits, duplicates, deadlines, delivery modes, keys and retention."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import anyio
import httpx2
import pytest
from anyio import to_thread
from hosts import SPEED, Host, eventually, hosting, script_prompt
from processes import serving
from test_divergent_servers import Divergent

from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.request.models import load_models
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr
from agent_jobs.upstream import client

DAY_S = 86_400


def read_counters(upstream: RunningServer) -> dict[str, Any]:
    return upstream.emulator.counters()


def list_statuses(upstream: RunningServer) -> list[str]:
    return [entry["status"] for entry in upstream.emulator.log() if entry["entry"] == "response"]


# Duplicates.


async def test_same_work_is_not_started_twice_while_it_runs(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await host.start("same", emulate={"end": "never"})
        again = await host.start("same", emulate={"end": "never"})
        other = await host.start("same", emulate={"end": "never"}, options={"allow_duplicate": True})
        assert again["job_id"] == first["job_id"]
        assert again["duplicate"] is True
        assert other["job_id"] != first["job_id"]
        assert "duplicate" not in other
    assert read_counters(upstream)["creates"] == 2


async def test_twenty_starts_of_one_request_at_once_make_one_job(settings: Settings, upstream: RunningServer) -> None:
    answers: list[dict[str, Any]] = []

    async def start() -> None:
        answers.append(await host.start("same", emulate={"duration_s": 1, "text": "once"}))

    async with hosting(settings) as host:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(start)
        assert len({answer["job_id"] for answer in answers}) == 1
        assert (await host.end(answers[0]["job_id"]))["output"] == "once"
    assert read_counters(upstream)["creates"] == 1


async def test_unread_result_answers_an_identical_start_without_cost(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        first = await host.start("same", emulate={"duration_s": 1, "text": "paid once"})
        await eventually(lambda: list_statuses(upstream) == ["completed"])
        with anyio.fail_after(60):
            while "output" not in (again := await host.start("same", emulate={"duration_s": 1, "text": "paid once"})):
                pass
        assert again["job_id"] == first["job_id"]
        assert again["output"] == "paid once"
        assert read_counters(upstream)["creates"] == 1
        new = await host.start("same", emulate={"duration_s": 1, "text": "paid once"})
        assert new["job_id"] != first["job_id"], "its result was read, so the work is done again"


async def test_unconfirmed_start_answers_for_the_same_work(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="create", drop="after_accept")
    async with hosting(settings) as host:
        first = await host.start("same", emulate={"duration_s": 1}, wait_s=5)
        again = await host.start("same", emulate={"duration_s": 1}, wait_s=5)
    assert first["status"] == "failed"
    assert again["job_id"] == first["job_id"]
    assert "allow_duplicate" in again["next"]
    assert read_counters(upstream)["creates"] == 1


async def test_key_makes_one_job_for_any_request(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await host.start("one thing", emulate={"duration_s": 1}, options={"key": "monday"})
        await host.end(first["job_id"])
        again = await host.start("another", options={"key": "monday", "allow_duplicate": True})
        assert again["job_id"] == first["job_id"]
        assert "a string of 1 to 200 characters" in await host.refused(
            "agent_start", prompt="x", options={"key": "k" * 201}
        )
    assert read_counters(upstream)["creates"] == 1


# Slots.


async def test_jobs_over_the_limit_wait_by_priority_and_age(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(settings, max_concurrent=1)) as host:
        first = await host.start("first", emulate={"end": "never"})
        normal = await host.start("normal", emulate={"duration_s": 1})
        high = await host.start("high", emulate={"duration_s": 1}, priority="high")
        assert normal["status"] == "pending"
        assert high["activity"] == "waiting for a free slot, 0 ahead"
        answer = await host.call("agent_poll", job_id=normal["job_id"], wait_s=3)
        assert answer["activity"] == "waiting for a free slot, 1 ahead"
        assert read_counters(upstream)["creates"] == 1
        await host.call("agent_cancel", job_id=first["job_id"])
        for waiting in (high, normal):
            assert (await host.end(waiting["job_id"]))["status"] == "completed"
    created = [e["metadata"]["job_id"] for e in upstream.emulator.log() if e["entry"] == "response"]
    assert created == [first["job_id"], high["job_id"], normal["job_id"]]


async def test_limit_holds_over_two_servers(settings: Settings, upstream: RunningServer) -> None:
    limited = replace(settings, max_concurrent=2)
    async with hosting(limited) as one, hosting(limited) as other:
        started = [await host.start(emulate={"duration_s": 15}) for host in (one, other) * 3]
        assert [answer["status"] for answer in started].count("pending") == 4
        for answer in started:
            assert (await one.end(answer["job_id"]))["status"] == "completed"
    assert read_counters(upstream)["creates"] == 6


async def test_job_that_waits_for_a_slot_is_cancelled_at_once(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(settings, max_concurrent=1)) as host:
        await host.start(emulate={"end": "never"})
        waiting = await host.start()
        assert (await host.call("agent_cancel", job_id=waiting["job_id"]))["status"] == "cancelled"
    assert read_counters(upstream)["creates"] == 1


# Deadlines.


@pytest.mark.parametrize("follow", [0, 200])
async def test_run_past_its_limit_is_cancelled_and_keeps_its_text(
    settings: Settings, upstream: RunningServer, follow: int
) -> None:
    async with hosting(replace(settings, job_timeout_s=8, follow=follow)) as host:
        answer = await host.end((await host.start(emulate={"duration_s": 40, "length": 2000}))["job_id"])
    assert answer["status"] == "failed"
    assert answer["error"]["code"] == "deadline_exceeded"
    assert answer["output"].startswith("This is an emulated answer")
    assert list_statuses(upstream) == ["cancelled"]


async def test_run_that_finished_in_time_is_kept_even_if_seen_late(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="retrieve", status=503, times=16)
    # One poll waits for the end: on a fast clock, hundreds of short polls would slow down the job itself.
    async with hosting(replace(settings, job_timeout_s=60, follow=0, max_wait_s=3600), speed=100) as host:
        started = await host.start(emulate={"duration_s": 2, "text": "in time"})
        answer = await host.end(started["job_id"], wait_s=3600)
    assert answer["output"] == "in time"


async def test_run_that_cannot_be_polled_ends_a_day_after_its_limit(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="retrieve", status=503, times=-1)
    upstream.queue_fault(on="cancel", status=503, times=-1)
    async with hosting(replace(settings, job_timeout_s=5, follow=0, max_wait_s=3600), speed=20_000) as host:
        started = await host.start(emulate={"end": "never"})
        with anyio.fail_after(60):
            while "next_poll_ms" in (answer := await host.call("agent_poll", job_id=started["job_id"], wait_s=3600)):
                pass
    assert answer["error"]["code"] == "deadline_exceeded"


async def test_held_run_past_its_limit_is_closed_and_keeps_its_text(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(replace(settings, job_timeout_s=12, mode="foreground")) as host:
        started = await host.start(emulate={"duration_s": 20, "reasoning": 0, "length": 12_000})
        answer = await host.end(started["job_id"])
        [run] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
        await eventually(lambda: has_upstream_forgotten(settings, started["response_id"]))
    assert answer["error"]["code"] == "deadline_exceeded"
    assert answer["output"].startswith("This is an emulated answer")
    assert 2_000 < len(answer["output"]) < 12_000
    assert run["status"] != "completed"


async def test_silent_held_run_past_its_limit_ends_without_an_output(settings: Settings) -> None:
    async with hosting(replace(settings, job_timeout_s=5, mode="foreground")) as host:
        answer = await host.end((await host.start(emulate={"duration_s": 20_000, "reasoning": 0}))["job_id"])
    assert answer["error"]["code"] == "deadline_exceeded"
    assert "output" not in answer


# Delivery modes.


async def test_endpoint_that_refuses_streams_gets_requests_without(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="create", refuse_background_stream=True, times=-1)
    async with hosting(settings) as host:
        for text in ("learnt", "known"):
            started = await host.start(emulate={"duration_s": 1, "text": text}, wait_s=0)
            assert (await host.end(started["job_id"]))["output"] == text
    assert read_counters(upstream)["creates"] == 3, "one refusal is remembered"


async def test_run_at_an_endpoint_without_background_mode_is_held_open(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="create", refuse_background=True, times=2)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 6, "text": "held"})
        answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=3)
        assert answer["lasts"] == "while this server runs"
        assert (await host.end(started["job_id"]))["output"] == "held"


async def test_held_job_reports_that_its_server_ended(settings: Settings) -> None:
    held = replace(settings, mode="foreground")
    async with hosting(held) as host:
        started = await host.start(emulate={"duration_s": 60})
        assert started["lasts"] == "while this server runs"
    async with hosting(held) as host:
        answer = await host.end(started["job_id"])
    assert answer["error"]["code"] == "interrupted"
    assert answer["error"]["retryable"] is True


async def test_endpoint_that_ignores_background_is_detected_and_its_run_can_be_stopped(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never", "faults": [{"ignore_background": True}]})
        answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=3)
        assert answer["lasts"] == "while this server runs"
        answer = await host.call("agent_cancel", job_id=started["job_id"])
        assert answer["status"] == "cancelled"
        await eventually(lambda: has_upstream_forgotten(settings, started["response_id"]))


async def test_held_run_may_be_silent_for_long(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "STREAM_IDLE_S", 0.3)
    async with hosting(replace(settings, mode="foreground", start_timeout_s=1)) as host:
        started = await host.start(emulate={"duration_s": 20, "reasoning": 0, "text": "after a pause"})
        assert (await host.end(started["job_id"]))["output"] == "after a pause"


async def test_wait_that_upstream_asks_for_is_limited(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="retrieve", status=503, headers={"retry-after": "3600"})
    async with hosting(replace(settings, follow=0), speed=50) as host:
        started = await host.start(emulate={"duration_s": 2, "text": "still there"})
        assert (await host.end(started["job_id"]))["output"] == "still there"


@pytest.mark.parametrize("silent", [False, True], ids=["that writes", "silent"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["by its server", "by another server"])
async def test_held_job_is_cancelled_by_closing_its_connection(
    settings: Settings, upstream: RunningServer, elsewhere: bool, silent: bool
) -> None:
    held = replace(settings, mode="foreground")
    async with hosting(held) as host, hosting(held) as other:
        started = await host.start(emulate={"duration_s": 600, "reasoning": 0} if silent else {"duration_s": 60})
        asked = other if elsewhere else host
        answer = await asked.call("agent_cancel", job_id=started["job_id"])
        answer = answer if answer["status"] == "cancelled" else await asked.end(started["job_id"])
        assert answer["status"] == "cancelled"
        await eventually(lambda: has_upstream_forgotten(settings, started["response_id"]))


@pytest.mark.parametrize("fault", [{}, {"eof_without_terminal": True}], ids=["ended", "cut after its last item"])
async def test_end_of_a_held_run_is_stored_once_the_database_accepts_it(
    settings: Settings, upstream: RunningServer, caplog: pytest.LogCaptureFixture, fault: dict[str, Any]
) -> None:
    assert settings.data_dir is not None
    upstream.queue_fault(on="retrieve", status=404, times=-1)
    async with hosting(replace(settings, mode="foreground")) as host:
        started = await host.start(emulate={"duration_s": 60, "text": "told once", "faults": [fault] if fault else []})
        engine = await host.app.engine()
        while (await engine.poll(started["job_id"])).turn.response_id is None:
            pass  # its id is written down in another way
        database = sqlite3.connect(settings.data_dir / "jobs.db", isolation_level=None, check_same_thread=False)
        with closing(database) as other:
            await to_thread.run_sync(other.execute, "BEGIN IMMEDIATE")
            await eventually(lambda: "its end cannot be written" in caplog.text)
        assert (await host.end(started["job_id"]))["output"] == "told once"


async def test_delivery_mode_of_the_user_is_kept(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="create", refuse_background_stream=True, times=-1)
    async with hosting(replace(settings, mode="background_stream")) as host:
        answer = await host.start(wait_s=5)
    assert answer["status"] == "failed"
    assert read_counters(upstream)["creates"] == 1


def has_upstream_forgotten(settings: Settings, response_id: str) -> bool:
    """Return True if a held run is gone, as upstream deletes it when its connection closes."""
    address, key = f"{settings.base_url}/responses/{response_id}", {"Authorization": "Bearer test"}
    return httpx2.get(address, headers=key).status_code == 404


# Sending an unconfirmed start again.


async def test_setting_allows_an_unconfirmed_start_to_be_sent_once_more(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="create", drop="after_accept", times=-1, match="never again")
    upstream.queue_fault(on="create", drop="after_accept")
    async with hosting(replace(settings, resubmit="once")) as host:
        lucky = await host.start("try again", emulate={"duration_s": 1, "text": "at the second try"})
        assert (await host.end(lucky["job_id"]))["output"] == "at the second try"
        unlucky = await host.start("never again")
        assert (await host.end(unlucky["job_id"]))["error"]["code"] == "start_unconfirmed"
    assert sorted(read_counters(upstream)["creates_by_request_id"].values()) == [2, 2]


# Keys.


async def test_refused_key_pauses_new_work_for_a_while(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="create", status=401)
    async with hosting(settings) as host:
        assert (await host.start(wait_s=5))["status"] == "failed"
        assert "The provider refuses this key" in await host.refused("agent_start", prompt="at once")
        assert read_counters(upstream)["creates"] == 1
        with anyio.fail_after(60):
            while (await host.client.call_tool("agent_start", {"prompt": "later"})).is_error:  # noqa: ASYNC110
                await anyio.sleep(0.1)


async def test_process_with_another_key_neither_expires_nor_fails_a_job(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 3, "text": "mine"})
    upstream.queue_fault(on="retrieve", status=404, times=6)
    upstream.queue_fault(on="stream", status=404, times=6)
    async with hosting(replace(settings, api_key=SecretStr("another")), speed=200) as stranger:
        answer = await stranger.call("agent_poll", job_id=started["job_id"], wait_s=45)
        assert answer["status"] in ("queued", "in_progress")
        await eventually(lambda: read_counters(upstream)["retrieves"] >= 2)
        answer = await stranger.call("agent_poll", job_id=started["job_id"], wait_s=45)
        assert answer["status"] in ("queued", "in_progress")
    httpx2.delete(f"{upstream.url}/_emulator/faults")
    async with hosting(settings) as host:
        assert (await host.end(started["job_id"]))["output"] == "mine"


async def test_job_belongs_to_the_key_that_sent_it(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="create", status=429)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 20, "text": "paid by another"})
        await eventually(lambda: read_counters(upstream)["creates"] == 1)
    sender = replace(settings, api_key=SecretStr("another"), mode="background")
    async with hosting(sender, speed=50) as other:
        await eventually(lambda: read_counters(upstream)["creates"] == 2)
    upstream.queue_fault(on="retrieve", status=404, times=6)
    async with hosting(settings, speed=200) as host:
        await eventually(lambda: read_counters(upstream)["retrieves"] >= 2)
        engine = await host.app.engine()
        began = engine.now()
        await eventually(lambda: engine.now() > began + 120)
        assert not (await engine.poll(started["job_id"])).is_terminal
    httpx2.delete(f"{upstream.url}/_emulator/faults")
    async with hosting(sender) as other:
        assert (await other.end(started["job_id"]))["output"] == "paid by another"


# Endpoints that no process uses any more.


async def test_job_of_an_abandoned_endpoint_ends_and_can_be_adopted(
    settings: Settings, upstream: RunningServer
) -> None:
    with run_emulator(time_scale=SPEED) as moved:
        async with hosting(settings) as host:
            started = await host.start(emulate={"duration_s": 1, "text": "left behind"})
        elsewhere = replace(settings, base_url=moved.base_url, job_timeout_s=60)
        async with hosting(elsewhere, speed=DAY_S) as host:
            answer = await host.end(started["job_id"])
            assert answer["error"]["code"] == "endpoint_lost"
            assert settings.base_url in answer["error"]["message"]
            assert started["response_id"] in answer["error"]["message"]
            assert "OPENAI_BASE_URL" in answer["next"]
    assert read_counters(upstream)["cancels"] == 0
    async with hosting(settings) as host:
        await (await host.app.engine()).adopt(started["job_id"], started["response_id"])
        assert (await host.end(started["job_id"]))["output"] == "left behind"


async def test_unsent_job_of_a_lost_endpoint_reports_that_nothing_was_sent(settings: Settings) -> None:
    async with hosting(replace(settings, base_url="http://127.0.0.1:9/v1?secret=1")) as host:
        started = await host.start()
    async with hosting(replace(settings, max_wait_s=DAY_S), speed=2 * DAY_S) as host:
        answer = await host.end(started["job_id"])
    assert answer["error"]["code"] == "endpoint_lost"
    assert "nothing was sent" in answer["error"]["message"]
    assert "secret" not in answer["error"]["message"]


async def test_job_of_a_lost_key_ends(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"})
    upstream.queue_fault(on="retrieve", status=404, times=-1)
    upstream.queue_fault(on="stream", status=404, times=-1)
    stranger = replace(settings, api_key=SecretStr("another"), job_timeout_s=60, follow=0, max_wait_s=DAY_S)
    async with hosting(stranger, speed=DAY_S / 2) as host:
        answer = await host.end(started["job_id"])
    assert answer["error"]["code"] == "endpoint_lost"
    assert "key" in answer["error"]["message"]


# Retention.


async def test_old_jobs_are_purged_here_and_upstream_and_leave_a_tombstone(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        old = await host.start(emulate={"duration_s": 1})
        await host.end(old["job_id"])
    purging = replace(settings, retention_days=1, delete_upstream="yes")
    async with hosting(purging, speed=DAY_S) as host:
        await eventually(lambda: read_counters(upstream)["deletes"] == 1)
        sentence = await host.refused("agent_poll", job_id=old["job_id"])
    assert "finished (completed" in sentence
    assert "and was deleted here" in sentence


async def test_run_that_silently_ignores_background_is_held_open(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(background_unsaid=True, no_retrieve=True, times=-1)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 20, "text": "kept"})
        answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=1)
        assert answer["lasts"] == "while this server runs"
        assert (await host.end(started["job_id"]))["output"] == "kept"
        await wait_until_learned(host)
        asked = read_counters(upstream)["retrieves"]
        second = await host.start(emulate={"duration_s": 2, "text": "again"}, previous_job_id=started["job_id"])
        assert (await host.end(second["job_id"]))["context"] == "rebuilt"
    assert 2 <= asked <= 4  # 404 may be a lag
    assert read_counters(upstream)["retrieves"] == asked  # what was learned holds


async def wait_until_learned(host: Host) -> None:
    """Wait until the store knows that the endpoint runs nothing in the background."""
    engine = await host.app.engine()
    with anyio.fail_after(60):
        while await engine.learned_mode(load_models()["default"]) != "foreground":  # noqa: ASYNC110  # it sets no event
            await anyio.sleep(0.01)


#: Answers to a GET of a server that serves none.
NOT_SERVED: dict[str, dict[str, Any]] = {
    "405": {"status": 405, "body": {"detail": "Method Not Allowed"}},
    "501": {"status": 501, "body": {"error": {"message": "not implemented"}}},
    "a page": {"status": 200, "body": "<!DOCTYPE html><title>Console</title>"},
    "JSON of something else": {"status": 200, "body": {"models": []}},
}


@pytest.mark.parametrize("answer", NOT_SERVED.values(), ids=NOT_SERVED)
async def test_server_without_gets_holds_its_runs_and_is_known_after_one(
    settings: Settings, upstream: RunningServer, answer: dict[str, Any]
) -> None:
    upstream.queue_fault(background_unsaid=True, times=-1)
    upstream.queue_fault(on="retrieve", times=-1, **answer)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 8, "text": "kept"})
        await wait_until_learned(host)
        seen = await host.call("agent_poll", job_id=started["job_id"], wait_s=0)
        assert seen["lasts"] == "while this server runs"
        assert (await host.end(started["job_id"]))["output"] == "kept"
        assert read_counters(upstream)["retrieves"] == 1
        never = await host.start(emulate={"end": "never"})
        while "lasts" not in await host.call("agent_poll", job_id=never["job_id"], wait_s=1):
            pass
    async with hosting(settings) as host:
        assert (await host.end(never["job_id"]))["error"]["code"] == "interrupted"


def test_run_that_ignores_background_is_interrupted_if_its_process_is_killed(
    settings: Settings, upstream: RunningServer
) -> None:
    assert settings.data_dir is not None
    upstream.queue_fault(background_unsaid=True, times=-1)
    upstream.queue_fault(on="retrieve", times=-1, **NOT_SERVED["405"])
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        started = server.call("agent_start", prompt=script_prompt("held", {"end": "never"}), wait_s=0)
        while "lasts" not in server.call("agent_poll", job_id=started["job_id"], wait_s=0.5):
            pass
        server.process.kill()
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        answer = server.call("agent_poll", job_id=started["job_id"], wait_s=15)
    assert (answer["status"], answer["error"]["code"]) == ("failed", "interrupted")
    assert read_counters(upstream)["creates"] == 1


@pytest.mark.parametrize("lag_s", [1, 20])
async def test_response_retrieved_late_is_not_held_forever(settings: Settings, lag_s: float) -> None:
    def shown(response: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in response.items() if name != "background"}

    emulator = Emulator(time_scale=SPEED)
    emulator.app.add_middleware(Divergent, shown=shown)
    with run_emulator(emulator=emulator) as upstream:
        async with hosting(replace(settings, base_url=upstream.base_url)) as host:
            started = await host.start(emulate={"end": "never", "faults": [{"not_found_for_s": lag_s}]})
            engine = await host.app.engine()
            with anyio.fail_after(60):
                while "background" not in [
                    event.kind for event in (await engine.result(started["job_id"])).events
                ]:  # until a later GET showed it
                    await host.call("agent_poll", job_id=started["job_id"], wait_s=1)
            assert "lasts" not in await host.call("agent_poll", job_id=started["job_id"], wait_s=0)
            assert (await host.call("agent_cancel", job_id=started["job_id"]))["status"] == "cancelled"
            assert await engine.learned_mode(load_models()["default"]) is None
        [run] = [entry for entry in emulator.log() if entry["entry"] == "response"]
        assert run["status"] == "cancelled", "upstream was asked to stop it"


@pytest.mark.parametrize("unsaid", [True, False])
async def test_held_run_may_be_silent_in_its_middle(
    settings: Settings, upstream: RunningServer, monkeypatch: pytest.MonkeyPatch, unsaid: bool
) -> None:
    """Only some events of the run show that it is held."""
    monkeypatch.setattr(client, "STREAM_IDLE_S", 0.3)
    fault = {"background_unsaid": unsaid, "ignore_background": not unsaid}
    upstream.queue_fault(no_retrieve=True, **fault)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 20, "text": "one two", "chunk": 4, "reasoning": 0})
        assert (await host.end(started["job_id"]))["output"] == "one two"


async def test_run_that_silently_ignores_background_is_interrupted_with_its_server(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(background_unsaid=True, no_retrieve=True, times=-1)
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"})
        while "lasts" not in await host.call("agent_poll", job_id=started["job_id"], wait_s=1):
            pass
    async with hosting(settings) as host:
        assert (await host.end(started["job_id"]))["error"]["code"] == "interrupted"


async def test_text_of_a_held_run_is_kept_if_another_process_cancels_it(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(background_unsaid=True, no_retrieve=True, times=-1)
    async with hosting(settings) as host, hosting(settings) as other:
        started = await host.start(emulate={"duration_s": 600, "length": 5000, "reasoning": 0})
        job_id = started["job_id"]
        with anyio.fail_after(60):
            while not (await host.call("agent_result", job_id=job_id, part="partial"))["partial"]:
                await host.call("agent_poll", job_id=job_id, wait_s=1)
        answer = await other.call("agent_cancel", job_id=job_id)
        answer = answer if answer["status"] == "cancelled" else await other.end(job_id)
        assert answer["status"] == "cancelled"
        assert (await host.call("agent_result", job_id=job_id))["output"]


ADDED_AND_REFUSED = {
    "stream_options": "Unknown parameter: 'stream_options'.",
    "metadata": "metadata is not supported here",
    "store": "Store must be set to false",
}


@pytest.mark.parametrize("name", ADDED_AND_REFUSED)
async def test_added_parameter_is_left_out_once_it_was_refused(
    settings: Settings, upstream: RunningServer, name: str
) -> None:
    body = {"error": {"message": ADDED_AND_REFUSED[name], "type": "invalid_request_error"}}
    upstream.queue_fault(on="create", status=400, body=body)
    async with hosting(settings) as host:
        for posts in (2, 3):
            started = await host.start(emulate={"duration_s": 2, "text": "taken"})
            assert (await host.end(started["job_id"]))["output"] == "taken"
            assert read_counters(upstream)["creates"] == posts


@pytest.mark.parametrize("words", ["Please include a valid model.", "The metadata server is away."])
async def test_refusal_that_only_uses_the_same_word_drops_nothing(
    settings: Settings, upstream: RunningServer, words: str
) -> None:
    upstream.queue_fault(on="create", status=400, body={"error": {"message": words, "type": "invalid_request_error"}})
    async with hosting(settings) as host:
        started = await host.start(web_search=True)
        assert (await host.end(started["job_id"]))["status"] == "failed"
    assert read_counters(upstream)["creates"] == 1


async def test_retention_keeps_unread_jobs_and_the_provider_s_copies(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        unread = [await host.start(f"unread {end}", emulate={"end": end}) for end in ("completed", "failed")]
        read = await host.start("read", emulate={"duration_s": 1})
        await host.end(read["job_id"])
        await eventually(lambda: set(list_statuses(upstream)) == {"completed", "failed"})
    async with hosting(replace(settings, retention_days=1), speed=DAY_S) as host:
        with anyio.fail_after(60):
            while read["job_id"] in {job["job_id"] for job in (await host.call("agent_list"))["jobs"]}:
                pass
        left = {job["job_id"] for job in (await host.call("agent_list"))["jobs"]}
    assert left == {job["job_id"] for job in unread}
    assert read_counters(upstream)["deletes"] == 0


def test_jobs_are_kept_and_nothing_is_deleted_at_the_provider_until_the_user_says_so() -> None:
    unset = Settings.from_env({})
    assert (unset.retention_days, unset.delete_upstream) == (None, "no")
