"""`doctor` checks the configuration files of the hosts: real files in a temporary home folder."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from terminals import KEY, Terminal

from agent_jobs import __version__
from agent_jobs.cli.checks import host_checks
from agent_jobs.cli.checks.finding import Finding
from agent_jobs.cli.checks.host_checks import check_hosts, check_key_files
from agent_jobs.emulator.server import RunningServer
from agent_jobs.install.config_file import Scope, locate_file
from agent_jobs.install.entry import install_entry
from agent_jobs.install.hosts import HOSTS
from agent_jobs.install.machine import Launch, Machine
from agent_jobs.mcp_server.wait_limits import WAIT_CAPS_S, find_wait_cap_s
from agent_jobs.settings.settings import Settings

WRITTEN = [name for name, host in HOSTS.items() if host.user]
PINNED = (f"agent-jobs@{__version__}",)
NONE: Mapping[str, str] = {}


@dataclass(frozen=True)
class Person:
    """A user's home folder and project, and the variables of the user's shell."""

    home: Path
    environ: dict[str, str]

    @property
    def machine(self) -> Machine:
        return Machine("linux", self.home, self.environ, self.home / "project")

    def file(self, host: str, scope: Scope = "user") -> Path:
        return locate_file(HOSTS[host], self.machine, scope)

    def write(self, host: str, text: str, scope: Scope = "user") -> None:
        path = self.file(host, scope)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def install(
        self, host: str, env: Mapping[str, str] = NONE, *, scope: Scope = "user", args: tuple[str, ...] = PINNED
    ) -> None:
        """Write the entry that install would write into the file of a host."""
        self.write(host, install_entry(HOSTS[host], "", Launch(sys.executable, args), env), scope)

    def change(self, host: str, change: Callable[[dict[str, Any]], None], env: Mapping[str, str] = NONE) -> None:
        """Change the entry in a host's JSON file, as the user might."""
        self.install(host, env)
        document = json.loads(self.file(host).read_text())
        change(document[HOSTS[host].keys[0]]["agent-jobs"])
        self.file(host).write_text(json.dumps(document))

    def list_findings(self) -> list[Finding]:
        return list(check_hosts(self.machine, Settings.from_env_leniently(self.environ)[0]))

    def find_one(self) -> Finding:
        [finding] = self.list_findings()
        assert finding.what == "host"
        assert finding.state == "ok" or finding.fix
        return finding


@pytest.fixture
def person(tmp_path: Path) -> Person:
    key = tmp_path / "key"
    key.write_text(KEY + "\n")
    (tmp_path / "project").mkdir()
    return Person(tmp_path, {"PATH": "/usr/bin:/bin", "OPENAI_API_KEY": KEY, "HOME": str(tmp_path)})


def test_doctor_prints_one_line_without_hosts(person: Person):
    finding = person.find_one()
    assert (finding.state, finding.fix) == ("ok", "")
    assert "agent-jobs install HOST" in finding.text


def test_host_file_without_our_entry_gives_no_finding(person: Person):
    person.write("cursor", '{"mcpServers": {"other": {"command": "x"}}}')
    assert "no host has agent-jobs in its configuration" in person.find_one().text


IN_PROJECTS = [host for host in WRITTEN if HOSTS[host].project is not None]


@pytest.mark.parametrize(
    ("host", "scope"), [*((host, "user") for host in WRITTEN), *((host, "project") for host in IN_PROJECTS)]
)
def test_entry_written_by_install_has_no_problem(person: Person, host: str, scope: Scope):
    env = {"AGENT_JOBS_API_KEY_FILE": str(person.home / "key")} if not HOSTS[host].hands_key_over else {}
    person.install(host, env, scope=scope)
    finding = person.find_one()
    assert finding.state == "ok"
    assert finding.text.startswith(f"{HOSTS[host].title} ({person.file(host, scope)}) starts agent-jobs {__version__}")
    assert f"up to {find_wait_cap_s(host):g} s" in finding.text


@pytest.mark.parametrize("host", WRITTEN)
@pytest.mark.parametrize(("text", "state"), [("{,", "warning"), ('{"agent-jobs": [,', "problem")])
def test_file_that_no_host_could_read_is_named(person: Person, host: str, text: str, state: str):
    person.write(host, text)
    finding = person.find_one()
    assert finding.state == state
    assert str(person.file(host)) in finding.text
    assert f"agent-jobs install {host}" in finding.fix


def test_invalid_entry_is_reported(person: Person):
    person.write("cursor", '{"mcpServers": {"agent-jobs": "uvx"}}')
    assert person.find_one().state == "problem"


def test_folder_in_the_place_of_a_file_is_named(person: Person):
    person.file("cursor").mkdir(parents=True)
    assert "cannot be read" in person.find_one().text


