"""Call the Responses API of one endpoint over HTTP.

Mappings go in, mappings come out; other packages decide what they mean to a job. A create has stricter rules than the
other calls because upstream has no idempotency (openai 3.52 sends no Idempotency-Key and would POST three times): it is
sent once, on a connection of its own, and the caller is asked before the first byte leaves.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import anyio
import httpx2

from agent_jobs.errors import AccountError, ConfigError, MissingError, RefusedError, UnclearError, UpstreamError
from agent_jobs.upstream.connection_failure import DialedAddress
from agent_jobs.upstream.endpoint import Endpoint, quote_segment, read_response_id, redact_url
from agent_jobs.upstream.error_body import DEFAULT_STATUS, has_error, read_status
from agent_jobs.upstream.error_mapping import map_error, map_transport_error
from agent_jobs.upstream.json_object import JSON, object_of, objects_of, parse_object
from agent_jobs.upstream.key_renewal import KeyRenewal, ReadEndpoint, read_no_endpoint
from agent_jobs.upstream.limited_stream import LimitedStream
from agent_jobs.upstream.next_page import find_next_page
from agent_jobs.upstream.retry_after import parse_milliseconds
from agent_jobs.upstream.web_page import describe_page, is_sign_in_page, read_content_type

#: The type of the single event for an answer that is not a stream.
ANSWERED_JSON = "response"
EVENT_STREAM = "text/event-stream"
MAX_EVENT_BYTES = 64 * 2**20  # the last event carries the whole response, and httpx2 stops at 1 MiB
STREAM_IDLE_S = 90.0  # three keepalives of 30 s: a stream that is silent longer is dead
HELD_IDLE_S = 900.0  # a pause does not end a run that depends on its connection: not every server sends keepalives
CONNECT_S = 10.0
RETRIEVE_READ_S = 30.0
RETRIEVE_TOTAL_S = 120.0
FILE_TOTAL_S = 600.0  # 64 MiB over a slow line, the most that a container's file may have
#: A process may die before it knows the id of its upload. Upstream deletes such a file itself after 30 days, the most.
UPLOAD_KEPT = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592000"}
SECRET_CHARS = 8  # a shorter string is no secret, and occurs in other words
MODEL_PAGES = 20  # pages of a list of models; the longest that was seen has 400 models in one page
CONTAINER_FILES = 100  # a page of a container's files
KEPT_CONNECTIONS = 20  # between the calls of all jobs


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A response object as upstream sent it, and how long upstream asks to wait before the next retrieve."""

    response: JSON
    poll_after_s: float | None = None


