"""`install` and `uninstall` change one entry in the right file of a host, and no other byte."""

import json
import os
import re
import shutil
import stat
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fork_server
import pytest
import tomlkit
from click.testing import CliRunner, Result
from fork_server import COMMAND
from hypothesis import given
from hypothesis import strategies as st

from agent_jobs import __version__
from agent_jobs.cli.install import PRINTED, WRITTEN
from agent_jobs.cli.install_report import mask_secrets
from agent_jobs.cli.main import cli
from agent_jobs.errors import ConfigError
from agent_jobs.install.command import find_launch
from agent_jobs.install.config_file import locate_file, read_snapshot, write_replacement
from agent_jobs.install.entry import install_entry, read_entry, remove_entry, render_fragment
from agent_jobs.install.hosts import HOSTS, KEY_PATH
from agent_jobs.install.machine import Launch, Machine
from agent_jobs.settings.settings import DEFAULT_BASE_URL
from agent_jobs.settings.stored_keys import store_key

UVX = Launch("/opt/bin/uvx", ("agent-jobs@0.1.0",))
JSON_HOSTS = ("claude-desktop", "claude-code", "cursor", "vscode", "opencode", "copilot-cli")

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the home folder of a user without any configuration, who works in a project folder."""
    for name in ("XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME", "APPDATA", "LOCALAPPDATA", "COPILOT_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home/project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home/project")
    return tmp_path / "home"


@pytest.fixture
def run(home: Path) -> Run:
    def run(*arguments: str, status: int = 0) -> Result:
        # test_install_trial.py tests the start of the written command.
        quick = ["--no-check"] if arguments[0] == "install" else []
        result = CliRunner().invoke(cli, [*arguments, *quick])
        assert result.exit_code == status, (result.output, result.exception)
        return result

    return run


def machine(platform: str, home: Path, **environ: str) -> Machine:
    return Machine(platform, home, environ, home / "project")


def read_folder(home: Path) -> dict[str, tuple[bytes, int]]:
    """Return the content and the mode of every file below a folder."""
    return {
        str(path.relative_to(home)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in home.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("host", "platform", "file"),
    [
        ("claude-desktop", "darwin", "Library/Application Support/Claude/claude_desktop_config.json"),
        ("claude-desktop", "win32", "AppData/Roaming/Claude/claude_desktop_config.json"),
        ("claude-desktop", "linux", ".config/Claude/claude_desktop_config.json"),
        *(("claude-code", platform, ".claude.json") for platform in ("darwin", "win32", "linux")),
        *(("cursor", platform, ".cursor/mcp.json") for platform in ("darwin", "win32", "linux")),
        ("vscode", "darwin", "Library/Application Support/Code/User/mcp.json"),
        ("vscode", "win32", "AppData/Roaming/Code/User/mcp.json"),
        ("vscode", "linux", ".config/Code/User/mcp.json"),
        *(("codex", platform, ".codex/config.toml") for platform in ("darwin", "win32", "linux")),
        *(("opencode", platform, ".config/opencode/opencode.json") for platform in ("darwin", "win32", "linux")),
        *(("kilo", platform, ".config/kilo/kilo.jsonc") for platform in ("darwin", "win32", "linux")),
        *(("qwen", platform, ".qwen/settings.json") for platform in ("darwin", "win32", "linux")),
        *(("copilot-cli", platform, ".copilot/mcp-config.json") for platform in ("darwin", "win32", "linux")),
    ],
)
def test_locate_finds_the_file_of_each_host_on_each_system(home: Path, host: str, platform: str, file: str):
    assert locate_file(HOSTS[host], machine(platform, home), "user") == home / file


@pytest.mark.parametrize(
    ("host", "platform", "variable", "file"),
    [
        ("claude-desktop", "win32", "APPDATA", "Claude/claude_desktop_config.json"),
        ("vscode", "linux", "XDG_CONFIG_HOME", "Code/User/mcp.json"),
        ("claude-code", "linux", "CLAUDE_CONFIG_DIR", ".claude.json"),
        ("codex", "darwin", "CODEX_HOME", "config.toml"),
        ("opencode", "darwin", "XDG_CONFIG_HOME", "opencode/opencode.json"),
        ("kilo", "linux", "XDG_CONFIG_HOME", "kilo/kilo.jsonc"),
        ("copilot-cli", "linux", "COPILOT_HOME", "mcp-config.json"),
    ],
)
def test_folder_variable_wins_over_the_default_folder(home: Path, host: str, platform: str, variable: str, file: str):
    moved = home / "moved"
    assert locate_file(HOSTS[host], machine(platform, home, **{variable: str(moved)}), "user") == moved / file


def test_claude_desktop_as_windows_package_uses_the_package_folder(home: Path):
    desktop, here = HOSTS["claude-desktop"], machine("win32", home)
    packages = home / "AppData/Local/Packages"
    roaming = [packages / f"Claude_{name}/LocalCache/Roaming" for name in ("pzs8", "other")]
    roaming[0].mkdir(parents=True)
    found = locate_file(desktop, here, "user")
    assert found == roaming[0] / "Claude/claude_desktop_config.json"
    roaming[1].mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"Claude_other.*Claude_pzs8.*--print"):
        locate_file(desktop, here, "user")
    write_replacement(read_snapshot(found), "{}\n")
    assert locate_file(desktop, here, "user") == found, "the existing file is read"


@pytest.mark.parametrize("host", [name for name in WRITTEN if HOSTS[name].project])
def test_project_scope_uses_the_project_file(home: Path, run: Run, host: str):
    run("install", host, "--scope", "project")
    assert [Path(name).parts[0] for name in read_folder(home)] == ["project"]
    assert list(read_folder(home / "project")) == [HOSTS[host].project]


def test_claude_desktop_refuses_project_scope(run: Run):
    assert "no file for a project" in run("install", "claude-desktop", "--scope", "project", status=1).output


def test_command_lists_every_known_host():
    assert set(WRITTEN) == {name for name, host in HOSTS.items() if host.user}
    assert set(PRINTED) == {name for name, host in HOSTS.items() if not host.user}


@pytest.mark.parametrize("host", WRITTEN)
def test_install_adds_one_entry_and_uninstall_removes_it(home: Path, run: Run, host: str):
    assert "Next:" in run("install", host).stdout
    [(name, (content, mode))] = read_folder(home).items()
    assert mode == 0o600, "a file that may hold a secret is readable by its owner only"
    entry = read_entry(HOSTS[host], content.decode())
    assert entry is not None
    assert os.path.isabs(HOSTS[host].read_command(entry).command)
    assert "sk-" not in content.decode()

    assert run("install", host).stdout == f"Nothing to do in {home / name}.\n"
    assert read_folder(home) == {name: (content, mode)}, "neither written nor backed up"

    run("uninstall", host)
    after = read_folder(home)
    assert after.pop(f"{name}.bak-1") == (content, mode)
    assert read_entry(HOSTS[host], after[name][0].decode()) is None
    assert run("uninstall", host).stdout == f"Nothing to do in {home / name}.\n"
    assert read_folder(home).keys() == {name, f"{name}.bak-1"}


def test_uninstall_creates_nothing_if_there_is_no_file(home: Path, run: Run):
    for host in WRITTEN:
        run("uninstall", host)
    assert read_folder(home) == {}


@pytest.mark.parametrize("host", WRITTEN)
def test_dry_run_shows_the_change_and_writes_nothing(home: Path, run: Run, host: str):
    shown = run("install", host, "--dry-run").stdout
    assert read_folder(home) == {}
    run("install", host)
    [(_, (content, _))] = read_folder(home).items()
    assert [line[1:] for line in shown.splitlines() if re.match(r"\+(?!\+\+)", line)] == content.decode().splitlines()
    before = read_folder(home)
    assert "\n-" in run("uninstall", host, "--dry-run").stdout
    assert read_folder(home) == before


def test_install_reports_variables_that_the_server_rejects(home: Path, run: Run):
    wrong = ("--env", "AGENT_JOBS_LOGLEVEL=x", "--env", "AGENT_JOBS_FOLLOW=all", "--env", "AGENT_JOBS_MODEL=gpt-x")
    output = run("install", "cursor", *wrong).stdout
    assert "Next: AGENT_JOBS_FOLLOW accepts" in output
    assert "Next: AGENT_JOBS_LOGLEVEL is not a setting and has no effect: did you mean AGENT_JOBS_LOG_LEVEL?" in output
    assert "MODEL" not in output
    assert (home / ".cursor/mcp.json").exists()


def test_json_report_names_host_file_and_action(home: Path, run: Run):
    file = home / ".cursor/mcp.json"
    done = json.loads(run("install", "cursor", "--json").stdout)
    assert {name: done[name] for name in ("host", "file", "action")} == {
        "host": "cursor", "file": str(file), "action": "installed",
    }  # fmt: skip
    assert any("start" in step.lower() for step in done["next"])
    assert json.loads(run("install", "cursor", "--json").stdout)["action"] == "unchanged"
    assert json.loads(run("uninstall", "cursor", "--dry-run", "--json").stdout)["action"] == "would be removed"
    assert json.loads(run("uninstall", "cursor", "--json").stdout)["backup"] == f"{file}.bak-1"
    printed = json.loads(run("install", "goose", "--print", "--json").stdout)
    assert printed["format"] == "yaml"
    assert "agent-jobs" in printed["entry"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("install", "cursor"), "config"),
        (("uninstall", "cursor"), "config"),
        (("install", "goose"), "config"),
        (("install", "codex", "--print", "--env", "OPENAI_API_KEY=sk-secret"), "bad_request"),
    ],
)
def test_refusal_is_json_with_json_flag(home: Path, run: Run, arguments: tuple[str, ...], code: str):
    write_replacement(read_snapshot(home / ".cursor/mcp.json"), "{")
    stderr = run(*arguments, status=1).stderr
    refused = run(*arguments, "--json", status=1)
    [(name, error)] = json.loads(refused.stdout).items()
    assert (name, error["code"], refused.stderr) == ("error", code, "")
    assert stderr == f"Error: {error['message']}\n"


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_is_printed_and_only_writable_hosts_are_written(home: Path, run: Run, host: str):
    printed = run("install", host, "--print")
    assert HOSTS[host].where in printed.stderr
    assert read_folder(home) == {}
    if HOSTS[host].user is None:
        assert "--print" in run("install", host, status=1).output
    elif HOSTS[host].format != "yaml":
        run("install", host)
        [(content, _)] = read_folder(home).values()
        assert content.decode() == printed.stdout


def test_yaml_entry_has_the_values_of_its_host():
    assert render_fragment(HOSTS["goose"], UVX, {"A": 'x: "y"'}) == (
        "extensions:\n"
        "  agent-jobs:\n"
        '    name: "agent-jobs"\n'
        '    type: "stdio"\n'
        "    enabled: true\n"
        '    cmd: "/opt/bin/uvx"\n'
        '    args: ["agent-jobs@0.1.0"]\n'
        "    timeout: 300\n"
        '    env_keys: ["OPENAI_API_KEY"]\n'
        "    envs:\n"
        '      A: "x: \\"y\\""\n'
    )


# --- approvals, and what a host does with tools ---

READ = {tool: {"approval_mode": "approve"} for tool in ("agent_poll", "agent_result", "agent_list")}
START = {"agent_start": {"approval_mode": "approve"}}


def read_codex_entry(home: Path) -> dict[str, Any]:
    return tomllib.loads((home / ".codex/config.toml").read_text())["mcp_servers"]["agent-jobs"]


def test_codex_entry_approves_reading_tools_and_agent_start_with_approve(home: Path, run: Run):
    output = run("install", "codex").stdout
    assert read_codex_entry(home)["tools"] == READ
    assert "run this again with --approve" in output
    assert "mcp_optional_startup_grace_ms = 5000" in output
    assert "--approve" not in run("install", "codex", "--approve").stdout
    assert read_codex_entry(home)["tools"] == READ | START
    assert run("install", "codex").stdout.startswith("Nothing to do"), "an approval is not removed"
    assert "agent_start" in run("install", "codex", "--print", "--approve").stdout


@pytest.mark.parametrize(
    ("before", "tools"),
    [
        ("", READ | START),
        ('[mcp_servers.agent-jobs]\ncommand = "x"\n[mcp_servers.agent-jobs.env]\nA = "1" # mine\n', READ | START),
        (
            '[mcp_servers.agent-jobs]\ncommand = "x"\n\n[mcp_servers.agent-jobs.tools.agent_poll]\n'
            'approval_mode = "prompt"\n',
            {"agent_poll": {"approval_mode": "prompt"}} | START,
        ),
        (
            '[mcp_servers.agent-jobs]\ncommand = "x"\ntools = { agent_start = { approval_mode = "prompt" } }\n',
            START,
        ),
    ],
)
def test_approval_keeps_the_user_s_own_settings(before: str, tools: dict[str, Any]):
    text = install_entry(HOSTS["codex"], before, UVX, {}, approve=True)
    entry = read_entry(HOSTS["codex"], text)
    assert entry is not None
    assert entry["tools"] == tools
    assert ("# mine" in before) == ("# mine" in text)


@pytest.mark.parametrize("host", [name for name in HOSTS if name != "codex"])
def test_approve_is_refused_for_a_host_with_approvals_elsewhere(run: Run, host: str):
    assert "Leave --approve out" in run("install", host, "--print", "--approve", status=1).output


@pytest.mark.parametrize(
    ("host", "file", "key"),
    [("claude-code", ".claude.json", "alwaysLoad"), ("qwen", ".qwen/settings.json", "alwaysLoadTools")],
)
def test_host_with_a_tool_search_loads_tools_at_once_unless_the_user_changed_it(
    home: Path, run: Run, host: str, file: str, key: str
):
    run("install", host)
    path = home / file
    assert json.loads(path.read_text())["mcpServers"]["agent-jobs"][key] is True
    path.write_text(path.read_text().replace(f'"{key}": true', f'"{key}": false'))
    run("install", host)
    assert json.loads(path.read_text())["mcpServers"]["agent-jobs"][key] is False


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("opencode", {"type": "local", "command": ["/opt/bin/uvx", "agent-jobs@0.1.0"], "enabled": True,
                      "environment": {"OPENAI_API_KEY": "{env:OPENAI_API_KEY}", "A": "b"}}),
        ("kilo", {"type": "local", "command": ["/opt/bin/uvx", "agent-jobs@0.1.0"], "enabled": True,
                  "environment": {"OPENAI_API_KEY": "{env:OPENAI_API_KEY}", "A": "b"}}),
        ("qwen", {"command": "/opt/bin/uvx", "args": ["agent-jobs@0.1.0"], "alwaysLoadTools": True,
                  "env": {"OPENAI_API_KEY": "$OPENAI_API_KEY", "A": "b"}}),
        ("copilot-cli", {"type": "local", "command": "/opt/bin/uvx", "args": ["agent-jobs@0.1.0"], "tools": ["*"],
                         "env": {"A": "b"}}),
    ],
)  # fmt: skip
def test_entry_has_the_form_of_its_host(host: str, entry: dict[str, Any]):
    text = install_entry(HOSTS[host], "", UVX, {"A": "b"})
    assert read_entry(HOSTS[host], text) == entry
    assert HOSTS[host].read_command(entry) == UVX


def test_listed_entry_has_its_name():
    assert render_fragment(HOSTS["continue"], UVX, {}) == (
        'mcpServers:\n  - name: "agent-jobs"\n    command: "/opt/bin/uvx"\n    args: ["agent-jobs@0.1.0"]\n'
    )


@pytest.mark.parametrize(("host", "name"), [("opencode", "opencode.jsonc"), ("kilo", "kilo.json")])
def test_existing_file_with_the_other_name_is_used(home: Path, run: Run, host: str, name: str):
    file = home / ".config" / host / name
    write_replacement(read_snapshot(file), '{\n  // mine\n  "theme": "dark"\n}\n')
    run("install", host)
    assert "// mine" in file.read_text()
    assert read_entry(HOSTS[host], file.read_text()) is not None
    assert sorted(path.name for path in file.parent.iterdir()) == [name, f"{name}.bak-1"]


@pytest.mark.parametrize("host", ["opencode", "qwen"])
def test_key_reference_of_the_host_is_accepted(run: Run, host: str):
    reference = HOSTS[host].secret
    assert str(reference) in run("install", host, "--print", "--env", f"OPENAI_API_KEY={reference}").stdout


# --- the key ---


@pytest.mark.parametrize("host", ["claude-code", "cursor", "vscode", "codex"])
def test_key_is_refused_for_hosts_that_hand_it_over(home: Path, run: Run, host: str):
    for arguments in ([], ["--dry-run"], ["--print"]):
        refused = run("install", host, "--env", "OPENAI_API_KEY=sk-secret", *arguments, status=1).output
        assert "AGENT_JOBS_API_KEY_FILE" in refused
        assert "sk-secret" not in refused
    assert read_folder(home) == {}


@pytest.mark.parametrize("host", ["claude-code", "cursor", "codex"])
@pytest.mark.parametrize("key", [None, "sk-0123456789abcdef"], ids=["no key", "key in the environment"])
def test_host_that_passes_the_key_on_gets_advice_that_fits(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, host: str, key: str | None
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    output = run("install", host, "--no-check").stdout
    assert ("Store your API key once, for all hosts: agent-jobs key set" in output) is (key is None)
    assert ("passes on OPENAI_API_KEY" in output) is (key is not None)


def test_other_hosts_get_no_key_or_the_passed_key(home: Path, run: Run):
    file = home / ".config/Claude/claude_desktop_config.json"
    output = run("install", "claude-desktop").stdout
    assert "Next: Store your API key once, for all hosts: agent-jobs key set" in output
    assert "env" not in (read_entry(HOSTS["claude-desktop"], file.read_text()) or {"env": {}})
    dry = run("install", "claude-desktop", "--env", "OPENAI_API_KEY=sk-secret", "--dry-run").stdout
    assert "sk-secret" not in dry
    assert '+        "OPENAI_API_KEY": "********"' in dry
    output = run("install", "claude-desktop", "--env", "OPENAI_API_KEY=sk-secret").stdout
    assert "sk-secret" not in output
    assert read_entry(HOSTS["claude-desktop"], file.read_text())["env"] == {"OPENAI_API_KEY": "sk-secret"}  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.parametrize("host", [name for name, host in HOSTS.items() if host.user is not None])
def test_stored_key_needs_no_setting_in_the_file_of_any_host(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, host: str
):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    before = run("install", host, "--print").stdout
    store_key(str(home / ".config/agent-jobs/keys"), DEFAULT_BASE_URL, "sk-stored-0123456789", use_keyring=False)
    printed = run("install", host, "--print").stdout
    assert ("KEY" in before) is HOSTS[host].hands_key_over
    assert "KEY" not in printed
    output = run("install", host).stdout
    text = locate_file(HOSTS[host], Machine(sys.platform, home, os.environ, home / "project"), "user").read_text()
    assert not re.search("KEY|openai-key|API key", text)
    assert not re.search("KEY|key set", output)
    assert f"Nothing to do in {home}" in run("install", host).stdout
    other = run("install", host, "--print", "--env", "OPENAI_BASE_URL=https://other.example/v1").stdout
    assert ("KEY" in other) is HOSTS[host].hands_key_over, "the key of another endpoint is not used here"


def test_entry_of_an_earlier_version_loses_its_key_file_for_the_stored_key(home: Path, run: Run):
    file = home / ".config/Claude/claude_desktop_config.json"
    run("install", "claude-desktop", "--env", f"AGENT_JOBS_API_KEY_FILE={KEY_PATH}", "--env", "AGENT_JOBS_MODEL=x")
    store_key(str(home / ".config/agent-jobs/keys"), DEFAULT_BASE_URL, "sk-stored-0123456789", use_keyring=False)
    run("install", "claude-desktop")
    assert (read_entry(HOSTS["claude-desktop"], file.read_text()) or {})["env"] == {"AGENT_JOBS_MODEL": "x"}


def test_settings_file_in_a_place_that_hosts_do_not_know_is_named_to_them(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    file = home / ".cursor/mcp.json"
    run("install", "cursor")
    assert "AGENT_JOBS_CONFIG" not in file.read_text()
    run("config", "set", "max_wait_s", "45")
    run("install", "cursor")
    assert f'"AGENT_JOBS_CONFIG": "{home}/xdg/agent-jobs/config.toml"' in file.read_text()


# --- the hosts on this machine ---


def test_install_without_a_host_lists_those_on_this_machine(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    """A program, a file or a folder of a host shows that the host is installed."""
    programs = home / "bin"
    programs.mkdir()
    for name in ("claude", "gemini"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    (home / ".codex").mkdir()
    (home / ".cursor").mkdir()
    (home / ".cursor/mcp.json").write_text('{"mcpServers": {"agent-jobs": {"command": "x", "args": []}}}')
    (home / ".qwen").mkdir()
    (home / ".qwen/settings.json").write_text("broken")
    before = read_folder(home)
    rows = {row["host"]: row for row in json.loads(run("install", "--json").stdout)["hosts"]}
    assert {name: row["installed"] for name, row in rows.items()} == {
        "claude-code": False, "cursor": True, "codex": False, "qwen": False, "gemini": False,
    }  # fmt: skip
    assert rows["gemini"]["command"] == "agent-jobs install gemini --print"
    lines = run("install").stdout.splitlines()
    assert [line for line in lines if line.startswith("  Codex")] == ["  Codex        agent-jobs install codex"]
    assert any(line.startswith("  Cursor") and "installed: " in line for line in lines)
    assert "Others: claude-desktop, vscode, opencode, kilo, copilot-cli. `agent-jobs install HOST` installs." in lines
    assert any(line.startswith("By hand: antigravity, windsurf, devin, zed,") for line in lines)
    assert " ".join(lines).endswith("`agent-jobs install HOST --print` prints the entry for the host's file.")
    assert read_folder(home) == before


def test_bare_machine_has_no_hosts(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert run("install").stdout.startswith("No host was found on this machine.")


def test_missing_key_file_of_the_user_is_reported(run: Run):
    output = run("install", "claude-desktop", "--env", "AGENT_JOBS_API_KEY_FILE=/elsewhere/key").stdout
    assert "Next: AGENT_JOBS_API_KEY_FILE names /elsewhere/key, which cannot be read" in output


@pytest.mark.parametrize("host", HOSTS)
def test_key_file_replaces_the_host_s_reference(host: str):
    text = "" if HOSTS[host].format == "yaml" else install_entry(HOSTS[host], "", UVX, {})
    passed = {"AGENT_JOBS_API_KEY_FILE": "/run/secrets/openai"}
    for before in ("", text):
        if HOSTS[host].format == "yaml":
            after = render_fragment(HOSTS[host], UVX, passed)
        else:
            after = install_entry(HOSTS[host], before, UVX, passed)
        assert "/run/secrets/openai" in after
        assert "OPENAI_API_KEY" not in after
        assert "promptString" not in after, "VS Code does not ask for a key that is not needed"


def test_install_keeps_the_user_s_values_and_updates_the_command():
    mine = {
        "command": "uvx", "args": ["agent-jobs@0.0.1"], "disabled": True,
        "env": {"OPENAI_API_KEY": "sk-mine", "AGENT_JOBS_MODEL": "m"},
    }  # fmt: skip
    text = json.dumps({"mcpServers": {"agent-jobs": mine}})
    after = json.loads(install_entry(HOSTS["cursor"], text, UVX, {"AGENT_JOBS_MODEL": "n"}))
    assert after["mcpServers"]["agent-jobs"] == {
        "command": UVX.command, "args": list(UVX.args), "disabled": True,
        "env": {"OPENAI_API_KEY": "sk-mine", "AGENT_JOBS_MODEL": "n"},
    }  # fmt: skip


@pytest.mark.parametrize("pair", ["A", "=1", "1A=1", "A-B=1", ""])
def test_env_option_requires_name_and_value(run: Run, pair: str):
    assert "NAME=VALUE" in run("install", "cursor", "--env", pair, status=2).output


def test_diff_masks_secrets_of_other_servers(home: Path, run: Run):
    secrets = {
        "GITHUB_TOKEN": "secret-1", "api_key": "secret-2", "Authorization": "Bearer secret-3",
        "x": "sk-secret-4-abcdefg", "CHAT_WEBHOOK": "https://hooks.example/services/secret-8",
        "url": "https://h/?t=ghp_secret5abcdefghi", "args": ["--token=secret-6", "https://me:secret-7@h/"],
    }  # fmt: skip
    file = home / ".cursor/mcp.json"
    write_replacement(read_snapshot(file), json.dumps({"mcpServers": {"other": {"env": secrets}}}))
    shown = run("install", "cursor", "--dry-run").stdout
    assert "GITHUB_TOKEN" in shown
    assert "secret" not in shown.replace(str(home), "")


@pytest.mark.parametrize("text", ['"A_KEY": "${A_KEY}"', 'TOKEN = "$TOKEN"', '"AGENT_JOBS_API_KEY_FILE": "~/key"'])
def test_references_and_paths_are_no_secrets(text: str):
    assert mask_secrets(text) == text


# --- the file ---


def test_install_keeps_mode_link_and_line_ends_and_drops_the_byte_order_mark(home: Path, run: Run):
    real = home / "dotfiles/cursor.json"
    text = '\ufeff{\r\n\t"theme": "caf\u00e9",\r\n\t"mcpServers": {\r\n\t\t"other": {"command": "x"}\r\n\t}\r\n}\r\n'
    write_replacement(read_snapshot(real), text)
    real.chmod(0o640)
    (home / ".cursor").mkdir()
    (home / ".cursor/mcp.json").symlink_to(real)
    run("install", "cursor")
    assert (home / ".cursor/mcp.json").is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert real.with_name("cursor.json.bak-1").read_bytes() == text.encode()
    assert stat.S_IMODE(real.with_name("cursor.json.bak-1").stat().st_mode) == 0o640
    content = real.read_bytes()
    assert content.startswith(b"{\r\n")
    assert content.count(b"\n") == content.count(b"\r\n") > text.count("\n")
    run("uninstall", "cursor")
    assert real.read_bytes() == text.removeprefix("\ufeff").encode()
    assert sorted(path.name for path in real.parent.iterdir()) == [
        "cursor.json", "cursor.json.bak-1", "cursor.json.bak-2",
    ]  # fmt: skip


def test_link_to_a_missing_file_is_followed(home: Path, run: Run):
    (home / ".cursor").mkdir()
    (home / ".cursor/mcp.json").symlink_to(home / "dotfiles/cursor.json")
    run("install", "cursor")
    assert (home / ".cursor/mcp.json").is_symlink()
    assert (home / "dotfiles/cursor.json").is_file()


@pytest.mark.parametrize("content", [b"", b" \n", b"{}", b"\xef\xbb\xbf"])
def test_empty_file_counts_as_missing(home: Path, run: Run, content: bytes):
    file = home / ".cursor/mcp.json"
    file.parent.mkdir()
    file.write_bytes(content)
    run("install", "cursor")
    assert read_entry(HOSTS["cursor"], read_snapshot(file).text)


@pytest.mark.parametrize(
    ("host", "content"),
    [
        *(("cursor", text) for text in (
            b"{", b'{"a":}', b"{'a': 1}", b'{"a": 1} x', b"nonsense", b'{"a": 01}', b'{"a" 1}', b"{1: 2}",
            b"[" * 100_000, b'{"a": "\n"}', b'{"a": NaN}', b'{"a": /* no end }', b'\xff\xfe{\x00}\x00', b"[]", b'"x"',
            b'{"mcpServers": []}',
            b'{"mcpServers": null}', b'{"mcpServers": {"agent-jobs": "x"}}',
            b'{"mcpServers": {"agent-jobs": {"env": ["x"]}}}', b"{,}", b'{"a": 1,,}', b'{"a": 1 "b": 2}',
        )),
        ("vscode", b'{"inputs": {}}'),
        *(("codex", text) for text in (
            b"x", b"a = ", b"a = 1\na = 2", b"mcp_servers = 1", b"[[mcp_servers]]\nx = 1",
            b"mcp_servers.agent-jobs = 1", b"\xff",
        )),
    ],
)  # fmt: skip
def test_broken_file_is_refused_in_one_line_and_stays_unchanged(home: Path, run: Run, host: str, content: bytes):
    file = locate_file(HOSTS[host], machine(sys.platform, home), "user")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    before = read_folder(home)
    refused = run("install", host, status=1)
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert str(file) in refused.stderr
    assert read_folder(home) == before


def test_read_only_folder_is_refused_in_one_line(home: Path, run: Run):
    (home / ".cursor").symlink_to("/proc/self/fd")
    message = run("install", "cursor", status=1).stderr
    assert "cannot be written" in message
    assert message.count("\n") == 1


def test_file_in_place_of_a_folder_is_refused_in_one_line(home: Path, run: Run):
    (home / ".cursor").write_text("x")
    assert run("install", "cursor", status=1).stderr.count("\n") == 1
    assert (home / ".cursor").read_text() == "x"


def test_replace_refuses_a_file_that_changed_since_it_was_read(tmp_path: Path):
    file = tmp_path / "mcp.json"
    file.write_text("{}")
    before = read_snapshot(file)
    file.write_text('{"new": 1}')
    with pytest.raises(ConfigError, match="changed by another program"):
        write_replacement(before, '{"ours": 1}')
    assert read_folder(tmp_path).keys() == {"mcp.json"}, "no backup either, which may hold a secret"
    assert file.read_text() == '{"new": 1}'


# --- everything else in the file ---

COMMENTED = """\
// mine
{
    "servers": { // all of them
        /* the first */
        "other": {
            "command": "x", // why
        },
        // and nothing else
    },
    "inputs": [
        { "id": "theirs", "type": "promptString" } // asks
    ]
    /* the end */
}
// really
"""


def test_install_keeps_comments_and_commas_of_json():
    vscode = HOSTS["vscode"]
    with_ours = install_entry(vscode, COMMENTED, UVX, {})
    kept = iter(with_ours.splitlines())
    assert all(
        line.rstrip(",") in (each.rstrip(",") for each in kept) for line in COMMENTED.splitlines() if "asks" not in line
    )
    assert "// asks" in with_ours
    assert install_entry(vscode, with_ours, UVX, {}) == with_ours
    assert remove_entry(vscode, with_ours) == COMMENTED


@pytest.mark.parametrize(
    "text",
    [
        '{"mcpServers":{}}',
        '{"mcpServers":{"a":{}},"z":1}',
        '{"mcpServers":{"a":{},},"z":1,}',
        '{ "mcpServers": { "a": 1 }, // c\n "b": 2 }',
        '{\n  "mcpServers": {\n    "a": 1\n  }\n}',
        '{"a": 1, // c\n "mcpServers": {"x": 1 // c\n}}',
        '{\r\n"mcpServers": {\r\n"a": 1}}',
        '{"mcpServers": {"a": "\\ud800 \\"agent-jobs\\" // \\u0041", "n": 1e5, "d": 1, "d": 2}}',
    ],
)
def test_uninstall_restores_json_of_any_layout(text: str):
    with_ours = install_entry(HOSTS["cursor"], text, UVX, {})
    assert read_entry(HOSTS["cursor"], with_ours)
    assert remove_entry(HOSTS["cursor"], with_ours) == text


def test_last_of_two_equal_keys_is_changed():
    text = '{"mcpServers": {"agent-jobs": {"a": 1}, "agent-jobs": {"b": 2}}}'
    with_ours = install_entry(HOSTS["cursor"], text, UVX, {})
    assert json.loads(with_ours)["mcpServers"]["agent-jobs"]["b"] == 2
    with pytest.raises(ConfigError, match="by hand"):
        remove_entry(HOSTS["cursor"], with_ours)


CODEX = """\
# mine
model = "gpt-x"   # why

