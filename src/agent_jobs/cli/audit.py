"""`agent-jobs audit`: show who did what on a team server."""

from collections.abc import Sequence
from functools import partial

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.table import render_table
from agent_jobs.cli.owner import fit_owner
from agent_jobs.cli.session import Session, run_in_session
from agent_jobs.cli.times import Since, format_utc_time
from agent_jobs.engine.engine import AuditEntry
from agent_jobs.rendering import answers

#: Columns that a narrow terminal leaves out, in this order.
DISPENSABLE = ("TOKEN", "ADDRESS", "CLIENT", "COST", "JOB", "OWNER")
NO_FACT = "-"  # so that each fact keeps its column if a reader splits the line at spaces


@click.command("audit")
@click.option(
    "--since",
    type=Since(),
    default=0.0,
    metavar="WHEN",
    help="Only actions since then: 90m, 12h, 2d, 1w or 2026-11-01.",
)
@click.option("--owner", metavar="OWNER", help="Only actions of this owner.")
@click.option("--json-lines", is_flag=True, help="Print a JSON object a line.")
def audit_command(since: float, owner: str | None, json_lines: bool) -> None:
    """Show who did what on a team server, oldest first.

    A row has the time in UTC, the owner, the action, the job, the program, the token, the address and the cost, if that
    is known. The log has no prompt, no output and no token, only the ids of tokens.
    """
    run_in_session(partial(_print_log, since=since, owner=owner, json_lines=json_lines))


async def _print_log(session: Session, *, since: float, owner: str | None, json_lines: bool) -> None:
    """Print the log part by part; say so if nothing is in it."""
    after, header = 0, ""
    while numbered := await session.engine.owners.read_log(since=since, owner=owner, after=after):
        after = numbered[-1][0]
        entries = [entry for _, entry in numbered]
        if json_lines:
            _print_log_as_json(entries)
        else:
            header = _print_table(entries, header)
    if not after and not json_lines:
        click.echo(_describe_empty(is_filtered=bool(since or owner)), err=True)


def _print_log_as_json(entries: Sequence[AuditEntry]) -> None:
    for entry in entries:
        click.echo(answers.format_json_line(entry._asdict()))


def _print_table(entries: Sequence[AuditEntry], header: str) -> str:
    """Print a part of the log and return its header.

    A header is printed for the first part, and on a terminal for each part whose columns differ from those before.
    """
    width = terminal.find_width()
    rows = [_build_audit_row(entry, width) for entry in entries]
    first, *lines = render_table(rows, width, flexible="ACTION", figures=("COST",), dispensable=DISPENSABLE)
    if not header or (first != header and width < terminal.UNLIMITED):
        lines.insert(0, first)
    click.echo("\n".join(lines))
    return first


def _build_audit_row(entry: AuditEntry, width: int) -> dict[str, str]:
    """Return an action's cells by the names of their columns, without control characters of the caller."""
    facts = {
        "TIME (UTC)": format_utc_time(entry.at),
        "OWNER": fit_owner(terminal.join_lines(entry.owner), width),
        "ACTION": entry.action,
        "JOB": entry.job_id,
        "CLIENT": terminal.join_lines(entry.client),
        "TOKEN": terminal.join_lines(entry.token_id),
        "ADDRESS": entry.address,
        "COST": terminal.format_usd(entry.cost_usd),
    }
    return {name: fact or NO_FACT for name, fact in facts.items()}


def _describe_empty(*, is_filtered: bool) -> str:
    if is_filtered:
        return "The audit log has no such action."
    return "The audit log is empty. A team server writes it: agent-jobs serve --http"
