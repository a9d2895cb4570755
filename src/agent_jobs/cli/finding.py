"""What `doctor` found, and how a terminal shows it."""

import sys
from dataclasses import dataclass
from typing import Literal

import click

from agent_jobs.cli import terminal

State = Literal["ok", "warning", "problem"]
MARKS: dict[State, tuple[str, str]] = {"ok": ("ok", "green"), "warning": ("!", "yellow"), "problem": ("X", "red")}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; what to do about it, where something is to be done."""

    what: str
    state: State
    text: str
    fix: str = ""


def tell(finding: Finding) -> None:
    """Show a finding in the width of the terminal, its fix below it."""
    mark, colour = MARKS[finding.state]
    mark = click.style(f"{mark:<2}", fg=colour) if terminal.colourful(sys.stdout) else f"{mark:<2}"
    width = (terminal.columns() or 10_000) - 15
    lines = [*terminal.wrapped(finding.text, width), *(f"-> {each}" if not n else f"   {each}" for n, each in
             enumerate(terminal.wrapped(finding.fix, width - 3) if finding.fix else []))]  # fmt: skip
    for number, each in enumerate(lines):
        click.echo(f"{mark} {finding.what:<10}  {each}" if number == 0 else f"{' ' * 15}{each}")
