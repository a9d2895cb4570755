"""`agent-jobs install --url`: the entries by which Claude Code and Codex reach a team server."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent_jobs.cli.install_report import mask_secrets
from agent_jobs.cli.main import cli
from agent_jobs.install.entry import install_entry, read_entry, replace_entry
from agent_jobs.install.hosts import HOSTS
from agent_jobs.install.machine import Launch
from agent_jobs.install.remote import create_remote_entry

URL = "https://jobs.example.com"
CLAUDE = {
    "type": "http",
    "url": f"{URL}/mcp",
    "headers": {"Authorization": "Bearer ${AGENT_JOBS_TOKEN:-}"},
    "alwaysLoad": True,
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CODEX_HOME", "CLAUDE_CONFIG_DIR", "AGENT_JOBS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run_install(*words: str) -> Result:
    return CliRunner().invoke(cli, ["install", *words])


def test_entry_for_claude_code_names_the_variable(home: Path):
    (home / ".claude.json").write_text('{"theme": "dark", "mcpServers": {"agent-jobs": {"command": "x", "args": []}}}')
    result = run_install("claude-code", "--url", URL)
    assert result.exit_code == 0, result.output
    written = json.loads((home / ".claude.json").read_text())
    assert written == {"theme": "dark", "mcpServers": {"agent-jobs": CLAUDE}}
    assert "Set AGENT_JOBS_TOKEN to your token" in result.output
    assert "Nothing to do" in run_install("claude-code", "--url", f"{URL}/mcp/").output


def test_entry_for_codex_names_the_variable(home: Path):
    (home / ".codex").mkdir()
    (home / ".codex/config.toml").write_text('model = "gpt-5" # mine\n')
    assert run_install("codex", "--url", URL, "--token-env", "JOBS").exit_code == 0
    text = (home / ".codex/config.toml").read_text()
    entry = tomllib.loads(text)["mcp_servers"]["agent-jobs"]
    assert (entry["url"], entry["bearer_token_env_var"]) == (f"{URL}/mcp", "JOBS")
    assert entry["tools"]["agent_poll"] == {"approval_mode": "approve"}
    assert not {"command", "env_vars", "startup_timeout_sec"} & entry.keys()
    assert "# mine" in text


@pytest.mark.usefixtures("home")
def test_entry_is_printed():
    printed = run_install("claude-code", "--url", URL, "--print", "--json").output
    assert json.loads(json.loads(printed)["entry"]) == {"mcpServers": {"agent-jobs": CLAUDE}}


def test_host_that_signs_in_needs_no_token(home: Path):
    result = run_install("claude-code", "--url", URL, "--token-env", "none")
    entry = json.loads((home / ".claude.json").read_text())["mcpServers"]["agent-jobs"]
    assert entry == {"type": "http", "url": f"{URL}/mcp", "alwaysLoad": True}
    assert "Sign in when Claude Code asks you to." in result.output


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ({"command": "uvx", "args": ["agent-jobs", "serve"]}, "started uvx agent-jobs serve"),
        ({"command": "x", "args": ["--token=hidden1234"]}, "started x --token=********"),
        ({"command": "x"}, "started x"),
        ({"type": "http", "url": "https://old.example/mcp"}, "connected to https://old.example/mcp"),
    ],
)
def test_replaced_entry_is_named(home: Path, old: dict[str, object], words: str):
    (home / ".claude.json").write_text(json.dumps({"mcpServers": {"agent-jobs": old}}))
    assert f"Would replace the entry that {words}." in run_install("claude-code", "--url", URL, "--dry-run").output
    report = json.loads(run_install("claude-code", "--url", URL, "--json").output)
    assert report["notes"] == [f"Replaced the entry that {words}."]
    assert "notes" not in json.loads(run_install("claude-code", "--url", URL, "--token-env", "OTHER", "--json").output)


@pytest.mark.parametrize("name", ["claude-code", "codex"])
def test_local_entry_keeps_nothing_of_an_address(name: str):
    host, launch = HOSTS[name], Launch("agent-jobs", ())
    remote = replace_entry(host, "", create_remote_entry(host, f"{URL}/mcp", "AGENT_JOBS_TOKEN"))
    entry = read_entry(host, install_entry(host, remote, launch, {}))
    assert entry == read_entry(host, install_entry(host, "", launch, {}))


@pytest.mark.parametrize(
    ("value", "is_shown"),
    [
        ("Bearer ${AGENT_JOBS_TOKEN:-}", True),
        ("Bearer ${env:TOKEN}", True),
        ("Bearer $TOKEN", True),
        ("Bearer ${TOKEN:-ajt_secret}", False),
        ("Bearer ajt_secret", False),
        ("Bearer $TOKEN secret", False),
    ],
)
def test_reference_is_no_secret_of_a_diff(value: str, is_shown: bool):
    assert (value in mask_secrets(f'"Authorization": "{value}"')) is is_shown


@pytest.mark.usefixtures("home")
def test_dry_run_shows_the_variable():
    assert "Bearer ${AGENT_JOBS_TOKEN:-}" in run_install("claude-code", "--url", URL, "--dry-run").output


def test_dry_run_writes_nothing(home: Path):
    assert '+      "url"' in run_install("claude-code", "--url", URL, "--dry-run").output
    assert not (home / ".claude.json").exists()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cursor", "--url", URL], "--url is for claude-code and codex"),
        (["--url", URL], "--url is for claude-code and codex"),
        (["codex", "--url", URL, "--uvx"], "--url does not go with --uvx"),
        (["codex", "--url", URL, "--env", "A=b"], "--url does not go with --env"),
        (["codex", "--url", "jobs.example.com"], "--url accepts a web address"),
        (["codex", "--url", "https://a:b@jobs.example.com"], "--url accepts a web address"),
        (["codex", "--url", "https://[jobs.example.com"], "--url accepts a web address"),
        (["codex", "--url", URL, "--token-env", "ajt_a-b"], "never the token itself"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(words: list[str], sentence: str):
    result = run_install(*words)
    assert (result.exit_code, sentence in result.output) == (2, True), result.output


@pytest.mark.usefixtures("home")
def test_token_in_the_clear_is_pointed_out():
    assert "in the clear" in run_install("codex", "--url", "http://jobs.example.com").output
    assert "in the clear" not in run_install("codex", "--url", "http://127.0.0.1:8000").output
