"""Show the hosts on this machine, with the command that installs into each."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.install.detect import FoundHost
from agent_jobs.install.hosts import HOSTS


def describe_hosts(found: Iterable[FoundHost]) -> list[dict[str, Any]]:
    """Return the hosts for programs."""
    return [
        {
            "host": each.host.name,
            "title": each.host.title,
            "installed": each.is_installed,
            "command": format_command(each),
            "file": each.path and str(each.path),
        }
        for each in found
    ]


def print_hosts(rows: list[dict[str, Any]]) -> None:
    """Print the hosts that were found, then the others: first those whose files `install` can write."""
    if rows:
        click.echo("Hosts on this machine:\n")
        pairs = [(row["title"], _describe_installation(row)) for row in rows]
        click.echo(f"{textwrap.indent(terminal.format_pairs(pairs), '  ')}\n")
    else:
        print_sentences("No host was found on this machine.")
    found = {row["host"] for row in rows}
    others = [host for name, host in HOSTS.items() if name not in found]
    written = [host.name for host in others if host.user is not None]
    printed = [host.name for host in others if host.user is None]
    if written:
        print_sentences(f"Others: {', '.join(written)}. `agent-jobs install HOST` installs.")
    if printed:
        print_sentences(
            f"By hand: {', '.join(printed)}. `agent-jobs install HOST --print` prints the entry for the host's file."
        )


def format_command(found: FoundHost) -> str:
    """Return the command that installs into a host, or prints its entry if we do not write its file."""
    command = f"agent-jobs install {found.host.name}"
    if found.host.user is None:
        return f"{command} --print"
    return command


def _describe_installation(row: Mapping[str, Any]) -> str:
    if row["installed"]:
        return f"installed: {row['file']}"
    return str(row["command"])