[mcp_servers.other] # theirs
command = "x"
args = [
  "a", # first
]

[mcp_servers.other.env]
A = '1'

[profiles.deep]
model = "y"
"""


def test_install_keeps_comments_and_order_of_toml():
    with_ours = install_entry(HOSTS["codex"], CODEX, UVX, {})
    assert [line for line in with_ours.splitlines() if line] == [
        *[line for line in CODEX.splitlines() if line][:9],
        "[mcp_servers.agent-jobs]",
        'command = "/opt/bin/uvx"',
        'args = ["agent-jobs@0.1.0"]',
        'env_vars = ["OPENAI_API_KEY"]',
        "startup_timeout_sec = 60",
        "tool_timeout_sec = 300",
        "tools = {"
        + ", ".join(f'{tool} = {{approval_mode = "approve"}}' for tool in ("agent_poll", "agent_result", "agent_list"))
        + "}",
        "[profiles.deep]",
        'model = "y"',
    ]
    assert remove_entry(HOSTS["codex"], with_ours) == CODEX


@pytest.mark.parametrize(
    "text",
    [
        'mcp_servers = { other = { command = "x" } }\n',
        "mcp_servers = {}\n",
        'mcp_servers.other.command = "x"\n[a]\nb = 1\n',
        '[mcp_servers]\nother = { command = "x" }\n',
        '[mcp_servers.other]\r\ncommand = "x"\r\n[[b]]\r\nc = """1\r\n2"""\r\n',
        '[mcp_servers."dotted.name"]\ncommand = "x"\n[b]\n[mcp_servers.later]\ncommand = "y"\n',
        "a = [nan, inf, 1_000, 0x1F, 1979-05-27T07:32:00Z]\n",
        'command = "x"',
    ],
)
def test_toml_of_any_layout_keeps_its_values(text: str):
    codex = HOSTS["codex"]
    with_ours = install_entry(codex, text, UVX, {"A": "b"})
    entry = read_entry(codex, with_ours)
    assert entry is not None
    assert entry["env"] == {"A": "b"}
    assert install_entry(codex, with_ours, UVX, {}) == with_ours
    assert drop_empty_servers(tomllib.loads(remove_entry(codex, with_ours))) == drop_empty_servers(tomllib.loads(text))


OURS = '[mcp_servers.agent-jobs]\ncommand = "x"\n\n[mcp_servers.agent-jobs.env] # mine\nA = """\n# "b"\n[c]"""\n'


