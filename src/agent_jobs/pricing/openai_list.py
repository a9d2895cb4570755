"""Look up OpenAI's price list in genai-prices: its bundled data, never the network."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from agent_jobs.pricing.price_file import Rates

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider, TieredPrices

#: Price keys of genai-prices that a count of text tokens answers; audio and images are counted apart.
_TEXT_PRICES = frozenset(
    {"input_mtok", "cache_read_mtok", "cache_write_mtok", "output_mtok", "web_searches_kcount",
     "storage_searches_kcount"}
)  # fmt: skip


def find_listed_rates(model: str, tier: str, input_tokens: int, at: float) -> Rates | None:
    """Return the listed rates of a model in a tier; None if the list does not know all of its prices.

    Args:
        model: Its name, dated or not.
        tier: The standard name of the tier.
        input_tokens: The number of input tokens, on which some prices depend.
        at: The time of the prices, in epoch seconds.
    """
    found = _load_provider().find_model(model)
    if found is None:
        return None
    when = datetime.fromtimestamp(at, UTC)
    # The library prices a tier that it does not know as the standard one.
    if tier != "default" and not _has_tier(found, tier, when):
        return None
    prices = found.get_prices(when, {"service_tier": tier})
    kinds = {name for name, value in vars(prices).items() if value is not None}
    if not {"input_mtok", "output_mtok"} <= kinds <= _TEXT_PRICES:
        return None
    read = _price_at(prices.input_mtok, input_tokens)
    return Rates(
        input=read,
        output=_price_at(prices.output_mtok, input_tokens),
        # In this list, tokens without a price of their own cost as much as all input.
        cached=_price_at(prices.cache_read_mtok, input_tokens, read),
        cache_write=_price_at(prices.cache_write_mtok, input_tokens, read),
        context_tokens=found.context_window,
    )


def _price_at(price: "Decimal | TieredPrices | None", input_tokens: int, default: float = 0.0) -> float:
    """Return a price per million tokens for a number of input tokens."""
    match price:
        case None:
            return default
        case Decimal():
            return float(price)
        case _:
            reached = [price.base, *(step.price for step in price.tiers if input_tokens > step.start)]
            return float(reached[-1])


def _has_tier(model: "ModelInfo", tier: str, when: datetime) -> bool:
    return any(
        variant.when == {"service_tier": tier} and (variant.constraint is None or variant.constraint.active(when))
        for variant in model.price_variants or ()
    )


@cache
def _load_provider() -> "Provider":
    # Not genai_prices.data itself: a type checker reads the whole list for that, for more than a minute.
    from genai_prices.data_snapshot import get_snapshot

    # 0.2 s and 11 MB, and only where a cost is asked for
    return next(provider for provider in get_snapshot().providers if provider.id == "openai")
