"""The errors that the HTTP client makes of answers and broken connections: a row for each status, body and header.

respx answers in place of a server. The emulator's tests show the same mapping through a whole job.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpcore2
import httpx
import pytest
import respx

from agent_jobs.errors import (
    AccountError,
    BusyError,
    MissingError,
    RefusedError,
    UnclearError,
    UnsentError,
    UpstreamError,
)
from agent_jobs.upstream.client import ANSWERED_JSON, ResponsesClient, open_client
from agent_jobs.upstream.endpoint import Endpoint
from agent_jobs.upstream.retry_after import RETRY_AFTER_MAX_S

BASE_URL = "https://up.example/v1"
KEY = "sk-a-key-that-no-error-may-contain"
HTML, SSE, PLAIN = "text/html", "text/event-stream", "text/plain"
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[ResponsesClient]:
    async with open_client(Endpoint.of(BASE_URL, KEY), secrets=[KEY]) as client:
        yield client


@dataclass(frozen=True)
class Answer:
    """An answer, and the error that it must become. If `message` is None, the error has the status in words."""

    status: int
    body: str | bytes
    kind: type[UpstreamError]
    code: str = ""
    message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    param: str = ""

    def response(self) -> httpx.Response:
        return httpx.Response(self.status, headers=self.headers, content=self.body)

    def assert_matches(self, error: UpstreamError) -> None:
        message = self.message or f"HTTP {self.status}"
        found = (type(error), error.code, str(error), error.status, error.param)
        assert found == (self.kind, self.code, message, self.status, self.param)


def envelope(message: str | None = "no", **error: Any) -> str:
    """Return an error as OpenAI sends it."""
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": None, **error}})


async def announce_headers(request: httpx.Request) -> None:
    """Report that the first byte was sent, as the connection would that respx replaces."""
    sent = SimpleNamespace(method=request.method.encode(), extensions=request.extensions)
    await request.extensions["trace"]("http11.send_request_headers.started", {"request": sent})


def answer_after_sending(response: httpx.Response | Exception) -> Callable[[httpx.Request], Awaitable[httpx.Response]]:
    """Return a side effect for respx: the request is sent, then the answer arrives or the connection breaks."""

    async def answer(request: httpx.Request) -> httpx.Response:
        await announce_headers(request)
        if isinstance(response, Exception):
            raise response
        return response

    return answer


async def create(client: ResponsesClient) -> list[Mapping[str, Any]]:
    """Send one create and return its events."""

    async def allow_sending() -> None:
        pass

    return [event async for event in client.create({}, request_id="r", before_sending=allow_sending)]


async def create_and_fail(client: ResponsesClient, router: respx.Router, response: httpx.Response) -> UpstreamError:
    """Return the error of a create that gets this answer, and assert that it was sent once."""
    route = router.post(f"{BASE_URL}/responses")
    route.side_effect = answer_after_sending(response)
    with pytest.raises(UpstreamError) as raised:
        await create(client)
    assert route.call_count == 1
    return raised.value


#: The status alone decides the error, for any body.
STATUSES: dict[str, Answer] = {
    "301": Answer(301, "", RefusedError, message="the provider redirects to elsewhere"),
    "302 to a login": Answer(
        302, "", RefusedError, message="the provider redirects to /login", headers={"Location": "/login"}
    ),
    "304": Answer(304, "", RefusedError, message="the provider redirects to elsewhere"),
    "307": Answer(
        307, envelope(), RefusedError, "invalid_request_error", "the provider redirects to /v2", {"location": "/v2"}
    ),
    "400": Answer(400, "", RefusedError),
    "401": Answer(401, "", AccountError),
    "402": Answer(402, "", RefusedError),
    "403": Answer(403, "", AccountError),
    "404": Answer(404, "", RefusedError, "no_such_endpoint", f"there is no Responses API at {BASE_URL}/responses"),
    "405": Answer(405, "", RefusedError, "no_such_endpoint", f"there is no Responses API at {BASE_URL}/responses"),
    "406": Answer(406, "", RefusedError),
    "408": Answer(408, "", UnclearError),
    "409": Answer(409, "", RefusedError),
    "410": Answer(410, "", RefusedError),
    "413": Answer(413, "", RefusedError),
    "415": Answer(415, "", RefusedError),
    "418": Answer(418, "", RefusedError),
    "422": Answer(422, "", RefusedError),
    "423": Answer(423, "", RefusedError),
    "425": Answer(425, "", UnclearError),
    "429": Answer(429, "", BusyError),
    "431": Answer(431, "", RefusedError),
    "451": Answer(451, "", RefusedError),
    "499 of nginx": Answer(499, "", RefusedError),
    "500": Answer(500, "", UnclearError),
    "501": Answer(501, "", RefusedError),
    "502": Answer(502, "", UnclearError),
    "503": Answer(503, "", UnclearError),
    "504": Answer(504, "", UnclearError),
    "507": Answer(507, "", UnclearError),
    "520 of Cloudflare": Answer(520, "", UnclearError),
    "524 of Cloudflare": Answer(524, "", UnclearError),
    "529 of an overloaded server": Answer(529, "", UnclearError),
    "599": Answer(599, "", UnclearError),
}

#: Codes, headers and words that change what a status alone would mean.
CAUSES: dict[str, Answer] = {
    "a wrong key": Answer(401, envelope("Incorrect key", code="invalid_api_key"), AccountError, "invalid_api_key",
                          "Incorrect key"),
    "a region": Answer(403, envelope("Not here", code="unsupported_country"), AccountError, "unsupported_country",
                       "Not here"),
    "a missing model": Answer(404, envelope("The model `x` does not exist", code="model_not_found"), RefusedError,
                              "model_not_found", "The model `x` does not exist"),
    "a missing model of vLLM": Answer(404, envelope("The model `x` does not exist.", code=404), RefusedError,
                                      "model_not_found", "The model `x` does not exist."),
    "a missing conversation": Answer(404, envelope("Conversation conv_1 not found."), RefusedError,
                                     "invalid_request_error", "Conversation conv_1 not found."),
    "no route in OpenAI's words": Answer(404, envelope("Invalid URL (POST /v1/responses)"), RefusedError,
                                         "no_such_endpoint", f"there is no Responses API at {BASE_URL}/responses"),
    "no route in FastAPI's words": Answer(405, '{"detail":"Method Not Allowed"}', RefusedError, "no_such_endpoint",
                                          f"there is no Responses API at {BASE_URL}/responses"),
    "a rate limit": Answer(429, envelope(code="rate_limit_exceeded"), BusyError, "rate_limit_exceeded", "no"),
    "a rate limit that no retry cures": Answer(429, envelope(code="rate_limit_exceeded"), AccountError,
                                               "rate_limit_exceeded", "no", {"X-Should-Retry": "false"}),
    "a quota, in the type": Answer(429, envelope(type="insufficient_quota"), AccountError, "insufficient_quota", "no"),
    "a quota, in the code": Answer(429, envelope(type="tokens", code="credit_balance_exhausted"), AccountError,
                                   "credit_balance_exhausted", "no"),
    "a quota that claims to be retried": Answer(429, envelope(code="billing_hard_limit_reached"), AccountError,
                                                "billing_hard_limit_reached", "no", {"x-should-retry": "true"}),
    "a locked conversation": Answer(400, envelope(code="conversation_locked"), BusyError, "conversation_locked", "no"),
    "a locked conversation, as a conflict": Answer(409, envelope(code="conversation_locked"), BusyError,
                                                   "conversation_locked", "no"),
    "an overloaded model": Answer(503, envelope(code="server_is_overloaded"), BusyError, "server_is_overloaded", "no"),
    "an overloaded balancer": Answer(503, '{"message":"Service Unavailable"}', UnclearError, "",
                                     "Service Unavailable"),
    "a 503 whose error is a string": Answer(503, '{"error":"no"}', UnclearError, "", "no"),
    "an unknown parameter": Answer(400, envelope("Unknown parameter: 'x'.", param="x"), RefusedError,
                                   "invalid_request_error", "Unknown parameter: 'x'.", param="x"),
    "an unknown parameter in a 500": Answer(500, envelope("Unsupported parameter: x"), RefusedError,
                                            "invalid_request_error", "Unsupported parameter: x"),
    "an unknown parameter in a 503": Answer(503, envelope("Unrecognized request argument: x"), RefusedError,
                                            "invalid_request_error", "Unrecognized request argument: x"),
    "an unknown parameter in a 404": Answer(404, '{"detail":"Extra inputs are not permitted"}', RefusedError, "",
                                            "Extra inputs are not permitted"),
}  # fmt: skip

#: The message, the code and the parameter are found in every form of body.
BODIES: dict[str, Answer] = {
    "OpenAI's envelope": Answer(400, envelope("no", code="c", param="model"), RefusedError, "c", "no", param="model"),
    "an envelope without a code": Answer(400, envelope("no"), RefusedError, "invalid_request_error", "no"),
    "an envelope with a number as code": Answer(400, envelope("no", code=1301), RefusedError, "1301", "no"),
    "an envelope without words": Answer(400, envelope(None), RefusedError, "invalid_request_error"),
    "an empty envelope": Answer(400, '{"error":{}}', RefusedError),
    "no error": Answer(400, '{"error":null}', RefusedError),
    "a string": Answer(400, '{"error":"no"}', RefusedError, "", "no"),
    "a string with a code beside": Answer(400, '{"error":"no","code":"c","param":"p"}', RefusedError, "c", "no",
                                          param="p"),
    "a list of strings": Answer(400, '{"error":["no","never"]}', RefusedError, "", "no; never"),
    "a list of objects": Answer(400, '{"errors":[{"message":"no","code":"c"},{"message":"never"}]}', RefusedError,
                                "c", "no; never"),
    "an empty list": Answer(400, '{"errors":[]}', RefusedError),
    "a list without words": Answer(400, '{"errors":[1,null,{}]}', RefusedError),
    "FastAPI's sentence": Answer(400, '{"detail":"no"}', RefusedError, "", "no"),
    "FastAPI's findings": Answer(422, '{"detail":[{"loc":["body","model"],"msg":"no","type":"missing"}]}',
                                 RefusedError, "missing", "model: no"),
    "a finding in the query": Answer(422, '{"detail":[{"loc":["query","n",0],"msg":"no"}]}', RefusedError, "",
                                     "query.n.0: no"),
    "an object under detail": Answer(400, '{"detail":{"message":"no","code":"c"}}', RefusedError, "c", "no"),
    "a problem of RFC 9457 in a list": Answer(400, '{"errors":[{"title":"no"}]}', RefusedError, "", "no"),
    "a message alone": Answer(400, '{"message":"no","type":"t"}', RefusedError, "t", "no"),
    "a msg alone": Answer(400, '{"msg":"no"}', RefusedError, "", "no"),
    "an object of something else": Answer(400, '{"answer":42}', RefusedError),
    "a JSON list": Answer(400, '["no"]', RefusedError, "", '["no"]'),
    "plain text": Answer(400, "  no,\n  really\tnot ", RefusedError, "", "no, really not"),
    "an HTML page": Answer(400, "<html><body>no</body></html>", RefusedError, headers={"content-type": HTML}),
    "an XML error": Answer(400, "<?xml version='1.0'?><Error/>", RefusedError),
    "an empty body": Answer(400, "", RefusedError),
    "a body of white space": Answer(400, " \r\n", RefusedError),
    "cut JSON": Answer(400, '{"error":', RefusedError, "", '{"error":'),
    "deep JSON": Answer(400, '{"error":' * 10_000, RefusedError, "", ('{"error":' * 100)[:500]),
    "long words": Answer(400, envelope("x" * 9_000), RefusedError, "invalid_request_error", "x" * 500),
    "bytes that are no UTF-8": Answer(400, b"n\xff", RefusedError, "", "n\ufffd", {"content-type": PLAIN}),
    "UTF-16": Answer(400, '{"error":"no"}'.encode("utf-16"), RefusedError, "", "no",
                     {"content-type": "application/json; charset=utf-16"}),
    "the key, quoted": Answer(401, envelope(f"Incorrect key {KEY}."), AccountError, "invalid_request_error",
                              "Incorrect key ***."),
}  # fmt: skip
REFUSED_CREATES = STATUSES | CAUSES | BODIES


@pytest.mark.parametrize("answer", REFUSED_CREATES.values(), ids=REFUSED_CREATES)
async def test_refused_create_becomes_the_error_of_its_row(
    client: ResponsesClient, httpx2_mock: respx.Router, answer: Answer
):
    answer.assert_matches(await create_and_fail(client, httpx2_mock, answer.response()))


def body(**fields: Any) -> str:
    return json.dumps(fields)


#: Bodies of a 200 without an id that say that nothing was accepted. An unknown fault keeps the status 200.
REFUSED_IN_SUCCESS: dict[str, tuple[str, type[UpstreamError], str, int]] = {
    "a wrong key": (envelope(code="invalid_api_key"), AccountError, "invalid_api_key", 401),
    "a permission, in words": (body(error="Permission denied"), AccountError, "", 403),
    "a rate limit, in words": (body(error="Too many requests"), BusyError, "", 429),
    "a quota": (envelope(type="insufficient_quota"), AccountError, "insufficient_quota", 429),
    "an overloaded model": (envelope("Overloaded, slow_down"), BusyError, "invalid_request_error", 503),
    "an overloaded server, in a string": (body(error="service unavailable"), UnclearError, "", 503),
    "a gateway's timeout": (body(error="upstream timed out"), UnclearError, "", 504),
    "a lost connection": (body(error="connection reset by peer"), UnclearError, "", 502),
    "a status as the code": (body(error={"message": "no", "code": 422}), RefusedError, "422", 422),
    "a status in words": (body(error={"message": "no", "status": "403"}), AccountError, "", 403),
    "a status beside the error": (body(error="no", status_code=400), RefusedError, "", 400),
    "a plain string": (body(error="no"), RefusedError, "server_error", 200),
    "a plain envelope": (envelope(), RefusedError, "invalid_request_error", 200),
    "several errors": (body(success=False, errors=[{"message": "no"}]), RefusedError, "server_error", 200),
    "an object named error": (body(object="error", message="no"), RefusedError, "server_error", 200),
    "a failed status": (body(status="failed", message="no"), RefusedError, "server_error", 200),
    "a code and a message": (body(code=429, msg="no"), BusyError, "429", 429),
    "a code and a message of a fault": (body(code=500, message="no"), RefusedError, "500", 200),
}


@pytest.mark.parametrize("form", ["JSON", "an error event", "an event of type error", "a response in an event"])
@pytest.mark.parametrize("row", REFUSED_IN_SUCCESS.values(), ids=REFUSED_IN_SUCCESS)
async def test_error_inside_a_success_becomes_the_error_of_its_words(
    client: ResponsesClient, httpx2_mock: respx.Router, row: tuple[str, type[UpstreamError], str, int], form: str
):
    text, kind, code, status = row
    headers = {"content-type": "application/json" if form == "JSON" else SSE}
    content = {
        "JSON": text,
        "an error event": f"event: error\ndata: {text}\n\n",
        "an event of type error": f"data: {body(**{'type': 'error', **json.loads(text)})}\n\n",
        "a response in an event": f"data: {body(type='response.created', response=json.loads(text))}\n\n",
    }[form]
    error = await create_and_fail(client, httpx2_mock, httpx.Response(200, headers=headers, content=content))
    assert (type(error), error.status) == (kind, status)
    codes = {code}
    if form == "an event of type error":
        codes.add("error")  # if the error is a string, the event's type replaces the code
    assert error.code in codes


async def test_error_event_that_is_no_json_is_a_refusal_in_its_words(
    client: ResponsesClient, httpx2_mock: respx.Router
):
    response = httpx.Response(200, headers={"content-type": SSE}, content="event: error\ndata: not today\n\n")
    error = await create_and_fail(client, httpx2_mock, response)
    assert (type(error), error.code, str(error), error.status) == (RefusedError, "server_error", "not today", 200)


#: Answers of success that are no response object.
NO_RESPONSES: dict[str, tuple[str, str, type[UpstreamError], str]] = {
    "nothing": ("", "", UnclearError, "answered nothing, which is not a response object"),
    "JSON without an id": ("application/json", '{"object":"list"}', UnclearError, "answered application/json"),
    "a JSON list": ("application/json", "[]", UnclearError, "answered application/json"),
    "plain text": (PLAIN, "It works!", UnclearError, "answered text/plain"),
    "a gateway's page": (HTML, "<html><title>Gateway</title></html>", UnclearError, "answered text/html"),
    "a sign-in page": (
        HTML, "<!doctype html><title>Please\n sign in</title><input type=password>", RefusedError,
        'answered with a web page ("Please sign in") and not with a response',
    ),
    "a login page without a title": (PLAIN, "\ufeff <html><a>Log in</a></html>", RefusedError, "with a web page and"),
}  # fmt: skip


@pytest.mark.parametrize("row", NO_RESPONSES.values(), ids=NO_RESPONSES)
async def test_success_without_a_response_is_no_responses_api(
    client: ResponsesClient, httpx2_mock: respx.Router, row: tuple[str, str, type[UpstreamError], str]
):
    content_type, text, kind, words = row
    response = httpx.Response(200, headers={"content-type": content_type}, content=text)
    error = await create_and_fail(client, httpx2_mock, response)
    assert (type(error), error.code, error.status) == (kind, "not_a_responses_api", 200)
    assert f"{BASE_URL}/responses" in str(error)
    assert words in str(error)


#: A body with an id is an accepted response, with any final status.
ACCEPTED: dict[str, tuple[str, str, list[Mapping[str, Any]]]] = {
    "JSON": ("application/json", body(id="resp_1"), [{"type": ANSWERED_JSON, "response": {"id": "resp_1"}}]),
    "JSON with an error": (
        "application/json", body(id="resp_1", error={"code": "invalid_api_key"}, status="failed"),
        [{"type": ANSWERED_JSON,
          "response": {"id": "resp_1", "error": {"code": "invalid_api_key"}, "status": "failed"}}],
    ),
    "JSON without a content type": ("", body(id="resp_1"), [{"type": ANSWERED_JSON, "response": {"id": "resp_1"}}]),
    "an error after the id": (
        SSE, f'data: {body(response={"id": "resp_1"})}\n\nevent: error\ndata: {body(type="error", message="no")}\n\n',
        [{"response": {"id": "resp_1"}}, {"type": "error", "message": "no"}],
    ),
    "events that are no JSON": (SSE, f"data: ping\n\n: keepalive\n\ndata: {body(type='x')}\n\n", [{"type": "x"}]),
    "a byte order mark, and what follows the end": (
        f"{SSE}; charset=latin-1", f"\ufeffdata: {body(type='é')}\n\ndata: [DONE]\n\ndata: {body(type='y')}\n\n",
        [{"type": "é"}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ACCEPTED.values(), ids=ACCEPTED)
async def test_accepted_create_yields_its_events(
    client: ResponsesClient, httpx2_mock: respx.Router, row: tuple[str, str, list[Mapping[str, Any]]]
):
    content_type, text, events = row
    response = httpx.Response(200, headers={"content-type": content_type}, content=text)
    httpx2_mock.post(f"{BASE_URL}/responses").side_effect = answer_after_sending(response)
    assert await create(client) == events


# Calls about a response that exists already


async def stream(client: ResponsesClient) -> None:
    async for _ in client.stream("resp_1"):
        pass


CALLS: dict[str, Callable[[ResponsesClient], Awaitable[object]]] = {
    "retrieve": lambda client: client.retrieve("resp_1"),
    "stream": stream,
    "cancel": lambda client: client.cancel("resp_1"),
    "delete": lambda client: client.delete("resp_1"),
    "delete_file": lambda client: client.delete_file("file_1"),
    "upload": lambda client: client.upload("a.txt", b"a"),
    "download_container_file": lambda client: client.download_container_file("cntr_1", "cfile_1"),
    "find_in_container": lambda client: client.find_in_container("cntr_1", "/mnt/a"),
    "create_conversation": lambda client: client.create_conversation(),
    "describe_model": lambda client: client.describe_model("gpt"),
    "list_model_pages": lambda client: client.list_model_pages(),
}
OF_RESPONSE = {"retrieve", "stream", "cancel", "delete"}
#: Calls with the status that means that nothing is left to do.
DONE = {("cancel", 400), ("cancel", 409), ("delete", 404), ("delete_file", 404)}
NO_RESPONSE = "Response with id 'resp_1' not found."


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (302, "", RefusedError),
        (400, envelope("no"), RefusedError),
        (401, envelope("no"), AccountError),
        (403, "<html>Forbidden</html>", AccountError),
        (404, "", RefusedError),
        (404, envelope(NO_RESPONSE), RefusedError),
        (400, envelope(NO_RESPONSE), RefusedError),
        (408, "", UnclearError),
        (409, envelope("no"), RefusedError),
        (422, '{"detail":"no"}', RefusedError),
        (429, envelope("no", code="rate_limit_exceeded"), BusyError),
        (429, envelope("no", code="insufficient_quota"), AccountError),
        (500, envelope("Unknown parameter"), UnclearError),
        (503, envelope("no"), BusyError),
        (503, "", UnclearError),
    ],
)
async def test_refused_call_becomes_the_error_of_its_status(
    client: ResponsesClient, httpx2_mock: respx.Router, call: str, status: int, text: str, kind: type[UpstreamError]
):
    route = httpx2_mock.route(host="up.example")
    route.respond(status, content=text)
    is_missing = call in OF_RESPONSE and (status == 404 or NO_RESPONSE in text)
    if is_missing:
        kind = MissingError
    if (call, status) in DONE and not (is_missing and call == "cancel"):
        await CALLS[call](client)
    else:
        with pytest.raises(UpstreamError) as raised:
            await CALLS[call](client)
        assert (type(raised.value), raised.value.status) == (kind, status)
        assert raised.value.code != "no_such_endpoint"
    assert route.call_count == 1


@pytest.mark.parametrize("call", ["retrieve", "upload", "create_conversation", "describe_model"])
@pytest.mark.parametrize("text", ["", "[]", "{}", "<html>Hello</html>"])
async def test_success_without_an_object_is_unclear(
    client: ResponsesClient, httpx2_mock: respx.Router, call: str, text: str
):
    httpx2_mock.route(host="up.example").respond(200, content=text, content_type=PLAIN)
    with pytest.raises(UnclearError, match="text/plain, which is not a response object") as raised:
        await CALLS[call](client)
    assert raised.value.code == "not_a_responses_api"
    assert ("retrieve is not served here" in str(raised.value)) is (call == "retrieve" and text != "{}")


async def test_model_list_that_is_no_json_is_unclear(client: ResponsesClient, httpx2_mock: respx.Router):
    httpx2_mock.get(f"{BASE_URL}/models").respond(200, html="<html></html>")
    with pytest.raises(UnclearError, match="answered without JSON"):
        await client.list_model_pages()


# Headers


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "86400"}, RETRY_AFTER_MAX_S),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "200", "retry-after": "7"}, 0.2),
        ({"retry-after-ms": "nan", "retry-after": "7"}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": DATE}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:27:30 GMT", "Date": DATE}, 0.0),
        ({"Retry-After": "2015-10-21T07:28:30Z", "Date": DATE}, 30.0),
        ({"Retry-After": "2015-10-21 07:28:30", "Date": DATE}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2199 07:28:00 GMT"}, RETRY_AFTER_MAX_S),
        ({"x-ratelimit-reset-requests": "1m30s"}, 90.0),
        ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "2s"}, 2.0),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-remaining-requests": "5"}, None),
        ({"x-ratelimit-reset": "30"}, 30.0),
        ({"x-ratelimit-reset": "1445412510", "Date": DATE}, 30.0),
        ({"x-ratelimit-reset": "1445412510000", "Date": DATE}, 30.0),
        ({"x-ratelimit-reset": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": DATE}, 30.0),
        ({"Retry-After": "7", "x-ratelimit-reset": "30"}, 7.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_wait_is_read_from_the_headers_of_a_refusal(
    client: ResponsesClient, httpx2_mock: respx.Router, status: int, headers: dict[str, str], wait_s: float | None
):
    response = httpx.Response(status, headers=headers, content=envelope())
    error = await create_and_fail(client, httpx2_mock, response)
    assert type(error) is BusyError
    assert error.retry_after_s == (None if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [({"x-request-id": "req_1"}, "req_1"), ({"X-Request-ID": "req_2"}, "req_2"), ({"request-id": "req_3"}, None)],
)
async def test_request_id_is_kept_for_upstreams_support(
    client: ResponsesClient, httpx2_mock: respx.Router, headers: dict[str, str], request_id: str | None
):
    error = await create_and_fail(client, httpx2_mock, httpx.Response(500, headers=headers))
    assert error.request_id == request_id
    httpx2_mock.get(f"{BASE_URL}/responses/resp_1").respond(403, headers=headers)
    with pytest.raises(AccountError) as raised:
        await client.retrieve("resp_1")
    assert raised.value.request_id == request_id


@pytest.mark.parametrize(
    ("text", "poll_after_s"), [("5000", 5.0), ("0", 0.0), ("250.5", 0.2505), ("soon", None), ("-1", None), (None, None)]
)
async def test_retrieve_returns_when_upstream_wants_to_be_polled(
    client: ResponsesClient, httpx2_mock: respx.Router, text: str | None, poll_after_s: float | None
):
    headers = {} if text is None else {"openai-poll-after-ms": text}
    httpx2_mock.get(f"{BASE_URL}/responses/resp_1").respond(json={"id": "resp_1"}, headers=headers)
    retrieved = await client.retrieve("resp_1")
    assert (retrieved.response, retrieved.poll_after_s) == ({"id": "resp_1"}, poll_after_s)


# Broken connections


class Broken(NamedTuple):
    """An error of the connection, and the code that it gets once the first byte was sent."""

    kind: type[Exception]
    words: str
    code: str


BROKEN: dict[str, Broken] = {
    "refused": Broken(httpcore2.ConnectError, "refused", "unreachable"),
    "no answer to a dial": Broken(httpcore2.ConnectTimeout, "", "unreachable"),
    "a proxy": Broken(httpcore2.ProxyError, "403 Forbidden", "unreachable"),
    "silence": Broken(httpcore2.ReadTimeout, "", "connection_lost"),
    "reset": Broken(httpcore2.ReadError, "reset", "connection_lost"),
    "closed": Broken(httpcore2.RemoteProtocolError, "closed", "connection_lost"),
    "reset while sending": Broken(httpcore2.WriteError, "reset", "connection_lost"),
}


@pytest.mark.parametrize("row", BROKEN.values(), ids=BROKEN)
async def test_broken_create_is_unsent_before_the_first_byte_and_unclear_after_it(
    client: ResponsesClient, httpx2_mock: respx.Router, row: Broken
):
    route = httpx2_mock.post(f"{BASE_URL}/responses")
    route.side_effect = row.kind(row.words)
    with pytest.raises(UnsentError) as unsent:
        await create(client)
    route.side_effect = answer_after_sending(row.kind(row.words))
    with pytest.raises(UnclearError) as unclear:
        await create(client)
    assert (unsent.value.code, unclear.value.code) == ("unreachable", row.code)
    assert route.call_count == 2


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("row", BROKEN.values(), ids=BROKEN)
async def test_broken_call_is_unclear(client: ResponsesClient, httpx2_mock: respx.Router, row: Broken, call: str):
    route = httpx2_mock.route(host="up.example")
    route.side_effect = row.kind(row.words)
    with pytest.raises(UnclearError) as raised:
        await CALLS[call](client)
    assert raised.value.code == row.code
    assert route.call_count == 1


async def test_error_before_sending_is_raised_by_create(client: ResponsesClient, httpx2_mock: respx.Router):
    async def refuse_sending() -> None:
        raise LookupError("the job was cancelled")

    route = httpx2_mock.post(f"{BASE_URL}/responses")
    route.side_effect = answer_after_sending(httpx.Response(200, json={"id": "resp_1"}))
    with pytest.raises(LookupError, match="cancelled"):
        async for _ in client.create({}, request_id="r", before_sending=refuse_sending):
            pass