@pytest.mark.parametrize("before", ["", 'model = "gpt-x" # mine\n', '[mcp_servers.first]\ncommand = "y"\n# why\n'])
@pytest.mark.parametrize(
    "after",
    [
        '\n# the company\'s server, ask Ann before changing\n[mcp_servers.other]\ncommand = "z"\n',
        '\n# [mcp_servers.old]\n# command = "z"\n',
        '# work\n\n# and more\n[profiles.work]\nmodel = "z"\n# end',
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_comments_below_our_toml_table_survive_uninstall(before: str, after: str, line_end: str):
    before, ours, after = (text.replace("\n", line_end) for text in (before, OURS, after))
    codex = HOSTS["codex"]
    assert remove_entry(codex, before + ours + after) == before + after
    changed = install_entry(codex, before + ours + after, UVX, {"NEW": "1"})
    assert changed.startswith(before)
    assert changed.endswith(f'NEW = "1"{line_end}{after}')


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[mcp_servers.other]\ncommand = "x"\n', '# my work profile: do not touch\n[profiles.work]\nmodel = "y"\n'),
        ('[mcp_servers.other]\ncommand = "x"\n# args = []\n', '\n# my work profile\n[profiles.work]\nmodel = "y"\n'),
        ('[mcp_servers.other]\ncommand = "x"\n', "\n# [mcp_servers.old]\n\n[profiles.work]\n"),
        ('[mcp_servers]\nother = { command = "x" }\n', "\n# mine\n[[list]]\n"),
        ('model = "x"\n\n# [mcp_servers.old]\n', ""),
        ("# nothing but this\n", "\n"),
    ],
)
def test_new_toml_table_does_not_separate_a_comment_from_its_table(before: str, after: str):
    codex = HOSTS["codex"]
    with_ours = install_entry(codex, before + after, UVX, {})
    assert with_ours == f"{before}\n{render_fragment(codex, UVX, {})}{after}"
    assert remove_entry(codex, with_ours) == before + after


