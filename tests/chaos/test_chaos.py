"""Short chaos runs: servers are killed, the provider has every fault, and no job is lost, wrong or paid twice."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import new_database

from chaos.calls import run_jobs
from chaos.databases import SharedDatabase
from chaos.drive import run
from chaos.interrupts import press
from chaos.judge import judge
from chaos.plan import Options
from chaos.table import format_table

#: With this seed no job has a fault that takes a minute by design, such as a foreground run whose process dies.
OPTIONS = Options(seed=7, jobs=60, kills=4, in_flight=20, limit_s=150)
#: A run of replicas on one PostgreSQL database.
ON_POSTGRES = Options(database="postgresql", seed=2, jobs=14, kills=2, in_flight=14, limit_s=100)


@pytest.mark.timeout(200)
async def test_jobs_of_killed_servers_end_as_the_provider_says(tmp_path: Path) -> None:
    record = await run(OPTIONS, tmp_path)
    judgement = judge(record)
    assert not judgement.violations, "\n".join(format_table(record, judgement))


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url) as url:
        yield url


@pytest.mark.timeout(200)
async def test_jobs_of_killed_replicas_end_as_the_provider_says(tmp_path: Path, postgres_url: str) -> None:
    record = await run(ON_POSTGRES, tmp_path, SharedDatabase(postgres_url, tmp_path))
    judgement = judge(record)
    assert not judgement.violations, "\n".join(format_table(record, judgement))


@pytest.mark.timeout(240)
def test_servers_killed_between_and_inside_calls_make_no_call_twice(tmp_path: Path) -> None:
    runs = list(run_jobs(tmp_path, seed=1, kills=10))
    assert [violation for run in runs for violation in run.violations] == []
    assert sum(run.kills for run in runs) == 10


def test_ctrl_c_at_random_moments_hides_loses_and_poisons_nothing(tmp_path: Path) -> None:
    found = press(tmp_path, count=3, seed=1)
    assert not found.violations, "\n".join(found.violations)
    assert found.repeated >= found.pressed == 3


async def test_run_at_its_limit_reports_its_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = await run(Options(jobs=8, kills=0, in_flight=8, limit_s=1), tmp_path)
    assert "the run reached its limit of 1 s" in judge(record).violations
    said = capsys.readouterr().err
    assert "stopped at the limit of 1 s, while jobs run" in said
    assert re.search(r"Window\.serve: .*windows\.py:\d+ serve > ", said), "where a task waits"
    assert "stderr-a.txt ends:" in said