@dataclass
class _CreateTrace:
    """Watches a create through httpx2's trace extension: asks the caller before the first byte of the POST leaves."""

    before_sending: Callable[[], Awaitable[None]]
    dialed: DialedAddress = field(default_factory=DialedAddress)
    is_sent: bool = False

    async def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Record a step of the call."""
        await self.dialed.trace(name, info)
        # A proxy's CONNECT announces its headers too.
        is_request = name == "http11.send_request_headers.started" and info["request"].method == b"POST"
        if is_request and not self.is_sent:  # a call that is repeated with another key was sent before
            await self.before_sending()
            self.is_sent = True


class ResponsesClient:
    """The calls of the Responses API that a job needs. See `open_client`."""

    def __init__(
        self,
        endpoint: Endpoint,
        once: httpx2.AsyncClient,
        kept: httpx2.AsyncClient,
        start_timeout_s: float,
        secrets: Sequence[str] = (),
        read_endpoint: ReadEndpoint = read_no_endpoint,
    ) -> None:
        self._renewal = KeyRenewal(endpoint, read_endpoint)
        self._renewal.watch(once, kept)
        self._once = once  # a connection per call
        self._kept = kept  # connections are kept between calls
        self._start_timeout_s = start_timeout_s
        self._secrets = secrets
        self.retrievals = 0  #: GETs of responses, with those that failed

    @property
    def endpoint(self) -> Endpoint:
        """Return the address with the key that is used now."""
        return self._renewal.endpoint

    async def renew_key(self) -> bool:
        """Read the key again; return True if the user has replaced it."""
        return await self._renewal.renew(self.endpoint)

    async def create(
        self, body: JSON, *, request_id: str, before_sending: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[JSON]:
        """POST /responses once, and yield its events; a JSON answer comes as one event around it.

        Args:
            body: The request as it goes on the wire; `stream` decides nothing here, the content type does.
            request_id: Sent as X-Client-Request-Id, by which upstream's support finds the request.
            before_sending: Awaited on the open connection just before the first byte of the POST. An error that it
                raises is raised here too, and nothing was sent.

        Raises:
            UnsentError, BusyError: Upstream certainly did not accept it.
            RefusedError: Upstream refused it for good.
            UnclearError: Upstream may have accepted it, so it must not be sent again.
        """
        trace = _CreateTrace(before_sending)
        is_background: bool | None = None
        try:
            async with self._once.sse(
                self.endpoint.url("/responses"),
                method="POST",
                json=body,
                headers={"Accept": f"{EVENT_STREAM}, application/json", "X-Client-Request-Id": request_id},
                timeout=httpx2.Timeout(self._start_timeout_s, connect=CONNECT_S),
                extensions={"trace": trace.trace},
                max_event_size=MAX_EVENT_BYTES,
            ) as source:
                limited = LimitedStream(source.response, self._start_timeout_s)
                async for event in self._read_events(source, is_create=True):
                    if event.get("response"):
                        is_background = _read_background(event, is_background)
                    limited.limit_s = _limit_silence(is_background)
                    yield event
        except httpx2.TransportError as error:
            raise map_transport_error(error, self.endpoint.base_url, trace.dialed, is_sent=trace.is_sent) from error

    async def stream(self, response_id: str, *, starting_after: int | None = None) -> AsyncGenerator[JSON]:
        """Attach to a running response again and yield its events after a sequence number."""
        params = {"stream": "true", "include_obfuscation": "false"}
        if starting_after is not None:
            params["starting_after"] = str(starting_after)
        dialed = DialedAddress()
        events = self._response_url(response_id).copy_merge_params(params)
        try:
            async with self._kept.sse(
                events,
                timeout=httpx2.Timeout(STREAM_IDLE_S, connect=CONNECT_S),
                extensions={"trace": dialed.trace},
                max_event_size=MAX_EVENT_BYTES,
            ) as source:
                LimitedStream(source.response, STREAM_IDLE_S)
                async for event in self._read_events(source):
                    yield event
        except httpx2.TransportError as error:
            raise map_transport_error(error, self.endpoint.base_url, dialed, is_sent=True) from error

    async def retrieve(self, response_id: str) -> Retrieved:
        """GET the response object as it stands.

        Raises:
            MissingError: Upstream does not know it (404, or a 400 that names the id).
            AccountError: This key may not read it.
            UpstreamError: Any other failure; the call may be repeated.
        """
        self.retrievals += 1
        answer = await self._send_request("GET", self._response_url(response_id))
        response = _read_object(answer)
        return Retrieved(response, parse_milliseconds(answer.headers.get("openai-poll-after-ms", "")))

    async def cancel(self, response_id: str) -> None:
        """Ask upstream to stop a response; return when it answered, also that there is nothing left to stop.

        For a finished response it answers 200, 400 or 409, which all mean "already over". Only a GET says how it ended.

        Raises:
            MissingError, AccountError, UpstreamError: As `retrieve`; the call may be repeated.
        """
        try:
            await self._send_request("POST", self._response_url(response_id, "/cancel"))
        except RefusedError as error:
            if error.status not in (400, 409) or isinstance(error, MissingError | AccountError):
                raise

    async def describe_model(self, name: str) -> JSON:
        """Return upstream's description of a model: the cheapest call that needs the key.

        Raises:
            AccountError: The key may not read it.
            UpstreamError: As `retrieve`; an unknown model is a RefusedError of status 404.
        """
        return _read_object(await self._send_request("GET", self.endpoint.url(f"/models/{quote_segment(name)}")))

    async def list_model_pages(self) -> list[object]:
        """GET the list of models, each page as upstream sent it; a page that fails ends the list.

        Raises:
            AccountError: The key may not read it.
            UpstreamError: As `retrieve`; there is no list, or it is not JSON.
        """
        pages: list[object] = []
        url: httpx2.URL | None = self.endpoint.url("/models")
        requested = set[httpx2.URL]()
        while url is not None and url not in requested and len(pages) < MODEL_PAGES:
            requested.add(url)
            try:
                answer = await self._send_request("GET", url)
                pages.append(json.loads(answer.text))
            except (UpstreamError, ValueError, RecursionError) as error:
                if pages:
                    break
                if isinstance(error, UpstreamError):
                    raise
                words = f"{redact_url(url)} answered without JSON"
                raise UnclearError(words, code="not_a_responses_api") from None
            url = find_next_page(url, pages[-1])
        return pages

    async def create_conversation(self) -> str:
        """Open a conversation upstream and return its id.

        Raises:
            UpstreamError: As `retrieve`; repeating the call leaves an empty conversation behind at worst.
        """
        answer = await self._send_request("POST", self.endpoint.url("/conversations"), json={})
        return str(_read_object(answer)["id"])

    async def upload(self, name: str, data: bytes) -> str:
        """Upload a file and return its id.

        Raises:
            UpstreamError: As `retrieve`; repeating the call leaves a file behind at worst.
        """
        fields = {"purpose": "user_data", **UPLOAD_KEPT}
        url = self.endpoint.url("/files")
        answer = await self._send_request("POST", url, total_s=FILE_TOTAL_S, data=fields, files={"file": (name, data)})
        return str(_read_object(answer)["id"])

    async def delete_file(self, file_id: str) -> None:
        """Delete a file upstream; one that it does not know counts as deleted."""
        await self._delete_at(self.endpoint.url(f"/files/{quote_segment(file_id)}"))

    async def download_container_file(self, container_id: str, file_id: str) -> bytes:
        """Return the content of a file that a run of the code interpreter wrote."""
        path = f"/containers/{quote_segment(container_id)}/files/{quote_segment(file_id)}/content"
        answer = await self._send_request("GET", self.endpoint.url(path), total_s=FILE_TOTAL_S)
        return answer.content

    async def find_in_container(self, container_id: str, path: str) -> str | None:
        """Return the id of the file at a path in a container, else of the first of that name, else None."""
        url = self.endpoint.url(f"/containers/{quote_segment(container_id)}/files")
        answer = await self._send_request("GET", url.copy_merge_params({"limit": str(CONTAINER_FILES)}))
        page = parse_object(answer.text) or {}
        file_id = _find_file(objects_of(page.get("data")), path).get("id")
        if not file_id:
            return None
        return str(file_id)

    async def delete(self, response_id: str) -> None:
        """Delete a response upstream; one that it does not know counts as deleted."""
        await self._delete_at(self._response_url(response_id))

    async def _read_events(self, source: httpx2.EventSource, *, is_create: bool = False) -> AsyncGenerator[JSON]:
        """Yield the events of an answer in its actual form, which may differ from the requested one."""
        answer = source.response
        if not answer.is_success:
            await answer.aread()
            raise self._map_answer(answer, is_create=is_create)
        if read_content_type(answer) != EVENT_STREAM:
            await answer.aread()
            if is_create:
                self._check_accepted(answer, parse_object(answer.text))
            yield {"type": ANSWERED_JSON, "response": _read_object(answer)}
            return
        answer.encoding = "utf-8-sig"  # SSE is always UTF-8, and httpx2's parser keeps a byte order mark
        # An error after the id is the run's own, and a GET shows it.
        has_id = not is_create
        async for sse in source:
            if sse.data == "[DONE]":
                return
            event = parse_object(sse.data)
            if not has_id:
                has_id = self._has_response_id(answer, sse, event)
            if event is not None:
                yield event

    def _has_response_id(self, answer: httpx2.Response, sse: httpx2.ServerSentEvent, event: JSON | None) -> bool:
        """Return True if an event of a create carries the response's id; raise if it says that nothing was accepted."""
        if event is None:
            event = {"message": sse.data}
        if "error" in (sse.event, event.get("type")):
            raise self._map_error_in_success(answer, event)
        response = event.get("response")
        if not isinstance(response, dict):
            self._check_accepted(answer, event)
            return False
        body = cast(JSON, response)
        self._check_accepted(answer, body)
        return bool(body.get("id"))

    def _check_accepted(self, answer: httpx2.Response, body: JSON | None) -> None:
        """Raise if an answer of success plainly says that nothing was accepted: an error, or a web page."""
        if body is None:
            if is_sign_in_page(answer):
                raise RefusedError(describe_page(answer), code="not_a_responses_api", status=answer.status_code)
            return
        # A body with an id is an accepted response, however it ended.
        if not body.get("id") and has_error(body):
            raise self._map_error_in_success(answer, body)

    def _map_answer(self, answer: httpx2.Response, *, is_create: bool = False) -> UpstreamError:
        text = self._mask_secrets(answer.text)
        return map_error(answer.status_code, answer.headers, text, url=answer.request.url, is_create=is_create)

    def _map_error_in_success(self, answer: httpx2.Response, body: JSON) -> UpstreamError:
        text = self._mask_secrets(json.dumps(body))
        status = read_status(body)
        error = map_error(status, answer.headers, text, url=answer.request.url, is_create=True)
        if status == DEFAULT_STATUS and isinstance(error, UnclearError):
            return RefusedError(str(error), code=error.code or "server_error", status=answer.status_code)
        return error

    async def _delete_at(self, url: httpx2.URL) -> None:
        try:
            await self._send_request("DELETE", url)
        except RefusedError as error:
            if error.status != 404:
                raise

    def _response_url(self, response_id: str, action: str = "") -> httpx2.URL:
        return self.endpoint.url(f"/responses/{quote_segment(response_id)}{action}")

    async def _send_request(
        self, method: str, url: httpx2.URL, *, total_s: float = RETRIEVE_TOTAL_S, **content: Any
    ) -> httpx2.Response:
        dialed = DialedAddress()
        try:
            with anyio.fail_after(total_s):
                answer = await self._kept.request(method, url, extensions={"trace": dialed.trace}, **content)
        except (httpx2.TransportError, TimeoutError) as error:
            raise map_transport_error(error, self.endpoint.base_url, dialed, is_sent=True) from error
        if not answer.is_success:
            raise self._map_answer(answer)
        return answer

    def _mask_secrets(self, text: str) -> str:
        """Return a text without secrets: some servers quote the header that they refuse."""
        for secret in (*self._secrets, *self._renewal.keys):
            if len(secret) >= SECRET_CHARS:
                text = text.replace(secret, "***")
        return text


