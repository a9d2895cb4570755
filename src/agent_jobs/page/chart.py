"""Draw the cost of each day as a bar chart: bars as SVG, which are as wide as the page, and words as HTML. Pure."""

from collections.abc import Sequence
from html import escape

from markupsafe import Markup

from agent_jobs.page.formats import format_usd

WIDTH = 800
HEIGHT = 150
#: Share of a day's width that its bar fills.
BAR_SHARE = 0.75
#: Even a small cost is seen.
MIN_BAR_HEIGHT = 2.0


def draw_days(costs: Sequence[tuple[str, float]]) -> Markup:
    """Return a chart of costs by day, oldest first; empty if there is nothing to draw."""
    most = max((cost for _, cost in costs), default=0.0)
    if most <= 0:
        return Markup("")
    step = WIDTH / len(costs)
    bars = [_draw_bar(day, cost, cost / most, index * step, step) for index, (day, cost) in enumerate(costs) if cost]
    first, last = escape(costs[0][0]), escape(costs[-1][0])
    label = escape(f"Cost by day from {costs[0][0]} to {costs[-1][0]}, at most {format_usd(most)}")
    # All text in it is escaped.
    return Markup(
        f'<figure class="chart"><p class="soft">{escape(format_usd(most))}</p>'
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f'{"".join(bars)}</svg><p class="soft ends"><span>{first}</span><span>{last}</span></p></figure>'
    )


def _draw_bar(day: str, cost: float, share: float, left: float, step: float) -> str:
    height = max(share * HEIGHT, MIN_BAR_HEIGHT)
    inset = step * (1 - BAR_SHARE) / 2
    return (
        f'<rect x="{left + inset:.1f}" y="{HEIGHT - height:.1f}" width="{step * BAR_SHARE:.1f}" height="{height:.1f}">'
        f"<title>{escape(day)}: {escape(format_usd(cost))}</title></rect>"
    )
