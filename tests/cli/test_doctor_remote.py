"""`doctor` checks the entries that `install --url` wrote."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from receiver import receiving

from agent_jobs.cli.checks.finding import Finding
from agent_jobs.cli.checks.host_checks import check_hosts
from agent_jobs.cli.checks.start_times import check_start_times
from agent_jobs.cli.main import cli
from agent_jobs.install.hosts import HOSTS
from agent_jobs.install.machine import Machine
from agent_jobs.settings.settings import Settings

Check = Callable[..., list[Finding]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Return a function that installs an entry, and runs doctor on it with a token in AGENT_JOBS_TOKEN."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CODEX_HOME", "CLAUDE_CONFIG_DIR", "AGENT_JOBS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "project").mkdir()

    def install_and_check(host: str, *words: str, token: str = "ajt_secret") -> list[Finding]:
        result = CliRunner().invoke(cli, ["install", host, *words])
        assert result.exit_code == 0, result.output
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "AGENT_JOBS_TOKEN": token}
        machine = Machine("linux", tmp_path, environ, tmp_path / "project")
        assert not list(check_start_times(machine, HOSTS.values()))
        return list(check_hosts(machine, Settings.from_env_leniently(environ)[0]))

    return install_and_check


@pytest.mark.parametrize("host", ["claude-code", "codex"])
def test_server_that_is_ready_is_named_with_its_address(check: Check, host: str):
    with receiving() as server:
        [finding] = check(host, "--url", server.url)
    assert finding.state == "ok"
    assert f"connects to {server.url}/mcp, which is ready; AGENT_JOBS_TOKEN is set" in finding.text
    [asked] = server.received
    assert (asked.path, asked.headers["Authorization"]) == ("/readyz", None)


@pytest.mark.parametrize("host", ["claude-code", "codex"])
def test_server_that_is_stopped_is_a_problem(check: Check, host: str):
    with receiving() as server:
        pass
    [finding] = check(host, "--url", server.url)
    assert finding.state == "problem"
    assert f"connects to {server.url}/mcp, which does not answer" in finding.text
    assert "agent-jobs serve --http" in finding.fix
    assert f"agent-jobs install {host} --url URL" in finding.fix


@pytest.mark.parametrize(
    ("status", "state", "sentence"),
    [
        (503, "warning", "which is not ready (503)"),
        (404, "problem", "which answers /readyz with 404"),
        (302, "problem", "which answers /readyz with 302"),
    ],
)
def test_server_that_is_not_ready_is_reported(check: Check, status: int, state: str, sentence: str):
    with receiving() as server:
        server.statuses.append(status)
        [finding] = check("claude-code", "--url", server.url)
    assert (finding.state, sentence in finding.text, bool(finding.fix)) == (state, True, True), finding


@pytest.mark.parametrize("host", ["claude-code", "codex"])
@pytest.mark.parametrize("variable", ["AGENT_JOBS_TOKEN", "TEAM"])
def test_token_variable_that_is_not_set_is_reported(check: Check, host: str, variable: str):
    with receiving() as server:
        [finding] = check(host, "--url", server.url, "--token-env", variable, token="")
    assert (finding.state, finding.what) == ("warning", "host")
    assert f"takes the token from {variable}, which is not set here" in finding.text
    assert f"set {variable} to your token" in finding.fix


def test_host_that_signs_in_needs_no_variable(check: Check):
    with receiving() as server:
        [finding] = check("codex", "--url", server.url, "--token-env", "none", token="")
    assert finding.state == "ok"
    assert finding.text.endswith("which is ready")


@pytest.mark.parametrize("url", ["jobs.example.com/mcp", "http://127.0.0.1:x/mcp", "http://[::1/mcp", "", None])
def test_invalid_address_is_a_problem(check: Check, tmp_path: Path, url: str | None):
    with receiving() as server:
        check("claude-code", "--url", server.url)
    path = tmp_path / ".claude.json"
    document = json.loads(path.read_text())
    document["mcpServers"]["agent-jobs"]["url"] = url
    path.write_text(json.dumps(document))
    machine = Machine("linux", tmp_path, {"AGENT_JOBS_TOKEN": "ajt_secret"}, tmp_path / "project")
    [finding] = check_hosts(machine, Settings())
    assert finding.state == "problem"
    assert "correct the address: agent-jobs install claude-code --url URL" in finding.fix