def find_background_flag(event: JSON) -> bool | None:
    """Return whether upstream says that the run continues without this connection; None where it does not say.

    Some servers accept `background` and ignore it.
    """
    background = object_of(event.get("response")).get("background")
    if isinstance(background, bool):
        return background
    return None


def _limit_silence(is_background: bool | None) -> float:
    """Return the seconds that a stream may be silent."""
    if is_background is False:
        return HELD_IDLE_S
    return STREAM_IDLE_S


def _read_background(event: JSON, known: bool | None) -> bool:
    """Return whether the run continues without this connection; where nothing says so, it may depend on it."""
    background = find_background_flag(event)
    if background is None:
        return bool(known)
    return background


def _read_object(answer: httpx2.Response) -> JSON:
    """Return the object in a JSON answer, which has an id."""
    body = parse_object(answer.text)
    if body is not None and body.get("id"):
        return body
    url = answer.request.url
    kind = read_content_type(answer) or "nothing"
    words = f"{redact_url(url)} answered {kind}, which is not a response object"
    if body is None and answer.request.method == "GET" and read_response_id(url):
        words = f"retrieve is not served here: {words}"
    raise UnclearError(words, code="not_a_responses_api", status=answer.status_code)


def _find_file(files: Sequence[JSON], path: str) -> JSON:
    """Return the file at a path, else the first of the same name, else an empty object."""
    name = path.rpartition("/")[2]
    same_name = [file for file in files if str(file.get("path")).rpartition("/")[2] == name]
    same_path = [file for file in same_name if str(file.get("path")) == path]
    return object_of(next(chain(same_path, same_name), None))


