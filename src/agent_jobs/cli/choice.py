"""Suggest the nearest name when a command or a choice is misspelt."""

from collections.abc import Iterable
from typing import Any

import click

from agent_jobs.text import nearest


class NamedChoice(click.Choice[str]):
    """One of several names."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return click's sentence with the nearest name."""
        return super().get_invalid_choice_message(value, ctx) + ask_if_meant(str(value), self.choices)


class NamedCommands(click.Group):
    """A group of commands, which refuses another name with the nearest one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name."""
        name, names = args[0], self.list_commands(ctx)
        if name not in names and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}.{ask_if_meant(name, names)}")
        return super().resolve_command(ctx, args)


def ask_if_meant(name: str, names: Iterable[str]) -> str:
    """Return a question for the nearest name, or an empty string."""
    near = nearest(name, names)
    if near is None:
        return ""
    return f" Did you mean {near!r}?"
