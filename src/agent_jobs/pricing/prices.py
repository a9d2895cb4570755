"""Price a response that ran, and bound a request that may run, in USD. An unknown cost is None, never a guess.

The user's table goes first and alone for the models in it; then, on OpenAI's and Azure's hosts, the price list in
genai-prices (its bundled data, never the network), then data/prices.toml.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, NoReturn, Self, cast
from urllib.parse import urlsplit

from agent_jobs.errors import ConfigError, RequestError
from agent_jobs.jobs.response import JSON, Usage, drop_fields, items_of, mapping_of, read_whole_number, string_of
from agent_jobs.pricing.openai_list import find_listed_rates
from agent_jobs.pricing.price_file import (
    TOKENS_PER_PRICE,
    Rates,
    Table,
    Tool,
    normalize_tier,
    parse_table,
    read_table,
)
from agent_jobs.text import encode_text
from agent_jobs.web_address import AZURE_HOST_ENDINGS

DAY_S = 86_400
MODEL_CHARS = 100  # enough to recognise a model in an error

#: Limits that a request without limits gets under a budget: the first that fits is taken, else the last.
DEFAULT_OUTPUT_TOKENS = (64_000, 32_000, 16_000, 8_000, 4_000)
DEFAULT_CALLS = (12, 10, 8, 6, 5, 4, 3, 2, 1)
OUTPUT_SHARE = 0.1  # of the day's budget, for the output of such a request: ten of them fit a day
OUTPUT_OF_CONTEXT = 0.125  # of its context, as output: every model accepts that much, and some no more

#: Other hosts may serve the same name for another price; a region of OpenAI (eu.api.openai.com) adds to it.
_OPENAI_HOST = "api.openai.com"
#: Tools whose calls the client answers, so that they cost only tokens.
_CLIENT_TOOLS = frozenset({"function", "custom", "custom_tool", "local_shell", "apply_patch", "computer"})
#: Input whose tokens are at most its bytes; files, images and references are not.
_TEXT_TYPES = frozenset(
    {"message", "reasoning", "input_text", "output_text", "summary_text", "refusal", "function_call",
     "function_call_output", "custom_tool_call", "custom_tool_call_output", "mcp_approval_response"}
)  # fmt: skip

Host = Literal["openai", "azure", "other"]


class Bound(NamedTuple):
    """The most that a response can cost."""

    usd: float
    output_usd: float
    parts: str  #: the sum, for people
    context_tokens: int | None  #: how much the model reads at most; None if unknown


class _Offer(NamedTuple):
    """A model of a host, in a tier, at a time."""

    model: str
    tier: str
    host: Host
    at: float


class _MostRead(NamedTuple):
    """The most that the model reads, over all its readings, and the calls between them."""

    tokens: int
    described: str
    calls_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Prices:
    """All known prices: first the user's table, then the library, then the built-in table."""

    own: Table
    built_in: Table

    @classmethod
    def load(cls, path: Path | None) -> Self:
        """Read our table and the user's, if there is one.

        Raises:
            ConfigError: The user's table cannot be read or used. The sentence names the line or the key.
        """
        built_in = resources.files("agent_jobs").joinpath("data", "prices.toml").read_text("utf-8")
        own = Table() if path is None else read_table(path)
        return cls(own, parse_table(built_in))

    def cost_of(self, response: JSON, *, at: float, provider_url: str) -> float | None:
        """Return the cost of a finished response; None if its usage or a price in it is not fully known.

        Args:
            response: The response object as upstream gave it.
            at: When it was created, epoch seconds; prices change.
            provider_url: The base URL it was sent to.
        """
        usage, model = Usage.of(response.get("usage")), string_of(response.get("model"))
        written = _cache_write_tokens(response)
        if usage is None or usage.partial or written is None:
            return None
        if response.get("status") == "completed" and not usage.input_tokens:
            return None  # every completed response had input, so this 0 is a missing count
        return self.cost_usd(
            model,
            usage,
            at=at,
            provider_url=provider_url,
            service_tier=string_of(response.get("service_tier")),
            calls=count_calls(response),
            cache_write_tokens=written,
        )

    def cost_usd(
        self,
        model: str,
        usage: Usage,
        *,
        at: float,
        provider_url: str,
        service_tier: str = "",
        calls: Mapping[str, int] = MappingProxyType({}),
        cache_write_tokens: int = 0,
    ) -> float | None:
        """Return the cost of tokens and calls of hosted tools; None if a price is unknown.

        Args:
            model: As upstream named it, dated or not.
            usage: Tokens; the cached ones are a part of the input.
            at: When the response was created, epoch seconds.
            provider_url: The base URL it was sent to.
            service_tier: The one that upstream says it used.
            calls: Of hosted tools, by their names, see `count_calls`.
            cache_write_tokens: A part of the input, like the cached ones.
        """
        offer = _Offer(model, normalize_tier(service_tier), _host_kind(provider_url), at)
        rates = self._find_rates(offer, usage.input_tokens)
        if rates is None:
            return None
        usd = rates.cost_usd(usage, cache_write_tokens)
        if usd is None:
            return None
        for name, count in calls.items():
            tool = self._find_tool_price(name, offer.host)
            if tool is None:
                return None
            usd += count * tool.call_usd
        return round(usd, 8)

    def bound_usd(self, body: JSON, *, at: float, provider_url: str, history_tokens: int | None = None) -> float:
        """Return the most that one response to a request can cost; see `bound`."""
        return self.bound(body, at=at, provider_url=provider_url, history_tokens=history_tokens).usd

    def cap_request(self, body: JSON, budget_usd: float, bound: Callable[[JSON], "Bound"]) -> JSON:
        """Return a request with the limits that it lacks for a bound, as high as a day's budget allows.

        Args:
            body: The body of POST /responses; limits in it stay.
            budget_usd: The budget of a whole day, so that the same request gets the same limits all day long.
            bound: Returns the bound of a body.
        """
        lacks_calls = bool(_names_of_hosted_tools(body)) and not body.get("max_tool_calls")
        if not body.get("max_output_tokens"):
            fewest_calls = {"max_tool_calls": DEFAULT_CALLS[-1]} if lacks_calls else {}
            body = _cap_output(body, budget_usd * OUTPUT_SHARE, lambda capped: bound({**capped, **fewest_calls}))
        if lacks_calls:
            body = _cap_calls(body, budget_usd, bound)
        return body

    def bound(self, body: JSON, *, at: float, provider_url: str, history_tokens: int | None = None) -> "Bound":
        """Return the most that one response to a request can cost, with its parts.

        Text is at most as many tokens as bytes. With hosted tools the model reads its input again after each call,
        and the result of the call with it: as much as its context holds, unless the tool's row says less.

        Args:
            body: The body of POST /responses.
            at: Now, epoch seconds.
            provider_url: The base URL it is sent to.
            history_tokens: Input and output tokens of the response that the body continues.

        Raises:
            RequestError: The request has no bound. The sentence says what to set.
            ConfigError: A price that the bound needs is unknown. The sentence names the price table.
        """
        model = str(body.get("model"))[:MODEL_CHARS]
        offer = _Offer(model, normalize_tier(body.get("service_tier")), _host_kind(provider_url), at)
        output = _read_usage_count(body.get("max_output_tokens"))
        if not output:
            raise RequestError("Without a limit on its output, the cost has no bound.", "unbounded_output")
        tokens = _most_input_tokens(body, history_tokens)
        standard = self._find_rates(offer, 0) or _refuse_unknown_fact(f"what {model!r} costs in the {offer.tier} tier")
        context = standard.context_tokens
        tokens = min(tokens, context or tokens)
        reading = _MostRead(tokens, f"up to {tokens:,} tokens")
        if _names_of_hosted_tools(body):
            context = context or _refuse_unknown_fact(f"how many tokens {model!r} reads at most (context_tokens)")
            reading = self._bound_reading(body, offer.host, context, tokens + output)
        rates = self._find_rates(offer, reading.tokens) or standard
        input_usd = reading.tokens * _highest_input_price(rates, model) / TOKENS_PER_PRICE
        output_usd = output * rates.output / TOKENS_PER_PRICE
        parts = [
            f"input {input_usd:.2f} USD ({reading.described})",
            f"output {output_usd:.2f} USD (up to {output:,} tokens)",
        ]
        if reading.calls_usd:
            parts.append(f"calls {reading.calls_usd:.2f} USD")
        usd = round(input_usd + output_usd + reading.calls_usd, 8)
        return Bound(usd, output_usd, ", ".join(parts), context)

    def context_tokens(self, model: str, *, at: float, provider_url: str) -> int | None:
        """Return how many tokens a model reads at most; None if unknown."""
        rates = self.rates_of(model, at=at, provider_url=provider_url)
        if rates:
            return rates.context_tokens
        return None

    def rates_of(self, model: str, *, at: float, provider_url: str) -> Rates | None:
        """Return the standard rates of a model for a short input; None if unknown."""
        return self._find_rates(_Offer(model, "default", _host_kind(provider_url), at), 0)

    def _bound_reading(self, body: JSON, host: Host, context_tokens: int, tokens: int) -> _MostRead:
        """Return the most that is read with hosted tools.

        Args:
            body: The body of POST /responses.
            host: Where the tools run.
            context_tokens: How much the model reads at most at once.
            tokens: How much it reads and writes without calls.
        """
        names = _names_of_hosted_tools(body)
        calls = _read_usage_count(body.get("max_tool_calls"))
        if not calls:
            raise RequestError(
                "{tools} may be called any number of times, so the cost has no bound.",
                "unbounded_calls",
                tools=", ".join(names),
            )
        call_usd, call_tokens = self._bound_calls(names, host, context_tokens)
        readings = calls + 1
        each = min(context_tokens, tokens + readings * call_tokens)
        described = f"{readings} readings of {each:,} tokens each, for up to {calls} calls of {', '.join(names)}"
        return _MostRead(each * readings, described, calls * call_usd)

    def _find_rates(self, offer: _Offer, input_tokens: int) -> Rates | None:
        """Return the rates for a number of input tokens: the user's, else the list's, else ours."""
        if row := self.own.find_row(offer.model):
            return row.rates_at(offer.tier, input_tokens)
        if offer.host == "other" or (offer.host == "azure" and offer.tier != "default"):
            return None  # Azure has tiers of its own, at prices of its own
        if listed := find_listed_rates(offer.model, offer.tier, input_tokens, offer.at):
            return listed
        if row := self.built_in.find_row(offer.model):
            return row.rates_at(offer.tier, input_tokens)
        return None

    def _bound_calls(self, names: Iterable[str], host: Host, context_tokens: int) -> tuple[float, int]:
        """Return the highest price of a call and the highest token count among these tools."""
        tools = [
            self._find_tool_price(name, host) or _refuse_unknown_fact(f"what a call of {name} costs") for name in names
        ]
        return max(tool.call_usd for tool in tools), max(tool.tokens or context_tokens for tool in tools)

    def _find_tool_price(self, name: str, host: Host) -> Tool | None:
        own = self.own.tools.get(name)
        if own is None and host == "openai":
            return self.built_in.tools.get(name)
        return own


