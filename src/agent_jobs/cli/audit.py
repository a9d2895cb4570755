"""`agent-jobs audit`: show who did what on a team server."""

from collections.abc import Iterable

import click

from agent_jobs.cli import terminal
from agent_jobs.cli.session import Session, call
from agent_jobs.cli.times import Since, format_local_time
from agent_jobs.engine.engine import AuditEntry
from agent_jobs.rendering import answers


@click.command("audit")
@click.option("--since", type=Since(), metavar="WHEN", help="Only actions since then: 90m, 12h, 2d, 1w or 2026-11-01.")
@click.option("--owner", metavar="OWNER", help="Only actions of this owner.")
@click.option("--json-lines", is_flag=True, help="Print a JSON object a line.")
def audit_command(since: float | None, owner: str | None, json_lines: bool) -> None:
    """Show who did what on a team server, oldest first.

    A line has the time, the owner, the action, the job, its cost as far as it is known, the token, the program and the
    address. The log has no prompt, no output and no token, only the ids of tokens.
    """

    async def print_log(session: Session) -> None:
        after = 0
        while entries := await session.engine.access.read_log(since=since or 0.0, owner=owner, after=after):
            _print_entries((entry for _, entry in entries), json_lines=json_lines)
            after = entries[-1][0]

    call(print_log)


def _print_entries(entries: Iterable[AuditEntry], *, json_lines: bool) -> None:
    for entry in entries:
        if json_lines:
            click.echo(answers.json_line(entry._asdict()))
        else:
            click.echo(_format_entry(entry))


def _format_entry(entry: AuditEntry) -> str:
    """Return a line about an action. What a caller chose is shown without control characters."""
    facts = [
        format_local_time(entry.at),
        terminal.join_lines(entry.owner) or "-",
        entry.action,
        entry.job_id,
        terminal.format_usd(entry.cost_usd),
        entry.token_id or "-",
        terminal.join_lines(entry.client),
        entry.address,
    ]
    return "  ".join(fact for fact in facts if fact)