@asynccontextmanager
async def open_client(
    endpoint: Endpoint,
    *,
    start_timeout_s: float = 120.0,
    secrets: Iterable[str] = (),
    read_endpoint: ReadEndpoint = read_no_endpoint,
) -> AsyncGenerator[ResponsesClient]:
    """Open a client of one endpoint. Proxies and certificates come from the environment, as httpx2 reads them.

    Args:
        endpoint: The address and the key.
        start_timeout_s: Seconds that a create waits for a silent upstream.
        secrets: Strings that no error may contain, even if upstream quotes them.
        read_endpoint: Reads the key again after upstream refused it.

    Raises:
        ConfigError: The environment names certificates or a proxy that cannot be used.
    """
    # Building a TLS context takes ~40 ms, so both clients share one, and a thread builds it.
    try:
        verify = await anyio.to_thread.run_sync(httpx2.create_ssl_context)
    except OSError:  # also for a bad PEM file
        raise ConfigError(
            "The certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be used.", "unusable_certificates"
        ) from None
    timeout = httpx2.Timeout(RETRIEVE_READ_S, connect=CONNECT_S, pool=None)
    # Upstream may close a kept connection just as a POST leaves; then it is unknown whether the POST arrived.
    unkept = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    kept = httpx2.Limits(max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS)
    try:
        once, reused = (
            httpx2.AsyncClient(verify=verify, headers=endpoint.headers, timeout=timeout, limits=limits)
            for limits in (unkept, kept)
        )
    except (ValueError, ImportError, httpx2.InvalidURL):
        raise ConfigError("The proxy of HTTPS_PROXY or ALL_PROXY cannot be used.", "unusable_proxy") from None
    async with once, reused:
        yield ResponsesClient(endpoint, once, reused, start_timeout_s, tuple(secrets), read_endpoint)