def test_change_that_would_move_a_comment_is_refused():
    codex = HOSTS["codex"]
    apart = '[mcp_servers.agent-jobs]\ncommand = "x"\n\n# theirs\n[b]\nc = 1\n\n[mcp_servers.agent-jobs.env]\nA = "1"\n'
    for change in (lambda: remove_entry(codex, apart), lambda: install_entry(codex, apart, UVX, {"A": "2"})):
        with pytest.raises(ConfigError, match="by hand"):
            change()


def drop_empty_servers(document: dict[str, Any]) -> str:
    """Return the values of a document, without an empty table of servers."""
    return repr({key: value for key, value in document.items() if key != "mcp_servers" or value})


NAMES = st.text(max_size=8) | st.sampled_from(["mcpServers", "servers", "mcp_servers", "inputs", "id", "agent-jobs"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
ENTRIES = st.dictionaries(NAMES.filter(lambda name: name != "agent-jobs"), VALUES, max_size=4)
INPUTS = st.lists(
    st.dictionaries(NAMES, VALUES, max_size=3).filter(lambda each: each.get("id") != "agent-jobs-openai-key")
)


@given(st.sampled_from(JSON_HOSTS), st.data(), st.sampled_from([None, 1, 2, "\t"]), st.booleans())
def test_any_json_object_survives_install_and_uninstall(
    host: str, data: st.DataObject, indent: int | str | None, ascii_only: bool
):
    [container] = HOSTS[host].keys
    document = data.draw(st.dictionaries(NAMES, VALUES, max_size=4))
    for name, strategy in {container: ENTRIES, "inputs": INPUTS}.items():
        document.pop(name, None)
        if data.draw(st.booleans()):
            document[name] = data.draw(strategy)
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    with_ours = install_entry(HOSTS[host], text, UVX, {})
    assert read_entry(HOSTS[host], with_ours) is not None
    assert install_entry(HOSTS[host], with_ours, UVX, {}) == with_ours
    without = remove_entry(HOSTS[host], with_ours)
    empty: dict[str, Any] = {container: {}}
    if host == "vscode":
        empty["inputs"] = []
    assert json.loads(without) == empty | document
    if empty.keys() <= document.keys() and (indent is None or all(document[name] for name in empty)):
        assert without == text, "every other byte stays"


TRIVIA = st.lists(st.sampled_from([" ", "\n", "\r\n", "\t", "// c\n", "/* c */", "/*\n c */"]), max_size=2).map("".join)


@given(st.sampled_from(JSON_HOSTS), st.data())
def test_comments_in_any_place_survive_install_and_uninstall(host: str, data: st.DataObject):
    [container] = HOSTS[host].keys
    document = {"a": 1, container: data.draw(st.sampled_from([{}, {"x": {"command": "y"}}, {"x": [1], "y": "// no"}]))}
    tokens = re.findall(r'"[^"]*"|[\w.]+|[{}\[\]:,]', json.dumps(document))
    text = "".join(data.draw(TRIVIA) + token for token in tokens) + data.draw(TRIVIA)
    with_ours = install_entry(HOSTS[host], text, UVX, {})
    assert read_entry(HOSTS[host], with_ours) is not None
    without = remove_entry(HOSTS[host], with_ours)
    assert read_entry(HOSTS[host], without) is None
    comments = re.compile(r"// c|/\*\s*c \*/")
    assert comments.findall(with_ours) == comments.findall(without) == comments.findall(text)


TOML_NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6) | st.sampled_from(
    ["mcp_servers", "env"]
)
TOML_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | TOML_NAMES | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TOML_NAMES, inner, max_size=3),
)


