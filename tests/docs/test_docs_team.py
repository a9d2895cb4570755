"""Three commands of docs/team.md work as described. A table of docs/team-operations.md quotes the program."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from postgres_server import new_database

import agent_jobs
from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer
from agent_jobs.store import postgres_errors, postgres_schema

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "team.md").read_text()
OPERATIONS = (DOCS / "team-operations.md").read_text()


@pytest.fixture
def empty_url(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url, "template0") as url:
        yield url


def test_three_commands_make_the_tables_start_a_job_and_collect_it(
    empty_url: str, upstream: RunningServer, tmp_path: Path
) -> None:
    environment = {
        "AGENT_JOBS_DATABASE_URL": empty_url,
        "AGENT_JOBS_DATA_DIR": str(tmp_path),
        "OPENAI_API_KEY": "sk-team",
        "OPENAI_BASE_URL": upstream.base_url,
    }
    block = PAGE.partition("Then three commands")[2].partition("```sh\n")[2].partition("```")[0]
    lines = [re.findall(r'"[^"]*"|\S+', line) for line in block.splitlines()]
    assert [words[:2] for words in lines] == [["agent-jobs", each] for each in ("db", "start", "work")]
    output = ""
    for words in [*lines, ["agent-jobs", "list", "--json"]]:
        result = CliRunner().invoke(cli, [word.strip('"') for word in words[1:]], env=environment)
        assert result.exit_code == 0, result.output
        output = result.output
    assert '"status":"completed"' in output.replace(" ", "")
    assert not (tmp_path / "jobs.db").exists()


def test_table_of_faults_has_the_words_of_each_error() -> None:
    failures = postgres_errors._FAILURES  # pyright: ignore[reportPrivateUsage]
    predicates = {failure.predicate for failure in failures}
    unlisted = {"has an address that cannot be used", "does not give its user a right", "cannot be used"}
    assert predicates - unlisted <= {found for found in predicates if f'"{found}"' in OPERATIONS}
    source = Path(postgres_schema.__file__).read_text()
    for words in ("has no tables of agent-jobs yet", "was upgraded by a newer agent-jobs", "has schema"):
        assert words in OPERATIONS
        assert words in source


def test_messages_that_the_operator_sees_are_those_of_the_program() -> None:
    table = OPERATIONS.partition("## When something breaks\n")[2].partition("\n## ")[0]
    columns = [line.split(" | ")[2] for line in table.splitlines() if line.startswith("| ")]
    quoted = [text for column in columns for text in re.findall(r"`([^`]+)`", column)]
    messages = [text for text in quoted if " " in text]
    assert len(messages) > 8
    source = "".join(path.read_text() for path in Path(agent_jobs.__file__).parent.rglob("*.py"))
    assert [message for message in messages if message not in source] == []
