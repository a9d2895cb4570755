"""The progress bar of `agent-jobs batch`."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agent_jobs.cli import terminal

if TYPE_CHECKING:
    from agent_jobs.cli.batch import Results


@contextmanager
def bar(total: int, done: int) -> Generator[Callable[["Results"], None]]:
    """A bar on stderr; what it gives is called after each result."""
    columns = (
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False), expand=True) as progress:
        task = progress.add_task("", total=total, completed=done)

        def advance(results: "Results") -> None:
            bad = sum(results.statuses.values()) - results.statuses["completed"]
            told = ", ".join(
                filter(None, (terminal.usd(results.usd) if results.usd else "", f"{bad} not completed" if bad else ""))
            )
            progress.update(task, advance=1, description=told)

        yield advance
