"""The wire: one Responses API endpoint, spoken to with httpx2.

Mappings go in, mappings come out; what they mean to a job is decided elsewhere. The rules of a create differ from
all others because upstream has no idempotency (openai 3.52 sends no Idempotency-Key and would POST three times):
it is sent once, on a connection of its own, and the caller is asked before the first byte leaves.
"""

import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Any, cast
from urllib.parse import quote

import anyio
import httpx2

from agent_jobs.errors import (
    AccountError,
    BusyError,
    ConfigError,
    MissingError,
    RefusedError,
    UnclearError,
    UnsentError,
    UpstreamError,
)
from agent_jobs.upstream.connection_failure import Dialed, explain_failure, explain_refusal

JSON = Mapping[str, Any]

#: The type of the one event in which an answer comes that is no stream.
ANSWERED_JSON = "response"
#: The last event carries the whole response, and httpx2 stops at 1 MiB.
MAX_EVENT_BYTES = 64 * 2**20
#: Three keepalives of 30 s: a stream that is silent longer is dead.
STREAM_IDLE_S = 90.0
#: A run that lives by its connection is not given up for a pause: not every server sends keepalives.
HELD_IDLE_S = 900.0
CONNECT_S, RETRIEVE_READ_S, RETRIEVE_TOTAL_S = 10.0, 30.0, 120.0
#: 64 MiB over a slow line; a container's file takes no less.
FILE_TOTAL_S = 600.0
#: What nobody could remove, for its process died before it knew the id, upstream removes by itself (30 days at most).
UPLOAD_KEPT = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592000"}
#: A shorter text is no secret, and may well stand in any other.
SECRET_CHARS = 8
RETRY_AFTER_MAX_S = 3600.0
#: Of a list of models; the longest that was seen has 400 models in one page.
MODEL_PAGES = 20
#: What servers say of a path they do not serve, where a missing model or conversation would be named.
NO_ROUTE = ("", "Not Found", "Method Not Allowed")
#: A parameter that is refused was read before anything began, whatever the status beside it.
_REFUSED_PARAMETER = re.compile(
    r"UnsupportedParamsError|extra_forbidden|[Ee]xtra (?:inputs|fields) (?:are )?not permitted"
    r"|(?:[Uu]nknown|[Uu]nsupported|[Uu]nrecogni[sz]ed) (?:request )?(?:parameter|argument)"
)
#: Where an error stands in a body, by how often that was seen; under `errors` there are several.
ERROR_FIELDS = ("error", "errors", "detail", "message", "msg")
#: An error in a 200 that is none of these is a plain refusal. The last two say that somebody between us and the model
#: gave up waiting, so the run may go on all the same.
STATUS_OF_WORDS = (
    (401, re.compile(r"invalid_api_key|authenticat|unauthori[sz]ed")),
    (403, re.compile(r"permission|forbidden")),
    (429, re.compile(r"rate.?limit|too many requests|quota|credit_balance|spend_limit|usage_limit|billing_hard")),
    (503, re.compile(r"overloaded|slow_down|service.?unavailable")),
    (504, re.compile(r"time[sd]?[ _-]?out|timeout")),
    (502, re.compile(r"bad.?gateway|connection (was )?(reset|closed|lost|aborted)")),
)

#: 429s that no waiting cures (OpenAI's error-codes guide); the openai SDK repeats them all the same.
QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
    }
)


