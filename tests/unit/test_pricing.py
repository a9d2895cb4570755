"""The cost of a response and the bound of a request, compared with figures computed by hand from the price list."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_jobs.errors import ConfigError, RequestError
from agent_jobs.jobs.response import Usage
from agent_jobs.mcp_server.wording import MODEL
from agent_jobs.pricing.prices import Prices, count_calls, find_day_start

AT = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
OPENAI = "https://api.openai.com/v1"
AZURE = "https://resource.openai.azure.com/openai/v1"
ELSEWHERE = "http://127.0.0.1:8787/v1"
LISTED = Prices.load(None)
DOCS = (Path(__file__).parents[2] / "docs" / "cost.md").read_text()


def usage_of(input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> Usage:
    return Usage(input_tokens=input_tokens, cached_tokens=cached_tokens, output_tokens=output_tokens)


def cost(model: str, usage: Usage, *, prices: Prices = LISTED, url: str = OPENAI, **more: Any) -> float | None:
    return prices.cost_usd(model, usage, at=AT, provider_url=url, **more)


def bound(body: dict[str, Any], *, prices: Prices = LISTED, url: str = OPENAI, **more: Any) -> float:
    return prices.bound_usd(body, at=AT, provider_url=url, **more)


def load_own(tmp_path: Path, text: str) -> Prices:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    return Prices.load(path)


@pytest.mark.parametrize(
    ("model", "cached", "usd"),
    [
        ("gpt-6-astra", 50_000, 0.5 + 0.05 + 1.0),
        ("gpt-6.1-sol", 50_000, 0.1 + 0.005 + 0.2),
        ("gpt-6.1-terra", 50_000, 0.05 + 0.0025 + 0.1),
        ("gpt-6-sol", 50_000, 0.1 + 0.01 + 0.2),
        ("gpt-6-luna", 50_000, 0.005 + 0.0005 + 0.01),
        ("gpt-5.6-sol", 50_000, 0.2 + 0.02 + 0.4),
        ("gpt-5.6", 50_000, 0.2 + 0.02 + 0.4),
        ("gpt-5.6-terra", 50_000, 0.1 + 0.01 + 0.24),
        ("gpt-5.6-luna", 50_000, 0.01 + 0.001 + 0.024),
        ("gpt-5.5-pro", 50_000, 3.0 + 3.6),  # cached input has no lower price
        ("o3-deep-research", 0, 1.0 + 0.8),
        ("o4-mini-deep-research", 0, 0.2 + 0.16),
        ("gpt-6.2-astra", 0, 0.8 + 0.8),
        ("gpt-6.2-sol", 0, 0.2 + 0.2),
    ],
)
def test_hundred_thousand_tokens_in_and_twenty_out_cost_what_the_list_says(model: str, cached: int, usd: float):
    assert cost(model, usage_of(100_000, 20_000, cached)) == pytest.approx(usd)


def test_cache_writes_have_their_own_price():
    assert cost("gpt-6-astra", usage_of(100_000, 10_000, 40_000), cache_write_tokens=20_000) == pytest.approx(
        0.4 + 0.04 + 0.25 + 0.5
    )


def test_beyond_272_000_input_tokens_all_of_it_costs_more():
    assert cost("gpt-6.1-sol", usage_of(272_000, 0)) == pytest.approx(0.544)
    assert cost("gpt-6.1-sol", usage_of(272_001, 0)) == pytest.approx(1.088004)
    assert cost("gpt-6.1-sol", usage_of(300_000, 10_000, 100_000)) == pytest.approx(0.8 + 0.02 + 0.15)
    assert cost("gpt-6.2-sol", usage_of(300_000, 10_000)) == pytest.approx(1.2 + 0.15)


@pytest.mark.parametrize(
    ("tier", "listed", "newest"),
    [
        (None, 0.4, 0.4), ("default", 0.4, 0.4), ("auto", 0.4, 0.4), ("flex", 0.2, 0.2), ("priority", 0.8, 0.8),
        ("fast", 0.8, 0.8), ("ultrafast", 2.4, None), ("scale", None, None), ("batch", None, None),
    ],
)  # fmt: skip
def test_tier_multiplies_the_price_where_its_factor_is_known(
    tier: str | None, listed: float | None, newest: float | None
):
    for model, usd in (("gpt-6.1-sol", listed), ("gpt-6.2-sol", newest)):
        assert cost(model, usage_of(100_000, 20_000), service_tier=tier) == (usd if usd is None else pytest.approx(usd))


def test_tier_that_a_model_is_not_offered_in_has_no_price_rather_than_the_standard_one():
    assert cost("gpt-4.1", usage_of(1000, 0)) is not None
    assert cost("gpt-4.1", usage_of(1000, 0), service_tier="flex") is None


@pytest.mark.parametrize("model", ["gpt-6.1-sol-2026-10-01", "GPT-6.1-Sol", "gpt-6.1-sol-20261001"])
def test_snapshot_costs_what_its_model_costs(model: str):
    assert cost(model, usage_of(100_000, 20_000)) == pytest.approx(0.4)
    assert cost(model.replace("6.1", "6.2"), usage_of(100_000, 20_000)) == pytest.approx(0.4)


@pytest.mark.parametrize(
    "model",
    [
        "gpt-6.2-sol-mini",
        "gpt-6.2",
        "gpt-6.1-sol-mini",
        "gpt-6.2-sol-2026",
        "my-gpt-6.1-sol",
        "gpt-7",
        "gpt-image-1",
        "",
    ],
)
def test_name_that_is_not_known_has_no_price(model: str):
    assert cost(model, usage_of(1000, 1000)) is None


def test_tokens_without_a_known_price_make_the_cost_unknown():
    assert cost("gpt-6.2-sol", usage_of(1000, 1000, 1)) is None
    assert cost("gpt-6.2-sol", usage_of(1000, 1000), cache_write_tokens=1) is None


def test_calls_are_added_where_their_price_is_known():
    usage = usage_of(100_000, 20_000)
    assert cost("gpt-6.1-sol", usage, calls={"web_search": 7, "file_search": 2, "mcp": 5}) == pytest.approx(0.475)
    assert cost("gpt-6.1-sol", usage, calls={"web_search": 7, "code_interpreter": 1}) is None


@pytest.mark.parametrize(
    ("url", "usd"),
    [
        (OPENAI, 0.4), ("https://API.OpenAI.com", 0.4), (AZURE, 0.4), ("https://r.services.ai.azure.com/v1", 0.4),
        (ELSEWHERE, None), ("https://eu.api.openai.com/v1", None), ("https://api.openai.com.example/v1", None),
        ("https://gateway.example/api.openai.com/v1", None), ("https://openrouter.ai/api/v1", None), ("", None),
    ],
)  # fmt: skip
def test_list_counts_only_where_it_is_charged(url: str, usd: float | None):
    assert cost("gpt-6.1-sol", usage_of(100_000, 20_000), url=url) == (usd if usd is None else pytest.approx(usd))


def test_tiers_and_tools_of_azure_are_not_openais():
    assert cost("gpt-6.1-sol", usage_of(1000, 0), url=AZURE, service_tier="priority") is None
    assert cost("gpt-6.1-sol", usage_of(1000, 0), url=AZURE, calls={"web_search": 1}) is None


def test_users_price_table_applies_everywhere_and_alone_for_its_models(tmp_path: Path):
    prices = load_own(tmp_path, '[models."GPT-6.1-sol"]\ninput = 1\noutput = 2\n[tools.web_search]\nper_1000 = 1000\n')
    for url in (OPENAI, AZURE, ELSEWHERE):
        usd = cost("gpt-6.1-sol-2026-10-01", usage_of(100_000, 20_000), prices=prices, url=url, calls={"web_search": 3})
        assert usd == pytest.approx(0.1 + 0.04 + 3.0)
    assert cost("gpt-6.1-sol", usage_of(1000, 0), prices=prices, service_tier="flex") is None
    assert cost("gpt-6.1-sol", usage_of(1000, 0, 1), prices=prices) is None
    assert cost("gpt-6-sol", usage_of(100_000, 20_000), prices=prices) == pytest.approx(0.4)


def response(**more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 100_000,
        "input_tokens_details": {"cached_tokens": 40_000, "cache_write_tokens": 20_000},
        "output_tokens": 10_000,
    }
    return {"model": "gpt-6-astra", "status": "completed", "service_tier": "default", "usage": usage, **more}


def cost_of(answered: dict[str, Any]) -> float | None:
    return LISTED.cost_of(answered, at=AT, provider_url=OPENAI)


def test_response_costs_its_tokens_and_calls():
    searched = [{"type": "web_search_call", "action": {"type": "search"}}] * 3
    assert cost_of(response()) == pytest.approx(1.19)
    assert cost_of(response(output=searched)) == pytest.approx(1.22)
    assert cost_of(response(service_tier="flex")) == pytest.approx(0.595)
    assert cost_of(response(service_tier=None, output=None, tools=None)) == pytest.approx(1.19)


@pytest.mark.parametrize(
    "lacking",
    [
        {"usage": None}, {"usage": {}}, {"usage": "many"}, {"model": None}, {"model": "gpt-9"},
        {"output": [{"type": "code_interpreter_call"}]}, {"output": [{"type": "image_generation_call"}]},
        {"output": [{"type": "some_new_call"}]},
        {"usage": {"input_tokens": 9, "input_tokens_details": {"cache_write_tokens_details": {"ttl_12h_tokens": 1}}}},
    ],
)  # fmt: skip
def test_response_with_an_unpriced_part_has_no_price(lacking: dict[str, Any]):
    assert cost_of(response(**lacking)) is None


def test_calls_that_upstream_answers_itself_are_counted_by_tool():
    output: list[Any] = [
        {"type": "reasoning"},
        {"type": "web_search_call", "action": {"type": "search", "query": "a"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "web_search_call", "action": {"type": "find_in_page"}},
        {"type": "web_search_call"},
        {"type": "file_search_call"},
        {"type": "function_call"},
        {"type": "custom_tool_call"},
        {"type": "apply_patch_call"},
        {"type": "mcp_call"},
        {"type": "shell_call_output"},
        {"type": "message"},
        None,
        {},
    ]
    assert count_calls({"output": output}) == {"web_search": 2, "file_search": 1, "mcp": 1}
    counted = {"output": output, "tool_usage": {"web_search": {"num_requests": 5}}}
    assert count_calls(counted)["web_search"] == 5
    assert (
        count_calls({"output": output, "tools": [{"type": "web_search_preview_2025_03_11"}]})["web_search_preview"] == 2
    )
    assert count_calls({"output": output, "tools": [{"type": "web_search_2025_08_26"}]})["web_search"] == 2
    assert count_calls({}) == count_calls({"output": "?", "tool_usage": None, "tools": 1}) == {}


ASKED: dict[str, Any] = {"model": "gpt-6.1-sol", "input": "x" * 1000, "max_output_tokens": 1000}
SEARCHING: dict[str, Any] = {**ASKED, "tools": [{"type": "web_search"}], "max_tool_calls": 3}


def test_bound_counts_each_byte_as_a_token_that_is_written_to_the_cache():
    assert 0.0025 + 0.01 <= bound(ASKED) <= 0.0025 + 0.01 + 0.0005
    assert bound({**ASKED, "service_tier": "fast"}) == pytest.approx(2 * bound(ASKED))
    assert bound({**ASKED, "input": "日" * 1000}) == pytest.approx(bound(ASKED) + 2000 * 2.5e-6)
    longer = bound({**ASKED, "previous_response_id": "resp_1"}, history_tokens=100_000)
    assert longer == pytest.approx(bound(ASKED) + 0.25)


def test_bound_never_counts_more_input_than_the_model_reads():
    assert bound({**ASKED, "input": "x" * 3_000_000}) == pytest.approx(1.05 * 5 + 0.015)


def test_hosted_tools_may_read_the_full_context_after_each_call():
    assert bound(SEARCHING) == pytest.approx(4 * 1.05 * 5 + 0.015 + 0.03)
    dated = {**SEARCHING, "tools": [{"type": "web_search_2025_08_26"}, {"type": "mcp"}]}
    assert bound(dated) == bound(SEARCHING)


def test_client_tools_call_nothing_by_themselves():
    with_tools = {**ASKED, "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}]}
    assert bound(ASKED) < bound(with_tools) < bound(ASKED) + 0.001


@given(
    text=st.text(max_size=300),
    most=st.integers(16, 100_000),
    tier=st.sampled_from([None, "flex", "priority"]),
    shares=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_no_response_to_a_text_costs_more_than_its_bound(
    text: str, most: int, tier: str | None, shares: tuple[float, ...]
):
    body = {"model": "gpt-6.1-sol", "input": text, "max_output_tokens": most, "service_tier": tier}
    read = round(len(text.encode()) * shares[0])
    cached = round(read * shares[1])
    written = round((read - cached) * shares[2])
    usd = cost(
        "gpt-6.1-sol", usage_of(read, round(most * shares[3]), cached), cache_write_tokens=written, service_tier=tier
    )
    assert usd is not None
    assert usd <= bound(body) + 1e-8


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({**ASKED, "max_output_tokens": None}, "Set options.max_output_tokens"),
        ({**SEARCHING, "max_tool_calls": None}, "the cost has no bound. Set options.max_tool_calls"),
        ({**ASKED, "previous_response_id": "resp_1"}, "previous job"),
        ({**ASKED, "conversation": "conv_1"}, "conversation"),
        ({**ASKED, "input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "Send text"),
        ({**ASKED, "input": [{"type": "item_reference", "id": "msg_1"}]}, "Send text"),
    ],
)
def test_request_without_a_bound_is_refused_with_the_option_to_set(body: dict[str, Any], hint: str):
    with pytest.raises(RequestError) as refusal:
        bound(body)
    assert hint in MODEL.describe(refusal.value)


@pytest.mark.parametrize(
    ("body", "url", "hint"),
    [
        ({**ASKED, "model": "gpt-9"}, OPENAI, "'gpt-9' costs in the default tier"),
        ({**ASKED, "service_tier": "scale"}, OPENAI, "scale tier"),
        (ASKED, ELSEWHERE, "'gpt-6.1-sol' costs"),
        ({**ASKED, "model": "gpt-6.2-sol"}, OPENAI, "cache_write"),
        ({**SEARCHING, "tools": [{"type": "code_interpreter"}]}, OPENAI, "a call of code_interpreter costs"),
        (SEARCHING, AZURE, "a call of web_search costs"),
    ],
)
def test_bound_that_lacks_a_price_names_the_price_table(body: dict[str, Any], url: str, hint: str):
    with pytest.raises(ConfigError, match=re.escape(hint)) as refusal:
        bound(body, url=url)
    assert "AGENT_JOBS_PRICES" in MODEL.describe(refusal.value)


def test_text_in_parts_has_a_bound_like_text():
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "x" * 1000}]}]
    assert bound(ASKED) < bound({**ASKED, "input": parts}) < bound(ASKED) + 0.001


def test_example_of_the_docs_works(tmp_path: Path):
    example = re.search(r"```toml\n(.*?)```", DOCS, re.S)
    assert example
    prices = load_own(tmp_path, example[1])
    usage = usage_of(100_000, 10_000, 40_000)
    assert cost("my-model", usage, prices=prices, url=ELSEWHERE, cache_write_tokens=20_000) == pytest.approx(
        0.02 + 0.002 + 0.0125 + 0.04
    )
    assert cost("my-model", usage_of(300_000, 10_000), prices=prices, service_tier="flex") == pytest.approx(0.15 + 0.03)
    assert cost("my-model", usage_of(0, 0), prices=prices, calls={"code_interpreter": 2}) == pytest.approx(0.06)
    # Four passes at the long price. Each has at most the input, the output and four times 20,000 tokens.
    searching = bound({**SEARCHING, "model": "my-model"}, prices=prices, url=ELSEWHERE)
    assert 4 * 0.082 * 1.25 + 0.006 + 0.03 <= searching <= 4 * 0.0823 * 1.25 + 0.006 + 0.03


ROW = '[models."m"]\ninput = 1\noutput = 2\n'


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[models.m\n", "line 1"),
        ("\ninput = $1\n", "line 2"),
        ("[prices]\n", "the file does not accept 'prices', but models, tools"),
        ("models = 1\n", "models has to be a table"),
        ("models.m = 1\n", 'models."m" has to be a table'),
        ("[models.m]\noutput = 2\n", "models.\"m\" lacks 'input'"),
        ("[models.gpt-6.1-sol]\ninput = 1\n", "models.\"gpt-6\" does not accept '1-sol'"),
        (ROW + "cache = 1\n", "does not accept 'cache'"),
        *((f"[models.m]\ninput = {price}\noutput = 2\n", 'models."m".input accepts a number') for price in (
            "-1", "nan", "inf", "true", '"1"', "[1]", "1" + "0" * 400,
        )),
        (ROW + "context_tokens = 1.5\n", "context_tokens accepts a whole number"),
        (ROW + "context_tokens = 0\n", "context_tokens accepts a whole number"),
        (ROW + "long = 2\n", 'models."m".long has to be a table'),
        (ROW + "long = { over = 9, input = 2 }\n", "models.\"m\".long lacks 'output'"),
        (ROW + "long = { input = 2, output = 2 }\n", "models.\"m\".long lacks 'over'"),
        (ROW + 'tiers = { flex = "half" }\n', "tiers.flex accepts a number"),
        ("[tools.web_search]\n", "tools.web_search lacks 'per_1000'"),
        ("[tools.web_search]\nusd = 1\n", "does not accept 'usd'"),
        ("[tools]\nweb_search = 10\n", "tools.web_search has to be a table"),
        ("a = " + "[" * 5000, "is not a TOML file"),
    ],
)  # fmt: skip
def test_table_that_cannot_be_used_is_refused_by_its_line_or_key(tmp_path: Path, text: str, hint: str):
    with pytest.raises(ConfigError, match=re.escape(hint)) as refusal:
        load_own(tmp_path, text)
    assert "AGENT_JOBS_PRICES" in MODEL.describe(refusal.value)


def test_table_that_cannot_be_read_is_refused(tmp_path: Path):
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    for path, hint in ((tmp_path / "none.toml", "No such file"), (tmp_path, "AGENT_JOBS_PRICES"),
                       (tmp_path / "latin.toml", "UTF-8")):  # fmt: skip
        with pytest.raises(ConfigError, match=hint):
            Prices.load(path)


def test_empty_table_changes_nothing(tmp_path: Path):
    assert load_own(tmp_path, "") == LISTED


def test_day_begins_at_midnight_utc():
    noon = datetime(2026, 11, 20, 12, 30, tzinfo=UTC).timestamp()
    assert find_day_start(noon) == AT == find_day_start(AT)


def test_library_is_imported_only_when_its_list_is_requested():
    program = (
        "import sys; from agent_jobs.pricing.prices import Prices; from agent_jobs.jobs.response import Usage\n"
        "prices = Prices.load(None)\n"
        "prices.cost_usd('m', Usage(), at=0.0, provider_url='http://127.0.0.1/v1')\n"
        "assert 'genai_prices' not in sys.modules\n"
        "prices.cost_usd('gpt-6.1-sol', Usage(), at=0.0, provider_url='https://api.openai.com/v1')\n"
        "assert 'genai_prices' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
