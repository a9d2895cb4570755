"""Every command of a page is run here, or listed with the reason why not. Those with an output are captured."""

import re
from collections.abc import Generator
from pathlib import Path

import pytest
from machine import KEY, Machine, machine

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS_CONTAINERS = "it needs a container engine; test_team_compose.py reads the files"
NEEDS_TEAM_FILES = "it needs a team server on the network; test_team_files.py sends files and gets them back"
IN_DATABASE = "docker compose exec -T database"
DUMP = f"{IN_DATABASE} pg_dump --username=agent_jobs --format=custom agent_jobs > agent-jobs.dump"
RESTORE = (
    f"{IN_DATABASE} pg_restore --username=agent_jobs --dbname=agent_jobs --clean --if-exists --single-transaction "
    "< agent-jobs.dump"
)
#: Commands that no test here runs, with the reason.
NOT_RUN = {
    "uvx --from . agent-jobs demo": "docs/start.md shows what it prints, so test_captures.py runs it",
    "uv run scripts/test": "it runs these tests themselves",
    "docker build -t agent-jobs .": "it needs Docker and a network; test_package.py reads the Dockerfile",
    "docker run -i --rm -e OPENAI_API_KEY -v agent-jobs-data:/data agent-jobs": "it needs the image of this program",
    "uv tool install '.[team]'": "it needs a package index",
    "agent-jobs db upgrade": "it needs a PostgreSQL database; test_cli_db.py upgrades one",
    'pg_dump --format=custom --file=agent-jobs.dump "$AGENT_JOBS_DATABASE_URL"': "it needs a database server",
    'pg_restore --clean --if-exists --dbname="$AGENT_JOBS_DATABASE_URL" agent-jobs.dump': "it needs a database server",
    "agent-jobs import ~/.local/share/agent-jobs --dry-run": "it needs PostgreSQL; test_job_import.py imports jobs",
    "agent-jobs import ~/.local/share/agent-jobs": "it needs PostgreSQL; test_job_import.py imports jobs",
    "agent-jobs serve --http": "it serves until it is stopped; test_team_replicas.py starts it",
    "curl http://127.0.0.1:8000/readyz": "it needs a running server; test_team_http.py sends this request",
    "agent-jobs emulator --port 8787": "it serves until it is stopped; test_docs_emulator.py starts it",
    "agent-jobs serve --http --host 0.0.0.0 --port 8000": "it serves until stopped; test_team_http.py has its refusals",
    "agent-jobs serve --http --host 0.0.0.0": "it serves until it is stopped",
    "agent-jobs token revoke tok_0123456789ab": "it needs the id of an existing token",
    "cd packaging/team": NEEDS_CONTAINERS,
    "mkdir -m 700 secrets": NEEDS_CONTAINERS,
    'printf %s "$OPENAI_API_KEY" > secrets/openai_api_key': NEEDS_CONTAINERS,
    "openssl rand -hex 24 > secrets/database_password": NEEDS_CONTAINERS,
    "chmod 444 secrets/*": NEEDS_CONTAINERS,
    "docker compose build": NEEDS_CONTAINERS,
    "docker compose run --rm replica-1 token add alice": NEEDS_CONTAINERS,
    "docker compose up --detach": NEEDS_CONTAINERS,
    "docker compose stop replica-1 replica-2": NEEDS_CONTAINERS,
    "docker compose run --rm upgrade": NEEDS_CONTAINERS,
    "docker compose up --detach --no-deps --wait replica-1": NEEDS_CONTAINERS,
    "docker compose up --detach --no-deps --wait replica-2": NEEDS_CONTAINERS,
    DUMP: "it needs containers; test_store_postgres.py backs a database up with these options",
    RESTORE: "it needs containers; test_store_postgres.py restores a backup with these options",
    'curl -T report.csv -H "Authorization: Bearer $TOKEN" https://jobs.example.com/files/report.csv': NEEDS_TEAM_FILES,
    'curl -OJ -H "Authorization: Bearer $TOKEN" https://jobs.example.com/files/made_9b1c5d3f7a2e4b6c8d0f1a3b5c7d9e1f': (
        NEEDS_TEAM_FILES
    ),
    "agent-jobs adopt JOB RESPONSE_ID": "it needs the id of a lost response; test_cli_jobs.py adopts one",
}


def read_code(page: Path) -> list[tuple[str, str]]:
    """Return the code blocks of a page, each as its language and its text."""
    return re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), re.S | re.M)


def list_commands() -> list[str]:
    lines = [
        line for page in PAGES for language, block in read_code(page) if language == "sh" for line in block.splitlines()
    ]
    return list(dict.fromkeys(line.strip().partition("   ")[0] for line in lines if line.strip()))


@pytest.fixture
def here() -> Generator[Machine]:
    with machine() as here:
        (here.home / "work/night.jsonl").write_text('"Summarise chapter 1"\n')
        yield here


@pytest.mark.parametrize("command", [command for command in list_commands() if command not in NOT_RUN])
def test_command_of_a_page_does_what_the_page_says(here: Machine, command: str) -> None:
    result = here.run(command, stdin=f"{KEY}\n")
    assert result.returncode == 0, result.stdout + result.stderr


def test_stored_key_is_the_one_that_is_used(here: Machine) -> None:
    assert "agent-jobs key set" in list_commands()
    here.run("agent-jobs key set", stdin=f"{KEY}\n")
    keyed = here.run("agent-jobs config", OPENAI_API_KEY="")
    assert re.search(rf"OPENAI_API_KEY +stored +\.\.\.{KEY[-4:]}", keyed.stdout)
    [file] = (here.home / ".config/agent-jobs/keys").glob("[!.]*")
    assert file.stat().st_mode & 0o077 == 0


def test_untested_commands_are_still_on_a_page() -> None:
    assert NOT_RUN.keys() <= {*list_commands()}
    assert len(list_commands()) > len(NOT_RUN) + 5


def test_block_with_a_prompt_is_a_terminal_that_is_captured() -> None:
    for page in PAGES:
        for language, block in read_code(page):
            assert (language == "console") == bool(re.search(r"^\$ ", block, re.M)), (page.name, block[:80])
