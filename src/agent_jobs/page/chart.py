"""Draw the cost of each day as an SVG bar chart. Pure."""

from collections.abc import Sequence
from html import escape

from markupsafe import Markup

from agent_jobs.page.views import format_usd

WIDTH = 800
HEIGHT = 160
#: Below the bars stands the first and the last day.
LABEL_HEIGHT = 20
#: Letters such as g reach below their line.
LABEL_DEPTH = 4
#: Share of a day's width that its bar takes.
BAR_SHARE = 0.8
#: A single day is no wider than this.
MAX_BAR_WIDTH = 60.0


def draw_days(costs: Sequence[tuple[str, float]]) -> Markup:
    """Return a chart of costs by day, oldest first; empty if there is nothing to draw."""
    most = max((cost for _, cost in costs), default=0.0)
    if most <= 0:
        return Markup("")
    step = min(WIDTH / len(costs), MAX_BAR_WIDTH / BAR_SHARE)
    bars = [_draw_bar(day, cost / most, cost, index * step, step) for index, (day, cost) in enumerate(costs)]
    first, last = escape(costs[0][0]), escape(costs[-1][0])
    label = escape(f"Cost by day from {costs[0][0]} to {costs[-1][0]}, at most {format_usd(most)}")
    days = f'<text x="0" y="{HEIGHT}">{first}</text>'
    if len(costs) > 1:
        days += f'<text x="{len(costs) * step:.1f}" y="{HEIGHT}" text-anchor="end">{last}</text>'
    box = f"0 0 {WIDTH} {HEIGHT + LABEL_DEPTH}"
    # All text in it is escaped.
    return Markup(f'<svg class="chart" role="img" aria-label="{label}" viewBox="{box}">{"".join(bars)}{days}</svg>')


def _draw_bar(day: str, share: float, cost: float, left: float, step: float) -> str:
    height = share * (HEIGHT - LABEL_HEIGHT)
    top = HEIGHT - LABEL_HEIGHT - height
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{step * BAR_SHARE:.1f}" height="{height:.1f}">'
        f"<title>{escape(day)}: {escape(format_usd(cost))}</title></rect>"
    )
