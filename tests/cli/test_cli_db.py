"""Jobs in PostgreSQL from the command line and a host: `db`, `config`, `doctor`, and jobs that two processes share."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner
from hosts import SPEED, create_fast_clock, hosting
from postgres_server import new_database, run_statements

from agent_jobs.app import open_app
from agent_jobs.cli.checks.server_checks import check_server
from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer
from agent_jobs.jobs.queries import ReplicaInfo, ServerInfo
from agent_jobs.settings.configuration import load_settings
from agent_jobs.settings.secret_values import hide_database_password
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr
from agent_jobs.store.postgres_heartbeat import DEAD_WITHOUT_SESSION_AFTER_S
from agent_jobs.store.postgres_schema import read_scripts

PASSWORD = "s3cret-pass"
SCHEMA = read_scripts()[-1].version


@pytest.fixture
def url(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url) as url:
        yield url


@pytest.fixture
def empty_url(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url, "template0") as url:
        yield url


def run_command(url: str, folder: Path, *words: str) -> tuple[int, str]:
    with_password = url.replace("test@", f"test:{PASSWORD}@")
    environment = {"AGENT_JOBS_DATABASE_URL": with_password, "AGENT_JOBS_DATA_DIR": str(folder)}
    result = CliRunner().invoke(cli, list(words), env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert PASSWORD not in result.output
    return result.exit_code, result.output


def test_db_upgrades_an_empty_database_once(empty_url: str, tmp_path: Path):
    code, text = run_command(empty_url, tmp_path, "list")
    assert (code, "Run `agent-jobs db upgrade`." in text) == (1, True)
    assert run_command(empty_url, tmp_path, "db", "upgrade", "--check")[0] == 1
    assert run_command(empty_url, tmp_path, "db", "upgrade") == (0, f"Upgraded from schema 0 to {SCHEMA}.\n")
    assert run_command(empty_url, tmp_path, "db", "upgrade") == (0, f"Schema {SCHEMA} is up to date.\n")
    assert run_command(empty_url, tmp_path, "db", "upgrade", "--check")[0] == 0
    code, text = run_command(empty_url, tmp_path, "db", "status", "--json")
    assert (code, json.loads(text)) == (0, {"url": empty_url, "schema": SCHEMA, "needed": SCHEMA})
    assert run_command(empty_url, tmp_path, "list")[0] == 0


def test_db_without_a_postgresql_database_names_the_setting(tmp_path: Path):
    result = CliRunner().invoke(cli, ["db", "upgrade"], env={"AGENT_JOBS_DATA_DIR": str(tmp_path)})
    assert result.exit_code == 1
    assert "AGENT_JOBS_DATABASE_URL is not set" in result.output


@pytest.mark.parametrize("wrong", ["mysql://h/x", "jobs.db", f"postgresql://test:{PASSWORD}/x@h:port/x"])
def test_address_of_another_database_is_refused_and_not_shown(wrong: str, tmp_path: Path):
    code, text = run_command(wrong, tmp_path, "list")
    assert code == 1
    assert "AGENT_JOBS_DATABASE_URL accepts the address of a PostgreSQL database" in text


@pytest.mark.parametrize("variable", ["AGENT_JOBS_DATABASE_URL", "AGENT_JOBS_DATABASE_LISTEN_URL"])
@pytest.mark.parametrize(
    "password",
    [
        "pzz@qzz/wzz", "pzz@qzz", "pzz@qzz@wzz", "pzz/qzz@wzz", "12/qzz", "12/qzz@wzz", "12?qzz", "12#qzz",
        "pzz@qzz:wzz", "pzz@qzz:12/wzz", "pzz@qzz?wzz", "pzz@qzz#wzz", "12?qzz@wzz", "12#qzz/wzz", "/qzz", "@qzz",
    ],
)  # fmt: skip
def test_password_that_is_not_escaped_is_refused_and_no_part_of_it_is_shown(
    password: str, variable: str, tmp_path: Path
):
    good = "postgresql://user@127.0.0.1:1/jobs"
    environment = {"AGENT_JOBS_DATABASE_URL": good, "AGENT_JOBS_DATA_DIR": str(tmp_path)}
    environment[variable] = f"postgresql://user:{password}@127.0.0.1:1/jobs"
    for words in ("list", "config"):
        output = CliRunner().invoke(cli, words.split(), env=environment).output
        assert f"{variable} accepts the address of a PostgreSQL database" in output
        assert "In a password, write / as %2F, @ as %40, : as %3A and # as %23." in " ".join(output.split())
        assert "zz" not in output


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:p%40ss%2Fw@h:5433/x?sslmode=require", "postgresql://user@h:5433/x"),
        ("postgres://user:p:w@h/x", "postgres://user@h/x"),
        ("postgresql://user%40team@h/x", "postgresql://user%40team@h/x"),
        ("postgresql:///x?host=/var/run/postgresql", "postgresql:///x"),
        ("postgresql://[::1]:5432/x", "postgresql://[::1]:5432/x"),
        ("postgresql://h/x", "postgresql://h/x"),
    ],
)
def test_address_that_can_be_read_in_one_way_is_accepted(url: str, shown: str):
    settings = load_settings({"AGENT_JOBS_DATABASE_URL": url})
    assert settings.database_url == SecretStr(url)
    assert hide_database_password(settings.database_url) == shown


def test_config_shows_the_database_without_its_password(url: str, tmp_path: Path):
    text = run_command(url, tmp_path, "config", "--json")[1]
    assert json.loads(text)["settings"]["AGENT_JOBS_DATABASE_URL"]["value"] == url


def test_doctor_shows_the_server_and_the_version_of_the_tables(url: str, tmp_path: Path):
    text = run_command(url, tmp_path, "doctor", "--json")[1]
    [database] = [each for each in json.loads(text)["findings"] if each["what"] == "database"]
    assert f"schema {SCHEMA}, PostgreSQL 1" in database["text"]


def test_doctor_shows_the_processes_the_queue_and_the_connections(url: str, tmp_path: Path):
    """One process is running. Another died a minute ago, and no process has claimed its job."""
    up_for_s = "extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())"
    run_statements(
        url,
        # A process cannot have been silent for longer than its server is up.
        f"SELECT pg_sleep({DEAD_WITHOUT_SESSION_AFTER_S} - {up_for_s})",
        """INSERT INTO replica (name, announced, beat_at)
           VALUES ('12-y', '{"what": "work"}', clock_timestamp() + interval '60 s'),
                  ('77-x', '{"what": "server"}', clock_timestamp() - interval '60 s')""",
        """INSERT INTO job (id, title, status, created_at, turn, next_at)
           VALUES ('job_1', '', 'queued', 1, 1, extract(epoch FROM clock_timestamp()) - 60)""",
    )
    text = run_command(url, tmp_path, "doctor", "--json")[1]
    found = {each["what"]: each for each in json.loads(text)["findings"]}
    assert re.search(
        r"agent-jobs work \(pid 12, seen 0 s ago\); dead: agent-jobs server \(pid 77, seen 6\d s ago\)",
        found["replicas"]["text"],
    )
    assert found["queue"]["text"].startswith("1 due, 0 waiting for a slot; the oldest has been due for 1:0")
    assert re.search(r"after \d+ ms", found["messages"]["text"])
    assert re.search(r"\d of at most 10 in the pool of this process, \d+ of \d+ on the server", found["pool"]["text"])
    assert [found[what]["state"] for what in ("replicas", "queue", "messages", "pool")] == [
        "warning", "warning", "ok", "ok",
    ]  # fmt: skip
    assert found["queue"]["fix"] == "start agent-jobs work with the OPENAI_BASE_URL of these jobs"


SERVER = ServerInfo(
    version=18, replicas=(), due=0, oldest_due_s=0, waiting=3, message_s=0.002, pool=(1, 10), connections=(5, 100)
)


@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        ({"version": 14}, "server", "upgrade the server"),
        ({"message_s": None}, "messages", "set AGENT_JOBS_DATABASE_LISTEN_URL"),
        ({"message_s": 1.5}, "messages", "check the load"),
        ({"connections": (95, 100)}, "pool", "raise max_connections"),
        ({"due": 2, "oldest_due_s": 60.0}, "queue", "start agent-jobs work"),
        ({"replicas": (ReplicaInfo("7-x", "work", 40.0, is_dead=True),)}, "replicas", "start it again"),
        ({"replicas": (ReplicaInfo("7-x", "work", 9000.0, is_dead=True),)}, "", ""),
        ({"due": 2, "oldest_due_s": 1.0}, "", ""),
    ],
)
def test_doctor_warns_of_faults_of_a_database_server(change: dict[str, Any], what: str, fix: str):
    warned = [finding for finding in check_server(SERVER._replace(**change)) if finding.state != "ok"]
    assert [finding.what for finding in warned] == ([what] if what else [])
    assert not what or warned[0].fix.startswith(fix)


def test_password_file_that_cannot_be_read_is_named(url: str, tmp_path: Path):
    environment = {"AGENT_JOBS_DATABASE_URL": url, "AGENT_JOBS_DATABASE_PASSWORD_FILE": str(tmp_path / "none")}
    result = CliRunner().invoke(cli, ["list"], env=environment)
    assert result.exit_code == 1
    assert f"AGENT_JOBS_DATABASE_PASSWORD_FILE names {tmp_path / 'none'}, which cannot be read" in result.output


async def test_host_and_command_share_jobs_in_postgresql(
    url: str, settings: Settings, upstream: RunningServer, tmp_path: Path
):
    password_file = tmp_path / "password"
    password_file.write_text(f"{PASSWORD}\n")
    shared = replace(settings, database_url=SecretStr(url), database_password_file=password_file)
    async with hosting(shared) as host:
        started = await host.start(emulate={"text": "from PostgreSQL"})
        async with open_app(shared, create_fast_clock(SPEED), role="reads") as app:
            engine = await app.engine()
            with anyio.fail_after(60):
                while not (await engine.poll(started["job_id"], wait_s=60.0)).is_terminal:
                    pass
            [watcher] = (await engine.store_info()).watchers
        assert watcher.base_url == settings.base_url
        answer = await host.call("agent_result", job_id=started["job_id"])
        assert "from PostgreSQL" in str(answer)
    assert settings.data_dir is not None
    assert not (settings.data_dir / "jobs.db").exists()
