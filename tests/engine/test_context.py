"""Requests that certainly exceed a model's context are refused before they are sent."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, hosting

from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings

CONTEXT = 20_000
PRICES = f"""
[models."gpt-6.1-sol"]
input = 2.0
output = 10.0
context_tokens = {CONTEXT}
"""


def make_text(tokens: int) -> str:
    """Return a text of at least this many tokens."""
    return "abcdefg " * tokens


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "large.txt").write_text(make_text(21_000))
    (folder / "half.md").write_text(make_text(11_000))
    (tmp_path / "prices.toml").write_text(PRICES)
    return replace(settings, prices=tmp_path / "prices.toml", file_roots=(folder,))


async def complete_job(host: Host, *, web_search: bool = False, **emulate: Any) -> str:
    """Complete a job that a follow-up can continue; return its id."""
    started = await host.start(emulate={"duration_s": 1, "text": "before", **emulate}, web_search=web_search)
    await host.end(started["job_id"])
    return started["job_id"]


LARGE: dict[str, tuple[dict[str, Any], str]] = {
    "a prompt": ({"prompt": make_text(21_000)}, "The prompt has at least"),
    "one of several prompts": ({"prompts": ["small", make_text(21_000)]}, "The prompt has at least"),
    "instructions": ({"options": {"instructions": make_text(21_000)}}, "instructions 2"),
    "a text file": ({"files": ["large.txt"]}, "files 2"),
    "all together": (
        {"prompt": make_text(5_000), "files": ["half.md"], "options": {"instructions": make_text(5_000)}},
        "the prompt 4,999, files 10,999, instructions 4,999",
    ),
    "the job before": ({"previous_job_id": "counted"}, "the job before 21,500"),
    "the job before, whose text counts": ({"previous_job_id": "uncounted"}, "the job before 2"),
    "the job before and a file": ({"previous_job_id": "half", "files": ["half.md"]}, "the job before 10,500"),
}


async def test_every_part_of_a_request_counts_toward_its_size(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        counted = {"output_tokens": 3_500, "output_tokens_details": {"reasoning_tokens": 1_000}}
        jobs = {
            "counted": await complete_job(host, usage={"input_tokens": 19_000, **counted}),
            "half": await complete_job(host, usage={"input_tokens": 8_000, **counted}),
            "uncounted": await complete_job(host, usage=None, text=None, length=190_000),
        }
        creates = upstream.emulator.counters()["creates"]
        for arguments, words in LARGE.values():
            asked = {"prompt": "go on", **arguments} if "prompts" not in arguments else dict(arguments)
            if "previous_job_id" in asked:
                asked["previous_job_id"] = jobs[asked["previous_job_id"]]
            for more in ({}, {"dry_run": True}):
                options = {**arguments.get("options", {}), **more}
                sentence = await host.refused("agent_start", **{**asked, "options": options})
                assert words in sentence
                assert f"gpt-6.1-sol reads at most {CONTEXT:,}" in sentence
        assert upstream.emulator.counters()["creates"] == creates


async def test_request_that_may_fit_is_sent(settings: Settings) -> None:
    async with hosting(settings) as host:
        # Upstream read its input several times, and counted it each time.
        searched = await complete_job(
            host, usage={"input_tokens": 90_000, "output_tokens": 500}, searches=2, web_search=True
        )
        may_fit: list[dict[str, Any]] = [
            {"prompt": make_text(19_000)},
            {"prompt": " \n" * 90_000 + "blanks"},
            {"files": ["half.md"], "options": {"instructions": make_text(8_000)}},
            {"previous_job_id": searched, "options": {"tools": [{"type": "web_search"}]}},
            {"prompt": make_text(30_000), "model": "gpt-6.2-astra"},
        ]
        for asked in may_fit:
            started = await host.call("agent_start", **{"prompt": "go on", "wait_s": 0, **asked})
            assert "job_id" in started
