"""Draw the cost of each day as an SVG bar chart. Pure."""

from collections.abc import Sequence
from html import escape

from markupsafe import Markup

from agent_jobs.page.formats import format_usd

WIDTH = 800
HEIGHT = 180
#: Above the bars stands the cost of the most expensive day.
TOP = 20
#: Below the bars stands the first and the last day.
LABEL_HEIGHT = 20
#: Letters such as g reach below their line.
LABEL_DEPTH = 4
#: Share of a day's width that its bar takes.
BAR_SHARE = 0.75
#: Even a small cost is seen.
MIN_BAR_HEIGHT = 2.0
BASE = HEIGHT - LABEL_HEIGHT


def draw_days(costs: Sequence[tuple[str, float]]) -> Markup:
    """Return a chart of costs by day, oldest first; empty if there is nothing to draw."""
    most = max((cost for _, cost in costs), default=0.0)
    if most <= 0:
        return Markup("")
    step = WIDTH / len(costs)
    bars = [_draw_bar(day, cost, cost / most, index * step, step) for index, (day, cost) in enumerate(costs) if cost]
    label = escape(f"Cost by day from {costs[0][0]} to {costs[-1][0]}, at most {format_usd(most)}")
    texts = (
        f'<text x="0" y="12">{escape(format_usd(most))}</text>'
        f'<text x="0" y="{HEIGHT}">{escape(costs[0][0])}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT}" text-anchor="end">{escape(costs[-1][0])}</text>'
    )
    lines = _draw_line(TOP) + _draw_line(BASE)
    box = f"0 0 {WIDTH} {HEIGHT + LABEL_DEPTH}"
    # All text in it is escaped.
    return Markup(
        f'<svg class="chart" role="img" aria-label="{label}" viewBox="{box}">{lines}{"".join(bars)}{texts}</svg>'
    )


def _draw_line(height: int) -> str:
    return f'<line class="base" x1="0" x2="{WIDTH}" y1="{height}" y2="{height}"/>'


def _draw_bar(day: str, cost: float, share: float, left: float, step: float) -> str:
    height = max(share * (BASE - TOP), MIN_BAR_HEIGHT)
    inset = step * (1 - BAR_SHARE) / 2
    return (
        f'<rect x="{left + inset:.1f}" y="{BASE - height:.1f}" width="{step * BAR_SHARE:.1f}" height="{height:.1f}" '
        f'rx="1.5"><title>{escape(day)}: {escape(format_usd(cost))}</title></rect>'
    )