@pytest.mark.parametrize("command", ["/nowhere/uvx", "no-such-program", "~/.local/bin/uvx", "", None, 7])
def test_command_that_does_not_exist_is_a_problem(person: Person, command: object):
    person.change("cursor", lambda entry: entry.update(command=command))
    finding = person.find_one()
    assert (finding.state, finding.fix) == ("problem", "agent-jobs install cursor")
    assert str(command) in finding.text if command and command != 7 else "no command" in finding.text


def test_command_that_only_a_shell_finds_is_reported_for_apps_and_not_for_terminals(person: Person):
    tool = person.home / "bin/uvx"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    person.environ["PATH"] = str(tool.parent)
    person.change("cursor", lambda entry: entry.update(command="uvx"))
    assert (person.find_one().state, person.find_one().fix) == ("warning", "agent-jobs install cursor")
    person.file("cursor").unlink()
    person.change("claude-code", lambda entry: entry.update(command="uvx"))
    assert person.find_one().state == "ok"


def test_clone_that_was_moved_away_is_a_problem(person: Person):
    person.install("codex", args=("--from", str(person.home / "clone"), "agent-jobs"))
    assert f"{person.home / 'clone'}, which does not exist" in person.find_one().text
    (person.home / "clone").mkdir()
    assert person.find_one().state == "ok"


@pytest.mark.parametrize(
    ("args", "older"),
    [
        (("agent-jobs@0.0.9",), True),
        (("agent-jobs==0.0.10",), True),
        (("--from", "agent-jobs==0.1.0rc2", "agent-jobs"), True),
        (("agent-jobs@0.1",), True),
        (("agent-jobs@0.1.0",), False),
        (("agent-jobs@0.1.1",), False),
        (("agent-jobs@0.10.0",), False),
        (("agent-jobs@latest",), False),
        (("agent-jobs",), False),
    ],
)
def test_pin_to_an_older_version_is_reported(
    person: Person, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], older: bool
):
    monkeypatch.setattr(host_checks, "__version__", "0.1.0")
    person.install("codex", args=args)
    finding = person.find_one()
    assert (finding.state == "warning") == older
    assert not older or (finding.fix, "and this is 0.1.0" in finding.text) == ("agent-jobs install codex", True)


@pytest.mark.parametrize("host", ["claude-code", "cursor", "codex", "opencode", "qwen"])
def test_key_expected_from_an_environment_without_one_is_reported(person: Person, host: str):
    del person.environ["OPENAI_API_KEY"]
    person.install(host)
    finding = person.find_one()
    assert finding.state == "warning"
    assert "takes OPENAI_API_KEY from the environment" in finding.text
    assert finding.fix == "agent-jobs key set"


@pytest.mark.parametrize("reference", ["$OPENAI_API_KEY", "${OPENAI_API_KEY}", "${env:OPENAI_API_KEY}"])
def test_reference_that_the_host_does_not_fill_is_no_key(person: Person, reference: str):
    person.install("claude-desktop", {"OPENAI_API_KEY": reference})
    [*findings] = person.list_findings()
    assert any("gives the server no OPENAI_API_KEY" in finding.text for finding in findings)


def test_entry_without_a_key_is_reported(person: Person):
    person.change("cursor", lambda entry: entry.pop("env"))
    assert "gives the server no OPENAI_API_KEY" in person.find_one().text


def test_key_that_the_host_asks_for_is_not_reported_as_missing(person: Person):
    del person.environ["OPENAI_API_KEY"]
    person.install("vscode")
    assert person.find_one().state == "ok"


def test_key_file_that_does_not_exist_is_reported_in_the_words_of_the_server(person: Person):
    person.install("claude-desktop", {"AGENT_JOBS_API_KEY_FILE": "/nowhere/key"})
    finding = person.find_one()
    [sentence] = Settings.from_env_leniently({"AGENT_JOBS_API_KEY_FILE": "/nowhere/key"})[1]
    assert finding.state == "problem"
    assert sentence in finding.text
    assert finding.fix.startswith("correct it, or set another value: agent-jobs install claude-desktop --env ")


def test_another_key_is_reported_without_showing_either(person: Person):
    person.install("claude-desktop", {"OPENAI_API_KEY": "sk-another-9876543210"})
    finding = person.find_one()
    assert finding.state == "warning"
    assert "...3210 there, ...6789 here" in finding.text
    assert KEY not in finding.text


def test_every_setting_of_the_entry_is_checked(person: Person):
    person.install("cursor", {"AGENT_JOBS_FOLLOW": "all", "AGENT_JOBS_MODELL": "x"})
    found = {finding.state: finding.text for finding in person.list_findings()}
    assert "AGENT_JOBS_FOLLOW accepts auto" in found["problem"]
    assert "did you mean AGENT_JOBS_MODEL?" in found["warning"]


