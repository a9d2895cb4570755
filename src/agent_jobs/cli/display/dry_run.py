"""Describe what a request would send and what it may cost, for a person."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent_jobs.cli.display import terminal
from agent_jobs.cli.wording import describe_fix, describe_problem
from agent_jobs.errors import AgentJobsError
from agent_jobs.jobs.queries import Estimate

if TYPE_CHECKING:  # imported when a job is started
    from agent_jobs.request.start_request import StartRequest

_NO_BOUND = re.compile(r"The cost has no bound, since |, so the cost has no bound")
_USD = re.compile(r"(\d[\d.,]*) USD")
NAME_GAP = 2  # columns between a name and its value
LISTED_NAMES = 8  # tools or files: more fill the screen


def describe_estimate(estimate: Estimate, request: "StartRequest") -> str:
    """Return the lines of a dry run."""
    model = estimate.model
    if estimate.effort:
        model += f", effort {estimate.effort}"
    rows = [("job", _describe_start(estimate, request)), ("model", model)]
    if request.preset:
        rows.append(("preset", request.preset))
    rows.append(("tools", terminal.join_first(estimate.tools, LISTED_NAMES) or "none"))
    unit = "token" if estimate.input_tokens == 1 else "tokens"
    rows.append(("input", f"about {estimate.input_tokens:,} {unit}"))
    if estimate.files:
        rows.append(("files", terminal.join_first([file["name"] for file in estimate.files], LISTED_NAMES)))
    rows += [("expected", _describe_expected(estimate)), ("at most", _describe_bound(estimate))]
    return f"Dry run: nothing was sent.\n{terminal.format_pairs(_wrap_values(rows))}"


def _wrap_values(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the rows with their values wrapped at the width of a terminal."""
    if not terminal.is_width_limited():
        return list(rows)
    room = terminal.find_width() - max(map(len, dict(rows))) - NAME_GAP
    return [(name, "\n".join(terminal.wrap_lines(value, room))) for name, value in rows]


def _describe_start(estimate: Estimate, request: "StartRequest") -> str:
    existing = estimate.existing
    if key := request.options.get("key"):
        return f"a new one, unless a job has the key {key}"
    if existing is None:
        return "a new one"
    return f"none: {existing.id} is identical ({existing.status}) and would be shown. --new starts another."


def _describe_expected(estimate: Estimate) -> str:
    if estimate.expected_usd is None:
        return "unknown: there is no price for this model at this address"
    assumed = f"it writes {estimate.expected_tokens:,} tokens"
    if estimate.expected_searches:
        assumed += f" and searches {estimate.expected_searches} times"
    return f"about {_format_estimate(estimate.expected_usd)} if {assumed}"


def _describe_bound(estimate: Estimate) -> str:
    if estimate.cost_bound_usd is None:
        assert estimate.unbounded is not None, "an estimate has a bound, or the reason why it has none"
        return f"no limit. {_describe_missing_bound(estimate.unbounded)}".rstrip()
    bound = _format_estimate(estimate.cost_bound_usd)
    if estimate.bound_parts:
        parts = _USD.sub(r"$\1", estimate.bound_parts)
        return f"{bound}: {parts}"
    return bound


def _describe_missing_bound(error: AgentJobsError) -> str:
    """Return why there is no limit, without saying again that there is none, and the fix."""
    reason = _NO_BOUND.sub("", describe_problem(error))
    if reason.startswith("Without "):
        return describe_fix(error)
    return f"{reason} {describe_fix(error)}".rstrip()


def _format_estimate(usd: float) -> str:
    """Return a rounded amount, for an estimate."""
    if usd < 0.01:
        return "less than $0.01"
    return terminal.format_usd(usd)
