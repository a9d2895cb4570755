"""`agent-jobs stats`: what jobs cost, by day, model, preset, client or owner."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import click

from agent_jobs.cli.choice import NamedChoice
from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.sections import format_table, style, wrap_sentence
from agent_jobs.cli.display.symbols import draw_bar, echo
from agent_jobs.cli.session import Session, json_option, read_settings, run_in_session
from agent_jobs.jobs.queries import JobFilter, Spending, SpendingKey

DAY_S = 86_400.0
BAR_COLUMNS = 20
#: From this share of the budget on, the bar needs attention.
HIGH_SHARE = 0.8
_FIGURES = frozenset({"JOBS", "RUNNING", "TOKENS IN", "TOKENS OUT", "COST"})
#: Columns that a narrow terminal leaves out, first to last.
_DROPPED = ("RUNNING", "TOKENS IN", "TOKENS OUT")
_HEADINGS: dict[SpendingKey, str] = {
    "day": "DAY (UTC)",
    "model": "MODEL",
    "preset": "PRESET",
    "client": "CLIENT",
    "owner": "OWNER",
}
#: Shown in place of an unknown name.
_UNNAMED = {"model": "unknown", "preset": "none", "client": "unknown", "day": "unknown", "owner": "none"}


class _Today(NamedTuple):
    """The spending that counts against the budget of this day."""

    usd: float
    budget_usd: float | None
    mode: str  #: bound: running jobs count with what they may cost; spent: with what they cost so far


@click.command("stats")
@click.option(
    "--by", type=NamedChoice(get_args(SpendingKey)), default="day", show_default=True, help="What a row stands for."
)
@click.option("--days", type=click.IntRange(1, 36_500), default=30, show_default=True, help="Days, with today.")
@json_option
def stats_command(by: SpendingKey, days: int, as_json: bool) -> None:
    """Show how many jobs were started, their tokens and their cost.

    The first line shows what counts against today's budget. Days are those of the budget: in UTC.

    A cost of "$0.20 + 2 unknown" means that two jobs ran whose price is not known.
    """
    settings = read_settings()
    since = (time.time() // DAY_S - days + 1) * DAY_S

    async def read(session: Session) -> tuple[float, list[Spending]]:
        engine = session.engine
        today_usd = await engine.sum_today(spent=settings.budget_mode == "spent")
        sums = await engine.sum_spending([by], JobFilter(since=since))
        return today_usd, sums[by]

    today_usd, rows = run_in_session(read, settings=replace(settings, warnings=()))
    today = _Today(today_usd, settings.daily_budget_usd, settings.budget_mode)
    if as_json:
        return click.echo(_render_sums_as_json(today, rows, by, days))
    return echo("\n".join([*_render_today(today), "", *_render_table(rows, by, days)]))


def _render_today(today: _Today) -> Iterator[str]:
    """Yield the line with today's spending, and a bar if there is a budget."""
    usd = terminal.format_usd(today.usd)
    if today.budget_usd is None:
        yield from wrap_sentence(f"Today  {usd}, no budget. Set one with AGENT_JOBS_DAILY_BUDGET_USD.")
        return
    share = 1.0
    if today.budget_usd:
        share = today.usd / today.budget_usd
    bar = style(draw_bar(share, BAR_COLUMNS), colour=_choose_bar_colour(share))
    yield f"Today  {bar}  {usd} of {terminal.format_usd(today.budget_usd)}"
    if today.mode != "spent":
        yield "       Running jobs count with the most that they may cost."


def _choose_bar_colour(share: float) -> str | int:
    if share >= 1.0:
        return "red"
    if share >= HIGH_SHARE:
        return terminal.ATTENTION
    return "green"


def _render_table(rows: Sequence[Spending], by: SpendingKey, days: int) -> Iterator[str]:
    if not rows:
        span = f"in the last {days} days"
        if days == 1:
            span = "today"
        yield f'No jobs were started {span}. Start one with: agent-jobs run "..."'
        return
    cells = [_render_sum_row(row, by) for row in rows]
    if len(rows) > 1:
        cells.append(_render_sum_row(_add_up_spending(rows), by))
    yield from format_table(cells, _FIGURES, _DROPPED)


def _render_sum_row(row: Spending, by: SpendingKey) -> dict[str, str]:
    name = terminal.join_lines(row.name) or _UNNAMED[by]
    return {
        _HEADINGS[by]: name,
        "JOBS": str(row.jobs),
        "RUNNING": str(row.active or ""),
        "TOKENS IN": _format_count(row.input_tokens, row.uncounted),
        "TOKENS OUT": _format_count(row.output_tokens, row.uncounted),
        "COST": _format_cost(row),
    }


def _format_count(tokens: int, uncounted: int) -> str:
    """Return tokens in a short form, with a sign if some jobs' are not known."""
    figure = terminal.format_count(tokens)
    if uncounted:
        return f"{figure}+?"
    return figure


def _format_cost(row: Spending) -> str:
    """Return the known cost, and how many jobs have an unknown one."""
    if row.active == row.jobs:
        return ""
    if not row.unpriced:
        return terminal.format_usd(row.cost_usd)
    if not row.cost_usd:
        return f"{row.unpriced} unknown"
    return f"{terminal.format_usd(row.cost_usd)} + {row.unpriced} unknown"


def _add_up_spending(rows: Sequence[Spending]) -> Spending:
    _, *columns = zip(*rows, strict=True)
    return Spending("all", *map(sum, columns))


def _render_sums_as_json(today: _Today, rows: Sequence[Spending], by: SpendingKey, days: int) -> str:
    from agent_jobs.rendering import answers

    day = {"usd": answers.round_usd(today.usd), "budget_usd": today.budget_usd, "budget_mode": today.mode}
    answer = {"by": by, "days": days, "today": day, "rows": [_render_sum_fields(row, by) for row in rows]}
    if rows:
        answer["all"] = _render_sum_fields(_add_up_spending(rows), by)
    return answers.format_json_line(answer)


def _render_sum_fields(row: Spending, by: SpendingKey) -> dict[str, Any]:
    from agent_jobs.rendering import answers

    fields = row._asdict()
    name = fields.pop("name")
    return {by: name, **fields, "cost_usd": answers.round_usd(row.cost_usd)}
