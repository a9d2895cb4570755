"""Hosted tools: required fields, and secrets that are inserted only when a request is sent."""

import json
from typing import Any

import pytest

from agent_jobs.errors import RequestError
from agent_jobs.mcp_server.wording import MODEL
from agent_jobs.request.body import build_body
from agent_jobs.request.hosted_tools import CLIENT_TOOLS, fill_in_secrets
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

MCP: dict[str, Any] = {
    "type": "mcp",
    "server_label": "tracker",
    "server_url": "https://tracker.example.org/mcp",
    "require_approval": "never",
}
SECRET = "very-secret"
SECRETS = {"TOKEN": SecretStr(SECRET), "UNSET": SecretStr("")}


def body_with(*tools: dict[str, Any], openai: bool = True) -> Any:
    return build_body("x", job_id="job_1", options={"tools": [*tools]}, openai=openai)


@pytest.mark.parametrize(
    ("tool", "more"),
    [
        ({"type": "web_search"}, {}),
        ({"type": "web_search", "filters": {"allowed_domains": ["example.org"]}, "search_context_size": "low"}, {}),
        ({"type": "web_search", "user_location": {"city": "Bern"}},
         {"user_location": {"type": "approximate", "city": "Bern"}}),
        ({"type": "web_search_2025_08_26", "external_web_access": False}, {}),
        ({"type": "web_search", "filters": {"of_next_year": ["example.org"]}}, {}),
        ({"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 50}, {}),
        ({"type": "code_interpreter"}, {"container": {"type": "auto"}}),
        ({"type": "code_interpreter", "container": "cntr_1"}, {}),
        ({"type": "code_interpreter", "container": {"file_ids": ["file-1"]}},
         {"container": {"type": "auto", "file_ids": ["file-1"]}}),
        ({"type": "image_generation", "output_format": "webp", "quality": "high", "model": "gpt-image-2"}, {}),
        (MCP, {}),
        ({"type": "mcp", "server_label": "mail", "connector_id": "connector_gmail", "require_approval": "never",
          "authorization": "${TOKEN}", "allowed_tools": ["read"]}, {}),
        ({"type": "of_next_year", "anything": {"goes": [1, None]}}, {}),
    ],
)  # fmt: skip
def test_tool_is_sent_unchanged_except_for_its_required_fields(tool: dict[str, Any], more: dict[str, Any]) -> None:
    before = json.dumps(tool)
    assert body_with(tool)["tools"] == [{**tool, **more}]
    assert json.dumps(tool) == before


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "web_search", "search_context_size": "hihg"}, "web_search.search_context_size does not accept 'hihg'"),
    ({"type": "web_search", "filters": ["example.org"]}, "web_search.filters accepts an object like"),
    ({"type": "web_search", "filters": {"allowed_domains": []}}, "web_search.filters.allowed_domains accepts a list"),
    ({"type": "web_search", "filters": {"allowed_domains": ["https://example.org"]}}, "accepts bare domains"),
    ({"type": "web_search", "user_location": "Bern"}, "web_search.user_location accepts an object"),
    ({"type": "file_search"}, "file_search.vector_store_ids accepts a list of at least one non-empty string, not"),
    ({"type": "file_search", "vector_store_ids": "vs_1"}, "file_search.vector_store_ids accepts a list"),
    ({"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 51}, "from 1 to 50"),
    ({"type": "code_interpreter", "container": 7}, "code_interpreter.container accepts"),
    ({"type": "code_interpreter", "container": ""}, "code_interpreter.container accepts"),
    ({"type": "image_generation", "output_format": "bmp"}, "image_generation.output_format does not accept 'bmp'"),
    ({"type": "image_generation", "quality": "hihg"}, "image_generation.quality"),
    ({"type": "image_generation", "model": 3}, "image_generation.model accepts a non-empty string, not"),
    ({"type": "image_generation", "model": "gpt-image-1"}, "shut down on 2026-10-23. Use gpt-image-2.6-sunburst."),
    ({**MCP, "server_label": " "}, "mcp.server_label accepts a non-empty string, not"),
    ({**MCP, "server_url": "tracker.example.org"}, "mcp.server_url accepts a web address"),
    ({**MCP, "server_url": "https://[::1/mcp"}, "mcp.server_url accepts a web address"),
    ({**MCP, "connector_id": "connector_gmail"}, "mcp accepts exactly one of server_url, connector_id, tunnel_id, not"),
    ({"type": "mcp", "server_label": "x", "require_approval": "never"}, "mcp accepts exactly one of"),
    ({**MCP, "headers": "${TOKEN}"}, "mcp.headers accepts an object"),
    ({**MCP, "require_approval": "sometimes"}, 'accepts "always", "never"'),
    ({"type": "function"}, "function.name accepts up to 64 letters"),
    ({"type": "function", "name": "a b"}, "function.name accepts up to 64 letters"),
    ({"type": "function", "name": "f", "parameters": []}, "function.parameters"),
    *(({"type": kind}, f"cannot contain {kind} tools yet") for kind in CLIENT_TOOLS),
]


@pytest.mark.parametrize(("tool", "hint"), REFUSED)
def test_tool_that_cannot_be_used_is_refused_by_its_name_and_field(tool: dict[str, Any], hint: str) -> None:
    with pytest.raises(RequestError) as refusal:
        body_with({"type": "code_interpreter"}, tool)
    assert hint in MODEL.describe(refusal.value)
    assert MODEL.describe(refusal.value).startswith("options.tools") or "shut down" in hint
    assert len(MODEL.describe(refusal.value)) < 250


def test_image_model_of_that_name_is_accepted_at_another_endpoint() -> None:
    tool = {"type": "image_generation", "model": "gpt-image-1"}
    assert body_with(tool, openai=False)["tools"] == [tool]


CARRYING: list[dict[str, Any]] = [
    {**MCP, "authorization": "{}"},
    {**MCP, "headers": {"Authorization": "{}"}},
    {**MCP, "headers": {"X-Api-Key": "{}"}},
    {**MCP, "Authorization": "{}"},
    {"type": "later", "servers": [{"auth": {"headers": {"X-Key": ["{}"]}}}]},
    {"type": "code_interpreter", "container": {"type": "auto", "network_policy": {"type": "allowlist",
     "allowed_domains": ["example.org"], "domain_secrets": [{"domain": "example.org", "name": "KEY", "value": "{}"}]}}},
]  # fmt: skip


def set_secret(tool: dict[str, Any], secret: Any) -> dict[str, Any]:
    return json.loads(json.dumps(tool).replace('"{}"', json.dumps(secret)))


@pytest.mark.parametrize(
    "literal", [SECRET, f"Bearer {SECRET}", f"{SECRET} ${{TOKEN}}", "${TOKEN}s", "${}", "${1}", "", 7]
)
@pytest.mark.parametrize("tool", CARRYING)
def test_literal_secret_is_refused_and_not_echoed(tool: dict[str, Any], literal: Any) -> None:
    with pytest.raises(RequestError) as refusal:
        body_with(set_secret(tool, literal))
    assert "AGENT_JOBS_SECRETS" in MODEL.describe(refusal.value)
    assert SECRET not in MODEL.describe(refusal.value)


@pytest.mark.parametrize("url", [f"https://user:{SECRET}@example.org/mcp", f"https://{SECRET}@example.org/mcp"])
def test_secret_in_an_address_is_refused_and_not_echoed(url: str) -> None:
    with pytest.raises(RequestError, match="secrets by name only") as refusal:
        body_with({**MCP, "server_url": url})
    assert SECRET not in MODEL.describe(refusal.value)


@pytest.mark.parametrize("scheme", ["", "Bearer ", "Basic ", "Token ", "ApiKey "])
@pytest.mark.parametrize("tool", CARRYING)
def test_named_secret_is_inserted_only_into_the_sent_request(tool: dict[str, Any], scheme: str) -> None:
    body = body_with(set_secret(tool, scheme + "${TOKEN}"))
    sent = fill_in_secrets(body, SECRETS)
    assert SECRET not in json.dumps(body)
    assert sent == body_with(set_secret(tool, scheme + "${TOKEN}")) | {"tools": [expand_token(body["tools"][0])]}
    assert json.dumps(sent).count(SECRET) == 1


def expand_token(tool: dict[str, Any]) -> Any:
    return json.loads(json.dumps(tool).replace("${TOKEN}", SECRET))


def test_name_of_a_secret_is_not_replaced_where_no_secret_belongs() -> None:
    tools = [{**MCP, "server_description": "${TOKEN}"}, {"type": "later", "url": "https://example.org/${TOKEN}"}]
    body = build_body("${TOKEN}", job_id="job_1", options={"tools": tools, "instructions": "${TOKEN}"})
    assert fill_in_secrets(body, SECRETS) == body


def test_body_without_tools_goes_out_as_it_is() -> None:
    body = build_body("x", job_id="job_1")
    assert fill_in_secrets(body, {}) == body


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("OPENAI_API_KEY", "Ask the user to add OPENAI_API_KEY to AGENT_JOBS_SECRETS."),
        ("token", "Ask the user to add token to AGENT_JOBS_SECRETS."),
        ("UNSET", "Ask the user to put UNSET into the env of this server's entry and restart it."),
    ],
)
def test_secret_that_is_not_allowed_or_not_set_is_refused_by_its_name(name: str, sentence: str) -> None:
    body = body_with({**MCP, "authorization": f"${{{name}}}"})
    with pytest.raises(RequestError) as refusal:
        fill_in_secrets(body, SECRETS)
    assert sentence in MODEL.describe(refusal.value)
    assert SECRET not in MODEL.describe(refusal.value)


def test_list_of_the_user_decides_which_secrets_may_be_read() -> None:
    settings = Settings.from_env({"AGENT_JOBS_SECRETS": "TOKEN", "TOKEN": SECRET, "OTHER": "x"})
    assert fill_in_secrets(body_with({**MCP, "authorization": "${TOKEN}"}), settings.secrets)["tools"][0] == {
        **MCP,
        "authorization": SECRET,
    }
    with pytest.raises(RequestError):
        fill_in_secrets(body_with({**MCP, "authorization": "${OTHER}"}), settings.secrets)
