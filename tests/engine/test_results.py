"""The results of jobs are read in parts through tools, prompts and resources, over the emulated upstream."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hosts import Host, eventually, hosting
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent, TextResourceContents

from agent_jobs.emulator.server import RunningServer
from agent_jobs.rendering.markdown import render_markdown
from agent_jobs.request.presets import load_our_presets
from agent_jobs.settings.settings import Settings
from agent_jobs.text import compact_json

PARTS = ("text", "outline", "sources", "items", "files", "reasoning", "usage", "meta", "partial")
#: Bytes of the fields around a page: ids, offsets, and the start of the next page.
ENVELOPE_BYTES = 250
#: Emoji of several code points, flags, CJK, Arabic and Hebrew with marks, quotes and controls that JSON escapes.
SCRIPTS = '👩‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽 漢字かな交じり文。한국어 العَرَبِيَّة שָׁלוֹם "quoted" \\ \t e\u0301 \u200f\u202b𝔘\r\n\n'
LISTING = """Intro.

# Überblick

日本語のテキスト。

```sh
# no heading
```

## Costs 💶 and *more*

### Deep ###

The end.
"""


def count_bytes(answer: dict[str, Any]) -> int:
    return len(compact_json(answer).encode())


async def run_job(host: Host, options: dict[str, Any] | None = None, **emulate: Any) -> dict[str, Any]:
    """Return the answer about a finished job that runs this script."""
    started = await host.start(emulate={"duration_s": 1, **emulate}, options=options or {})
    return await host.end(started["job_id"])


async def read_pages(host: Host, job_id: str, max_bytes: int, part: str = "text") -> list[Any]:
    """Return the pages of a part, each read by the call that the one before names."""
    found: list[Any] = []
    asked: dict[str, Any] = {"job_id": job_id, "part": part}
    while True:
        answer = await host.call("agent_result", **asked, max_bytes=max_bytes)
        found.append(answer["output" if part == "text" else part])
        assert count_bytes(answer) <= max_bytes + ENVELOPE_BYTES
        if "next" not in answer:
            return found
        tool, *arguments = answer["next"].split()
        assert tool == "agent_result"
        after = dict(argument.split("=") for argument in arguments)
        assert int(after["offset"]) > asked.get("offset", 0)
        asked |= after | {"offset": int(after["offset"])}


# Text.


@pytest.mark.parametrize(
    ("chars", "limits", "unit"),
    [
        (0, (500,), ""),
        (61_000, (500, 3_001, 24_000), SCRIPTS),
        (61_000, (3_001, 100_000), "x"),
        (61_000, (3_001, 24_000), "汉"),
        (61_000, (3_001, 24_000), "🇩🇪"),
        (61_000, (500, 24_000), "שלום עולם. "),
        (1_000_000, (24_000, 100_000), SCRIPTS),
        (1_000_000, (100_000,), "汉"),
    ],
    ids=["empty", "mixed", "one word", "CJK", "flags", "right to left", "a million mixed", "a million CJK"],
)
async def test_pages_together_are_the_text_byte_for_byte(
    settings: Settings, chars: int, limits: tuple[int, ...], unit: str
) -> None:
    text = (unit * chars)[:chars]
    async with hosting(settings) as host:
        answer = await run_job(host, text=text)
        for limit in limits:
            put_together = "".join(await read_pages(host, answer["job_id"], limit))
            assert put_together == text
    assert text.startswith(answer["output"])
    assert answer.get("bytes", chars and len(text.encode())) == len(text.encode())


async def test_offset_beyond_the_end_or_within_a_character_is_accepted(settings: Settings) -> None:
    async with hosting(settings) as host:
        answer = await run_job(host, text="äöü")
        within = await host.call("agent_result", job_id=answer["job_id"], offset=1)
        beyond = await host.call("agent_result", job_id=answer["job_id"], offset=10**12)
        refused = await host.refused("agent_result", job_id=answer["job_id"], offset=-1)
    assert within["output"] == "äöü"
    assert beyond["output"] == ""
    assert "offset" in refused


# Parts.


async def test_outline_offsets_lead_to_the_headings(settings: Settings) -> None:
    text = LISTING + "filler. " * 2_000 + "\n\n# Last\n"
    async with hosting(settings) as host:
        answer = await run_job(host, text=text)
        outline = [entry for page in await read_pages(host, answer["job_id"], 500, "outline") for entry in page]
        read = [
            (await host.call("agent_result", job_id=answer["job_id"], offset=entry["offset"], max_bytes=500))["output"]
            for entry in outline
        ]
    assert [(entry["level"], entry["title"]) for entry in outline] == [
        (1, "Überblick"), (2, "Costs 💶 and *more*"), (3, "Deep"), (1, "Last"),
    ]  # fmt: skip
    starts = ["# Überblick\n", "## Costs", "### Deep", "# Last\n"]
    assert [page.startswith(start) for page, start in zip(read, starts, strict=True)] == [True] * 4


async def test_sources_are_listed_once_in_pages_with_cited_ones_first(settings: Settings) -> None:
    async with hosting(settings) as host:
        answer = await run_job(host, {"tools": [{"type": "web_search"}]}, searches=30, length=5_000)
        found = [entry for page in await read_pages(host, answer["job_id"], 700, "sources") for entry in page]
        at_once = (await host.call("agent_result", job_id=answer["job_id"], part="sources"))["sources"]
    assert found == at_once
    assert len({entry["url"] for entry in found}) == len(found) == 31
    assert not any("utm_" in entry["url"] for entry in found)
    assert found[0]["cited"] == 2
    assert found[-1]["cited"] == 0


async def test_items_list_the_steps_without_pictures(settings: Settings) -> None:
    tools = [{"type": "web_search"}, {"type": "image_generation"}, {"type": "code_interpreter"}]
    async with hosting(settings) as host:
        answer = await run_job(
            host, {"tools": tools, "include": ["reasoning.encrypted_content"]}, searches=3, images=1, image_px=64,
            container_files=[{"filename": "a.csv", "text": "1"}], text="Here.",
        )  # fmt: skip
        items = [entry for page in await read_pages(host, answer["job_id"], 500, "items") for entry in page]
    assert [item["type"] for item in items] == [
        "reasoning", *["web_search_call"] * 3, "code_interpreter_call", "image_generation_call", "message",
    ]  # fmt: skip
    assert items[1]["query"] == "emulated query 1"
    assert "to_csv" in items[4]["code"]
    assert items[-1]["text"] == "Here."
    assert "iVBOR" not in compact_json(items)
    assert "gAAAA" not in compact_json(items)


async def test_reasoning_part_joins_the_summaries_or_is_empty(settings: Settings) -> None:
    async with hosting(settings) as host:
        with_summary = await run_job(host, {"reasoning_summary": "auto"}, reasoning=3)
        without = await run_job(host, reasoning=1)
        shown_text = "".join(await read_pages(host, with_summary["job_id"], 500, "reasoning"))
        nothing = await host.call("agent_result", job_id=without["job_id"], part="reasoning")
    assert shown_text.count("This is emulated reasoning") == 3
    assert nothing == {"job_id": without["job_id"], "reasoning": ""}


async def test_usage_is_the_count_of_upstream_or_empty(settings: Settings) -> None:
    counts = {"input_tokens": 1000, "output_tokens": 500, "output_tokens_details": {"reasoning_tokens": 400}}
    async with hosting(settings) as host:
        counted = await run_job(host, usage=counts)
        uncounted = await run_job(host, usage=None)
        usage = (await host.call("agent_result", job_id=counted["job_id"], part="usage"))["usage"]
        nothing = (await host.call("agent_result", job_id=uncounted["job_id"], part="usage"))["usage"]
    assert usage == {
        "input_tokens": 1000, "cached_tokens": 0, "output_tokens": 500, "reasoning_tokens": 400,
    }  # fmt: skip
    assert nothing == {}


async def test_meta_shows_how_a_job_was_sent_without_its_prompt_and_keeps_its_size(
    settings: Settings, upstream: RunningServer
) -> None:
    words = "No stream in the background here. " * 14
    upstream.queue_fault(on="create", status=400, body={"error": {"message": words, "param": "stream"}})
    async with hosting(settings) as host:
        started = await host.start(
            "a private question", emulate={"duration_s": 1}, batch="mine", options={"instructions": "Be private." * 50}
        )
        await host.end(started["job_id"])
        meta = (await host.call("agent_result", job_id=started["job_id"], part="meta"))["meta"]
        small = await host.call("agent_result", job_id=started["job_id"], part="meta", max_bytes=500)
    assert meta["response_id"] == started["response_id"]
    assert meta["batch"] == "mine"
    assert meta["request"]["instructions"] == "[550 bytes]"
    assert "private question" not in compact_json(meta["request"])
    assert meta["mode"] == "background"
    assert any("No stream in the background here." in event for event in meta["events"])
    assert count_bytes(small) <= 500 + ENVELOPE_BYTES
    assert small["meta"]["response_id"] == started["response_id"]


async def test_running_job_shows_only_its_partial_text_and_reasoning(settings: Settings) -> None:
    async with hosting(settings) as host:
        script = {"end": "never", "length": 4_000, "duration_s": 2, "reasoning": 3}
        started = await host.start(emulate=script, options={"reasoning_summary": "auto"})
        with anyio.fail_after(60):
            while not (answer := await host.call("agent_result", job_id=started["job_id"], part="partial"))["partial"]:
                await host.call("agent_poll", job_id=started["job_id"], wait_s=1)
        thought = await host.call("agent_result", job_id=started["job_id"], part="reasoning")
        refusals = [
            await host.refused("agent_result", job_id=started["job_id"], part=part)
            for part in PARTS
            if part not in ("partial", "reasoning")
        ]
        await host.call("agent_cancel", job_id=started["job_id"])
    assert "emulated answer" in answer["partial"]
    assert [part[:25] for part in thought["reasoning"].split("\n\n") if part.startswith("**")] == [
        "**Looking at the request*", "**Weighing the possible a", "**Checking the details ag"
    ]  # fmt: skip
    assert set(refusals) == {refusals[0]}
    assert "has no result yet. Call agent_poll" in refusals[0]


@pytest.mark.parametrize("part", PARTS)
async def test_every_part_of_every_outcome_keeps_its_size_limit(settings: Settings, part: str) -> None:
    async with hosting(settings) as host:
        for end in ("completed", "failed", "incomplete", "refusal"):
            answer = await run_job(host, {"tools": [{"type": "web_search"}]}, end=end, length=30_000, searches=20)
            for max_bytes in (500, 4_000):
                got = await host.call("agent_result", job_id=answer["job_id"], part=part, max_bytes=max_bytes)
                assert count_bytes(got) <= max_bytes + ENVELOPE_BYTES
                assert ("output" if part == "text" else part) in got


# Results on disk.


async def test_finished_result_is_written_as_a_markdown_file_named_by_the_poll(
    settings: Settings, tmp_path: Path
) -> None:
    results = tmp_path / "new" / "results"
    async with hosting(replace(settings, result_dir=results)) as host:
        prompt = "Größe/ändern: *now* 𝔘𝔘𝔘\n" + "x" * 200
        started = await host.start(
            prompt,
            emulate={"duration_s": 1, "text": LISTING, "searches": 2},
            options={"tools": [{"type": "web_search"}]},
        )
        answer = await host.end(started["job_id"])
        failed = await run_job(host, end="failed", length=0)
        job = (await (await host.app.engine()).result(started["job_id"])).job
        await host.start(emulate={"duration_s": 1}, batch="b")
        rows = await host.call("agent_poll", batch="b")
    written = on_disk(results)
    assert answer["result_path"] == str(results / Path(answer["result_path"]).name)
    assert written[Path(answer["result_path"]).name] == render_markdown(job)
    assert LISTING in render_markdown(job)
    assert "## Sources" in render_markdown(job)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-größe-ändern-now-.*-job_\w{12}\.md", Path(answer["result_path"]).name)
    assert rows["done"][0]["result_path"] in {str(results / name) for name in written}
    assert len(written) == 2 + ("result_path" in failed)
    assert not [name for name in written if name.startswith(".")], "no half-written file is left"


def list_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")]


def on_disk(folder: Path) -> dict[str, str]:
    return {path.name: path.read_bytes().decode() for path in folder.iterdir() if path.is_file()}


async def test_title_of_wide_letters_makes_a_valid_file_name(settings: Settings, tmp_path: Path) -> None:
    async with hosting(replace(settings, result_dir=tmp_path / "results")) as host:
        started = await host.start("𝔘" * 300, emulate={"duration_s": 1})
        answer = await host.end(started["job_id"])
    assert Path(answer["result_path"]).name in on_disk(tmp_path / "results")


async def test_no_result_is_written_without_a_result_folder(settings: Settings, tmp_path: Path) -> None:
    async with hosting(settings) as host:
        answer = await run_job(host)
    assert "result_path" not in answer
    assert not [name for name in list_files(tmp_path) if name.endswith(".md")]


# Structured output.

LAKE: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "area_km2": {"type": "number"}},
    "required": ["name", "area_km2"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "json_schema",
    [LAKE, {"schema": LAKE, "name": "lake"}, {**LAKE, "additionalProperties": True}, {"schema": LAKE, "strict": False}],
    ids=["strict", "wrapped", "open", "not strict"],
)
async def test_structured_answer_is_json_that_fits_its_schema(settings: Settings, json_schema: dict[str, Any]) -> None:
    async with hosting(settings) as host:
        answer = await run_job(host, {"json_schema": json_schema})
    lake = json.loads(answer["output"])
    assert isinstance(lake["name"], str)
    assert isinstance(lake["area_km2"], int | float)
    assert "invalid" not in answer


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"name": "Saimaa"}', "$ breaks 'required'"),
        ('{"name": "Saimaa", "area_km2": "wide"}', "$.area_km2 breaks 'type'"),
        ("Saimaa is large.", "not JSON"),
        ('{"name": "Saimaa", "area_km2": NaN}', "not JSON"),
        ("", "not JSON"),
    ],
)
async def test_answer_that_does_not_match_its_schema_is_reported(settings: Settings, text: str, why: str) -> None:
    async with hosting(settings) as host:
        answer = await run_job(host, {"json_schema": {"schema": LAKE, "strict": False}}, text=text)
    assert answer["status"] == "completed"
    assert answer["output"] == text
    assert why in answer["invalid"]


async def test_truncated_answer_is_not_reported_as_a_schema_mismatch(settings: Settings) -> None:
    async with hosting(settings) as host:
        answer = await run_job(host, {"json_schema": LAKE}, end="incomplete")
    assert answer["error"]["code"] == "max_output_tokens"
    assert "invalid" not in answer


async def test_schema_that_cannot_be_strict_is_refused_if_strict_is_requested(
    settings: Settings, upstream: RunningServer
) -> None:
    schema = {"schema": {**LAKE, "required": ["name"]}, "strict": True}
    async with hosting(settings) as host:
        message = await host.refused("agent_start", prompt="x", options={"json_schema": schema})
    assert "options.json_schema is not strict" in message
    assert upstream.emulator.counters()["creates"] == 0


# Prompts and resources.


async def test_presets_including_the_user_s_are_prompts(settings: Settings, tmp_path: Path) -> None:
    own = tmp_path / "presets.toml"
    own.write_text(
        '[quick]\ndescription = "Mine"\n[notes]\ndescription = "Release notes"\nprompt = "Notes on {task}!"\n'
    )
    async with hosting(replace(settings, presets=own)) as host:
        listed = {prompt.name: prompt for prompt in (await host.client.list_prompts()).prompts}
        ours = await host.client.get_prompt("deep_research", {"task": "tea {task}"})
        theirs = await host.client.get_prompt("notes", {"task": "1.0"})
        started = await host.start(emulate={"duration_s": 1}, preset="notes")
        for name, arguments in (("nothing", {"task": "x"}), ("notes", {}), ("notes", {"task": " "})):
            with pytest.raises(MCPError, match="each accepts a task"):
                await host.client.get_prompt(name, arguments)
    assert {*listed} == {*load_our_presets(), "notes"}
    assert listed["quick"].description == "Mine"
    assert [argument.name for argument in listed["notes"].arguments or []] == ["task"]
    assert isinstance(ours.messages[0].content, TextContent)
    assert 'preset="deep_research"' in ours.messages[0].content.text
    assert ours.messages[0].content.text.endswith("tea {task}")
    assert isinstance(theirs.messages[0].content, TextContent)
    assert theirs.messages[0].content.text == "Notes on 1.0!"
    assert "job_id" in started


async def test_built_in_presets_are_prompts_if_the_engine_cannot_open(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "presets.toml").write_text("[broken")
    async with hosting(replace(settings, presets=tmp_path / "presets.toml")) as host:
        listed = [prompt.name for prompt in (await host.client.list_prompts()).prompts]
        assert "AGENT_JOBS_PRESETS" in await host.refused("agent_start", prompt="x")
    assert listed == [*load_our_presets()]


async def test_job_and_its_full_output_are_resources(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        running_job = await host.start(emulate={"end": "never"})
        answer = await run_job(host, length=61_000)
        templates = [each.uri_template for each in (await host.client.list_resource_templates()).resource_templates]
        going_on = await read_resource(host, f"job://{running_job['job_id']}")
        ended = await read_resource(host, f"job://{answer['job_id']}")
        whole = await read_resource(host, f"job://{answer['job_id']}/result")
        nothing = await read_resource(host, f"job://{running_job['job_id']}/result")
        with pytest.raises(MCPError):
            await read_resource(host, "job://job_unknown")
        await host.call("agent_cancel", job_id=running_job["job_id"])
        await eventually(lambda: upstream.emulator.counters()["cancels"] == 1)
    assert templates == ["job://{job_id}", "job://{job_id}/result"]
    assert json.loads(going_on)["status"] in ("queued", "in_progress")
    assert json.loads(ended)["output"] == answer["output"]
    assert len(whole) == 61_000
    assert nothing == ""


async def read_resource(host: Host, uri: str) -> str:
    [content] = (await host.client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text
