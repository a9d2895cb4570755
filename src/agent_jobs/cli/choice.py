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


def ask_if_meant(name: str, names: Iterable[str]) -> str:
    """Return a question for the nearest name, or an empty string."""
    near = nearest(name, names)
    if near is None:
        return ""
    return f" Did you mean {near!r}?"
