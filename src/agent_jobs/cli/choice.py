"""Suggest the nearest name when a command or a choice is misspelt."""

from collections.abc import Iterable, Mapping
from typing import Any

import click

from agent_jobs.text import nearest

#: More characters of names make a table of options unreadable.
MAX_CHOICE_COLUMNS = 30
#: click cuts a longer first sentence; none is as long.
MAX_SUMMARY_CHARS = 1_000


class NamedChoice(click.Choice[str]):
    """One of several names. Many names are shown by the name of their option, and belong into its help."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return the names as click shows them, or the name of the option if they are too long for its column."""
        names = super().get_metavar(param, ctx)
        if names is None or len(names) <= MAX_CHOICE_COLUMNS:
            return names
        return (param.name or "name").upper()

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        """Return the names on one line."""
        return f"Choose from: {', '.join(self.choices)}."

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return click's sentence with the nearest name."""
        return super().get_invalid_choice_message(value, ctx) + ask_if_meant(str(value), self.choices)


class NamedGroup(click.Group):
    """Commands below a name; a misspelt one is refused with the nearest."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; refuse another name with the nearest one."""
        if self.get_command(ctx, args[0]) is None:
            refuse_command(ctx, args[0], self.list_names(ctx))
        return super().resolve_command(ctx, args)

    def list_names(self, ctx: click.Context) -> list[str]:
        """Return the names that a misspelt one may mean."""
        return self.list_commands(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with the whole first sentence of each."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        rows = [(name, each.get_short_help_str(MAX_SUMMARY_CHARS)) for name, each in commands.items() if each]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def refuse_command(ctx: click.Context, name: str, names: Iterable[str]) -> None:
    """Refuse a name that is no command, with the nearest one; leave options, and completion, to click."""
    if not name.startswith("-") and not ctx.resilient_parsing:
        ctx.fail(f"No such command {name!r}.{ask_if_meant(name, names)}")


def ask_if_meant(name: str, names: Iterable[str]) -> str:
    """Return a question for the nearest name, or an empty string."""
    near = nearest(name, names)
    if near is None:
        return ""
    return f" Did you mean {near!r}?"


def require_one(given: Mapping[str, bool]) -> None:
    """Check that one of several ways to name jobs is given, and no other.

    Raises:
        click.UsageError: None of them is given, or several are.
    """
    names = [name for name, is_given in given.items() if is_given]
    if not names:
        *first, last = given
        raise click.UsageError(f"Give {', '.join(first)} or {last}.")
    if len(names) > 1:
        *first, last = names
        raise click.UsageError(f"{', '.join(first)} and {last} cannot be combined. Give one of them.")


def refuse_both(given: Mapping[str, bool]) -> None:
    """Check that only one of two options that exclude each other is given.

    Raises:
        click.UsageError: Both are.
    """
    if all(given.values()):
        raise click.UsageError(f"Give {' or '.join(given)}, not both.")
