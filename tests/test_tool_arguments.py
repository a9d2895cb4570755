"""What hosts in strict mode and models send as arguments, through a real MCP client."""

from typing import Any

import pytest

from agent_jobs.emulator.serve import RunningServer
from agent_jobs.settings import Settings
from hosts import hosting

EMPTY: list[Any] = ["", [], {}, None, [""], {"a": None}, [[]]]
OPTIONAL = {
    "agent_start": ["prompts", "preset", "model", "effort", "web_search", "files", "previous_job_id", "batch",
                    "priority", "wait_s", "options"],
    "agent_poll": ["job_ids", "batch", "wait_s"],
    "agent_result": ["part", "offset", "max_bytes"],
    "agent_list": ["status", "batch", "query", "days", "limit"],
    "agent_cancel": ["job_ids", "batch"],
}  # fmt: skip


@pytest.mark.parametrize("empty", EMPTY, ids=repr)
@pytest.mark.parametrize("tool", OPTIONAL)
async def test_an_empty_argument_counts_as_not_given(settings: Settings, tool: str, empty: Any) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 0.2, "text": "done"})
        await host.end(started["job_id"])
        given: dict[str, Any] = dict.fromkeys(OPTIONAL[tool], dict[str, Any]() if empty == {"a": None} else empty)
        if tool == "agent_start":
            given["prompt"] = "another"
        elif tool != "agent_list":
            given["job_id"] = started["job_id"]
        answer = await host.call(tool, **given)
    assert answer["jobs"] if tool == "agent_list" else answer["job_id"]


async def test_a_host_that_fills_every_argument_starts_one_job(settings: Settings, upstream: RunningServer) -> None:
    options: dict[str, Any] = {
        "instructions": "",
        "tools": [],
        "json_schema": {},
        "max_output_tokens": 0,
        "toolbox": [],
        "key": "",
    }
    async with hosting(settings) as host:
        await host.call(
            "agent_start", prompt="x", prompts=[], preset="deep_research", model="", effort="", web_search=False,
            files=[""], previous_job_id="", batch="", priority="normal", wait_s=0, options=options,
        )  # fmt: skip
        assert (await host.call("agent_list", status="", batch="", query="", days=0, limit=0))["jobs"]
    [body] = [entry["body"] for entry in upstream.emulator.log() if entry.get("body")][:1] or [None]
    assert upstream.emulator.counters()["creates"] == 1
    assert body is None or any(tool["type"] == "web_search" for tool in body["tools"]), "false was filled in"


JSON_TEXTS = ['{"a":1}', '["x"]', '"quoted"', "123", "null", "true", "[]", "{}", "1e400"]


@pytest.mark.parametrize("text", JSON_TEXTS)
async def test_a_text_that_happens_to_be_json_stays_that_text(settings: Settings, text: str) -> None:
    async with hosting(settings) as host:
        await host.call("agent_start", prompt=text, batch=text, wait_s=0)
        for query in ({"query": text}, {"batch": text}):
            assert [row["title"] for row in (await host.call("agent_list", **query))["jobs"]] == [text]
        assert repr(text)[1:-1] in await host.refused("agent_poll", job_id=text)


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "a placeholder": ("agent_list", {"random_string": "x"}),
    "an unknown empty argument": ("agent_list", {"foo": ""}),
    "a text for prompts": ("agent_start", {"prompts": "one task"}),
    "JSON text for prompts": ("agent_start", {"prompts": '["one", "two"]'}),
    "JSON text for options": ("agent_start", {"prompt": "x", "options": '{"verbosity":"low"}'}),
    "a list for a text": ("agent_start", {"prompt": ["x"]}),
    "the same prompt twice": ("agent_start", {"prompt": "x", "prompts": ["x"]}),
}


@pytest.mark.parametrize(("tool", "arguments"), FORMS.values(), ids=FORMS)
async def test_an_unambiguous_form_is_accepted(settings: Settings, tool: str, arguments: dict[str, Any]) -> None:
    async with hosting(settings) as host:
        await host.call(tool, **arguments)


async def test_options_as_a_plain_text_are_refused_with_the_right_form(settings: Settings) -> None:
    async with hosting(settings) as host:
        assert '{"instructions":"..."}' in await host.refused("agent_start", prompt="x", options="be brief")
        assert '"call_id"' in await host.refused("agent_reply", job_id="x", outputs="done")
