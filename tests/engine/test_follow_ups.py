"""Follow-ups of a finished job: by its response, in a conversation, or with the whole history repeated.

The emulator refuses what the real API refuses, so it checks the input that is repeated.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from hosts import SPEED, Host, eventually, hosting, script_prompt
from processes import serving
from test_tools import creates, runs

from agent_jobs.clock import Clock, create_steady_clock
from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

DAY_S = 86_400
KEY = {"Authorization": "Bearer test"}


def get_response_of(upstream: RunningServer, job_id: str) -> dict[str, Any]:
    """Return the job's response as upstream stores it, with the fields of its request."""
    [run] = [run for run in runs(upstream) if run["metadata"]["job_id"] == job_id]
    response = get_response(upstream, run["id"])
    items = httpx2.get(f"{upstream.base_url}/responses/{run['id']}/input_items?order=asc&limit=100", headers=KEY).json()
    return {**response, "input": items["data"]}


def get_response(upstream: RunningServer, response_id: str) -> dict[str, Any]:
    return httpx2.get(f"{upstream.base_url}/responses/{response_id}", headers=KEY).json()


def list_sent_messages(upstream: RunningServer, job_id: str) -> list[tuple[str, str]]:
    """Return the job's request as upstream got it, message by message."""
    return read_messages(get_response_of(upstream, job_id)["input"])


def conversation_of(upstream: RunningServer, conversation: str) -> list[tuple[str, str]]:
    """Return the items of a conversation upstream."""
    items = httpx2.get(f"{upstream.base_url}/conversations/{conversation}/items?order=asc&limit=100", headers=KEY)
    return read_messages(items.json()["data"])


def read_messages(items: list[dict[str, Any]]) -> list[tuple[str, str]]:
    repeated = [item for item in items if item["type"] == "message"]
    return [(item["role"], "".join(map(text_of, item["content"]))) for item in repeated]


def text_of(part: dict[str, Any]) -> str:
    return part["text"].partition(" [emulate ")[0]


class Now:
    """A clock that can be set forward."""

    def __init__(self) -> None:
        self._now, self._ahead_s = create_steady_clock(SPEED), 0.0

    def __call__(self) -> float:
        return self._now() + self._ahead_s

    def clock(self) -> Clock:
        return Clock(SPEED, self)

    def pass_s(self, seconds: float) -> None:
        self._ahead_s += seconds


def count_accepted(upstream: RunningServer) -> int:
    return upstream.emulator.counters()["accepted"]


async def complete_job(host: Host, prompt: str, text: str = "", **more: Any) -> str:
    """Complete a job with this text; return its id."""
    started = await host.start(prompt, emulate={"duration_s": 0.5, "text": text or f"answer to {prompt}"}, **more)
    answer = await host.end(started["job_id"])
    assert answer["status"] == "completed", answer
    return started["job_id"]


# By its response.


async def test_follow_up_names_the_previous_response_and_keeps_its_options(
    settings: Settings, upstream: RunningServer
) -> None:
    options = {"instructions": "Be brief.", "verbosity": "low"}
    async with hosting(settings) as host:
        first = await complete_job(host, "one", model="gpt-6-luna", effort="high", web_search=True, options=options)
        second = await complete_job(host, "two", previous_job_id=first)
        answer = await host.end(second)
    before, after = get_response_of(upstream, first), get_response_of(upstream, second)
    assert after["previous_response_id"] == before["id"]
    assert list_sent_messages(upstream, second) == [("user", "two")]
    for name in ("model", "instructions", "tools", "reasoning", "text"):
        assert after[name] == before[name], name
    assert "context" not in answer


