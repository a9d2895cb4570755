"""Forecast the probable cost of a request from the usual input and output of such requests."""

from typing import NamedTuple

from agent_jobs.jobs.response import JSON, Usage, items_of, mapping_of, read_whole_number
from agent_jobs.pricing.prices import Prices

#: Tokens that a model usually writes, with its reasoning, by the effort of the request.
WRITTEN_TOKENS = {
    "none": 1_000,
    "minimal": 1_500,
    "low": 3_000,
    "medium": 6_000,
    "high": 15_000,
    "xhigh": 30_000,
    "max": 30_000,
}
#: The same of a request that names no effort.
USUALLY_WRITTEN_TOKENS = 6_000
#: Searches of a request that may search the web, and of one to a research model.
USUAL_SEARCHES = 5
RESEARCH_SEARCHES = 30
#: Tokens that a model reads for each search: the findings, and some of its input again.
READ_PER_SEARCH_TOKENS = 8_000
RESEARCH_MARK = "deep-research"
RESEARCH_PRESET = "deep_research"
SEARCH_TOOLS = ("web_search", "web_search_preview")


class Forecast(NamedTuple):
    """A probable cost, and its assumptions."""

    usd: float
    written_tokens: int
    searches: int


def forecast_cost(
    prices: Prices, body: JSON, input_tokens: int, *, is_research: bool, at: float, provider_url: str
) -> Forecast | None:
    """Return the probable cost of a request; None if a price is unknown.

    Args:
        prices: Prices of models.
        body: The body of POST /responses.
        input_tokens: Of the prompt and its files, roughly.
        is_research: True if it searches as often as research does.
        at: Now, epoch seconds.
        provider_url: The base URL it is sent to.
    """
    model = str(body.get("model"))
    searches = _expect_searches(body, is_research=is_research or RESEARCH_MARK in model)
    written = _limit_count(_expect_written(body), body.get("max_output_tokens"))
    usage = Usage(input_tokens=input_tokens + searches * READ_PER_SEARCH_TOKENS, output_tokens=written)
    calls = {"web_search": searches} if searches else {}
    usd = prices.cost_usd(model, usage, at=at, provider_url=provider_url, calls=calls)
    if usd is None:
        return None
    return Forecast(usd, written, searches)


def _expect_written(body: JSON) -> int:
    effort = mapping_of(body.get("reasoning")).get("effort")
    return WRITTEN_TOKENS.get(str(effort), USUALLY_WRITTEN_TOKENS)


def _expect_searches(body: JSON, *, is_research: bool) -> int:
    kinds = [str(tool.get("type")) for tool in items_of(body.get("tools"))]
    if not any(kind.startswith(SEARCH_TOOLS) for kind in kinds):
        return 0
    usual = RESEARCH_SEARCHES if is_research else USUAL_SEARCHES
    return _limit_count(usual, body.get("max_tool_calls"))


def _limit_count(count: int, limit: object) -> int:
    most = read_whole_number(limit)
    if most:
        return min(count, most)
    return count
