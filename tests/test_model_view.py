"""What the host's model reads: one copy of each answer, its facts before its long text, and how to go on."""

import json
from dataclasses import replace
from typing import Any

import pytest
from mcp_types import TextContent

from agent_jobs.settings import Settings
from hosts import hosting

#: Calls of every tool, those that are refused too.
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
async def test_every_answer_is_in_the_text_and_only_a_setting_repeats_it(
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
