"""An operator sets and lists the owners and tokens of a team server in a terminal."""

import json
import re
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result
from terminals import Terminal

from agent_jobs.app import open_app
from agent_jobs.cli.display import terminal as terminal_format
from agent_jobs.cli.main import cli
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.owners import Owner, OwnerLimits
from agent_jobs.jobs.status import Status
from agent_jobs.settings.settings import Settings
from agent_jobs.store import open_store

DAY_S = 86_400.0


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal("http://127.0.0.1:9/v1", tmp_path / "data")


def read(terminal: Terminal, *arguments: str) -> Any:
    ran = terminal.pipe(*arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_token_is_printed_once_and_its_hash_alone_is_stored(terminal: Terminal, tmp_path: Path) -> None:
    added = terminal.pipe("token", "add", "alice", "--expires", "90d", "--note", "laptop")
    text = added.stdout.strip()
    assert re.fullmatch(r"ajt_[A-Za-z0-9_-]{43}", text)
    assert "shown only now" in added.stderr
    [record] = read(terminal, "token", "list")["tokens"]
    assert (record["owner"], record["note"], record["fault"]) == ("alice", "laptop", "")
    assert record["expires_at"] - record["created_at"] == 90 * DAY_S
    assert "hash" not in record
    shown = terminal.pipe("token", "list").stdout
    assert re.search(rf"{record['id']} +alice +active .* laptop", shown)
    assert terminal.pipe("token", "revoke", record["id"]).stdout == f"{record['id']} is revoked.\n"
    assert "was revoked before" in terminal.pipe("token", "revoke", record["id"]).stdout
    unknown = terminal.pipe("token", "revoke", "tok_none")
    assert (unknown.returncode, unknown.stderr) == (
        1,
        "Error: There is no token 'tok_none'. See all with: agent-jobs token list\n",
    )
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("jobs.db*"))
    assert text.encode() not in kept
    assert sha256(text.encode()).hexdigest().encode() in kept


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, env={"AGENT_JOBS_OWNER_KEYS_DIR": "", **environment})


@pytest.mark.parametrize(
    "name", ["", " alice", "alice ", "a\nb", "a\x1b[31m", "\u202ealice", "(others)", "(none)", "-x"]
)
@pytest.mark.parametrize("words", [("token", "add"), ("owner", "set"), ("owner", "show"), ("import", "x", "--owner")])
def test_no_command_accepts_a_name_that_no_owner_can_have(words: tuple[str, ...], name: str) -> None:
    given = (*words, name) if words[-1] == "--owner" else (*words, "--", name)
    result = invoke(*given)
    assert result.exit_code == 2
    assert "owner" in result.stderr.lower()
    assert name not in ("a\nb", "a\x1b[31m", "\u202ealice") or name not in result.stderr


@pytest.mark.parametrize(
    "reference",
    [
        "../alice", "/etc/keys/alice", "keys/alice", "c:\\alice", ".", "..", " alice", "al\nice", "env:", "env:A-B",
        "env:sk-abc", "ENV:A", "sk-proj-0123456789abcdef", "sk-x", "0123456789abcdef0123456789abcdef", "Bearer abc",
        "OPENAI_API_KEY=abc", "ajt_0123456789", "a" * 300,
    ],
)  # fmt: skip
def test_reference_that_names_no_key_is_refused_without_being_repeated(reference: str, tmp_path: Path) -> None:
    result = invoke("owner", "set", "alice", "--key-ref", reference, AGENT_JOBS_DATA_DIR=str(tmp_path / "data"))
    assert result.exit_code == 2
    assert "env:NAME" in result.stderr
    assert len(reference) < 3 or reference == "env:" or reference not in result.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("reference", "warning"),
    [
        ("alice", ""),
        ("gone", "There is no key in"),
        ("openai-key of alice.txt", "There is no key in"),
        ("env:ALICE_KEY", ""),
        ("", ""),
    ],
)
def test_reference_of_a_key_is_confirmed_and_a_missing_file_is_named(
    reference: str, warning: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "alice").write_text("sk-of-alice")
    folders = {"AGENT_JOBS_DATA_DIR": str(tmp_path / "data"), "AGENT_JOBS_OWNER_KEYS_DIR": str(keys)}
    result = invoke("owner", "set", "alice", "--key-ref", reference, **folders)
    assert (result.exit_code, result.stdout) == (0, f"alice: limits default; key {reference or 'shared'}\n")
    assert bool(result.stderr) == bool(warning)
    assert warning in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "add", "alice", "--expires", "0d"),
        ("token", "add", "alice", "--expires", "soon"),
        ("owner", "set", "alice", "--max-concurrent", "0"),
        ("owner", "set", "alice", "--daily-budget", "-1"),
        ("owner", "set", "alice", "--starts-per-minute", "none"),
        ("owner", "set", "alice", "--daily-budget", "nan"),
    ],
    ids=" ".join,
)
def test_value_that_makes_no_sense_is_refused(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    assert terminal.pipe(*arguments).returncode == 2


async def add_jobs(folder: Path, *owners: str) -> None:
    async with open_store(folder) as store:
        for owner in owners:
            turn = Turn(number=1, request={}, request_id=owner, base_url="http://x")
            job = Job(id=f"job_{owner}", title="t", status=Status.PENDING, created_at=time.time(), turn=turn)
            await store.for_owner(owner).add(job)


def test_limits_of_an_owner_are_set_removed_and_shown(terminal: Terminal, tmp_path: Path) -> None:
    assert "There are no owners yet" in terminal.pipe("owner", "list").stdout
    ran = terminal.pipe("owner", "set", "alice", "--max-concurrent", "5", "--daily-budget", "2.5", "--key-ref", "a")
    assert ran.stdout == "alice: limits 5 at once, 2.5 USD a day; key a\n"
    changed = read(terminal, "owner", "set", "alice", "--daily-budget", "default", "--starts-per-minute", "3")
    limits = {"max_concurrent": 5, "daily_budget_usd": None, "starts_per_minute": 3}
    assert changed == {"name": "alice", **limits, "key_ref": "a"}
    anyio.run(add_jobs, tmp_path / "data", "bob", "")
    alice, bob = read(terminal, "owner", "list")["owners"]
    assert alice == {**changed, "jobs": 0, "running": 0, "waiting": 0, "today_usd": 0}
    assert (bob["name"], bob["jobs"], bob["waiting"], bob["max_concurrent"]) == ("bob", 1, 1, None)
    table = terminal.pipe("owner", "list").stdout
    assert re.search(r"alice +0 .* a +5 at once, 3 starts a minute\n", table)
    assert "5 at once, 3 starts a minute" in terminal.pipe("owner", "show", "alice").stdout
    assert terminal.pipe("owner", "show", "carol").returncode == 1


def test_lists_show_the_owner_if_a_job_has_one(terminal: Terminal, tmp_path: Path) -> None:
    anyio.run(add_jobs, tmp_path / "data", "")
    assert "OWNER" not in terminal.pipe("list").stdout
    anyio.run(add_jobs, tmp_path / "data", "alice", "bob")
    assert re.search(r"OWNER", terminal.pipe("list").stdout)
    rows = read(terminal, "list", "--owner", "alice")["jobs"]
    assert [(row["job_id"], row["owner"]) for row in rows] == [("job_alice", "alice")]
    assert re.search(r"owner +alice", terminal.pipe("show", "job_alice").stdout)


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """Return a data folder with owners and tokens whose tables are wider than a terminal."""

    async def add() -> None:
        async with open_app(Settings(data_dir=tmp_path), role="reads") as app:
            owners = (await app.engine()).owners
            await owners.set_owner(Owner("alice", OwnerLimits(5, 2.5, 3), "alice-key"))
            await owners.set_owner(Owner("https://sign-in.example.com/tenant oauth-subject-0001", OwnerLimits()))
            _, record = await owners.add_token("alice", note="the laptop in the office", lifetime_s=90 * DAY_S)
            await owners.mark_token_used(record)
            await owners.add_token("bob", note="", lifetime_s=None)

    anyio.run(add)
    return tmp_path


def type_in_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch, columns: int, *words: str) -> list[str]:
    find_width: Callable[[], int] = lambda: columns  # noqa: E731
    monkeypatch.setattr(terminal_format, "find_width", find_width)
    result = CliRunner().invoke(cli, words, env={"AGENT_JOBS_DATA_DIR": str(folder)})
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


