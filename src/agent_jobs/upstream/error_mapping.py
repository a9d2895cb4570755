"""Map an HTTP answer or a broken connection to the UpstreamError that says what the caller can do."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx2

from agent_jobs.errors import (
    AccountError,
    BusyError,
    MissingError,
    RefusedError,
    UnclearError,
    UnsentError,
    UpstreamError,
)
from agent_jobs.upstream.connection_failure import DialedAddress, explain_failure, explain_refusal
from agent_jobs.upstream.endpoint import read_response_id, redact_url
from agent_jobs.upstream.error_body import ErrorBody, read_error_body
from agent_jobs.upstream.json_object import parse_object
from agent_jobs.upstream.retry_after import read_retry_after_s

MESSAGE_CHARS = 500  # an answer that quotes the request back would fill a tool answer

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
#: Words of servers for a path that they do not serve, where a missing model or conversation would be named.
NO_ROUTE = ("", "Not Found", "Method Not Allowed")
#: A refused parameter was read before anything began, even with another status.
_REFUSED_PARAMETER = re.compile(
    r"UnsupportedParamsError|extra_forbidden|[Ee]xtra (?:inputs|fields) (?:are )?not permitted"
    r"|(?:[Uu]nknown|[Uu]nsupported|[Uu]nrecogni[sz]ed) (?:request )?(?:parameter|argument)"
)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An HTTP answer that is no success, with everything that the mapping reads of it."""

    status: int
    headers: Mapping[str, str]
    text: str
    url: httpx2.URL | None
    is_create: bool
    error: ErrorBody

    def names_parameter(self) -> bool:
        """Return True if a create was refused for a parameter, so that it cannot have been accepted."""
        words = f"{self.error.code} {self.error.message}"
        return self.is_create and _REFUSED_PARAMETER.search(words) is not None

    def is_about_address(self) -> bool:
        """Return True if a create got a status that means a wrong address or a fault in the request."""
        return self.is_create and self.status in (404, 405) and not self.names_parameter()

    def is_about_model(self) -> bool:
        """Return True if a create named a model that is not there."""
        return self.is_about_address() and "model" in f"{self.error.code} {self.error.message}".lower()

    def is_no_endpoint(self) -> bool:
        """Return True if nothing serves POST /responses at this address."""
        if not self.is_about_address() or self.is_about_model():
            return False
        words = self.error.message
        return parse_object(self.text) is None or words in NO_ROUTE or words.startswith("Invalid URL")

    def code(self) -> str:
        """Return the code for the caller: upstream's own, unless the answer shows a more exact one."""
        if self.is_about_model():
            return "model_not_found"  # vLLM gives the status as the code
        if self.is_no_endpoint():
            return "no_such_endpoint"
        return self.error.code

    def message(self) -> str:
        """Return one sentence, in upstream's words where it gave any."""
        if self.is_no_endpoint():
            return f"there is no Responses API at {redact_url(self.url)}"
        return self.error.message[:MESSAGE_CHARS] or f"HTTP {self.status}"


def _needs_account_holder(refusal: _Refusal) -> bool:
    if refusal.status != 429:
        return refusal.status in (401, 403)
    if refusal.error.code in QUOTA_CODES or refusal.error.type in QUOTA_CODES:
        return True
    return not _is_conversation_locked(refusal) and refusal.headers.get("x-should-retry") == "false"


def _is_conversation_locked(refusal: _Refusal) -> bool:
    """Return True if another response of the conversation is running."""
    return refusal.code() == "conversation_locked"


def _is_busy(refusal: _Refusal) -> bool:
    if _is_conversation_locked(refusal):
        return True
    if refusal.status == 503:
        # Without an envelope it may come from a balancer that had passed the request on.
        return refusal.error.is_envelope and not refusal.names_parameter()
    return refusal.status == 429


def _may_be_accepted(refusal: _Refusal) -> bool:
    is_server_fault = refusal.status >= 500 and refusal.status != 501
    return (is_server_fault or refusal.status in (408, 425)) and not refusal.names_parameter()


def _is_missing_response(refusal: _Refusal) -> bool:
    response_id = read_response_id(refusal.url)
    if refusal.is_create or not response_id:
        return False
    return refusal.status == 404 or (refusal.status == 400 and response_id in refusal.error.message)


#: The first row that applies names the error; a refusal to which none applies is a RefusedError.
_RULES: tuple[tuple[Callable[[_Refusal], bool], type[UpstreamError]], ...] = (
    (_needs_account_holder, AccountError),
    (_is_busy, BusyError),
    (_may_be_accepted, UnclearError),
    (_is_missing_response, MissingError),
)


def map_error(
    status: int, headers: Mapping[str, str], body: str, *, url: httpx2.URL | None = None, is_create: bool = False
) -> UpstreamError:
    """Return the error for an HTTP answer that is no success (the table of OpenAI's error-codes guide).

    Args:
        status: The HTTP status.
        headers: The answer's headers.
        body: Its text, without secrets.
        url: The address that was called.
        is_create: Whether the call was POST /responses, which must not be repeated if it may have been accepted.
    """
    refusal = _Refusal(status, headers, body, url, is_create, read_error_body(body))
    kind = next((kind for applies, kind in _RULES if applies(refusal)), RefusedError)
    message = refusal.message()
    if 300 <= status < 400 and kind is RefusedError:
        message = f"the provider redirects to {headers.get('location', 'elsewhere')}"
    return kind(
        message,
        code=refusal.code(),
        param=refusal.error.param,
        status=status,
        request_id=headers.get("x-request-id"),
        retry_after_s=read_retry_after_s(headers),
    )


def map_transport_error(
    error: Exception, base_url: str, dialed: DialedAddress, *, is_sent: bool
) -> UnclearError | UnsentError:
    """Return the error for a connection that failed.

    Before the first byte nothing happened. After it, upstream may have accepted the request.
    """
    url = httpx2.URL(base_url)
    host = url.netloc.decode()
    if isinstance(error, httpx2.SSEError):
        return UnclearError(f"{host} sent an event stream that cannot be read", code="unreadable_stream")
    if is_sent and not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
        return UnclearError(f"the connection to {host} broke ({type(error).__name__})", code="connection_lost")
    if isinstance(error, httpx2.ProxyError):
        failure = explain_refusal(str(error), scheme=url.scheme, dialed=dialed, host=host)
    else:
        failure = explain_failure(error, dialed, url)
    if is_sent:
        return UnclearError(failure.text, code="unreachable", fix=failure.fix, data=failure.data)
    return UnsentError(failure.text, code="unreachable", fix=failure.fix, data=failure.data)