def test_entry_with_another_data_folder_or_address_is_reported_with_the_fix(person: Person):
    here = {"AGENT_JOBS_DATA_DIR": "/jobs", "OPENAI_BASE_URL": "https://here.example/v1?api-key=secret"}
    person.environ.update(here)
    person.install("cursor")
    data, upstream = person.list_findings()
    assert "this terminal in /jobs" in data.text
    assert "agent-jobs install cursor --env AGENT_JOBS_DATA_DIR=/jobs" in data.fix
    assert "https://here.example/v1" in upstream.text
    assert "secret" not in upstream.text + upstream.fix
    person.install("cursor", here)
    assert person.find_one().state == "ok"


@pytest.mark.parametrize(
    ("host", "entry", "variables", "warning"),
    [
        ("codex", {}, {}, None),
        ("codex", {"tool_timeout_sec": 60}, {}, "gives up on a tool call after 60 s, and a poll waits up to 240 s"),
        ("codex", {"tool_timeout_sec": 60}, {"AGENT_JOBS_MAX_WAIT_S": "50"}, None),
        ("codex", {}, {"AGENT_JOBS_MAX_WAIT_S": "300"}, "after 300 s, and a poll waits up to 300 s"),
        ("claude-code", {}, {"AGENT_JOBS_MAX_WAIT_S": "3600"}, None),
        ("claude-code", {"timeout": 60_000}, {}, "after 60 s, and a poll waits up to 1500 s"),
        ("claude-code", {"timeout": 600}, {}, None),
        ("claude-code", {"timeout": "60000"}, {}, None),
        ("cursor", {}, {"AGENT_JOBS_MAX_WAIT_S": "90"}, "after 60 s, and a poll waits up to 90 s"),
        ("vscode", {}, {"AGENT_JOBS_MAX_WAIT_S": "90"}, None),
    ],
)
def test_host_whose_timeout_is_too_short_is_reported(
    person: Person, host: str, entry: dict[str, Any], variables: dict[str, str], warning: str | None
):
    if host == "codex":
        person.install(host, variables)
        text = person.file(host).read_text()
        for name, value in entry.items():
            text = text.replace(f"{name} = 300", f"{name} = {value}")
        person.file(host).write_text(text)
    else:
        person.change(host, lambda found: found.update(entry), variables)
    finding = person.find_one()
    assert finding.state == ("warning" if warning else "ok")
    assert warning is None or warning in finding.text
    assert warning is None or "AGENT_JOBS_MAX_WAIT_S=" in finding.fix


def test_hosts_with_longer_waits_are_recognized_by_their_client_names():
    others = {"gemini-cli", "continue-cli-client", "@cline/core"}
    assert WAIT_CAPS_S.keys() - HOSTS.keys() == others  # their files are not read here, or they use other names


def test_file_is_checked_once_in_the_home_folder(person: Person):
    person.install("cursor")
    at_home = Machine("linux", person.home, person.environ, person.home)
    assert len(list(check_hosts(at_home, Settings.from_env_leniently(person.environ)[0]))) == 1


def test_doctor_prints_host_findings_in_a_terminal(upstream: RunningServer, tmp_path: Path):
    terminal = Terminal(upstream.base_url, tmp_path / "data")
    terminal.pipe("install", "codex", "--no-check")
    (tmp_path / ".cursor").mkdir()
    (tmp_path / ".cursor/mcp.json").write_text('{"agent-jobs": [')
    shown = terminal.show("doctor")
    assert shown.returncode == 1
    assert "X  host        Cursor" in shown.text
    assert "!  host        Codex" in shown.text  # Codex stores its jobs elsewhere
    assert all(cell_len(line) <= 80 or len(line[15:].split()) == 1 for line in shown.text.splitlines())


@pytest.mark.parametrize(
    ("mode", "is_open"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o666, True)]
)
def test_key_files_that_others_can_read_are_named_with_the_line_that_closes_them(
    person: Person, mode: int, is_open: bool
):
    ours, theirs = person.home / "our key", person.home / "key"
    for file in (ours, theirs):
        file.write_text(KEY)
        file.chmod(mode)
    person.install("cursor", {"AGENT_JOBS_API_KEY_FILE": str(theirs)})
    person.write("claude-desktop", "{,")
    findings = list(check_key_files(person.machine, [ours, person.home / "gone"]))
    assert [finding.fix for finding in findings] == [
        f"chmod 600 '{person.home}/our key'",
        f"chmod 600 {person.home}/key",
    ] * is_open
    assert all(finding.state == "warning" and f"mode {mode:o}" in finding.text for finding in findings)
    assert KEY not in str(findings)
