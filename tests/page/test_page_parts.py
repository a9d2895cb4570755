"""The page's scripts are those that their authors released, and no other command loads the page."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent_jobs.page.safe_html import render_markdown

ROOT = Path(__file__).parents[2]
#: Packages that only the page imports.
ONLY_OF_THE_PAGE = {"agent_jobs.page", "jinja2", "nh3"}


def test_vendored_scripts_are_those_of_the_list() -> None:
    checked = subprocess.run([sys.executable, "scripts/vendor"], cwd=ROOT, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_server_and_the_other_commands_load_nothing_of_the_page() -> None:
    script = (
        "import importlib, pkgutil, sys, agent_jobs.cli, agent_jobs.mcp_server.server, agent_jobs.mcp_server.stdio\n"
        "for found in pkgutil.iter_modules(agent_jobs.cli.__path__):\n"
        "    importlib.import_module(f'agent_jobs.cli.{found.name}')\n"
        "print(*sys.modules)"
    )
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not ONLY_OF_THE_PAGE & set(listed.stdout.split())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a <b onclick=x>", "<p>a &lt;b onclick=x&gt;</p>\n"),
        ("[a](javascript:x)", "<p>[a](javascript:x)</p>\n"),
        ("![a](https://x.example/a.png)", '<a href="https://x.example/a.png" rel="noopener noreferrer nofollow">a</a>'),
        ('style="text-align:right"', "<p>style=&quot;text-align:right&quot;</p>\n"),
        ("| a |\n|--:|\n| 1 |", '<td align="right">1</td>'),
        ("[a](/jobs/x)", '<p><a rel="noopener noreferrer nofollow">a</a></p>'),
        ("gpj.\u202eexe", "<p>gpj.exe</p>\n"),
    ],
)
def test_markdown_becomes_html_that_can_do_nothing(text: str, shown: str) -> None:
    assert shown.replace("&quot;", '"') in render_markdown(text).replace("&quot;", '"')


@pytest.mark.parametrize(
    "text",
    [
        ">" * 10_000 + " end",
        "- " * 10_000 + "end",
        "> 1. " * 5_000 + "end",
        "".join("  " * level + "- a\n" for level in range(400)) + "  " * 400 + "- end",
        "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 40_000 + "end",
        "[a](https://x.example/) " * 12_000 + "end",
        "[" * 250_000 + "end",
        "*a_" * 90_000 + "end",
        "x" * 300_001 + "end",
    ],
    ids=["quotes", "lists", "both", "indented lists", "table", "links", "brackets", "emphasis", "length"],
)
def test_text_that_is_too_slow_or_too_deep_to_render_stays_plain(text: str) -> None:
    html = render_markdown(text)
    assert html.startswith("<pre>") and html.endswith("end</pre>")


@pytest.mark.parametrize("levels", [2, 12, 20])
@pytest.mark.parametrize("mark", ["-", "1.", ">"])
def test_nested_lists_and_quotes_keep_their_depths(mark: str, levels: int) -> None:
    indent = " " * (len(mark) + 1) if mark != ">" else "> "
    html = render_markdown("\n".join(indent * level + f"{mark} a{level}" for level in range(levels)))
    assert f"a{levels - 1}" in html
