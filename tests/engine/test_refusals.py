"""HTTP refusals as the caller sees them, and the addresses of endpoints."""

import json
import re
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest

from agent_jobs.errors import (
    AccountError,
    BusyError,
    MissingError,
    RefusedError,
    UnclearError,
    UpstreamError,
)
from agent_jobs.upstream.client import ResponsesClient
from agent_jobs.upstream.endpoint import Endpoint
from agent_jobs.upstream.error_mapping import map_error
from agent_jobs.upstream.retry_after import RETRY_AFTER_MAX_S, read_retry_after_s

CREATE = httpx2.URL("https://up.example/v1/responses?api-version=preview")
LOOK = httpx2.URL("https://up.example/v1/responses/resp_1")
CANCEL = httpx2.URL("https://up.example/v1/responses/resp_1/cancel")


def error_body(message: str = "no", **error: Any) -> str:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", **error}})


# Refusals of POST /responses, and the errors that they become.


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "code"),
    [
        (400, {}, error_body(code="context_length_exceeded"), RefusedError, "context_length_exceeded"),
        (400, {}, error_body(code=None), RefusedError, "invalid_request_error"),
        (400, {}, error_body("The id resp_1 is unknown", code="previous_response_not_found"), RefusedError,
         "previous_response_not_found"),
        (409, {}, error_body(), RefusedError, "invalid_request_error"),
        (413, {}, "<html>too large</html>", RefusedError, ""),
        (422, {}, '{"detail":"no"}', RefusedError, ""),
        (401, {}, error_body(code="invalid_api_key"), AccountError, "invalid_api_key"),
        (401, {}, "", AccountError, ""),
        (403, {}, "<html>Forbidden</html>", AccountError, ""),
        (404, {}, error_body(code="model_not_found"), RefusedError, "model_not_found"),
        (429, {}, error_body(code="rate_limit_exceeded"), BusyError, "rate_limit_exceeded"),
        (429, {}, error_body(type="rate_limit_error", code="slow_down"), BusyError, "slow_down"),
        (429, {}, "", BusyError, ""),
        (429, {"x-should-retry": "true"}, error_body(code="rate_limit_exceeded"), BusyError, "rate_limit_exceeded"),
        (429, {"x-should-retry": "false"}, error_body(code="rate_limit_exceeded"), AccountError, "rate_limit_exceeded"),
        (429, {}, error_body(type="insufficient_quota", code=None), AccountError, "insufficient_quota"),
        (429, {}, error_body(type="insufficient_quota", code="insufficient_quota"), AccountError, "insufficient_quota"),
        (429, {}, error_body(type="insufficient_quota", code="brand_new"), AccountError, "brand_new"),
        (429, {}, error_body(type="tokens", code="credit_balance_exhausted"), AccountError, "credit_balance_exhausted"),
        (429, {}, error_body(code="organization_spend_limit_exceeded"), AccountError,
         "organization_spend_limit_exceeded"),
        (429, {}, error_body(code="project_spend_limit_exceeded"), AccountError, "project_spend_limit_exceeded"),
        (429, {"x-should-retry": "true"}, error_body(type="insufficient_quota"), AccountError, "insufficient_quota"),
        (503, {}, error_body(code="server_is_overloaded"), BusyError, "server_is_overloaded"),
        (503, {}, "", UnclearError, ""),
        (503, {}, "upstream connect error or disconnect/reset before headers", UnclearError, ""),
        (503, {}, "<html><h1>503 Service Unavailable</h1></html>", UnclearError, ""),
        (503, {}, "[]", UnclearError, ""),
        (503, {}, "{}", UnclearError, ""),
        (503, {}, '{"message":"Service Unavailable"}', UnclearError, ""),  # Amazon's gateway, after passing it on
        (500, {}, error_body(type="server_error", code=None), UnclearError, "server_error"),
        (500, {"x-should-retry": "true"}, error_body(code="server_error"), UnclearError, "server_error"),
        (502, {}, "<html>Bad gateway</html>", UnclearError, ""),
        (504, {}, "", UnclearError, ""),
        (520, {}, "", UnclearError, ""),
        (408, {}, "", UnclearError, ""),
        (425, {}, "", UnclearError, ""),
        (302, {"location": "https://login.example/"}, "", RefusedError, ""),
        (307, {}, "", RefusedError, ""),
    ],
)  # fmt: skip
def test_refused_create_says_how_to_fix_it(
    status: int, headers: dict[str, str], body: str, kind: type[UpstreamError], code: str
):
    error = map_error(status, headers, body, url=CREATE, is_create=True)
    assert (type(error), error.code, error.status) == (kind, code, status)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, ""),
        (404, "404 page not found"),
        (404, "<html>Not Found</html>"),
        (404, '{"detail":"Not Found"}'),
        (404, error_body("Invalid URL (POST /responses)", code=None)),
        (405, ""),
        (405, '{"detail":"Method Not Allowed"}'),
    ],
)
def test_wrong_address_is_reported_without_its_query(status: int, body: str):
    error = map_error(status, {}, body, url=CREATE, is_create=True)
    assert (type(error), error.code) == (RefusedError, "no_such_endpoint")
    assert str(error) == "there is no Responses API at https://up.example/v1/responses"


