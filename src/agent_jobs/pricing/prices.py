"""What a response cost and what a request can cost, in USD. What is not known is None, never a guess.

The user's table goes first and alone for the models in it; then, on OpenAI's and Azure's hosts, the price list in
genai-prices (its bundled data, never the network), then data/prices.toml.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Self, cast
from urllib.parse import urlsplit

from agent_jobs.errors import ConfigError, RequestError
from agent_jobs.jobs.response import JSON, Usage
from agent_jobs.text_file import read_text

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider, TieredPrices

SETTING = "AGENT_JOBS_PRICES"
MTOK = 1_000_000.0
DAY_S = 86_400
#: No price or factor is higher, so what is higher is a slip of the pen.
PRICE_MAX = 1_000_000

#: Limits that a request without limits gets under a budget: the first that fits is taken, else the last.
DEFAULT_OUTPUT_TOKENS = (64_000, 32_000, 16_000, 8_000, 4_000)
DEFAULT_CALLS = (12, 10, 8, 6, 5, 4, 3, 2, 1)
#: Of the day's budget, what the output of such a request may cost.
OUTPUT_SHARE = 0.1
#: Of its context, what any model may write; more is refused by some.
OUTPUT_OF_CONTEXT = 0.125

#: Other hosts may serve the same name for another price; a region of OpenAI (eu.api.openai.com) adds to it.
_OPENAI_HOST = "api.openai.com"
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
#: What a tier is called in requests, by its name in responses; an `auto` that nobody replaced is the standard one.
_TIERS = {"": "default", "auto": "default", "fast": "priority"}
_SNAPSHOT = re.compile(r"-20\d\d-?\d\d-?\d\d$")
#: Tools whose calls the client answers, so that they cost nothing but tokens.
_CLIENT_TOOLS = frozenset({"function", "custom", "custom_tool", "local_shell", "apply_patch", "computer"})
#: Input whose tokens are at most its bytes; files, images and references are not.
_TEXT_TYPES = frozenset(
    {"message", "reasoning", "input_text", "output_text", "summary_text", "refusal", "function_call",
     "function_call_output", "custom_tool_call", "custom_tool_call_output", "mcp_approval_response"}
)  # fmt: skip
#: Price keys of genai-prices that a count of text tokens answers; audio and images are counted apart.
_TEXT_PRICES = frozenset(
    {"input_mtok", "cache_read_mtok", "cache_write_mtok", "output_mtok", "web_searches_kcount",
     "storage_searches_kcount"}
)  # fmt: skip

Host = Literal["openai", "azure", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a model's tokens cost in USD per million, and how many it reads at most. None is not known."""

    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None
    context_tokens: int | None = None

    def usd(self, usage: Usage, cache_write_tokens: int) -> float | None:
        """What a usage costs; cached and written tokens are a part of its input."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        written = min(cache_write_tokens, usage.input_tokens - cached)
        plain = usage.input_tokens - cached - written
        total = plain * self.input + usage.output_tokens * self.output
        for tokens, price in ((cached, self.cached), (written, self.cache_write)):
            if tokens and price is None:
                return None
            total += tokens * (price or 0.0)
        return total / MTOK


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A model in a price table: its standard rates, and by what they are multiplied."""

    rates: Rates
    tiers: Mapping[str, float] = field(default_factory=dict[str, float])
    long_over: int | None = None  #: input tokens, beyond which the two factors below hold for all of a response
    long_input: float = 1.0
    long_output: float = 1.0

    def at(self, tier: str, input_tokens: int) -> Rates | None:
        """The rates in a tier for so much input; None where the tier's factor is not known."""
        factor = 1.0 if tier == "default" else self.tiers.get(tier)
        if factor is None:
            return None
        long = self.long_over is not None and input_tokens > self.long_over
        read, written = (self.long_input * factor, self.long_output * factor) if long else (factor, factor)
        return Rates(
            input=self.rates.input * read,
            output=self.rates.output * written,
            cached=None if self.rates.cached is None else self.rates.cached * read,
            cache_write=None if self.rates.cache_write is None else self.rates.cache_write * read,
            context_tokens=self.rates.context_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A hosted tool in a price table: what a call costs, and how much it lets the model read at most."""

    call_usd: float
    tokens: int | None = None


class Bound(NamedTuple):
    """The most that a response can cost."""

    usd: float
    output_usd: float
    parts: str  #: of what it is made, for people
    context_tokens: int | None  #: how much the model reads at most, where that is known


@dataclass(frozen=True, slots=True)
class Table:
    """A price table as read from TOML."""

    models: Mapping[str, Row] = field(default_factory=dict[str, Row])
    tools: Mapping[str, Tool] = field(default_factory=dict[str, Tool])

    def row(self, model: str) -> Row | None:
        """The row of a model or of the model that it is a dated snapshot of; a `-mini` is another model."""
        name = model.lower()
        return self.models.get(name) or self.models.get(_SNAPSHOT.sub("", name))


@dataclass(frozen=True, slots=True)
class Prices:
    """All that is known of prices: the user's table above, ours below, and the library between them."""

    own: Table
    built_in: Table

    @classmethod
    def load(cls, path: Path | None) -> Self:
        """Read our table and the user's, if there is one.

        Raises:
            ConfigError: The user's table cannot be read or used; the sentence names the line or the key.
        """
        built_in = resources.files("agent_jobs").joinpath("data", "prices.toml").read_text("utf-8")
        return cls(_read(path) if path else Table(), parse(built_in))

    def cost_of(self, response: JSON, *, at: float, provider_url: str) -> float | None:
        """What a finished response cost; None where its usage or a price in it is not wholly known.

        Args:
            response: The response object as upstream gave it.
            at: When it was created, epoch seconds; prices change.
            provider_url: The base URL it was sent to.
        """
        usage, model, tier = Usage.of(response.get("usage")), response.get("model"), response.get("service_tier")
        if usage is None or usage.partial or not isinstance(model, str):
            return None
        if response.get("status") == "completed" and not usage.input_tokens:
            return None  # whatever was completed was asked for: this 0 stands for a count that is missing
        counted = _mapping(response.get("usage"))
        details = {**_mapping(counted.get("prompt_tokens_details")), **_mapping(counted.get("input_tokens_details"))}
        written = details.get("cache_write_tokens")
        if written and not _count(written):
            return None  # writes cost more than other input, so a count that cannot be read must not be 0
        if _mapping(details.get("cache_write_tokens_details")).get("ttl_12h_tokens"):
            return None  # dearer than the writes that the price lists know
        return self.cost_usd(
            model,
            usage,
            at=at,
            provider_url=provider_url,
            service_tier=tier if isinstance(tier, str) else None,
            calls=calls_of(response),
            cache_write_tokens=_count(written),
        )

    def cost_usd(
        self,
        model: str,
        usage: Usage,
        *,
        at: float,
        provider_url: str,
        service_tier: str | None = None,
        calls: Mapping[str, int] | None = None,
        cache_write_tokens: int = 0,
    ) -> float | None:
        """What so many tokens and calls of hosted tools cost; None where a price is not known.

        Args:
            model: As upstream named it, dated or not.
            usage: Tokens; the cached ones are a part of the input.
            at: When the response was created, epoch seconds.
            provider_url: The base URL it was sent to.
            service_tier: The one that upstream says it used.
            calls: Of hosted tools, by their names, see `calls_of`.
            cache_write_tokens: A part of the input, like the cached ones.
        """
        host = _host(provider_url)
        rates = self._rates(model, _tier(service_tier), usage.input_tokens, at, host)
        usd = rates.usd(usage, cache_write_tokens) if rates else None
        for name, count in (calls or {}).items():
            tool = self._tool(name, host)
            if usd is None or tool is None:
                return None
            usd += count * tool.call_usd
        return None if usd is None else round(usd, 8)

    def bound_usd(self, body: JSON, *, at: float, provider_url: str, history_tokens: int | None = None) -> float:
        """Return the most that one response to a request can cost; see `bound`."""
        return self.bound(body, at=at, provider_url=provider_url, history_tokens=history_tokens).usd

    def capped(self, body: JSON, budget_usd: float, bound: Callable[[JSON], "Bound"]) -> JSON:
        """Return a request with the limits that it lacks for a bound, as high as a day's budget allows.

        Args:
            body: The body of POST /responses; limits that stand in it stay.
            budget_usd: The budget of a whole day, so that the same request gets the same limits all day long.
            bound: What a body can cost.
        """
        calls = {} if body.get("max_tool_calls") or not _hosted(body) else {"max_tool_calls": DEFAULT_CALLS[-1]}
        if not body.get("max_output_tokens"):
            share = budget_usd * OUTPUT_SHARE
            for tokens in DEFAULT_OUTPUT_TOKENS:
                body = {**body, "max_output_tokens": tokens}
                most = bound({**body, **calls})
                if most.output_usd <= share and tokens <= (most.context_tokens or tokens) * OUTPUT_OF_CONTEXT:
                    break
        for count in DEFAULT_CALLS if calls else ():
            body = {**body, "max_tool_calls": count}
            if bound(body).usd <= budget_usd:
                break
        return body

    def bound(self, body: JSON, *, at: float, provider_url: str, history_tokens: int | None = None) -> "Bound":
        """Return the most that one response to a request can cost, with its parts.

        Text is at most as many tokens as bytes. With hosted tools the model reads its input again after each call,
        and with it what the call brought: as much as its context holds, unless the tool's row says less.

        Args:
            body: The body of POST /responses.
            at: Now, epoch seconds.
            provider_url: The base URL it is sent to.
            history_tokens: Input and output tokens of the response that the body goes on from.

        Raises:
            RequestError: The request has no bound; the sentence says what to set.
            ConfigError: A price that the bound needs is not known; the sentence names the price table.
        """
        model, host, tier = str(body.get("model"))[:100], _host(provider_url), _tier(body.get("service_tier"))
        output = _count(body.get("max_output_tokens"))
        if not output:
            raise RequestError("Without options.max_output_tokens the cost has no bound: set it.")
        tokens = _input_tokens(body, history_tokens)
        standard = self._rates(model, tier, 0, at, host) or _unknown(f"what {model!r} costs in the {tier} tier")
        context = standard.context_tokens
        tokens, calls, reads, calls_usd = min(tokens, context or tokens), 0, "", 0.0
        if names := _hosted(body):
            calls = _count(body.get("max_tool_calls"))
            if not calls:
                unending = f"{', '.join(names)} may be called without end, so the cost has no bound"
                raise RequestError(f"{unending}: set options.max_tool_calls.")
            context = context or _unknown(f"how many tokens {model!r} reads at most (context_tokens)")
            tool = self._dearest(names, host, context)
            tokens = min(context, tokens + output + (calls + 1) * (tool.tokens or context))
            reads = f"{calls + 1} readings of {tokens:,} tokens each, for up to {calls} calls of {', '.join(names)}"
            tokens *= calls + 1
            calls_usd = calls * tool.call_usd
        rates = self._rates(model, tier, tokens, at, host) or standard
        if rates.cache_write is None:
            _unknown(f"what {model!r} takes for cache writes (cache_write)")
        read = max(rates.input, rates.cache_write, rates.cached or 0.0)
        input_usd, output_usd = tokens * read / MTOK, output * rates.output / MTOK
        parts = [f"input {input_usd:.2f} USD ({reads or f'up to {tokens:,} tokens'})"]
        parts.append(f"output {output_usd:.2f} USD (up to {output:,} tokens)")
        parts += [f"calls {calls_usd:.2f} USD"] if calls_usd else []
        return Bound(round(input_usd + output_usd + calls_usd, 8), output_usd, ", ".join(parts), context)

    def context_tokens(self, model: str, *, at: float, provider_url: str) -> int | None:
        """Return how many tokens a model reads at most; None where that is not known."""
        rates = self._rates(model, "default", 0, at, _host(provider_url))
        return rates.context_tokens if rates else None

    def _rates(self, model: str, tier: str, input_tokens: int, at: float, host: Host) -> Rates | None:
        if row := self.own.row(model):
            return row.at(tier, input_tokens)
        if host == "other" or (host == "azure" and tier != "default"):
            return None  # Azure has tiers of its own, at prices of its own
        if listed := _listed(model, tier, input_tokens, at):
            return listed
        row = self.built_in.row(model)
        return row.at(tier, input_tokens) if row else None

    def _dearest(self, names: Iterable[str], host: Host, context_tokens: int) -> Tool:
        """A tool as dear as any of these, which brings as much as any of them."""
        tools = [self._tool(name, host) or _unknown(f"what a call of {name} costs") for name in names]
        return Tool(
            call_usd=max(tool.call_usd for tool in tools),
            tokens=max(tool.tokens or context_tokens for tool in tools),
        )

    def _tool(self, name: str, host: Host) -> Tool | None:
        return self.own.tools.get(name) or (self.built_in.tools.get(name) if host == "openai" else None)


def calls_of(response: JSON) -> dict[str, int]:
    """How often a response called each tool that upstream runs, by the tool's name in the price tables.

    Of web searches only searches count, not the pages opened; where upstream counted them itself, that counts.
    """
    kinds = [str(item.get("type")).removesuffix("_call") for item in _mappings(response.get("output")) if _called(item)]
    calls = {name: kinds.count(name) for name in kinds if name not in _CLIENT_TOOLS}
    searches = calls.pop("web_search", 0)
    counted = _mapping(_mapping(response.get("tool_usage")).get("web_search")).get("num_requests")
    if searches := _count(counted) or (0 if counted == 0 else searches):
        # The preview tool's items have the same type, but its price depends on the model.
        preview = "web_search_preview" in map(_name_of, _mappings(response.get("tools")))
        calls["web_search_preview" if preview else "web_search"] = searches
    return calls


def day_start(now: float) -> float:
    """When the day of a budget began: midnight in UTC, epoch seconds."""
    return now - now % DAY_S


def parse(text: str) -> Table:
    """A price table from TOML.

    Raises:
        ConfigError: It is not one; the sentence names the line or the key.
    """
    import tomllib  # not needed to answer `initialize`

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{SETTING} is not a TOML file: {error}.") from error
    top = _keys("the file", document, "models", "tools")
    rows, calls = _keys("models", top.get("models", {})), _keys("tools", top.get("tools", {}))
    models = {name.lower(): _row(f'models."{name[:60]}"', row) for name, row in rows.items()}
    tools = {name: _priced_tool(f"tools.{name[:60]}", row) for name, row in calls.items()}
    return Table(models, tools)


def _row(where: str, value: object) -> Row:
    keys = _keys(where, value, "input", "cached", "cache_write", "output", "context_tokens", "long", "tiers")
    long = _keys(f"{where}.long", keys.get("long", {}), "over", "input", "output")
    tiers = _keys(f"{where}.tiers", keys.get("tiers", {}))
    return Row(
        rates=Rates(
            input=_needed(where, keys, "input"),
            output=_needed(where, keys, "output"),
            cached=_number(where, keys, "cached"),
            cache_write=_number(where, keys, "cache_write"),
            context_tokens=_tokens(where, keys, "context_tokens"),
        ),
        tiers={_tier(name): _needed(f"{where}.tiers", tiers, name) for name in tiers},
        long_over=_tokens(f"{where}.long", long, "over", needed=bool(long)),
        long_input=_needed(f"{where}.long", long, "input") if long else 1.0,
        long_output=_needed(f"{where}.long", long, "output") if long else 1.0,
    )


def _priced_tool(where: str, value: object) -> Tool:
    keys = _keys(where, value, "per_1000", "tokens")
    return Tool(call_usd=_needed(where, keys, "per_1000") / 1000, tokens=_tokens(where, keys, "tokens"))


def _keys(where: str, value: object, *allowed: str) -> dict[str, Any]:
    """What stands in a table of the file, if it is one and has no key but these."""
    if not isinstance(value, dict):
        raise ConfigError(f"{SETTING}: {where} has to be a table; docs/cost.md shows one.")
    keys = cast("dict[str, Any]", value)
    strange = next((name for name in keys if allowed and name not in allowed), None)
    if strange is not None:
        raise ConfigError(f"{SETTING}: {where} does not take {strange[:60]!r}, but {', '.join(allowed)}.")
    return keys


def _number(where: str, keys: Mapping[str, Any], name: str) -> float | None:
    value = keys.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= PRICE_MAX:
        raise ConfigError(f"{SETTING}: {where}.{name} takes a number from 0 to {PRICE_MAX}.")
    return float(value)


def _needed(where: str, keys: Mapping[str, Any], name: str) -> float:
    value = _number(where, keys, name)
    if value is None:
        raise ConfigError(f"{SETTING}: {where} lacks {name!r}, a number from 0 to {PRICE_MAX}.")
    return value


def _tokens(where: str, keys: Mapping[str, Any], name: str, *, needed: bool = False) -> int | None:
    value = keys.get(name)
    if needed and value is None:
        raise ConfigError(f"{SETTING}: {where} lacks {name!r}, a number of tokens.")
    if value is not None and not _count(value):
        raise ConfigError(f"{SETTING}: {where}.{name} takes a whole number of tokens above 0.")
    return value


def _read(path: Path) -> Table:
    try:
        text = read_text(path)
    except OSError as error:
        raise ConfigError(f"{SETTING} names a file that cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{SETTING} names a file that is not UTF-8 text.") from error
    return parse(text)


def _listed(model: str, tier: str, input_tokens: int, at: float) -> Rates | None:
    """The rates of OpenAI's price list in genai-prices."""
    found = _openai().find_model(model)
    if found is None:
        return None
    when = datetime.fromtimestamp(at, UTC)
    # The library prices a tier that it does not know as the standard one.
    if tier != "default" and not _has_tier(found, tier, when):
        return None
    prices = found.get_prices(when, {"service_tier": tier})

    def price(of: "Decimal | TieredPrices | None") -> float | None:
        if of is None or isinstance(of, Decimal):
            return None if of is None else float(of)
        reached = [step.price for step in of.tiers if input_tokens > step.start]
        return float(reached[-1] if reached else of.base)

    read, written = price(prices.input_mtok), price(prices.output_mtok)
    kinds = {name for name, value in vars(prices).items() if value is not None}
    if read is None or written is None or not kinds <= _TEXT_PRICES:
        return None
    cached, cache_write = price(prices.cache_read_mtok), price(prices.cache_write_mtok)
    return Rates(
        input=read,
        output=written,
        # In this list no price of its own means the price of all input.
        cached=read if cached is None else cached,
        cache_write=read if cache_write is None else cache_write,
        context_tokens=found.context_window,
    )


def _has_tier(model: "ModelInfo", tier: str, when: datetime) -> bool:
    return any(
        variant.when == {"service_tier": tier} and (variant.constraint is None or variant.constraint.active(when))
        for variant in model.price_variants or ()
    )


@cache
def _openai() -> "Provider":
    from genai_prices.data import providers  # 0.2 s and 11 MB, and only where a cost is asked for

    return next(provider for provider in providers if provider.id == "openai")


def _host(url: str) -> Host:
    host = urlsplit(url).hostname or ""
    if host == _OPENAI_HOST:
        return "openai"
    return "azure" if host.endswith(_AZURE_HOSTS) else "other"


def _tier(name: object) -> str:
    tier = name.lower() if isinstance(name, str) else ""
    return _TIERS.get(tier, tier)


def _unknown(what: str) -> NoReturn:
    raise ConfigError(f"The cost has no bound, for nobody knows {what}: add it to the price table of {SETTING}.")


def _input_tokens(body: JSON, history_tokens: int | None) -> int:
    """At most so many tokens are in a body and what it goes on from."""
    for name in ("conversation", "prompt"):
        if body.get(name):
            raise RequestError(f"What {name} adds to the input is not known, so the cost has no bound: leave it out.")
    if body.get("previous_response_id") and history_tokens is None:
        raise RequestError("The tokens of the previous job are not known, so the cost has no bound: start without it.")
    if not _is_text(body.get("input")):
        raise RequestError("Files and images have no known number of tokens, so the cost has no bound: send text.")
    sent = {name: body.get(name) for name in ("instructions", "input", "tools", "tool_choice", "text")}
    return len(json.dumps(sent, ensure_ascii=False).encode("utf-8", "replace")) + (history_tokens or 0)


def _is_text(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_text(part) for part in cast("list[object]", value))
    if isinstance(value, dict):
        part = cast("dict[str, object]", value)
        return part.get("type", "message") in _TEXT_TYPES and all(_is_text(inner) for inner in part.values())
    return True


def _hosted(body: JSON) -> list[str]:
    names = {_name_of(tool) for tool in _mappings(body.get("tools"))}
    return sorted(names - _CLIENT_TOOLS)


def _called(item: JSON) -> bool:
    opened = _mapping(item.get("action")).get("type") in ("open_page", "find_in_page")
    return str(item.get("type")).endswith("_call") and not opened


def _name_of(tool: JSON) -> str:
    """A tool's name in the price tables: its type without the date of its version."""
    return re.sub(r"_20\d\d_\d\d_\d\d$", "", str(tool.get("type")))


def _mapping(value: object) -> JSON:
    return cast(JSON, value) if isinstance(value, dict) else {}


def _mappings(value: object) -> Iterable[JSON]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast(JSON, item) for item in items if isinstance(item, dict)]


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
