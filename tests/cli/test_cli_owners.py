"""Owners and tokens of a team server, as an operator sets and sees them in a terminal."""

import json
import re
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result
from terminals import Terminal

from agent_jobs.cli.main import cli
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.status import Status
from agent_jobs.store import open_store

DAY_S = 86_400.0


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal("http://127.0.0.1:9/v1", tmp_path / "data")


def read(terminal: Terminal, *arguments: str) -> Any:
    ran = terminal.pipe(*arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_token_is_printed_once_and_its_hash_alone_is_kept(terminal: Terminal, tmp_path: Path) -> None:
    added = terminal.pipe("token", "add", "alice", "--expires", "90d", "--note", "laptop")
    text = added.stdout.strip()
    assert re.fullmatch(r"ajt_[A-Za-z0-9_-]{43}", text)
    assert "shown only now" in added.stderr
    [record] = read(terminal, "token", "list")["tokens"]
    assert (record["owner"], record["note"], record["fault"]) == ("alice", "laptop", "")
    assert record["expires_at"] - record["created_at"] == 90 * DAY_S
    assert "hash" not in record
    shown = terminal.pipe("token", "list").stdout
    assert re.search(rf"{record['id']} +alice +good .* laptop", shown)
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
    assert (result.exit_code, result.stdout) == (0, f"alice: those of the settings; key: {reference or 'shared'}\n")
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
def test_value_that_cannot_be_meant_is_refused(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    assert terminal.pipe(*arguments).returncode == 2


async def add_jobs(folder: Path, *owners: str) -> None:
    async with open_store(folder) as store:
        for owner in owners:
            turn = Turn(number=1, request={}, request_id=owner, base_url="http://x")
            job = Job(id=f"job_{owner}", title="t", status=Status.PENDING, created_at=time.time(), turn=turn)
            await store.of(owner).add(job)


def test_limits_of_an_owner_are_set_taken_back_and_shown(terminal: Terminal, tmp_path: Path) -> None:
    assert "There are no owners yet" in terminal.pipe("owner", "list").stdout
    ran = terminal.pipe("owner", "set", "alice", "--max-concurrent", "5", "--daily-budget", "2.5", "--key-ref", "a")
    assert ran.stdout == "alice: 5 at once, 2.5 USD a day; key: a\n"
    changed = read(terminal, "owner", "set", "alice", "--daily-budget", "default", "--starts-per-minute", "3")
    limits = {"max_concurrent": 5, "daily_budget_usd": None, "starts_per_minute": 3}
    assert changed == {"name": "alice", **limits, "key_ref": "a"}
    anyio.run(add_jobs, tmp_path / "data", "bob", "")
    alice, bob = read(terminal, "owner", "list")["owners"]
    assert alice == {**changed, "jobs": 0, "running": 0, "waiting": 0, "today_usd": 0}
    assert (bob["name"], bob["jobs"], bob["waiting"], bob["max_concurrent"]) == ("bob", 1, 1, None)
    table = terminal.pipe("owner", "list").stdout
    assert re.search(r"alice +0 .* 5 at once, 3 starts a minute +a\n", table)
    assert "5 at once, 3 starts a minute" in terminal.pipe("owner", "show", "alice").stdout
    assert terminal.pipe("owner", "show", "carol").returncode == 1


def test_lists_show_the_owner_where_a_job_has_one(terminal: Terminal, tmp_path: Path) -> None:
    anyio.run(add_jobs, tmp_path / "data", "")
    assert "OWNER" not in terminal.pipe("list").stdout
    anyio.run(add_jobs, tmp_path / "data", "alice", "bob")
    assert re.search(r"OWNER", terminal.pipe("list").stdout)
    rows = read(terminal, "list", "--owner", "alice")["jobs"]
    assert [(row["job_id"], row["owner"]) for row in rows] == [("job_alice", "alice")]
    assert re.search(r"owner +alice", terminal.pipe("show", "job_alice").stdout)
