"""Read a price table from TOML: what models cost per million tokens, and what calls of hosted tools cost."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from agent_jobs.errors import ConfigError
from agent_jobs.files.text_file import read_text
from agent_jobs.jobs.response import Usage, string_of
from agent_jobs.validation import Kind, number, whole_number

N = TypeVar("N", int, float)
SETTING = "AGENT_JOBS_PRICES"
TOKENS_PER_PRICE = 1_000_000.0  # price lists count in millions of tokens
CALLS_PER_PRICE = 1000  # and in thousands of calls
PRICE_MAX = 1_000_000  # a higher price or factor is a slip of the pen
NAME_CHARS = 60  # enough to recognise a name in an error
#: Standard names of tiers, by the names that requests and responses use; an `auto` that stayed is the standard one.
_TIERS = {"": "default", "auto": "default", "fast": "priority"}
_SNAPSHOT = re.compile(r"-20\d\d-?\d\d-?\d\d$")
_PRICE = number(0, PRICE_MAX)
_TOKENS = whole_number(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices of a model's tokens in USD per million, and how many it reads at most. None means unknown."""

    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None
    context_tokens: int | None = None

    def cost_usd(self, usage: Usage, cache_write_tokens: int) -> float | None:
        """Return the cost of a usage, whose cached and written tokens are a part of its input; None if unknown."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        written = min(cache_write_tokens, usage.input_tokens - cached)
        plain = usage.input_tokens - cached - written
        total = plain * self.input + usage.output_tokens * self.output
        for tokens, price in ((cached, self.cached), (written, self.cache_write)):
            if tokens and price is None:
                return None
            total += tokens * (price or 0.0)
        return total / TOKENS_PER_PRICE

    def scale(self, read: float, written: float) -> "Rates":
        """Return the rates with every price of input multiplied by `read`, and that of output by `written`."""
        return Rates(
            input=self.input * read,
            output=self.output * written,
            cached=_scale_price(self.cached, read),
            cache_write=_scale_price(self.cache_write, read),
            context_tokens=self.context_tokens,
        )


def _scale_price(price: float | None, factor: float) -> float | None:
    if price is None:
        return None
    return price * factor


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """A model in a price table: its standard rates, and the factors that multiply them."""

    rates: Rates
    tiers: Mapping[str, float] = field(default_factory=dict[str, float])
    long_over: float = math.inf  #: input tokens, beyond which the two factors below hold for all of a response
    long_input: float = 1.0
    long_output: float = 1.0

    def rates_at(self, tier: str, input_tokens: int) -> Rates | None:
        """Return the rates in a tier for a number of input tokens; None if the tier's factor is unknown."""
        factor = {**self.tiers, "default": 1.0}.get(tier)
        if factor is None:
            return None
        if input_tokens > self.long_over:
            return self.rates.scale(self.long_input * factor, self.long_output * factor)
        return self.rates.scale(factor, factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A hosted tool in a price table: the cost of a call, and how many tokens it lets the model read at most."""

    call_usd: float
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A price table as read from TOML."""

    models: Mapping[str, PriceRow] = field(default_factory=dict[str, PriceRow])
    tools: Mapping[str, Tool] = field(default_factory=dict[str, Tool])

    def find_row(self, model: str) -> PriceRow | None:
        """Return the row of a model, or of the model that it is a dated snapshot of; a `-mini` is another model."""
        name = model.lower()
        return self.models.get(name) or self.models.get(_SNAPSHOT.sub("", name))


def normalize_tier(name: object) -> str:
    """Return the standard name of a tier."""
    tier = string_of(name).lower()
    return _TIERS.get(tier, tier)


def read_table(path: Path) -> Table:
    """Return the price table in a file.

    Raises:
        ConfigError: The file cannot be read or used. The sentence names the line or the key.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise ConfigError(
            "{setting} names a file that cannot be read: {cause}.",
            "unreadable_entry_file",
            setting=SETTING,
            cause=error.strerror,
        ) from error
    except ValueError as error:
        raise ConfigError(
            "{setting} names a file that is not UTF-8 text.", "wrong_entry_file", setting=SETTING
        ) from error
    return parse_table(text)


def parse_table(text: str) -> Table:
    """Return the price table in a text.

    Raises:
        ConfigError: The text is none. The sentence names the line or the key.
    """
    import tomllib  # not needed to answer `initialize`

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            "{setting} is not a TOML file: {cause}.", "wrong_entry_file", setting=SETTING, cause=error
        ) from error
    top = _read_keys("the file", document, "models", "tools")
    models = _read_entries("models", top.get("models", {}))
    tools = _read_entries("tools", top.get("tools", {}))
    return Table(
        {name.lower(): _read_model(f'models."{name[:NAME_CHARS]}"', row) for name, row in models.items()},
        {name: _read_tool(f"tools.{name[:NAME_CHARS]}", row) for name, row in tools.items()},
    )


def _read_model(where: str, value: object) -> PriceRow:
    keys = _read_keys(where, value, "input", "cached", "cache_write", "output", "context_tokens", "long", "tiers")
    tiers = _read_entries(f"{where}.tiers", keys.get("tiers", {}))
    return PriceRow(
        rates=Rates(
            input=_require_price(where, keys, "input"),
            output=_require_price(where, keys, "output"),
            cached=_read_table_number(where, keys, "cached", _PRICE),
            cache_write=_read_table_number(where, keys, "cache_write", _PRICE),
            context_tokens=_read_table_number(where, keys, "context_tokens", _TOKENS),
        ),
        tiers={normalize_tier(name): _require_price(f"{where}.tiers", tiers, name) for name in tiers},
        **_read_long(f"{where}.long", keys.get("long", {})),
    )


def _read_long(where: str, value: object) -> dict[str, Any]:
    """Return the fields of a `PriceRow` for long inputs."""
    keys = _read_keys(where, value, "over", "input", "output")
    if not keys:
        return {}
    over = _read_table_number(where, keys, "over", _TOKENS)
    if over is None:
        raise _entry_error(where, "lacks 'over', a number of tokens")
    return {
        "long_over": over,
        "long_input": _require_price(where, keys, "input"),
        "long_output": _require_price(where, keys, "output"),
    }


def _read_tool(where: str, value: object) -> Tool:
    keys = _read_keys(where, value, "per_1000", "tokens")
    call_usd = _require_price(where, keys, "per_1000") / CALLS_PER_PRICE
    return Tool(call_usd=call_usd, tokens=_read_table_number(where, keys, "tokens", _TOKENS))


def _read_entries(where: str, value: object) -> dict[str, Any]:
    """Return a table of the file, if it is one."""
    if not isinstance(value, dict):
        raise _entry_error(where, "has to be a table, as docs/cost.md shows")
    return cast("dict[str, Any]", value)


def _read_keys(where: str, value: object, *allowed: str) -> dict[str, Any]:
    """Return a table of the file, if it is one and has no key but these."""
    keys = _read_entries(where, value)
    strange = next((name for name in keys if name not in allowed), None)
    if strange is not None:
        raise _entry_error(where, f"does not accept {strange[:NAME_CHARS]!r}, but {', '.join(allowed)}")
    return keys


def _read_table_number(where: str, keys: Mapping[str, Any], name: str, kind: Kind[N]) -> N | None:
    """Return a number of the file, None if it is not there."""
    if name not in keys:
        return None
    return kind.check(f"{SETTING}: {where}.{name}", keys[name], ConfigError)


def _require_price(where: str, keys: Mapping[str, Any], name: str) -> float:
    price = _read_table_number(where, keys, name, _PRICE)
    if price is None:
        raise _entry_error(where, f"lacks {name!r}, a number from 0 to {PRICE_MAX}")
    return price


def _entry_error(where: str, fault: str) -> ConfigError:
    return ConfigError("{setting}: {where} {fault}.", "wrong_entry", setting=SETTING, where=where, fault=fault)
