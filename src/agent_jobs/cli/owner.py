"""`agent-jobs owner`: show and set what the owners of a team server may use."""

import time
from collections.abc import Sequence
from math import isnan
from typing import Any
from unicodedata import normalize

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.table import render_table
from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.json_answer import print_answer
from agent_jobs.cli.key_reference import KeyReference, find_missing_key
from agent_jobs.cli.session import Session, json_option, read_settings, run_in_session
from agent_jobs.jobs.owners import Owner, OwnerUse
from agent_jobs.owner_name import NAME_RULE, is_owner_name
from agent_jobs.rendering import answers
from agent_jobs.text import truncate

MAX_ECHOED_CHARS = 60  # of a wrong name
DAY_S = 86_400.0
GAP = "  "
#: Removes a limit, so that the setting for all owners counts.
DEFAULT_WORD = "default"
#: Columns of figures, which are aligned on the right.
FIGURES = ("JOBS", "RUNNING", "WAITING", "TODAY")
#: Columns that a narrow terminal leaves out, in this order.
DISPENSABLE = ("KEY", "WAITING", "RUNNING", "TODAY", "JOBS")
MIN_OWNER_COLUMNS = 8  # of a name on a narrow terminal


class OwnerName(click.ParamType[str]):
    """The name of an owner, as a token or a sign-in names it."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name; refuse one that looks like another on a terminal."""
        name = normalize("NFC", str(value))
        if is_owner_name(name):
            return name
        self.fail(f"{truncate(name, MAX_ECHOED_CHARS)!r} is not a valid owner name. {NAME_RULE}", param, ctx)


class Limit(click.ParamType[Any]):
    """A number above 0, or the word that removes the limit."""

    def __init__(self, number: click.ParamType[Any], name: str) -> None:
        self._number = number
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or the word."""
        if value == DEFAULT_WORD:
            return value
        number = self._number.convert(value, param, ctx)
        if isnan(number):  # which a range accepts
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


@click.group("owner")
def owner_command() -> None:
    """Show and set what the owners of a team server may use.

    A token or a sign-in names the owner. An owner without a limit of its own has that of the settings.
    """


@owner_command.command("list")
@json_option
def list_owners_command(as_json: bool) -> None:
    """List the owners, their jobs and limits."""
    uses = _read_uses()
    if as_json:
        click.echo(answers.format_json_line({"owners": list(map(_describe_use, uses))}))
        return
    if not uses:
        print_sentences("There are no owners yet. Make a token for one with: agent-jobs token add OWNER")
        return
    width = terminal.find_width()
    rows = [_build_owner_row(use, width) for use in uses]
    lines = render_table(rows, width, flexible="LIMITS", figures=FIGURES, dispensable=DISPENSABLE)
    click.echo("\n".join(lines))


@owner_command.command("show")
@click.argument("name", type=OwnerName())
@json_option
def show_owner_command(name: str, as_json: bool) -> None:
    """Show what an owner may use and uses."""
    use = next((use for use in _read_uses() if use.owner.name == name), None)
    if use is None:
        raise click.ClickException(f"There is no owner {name!r}. See all with: agent-jobs owner list")
    row = _build_owner_row(use)
    width = max(map(len, row))
    lines = (f"{label.capitalize():<{width}}{GAP}{cell or '-'}" for label, cell in row.items())
    print_answer(_describe_use(use), lines, as_json=as_json, write=click.echo)


@owner_command.command("set")
@click.argument("name", type=OwnerName())
@click.option("--max-concurrent", type=Limit(click.IntRange(1, 1_000_000), "N"), help="Jobs that run at once.")
@click.option("--daily-budget", type=Limit(click.FloatRange(0, 1e9, min_open=True), "USD"), help="For a day (UTC).")
@click.option("--starts-per-minute", type=Limit(click.IntRange(1, 1_000_000), "N"), help="Jobs started in a minute.")
@click.option(
    "--key-ref", type=KeyReference(), metavar="NAME", help="The secret with the owner's API key; '' for the shared key."
)
@json_option
def set_owner_command(
    name: str, max_concurrent: Any, daily_budget: Any, starts_per_minute: Any, key_ref: str | None, as_json: bool
) -> None:
    """Set what an owner may use. What is not named stays; `default` takes a limit back.

    The key itself is not stored here: NAME is a file in the folder of owners' keys.
    """
    settings = read_settings()
    given = {
        "max_concurrent": max_concurrent,
        "daily_budget_usd": daily_budget,
        "starts_per_minute": starts_per_minute,
    }

    async def change_owner(session: Session) -> Owner:
        owners = session.engine.owners
        owner = await owners.get_owner(name)
        changed = {field: _read_limit(value) for field, value in given.items() if value is not None}
        owner = owner._replace(limits=owner.limits._replace(**changed))
        if key_ref is not None:
            owner = owner._replace(key_ref=key_ref)
        await owners.set_owner(owner)
        return owner

    owner = run_in_session(change_owner, settings=settings)
    if key_ref and (warning := find_missing_key(settings, key_ref)):
        click.echo(f"Warning: {warning}", err=True)
    key = terminal.join_lines(owner.key_ref) or "shared"
    sentence = f"{terminal.join_lines(name)}: limits {_join_limits(owner)}; key {key}"
    print_answer(_owner_fields(owner), [sentence], as_json=as_json)


def fit_owner(name: str, width: int) -> str:
    """Return the name of an owner, cut to a quarter of the terminal; whole into a pipe."""
    return terminal.cut_columns(name, max(MIN_OWNER_COLUMNS, width // 4))


def _read_limit(value: Any) -> Any:
    if value == DEFAULT_WORD:
        return None
    return value


def _read_uses() -> Sequence[OwnerUse]:
    now = time.time()

    async def read(session: Session) -> Sequence[OwnerUse]:
        return await session.engine.owners.list_owners(now - now % DAY_S)

    return run_in_session(read)


def _describe_use(use: OwnerUse) -> dict[str, Any]:
    """Return an owner for a program."""
    return {
        **_owner_fields(use.owner),
        "jobs": use.jobs,
        "running": use.running,
        "waiting": use.waiting,
        "today_usd": round(use.today_usd, 6),
    }


def _owner_fields(owner: Owner) -> dict[str, Any]:
    return {"name": owner.name, **owner.limits._asdict(), "key_ref": owner.key_ref}


def _build_owner_row(use: OwnerUse, width: int = terminal.UNLIMITED) -> dict[str, str]:
    """Return an owner's cells by the names of their columns, with a name that fits a terminal of this width."""
    return {
        "OWNER": fit_owner(terminal.join_lines(use.owner.name), width),
        "JOBS": str(use.jobs),
        "RUNNING": str(use.running),
        "WAITING": str(use.waiting),
        "TODAY": terminal.format_usd(use.today_usd),
        "KEY": terminal.join_lines(use.owner.key_ref),
        "LIMITS": _join_limits(use.owner),
    }


def _join_limits(owner: Owner) -> str:
    """Return the limits that were set for an owner, in words."""
    words = {
        "max_concurrent": "{} at once",
        "daily_budget_usd": "{:g} USD a day",
        "starts_per_minute": "{} starts a minute",
    }
    limits = owner.limits._asdict()
    parts = [template.format(limits[field]) for field, template in words.items() if limits[field] is not None]
    return ", ".join(parts) or DEFAULT_WORD