#: What a page asks for that wants a person to sign in.
_SIGN_IN = re.compile(r"""\b(?:sign|log)[ -]?in\b|type=["']?password""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the Responses API stands and how it is addressed."""

    base_url: str
    headers: Mapping[str, str]
    fingerprint: str = ""  #: of the key: tells two keys apart and tells nothing else

    @classmethod
    def of(
        cls, base_url: str, key: str, *, auth: str = "auto", organization: str | None = None, project: str | None = None
    ) -> "Endpoint":
        """Complete a base URL as a person writes it, and choose the header that carries the key.

        A missing path is filled in only where it is known (`/v1` for OpenAI, `/openai/v1` for Azure): other servers
        also stand at their root. A query (`?api-version=preview`) is kept on every call.
        """
        url = httpx2.URL(base_url)
        azure = _azure(url)
        path = _raw(url).rstrip("/") or ("/openai/v1" if azure else "/v1" if url.host == "api.openai.com" else "")
        if azure and path == "/openai":
            path = "/openai/v1"
        by_key = auth == "api-key" or (auth == "auto" and azure)
        headers = {"api-key": key} if by_key else {"Authorization": f"Bearer {key}"}
        named = {"OpenAI-Organization": organization, "OpenAI-Project": project}
        headers |= {name: value for name, value in named.items() if value}
        whole = url.copy_with(raw_path=path.encode() + (b"?" + url.query if url.query else b""))
        return cls(str(whole), headers, blake2b(key.encode(), digest_size=8, salt=b"agent-jobs").hexdigest())

    @property
    def openai(self) -> bool:
        """Whether this is OpenAI itself, so that what is known of its models holds."""
        return httpx2.URL(self.base_url).host.endswith(".openai.com")

    @property
    def azure(self) -> bool:
        """Whether this is Azure, where background mode with streaming is a known issue."""
        return _azure(httpx2.URL(self.base_url))

    def url(self, path: str) -> httpx2.URL:
        """The address of a path below the base, the base's query kept."""
        base = httpx2.URL(self.base_url)
        query = b"?" + base.query if base.query else b""
        return base.copy_with(raw_path=(_raw(base).rstrip("/") + path).encode() + query)


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A response object as upstream sent it, and when it wants to be asked again."""

    response: JSON
    poll_after_s: float | None = None


class ResponsesClient:
    """The five calls of the Responses API that a job needs. See `open_client`."""

    def __init__(
        self,
        endpoint: Endpoint,
        once: httpx2.AsyncClient,
        kept: httpx2.AsyncClient,
        start_timeout_s: float,
        secrets: Sequence[str] = (),
    ) -> None:
        self.endpoint = endpoint
        self._once = once  # a connection per call
        self._kept = kept  # connections are kept between calls
        self._start_timeout_s = start_timeout_s
        self._secrets = secrets

    async def create(
        self, body: JSON, *, request_id: str, before_sending: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[JSON]:
        """POST /responses once, and yield its events; a JSON answer comes as one event around it.

        Args:
            body: The request as it goes on the wire; `stream` decides nothing here, the content type does.
            request_id: Sent as X-Client-Request-Id, by which upstream's support finds the request.
            before_sending: Awaited on the open connection just before the first byte of the POST. What it raises
                comes out of here, and nothing was sent.

        Raises:
            UnsentError, BusyError: Provably not accepted.
            RefusedError: Refused for good.
            UnclearError: Accepted or not, nobody knows; never send it again.
        """
        sent, background = False, cast("bool | None", None)
        dialed = Dialed()
        timeouts: dict[str, float] = {}

        async def trace(name: str, info: Mapping[str, Any]) -> None:
            nonlocal sent, timeouts
            await dialed.trace(name, info)
            # A proxy's CONNECT announces its headers too.
            if name == "http11.send_request_headers.started" and info["request"].method == b"POST":
                await before_sending()
                sent, timeouts = True, info["request"].extensions["timeout"]
            elif name == "http11.receive_response_headers.complete" and sent:
                timeouts.pop("read", None)  # the body has a limit of its own

        try:
            async with self._once.sse(
                self.endpoint.url("/responses"),
                method="POST",
                json=body,
                headers={"Accept": "text/event-stream, application/json", "X-Client-Request-Id": request_id},
                timeout=httpx2.Timeout(self._start_timeout_s, connect=CONNECT_S),
                extensions={"trace": trace},
                max_event_size=MAX_EVENT_BYTES,
            ) as source:
                limited = source.response.stream = _Limited(source.response.stream, self._start_timeout_s)
                async for event in self._events(source, creating=True):
                    if event.get("response"):
                        said = in_background(event)
                        background = bool(background) if said is None else said
                    # Where nothing is said of it, the run may live by this connection.
                    limited.limit_s = HELD_IDLE_S if background is False else STREAM_IDLE_S
                    yield event
        except httpx2.TransportError as error:
            raise _broken(error, self.endpoint, dialed, sent=sent) from error

    async def stream(self, response_id: str, *, starting_after: int | None = None) -> AsyncGenerator[JSON]:
        """Attach to a running response again and yield its events after a sequence number."""
        params = {"stream": "true", "include_obfuscation": "false"}
        if starting_after is not None:
            params["starting_after"] = str(starting_after)
        dialed = Dialed()
        try:
            async with self._kept.sse(
                self._response_url(response_id).copy_merge_params(params),
                timeout=httpx2.Timeout(STREAM_IDLE_S, connect=CONNECT_S),
                extensions={"trace": dialed.trace},
                max_event_size=MAX_EVENT_BYTES,
            ) as source:
                async for event in self._events(source):
                    yield event
        except httpx2.TransportError as error:
            raise _broken(error, self.endpoint, dialed, sent=True) from error

    async def retrieve(self, response_id: str) -> Retrieved:
        """GET the response object as it stands.

        Raises:
            MissingError: Upstream does not know it (404, or a 400 that names the id).
            AccountError: This key may not read it.
            UpstreamError: Anything else; asking again is safe.
        """
        answer = await self._call("GET", self._response_url(response_id))
        poll_after_ms = _number(answer.headers.get("openai-poll-after-ms"))
        return Retrieved(_object(answer), None if poll_after_ms is None else poll_after_ms / 1000)

    async def cancel(self, response_id: str) -> None:
        """Ask upstream to stop; returns when it answered that it did, or that there is nothing left to stop.

        A finished response answers 200, 400 or 409, all meaning "already over": only a GET says how it ended.

        Raises:
            MissingError, AccountError, UpstreamError: As `retrieve`; asking again is safe.
        """
        try:
            await self._call("POST", self._response_url(response_id, "/cancel"))
        except RefusedError as error:
            if error.status not in (400, 409) or isinstance(error, MissingError | AccountError):
                raise

    async def describe_model(self, name: str) -> JSON:
        """What upstream says of a model: the cheapest question that needs the key.

        Raises:
            AccountError: The key may not ask.
            UpstreamError: As `retrieve`; a model that is not known is a RefusedError of status 404.
        """
        return _object(await self._call("GET", self.endpoint.url(f"/models/{_named(name)}")))

    async def model_pages(self) -> list[object]:
        """GET the list of models, each page as upstream sent it; one that cannot be had ends the list.

        Raises:
            AccountError: The key may not ask.
            UpstreamError: As `retrieve`; there is no list, or it is no JSON.
        """
        pages: list[object] = []
        url, asked = self.endpoint.url("/models"), set[httpx2.URL]()
        while url is not None and url not in asked and len(pages) < MODEL_PAGES:
            asked.add(url)
            try:
                answer = await self._call("GET", url)
                pages.append(json.loads(answer.text))
            except (UpstreamError, ValueError, RecursionError) as error:
                if pages:
                    break
                if isinstance(error, UpstreamError):
                    raise
                words = f"{redacted_url(url)} answered without JSON"
                raise UnclearError(words, code="not_a_responses_api") from None
            url = _next_page(url, pages[-1])
        return pages

    async def create_conversation(self) -> str:
        """Open a conversation upstream and return its id.

        Raises:
            UpstreamError: As `retrieve`; asking again leaves an empty conversation behind at worst.
        """
        answer = await self._call("POST", self.endpoint.url("/conversations"), json={})
        return str(_object(answer)["id"])

    async def upload(self, name: str, data: bytes) -> str:
        """Hand a file to upstream and return its id there.

        Raises:
            UpstreamError: As `retrieve`; asking again leaves a file behind at worst.
        """
        fields = {"purpose": "user_data", **UPLOAD_KEPT}
        url = self.endpoint.url("/files")
        answer = await self._call("POST", url, total_s=FILE_TOTAL_S, data=fields, files={"file": (name, data)})
        return str(_object(answer)["id"])

    async def delete_file(self, file_id: str) -> None:
        """Have upstream forget a file; one that it does not know is as good as deleted."""
        await self._forget(self.endpoint.url(f"/files/{_named(file_id)}"))

    async def container_file(self, container_id: str, file_id: str) -> bytes:
        """What a run of the code interpreter wrote into a file."""
        path = f"/containers/{_named(container_id)}/files/{_named(file_id)}/content"
        return (await self._call("GET", self.endpoint.url(path), total_s=FILE_TOTAL_S)).content

    async def find_in_container(self, container_id: str, path: str) -> str | None:
        """Return the id of the file at a path in a container, or of the only one of that name; None if it has none."""
        url = self.endpoint.url(f"/containers/{_named(container_id)}/files")
        answer = await self._call("GET", url.copy_merge_params({"limit": "100"}))
        found = (_parsed(answer.text) or {}).get("data")
        files = [cast(JSON, each) for each in cast("list[object]", found or []) if isinstance(each, dict)]
        same = [each for each in files if str(each.get("path")) == path]
        named = same or [each for each in files if str(each.get("path")).rpartition("/")[2] == path.rpartition("/")[2]]
        return str(named[0]["id"]) if named and named[0].get("id") else None

    async def delete(self, response_id: str) -> None:
        """Have upstream forget the response; one that it does not know is as good as deleted."""
        await self._forget(self._response_url(response_id))

    async def _events(self, source: httpx2.EventSource, *, creating: bool = False) -> AsyncGenerator[JSON]:
        """The events of an answer, whatever form it took; nothing is expected because it was asked for."""
        answer = source.response
        if not answer.is_success:
            await answer.aread()
            words = self._without_secrets(answer.text)
            raise refusal(answer.status_code, answer.headers, words, url=answer.request.url, creating=creating)
        if _content_type(answer) != "text/event-stream":
            await answer.aread()
            if creating:
                self._check_accepted(answer, _parsed(answer.text))
            yield {"type": ANSWERED_JSON, "response": _object(answer)}
            return
        answer.encoding = "utf-8-sig"  # SSE is always UTF-8, and httpx2's parser leaves a byte order mark standing
        named = not creating  # an error that comes after the id is the run's, and a GET tells of it
        async for sse in source:
            if sse.data == "[DONE]":
                return
            event = _parsed(sse.data)
            if not named:
                if sse.event == "error" or (event is not None and event.get("type") == "error"):
                    self._refuse(answer, {"message": sse.data} if event is None else event)
                response = (event or {}).get("response")
                of_response = isinstance(response, dict)
                named = of_response and bool(cast(JSON, response).get("id"))
                if not named and event is not None:
                    self._check_accepted(answer, cast(JSON, response) if of_response else event)
            if event is not None:
                yield event

    def _check_accepted(self, answer: httpx2.Response, body: JSON | None) -> None:
        """Raise where an answer of success plainly says that the request was not accepted: an error, a web page."""
        if body is None:
            if _is_page(answer):
                raise RefusedError(_page_words(answer), code="not_a_responses_api", status=answer.status_code)
            return
        # What has an id was accepted, however it ended.
        if not body.get("id") and _has_error(body):
            self._refuse(answer, body)

    def _refuse(self, answer: httpx2.Response, body: JSON) -> None:
        words = self._without_secrets(json.dumps(body))
        status = _status_in(body)
        error = refusal(status, answer.headers, words, url=answer.request.url, creating=True)
        if status == 500 and isinstance(error, UnclearError):
            error = RefusedError(str(error), code=error.code or "server_error", status=answer.status_code)
        raise error

    async def _forget(self, url: httpx2.URL) -> None:
        try:
            await self._call("DELETE", url)
        except RefusedError as error:
            if error.status != 404:
                raise

    def _response_url(self, response_id: str, action: str = "") -> httpx2.URL:
        return self.endpoint.url(f"/responses/{_named(response_id)}{action}")

    async def _call(
        self, method: str, url: httpx2.URL, *, total_s: float = RETRIEVE_TOTAL_S, **content: Any
    ) -> httpx2.Response:
        dialed = Dialed()
        try:
            with anyio.fail_after(total_s):
                answer = await self._kept.request(method, url, extensions={"trace": dialed.trace}, **content)
        except (httpx2.TransportError, TimeoutError) as error:
            raise _broken(error, self.endpoint, dialed, sent=True) from error
        if not answer.is_success:
            raise refusal(answer.status_code, answer.headers, self._without_secrets(answer.text), url=url)
        return answer

    def _without_secrets(self, words: str) -> str:
        """An answer's words: some servers quote the header that they refuse."""
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words


class _Limited(httpx2.AsyncByteStream):
    """A body whose next piece must come within a limit, which may change on the way."""

    def __init__(self, stream: object, limit_s: float) -> None:
        self._stream = cast(httpx2.AsyncByteStream, stream)
        self.limit_s = limit_s

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        pieces = aiter(self._stream)
        while True:
            try:
                with anyio.fail_after(self.limit_s):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise httpx2.ReadTimeout("silent") from None
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def in_background(event: JSON) -> bool | None:
    """Whether upstream says that the run goes on without this connection; None where it says nothing.

    Some accept `background` and ignore it.
    """
    response = event.get("response")
    said = cast(JSON, response).get("background") if isinstance(response, dict) else None
    return said if isinstance(said, bool) else None


@asynccontextmanager
async def open_client(
    endpoint: Endpoint, *, start_timeout_s: float = 120.0, secrets: Iterable[str] = ()
) -> AsyncGenerator[ResponsesClient]:
    """A client of one endpoint; proxies and CA settings come from the environment as httpx2 reads them.

    Args:
        endpoint: Where, and with which key.
        start_timeout_s: How long a silent upstream is waited for at a create.
        secrets: What no error may tell, should upstream say it.

    Raises:
        ConfigError: The environment names certificates or a proxy that cannot be used.
    """
    hidden = [each for each in secrets if len(each) >= SECRET_CHARS]
    # Building a TLS context takes ~40 ms; one serves both, made aside from the event loop.
    try:
        verify = await anyio.to_thread.run_sync(httpx2.create_ssl_context)
    except OSError:  # a bad PEM file is one too
        raise ConfigError("SSL_CERT_FILE takes a PEM file with certificates, SSL_CERT_DIR a folder of them.") from None
    timeout = httpx2.Timeout(RETRIEVE_READ_S, connect=CONNECT_S, pool=None)
    # A kept connection may be closed by the other side just as a POST leaves, and nobody knows if it arrived.
    unkept = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    try:
        clients = [
            httpx2.AsyncClient(verify=verify, headers=endpoint.headers, timeout=timeout, limits=limits)
            for limits in (unkept, httpx2.Limits(max_connections=None, max_keepalive_connections=20))
        ]
    except (ValueError, ImportError, httpx2.InvalidURL):
        raise ConfigError("HTTPS_PROXY and ALL_PROXY take an address such as http://HOST:PORT; no SOCKS.") from None
    async with AsyncExitStack() as stack:
        once, kept = [await stack.enter_async_context(client) for client in clients]
        yield ResponsesClient(endpoint, once, kept, start_timeout_s, hidden)


def refusal(
    status: int, headers: Mapping[str, str], body: str, *, url: httpx2.URL | None = None, creating: bool = False
) -> UpstreamError:
    """What an HTTP answer that is no success means for the caller (the table of OpenAI's error-codes guide)."""
    error, envelope = _error_body(body)
    code = str(error.get("code") or error.get("type") or "")
    kind, words = str(error.get("type") or ""), str(error.get("message") or "")
    message = words[:500] or f"HTTP {status}"
    names_parameter = creating and _REFUSED_PARAMETER.search(f"{code} {words}") is not None
    if creating and status in (404, 405) and not names_parameter:
        if "model" in f"{code} {words}".lower():
            code = "model_not_found"  # vLLM gives the status as the code
        elif _parsed(body) is None or words in NO_ROUTE or words.startswith("Invalid URL"):
            code, message = "no_such_endpoint", f"there is no Responses API at {redacted_url(url)}"
    details: dict[str, Any] = {
        "code": code,
        "param": str(error.get("param") or ""),
        "status": status,
        "request_id": headers.get("x-request-id"),
        "retry_after_s": retry_after_s(headers),
    }
    again = headers.get("x-should-retry")
    if status in (401, 403) or (status == 429 and {code, kind} & QUOTA_CODES):
        return AccountError(message, **details)
    if code == "conversation_locked":
        return BusyError(message, **details)  # another response of it runs
    if status == 429:
        return AccountError(message, **details) if again == "false" else BusyError(message, **details)
    if status == 503 and envelope and not names_parameter:
        # Without an envelope it may come from a balancer, after the request was passed on.
        return BusyError(message, **details)
    if ((status >= 500 and status != 501) or status in (408, 425)) and not names_parameter:
        return UnclearError(message, **details)
    if 300 <= status < 400:
        return RefusedError(f"upstream redirects to {headers.get('location', 'elsewhere')}", **details)
    named = _id_in(url)
    if not creating and named and (status == 404 or (status == 400 and named in words)):
        return MissingError(message, **details)
    return RefusedError(message, **details)


def redacted_url(url: httpx2.URL | str | None) -> str:
    """An address without what may be secret in it."""
    return str(httpx2.URL(url).copy_with(query=None, userinfo=b"")) if url is not None else "upstream"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long upstream asked to wait: in ms, in seconds, as a date, or as the reset of a used-up limit.

    A date that is past means at once; nonsense counts as not said.
    """
    in_ms = _number(headers.get("retry-after-ms"))
    seconds = in_ms / 1000 if in_ms is not None else _number(headers.get("retry-after"))
    if seconds is None:
        seconds = _seconds_until(headers.get("retry-after"), headers)
    if seconds is None:
        seconds = _reset_s(headers)
    return None if seconds is None else min(seconds, RETRY_AFTER_MAX_S)


def _reset_s(headers: Mapping[str, str]) -> float | None:
    """Return when the last of the used-up rate limits is reset; one that has something left asks for no wait."""
    waits: list[float] = []
    for kind in ("-requests", "-tokens", ""):
        reset = headers.get(f"x-ratelimit-reset{kind}")
        remaining = _number(headers.get(f"x-ratelimit-remaining{kind}"))
        wait_s = _duration_s(reset, headers) if reset and not remaining else None
        if wait_s is not None:
            waits.append(wait_s)
    return max(waits, default=None)


#: A duration as Go writes it, like `1h2m3.5s` or `120ms`.
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|h|m|s))+", re.ASCII)
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
#: Numbers from here on are moments, in seconds or in ms since 1970.
_EPOCH_S, _EPOCH_MS = 1e9, 1e11


def _duration_s(text: str, headers: Mapping[str, str]) -> float | None:
    text = text.strip()
    if (number := _number(text)) is not None:
        if number < _EPOCH_S:
            return number
        at = number / 1000 if number >= _EPOCH_MS else number
        return max(0.0, at - _server_time(headers))
    if _DURATION.fullmatch(text):
        parts = re.findall(r"([\d.]+)(ms|us|µs|ns|h|m|s)", text)
        return sum(float(count) * _UNITS_S[unit] for count, unit in parts)
    return _seconds_until(text, headers)


def _seconds_until(text: str | None, headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a date, by the server's own clock where it tells it."""
    at = _epoch_s(text)
    return None if at is None else max(0.0, at - _server_time(headers))


def _server_time(headers: Mapping[str, str]) -> float:
    said = _epoch_s(headers.get("date"))
    return time.time() if said is None else said


def _epoch_s(text: str | None) -> float | None:
    """Return an HTTP date or an ISO date as seconds since 1970; None for anything else."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = parse((text or "").strip())
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None


def _object(answer: httpx2.Response) -> JSON:
    """The response object in a JSON answer."""
    response = _parsed(answer.text)
    if response is None or not response.get("id"):
        kind = _content_type(answer) or "nothing"
        words = f"{redacted_url(answer.request.url)} answered {kind}, which is no response object"
        if response is None and answer.request.method == "GET" and _id_in(answer.request.url):
            words = f"retrieve is not served here: {words}"
        raise UnclearError(words, code="not_a_responses_api", status=answer.status_code)
    return response


def _next_page(url: httpx2.URL, page: object) -> httpx2.URL | None:
    """Return where the next page of a list is, in any of the ways in which servers say so; None after the last."""
    if not isinstance(page, dict):
        return None
    body = cast(JSON, page)
    for name in ("next", "next_page", "next_url", "nextLink"):
        said = body.get(name)
        if isinstance(said, str) and ("/" in said or said.startswith("?")):
            there = url.join(said)
            # The key goes nowhere else.
            return there if (there.scheme, there.host, there.port) == (url.scheme, url.host, url.port) else None
        if isinstance(said, int) and not isinstance(said, bool):
            return url.copy_merge_params({"page": said})
    for name, parameter in (("nextPageToken", "pageToken"), ("next_page_token", "page_token")):
        if body.get(name):
            return url.copy_merge_params({parameter: str(body[name])})
    data: object = body.get("data")
    items = cast("list[object]", data) if isinstance(data, list) else []
    last = cast(JSON, items[-1]).get("id") if items and isinstance(items[-1], dict) else None
    last_id = body.get("last_id") or last
    return url.copy_merge_params({"after": str(last_id)}) if body.get("has_more") is True and last_id else None


def _is_page(answer: httpx2.Response) -> bool:
    """Return True for a page on which a person signs in: no API stands behind it.

    Any other page may come from a gateway that lost an answer whose request was accepted.
    """
    text = answer.text[:20_000]
    begin = text[:200].lstrip("\ufeff \t\r\n").lower()
    is_html = begin.startswith(("<!doctype html", "<html")) or (_content_type(answer) == "text/html" and "<" in begin)
    return is_html and _SIGN_IN.search(text) is not None


def _page_words(answer: httpx2.Response) -> str:
    found = re.search(r"<title[^>]*>([^<]{1,120})", answer.text[:20_000], re.I)
    title = f' ("{" ".join(found[1].split())}")' if found else ""
    where = redacted_url(answer.request.url)
    return f"{where} answered with a web page{title} and not with a response: check OPENAI_BASE_URL and the login there"


def _has_error(body: JSON) -> bool:
    """Return True if a body without an id names an error and no response."""
    if body.get("object") == "error" or body.get("success") is False or body.get("status") in ("error", "failed"):
        return True
    if any(body.get(name) for name in ("error", "errors", "detail")):
        return True
    code = body.get("code") or body.get("status")
    worded = isinstance(body.get("message") or body.get("msg"), str)
    return worded and type(code) is int and 400 <= code < 600


def _status_in(body: JSON) -> int:
    """Return the HTTP status that an error in a 200 would have had."""
    error, _ = _error_body(json.dumps(body))
    for each in (error, body):
        for name in ("status", "status_code", "code"):
            said = str(each.get(name))
            if re.fullmatch(r"[45]\d\d", said):
                return int(said)
    words = " ".join(str(error.get(name) or "") for name in ("code", "type", "message")).lower()
    return next((status for status, named in STATUS_OF_WORDS if named.search(words)), 500)


def _content_type(answer: httpx2.Response) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


def _error_body(body: str) -> tuple[JSON, bool]:
    """The error in a body of any shape (`{"error": {}}`, `{"detail": ""}`, text), and whether it was the first."""
    parsed = _parsed(body)
    if parsed is None:
        plain = "" if "<" in body[:100] else " ".join(body.split())
        return {"message": plain}, False
    for name in ERROR_FIELDS:
        told = parsed.get(name)
        if isinstance(told, dict) and told:
            return cast(JSON, told), name == "error"
        if isinstance(told, str) and told:
            beside = {each: parsed.get(each) for each in ("code", "type", "param") if each in parsed}
            return {**beside, "message": told}, False
        if isinstance(told, list):
            errors = cast("list[object]", told)
            named = [cast(JSON, each) for each in errors if isinstance(each, dict)]
            first: JSON = named[0] if named else dict[str, Any]()
            words = "; ".join(filter(None, map(_words_of, errors)))
            if words:
                return {**first, "message": words}, False
    return {}, False


def _words_of(error: object) -> str:
    """Return the words of one of several errors: FastAPI's findings, GraphQL's, or a text."""
    if isinstance(error, dict):
        found = cast(JSON, error)
        words = str(next((found[name] for name in ("message", "msg", "detail", "title") if found.get(name)), ""))
        at = found.get("loc")
        steps = [str(step) for step in cast("list[object]", at)] if isinstance(at, list) else []
        place = ".".join(steps[1:] if steps[:1] == ["body"] else steps)
        return f"{place}: {words}" if place and words else words
    return error if isinstance(error, str) else ""


def _broken(error: Exception, endpoint: Endpoint, dialed: Dialed, *, sent: bool) -> UpstreamError:
    """What a connection that failed means: before the first byte nothing happened, after it nobody knows."""
    url = httpx2.URL(endpoint.base_url)
    host = url.netloc.decode()
    if isinstance(error, httpx2.SSEError):
        return UnclearError(f"{host} sent an event stream that cannot be read", code="unreadable_stream")
    if sent and not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
        return UnclearError(f"the connection to {host} broke ({type(error).__name__})", code="connection_lost")
    if isinstance(error, httpx2.ProxyError):
        why = explain_refusal(str(error), scheme=url.scheme, dialed=dialed, host=host)
    else:
        port = url.port or (443 if url.scheme == "https" else 80)
        is_default = url.host == "api.openai.com"
        why = explain_failure(error, dialed, scheme=url.scheme, host=url.host, port=port, is_default=is_default)
    kind = UnclearError if sent else UnsentError
    return kind(why.text, code="unreachable", fix=why.fix)


def _azure(url: httpx2.URL) -> bool:
    return url.host.endswith((".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"))


def _named(upstream_id: str) -> str:
    """An id as a part of a path. It comes from upstream, and must not be able to name another path."""
    name = quote(upstream_id, safe="")
    return name if name.strip(".") else name.replace(".", "%2E")


def _raw(url: httpx2.URL) -> str:
    """The path as it goes over the wire, escapes and all."""
    return url.raw_path.partition(b"?")[0].decode()


def _id_in(url: httpx2.URL | None) -> str:
    found = re.search(r"/responses/([^/]+)", url.path) if url is not None else None
    return found[1] if found else ""


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _parsed(text: str) -> JSON | None:
    """A JSON object, or None for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast(JSON, value) if isinstance(value, dict) else None
