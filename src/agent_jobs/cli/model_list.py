"""List the models that a job can use, with their prices and what else is known about them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from agent_jobs.jobs.response import JSON, read_whole_number, string_of
from agent_jobs.pricing.price_file import Rates
from agent_jobs.pricing.prices import Prices, is_openai
from agent_jobs.request.models import find_listed_model, find_shutdown_date, list_efforts, list_known_names, load_models
from agent_jobs.settings.settings import Settings

#: The address whose models and prices the built-in tables describe.
OPENAI_URL = "https://api.openai.com/v1"
#: Names under which lists of models give the number of tokens that a model reads at most.
CONTEXT_FIELDS = ("context_window", "context_length", "max_context_length", "max_model_len", "context_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A model in a list. None means unknown; prices are USD per million tokens."""

    name: str
    input_usd: float | None = None
    cached_usd: float | None = None
    output_usd: float | None = None
    context_tokens: int | None = None
    efforts: tuple[str, ...] = ()  #: values of `effort` that it accepts, empty if unknown
    shutdown_date: str | None = None
    is_default: bool = False


def find_default_model(settings: Settings) -> str:
    """Return the model of a job whose start and preset name none."""
    return settings.model or load_models()["default"]


def list_known_models(settings: Settings, now: float) -> list[ModelRow]:
    """Return the current models of OpenAI that agent-jobs knows, and the user's own default and priced models.

    Raises:
        ConfigError: The user's price table cannot be read or used.
    """
    prices = Prices.load(settings.prices)
    names = dict.fromkeys([find_default_model(settings), *list_known_names(), *prices.own.models])
    return _describe_models(names, {}, settings, prices, OPENAI_URL, now)


def describe_listed_models(cards: Mapping[str, JSON], settings: Settings, now: float) -> list[ModelRow]:
    """Return the models that the provider lists, by name.

    Args:
        cards: The provider's description of each model, by its name.
        settings: Name the provider, the default model and the user's price table.
        now: Epoch seconds; prices and shutdowns have dates.

    Raises:
        ConfigError: The user's price table cannot be read or used.
    """
    prices = Prices.load(settings.prices)
    return _describe_models(sorted(cards, key=str.casefold), cards, settings, prices, settings.base_url, now)


def is_list_known(settings: Settings) -> bool:
    """Return True if the built-in tables describe the models of this provider."""
    return is_openai(settings.base_url)


def _describe_models(
    names: Iterable[str], cards: Mapping[str, JSON], settings: Settings, prices: Prices, url: str, now: float
) -> list[ModelRow]:
    names = list(names)
    default = find_listed_model(find_default_model(settings), names)
    rows: list[ModelRow] = []
    for name in names:
        card = cards.get(name, {})
        row = ModelRow(
            name=name,
            context_tokens=_read_context_tokens(card),
            efforts=list_efforts(name) if is_openai(url) else (),
            shutdown_date=string_of(card.get("shutdown_date")) or find_shutdown_date(name),
            is_default=name == default,
        )
        rows.append(_add_rates(row, prices.rates_of(name, at=now, provider_url=url)))
    return rows


def _add_rates(row: ModelRow, rates: Rates | None) -> ModelRow:
    if rates is None:
        return row
    return replace(
        row,
        input_usd=rates.input,
        cached_usd=rates.cached,
        output_usd=rates.output,
        context_tokens=row.context_tokens or rates.context_tokens,
    )


def _read_context_tokens(card: JSON) -> int | None:
    """Return how many tokens a model reads at most, as the provider says; None if it does not."""
    counts = (read_whole_number(card.get(field)) for field in CONTEXT_FIELDS)
    return next(filter(None, counts), None)
