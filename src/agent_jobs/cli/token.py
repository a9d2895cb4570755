"""`agent-jobs token`: make, list and revoke the tokens of a team server."""

import time
from typing import Any

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.table import render_table
from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.owner import OwnerName, fit_owner
from agent_jobs.cli.session import Exit, Session, json_option, run_in_session
from agent_jobs.cli.times import Lifetime, format_day, format_local_minute, format_local_time
from agent_jobs.engine.engine import TokenRecord
from agent_jobs.rendering import answers

MAX_NOTE_CHARS = 200
#: Columns that a narrow terminal leaves out, in this order.
DISPENSABLE = ("CREATED", "EXPIRES", "USED", "STATE", "OWNER")
HOUR_S = 3_600.0


class Note(click.ParamType[str]):
    """A word about who uses a token, and where."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the note; refuse one that does not fit a line."""
        note = str(value)
        if len(note) <= MAX_NOTE_CHARS and note.isprintable():
            return note
        self.fail(f"Write one line of at most {MAX_NOTE_CHARS} characters.", param, ctx)


@click.group("token")
def token_command() -> None:
    """Make, list and revoke the tokens of a team server.

    A program that sends a token sees and starts the jobs of the token's owner, and no others.
    """


@token_command.command("add")
@click.argument("owner", type=OwnerName())
@click.option("--expires", type=Lifetime(), metavar="AGE", help="Refuse the token after that time: 12h, 90d or 8w.")
@click.option("--note", type=Note(), default="", help="A note on who uses it, and where.")
@json_option
def add_token_command(owner: str, expires: float | None, note: str, as_json: bool) -> None:
    """Make a token for an owner and print it.

    It is printed only now: the database keeps its hash alone.
    """

    async def add(session: Session) -> tuple[str, TokenRecord]:
        return await session.engine.owners.add_token(owner, note=note, lifetime_s=expires)

    text, record = run_in_session(add)
    if as_json:
        click.echo(answers.format_json_line({"token": text, **_describe_token(record)}))
        return
    click.echo(text)
    until = "It never expires."
    if record.expires_at is not None:
        until = f"It expires on {format_local_time(record.expires_at)}."
    click.echo(
        f"This token of {terminal.join_lines(owner)} is shown only now. {until} Revoke it with: "
        f"agent-jobs token revoke {record.id}",
        err=True,
    )


@token_command.command("list")
@json_option
def list_tokens_command(as_json: bool) -> None:
    """List the tokens without their texts."""

    async def read(session: Session) -> list[TokenRecord]:
        return list(await session.engine.owners.list_tokens())

    records = run_in_session(read)
    if as_json:
        click.echo(answers.format_json_line({"tokens": [_describe_token(record) for record in records]}))
        return
    if not records:
        print_sentences("There are no tokens yet. Make one with: agent-jobs token add OWNER")
        return
    width, now = terminal.find_width(), time.time()
    rows = [_build_token_row(record, now, width) for record in records]
    for line in render_table(rows, width, flexible="NOTE", dispensable=DISPENSABLE):
        click.echo(line)


@token_command.command("revoke")
@click.argument("token_id", metavar="ID")
def revoke_token_command(token_id: str) -> None:
    """Have a token refused from now on.

    Exit status: 0 it is revoked, 1 there is no such token.
    """

    async def revoke(session: Session) -> tuple[bool, bool]:
        owners = session.engine.owners
        is_revoked = await owners.revoke_token(token_id)
        return is_revoked, any(record.id == token_id for record in await owners.list_tokens())

    is_revoked, is_known = run_in_session(revoke)
    if is_revoked:
        click.echo(f"{token_id} is revoked.")
    elif is_known:
        click.echo(f"{token_id} was revoked before.")
    else:
        click.echo(f"Error: There is no token {token_id!r}. See all with: agent-jobs token list", err=True)
        raise SystemExit(Exit.REFUSED)


def _describe_token(record: TokenRecord) -> dict[str, Any]:
    """Return a token for a program, without its hash."""
    facts = {name: value for name, value in record._asdict().items() if name != "hash"}
    return {**facts, "fault": record.find_fault(time.time())}


def _build_token_row(record: TokenRecord, now: float, width: int) -> dict[str, str]:
    """Return a token's cells by the names of their columns."""
    return {
        "ID": record.id,
        "OWNER": fit_owner(terminal.join_lines(record.owner), width),
        "STATE": record.find_fault(now) or "active",
        "CREATED": format_day(record.created_at),
        "EXPIRES": _format_expiry(record.expires_at),
        "USED": _format_use(record.last_used_at, now),
        "NOTE": terminal.join_lines(record.note),
    }


def _format_expiry(at: float | None) -> str:
    if at is None:
        return ""
    return format_local_minute(at)


def _format_use(at: float | None, now: float) -> str:
    """Return when a token was last used, to the minute; empty if never."""
    if at is None:
        return ""
    if now - at >= HOUR_S:
        return format_local_minute(at)
    if now - at < 60:
        return "just now"
    return f"{terminal.format_duration(now - at)} ago"