def count_calls(response: JSON) -> dict[str, int]:
    """Return how often a response called each tool that upstream runs, by the tool's name in the price tables.

    Of web searches only searches count, not the pages opened; upstream's own count of them goes first.
    """
    items = items_of(response.get("output"))
    kinds = [str(item.get("type")).removesuffix("_call") for item in items if _is_priced_call(item)]
    calls: dict[str, int] = drop_fields(Counter(kinds), *_CLIENT_TOOLS)
    searches = _count_searches(response, calls.pop("web_search", 0))
    if searches:
        # The preview tool's items have the same type, but its price depends on the model.
        is_preview = "web_search_preview" in map(_tool_name, items_of(response.get("tools")))
        name = "web_search"
        if is_preview:
            name = "web_search_preview"
        calls[name] = searches
    return calls


def is_openai(url: str) -> bool:
    """Return True if this is OpenAI's own address, whose models and prices are known."""
    return _host_kind(url) == "openai"


def find_day_start(now: float) -> float:
    """Return when the day of a budget began: midnight in UTC, epoch seconds."""
    return now - now % DAY_S


def _cap_output(body: JSON, share_usd: float, bound: Callable[[JSON], Bound]) -> JSON:
    """Return a body with the highest default limit of output whose cost is at most a share of the budget."""
    for tokens in DEFAULT_OUTPUT_TOKENS:
        body = {**body, "max_output_tokens": tokens}
        most = bound(body)
        context = most.context_tokens or tokens
        if most.output_usd <= share_usd and tokens <= context * OUTPUT_OF_CONTEXT:
            break
    return body


