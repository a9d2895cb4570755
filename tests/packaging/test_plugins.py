"""The plugins of Claude Code and Codex have the documented form, and start the command that `--uvx` writes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agent_jobs import __version__
from agent_jobs.install.command import PINNED
from agent_jobs.install.hosts import HOSTS

PACKAGING = Path(__file__).parents[2] / "packaging"
PLUGINS = {"claude-code": ".claude-plugin", "codex": ".codex-plugin"}
#: The fields of a manifest, and the types of their values. Both hosts require only the name.
FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str, "version": str, "description": str, "author": dict, "homepage": str, "repository": str,
    "license": str, "keywords": list, "skills": str, "mcpServers": str,
}  # fmt: skip
INTERFACE = {
    "displayName", "shortDescription", "longDescription", "developerName", "category", "capabilities", "websiteURL",
    "defaultPrompt",
}  # fmt: skip
TOOLS = {"agent_start", "agent_poll", "agent_result", "agent_list", "agent_reply", "agent_cancel"}


def read_manifest(host: str) -> dict[str, Any]:
    return json.loads((PACKAGING / f"{host}-plugin" / PLUGINS[host] / "plugin.json").read_text())


@pytest.mark.parametrize("host", PLUGINS)
def test_manifest_has_the_fields_that_its_host_documents(host: str):
    found = read_manifest(host)
    interface = found.pop("interface", {})
    assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", found["name"])
    assert found["version"] == __version__
    assert {name for name, value in found.items() if not isinstance(value, FIELDS[name])} == set()
    assert interface.keys() <= INTERFACE
    assert bool(interface) == (host == "codex"), "Claude Code has no such field"


@pytest.mark.parametrize("host", PLUGINS)
def test_only_the_manifest_is_in_its_folder_and_every_path_leads_somewhere(host: str):
    root = PACKAGING / f"{host}-plugin"
    assert [path.name for path in (root / PLUGINS[host]).iterdir()] == ["plugin.json"]
    for name in ("skills", "mcpServers"):
        path = read_manifest(host).get(name)
        assert path is None or (path.startswith("./") and (root / path).exists())
    assert (root / ".mcp.json").is_file()


@pytest.mark.parametrize("host", PLUGINS)
def test_server_is_the_entry_of_its_host(host: str):
    servers = json.loads((PACKAGING / f"{host}-plugin/.mcp.json").read_text())
    assert servers == {"mcpServers": {"agent-jobs": HOSTS[host].entry(PINNED, {})}}


@pytest.mark.parametrize("host", PLUGINS)
def test_one_skill_explains_the_loop_and_names_only_existing_tools(host: str):
    [file] = (PACKAGING / f"{host}-plugin").glob("skills/*/SKILL.md")
    text = file.read_text()
    assert text == (PACKAGING / "codex-plugin/skills" / file.parent.name / "SKILL.md").read_text()
    found = re.fullmatch(r"---\nname: ([a-z0-9-]{1,64})\ndescription: (.{1,1024})\n---\n(.*)", text, re.S)
    assert found is not None
    assert found[1] == file.parent.name
    assert "\n" not in found[2]
    assert set(re.findall(r"\bagent_\w+", text)) == TOOLS
    body = found[3]
    assert body.index("agent_start") < body.index("agent_poll") < body.index("agent_result")
