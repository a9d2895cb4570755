"""The requests that the HTTP client sends: method, address, headers and body of each call. respx answers them."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest
import respx

from agent_jobs.errors import UpstreamError
from agent_jobs.upstream.client import ResponsesClient, open_client
from agent_jobs.upstream.endpoint import Endpoint

BASE_URL = "https://up.example/v1"
Call = Callable[[ResponsesClient], Awaitable[object]]
RESPONSE: Mapping[str, Any] = {"id": "x_1", "data": []}


@asynccontextmanager
async def opened(base_url: str = BASE_URL, **options: Any) -> AsyncGenerator[ResponsesClient]:
    """Open a client of an endpoint with these options."""
    async with open_client(Endpoint.of(base_url, "sk-1", **options)) as client:
        yield client


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[ResponsesClient]:
    async with opened() as client:
        yield client


async def create(client: ResponsesClient, body: Mapping[str, Any] | None = None, request_id: str = "r") -> None:
    async def allow_sending() -> None:
        pass

    async for _ in client.create(body or {}, request_id=request_id, before_sending=allow_sending):
        pass


async def stream(client: ResponsesClient, starting_after: int | None = None) -> None:
    async for _ in client.stream("resp_1", starting_after=starting_after):
        pass


async def send(client: ResponsesClient, router: respx.Router, call: Call) -> httpx.Request:
    """Answer a call with success, and return its only request."""
    route = router.route(host="up.example")
    route.respond(json=RESPONSE)
    await call(client)
    assert route.call_count == 1
    return route.calls.last.request


def list_requests(router: respx.Router) -> list[httpx.Request]:
    """Return the requests that were answered, in their order."""
    return [call.request for call in cast("list[Any]", list(router.calls))]


@dataclass(frozen=True)
class Sent:
    """A call, and the request that it sends."""

    call: Call
    method: str
    target: str  #: path and query below the base URL
    content: str | None = ""  #: None for a body that has a test of its own


REQUESTS: dict[str, Sent] = {
    "create": Sent(create, "POST", "/responses", "{}"),
    "create with a body": Sent(
        lambda client: create(client, {"model": "gpt", "input": "é", "background": True, "stream": True}),
        "POST",
        "/responses",
        '{"model":"gpt","input":"é","background":true,"stream":true}',
    ),
    "stream": Sent(stream, "GET", "/responses/resp_1?stream=true&include_obfuscation=false"),
    "stream from an event": Sent(
        lambda client: stream(client, 0),
        "GET",
        "/responses/resp_1?stream=true&include_obfuscation=false&starting_after=0",
    ),
    "retrieve": Sent(lambda client: client.retrieve("resp_1"), "GET", "/responses/resp_1"),
    "retrieve another path": Sent(lambda client: client.retrieve("../a b?"), "GET", "/responses/..%2Fa%20b%3F"),
    "retrieve dots": Sent(lambda client: client.retrieve(".."), "GET", "/responses/%2E%2E"),
    "cancel": Sent(lambda client: client.cancel("resp_1"), "POST", "/responses/resp_1/cancel"),
    "delete": Sent(lambda client: client.delete("resp_1"), "DELETE", "/responses/resp_1"),
    "delete_file": Sent(lambda client: client.delete_file("file/1"), "DELETE", "/files/file%2F1"),
    "upload": Sent(lambda client: client.upload("a.csv", b"a,b"), "POST", "/files", None),
    "download_container_file": Sent(
        lambda client: client.download_container_file("cntr_1", "cfile_1"),
        "GET",
        "/containers/cntr_1/files/cfile_1/content",
    ),
    "find_in_container": Sent(
        lambda client: client.find_in_container("cntr_1", "/a"), "GET", "/containers/cntr_1/files?limit=100"
    ),
    "create_conversation": Sent(lambda client: client.create_conversation(), "POST", "/conversations", "{}"),
    "describe_model": Sent(lambda client: client.describe_model("ft:gpt/x"), "GET", "/models/ft%3Agpt%2Fx"),
    "list_model_pages": Sent(lambda client: client.list_model_pages(), "GET", "/models"),
}
#: Headers that name the sender of a request.
ENDPOINT_HEADERS = {"authorization", "api-key", "openai-organization", "openai-project"}
#: httpx2's own headers, those of a body, and the key.
PLAIN_HEADERS = {"host", "accept", "accept-encoding", "connection", "user-agent", "authorization"}
BODY_HEADERS = {"content-length", "content-type"}
MORE_HEADERS = {"create": {"x-client-request-id", "cache-control"}, "stream": {"cache-control"}}


@pytest.mark.parametrize("sent", REQUESTS.values(), ids=REQUESTS)
async def test_call_sends_its_method_target_and_body(client: ResponsesClient, httpx2_mock: respx.Router, sent: Sent):
    request = await send(client, httpx2_mock, sent.call)
    assert (request.method, str(request.url)) == (sent.method, BASE_URL + sent.target)
    if sent.content is not None:
        assert request.content.decode() == sent.content
    has_json = bool(sent.content)
    assert (request.headers.get("content-type") == "application/json") is has_json


@pytest.mark.parametrize("name", REQUESTS)
async def test_call_sends_the_key_and_no_other_header_that_a_server_could_act_on(
    client: ResponsesClient, httpx2_mock: respx.Router, name: str
):
    request = await send(client, httpx2_mock, REQUESTS[name].call)
    allowed = PLAIN_HEADERS | BODY_HEADERS | MORE_HEADERS.get(name.split()[0], set[str]())
    assert request.headers["authorization"] == "Bearer sk-1"
    assert set(request.headers) <= allowed


async def test_create_names_its_request_and_accepts_both_forms_of_an_answer(
    client: ResponsesClient, httpx2_mock: respx.Router
):
    request = await send(client, httpx2_mock, lambda client: create(client, request_id="job_1"))
    assert request.headers["x-client-request-id"] == "job_1"
    assert request.headers["accept"] == "text/event-stream, application/json"
    assert "idempotency-key" not in request.headers  # not supported upstream, so no create may look repeatable


async def test_stream_accepts_events(client: ResponsesClient, httpx2_mock: respx.Router):
    request = await send(client, httpx2_mock, stream)
    assert request.headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 408, 409, 425, 429, 500, 501, 502, 503, 504, 529])
async def test_create_is_sent_once_for_every_answer(client: ResponsesClient, httpx2_mock: respx.Router, status: int):
    elsewhere = {"location": "https://elsewhere.example/", "x-should-retry": "true", "retry-after": "0"}
    route = httpx2_mock.post(f"{BASE_URL}/responses").respond(status, headers=elsewhere)
    with pytest.raises(UpstreamError):
        await create(client)
    assert route.call_count == len(httpx2_mock.calls) == 1


async def test_upload_sends_the_file_and_when_it_expires(client: ResponsesClient, httpx2_mock: respx.Router):
    data = bytes(range(256))
    request = await send(client, httpx2_mock, lambda client: client.upload('a "b" é.csv', data))
    kind, _, boundary = request.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    parts = [part.partition(b"\r\n\r\n") for part in request.content.split(f"--{boundary}".encode())[1:-1]]
    sent = {head.split(b'name="')[1].split(b'"')[0].decode(): content[:-2] for head, _, content in parts}
    assert sent == {
        "purpose": b"user_data",
        "expires_after[anchor]": b"created_at",
        "expires_after[seconds]": b"2592000",
        "file": data,
    }
    assert 'filename="a %22b%22 é.csv"'.encode() in request.content


@pytest.mark.parametrize(
    ("base_url", "options", "headers"),
    [
        (BASE_URL, {}, {"authorization": "Bearer sk-1"}),
        (BASE_URL, {"organization": "org-1"}, {"authorization": "Bearer sk-1", "openai-organization": "org-1"}),
        (BASE_URL, {"organization": "", "project": "proj_1"},
         {"authorization": "Bearer sk-1", "openai-project": "proj_1"}),
        (BASE_URL, {"auth": "api-key"}, {"api-key": "sk-1"}),
        ("https://r.openai.azure.com", {}, {"api-key": "sk-1"}),
        ("https://r.openai.azure.com", {"auth": "bearer"}, {"authorization": "Bearer sk-1"}),
    ],
)  # fmt: skip
async def test_every_call_sends_the_headers_of_its_endpoint(
    httpx2_mock: respx.Router, base_url: str, options: Mapping[str, str], headers: Mapping[str, str]
):
    httpx2_mock.route().respond(json=RESPONSE)
    async with opened(base_url, **options) as client:
        for sent in REQUESTS.values():
            await sent.call(client)
    for request in list_requests(httpx2_mock):
        assert {name: value for name, value in request.headers.items() if name in ENDPOINT_HEADERS} == headers


@pytest.mark.parametrize(
    ("base_url", "target"),
    [
        ("https://api.openai.com", "https://api.openai.com/v1/responses/resp_1?"),
        ("https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1/responses/resp_1?"),
        ("https://r.openai.azure.com?api-version=preview",
         "https://r.openai.azure.com/openai/v1/responses/resp_1?api-version=preview&"),
        ("https://gw.example/a%2Fb/", "https://gw.example/a%2Fb/responses/resp_1?"),
        ("http://localhost:8000", "http://localhost:8000/responses/resp_1?"),
    ],
)  # fmt: skip
async def test_query_of_the_base_url_is_kept_on_every_call(httpx2_mock: respx.Router, base_url: str, target: str):
    httpx2_mock.route().respond(json=RESPONSE)
    async with opened(base_url) as client:
        await client.retrieve("resp_1")
        await stream(client)
    retrieved, streamed = [str(request.url) for request in list_requests(httpx2_mock)]
    assert retrieved == target.rstrip("?&")
    assert streamed == f"{target}stream=true&include_obfuscation=false"


@pytest.mark.parametrize(
    ("page", "target"),
    [
        ({"has_more": True, "data": [{"id": "a"}, {"id": "b c"}]}, "?after=b+c"),
        ({"has_more": True, "last_id": "z", "data": [{"id": "a"}]}, "?after=z"),
        ({"has_more": False, "last_id": "z"}, None),
        ({"has_more": True, "data": []}, None),
        ({"has_more": True, "data": ["a"]}, None),
        ({"next": f"{BASE_URL}/models?cursor=2"}, "?cursor=2"),
        ({"next": "?cursor=2"}, "?cursor=2"),
        ({"next": "/v1/models/more"}, "/more"),
        ({"next": "https://elsewhere.example/v1/models"}, None),
        ({"next": "http://up.example/v1/models"}, None),
        ({"next": 2}, "?page=2"),
        ({"next": True}, None),
        ({"next": "cursor"}, None),
        ({"nextPageToken": "t"}, "?pageToken=t"),
        ({"next_page_token": "t"}, "?page_token=t"),
        ({"nextLink": "/v1/models?skip=9"}, "?skip=9"),
        ([{"id": "a"}], None),
    ],
)
async def test_next_page_of_models_is_requested_where_the_list_names_it(
    client: ResponsesClient, httpx2_mock: respx.Router, page: object, target: str | None
):
    route = httpx2_mock.route(host="up.example")
    route.side_effect = [httpx.Response(200, json=page), httpx.Response(200, json={"data": []})]
    pages = await client.list_model_pages()
    addresses = [str(request.url) for request in list_requests(httpx2_mock)]
    expected = [] if target is None else [f"{BASE_URL}/models{target}"]
    assert addresses == [f"{BASE_URL}/models", *expected]
    assert pages[0] == json.loads(json.dumps(page))


@pytest.mark.parametrize(
    ("files", "path", "file_id"),
    [
        ([{"id": "c_1", "path": "/mnt/data/a.csv"}], "/mnt/data/a.csv", "c_1"),
        ([{"id": "c_1", "path": "/mnt/a.csv"}, {"id": "c_2", "path": "/mnt/data/a.csv"}], "/mnt/data/a.csv", "c_2"),
        ([{"id": "c_1", "path": "/mnt/a.csv"}, {"id": "c_2", "path": "/tmp/a.csv"}], "/mnt/data/a.csv", "c_1"),
        ([{"id": "c_1", "path": "/mnt/b.csv"}], "/mnt/data/a.csv", None),
        ([{"path": "/mnt/data/a.csv"}], "/mnt/data/a.csv", None),
        (["a", None, {"id": "c_1", "path": "/mnt/data/a.csv"}], "/mnt/data/a.csv", "c_1"),
        (None, "/mnt/data/a.csv", None),
    ],
)
async def test_file_of_a_container_is_found_by_its_path_else_by_its_name(
    client: ResponsesClient, httpx2_mock: respx.Router, files: object, path: str, file_id: str | None
):
    httpx2_mock.get(f"{BASE_URL}/containers/cntr_1/files").respond(json={"data": files})
    assert await client.find_in_container("cntr_1", path) == file_id