@pytest.mark.parametrize("columns", [100, 80, 60, 40])
@pytest.mark.parametrize("group", ["owner", "token"])
def test_tables_of_a_team_fit_the_terminal(team: Path, monkeypatch: pytest.MonkeyPatch, group: str, columns: int):
    lines = type_in_terminal(team, monkeypatch, columns, group, "list")
    assert max(map(len, lines)) <= columns
    words = {"owner": "5 at once, 2.5 USD a day, 3 starts a minute", "token": "the laptop in the office"}[group]
    assert set(words.split()) <= set(" ".join(lines).split())  # no word is broken


def test_tables_of_a_team_are_complete_in_a_pipe(team: Path, monkeypatch: pytest.MonkeyPatch):
    header, alice, _, other = type_in_terminal(team, monkeypatch, terminal_format.UNLIMITED, "owner", "list")
    assert header.split() == ["OWNER", "JOBS", "RUNNING", "WAITING", "TODAY", "KEY", "LIMITS"]
    assert re.search(r"alice +0 +0 +0 +\$0\.00 +alice-key +5 at once, 2\.5 USD a day, 3 starts a minute$", alice)
    assert re.search(r"^https://sign-in\.example\.com/tenant oauth-subject-0001 .* default$", other)
    header, *tokens = type_in_terminal(team, monkeypatch, terminal_format.UNLIMITED, "token", "list")
    assert header.split() == ["ID", "OWNER", "STATE", "CREATED", "EXPIRES", "USED", "NOTE"]
    used, unused = sorted(tokens, key=lambda line: " bob " in line)
    assert re.search(r" alice +active +[\d-]{10}  [\d-]{10} \d\d:\d\d  (just now|\d min ago) +the laptop", used)
    assert re.search(r" bob +active +[\d-]{10}$", unused)


def test_list_counts_in_the_order_of_the_statuses_and_names_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    statuses = (Status.CANCELLED, Status.COMPLETED, Status.FAILED, Status.COMPLETED, Status.IN_PROGRESS)

    async def add() -> None:
        async with open_store(tmp_path) as store:
            for number, status in enumerate(statuses):
                turn = Turn(number=1, request={}, request_id=str(number), base_url="http://127.0.0.1:9/v1")
                now = time.time()
                job = Job(id=f"job_{number}", title="t", status=status, created_at=now, delivered_at=now, turn=turn)
                await store.for_owner("alice").add(job)

    anyio.run(add)
    counts = "1 in_progress, 2 completed, 1 failed, 1 cancelled"
    shown = type_in_terminal(tmp_path, monkeypatch, terminal_format.UNLIMITED, "list", "-n", "2")
    assert f"{counts}. Showing 2 of 5 (-n 5 for all)" in shown
    shown = type_in_terminal(tmp_path, monkeypatch, terminal_format.UNLIMITED, "list", "--owner", "alice")
    assert counts in shown
