"""The host's model reads each answer once, with its facts and the next step before the long text."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, hosting
from mcp_types import Implementation, TextContent
from test_asking import asking

from agent_jobs.settings.settings import Settings
from agent_jobs.text import compact_json

#: Calls of every tool, including refused calls.
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("agent_start", {"prompt": "one", "wait_s": 0}),
    ("agent_start", {"prompts": ["one", "two"]}),
    ("agent_start", {"prompt": "one", "options": {"dry_run": True}}),
    ("agent_poll", {}),
    ("agent_list", {}),
    ("agent_start", {}),
    ("agent_start", {"prompt": "one", "promt": "two"}),
    ("agent_poll", {"job_id": "job_none", "wait_s": -1}),
    ("agent_result", {"job_id": "job_none"}),
    ("agent_list", {"status": "running"}),
    ("agent_reply", {"job_id": "job_none", "message": "Go on."}),
    ("agent_cancel", {}),
)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("structured", [False, True])
async def test_every_answer_is_in_the_text_and_is_repeated_only_by_a_setting(
    settings: Settings, mode: str, structured: bool
) -> None:
    async with hosting(replace(settings, structured=structured), mode=mode) as host:
        for tool, arguments in CALLS:
            result = await host.client.call_tool(tool, arguments)
            [content] = result.content
            assert isinstance(content, TextContent)
            answer = json.loads(content.text)
            assert result.is_error == ("error" in answer)
            assert result.structured_content == (answer if structured else None)


async def test_descriptions_explain_how_to_start_wait_and_leave(settings: Settings) -> None:
    async with hosting(settings) as host:
        tools = {tool.name: tool for tool in (await host.client.list_tools()).tools}
        instructions = host.client.instructions or ""
    sent = [tool.model_dump(by_alias=True, exclude_none=True) for tool in tools.values()]
    assert len(compact_json(sent).encode()) <= 4_000
    start, poll = (tools[name].description or "" for name in ("agent_start", "agent_poll"))
    for phrase in ("long work", "background", "job_id", "agent_poll", "only once", "costs money"):
        assert phrase in start
    for phrase in (
        "wait on the server",
        "in_progress is normal, no error",
        "call again",
        "end your turn",
        "tell the user",
    ):
        assert phrase in poll.lower()
    shown = instructions[:240]  # Codex shows about 260
    for phrase in ("agent_start once", "agent_poll: it waits on the server", "in_progress is normal, no error"):
        assert phrase in shown
    assert shown.endswith("end your turn, tell the user the job_id, poll later. ")


#: About 48 KB with headings and links, so that no part of the result is empty.
LONG = "# Costs\n\nThey rise [source](https://example.org/a).\n\n" + "Lorem ipsum dolor sit amet. " * 1_700


async def run_job(host: Host, text: str = LONG, **more: Any) -> str:
    """Start a job that finishes soon; return its id."""
    return (await host.start(emulate={"duration_s": 0.2, "searches": 3, "text": text}, **more))["job_id"]


async def test_long_field_is_last_in_the_answers_about_one_job(settings: Settings) -> None:
    async with hosting(settings) as host:
        job_id = await run_job(host)
        polled = await host.end(job_id)
        assert [*polled] == ["job_id", "status", "bytes", "next", "output"]
        page = await host.call("agent_result", job_id=job_id, offset=5)
        assert [*page] == ["job_id", "offset", "bytes", "next", "output"]
        for part in ("outline", "sources", "items", "meta"):
            assert [*await host.call("agent_result", job_id=job_id, part=part)][-1] == part
        cut = await host.call("agent_result", job_id=job_id, part="items", max_bytes=500)
        assert [*cut] == ["job_id", "next", "items"]
        assert [*await host.call("agent_cancel", job_id=job_id)][-1] == "output"
        again = await host.start("twice", emulate={"duration_s": 0.2, "text": LONG}, wait_s=20)
        assert [*again] == ["job_id", "status", "bytes", "next", "output"]


@pytest.mark.parametrize("end", ["incomplete", "failed"])
async def test_failure_and_next_step_come_before_the_output(settings: Settings, end: str) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 0.2, "end": end, "text": LONG})
        answer = await host.end(started["job_id"])
    assert [*answer][:4] == ["job_id", "status", "error", "next"]
    assert "output" not in answer or [*answer][-1] == "output"


async def test_facts_about_an_output_come_before_it(settings: Settings, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    async with hosting(replace(settings, result_dir=tmp_path / "results")) as host:
        prompt, script = "the same twice", {"duration_s": 0.2, "text": "[a](sandbox:/mnt/a)"}
        started = await host.start(prompt, emulate=script, options={"json_schema": schema})
        answer = await host.end(started["job_id"])
        assert [*answer] == ["job_id", "status", "invalid", "warning", "result_path", "output"]


async def test_counts_of_a_batch_come_before_its_outputs(settings: Settings) -> None:
    async with hosting(settings) as host:
        await host.start(emulate={"end": "never"}, batch="b")
        await run_job(host, "short", batch="b")
        assert [*await host.call("agent_poll", batch="b", wait_s=30)] == ["running", "next", "done"]
        await run_job(host, batch="b")
        long = await host.call("agent_poll", batch="b", wait_s=30)
        assert [*long] == ["running", "next", "done"]
        assert "output" not in long["done"][0]
        assert [*await host.call("agent_list")] == ["counts", "jobs"]
        await host.call("agent_cancel", batch="b")
        started = await host.call("agent_start", prompts=["one", "two"])
        assert [*started] == ["batch", "jobs", "next_poll_ms", "next", "job_ids"]


async def test_next_step_comes_before_the_questions(settings: Settings) -> None:
    async with hosting(settings) as host:
        fields = await asking(host, function_calls=[{"name": "lookup", "arguments": {"n": n}} for n in range(30)])
    assert [*fields] == ["job_id", "status", "more", "whole", "next", "needs"]


async def test_figures_of_a_dry_run_come_before_its_files(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    async with hosting(replace(settings, file_roots=(tmp_path,))) as host:
        answer = await host.call("agent_start", prompt="one", files=["a.txt"], options={"dry_run": True})
    assert [*answer][-1] == "files"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize(
    ("client", "most"),
    [
        ("codex-mcp-client", 9_000),
        ("Codex", 9_000),
        ("copilot-cli", 9_000),
        ("claude-code", 24_000),
        ("Visual Studio Code", 24_000),
        ("mcp", 24_000),
    ],
)
async def test_page_is_as_long_as_its_host_can_show(settings: Settings, client: str, most: int, mode: str) -> None:
    async with hosting(settings, mode=mode, client_info=Implementation(name=client, version="1")) as host:
        started = await host.start(emulate={"duration_s": 0.2, "text": LONG}, wait_s=20)
        job_id = started["job_id"]
        polled = await host.call("agent_poll", job_id=job_id)
        page = await host.call("agent_result", job_id=job_id)
        rest = await host.call("agent_result", job_id=job_id, offset=len(page["output"]))
        asked = await host.call("agent_result", job_id=job_id, max_bytes=20_000)
        whole = await host.call("agent_result", job_id=job_id, max_bytes=100_000)
    for answer in (started, polled, page, rest):
        assert most / 2 < len(compact_json(answer["output"]).encode()) <= most
        assert len(compact_json(answer).encode()) <= most + 250
    assert 10_000 < len(asked["output"]) <= 20_000
    assert whole["output"] == LONG


@pytest.mark.parametrize(("client", "is_whole"), [("codex-mcp-client", False), ("a host", True)])
async def test_batch_shows_an_output_only_if_it_fits_the_host(settings: Settings, client: str, is_whole: bool) -> None:
    async with hosting(settings, client_info=Implementation(name=client, version="1")) as host:
        await run_job(host, "x" * 12_000, batch="b")
        [done] = (await host.call("agent_poll", batch="b", wait_s=30))["done"]
    assert ("output" in done) is is_whole


async def test_long_list_fits_its_host_and_counts_the_omitted_jobs(settings: Settings) -> None:
    async with hosting(settings, client_info=Implementation(name="codex-mcp-client", version="1")) as host:
        for first in range(0, 60, 20):
            prompts = [f"{n} {'题' * 40}" for n in range(first, first + 20)]
            await host.call("agent_start", prompts=prompts)
        listed = await host.call("agent_list", limit=100)
        await host.call("agent_cancel", job_ids=[row["job_id"] for row in listed["jobs"]])
    assert len(compact_json(listed).encode()) <= 9_250
    assert len(listed["jobs"]) + listed["more"] == 60
