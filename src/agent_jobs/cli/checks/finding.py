"""A finding of `doctor`, and its lines on a terminal."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.wording import describe_fix, describe_problem
from agent_jobs.errors import AgentJobsError

State = Literal["ok", "warning", "problem"]
#: The mark and the colour of each state.
MARKS: dict[State, tuple[str, str | int]] = {
    "ok": ("ok", "green"),
    "warning": ("!", terminal.ATTENTION),
    "problem": ("X", "red"),
}
MARK_COLUMNS = 2
NAME_COLUMNS = 10
#: Columns before the text: the mark, the name, and the gaps after them.
INDENT_COLUMNS = MARK_COLUMNS + 1 + NAME_COLUMNS + 2
FIX_MARK = "-> "


@dataclass(frozen=True)
class Finding:
    """One thing that was checked, and what to do about it."""

    what: str
    state: State
    text: str
    fix: str = ""
    shown: str = ""  #: the text in fewer words for a terminal, one fact a line

    def as_json(self) -> dict[str, str]:
        """Return the finding for programs."""
        return {name: text for name, text in vars(self).items() if text and name != "shown"}


def report_error(what: str, error: AgentJobsError) -> Finding:
    """Return the finding of an error, with what a person can do about it."""
    return Finding(what, "problem", describe_problem(error).rstrip("."), describe_fix_in_words(error))


def describe_fix_in_words(error: AgentJobsError) -> str:
    """Return the fix of an error for a person in the form of a finding's fix, which is not a sentence."""
    fix = describe_fix(error).removesuffix(".")
    if fix[1:2].islower():
        return fix[0].lower() + fix[1:]
    return fix


def print_finding(finding: Finding) -> None:
    """Print a finding in the width of the terminal, with its fix below."""
    mark, colour = MARKS[finding.state]
    mark = mark.ljust(MARK_COLUMNS)
    if terminal.has_colours(sys.stdout):
        mark = click.style(mark, fg=colour)
    first, *more = _wrap_finding(finding)
    click.echo(f"{mark} {finding.what:<{NAME_COLUMNS}}  {first}")
    for line in more:
        click.echo(" " * INDENT_COLUMNS + line)


def _wrap_finding(finding: Finding) -> Iterator[str]:
    """Yield the lines of the text, then those of the fix behind an arrow."""
    width = terminal.find_width() - INDENT_COLUMNS
    for fact in (finding.shown or finding.text).split("\n"):
        yield from terminal.wrap_lines(fact, width)
    lead = FIX_MARK
    for line in terminal.wrap_lines(finding.fix, width - len(FIX_MARK)):
        yield lead + line
        lead = " " * len(FIX_MARK)


def describe_outcome(findings: Sequence[Finding]) -> str:
    """Return how many problems and warnings there are, and what to do first."""
    # In the order of the alphabet, a problem comes before a warning.
    state_of = attrgetter("state")
    faults = sorted((finding for finding in findings if finding.state != "ok"), key=state_of)
    if not faults:
        return "No problems."
    counts = Counter(map(state_of, faults))
    words = ", ".join(terminal.count_noun(count, state) for state, count in counts.items())
    first = faults[0]
    return f"{words}. Begin with this: {first.fix or first.text}"
