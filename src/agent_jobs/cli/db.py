"""`agent-jobs db`: upgrade the tables of a PostgreSQL database, and show their version."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import anyio
import click

from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.session import Exit, convert_errors, json_option, read_settings
from agent_jobs.rendering import answers
from agent_jobs.settings.secret_values import hide_database_password
from agent_jobs.settings.settings import Settings
from agent_jobs.wiring.database import read_schema_state, upgrade_database

if TYPE_CHECKING:
    from agent_jobs.wiring.database import SchemaState

T = TypeVar("T")


@click.group("db")
def db_command() -> None:
    """Upgrade the tables of a PostgreSQL database, or show their version.

    It is the database of AGENT_JOBS_DATABASE_URL. A file of SQLite needs none of this.
    """


@db_command.command("upgrade")
@click.option("--check", is_flag=True, help="Change nothing; the exit status says if an upgrade is needed.")
def upgrade_command(check: bool) -> None:
    """Make or upgrade the tables.

    Servers of another version refuse the database afterwards. Two upgrades at once are safe: one waits for the other.

    Exit status: 0 the tables are up to date, 1 they are not, or the database cannot be used.
    """
    settings = read_settings()
    if check:
        state = _ask_database(read_schema_state, settings)
        print_sentences(_describe_schema(state))
        if state.version != state.needed:
            raise SystemExit(Exit.REFUSED)
        return
    state = _ask_database(upgrade_database, settings)
    if state.version == state.needed:
        print_sentences(_describe_schema(state))
    else:
        print_sentences(f"Upgraded from schema {state.version} to {state.needed}.")


@db_command.command("status")
@json_option
def status_command(as_json: bool) -> None:
    """Show the version of the tables."""
    settings = read_settings()
    state = _ask_database(read_schema_state, settings)
    url = hide_database_password(settings.database_url)
    if as_json:
        click.echo(answers.format_json_line({"url": url, "schema": state.version, "needed": state.needed}))
        return
    print_sentences(f"{url}: {_describe_schema(state)}")


def _ask_database(ask: Callable[[Settings], Awaitable[T]], settings: Settings) -> T:
    with convert_errors():
        return anyio.run(ask, settings)


def _describe_schema(state: "SchemaState") -> str:
    """Return the advice about a schema."""
    if state.version == state.needed:
        return f"Schema {state.version} is up to date."
    if state.version > state.needed:
        return f"Schema {state.version} is newer than this agent-jobs ({state.needed}): update agent-jobs."
    if state.version == 0:
        return f"There are no tables yet; this agent-jobs needs schema {state.needed}: run agent-jobs db upgrade."
    return f"Schema {state.version} is older than this agent-jobs needs ({state.needed}): run agent-jobs db upgrade."
