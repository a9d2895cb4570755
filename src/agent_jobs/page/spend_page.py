"""Show what jobs cost: by day as a chart, by model, preset and client as tables."""

import time
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_jobs.engine.engine import Engine
from agent_jobs.jobs.queries import JobFilter, Spending, SpendingKey
from agent_jobs.page.chart import draw_days
from agent_jobs.page.formats import format_usd
from agent_jobs.page.templates import EngineSource, Renderer
from agent_jobs.page.views import build_budget_meter

DAY_S = 86_400.0
#: Days that a visitor can choose.
PERIODS = (7, 30, 90, 365)
DEFAULT_PERIOD = 30
#: The tables of the page, whose reader has one owner.
KEYS: Sequence[SpendingKey] = ("day", "model", "preset", "client")
#: Shown in place of a sum without any known part.
UNKNOWN = "unknown"
TITLES = {"day": "Day (UTC)", "model": "Model", "preset": "Preset", "client": "Client"}


class SpendPage:
    """The page about money."""

    def __init__(self, engine: EngineSource, renderer: Renderer) -> None:
        self._engine = engine
        self._renderer = renderer

    async def show(self, request: Request) -> Response:
        """Show the sums of a period."""
        days = _choose_period(request)
        engine = await self._engine(request)
        sums = await _read_sums(engine, days)
        unpriced = sum(each.unpriced for each in sums["day"])
        values = {
            "budget": build_budget_meter(await engine.read_budget()),
            "days": days,
            "periods": PERIODS,
            "total": _format_total_cost(sum(each.cost_usd for each in sums["day"]), unpriced),
            "unpriced": unpriced,
            "unknown": UNKNOWN,
            "chart": draw_days(_list_days(sums["day"], days, engine.now())),
            "tables": [(TITLES[key], [_build_spending_row(each) for each in rows]) for key, rows in sums.items()],
            "has_jobs": bool(sums["day"]),
        }
        return self._renderer.render_page(request, "spend.html", values)

    async def show_as_json(self, request: Request) -> Response:
        """Return the same sums as JSON."""
        sums = await _read_sums(await self._engine(request), _choose_period(request))
        return JSONResponse({key: [each._asdict() for each in rows] for key, rows in sums.items()})


def _choose_period(request: Request) -> int:
    asked = request.query_params.get("days", "")
    if asked not in map(str, PERIODS):
        return DEFAULT_PERIOD
    return int(asked)


async def _read_sums(engine: Engine, days: int) -> dict[SpendingKey, list[Spending]]:
    """Return the sums of the jobs that started in the last days, today included."""
    today = engine.now() // DAY_S * DAY_S
    group = JobFilter(since=today - (days - 1) * DAY_S)
    return await engine.sum_spending(KEYS, group)


def _list_days(sums: Sequence[Spending], days: int, now: float) -> list[tuple[str, float]]:
    """Return the cost of each day of a period, oldest first, also of those without jobs."""
    costs = {each.name: each.cost_usd for each in sums}
    names = [time.strftime("%Y-%m-%d", time.gmtime(now - age * DAY_S)) for age in reversed(range(days))]
    return [(name, costs.get(name, 0.0)) for name in names]


def _build_spending_row(spending: Spending) -> dict[str, str]:
    unknown = ""
    cost = _format_total_cost(spending.cost_usd, spending.unpriced)
    if spending.unpriced and cost != UNKNOWN:
        unknown = f"+ {spending.unpriced} unknown"
    return {
        "name": spending.name or "(none)",
        "jobs": f"{spending.jobs:,}",
        "tokens_in": f"{spending.input_tokens:,}",
        "tokens_out": f"{spending.output_tokens:,}",
        "cost": cost,
        "unknown": unknown,
    }


def _format_total_cost(cost_usd: float, unpriced: int) -> str:
    """Return the known cost of jobs; `unpriced` counts those whose cost is not known."""
    if unpriced and not cost_usd:
        return UNKNOWN
    return format_usd(cost_usd)
