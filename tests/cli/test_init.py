"""`init` sets up a new user until a host runs jobs, and leaves no step half-done."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from processes import Server, serving
from terminals import HIDDEN_QUESTION, Terminal

from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import VARIABLES

KEY = "sk-emulated-0123456789abcdef"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home in which two hosts were used, and agent-jobs was not."""
    for name in (*VARIABLES, "XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".cursor").mkdir()
    (tmp_path / ".codex").mkdir()
    return tmp_path


def init(*arguments: str, stdin: str = "", **environ: str) -> Result:
    # test_install_trial.py tests the start of the written commands.
    return CliRunner().invoke(cli, ["init", "--no-check", *arguments], input=stdin, env=environ)


def list_files(home: Path) -> set[str]:
    """List the files that init wrote into the home folder, without the database, which the check of the key opens."""
    kept = (path.relative_to(home) for path in home.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path) for path in kept if path.parts[0] != ".local"}


def name_stored_key(upstream: RunningServer) -> str:
    return f".config/agent-jobs/keys/{upstream.url.replace('://', '_').replace(':', '_')}"


def test_yes_stores_the_key_installs_and_runs_a_job(home: Path, upstream: RunningServer):
    result = init("--yes", "--stdin", "--endpoint", upstream.base_url, stdin=f"Bearer {KEY}\n")
    assert result.exit_code == 0, result.output
    config = ".config/agent-jobs/config.toml"
    assert list_files(home) == {config, name_stored_key(upstream), ".cursor/mcp.json", ".codex/config.toml"}
    assert (home / name_stored_key(upstream)).read_text() == f"{KEY}\n"
    assert f'base_url = "{upstream.base_url}"' in (home / config).read_text()
    assert KEY not in result.output
    assert json.loads((home / ".cursor/mcp.json").read_text())["mcpServers"]["agent-jobs"].keys() == {"command", "args"}
    assert upstream.emulator.counters()["creates"] == 1
    words = ("Left out 'Bearer'", "answers and accepts the key", "Cursor: installed", "Codex: installed",
             "This is an emulated answer to", "Start Cursor again", "Then say to your assistant: ")  # fmt: skip
    positions = [result.stdout.index(word) for word in words]
    assert positions == sorted(positions)


def test_host_runs_a_job_with_the_entry_that_init_wrote(home: Path, upstream: RunningServer):
    """The server's environment has only the home folder, as if a desktop started it."""
    command = ("--yes", "--stdin", "--host", "cursor", "--no-job", "--endpoint", upstream.base_url)
    assert init(*command, stdin=KEY).exit_code == 0
    assert upstream.emulator.counters()["creates"] == 0
    assert json.loads((home / ".cursor/mcp.json").read_text())["mcpServers"]["agent-jobs"]["args"] == []
    empty: dict[str, Any] = {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": "", "AGENT_JOBS_DATA_DIR": "", "HOME": str(home)}
    with serving(home / "data", upstream.base_url, **empty) as server:
        assert isinstance(server, Server)
        server.initialize()
        assert server.call("agent_start", prompt="x")["job_id"]
    assert upstream.emulator.counters()["creates"] == 1


def test_second_run_changes_nothing_and_asks_nothing(home: Path, upstream: RunningServer):
    init("--yes", "--stdin", "--no-job", "--endpoint", upstream.base_url, stdin=KEY)
    before = {name: (home / name).read_bytes() for name in list_files(home)}
    result = init("--yes", "--no-job")
    assert result.exit_code == 0
    assert "Key: ...cdef, from " in result.stdout
    assert "Cursor: was installed already" in result.stdout
    assert {name: (home / name).read_bytes() for name in list_files(home)} == before


def test_key_of_the_environment_is_stored_for_the_hosts(home: Path, upstream: RunningServer):
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url}
    assert init("--yes", "--no-job", "--host", "none", **environ).exit_code == 0
    assert list_files(home) == {name_stored_key(upstream), ".config/agent-jobs/config.toml"}


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["--yes"], "", "No API key is set"),
        (["--yes", "--stdin"], "", "No key was given."),
        (["--yes", "--stdin"], "$OPENAI_API_KEY", "a reference to a variable"),
        (["--yes", "--stdin"], "invalid", "refuses the key"),
        (["--yes", "--stdin", "--endpoint", "http://127.0.0.1:1/v1"], KEY, "http://127.0.0.1:1/v1"),
        (["--yes", "--stdin", "--endpoint", "ftp://x"], KEY, "--endpoint accepts a web address."),
        (["--stdin"], KEY, "--stdin needs --yes"),
        (["--yes", "--host", "claude"], KEY, "claude-code"),
    ],
)
def test_refusal_leaves_nothing_behind(
    home: Path, upstream: RunningServer, arguments: list[str], stdin: str, words: str
):
    result = init(*arguments, stdin=stdin, OPENAI_BASE_URL=upstream.base_url)
    assert result.exit_code in (1, 2)
    assert words in result.stderr
    assert KEY not in result.output
    assert list_files(home) == set()
    assert upstream.emulator.counters()["creates"] == 0