@pytest.mark.parametrize(
    "words",
    ["Vector store with id ['vs_1'] not found.", "Conversation with id 'conv_1' not found.", "Prompt pmpt_1 not found"],
)
def test_404_about_the_request_is_not_mistaken_for_a_wrong_address(words: str):
    error = map_error(404, {}, error_body(words, code=None), url=CREATE, is_create=True)
    assert (type(error), str(error)) == (RefusedError, words)
    assert error.code != "no_such_endpoint"


# Refusals of GET, cancel and DELETE.


@pytest.mark.parametrize("url", [LOOK, CANCEL])
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, error_body("Response with id 'resp_1' not found."), MissingError),
        (404, "", MissingError),
        (404, '{"detail":"Not Found"}', MissingError),
        (400, error_body("Response with id 'resp_1' not found."), MissingError),
        (400, '{"detail":"unknown response resp_1"}', MissingError),
        (400, "no such response: resp_1", MissingError),
        (400, error_body("Cannot cancel a completed response."), RefusedError),
        (400, error_body("This response cannot be streamed", param="stream"), RefusedError),
        (400, error_body(), RefusedError),
        (401, error_body(code="invalid_api_key"), AccountError),
        (403, error_body("resp_1 belongs to another project"), AccountError),
        (409, error_body(), RefusedError),
        (410, "", RefusedError),
        (429, error_body(code="rate_limit_exceeded"), BusyError),
        (500, error_body("resp_1 not found"), UnclearError),
        (503, "", UnclearError),
    ],
)
def test_refused_poll_says_whether_the_response_is_missing(
    url: httpx2.URL, status: int, body: str, kind: type[UpstreamError]
):
    assert type(map_error(status, {}, body, url=url)) is kind


# Parts of a refusal.


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ('{"error":{"message":"no","type":"t","code":"c"}}', "c", "no"),
        ('{"error":{"message":"no","type":"t","code":null}}', "t", "no"),
        ('{"error":{"message":"no","type":"t","code":1301}}', "1301", "no"),
        ('{"error":{"message":"no","code":0}}', "", "no"),
        ('{"error":"no"}', "", "no"),
        ('{"error":null}', "", "HTTP 400"),
        ('{"error":["no"]}', "", "no"),
        ('{"error":{"message":null}}', "", "HTTP 400"),
        ('{"detail":"no"}', "", "no"),
        ('{"detail":{"message":"no","code":"c"}}', "c", "no"),
        ('{"message":"no"}', "", "no"),
        ("no", "", "no"),
        ("  no,\n  really\tnot  ", "", "no, really not"),
        ("<!doctype html><p>no</p>", "", "HTTP 400"),
        ("", "", "HTTP 400"),
        ("\x00\ufffd", "", "\x00\ufffd"),
    ],
)
def test_code_and_message_are_found_in_every_shape_of_body(body: str, code: str, message: str):
    error = map_error(400, {}, body, url=CREATE, is_create=True)
    assert (error.code, str(error)) == (code, message)


