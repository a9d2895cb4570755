"""The claims of the README are true."""

import json
import re
import tomllib
from pathlib import Path

from hosts import hosting

from agent_jobs.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def read_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def read_table(heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading, without its header."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def test_every_host_entry_starts_this_program() -> None:
    entries = [json.loads(block) for block in read_blocks("json")] + [
        tomllib.loads(block) for block in read_blocks("toml")
    ]
    servers = [entry.get("mcpServers") or entry.get("servers") or entry.get("mcp_servers") for entry in entries]
    assert [server["agent-jobs"]["args"] for server in servers] == [["agent-jobs"]] * 3


def test_the_two_commands_are_what_ci_and_the_package_run() -> None:
    commands = [line for block in read_blocks("sh") for line in block.splitlines()]
    assert commands[:2] == ["uvx --from . agent-jobs demo", "uv run scripts/test"]
    assert commands[1] in (ROOT / ".ci/run").read_text().splitlines()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"agent-jobs": "agent_jobs.__main__:main"}


async def test_the_tools_are_those_that_the_server_lists(settings: Settings) -> None:
    async with hosting(settings) as host:
        listed = [tool.name for tool in (await host.client.list_tools()).tools]
    assert [row[0].strip("`") for row in read_table("The tools")] == listed
