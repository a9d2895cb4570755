"""`install` starts the written command once, and `doctor` measures the start, both in real processes."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fork_server import listening
from machine import write_interpreter

from agent_jobs import __version__
from agent_jobs.cli.checks.finding import Finding
from agent_jobs.cli.checks.start_times import check_start_times
from agent_jobs.cli.install import find_machine
from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer
from agent_jobs.install.config_file import locate_file
from agent_jobs.install.entry import install_entry
from agent_jobs.install.hosts import HOSTS
from agent_jobs.install.machine import Launch

KEY = "sk-emulated-0123456789abcdef"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return an interpreter that runs programs as forks, beside the script of an installation."""
    folder = tmp_path_factory.mktemp("python")
    path, address = folder / "bin/python", folder / "forks"
    write_interpreter(path, address)
    script = path.with_name("agent-jobs")
    script.write_text(f'#!/bin/sh\nexec {path} -m agent_jobs "$@"\n')
    script.chmod(0o755)
    with listening(address):
        yield path


@pytest.fixture
def home(tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch, upstream: RunningServer) -> Path:
    for name in [*os.environ]:
        if name.startswith(("AGENT_JOBS_", "XDG_", "CODEX_", "CLAUDE_", "SSL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", upstream.base_url)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(sys, "argv", [str(python.with_name("agent-jobs"))])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def install(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["install", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_working_entry_gives_no_warning_and_starts_no_job(home: Path, upstream: RunningServer):
    assert install("codex", "--env", f"OPENAI_BASE_URL={upstream.base_url}")["warnings"] == []
    assert upstream.emulator.counters()["creates"] == 0
    assert [path.name for path in home.iterdir()] == [".codex"], "the user's jobs and log stay untouched"
    assert "warnings" not in install("codex"), "an unchanged entry is not started"


@pytest.mark.parametrize(
    ("environment", "variables", "warned"),
    [
        ({"OPENAI_API_KEY": ""}, {}, "OPENAI_API_KEY is not set here"),
        ({"OPENAI_API_KEY": "invalid"}, {}, "Incorrect API key"),
        ({}, {"HTTP_PROXY": "http://127.0.0.1:9"}, "proxy"),
        ({}, {"SSL_CERT_FILE": "/nowhere/corp.pem"}, "Set SSL_CERT_FILE to a PEM file"),
    ],
)
def test_problem_of_a_started_entry_is_a_warning_and_the_entry_stays(
    home: Path,
    upstream: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    variables: dict[str, str],
    warned: str,
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    given = [f"--env={name}={value}" for name, value in {"OPENAI_BASE_URL": upstream.base_url, **variables}.items()]
    report = install("codex", *given)
    assert warned in " ".join(report["warnings"])
    assert (home / ".codex/config.toml").is_file()
    assert (report["action"], KEY in str(report)) == ("installed", False)


@pytest.fixture
def uvx(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put a script named uvx, which starts this program, on the PATH."""
    script = home / "bin/uvx"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n[ "$1" = --from ] && shift 2\nshift\nexec {sys.executable} -m agent_jobs "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    yield script


def test_command_that_does_not_start_is_a_warning_with_its_last_line(uvx: Path):
    uvx.write_text("#!/bin/sh\necho 'error: no such cache' >&2\nexit 1\n")
    [warning] = install("codex", "--uvx")["warnings"]
    assert "as Codex will start it" in warning
    assert "error: no such cache" in warning
    assert "warnings" not in install("cursor", "--uvx", "--no-check")


def check_found_hosts() -> list[Finding]:
    return list(check_start_times(find_machine(), HOSTS.values()))


def test_doctor_reports_an_entry_that_starts_uvx_with_both_times(uvx: Path):
    assert check_found_hosts() == []
    install("codex", "--uvx", "--no-check")
    [finding] = check_found_hosts()
    assert finding.state == "warning"
    assert finding.text.startswith(f"Codex waits 1 s for tools; {uvx} listed them after ")
    assert ", and started directly it takes " in finding.text
    assert finding.fix.startswith("agent-jobs install codex")


def test_doctor_measures_a_direct_start_and_reports_an_older_program(home: Path):
    install("claude-code", "--no-check")
    [finding] = check_found_hosts()
    assert (finding.state, "Claude Code waits 3 s" in finding.text) == ("ok", True)
    old = home / "old/agent-jobs"
    old.parent.mkdir()
    version = '[ "$1" = --version ] && echo "agent-jobs, version 0.0.9" && exit'
    old.write_text(f"#!/bin/sh\n{version}\nexec {sys.executable} -m agent_jobs\n")
    old.chmod(0o755)
    file = locate_file(HOSTS["claude-code"], find_machine(), "user")
    file.write_text(install_entry(HOSTS["claude-code"], "", Launch(str(old), ()), {}))
    [finding] = check_found_hosts()
    assert (finding.state, finding.fix) == ("warning", "agent-jobs install claude-code")
    assert finding.text == f"{old} is agent-jobs 0.0.9, and this is {__version__}"
