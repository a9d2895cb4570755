"""Gateways that accept `previous_response_id` and lack the named response, or never read the field."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, hosting
from test_agent_loop import MODEL, USED, add_tool_servers, ledger_entry, read_lines, script_with_calls, tool_call
from test_follow_ups import LOOKUP, complete_job, count_accepted, get_response, read_messages, start_asking_job
from test_tools import runs

from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings

JSON = dict[str, Any]
THREAD = ["one", "answer to one", "two"]
PLAIN: JSON = {"fail_previous": True}


def words_sent(upstream: RunningServer) -> list[str]:
    """Return the messages of the request that upstream accepted last."""
    items = get_response(upstream, f"{runs(upstream)[-1]['id']}/input_items?order=asc&limit=100")["data"]
    return [text for _, text in read_messages(items)]


async def check_job_continues(host: Host, upstream: RunningServer, accepts: int) -> None:
    """Start a job and a follow-up, and check that the follow-up is answered with the history."""
    first = await complete_job(host, "one")
    second = await complete_job(host, "two", previous_job_id=first)
    assert words_sent(upstream) == THREAD
    answer = await host.end(second)
    assert answer == {"job_id": second, "status": "completed", "output": "answer to two", "context": "rebuilt"}
    assert count_accepted(upstream) == accepts
    counted = upstream.emulator.counters()["accepted_by_request_id"].values()
    assert set(counted) == {1}


#: Errors of gateways after they accepted the request.
LATE: dict[str, JSON] = {
    "response.failed": PLAIN,
    "other words": {"fail_previous": "Response with id {id} not found"},
    "another id than ours": {"fail_previous": "No response found for id chatcmpl-12"},
    "of its own field": {"fail_previous": "Unsupported: previous_response_id"},
    "an error event, then response.failed": {**PLAIN, "error_event": "flat"},
    "an error event and the end": {**PLAIN, "error_event": "flat", "eof_without_terminal": True},
    "a nested one and the end": {**PLAIN, "error_event": "nested", "eof_without_terminal": True},
    "an error event, the end, and no GET": {
        **PLAIN, "error_event": "nested", "eof_without_terminal": True, "no_retrieve": True,
    },
    "held open": {**PLAIN, "ignore_background": True},
    "held open, with an error event": {
        **PLAIN, "ignore_background": True, "error_event": "flat", "eof_without_terminal": True,
    },
    "JSON inside a 200": {**PLAIN, "json_instead_of_stream": True, "complete_at_once": True},
    "over GET": {**PLAIN, "json_instead_of_stream": True},
    "looked at": PLAIN,
    "looked at, with an error event": {**PLAIN, "error_event": "flat", "eof_without_terminal": True},
    "a broken stream": {**PLAIN, "drop": "after_events", "after_events": 1},
}  # fmt: skip


@pytest.mark.parametrize("late", LATE)
async def test_follow_up_whose_response_fails_for_its_link_is_sent_with_the_history(
    settings: Settings, upstream: RunningServer, late: str
) -> None:
    # Only the second job meets the fault: the first has to be one that a request can name.
    upstream.queue_fault(on="create", match='"previous_response_id"', times=-1, **LATE[late])
    follow = 0 if late.startswith("looked at") else 200
    async with hosting(replace(settings, follow=follow)) as host:
        await check_job_continues(host, upstream, accepts=3)


def error_response(message: str, **more: Any) -> JSON:
    return {"error": {"message": message, **more}}


#: Refusals of the link at once, in words alone.
REFUSED: dict[str, JSON] = {
    "400 with another id": {"status": 400, "body": error_response("Previous response with id chatcmpl-1 not found")},
    "404 as a detail": {"status": 404, "body": {"detail": "No response found for id chatcmpl-1"}},
    "a missing item": {"status": 404, "body": error_response("Item with id 'rs_1' not found.", param="input")},
    "500 from behind": {"status": 500, "body": error_response("ProviderError: Previous response not found")},
    "JSON in a 200": {"status": 200, "body": error_response("Response with id chatcmpl-1 not found")},
    "an event in a 200": {
        "status": 200,
        "content_type": "text/event-stream",
        "body": 'data: {"type": "error", "message": "The response was not stored", "code": "500"}\n\n',
    },
}


@pytest.mark.parametrize("fault", REFUSED.values(), ids=REFUSED)
async def test_follow_up_whose_link_is_refused_in_words_is_sent_with_the_history(
    settings: Settings, upstream: RunningServer, fault: JSON
) -> None:
    upstream.queue_fault(on="create", match='"previous_response_id"', times=-1, **fault)
    async with hosting(settings) as host:
        await check_job_continues(host, upstream, accepts=2)


@pytest.mark.parametrize(
    "fault",
    [
        PLAIN,
        {"status": 400, "body": error_response("No tool call found for function call output with call_id call_1.")},
    ],
)
async def test_toolbox_job_continues_with_its_history_and_calls_nothing_twice(
    settings: Settings, upstream: RunningServer, tmp_path: Path, fault: JSON
) -> None:
    upstream.queue_fault(on="create", match='"previous_response_id"', times=-1, **fault)
    log = tmp_path / "ledger"
    script = script_with_calls([tool_call("ledger__write", n=1)], [tool_call("ledger__write", n=2)])
    async with hosting(add_tool_servers(settings, ledger=ledger_entry(log))) as host:
        job = await host.start("one", emulate=script, options={"toolbox": ["ledger"]})
        answer = await host.end(job["job_id"])
    assert (answer["status"], answer["output"]) == ("completed", "the end")
    assert read_lines(log) == ["begin write 1", "end write 1", "begin write 2", "end write 2"]
    links = [get_response(upstream, run["id"])["previous_response_id"] for run in runs(upstream)]
    assert sum(link is not None for link in links) <= 1, "the third turn does not try the link again"


async def test_reply_is_sent_with_the_history(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="create", match='"previous_response_id"', times=-1, **PLAIN)
    async with hosting(settings) as host:
        first = await start_asking_job(host, {"function_calls": [{"name": "lookup", "arguments": {}}]}, LOOKUP)
        poll = await host.call("agent_poll", job_id=first, wait_s=0)
        outputs = [{"call_id": need["call_id"], "output": "42"} for need in poll["needs"]]
        await host.call("agent_reply", job_id=first, outputs=outputs)
        assert (await host.end(first))["status"] == "completed"
    items = get_response(upstream, f"{runs(upstream)[-1]['id']}/input_items?order=asc&limit=100")["data"]
    assert [item["type"] for item in items][-2:] == ["function_call", "function_call_output"]


@pytest.mark.parametrize(
    ("usage", "tokens", "usd"),
    [({}, 0, 0), (USED, 100_000, 2), ({"input_tokens": None}, None, None)],
    ids=["nothing", "tokens", "an unknown count"],
)
async def test_failed_response_is_counted_if_it_used_tokens(
    settings: Settings,
    upstream: RunningServer,
    usage: JSON,
    tokens: int | None,
    usd: float | None,
) -> None:
    """A run that failed at once has no usage and cost nothing; the usage of any other run is added."""
    upstream.queue_fault(on="create", match='"previous_response_id"', **PLAIN)
    async with hosting(add_tool_servers(settings, x=ledger_entry(Path("unused")))) as host:
        first = await complete_job(host, "one", model=MODEL)
        # Both requests of the turn carry the same directive.
        script = {"duration_s": 0.5, "usage": usage, "text": "two"}
        second = await host.start("two", emulate=script, previous_job_id=first, model=MODEL)
        answer = await host.end(second["job_id"])
        used = (await host.call("agent_result", job_id=second["job_id"], part="usage"))["usage"]
    assert answer["status"] == "completed"
    last = get_response(upstream, runs(upstream)[-1]["id"])["usage"]["input_tokens"]
    assert used.get("input_tokens") == (None if tokens is None else last + tokens)
    assert answer.get("cost_usd") == (None if usd is None else pytest.approx(usd, abs=0.01))


async def test_turn_whose_process_ends_before_it_is_sent_again_is_sent_once_by_the_next(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="create", match='"previous_response_id"', times=-1, **PLAIN)
    upstream.queue_fault(on="create", match='"answer to one"', status=429, headers={"retry-after": "5"})
    async with hosting(settings) as host:
        first = await complete_job(host, "one")
        second = await host.start("two", emulate={"duration_s": 0.5, "text": "once"}, previous_job_id=first)
        job_id = second["job_id"]
        while (await host.call("agent_poll", job_id=job_id, wait_s=1))["status"] != "pending":
            pass
    async with hosting(settings) as host:
        answer = await host.end(job_id)
    assert (answer["output"], answer["context"]) == ("once", "rebuilt")
    assert count_accepted(upstream) == 3


async def test_turn_that_is_to_be_sent_again_can_be_cancelled(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="create", match='"previous_response_id"', **PLAIN)
    upstream.queue_fault(on="create", match='"answer to one"', status=429, headers={"retry-after": "60"})
    async with hosting(settings) as host:
        first = await complete_job(host, "one")
        second = await host.start("two", emulate={"duration_s": 0.5}, previous_job_id=first)
        while (await host.call("agent_poll", job_id=second["job_id"], wait_s=1))["status"] != "pending":
            pass
        assert (await host.call("agent_cancel", job_id=second["job_id"]))["status"] == "cancelled"
    assert count_accepted(upstream) == 2


async def test_history_that_fails_as_well_is_not_sent_a_third_time(settings: Settings, upstream: RunningServer) -> None:
    lost = {"duration_s": 0.5, "end": "failed", "text": "", "error_code": "previous_response_not_found"}
    async with hosting(settings) as host:
        first = await complete_job(host, "one")
        second = await host.start("two", emulate=lost, previous_job_id=first)
        answer = await host.end(second["job_id"])
    assert (answer["status"], answer["error"]["code"]) == ("failed", "previous_response_not_found")
    assert count_accepted(upstream) == 3


@pytest.mark.parametrize(
    "script",
    [
        {"error_message": "The model fell over."},
        {"error_message": "Invalid response from the model: tool not found."},
        # The run had begun to answer, so it knew the history.
        {"error_message": "The response was not found in the file store.", "length": 2_000},
    ],
    ids=["of the model", "of a tool", "after it began to answer"],
)
async def test_follow_up_that_fails_for_anything_else_is_sent_once(
    settings: Settings, upstream: RunningServer, script: JSON
) -> None:
    async with hosting(settings) as host:
        first = await complete_job(host, "one")
        failing = {"duration_s": 0.5, "end": "failed", "text": "", **script}
        if "length" in script:
            del failing["text"]
        second = await host.start("two", emulate=failing, previous_job_id=first)
        answer = await host.end(second["job_id"])
    assert (answer["status"], answer["error"]["message"]) == ("failed", script["error_message"])
    assert count_accepted(upstream) == 2


# Servers that ignore the link and serve no GET: each request to them has the full history.


@pytest.fixture
def heedless(upstream: RunningServer) -> RunningServer:
    upstream.queue_fault(on="create", background_unsaid=True, ignore_previous=True, times=-1)
    upstream.queue_fault(on="retrieve", status=405, body={"detail": "Method Not Allowed"}, times=-1)
    return upstream


def kinds_sent(upstream: RunningServer) -> list[str]:
    items = get_response(upstream, f"{runs(upstream)[-1]['id']}/input_items?order=asc&limit=100")["data"]
    return [item["type"] for item in items]


async def test_follow_up_of_an_unretrievable_response_repeats_the_history(
    settings: Settings, heedless: RunningServer
) -> None:
    async with hosting(settings) as host:
        first = await complete_job(host, "one")
        second = await complete_job(host, "two", previous_job_id=first)
        assert words_sent(heedless) == THREAD
        await complete_job(host, "three", previous_job_id=second)
        assert words_sent(heedless) == [*THREAD, "answer to two", "three"]
    assert count_accepted(heedless) == 3


async def test_reply_to_an_unretrievable_response_repeats_the_history(
    settings: Settings, heedless: RunningServer
) -> None:
    async with hosting(settings) as host:
        first = await start_asking_job(host, {"function_calls": [{"name": "lookup", "arguments": {}}]}, LOOKUP)
        needs = (await host.call("agent_poll", job_id=first, wait_s=0))["needs"]
        outputs = [{"call_id": need["call_id"], "output": "42"} for need in needs]
        await host.call("agent_reply", job_id=first, outputs=outputs)
        assert (await host.end(first))["status"] == "completed"
    assert kinds_sent(heedless) == ["message", "reasoning", "function_call", "function_call_output"]
    assert count_accepted(heedless) == 2


async def test_toolbox_turns_after_an_unretrievable_response_repeat_the_history(
    settings: Settings, heedless: RunningServer, tmp_path: Path
) -> None:
    script = script_with_calls([tool_call("ledger__write", n=1)], [tool_call("ledger__write", n=2)])
    async with hosting(add_tool_servers(settings, ledger=ledger_entry(tmp_path / "ledger"))) as host:
        job = await host.start("one", emulate=script, options={"toolbox": ["ledger"]})
        assert (await host.end(job["job_id"]))["output"] == "the end"
    assert kinds_sent(heedless) == ["message", *["function_call", "function_call_output"] * 2]
    assert count_accepted(heedless) == 3