def _cap_calls(body: JSON, budget_usd: float, bound: Callable[[JSON], Bound]) -> JSON:
    """Return a body with the highest default limit of calls that fits the budget."""
    for count in DEFAULT_CALLS:
        body = {**body, "max_tool_calls": count}
        if bound(body).usd <= budget_usd:
            break
    return body


def _highest_input_price(rates: Rates, model: str) -> float:
    if rates.cache_write is None:
        _refuse_unknown_fact(f"what cache writes of {model!r} cost (cache_write)")
    return max(rates.input, rates.cache_write, rates.cached or 0.0)


def _refuse_unknown_fact(fact: str) -> NoReturn:
    raise ConfigError("The cost has no bound, since agent-jobs does not know {fact}.", "unknown_price", fact=fact)


def _cache_write_tokens(response: JSON) -> int | None:
    """Return how many tokens were written to the cache; None if that, or their price, is unknown."""
    usage = mapping_of(response.get("usage"))
    details = {
        **mapping_of(usage.get("prompt_tokens_details")),
        **mapping_of(usage.get("input_tokens_details")),
    }
    if mapping_of(details.get("cache_write_tokens_details")).get("ttl_12h_tokens"):
        return None  # more expensive than the writes that the price lists know
    # Writes cost more than other input, so a count that cannot be read is unknown, and not 0.
    return read_whole_number(details.get("cache_write_tokens") or 0)