async def test_options_of_a_follow_up_replace_the_previous_ones(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await complete_job(
            host, "one", model="gpt-6-luna", web_search=True, options={"instructions": "Be brief.", "verbosity": "low"}
        )
        second = await complete_job(
            host, "two", previous_job_id=first, model="gpt-6-sol", web_search=False, options={"instructions": "Go on."}
        )
    after = get_response_of(upstream, second)
    assert (after["model"], after["instructions"], after["tools"]) == ("gpt-6-sol", "Go on.", [])
    assert after["text"]["verbosity"] == "low"


async def test_preset_without_a_model_keeps_the_model_of_a_follow_up(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        first = await complete_job(host, "one", model="gpt-6-luna")
        second = await complete_job(host, "two", previous_job_id=first, preset="think")
    assert get_response_of(upstream, second)["model"] == "gpt-6-luna"


async def test_many_jobs_continue_one_job(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await complete_job(host, "one")
        prompts = [script_prompt(f"branch {n}", {"duration_s": 0.5}) for n in range(10)]
        started = await host.call("agent_start", prompts=prompts, previous_job_id=first)
        for job_id in started["job_ids"]:
            assert (await host.end(job_id))["status"] == "completed"
    root = get_response_of(upstream, first)["id"]
    assert {get_response_of(upstream, job_id)["previous_response_id"] for job_id in started["job_ids"]} == {root}


async def test_follow_up_works_without_the_files_that_the_previous_job_ran_code_on(
    settings: Settings, upstream: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "figures.csv").write_text("a,b\n1,2\n")
    code = {"tools": [{"type": "code_interpreter"}]}
    async with hosting(replace(settings, file_roots=(tmp_path,))) as host:
        first = await complete_job(host, "one", files=["figures.csv"], options=code)
        await eventually(lambda: upstream.emulator.counters()["files_left"] == 0)
        second = await complete_job(host, "two", previous_job_id=first)
    assert [tool["type"] for tool in get_response_of(upstream, second)["tools"]] == ["code_interpreter"]


# Jobs that cannot be continued.


async def test_running_job_cannot_be_continued(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await host.start(emulate={"end": "never"})
        sentence = await host.refused("agent_start", prompt="two", previous_job_id=first["job_id"])
        await host.call("agent_cancel", job_id=first["job_id"])
    assert f"{first['job_id']} is still running. Call agent_poll" in sentence
    assert creates(upstream) == 1


@pytest.mark.parametrize("conversation", [False, True])
async def test_failed_job_without_an_output_cannot_be_continued(
    settings: Settings, upstream: RunningServer, conversation: bool
) -> None:
    script = {"duration_s": 1, "end": "failed", "text": "", "reasoning": 0}
    async with hosting(settings) as host:
        first = await host.start(emulate=script, options={"conversation": conversation})
        assert (await host.end(first["job_id"]))["status"] == "failed"
        sentence = await host.refused("agent_start", prompt="two", previous_job_id=first["job_id"])
    assert f"{first['job_id']} ended failed without an output to continue" in sentence
    assert creates(upstream) == 1


async def test_unsent_job_cannot_be_continued(settings: Settings) -> None:
    async with hosting(replace(settings, base_url="http://127.0.0.1:9/v1")) as host:
        first = await host.start()
        await host.call("agent_cancel", job_id=first["job_id"])
        sentence = await host.refused("agent_start", prompt="two", previous_job_id=first["job_id"])
    assert "ended cancelled without an output to continue" in sentence


async def test_cancelled_job_with_text_can_be_continued(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await host.start("one", emulate={"duration_s": 20, "reasoning": 0, "length": 2_000})
        with anyio.fail_after(60):
            while (await host.call("agent_poll", job_id=first["job_id"], wait_s=2)).get("activity") != "writing":
                pass
        written = (await host.call("agent_cancel", job_id=first["job_id"]))["output"]
        second = await complete_job(host, "two", previous_job_id=first["job_id"])
        assert (await host.end(second))["context"] == "rebuilt"
    assert list_sent_messages(upstream, second) == [("user", "one"), ("assistant", written), ("user", "two")]


# In a conversation.


async def test_conversation_is_created_once_and_the_follow_up_is_in_it(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="create", status=429, times=2, headers={"retry-after": "1"})
    async with hosting(settings) as host:
        first = await complete_job(host, "one", options={"conversation": True})
        second = await complete_job(host, "two", previous_job_id=first)
        third = await complete_job(host, "three", previous_job_id=second)
        answer = await host.end(third)
    [conversation] = {get_response_of(upstream, job_id)["conversation"]["id"] for job_id in (first, second, third)}
    assert upstream.emulator.counters()["conversations"] == 1
    assert conversation_of(upstream, conversation) == [
        ("user", "one"), ("assistant", "answer to one"), ("user", "two"), ("assistant", "answer to two"),
        ("user", "three"), ("assistant", "answer to three"),
    ]  # fmt: skip
    assert "context" not in answer


async def test_jobs_of_one_conversation_wait_for_each_other(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await complete_job(host, "one", options={"conversation": True})
        prompts = [script_prompt(f"branch {n}", {"duration_s": 2, "text": str(n)}) for n in range(3)]
        started = await host.call("agent_start", prompts=prompts, previous_job_id=first)
        assert sorted([(await host.end(job_id))["output"] for job_id in started["job_ids"]]) == ["0", "1", "2"]
    assert creates(upstream) > 4, "some had to wait"
    assert count_accepted(upstream) == 4


async def test_conversation_of_the_caller_is_used(settings: Settings, upstream: RunningServer) -> None:
    items = [{"role": "user", "content": "before"}]
    made = httpx2.post(f"{upstream.base_url}/conversations", headers=KEY, json={"items": items}).json()["id"]
    async with hosting(settings) as host:
        first = await complete_job(host, "one", options={"conversation": made})
        await complete_job(host, "two", previous_job_id=first)
    assert [words for _, words in conversation_of(upstream, made)] == [
        "before", "one", "answer to one", "two", "answer to two",
    ]  # fmt: skip


async def test_follow_up_in_a_new_conversation_repeats_the_history(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await complete_job(host, "one")
        second = await complete_job(host, "two", previous_job_id=first, options={"conversation": True})
        assert (await host.end(second))["context"] == "rebuilt"
        third = await complete_job(host, "three", previous_job_id=second)
    response = get_response_of(upstream, second)
    assert response["previous_response_id"] is None
    assert [words for _, words in conversation_of(upstream, response["conversation"]["id"])] == [
        "one", "answer to one", "two", "answer to two", "three", "answer to three",
    ]  # fmt: skip
    assert list_sent_messages(upstream, third) == [("user", "three")]


# Repeating the history.


async def test_forgotten_chain_is_repeated(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await complete_job(host, "one", web_search=True)
        second = await complete_job(host, "two", previous_job_id=first)
        for job_id in (first, second):
            upstream.forget(response_id=get_response_of(upstream, job_id)["id"])
        third = await complete_job(host, "three", previous_job_id=second)
        answer = await host.end(third)
        assert answer == {"job_id": third, "status": "completed", "output": "answer to three", "context": "rebuilt"}
        upstream.forget(response_id=get_response_of(upstream, third)["id"])
        fourth = await complete_job(host, "four", previous_job_id=third)
    repeated = [("user", "one"), ("assistant", "answer to one"), ("user", "two"), ("assistant", "answer to two"),
            ("user", "three"), ("assistant", "answer to three"), ("user", "four")]  # fmt: skip
    assert list_sent_messages(upstream, fourth) == repeated
    assert get_response_of(upstream, fourth)["previous_response_id"] is None
    assert count_accepted(upstream) == 4
    assert all(count == 1 for count in upstream.emulator.counters()["accepted_by_request_id"].values())


async def test_encrypted_reasoning_is_repeated(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await complete_job(host, "one")
        upstream.forget(response_id=get_response_of(upstream, first)["id"])
        second = await complete_job(host, "two", previous_job_id=first)
        assert list_item_kinds(upstream, second) == ["message", "message", "message"], (
            "the first was not asked to encrypt it"
        )
        upstream.forget(response_id=get_response_of(upstream, second)["id"])
        third = await complete_job(host, "three", previous_job_id=second)
    assert list_item_kinds(upstream, third) == ["message", "message", "message", "reasoning", "message", "message"]
    [reasoning] = [item for item in get_response_of(upstream, third)["input"] if item["type"] == "reasoning"]
    assert reasoning["encrypted_content"]


def list_item_kinds(upstream: RunningServer, job_id: str) -> list[str]:
    return [item["type"] for item in get_response_of(upstream, job_id)["input"]]


async def test_reasoning_without_a_result_is_not_repeated(settings: Settings, upstream: RunningServer) -> None:
    options = {"include": ["reasoning.encrypted_content"]}
    async with hosting(settings) as host:
        first = await host.start("one", emulate={"duration_s": 1, "end": "incomplete", "text": ""}, options=options)
        assert (await host.end(first["job_id"]))["status"] == "incomplete"
        upstream.forget(response_id=get_response_of(upstream, first["job_id"])["id"])
        second = await complete_job(host, "two", previous_job_id=first["job_id"])
    assert list_sent_messages(upstream, second) == [("user", "one"), ("user", "two")]


async def test_reasoning_that_upstream_cannot_read_is_left_out(settings: Settings, upstream: RunningServer) -> None:
    """Reasoning encrypted for another organization is refused (`invalid_encrypted_content`)."""
    error = {"code": "invalid_encrypted_content", "message": "The encrypted content could not be verified."}
    async with hosting(settings) as host:
        first = await complete_job(host, "one", options={"include": ["reasoning.encrypted_content"]})
        upstream.forget(response_id=get_response_of(upstream, first)["id"])
        upstream.queue_fault(on="create", match="gAAAAA", status=400, body={"error": error}, times=-1)
        second = await complete_job(host, "two", previous_job_id=first)
    assert list_item_kinds(upstream, second) == ["message", "message", "message"]
    assert count_accepted(upstream) == 2


@pytest.mark.parametrize("fault", ["ignore_background", "refuse_background"])
async def test_history_that_upstream_never_stored_is_repeated(
    settings: Settings, upstream: RunningServer, fault: str
) -> None:
    upstream.queue_fault(on="create", **{fault: True}, times=-1)
    async with hosting(settings) as host:
        first = await complete_job(host, "one")
        second = await complete_job(host, "two", previous_job_id=first)
        third = await complete_job(host, "three", previous_job_id=second)
        assert (await host.end(third))["context"] == "rebuilt"
    assert [words for _, words in list_sent_messages(upstream, third)] == [
        "one",
        "answer to one",
        "two",
        "answer to two",
        "three",
    ]
    assert get_response_of(upstream, third)["previous_response_id"] is None
    assert count_accepted(upstream) == 3


async def test_forgotten_conversation_is_repeated(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await complete_job(host, "one", options={"conversation": True})
        second = await complete_job(host, "two", previous_job_id=first)
        upstream.forget(conversation_id=get_response_of(upstream, first)["conversation"]["id"])
        third = await complete_job(host, "three", previous_job_id=second)
        assert (await host.end(third))["context"] == "rebuilt"
    assert [words for _, words in list_sent_messages(upstream, third)] == [
        "one",
        "answer to one",
        "two",
        "answer to two",
        "three",
    ]


async def test_history_is_repeated_to_another_endpoint_and_another_key(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        first = await complete_job(host, "one")
    async with hosting(replace(settings, api_key=SecretStr("another"))) as host:
        second = await complete_job(host, "two", previous_job_id=first)
    with run_emulator(time_scale=SPEED) as moved:
        async with hosting(replace(settings, base_url=moved.base_url)) as host:
            third = await complete_job(host, "three", previous_job_id=second)
        assert [words for _, words in list_sent_messages(moved, third)] == [
            "one",
            "answer to one",
            "two",
            "answer to two",
            "three",
        ]
    assert [words for _, words in list_sent_messages(upstream, second)] == ["one", "answer to one", "two"]


async def test_chain_with_a_purged_job_cannot_be_repeated(settings: Settings, upstream: RunningServer) -> None:
    purging = replace(settings, retention_days=1, delete_upstream="yes")
    now = Now()
    async with hosting(purging, clock=now.clock()) as host:
        first = await complete_job(host, "one")
        now.pass_s(0.6 * DAY_S)
        second = await complete_job(host, "two", previous_job_id=first)
        now.pass_s(0.6 * DAY_S)
    async with hosting(purging, clock=now.clock()) as host:
        await eventually(lambda: upstream.emulator.counters()["deletes"] == 1)
        assert "was deleted here" in await host.refused("agent_start", prompt="x", previous_job_id=first)
        third = await complete_job(host, "three", previous_job_id=second)
        assert get_response_of(upstream, third)["previous_response_id"], "upstream still knows it"
        upstream.forget(response_id=get_response_of(upstream, second)["id"])
        fourth = await host.start("four", previous_job_id=second)
        answer = await host.end(fourth["job_id"])
    assert answer["status"] == "failed"
    assert "previous_job_id" in answer["error"]["message"]
    stranger = replace(purging, api_key=SecretStr("another"))
    async with hosting(stranger, clock=now.clock()) as host:
        sentence = await host.refused("agent_start", prompt="x", previous_job_id=second)
    assert "purged" in sentence
    assert count_accepted(upstream) == 3


# Jobs of several turns.

LOOKUP: dict[str, Any] = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}
TRACKER = {"type": "mcp", "server_label": "tracker", "server_url": "https://tracker.example.org/mcp"}


async def start_asking_job(host: Host, script: dict[str, Any], tool: dict[str, Any]) -> str:
    """Start a job and wait until its model has asked for something; return its id."""
    options = {"tools": [tool], "include": ["reasoning.encrypted_content"]}
    started = await host.start("one", emulate={"duration_s": 0.5, **script}, options=options)
    assert (await host.end(started["job_id"]))["status"] == "input_required"
    return started["job_id"]


def forget_all(upstream: RunningServer) -> None:
    for run in runs(upstream):
        upstream.forget(response_id=run["id"])


async def test_calls_are_repeated_with_their_answers(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await start_asking_job(host, {"function_calls": [{"name": "lookup", "arguments": {}}]}, LOOKUP)
        [run] = runs(upstream)
        [call] = [item for item in get_response(upstream, run["id"])["output"] if item["type"] == "function_call"]
        await host.call("agent_reply", job_id=first, outputs=[{"call_id": call["call_id"], "output": "42"}])
        assert (await host.end(first))["status"] == "completed"
        forget_all(upstream)
        second = await complete_job(host, "two", previous_job_id=first)
    assert list_item_kinds(upstream, second) == [
        "message", "reasoning", "function_call", "function_call_output", "reasoning", "message", "message",
    ]  # fmt: skip
    assert [tool["name"] for tool in get_response_of(upstream, second)["tools"]] == ["lookup"]


async def test_job_with_only_an_unanswered_call_cannot_be_continued(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        first = await start_asking_job(host, {"function_calls": [{"name": "lookup", "arguments": {}}]}, LOOKUP)
        await host.call("agent_cancel", job_id=first)
        sentence = await host.refused("agent_start", prompt="two", previous_job_id=first)
    assert "ended cancelled without an output to continue" in sentence
    assert creates(upstream) == 1


async def test_approval_request_is_repeated_with_its_answer(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        first = await start_asking_job(host, {"mcp_calls": 1}, {**TRACKER, "require_approval": "always"})
        [run] = runs(upstream)
        items = get_response(upstream, run["id"])["output"]
        [approval] = [item for item in items if item["type"] == "mcp_approval_request"]
        await host.call("agent_reply", job_id=first, deny=[approval["id"]])
        assert (await host.end(first))["status"] == "completed"
        forget_all(upstream)
        second = await complete_job(host, "two", previous_job_id=first)
    repeated = [item for item in get_response_of(upstream, second)["input"] if item["type"].startswith("mcp_approval")]
    assert [item["type"] for item in repeated] == ["mcp_approval_request", "mcp_approval_response"]
    assert repeated[0]["id"] == repeated[1]["approval_request_id"]


# A process that is killed while it repeats the history.


def test_follow_up_whose_server_is_killed_during_the_repetition_is_sent_once(
    settings: Settings, upstream: RunningServer
) -> None:
    assert settings.data_dir is not None
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        first = server.call("agent_start", prompt=script_prompt("one", {"duration_s": 1, "text": "said"}), wait_s=15)
        upstream.forget(response_id=get_response_of(upstream, first["job_id"])["id"])
        upstream.queue_fault(on="create", match="two", skip=1, status=429, headers={"retry-after": "2"})
        prompt = script_prompt("two", {"duration_s": 1, "text": "once"})
        second = server.call("agent_start", prompt=prompt, previous_job_id=first["job_id"], wait_s=0)
        assert second["status"] == "pending"
        assert creates(upstream) == 3, "with the link, and with the history"
        server.process.kill()
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        answer = server.call("agent_poll", job_id=second["job_id"], wait_s=15)
    assert (answer["output"], answer["context"]) == ("once", "rebuilt")
    assert list_sent_messages(upstream, second["job_id"]) == [("user", "one"), ("assistant", "said"), ("user", "two")]
    assert count_accepted(upstream) == 2