def test_pipe_prints_only_the_plan(home: Path, upstream: RunningServer):
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url}
    result = init(**environ)
    assert result.exit_code == 0
    for words in ("...cdef", "store that key", "base_url", "Cursor, Codex", "first job", "--no-job"):
        assert words in result.stdout
    assert "stop, because no API key is set" in init().stdout
    assert "first job" not in init("--no-job", **environ).stdout
    assert list_files(home) == set()
    assert upstream.emulator.log() == []


def test_host_that_refuses_does_not_keep_the_others_from_being_installed(home: Path, upstream: RunningServer):
    (home / ".cursor/mcp.json").write_text("broken")
    result = init("--yes", "--stdin", "--no-job", "--endpoint", upstream.base_url, stdin=KEY)
    assert result.exit_code == 1
    assert "Cursor: not installed." in result.stderr
    assert "Codex: installed" in result.stdout
    assert (home / ".cursor/mcp.json").read_text() == "broken"


@pytest.mark.parametrize("question", [HIDDEN_QUESTION, "Install into which?"])
def test_ctrl_c_at_a_question_leaves_finished_steps_only(home: Path, upstream: RunningServer, question: str):
    terminal = Terminal(upstream.base_url, home / "data")
    key = "" if question == HIDDEN_QUESTION else KEY
    shown = terminal.show(
        "init", stop=lambda seen: question in seen or "Store it" in seen, keys="\x03", OPENAI_API_KEY=key,
        PATH=os.environ["PATH"],
    )  # fmt: skip
    assert shown.returncode == 130
    assert shown.text.count("Interrupted.") == 1
    assert list_files(home) - {name for name in list_files(home) if name.startswith("data/")} == set()


@pytest.mark.parametrize(
    ("hosts", "answer", "chosen"),
    [
        (1, "", 1),
        (1, "y", 1),
        (1, "YES", 1),
        (1, "all", 1),
        (1, "cursor", 1),
        (1, "n", 0),
        (1, "none", 0),
        (2, "", 2),
        (2, "y", 2),
        (2, "yes", 2),
        (2, "No", 0),
        (2, "codex, cursor", 2),
        (2, "maybe\ncursor", 1),
    ],
)
def test_question_for_hosts_accepts_yes_and_no(
    home: Path, upstream: RunningServer, monkeypatch: pytest.MonkeyPatch, hosts: int, answer: str, chosen: int
):
    if hosts == 1:
        (home / ".codex").rmdir()

    # The answers at the terminal: store a key, keep the address, and run no job.
    def is_terminal(_stdin: object) -> bool:
        return True

    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", is_terminal)
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url}
    result = init("--no-job", stdin=f"y\ny\n{answer}\n", **environ)
    assert result.exit_code == 0, result.output
    asked = {1: "Install into Cursor? [Y/n]: ", 2: "Install into which? all, none, or names of cursor, codex [all]: "}
    assert result.stderr.count(asked[hosts]) == 1 + answer.startswith("maybe")
    assert result.stdout.count(": installed, ") == chosen
