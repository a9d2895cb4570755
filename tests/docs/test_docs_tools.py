"""The statements of docs/tools.md and docs/files.md are true."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hosts import hosting

from agent_jobs.attachments import file_reader
from agent_jobs.attachments.attachment import DATA_TYPES
from agent_jobs.engine import finalize
from agent_jobs.mcp_server.wait_limits import (
    BACKGROUND_NOTE,
    LEARNED_SHARE,
    SDK_NAMES,
    SDK_WAIT_CAP_S,
    WAIT_CAP_S,
    WAIT_CAPS_S,
)
from agent_jobs.rendering.answers import ADVICE_BYTES, DRY_RUN_BYTES, RUNNING_BYTES, START_BYTES
from agent_jobs.rendering.paging import OUTPUT_BYTES
from agent_jobs.settings.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
PAGE, _, SENT = (DOCS / "tools.md").read_text().partition("## As the host sees it")
FILES = (DOCS / "files.md").read_text()
ANSWERS = [line for block in re.findall(r"```\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


def read_section(heading: str) -> str:
    return PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def list_names(heading: str, head: str) -> list[str]:
    """Return the names in the first cells of the table with this head."""
    table = read_section(heading).partition(f"| {head} |\n")[2].partition("\n\n")[0]
    return [name for row in table.splitlines()[1:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]


async def test_page_lists_every_argument_of_every_tool_and_no_other(settings: Settings) -> None:
    async with hosting(settings) as host:
        tools = {tool.name: tool.input_schema["properties"] for tool in (await host.client.list_tools()).tools}
    for name, arguments in tools.items():
        assert list_names(name, "argument |") == [*arguments], name
    assert list_names("agent_result", "`part` | contents") == tools["agent_result"]["part"]["enum"]
    assert re.findall(r"^## (agent_\w+)$", PAGE, re.M) == [*tools]


async def test_schemas_are_those_that_are_sent(settings: Settings) -> None:
    async with hosting(settings) as host:
        sent = (await host.client.list_tools()).tools
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", SENT, re.S)]
    assert shown == [tool.input_schema for tool in sent]
    assert all(f"> {tool.description}\n" in SENT for tool in sent)
    [(count, size)] = re.findall(r"(\d+) tools, ([\d,]+) bytes", SENT)
    assert f"| {count} | {size} |" in (DOCS / "comparison.md").read_text()


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer_is_json(answer: str) -> None:
    shown: dict[str, Any] = json.loads(answer)
    assert shown


def test_sizes_are_those_of_the_program() -> None:
    sizes = {int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d(?=\s(?:bytes|for several))", PAGE)}
    assert {START_BYTES, RUNNING_BYTES, ADVICE_BYTES, DRY_RUN_BYTES, OUTPUT_BYTES} <= sizes


def test_waits_of_hosts_are_those_of_the_program() -> None:
    waits = PAGE.partition("### How long a call waits\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:4]] for row in waits.splitlines() if row.startswith("| ")][1:]
    shown = {name: float(seconds) for _, names, seconds in rows for name in re.findall(r"`([^`]+)`", names)}
    assert shown == {**WAIT_CAPS_S, **dict.fromkeys(SDK_NAMES, SDK_WAIT_CAP_S)}
    assert float(rows[-1][2]) == WAIT_CAP_S
    assert f"`{BACKGROUND_NOTE}`" in waits
    assert f"than {LEARNED_SHARE} of that time" in " ".join(waits.split())


def test_limits_of_files_are_those_of_the_program() -> None:
    limits = {int(number) * 2**20 for number in re.findall(r"(\d+) MiB", FILES)}
    assert limits == {*file_reader.LIMIT_BYTES.values(), file_reader.INLINE_BYTES, file_reader.UPLOAD_BYTES}
    assert f"{file_reader.MAX_FILES} files" in FILES
    assert {*re.findall(r"`(\.\w+)`", FILES.partition("| data:")[2].partition("|")[0])} <= {*DATA_TYPES}
    assert finalize.FINALIZE_MAX_S == 86_400