def _most_input_tokens(body: JSON, history_tokens: int | None) -> int:
    """Return the most tokens that a body and the response that it continues can hold."""
    unknown = next(filter(body.get, ("conversation", "prompt")), None)
    if unknown is not None:
        raise RequestError(
            "What {part} adds to the input is not known, so the cost has no bound.", "unbounded_input", part=unknown
        )
    if body.get("previous_response_id") and history_tokens is None:
        raise RequestError(
            "The number of tokens of the previous job is not known, so the cost has no bound.", "unbounded_history"
        )
    if not _is_text(body.get("input")):
        raise RequestError(
            "Files and images have no known number of tokens, so the cost has no bound.", "unbounded_files"
        )
    sent = {name: body.get(name) for name in ("instructions", "input", "tools", "tool_choice", "text")}
    return len(encode_text(json.dumps(sent, ensure_ascii=False))) + (history_tokens or 0)


def _is_text(value: object) -> bool:
    """Return True if every part of an input has at most as many tokens as bytes."""
    match value:
        case list():
            return all(map(_is_text, cast("list[object]", value)))
        case dict():
            part = cast("dict[str, object]", value)
            return part.get("type", "message") in _TEXT_TYPES and all(map(_is_text, part.values()))
        case _:
            return True


def _host_kind(url: str) -> Host:
    host = urlsplit(url).hostname or ""
    if host == _OPENAI_HOST:
        return "openai"
    if host.endswith(AZURE_HOST_ENDINGS):
        return "azure"
    return "other"


def _names_of_hosted_tools(body: JSON) -> list[str]:
    """Return the names of the tools that upstream runs."""
    names = set(map(_tool_name, items_of(body.get("tools"))))
    return sorted(names - _CLIENT_TOOLS)


def _is_priced_call(item: JSON) -> bool:
    opened = mapping_of(item.get("action")).get("type") in ("open_page", "find_in_page")
    return str(item.get("type")).endswith("_call") and not opened


def _count_searches(response: JSON, seen: int) -> int:
    """Return how often a response searched: by upstream's own count, else by the items seen."""
    usage = mapping_of(mapping_of(response.get("tool_usage")).get("web_search"))
    counted = usage.get("num_requests")
    if counted == 0:
        return 0
    return _read_usage_count(counted) or seen


def _tool_name(tool: JSON) -> str:
    """Return a tool's name in the price tables: its type without the date of its version."""
    return re.sub(r"_20\d\d_\d\d_\d\d$", "", str(tool.get("type")))


def _read_usage_count(value: object) -> int:
    """Return a positive whole number; 0 for anything else."""
    return read_whole_number(value) or 0
