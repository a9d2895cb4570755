"""`agent-jobs audit` prints the audit log of a team server."""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner

from agent_jobs.app import open_app
from agent_jobs.cli.display import terminal
from agent_jobs.cli.main import cli
from agent_jobs.settings.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    async def log() -> None:
        async with open_app(Settings(data_dir=tmp_path), role="reads") as app:
            owners = (await app.engine()).owners
            await owners.log_action(("alice", "tok_1", "claude-code", "10.0.0.1"), "start", {"job_1": None})
            await owners.log_action(("bob", "tok_2", "a\x1b[31m\nb", "10.0.0.2"), "result", {"job_2": 0.5, "job_3": 1})
            await owners.log_action(("", "", "curl/8", "10.0.0.3"), "refused: unknown", {})

    anyio.run(log)
    return tmp_path


def run_audit(folder: Path, *words: str) -> str:
    result = CliRunner().invoke(cli, ["audit", *words], env={"AGENT_JOBS_DATA_DIR": str(folder)})
    assert result.exit_code == 0, result.output
    return result.output


def test_audit_shows_each_action_in_a_line(folder: Path):
    header, *lines = run_audit(folder).splitlines()
    assert header.startswith("TIME (UTC)           OWNER  ACTION            JOB    CLIENT       TOKEN  ADDRESS    COST")
    assert [re.split(" {2,}", line)[1:] for line in lines] == [
        ["alice", "start", "job_1", "claude-code", "tok_1", "10.0.0.1", "-"],
        ["bob", "result", "job_2", "a[31m b", "tok_2", "10.0.0.2", "$0.50"],
        ["bob", "result", "job_3", "a[31m b", "tok_2", "10.0.0.2", "$1.00"],
        ["-", "refused: unknown", "-", "curl/8", "-", "10.0.0.3", "-"],
    ]
    logged_at = datetime.strptime(lines[0][:19], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    assert abs(time.time() - logged_at) < 600


@pytest.mark.parametrize("columns", [80, 60, 48])
def test_audit_fits_the_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch, columns: int):
    find_width: Callable[[], int] = lambda: columns  # noqa: E731
    monkeypatch.setattr(terminal, "find_width", find_width)
    lines = run_audit(folder).splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) <= columns
    assert "ACTION" in lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "The audit log is empty. A team server writes it: agent-jobs serve --http\n"),
        (("--owner", "alice"), "The audit log has no such action.\n"),
        (("--json-lines",), ""),
    ],
)
def test_empty_audit_log_is_reported_on_stderr(tmp_path: Path, words: tuple[str, ...], message: str):
    result = CliRunner().invoke(cli, ["audit", *words], env={"AGENT_JOBS_DATA_DIR": str(tmp_path)})
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", message)


def test_audit_selects_an_owner_and_a_time_as_json(folder: Path):
    rows = [
        json.loads(line) for line in run_audit(folder, "--owner", "bob", "--since", "1h", "--json-lines").splitlines()
    ]
    assert [(row["owner"], row["job_id"], row["cost_usd"]) for row in rows] == [
        ("bob", "job_2", 0.5),
        ("bob", "job_3", 1),
    ]
    assert run_audit(folder, "--owner", "nobody", "--json-lines") == ""


@pytest.mark.parametrize("since", ["99999999999999w", "9" * 400 + "w", "0001-01-01", "6000w"])
@pytest.mark.parametrize("command", ["audit", "list"])
def test_time_before_all_jobs_is_refused(command: str, since: str):
    result = CliRunner().invoke(cli, [command, "--since", since])
    assert result.exit_code == 2
    assert "Write an age such as" in " ".join(result.stderr.split())
