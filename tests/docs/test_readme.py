"""The claims of the README are true."""

import html
import re
import shlex
import tomllib
from pathlib import Path

from hosts import hosting
from terminals import Terminal

from agent_jobs.cli.demo_story import ANSWER
from agent_jobs.settings.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def read_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def read_table(heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading, without its header."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def test_first_commands_show_the_demo_and_install_and_the_test_command_is_that_of_ci() -> None:
    commands = [line for block in read_blocks("sh") for line in block.splitlines()]
    assert commands[:2] == ["uvx --from . agent-jobs demo", "uvx --from . agent-jobs install claude-code"]
    [tests] = [command for command in commands if "scripts/test" in command]
    assert tests in (ROOT / ".ci/run").read_text().splitlines()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"agent-jobs": "agent_jobs.__main__:main"}


async def test_tools_are_those_that_the_server_lists(settings: Settings) -> None:
    async with hosting(settings) as host:
        listed = [tool.name for tool in (await host.client.list_tools()).tools]
    assert [row[0].strip("`") for row in read_table("The tools")] == listed


def test_cost_is_that_of_a_dry_run(tmp_path: Path) -> None:
    [line] = re.findall(r"`agent-jobs (run [^`]*--dry-run)` says", README)
    [usd] = re.findall(r"says at most (\$[\d.]+) with", README)
    shown = Terminal("https://api.openai.com/v1", tmp_path / "jobs").pipe(*shlex.split(line))
    assert re.search(rf"^at most +{re.escape(usd)}:", shown.stdout, re.M), shown


def test_pictures_show_the_demo_as_it_is_worded_now() -> None:
    [dark, light] = re.findall(r"docs/pictures/demo-\w+\.svg", README)
    for name in (dark, light):
        picture = (ROOT / name).read_text()
        assert "font-face" not in picture
        words = " ".join(
            html.unescape(text).replace("\xa0", " ") for text in re.findall(r"<text[^>]*>([^<]*)</text>", picture)
        )
        assert ANSWER.split(".")[0] in " ".join(words.split())
