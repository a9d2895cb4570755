"""Command names and choices whose refusal suggests the nearest one."""

from collections.abc import Iterable
from typing import Any

import click

from agent_jobs.text import nearest


class NamedChoice(click.Choice[str]):
    """One of several names."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return click's sentence and the name that was probably meant."""
        return super().get_invalid_choice_message(value, ctx) + ask_if_meant(str(value), self.choices)


def ask_if_meant(name: str, names: Iterable[str]) -> str:
    """Return the question for the nearest name as one more sentence, or nothing."""
    near = nearest(name, names)
    return f" Did you mean {near!r}?" if near is not None else ""