@given(
    st.dictionaries(TOML_NAMES, TOML_VALUES, max_size=4),
    st.dictionaries(TOML_NAMES, TOML_VALUES, max_size=3),
    st.data(),
)
def test_any_toml_document_survives_install_and_uninstall(
    document: dict[str, Any], servers: dict[str, Any], data: st.DataObject
):
    servers.pop("agent-jobs", None)
    if servers:
        document["mcp_servers"] = servers
    else:
        document.pop("mcp_servers", None)
    above = st.sampled_from(["", "# c\n", "\n# c\n", "# c\n\n", "# c\n\n# c\n"])
    text = re.sub(r"^(?=\[)|\Z", lambda _: data.draw(above), tomlkit.dumps(document), flags=re.MULTILINE)
    values = tomllib.loads(text)
    codex = HOSTS["codex"]
    try:
        with_ours = install_entry(codex, text, UVX, {})
    except ConfigError as refusal:
        assert "by hand" in str(refusal), "a layout that cannot be changed safely is refused"
        return
    assert read_entry(codex, with_ours) is not None
    assert install_entry(codex, with_ours, UVX, {}) == with_ours
    without = remove_entry(codex, with_ours)
    assert drop_empty_servers(tomllib.loads(without)) == drop_empty_servers(values)
    assert without == text, "every other byte stays"
    headed = re.compile(r"# c\n\[.*")
    assert headed.findall(with_ours) == headed.findall(text), "a comment stays above its table"


