"""The pages show the entries and links that `install` makes."""

import json
import re
import runpy
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agent_jobs.install.command import PINNED
from agent_jobs.install.entry import render_fragment
from agent_jobs.install.hosts import HOSTS
from agent_jobs.install.machine import Launch
from agent_jobs.settings.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/install.md").read_text()
SHOWN = Launch("/path/to/agent-jobs", ())


def read_links() -> dict[str, dict[str, Any]]:
    """Return the fields of each one-click link of the page, by the host of its address."""
    fields: dict[str, dict[str, Any]] = {}
    for text, link in re.findall(r"^\[!\[(.*?)\]\(.*?\)\]\((.*?)\)$", PAGE, re.M):
        url = urlsplit(str(link))
        fields[text] = {"at": url.netloc + url.path, **parse_qs(url.query)}
    return fields


def test_generated_parts_of_the_pages_are_up_to_date():
    check = subprocess.run(
        [sys.executable, ROOT / "scripts/pages", "--check"], capture_output=True, text=True, check=False
    )
    assert (check.returncode, check.stderr) == (0, "")


def test_pages_script_rewrites_a_stale_page():
    script = runpy.run_path(str(ROOT / "scripts/pages"))
    stale = PAGE.replace("/path/to/agent-jobs", "/path/to/another")
    assert stale != PAGE
    assert script["update_page"](stale) == PAGE


@pytest.mark.parametrize("host", HOSTS)
def test_page_shows_the_entry_of_every_host(host: str):
    [section] = [
        section
        for section in re.split(r"^(?=\*\*)", PAGE, flags=re.M)
        if re.match(rf"\*\*.*{re.escape(HOSTS[host].title.removesuffix(' (Cascade)'))}", section)
        and "<!-- begin" in section
    ]
    assert f"```{HOSTS[host].format}\n{render_fragment(HOSTS[host], SHOWN, {})}```" in section


def test_cursor_s_link_holds_its_entry():
    link = read_links()["Add to Cursor"]
    assert link["at"] == "cursor.com/en/install-mcp"
    assert link["name"] == ["agent-jobs"]
    assert json.loads(b64decode(link["config"][0])) == HOSTS["cursor"].entry(PINNED, {})


@pytest.mark.parametrize(
    ("text", "quality"), [("Install in VS Code", None), ("Install in VS Code Insiders", ["insiders"])]
)
def test_vs_code_s_link_holds_its_entry_and_the_question_for_the_key(text: str, quality: list[str] | None):
    link = read_links()[text]
    assert link["at"] == "insiders.vscode.dev/redirect/mcp/install"
    assert link["name"] == ["agent-jobs"]
    assert link.get("quality") == quality
    entry = json.loads(link["config"][0])
    assert entry == HOSTS["vscode"].entry(PINNED, {})
    [question] = json.loads(link["inputs"][0])
    assert entry["env"]["OPENAI_API_KEY"] == f"${{input:{question['id']}}}"
    assert question["password"] is True


def test_lm_studio_s_link_holds_its_entry():
    link = read_links()["Add to LM Studio"]
    assert link["at"] == "lmstudio.ai/install-mcp"
    assert json.loads(b64decode(link["config"][0])) == HOSTS["lm-studio"].entry(PINNED, {})


def test_goose_s_link_starts_the_same_command_and_asks_for_the_key():
    link = read_links()["Install in Goose"]
    assert link["at"] == "block.github.io/goose/extension"
    entry = HOSTS["goose"].entry(PINNED, {})
    assert (link["cmd"], link["arg"]) == ([entry["cmd"]], entry["args"])
    assert link["env"][0].split("=")[0] in entry["env_keys"]


def test_no_entry_has_a_key_and_every_variable_is_a_setting():
    names = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    assert Settings.from_env(dict.fromkeys(names, ""))
    for host in HOSTS.values():
        assert "sk-" not in render_fragment(host, SHOWN, {})
        entry = host.entry(SHOWN, {})
        assert {*entry.get(host.env, {}), *entry.get(host.forwards or "", ())} <= names
