"""Map an HTTP answer or a broken connection to the UpstreamError that says what the caller can do."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

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
_NO_ROUTE = re.compile(r"(?:Not Found|Method Not Allowed)?\Z|Invalid URL")
#: A refused parameter was read before anything began, even with another status.
_REFUSED_PARAMETER = re.compile(
    r"UnsupportedParamsError|extra_forbidden|[Ee]xtra (?:inputs|fields) (?:are )?not permitted"
    r"|(?:[Uu]nknown|[Uu]nsupported|[Uu]nrecogni[sz]ed) (?:request )?(?:parameter|argument)"
)


class _Fault(Enum):
    """The fault of a create, where the answer shows it more exactly than its status and code."""

    PARAMETER = "a parameter, so that it cannot have been accepted"
    MODEL = "a model that is not there"
    ADDRESS = "an address at which nothing serves POST /responses"
    OTHER = "anything else"


#: The codes for the caller in the place of upstream's own: vLLM gives the status as the code of an unknown model.
_CODES = {_Fault.MODEL: "model_not_found", _Fault.ADDRESS: "no_such_endpoint"}
#: Statuses of a server that may have accepted the request.
_UNCLEAR_STATUSES = frozenset({408, 425, *range(500, 1000)}) - {501}


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An HTTP answer that is no success, with everything that the mapping reads of it."""

    status: int
    headers: Mapping[str, str]
    url: httpx2.URL | None
    is_create: bool
    error: ErrorBody
    fault: _Fault

    @property
    def code(self) -> str:
        """Return the code for the caller: upstream's own, unless the answer shows a more exact one."""
        return _CODES.get(self.fault, self.error.code)

    @property
    def message(self) -> str:
        """Return one sentence, in upstream's words where it gave any."""
        if self.fault is _Fault.ADDRESS:
            return f"there is no Responses API at {redact_url(self.url)}"
        return self.error.message[:MESSAGE_CHARS] or f"HTTP {self.status}"


def _needs_account_holder(refusal: _Refusal) -> bool:
    if refusal.status != 429:
        return refusal.status in (401, 403)
    if not QUOTA_CODES.isdisjoint((refusal.error.code, refusal.error.type)):
        return True
    return not _is_conversation_locked(refusal) and refusal.headers.get("x-should-retry") == "false"


def _is_conversation_locked(refusal: _Refusal) -> bool:
    """Return True if another response of the conversation is running."""
    return refusal.code == "conversation_locked"


def _is_busy(refusal: _Refusal) -> bool:
    if _is_conversation_locked(refusal):
        return True
    if refusal.status == 503:
        # Without an envelope it may come from a balancer that had passed the request on.
        return refusal.error.is_envelope and refusal.fault is not _Fault.PARAMETER
    return refusal.status == 429


def _may_be_accepted(refusal: _Refusal) -> bool:
    return refusal.status in _UNCLEAR_STATUSES and refusal.fault is not _Fault.PARAMETER


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
    error = read_error_body(body)
    fault = _Fault.OTHER
    if is_create:
        fault = _find_create_fault(status, body, error)
    refusal = _Refusal(status, headers, url, is_create, error, fault)
    kind = next((kind for applies, kind in _RULES if applies(refusal)), RefusedError)
    message = refusal.message
    if 300 <= status < 400 and kind is RefusedError:
        message = f"the provider redirects to {headers.get('location', 'elsewhere')}"
    return kind(
        message,
        code=refusal.code,
        param=error.param,
        status=status,
        request_id=headers.get("x-request-id"),
        retry_after_s=read_retry_after_s(headers),
    )


def _find_create_fault(status: int, text: str, error: ErrorBody) -> _Fault:
    words = f"{error.code} {error.message}"
    if _REFUSED_PARAMETER.search(words):
        return _Fault.PARAMETER
    if status not in (404, 405):
        return _Fault.OTHER
    if "model" in words.lower():
        return _Fault.MODEL
    if parse_object(text) is None or _NO_ROUTE.match(error.message):
        return _Fault.ADDRESS
    return _Fault.OTHER


def map_transport_error(
    error: Exception, base_url: str, dialed: DialedAddress, *, is_sent: bool
) -> UnclearError | UnsentError:
    """Return the error for a connection that failed.

    Before the first byte nothing happened. After it, upstream may have accepted the request.
    """
    url = httpx2.URL(base_url)
    host = url.netloc.decode()
    match error:
        case httpx2.SSEError():
            return UnclearError(f"{host} sent an event stream that cannot be read", code="unreadable_stream")
        case httpx2.ProxyError():
            failure = explain_refusal(str(error), scheme=url.scheme, dialed=dialed, host=host)
        case _ if is_sent and not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return UnclearError(f"the connection to {host} broke ({type(error).__name__})", code="connection_lost")
        case _:
            failure = explain_failure(error, dialed, url)
    if is_sent:
        return UnclearError(failure.text, code="unreachable", fix=failure.fix, data=failure.data)
    return UnsentError(failure.text, code="unreachable", fix=failure.fix, data=failure.data)