# --- the command of the entry ---


def test_launch_names_uvx_by_its_absolute_path(tmp_path: Path):
    for folder in (".local/bin", "bin", "uv"):
        tool = tmp_path / folder / "uvx"
        tool.parent.mkdir(parents=True)
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
    assert find_launch(machine("linux", tmp_path, PATH=str(tmp_path / "bin"))).command == str(tmp_path / "bin/uvx")
    assert find_launch(machine("linux", tmp_path, PATH="", UV=str(tmp_path / "uv/uv"))).command == str(
        tmp_path / "uv/uvx"
    )
    shutil.rmtree(tmp_path / "uv")
    assert find_launch(machine("linux", tmp_path, PATH="")).command == str(tmp_path / ".local/bin/uvx")
    shutil.rmtree(tmp_path / ".local")
    assert find_launch(machine("win32", tmp_path, PATH="")) == Launch(sys.executable, ("-m", "agent_jobs"))


def test_launch_pins_a_version_from_pypi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "uvx").write_text("")
    (tmp_path / "uvx").chmod(0o755)
    monkeypatch.setattr("agent_jobs.install.command._find_source", lambda: None)
    assert find_launch(machine("linux", tmp_path, PATH=str(tmp_path))).args == (f"agent-jobs@{__version__}",)