@pytest.mark.parametrize("body", ["[" * 100_000, '{"error":' * 100_000, "9" * 10_000, '{"error":{"code":1e999}}'])
def test_unparsable_body_is_a_plain_refusal(body: str):
    assert isinstance(map_error(500, {}, body, url=CREATE, is_create=True), UnclearError)


def test_long_error_text_is_cut_and_important_headers_are_kept():
    headers = httpx2.Headers({"X-Request-Id": "req_1", "Retry-After": "7"})
    error = map_error(429, headers, error_body("x" * 9000), url=CREATE, is_create=True)
    assert (len(str(error)), error.request_id, error.retry_after_s) == (500, "req_1", 7.0)


def test_redirect_names_its_target():
    assert "https://login.example/" in str(map_error(302, {"location": "https://login.example/"}, "", url=CREATE))


@pytest.mark.parametrize("url", ["https://user:s3cret@up.example/v1/responses", CREATE.copy_with(query=b"key=s3cret")])
def test_address_is_shown_without_its_secrets(url: httpx2.URL | str):
    error = map_error(404, {}, "", url=httpx2.URL(url), is_create=True)
    assert "up.example/v1/responses" in str(error)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "200", "retry-after": "7"}, 0.2),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "86400"}, RETRY_AFTER_MAX_S),
        ({"retry-after": "1e300"}, RETRY_AFTER_MAX_S),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wednesday, 21-Oct-15 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "2015-10-21T07:28:30Z", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2199 07:28:00 GMT"}, RETRY_AFTER_MAX_S),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
        ({"x-ratelimit-reset-requests": "1m30s"}, 90.0),
        ({"x-ratelimit-reset-requests": "6ms", "x-ratelimit-reset-tokens": "1h0m0s"}, 3600.0),
        ({"x-ratelimit-reset-requests": "20s", "x-ratelimit-remaining-requests": "0"}, 20.0),
        ({"x-ratelimit-reset-requests": "20s", "x-ratelimit-remaining-requests": "9"}, None),
        ({"x-ratelimit-reset": "1445412510", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"x-ratelimit-reset": "1445412510000", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"x-ratelimit-reset-tokens": "soon"}, None),
        ({"retry-after": "7", "x-ratelimit-reset-tokens": "1m"}, 7.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_wait_is_read_in_every_documented_form(headers: dict[str, str], seconds: float | None):
    assert read_retry_after_s(headers) == seconds
    assert map_error(429, headers, "").retry_after_s == seconds


# Addresses of endpoints.

AZURE = "https://r.openai.azure.com"


@pytest.mark.parametrize(
    ("written", "base", "responses"),
    [
        ("https://api.openai.com", "https://api.openai.com/v1", "https://api.openai.com/v1/responses"),
        ("https://api.openai.com/", "https://api.openai.com/v1", "https://api.openai.com/v1/responses"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1", "https://api.openai.com/v1/responses"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1", "https://api.openai.com/v1/responses"),
        ("https://eu.api.openai.com/v1", "https://eu.api.openai.com/v1", "https://eu.api.openai.com/v1/responses"),
        (AZURE, f"{AZURE}/openai/v1", f"{AZURE}/openai/v1/responses"),
        (f"{AZURE}/openai/", f"{AZURE}/openai/v1", f"{AZURE}/openai/v1/responses"),
        (f"{AZURE}/openai/v1/", f"{AZURE}/openai/v1", f"{AZURE}/openai/v1/responses"),
        (f"{AZURE}/openai/v1?api-version=preview", f"{AZURE}/openai/v1?api-version=preview",
         f"{AZURE}/openai/v1/responses?api-version=preview"),
        (f"{AZURE}?api-version=preview", f"{AZURE}/openai/v1?api-version=preview",
         f"{AZURE}/openai/v1/responses?api-version=preview"),
        ("http://localhost:8000", "http://localhost:8000", "http://localhost:8000/responses"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1", "http://localhost:8000/v1/responses"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1", "http://[::1]:8000/v1/responses"),
        ("https://gw.example/a/b/", "https://gw.example/a/b", "https://gw.example/a/b/responses"),
        ("https://gw.example/v1?a=b%20c&d=%2F", "https://gw.example/v1?a=b%20c&d=%2F",
         "https://gw.example/v1/responses?a=b%20c&d=%2F"),
        ("https://gw.example/to%2Fopenai/v1", "https://gw.example/to%2Fopenai/v1",
         "https://gw.example/to%2Fopenai/v1/responses"),
        ("https://gw.example/100%25/v1", "https://gw.example/100%25/v1", "https://gw.example/100%25/v1/responses"),
        ("https://gw.example/caf\u00e9/v1", "https://gw.example/caf%C3%A9/v1",
         "https://gw.example/caf%C3%A9/v1/responses"),
    ],
)  # fmt: skip
def test_known_base_url_is_completed_and_an_unknown_one_kept(written: str, base: str, responses: str):
    endpoint = Endpoint.of(written, "sk-1")
    assert endpoint.base_url == base
    assert str(endpoint.url("/responses")) == responses
    assert Endpoint.of(base, "sk-1") == endpoint, "what was stored is read as the same endpoint"


BEARER, API_KEY = {"Authorization": "Bearer sk-1"}, {"api-key": "sk-1"}


@pytest.mark.parametrize(
    ("base", "auth", "headers"),
    [
        ("https://api.openai.com/v1", "auto", BEARER),
        ("https://api.openai.com/v1", "api-key", API_KEY),
        (AZURE, "auto", API_KEY),
        (AZURE, "bearer", BEARER),
        ("https://r.services.ai.azure.com/openai/v1", "auto", API_KEY),
        ("https://r.cognitiveservices.azure.com/openai/v1", "auto", API_KEY),
        ("https://R.OpenAI.Azure.com/openai/v1", "auto", API_KEY),
        ("https://openai.azure.com.evil.example/v1", "auto", BEARER),
        ("http://localhost:8000/v1", "auto", BEARER),
    ],
)
def test_key_goes_into_the_header_that_the_endpoint_reads(base: str, auth: str, headers: dict[str, str]):
    assert Endpoint.of(base, "sk-1", auth=auth).headers == headers


def test_organization_and_project_are_sent_only_if_they_are_set():
    named = Endpoint.of("https://api.openai.com", "sk-1", organization="org-1", project="proj_1")
    assert named.headers == {**BEARER, "OpenAI-Organization": "org-1", "OpenAI-Project": "proj_1"}
    assert Endpoint.of("https://api.openai.com", "sk-1", organization="", project=None).headers == BEARER


def test_address_never_has_the_key():
    endpoint = Endpoint.of("https://api.openai.com", "sk-1")
    assert "sk-1" not in endpoint.base_url
    assert "sk-1" not in str(endpoint.url("/responses"))


@pytest.mark.parametrize(
    "response_id",
    ["resp_1", "..", ".", "../models", "a/b", "a/../../files", "a?b=c", "a#b", "%2e%2e", "%2F", "a\\b", "é 🎈", "a\nb"],
)
async def test_id_from_upstream_cannot_name_another_path(response_id: str):
    """An id may be requested or refused, but no request leaves /responses/ or loses the query."""
    paths: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        paths.append(request.url.raw_path.decode())
        return httpx2.Response(404)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        client = ResponsesClient(Endpoint.of("https://gw.example/v1?k=v", "sk-1"), http, http, 1.0, ())
        for call in (client.retrieve, client.cancel, client.delete):
            with suppress(UpstreamError):
                await call(response_id)
    for path in paths:
        found = re.fullmatch(r"/v1/responses/([^/?#]+)(/cancel)?\?k=v", path)
        assert found, path
        assert unquote(found[1]) == response_id
