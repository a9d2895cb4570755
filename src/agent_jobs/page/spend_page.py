"""Show what jobs cost: by day as a chart, by model, preset and client as tables."""

from collections.abc import Sequence
from typing import get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_jobs.engine.engine import Engine
from agent_jobs.jobs.queries import JobFilter, Spending, SpendingKey
from agent_jobs.page import views
from agent_jobs.page.chart import draw_days
from agent_jobs.page.templates import EngineSource, Renderer

DAY_S = 86_400.0
#: Days that a visitor can choose, the first by default.
PERIODS = (30, 7, 90, 365)
TITLES = {"day": "By day (UTC)", "model": "By model", "preset": "By preset", "client": "By client"}


class SpendPage:
    """The page about money."""

    def __init__(self, engine: EngineSource, renderer: Renderer) -> None:
        self._engine = engine
        self._renderer = renderer

    async def show(self, request: Request) -> Response:
        """Show the sums of a period."""
        days = _choose_period(request)
        sums = await _read_sums(await self._engine(), days)
        values = {
            "days": days,
            "periods": PERIODS,
            "total": views.format_usd(sum(each.cost_usd for each in sums["day"])),
            "unpriced": sum(each.unpriced for each in sums["day"]),
            "chart": draw_days([(each.name, each.cost_usd) for each in reversed(sums["day"])]),
            "tables": [(TITLES[key], [_build_spending_row(each) for each in rows]) for key, rows in sums.items()],
        }
        return self._renderer.render_page(request, "spend.html", values)

    async def show_as_json(self, request: Request) -> Response:
        """Return the same sums as JSON."""
        sums = await _read_sums(await self._engine(), _choose_period(request))
        return JSONResponse({key: [each._asdict() for each in rows] for key, rows in sums.items()})


def _choose_period(request: Request) -> int:
    asked = request.query_params.get("days", "")
    if asked not in map(str, PERIODS):
        return PERIODS[0]
    return int(asked)


async def _read_sums(engine: Engine, days: int) -> dict[SpendingKey, list[Spending]]:
    """Return the sums of the jobs that started in the last days, today included."""
    today = engine.now() // DAY_S * DAY_S
    group = JobFilter(since=today - (days - 1) * DAY_S)
    keys: Sequence[SpendingKey] = get_args(SpendingKey)
    return {key: await engine.sum_spending(key, group) for key in keys}


def _build_spending_row(spending: Spending) -> dict[str, str]:
    unknown = ""
    if spending.unpriced:
        unknown = f"+ {spending.unpriced} unknown"
    return {
        "name": spending.name or "(none)",
        "jobs": f"{spending.jobs:,}",
        "tokens": f"{spending.input_tokens:,} in, {spending.output_tokens:,} out",
        "cost": views.format_usd(spending.cost_usd),
        "unknown": unknown,
    }