def test_env_file_applies_to_every_command(home: Path, tmp_path: Path):
    file = tmp_path / "my.env"
    file.write_text(f"CODEX_HOME={tmp_path / 'codex'}\n")
    command = [*COMMAND, "--env-file"]
    done = fork_server.run([*command, file, "install", "codex"])
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "codex/config.toml").is_file()
    assert read_folder(home) == {}
    gone = fork_server.run([*command, tmp_path / "gone", "install", "codex"])
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "gone" in gone.stderr


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("arguments", [(), ("key", "show"), ("install", "cursor", "--no-check")], ids=str)
def test_stdout_is_wrapped_between_words_on_a_terminal(
    home: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], columns: int
):
    (home / ".cursor").mkdir()
    environment = {
        "COLUMNS": str(columns),
        "OPENAI_API_KEY": None,
        "AGENT_JOBS_API_KEY_FILE": str(home / "a key in a folder whose name is long" / "and its file"),
    }
    (home / "a key in a folder whose name is long").mkdir()
    (home / "a key in a folder whose name is long" / "and its file").write_text("sk-0123456789abcdef")
    outputs: list[str] = []
    is_terminal: Callable[[object], bool] = lambda _stream: bool(outputs)  # noqa: E731
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", is_terminal)
    for _ in ("pipe", "terminal"):
        ran = CliRunner().invoke(cli, list(arguments), env=environment)
        assert ran.exit_code == 0, ran.output
        outputs.append(ran.stdout)
        (home / ".cursor/mcp.json").unlink(missing_ok=True)
    piped, wrapped = outputs
    assert wrapped.split() == piped.split()
    whole = [
        line for line in wrapped.splitlines() if line.startswith(" ") or "agent-jobs " in line
    ]  # laid out as columns, or to be copied
    too_wide = [line for line in wrapped.splitlines() if len(line) > columns and line not in whole]
    assert [line for line in too_wide if len(line.split()[-1]) < columns // 2] == []
