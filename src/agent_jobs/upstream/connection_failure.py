"""Explain why no connection could be made, and which setting changes that."""

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, cast
from urllib.request import getproxies

import httpx2

from agent_jobs.upstream.endpoint import OPENAI_HOST

BASE_URL = "OPENAI_BASE_URL"
CERTIFICATES = "SSL_CERT_FILE"
DEFAULT_PORTS = {"http": 80, "https": 443}


class FailureKind(StrEnum):
    """The thing that has to be changed, as the code of the fix."""

    ADDRESS = "wrong_address"  #: the host, the port or the network
    AUTHORITY = "certificate_untrusted"  #: which certificates are trusted
    DATE = "certificate_expired"  #: the clock, or the server's certificate
    HOST = "certificate_host"  #: the host, whose certificate is for another
    SCHEME = "no_tls"  #: https, where only http is spoken
    TLS = "tls_failed"


class FailureReason(NamedTuple):
    """A cause in few words."""

    words: str
    kind: FailureKind


#: By OpenSSL's codes. On macOS and Windows the system checks and has its own codes; its words are shown as they are.
CERTIFICATE_REASONS: Mapping[int, FailureReason] = {
    9: FailureReason("its certificate is not valid yet", FailureKind.DATE),
    10: FailureReason("its certificate has expired", FailureKind.DATE),
    18: FailureReason("self-signed certificate", FailureKind.AUTHORITY),
    19: FailureReason("self-signed certificate in its chain", FailureKind.AUTHORITY),
    20: FailureReason("certificate of an unknown authority", FailureKind.AUTHORITY),
    21: FailureReason("certificate of an unknown authority", FailureKind.AUTHORITY),
    62: FailureReason("its certificate is for another host", FailureKind.HOST),
    64: FailureReason("its certificate is for another host", FailureKind.HOST),
}
#: OpenSSL's reasons for bytes that are not TLS.
NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"})
NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


@dataclass
class DialedAddress:
    """The address that a call connected to, as httpx2's trace extension reports it while the call runs."""

    host: str = ""
    port: int = 0
    is_through_proxy: bool = False  #: a proxy answered, so the other side is the server itself

    async def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Record a step of the call."""
        match name:
            case "connection.connect_tcp.started":
                self.host, self.port = info["host"], info["port"]
            case "proxy.start_tls.started":
                self.is_through_proxy = True
            case _:
                pass


class ConnectionFailure(NamedTuple):
    """The reason why a server cannot be reached, and the code of the fix with its facts."""

    text: str
    fix: str
    data: Mapping[str, str] = MappingProxyType({})


def explain_failure(error: BaseException, dialed: DialedAddress, url: httpx2.URL) -> ConnectionFailure:
    """Return which setting does not lead to a server, and why.

    Args:
        error: The error that the HTTP client raised.
        dialed: The address that it connected to: another host than the server's where a proxy is used.
        url: The server's address.
    """
    reason = _find_reason(error)
    default_port = DEFAULT_PORTS.get(url.scheme, 80)
    port = url.port or default_port
    is_other_address = bool(dialed.host) and (dialed.host, dialed.port) != (url.host, port)
    if is_other_address and not dialed.is_through_proxy:
        return _explain_proxy_failure(reason, dialed, url.scheme)
    where = url.host
    if port != default_port:
        where = _join_address(url.host, port)
    text = f"{reason.words}, cannot connect to {where}"  # the reason first: short answers cut the end
    if reason.kind is FailureKind.AUTHORITY:
        return ConnectionFailure(f"{CERTIFICATES}: {text}", reason.kind)
    if reason.kind is FailureKind.ADDRESS and url.host == OPENAI_HOST:
        return ConnectionFailure(text, "network_down")
    return ConnectionFailure(f"{BASE_URL}: {text}", reason.kind)


def explain_refusal(answer: str, *, scheme: str, dialed: DialedAddress, host: str) -> ConnectionFailure:
    """Return the words of a proxy that refuses to connect to a host."""
    setting = _find_proxy_setting(scheme)
    proxy = _join_address(dialed.host, dialed.port)
    fix = "proxy_refused"
    if answer.startswith("407"):
        fix = "proxy_password"
    facts = {"setting": setting, "proxy": proxy}
    return ConnectionFailure(f"{setting}: {answer}, the proxy {proxy} does not connect to {host}", fix, facts)


def _explain_proxy_failure(reason: FailureReason, dialed: DialedAddress, scheme: str) -> ConnectionFailure:
    text = f"{reason.words}, cannot connect to the proxy {_join_address(dialed.host, dialed.port)}"
    if reason.kind is FailureKind.AUTHORITY:
        return ConnectionFailure(f"{CERTIFICATES}: {text}", reason.kind)
    setting = _find_proxy_setting(scheme)
    return ConnectionFailure(f"{setting}: {text}", "proxy_unreachable", {"setting": setting})


def _find_reason(error: BaseException) -> FailureReason:
    for cause in _list_causes(error):
        reason = _read_cause(cause)
        if reason is not None:
            return reason
    return FailureReason(str(error) or type(error).__name__, FailureKind.ADDRESS)


def _read_cause(error: BaseException) -> FailureReason | None:
    match error:
        case ssl.SSLError():
            return _read_tls_error(error)
        case socket.gaierror():
            return FailureReason("no such host", FailureKind.ADDRESS)
        case ConnectionRefusedError():
            return FailureReason("connection refused", FailureKind.ADDRESS)
        case TimeoutError():
            return FailureReason("no answer", FailureKind.ADDRESS)
        case OSError() if error.errno in NO_ROUTE:
            return FailureReason("no route to it", FailureKind.ADDRESS)
        case _:
            return None


def _read_tls_error(error: ssl.SSLError) -> FailureReason:
    match error:
        case ssl.SSLCertVerificationError():
            code = getattr(error, "verify_code", 0)
            words = getattr(error, "verify_message", "") or "certificate is not trusted"
            return CERTIFICATE_REASONS.get(code, FailureReason(f"certificate: {words}", FailureKind.AUTHORITY))
        case ssl.SSLError() if error.reason in NO_TLS:
            return FailureReason("it does not speak TLS", FailureKind.SCHEME)
        case ssl.SSLEOFError():
            return FailureReason("closed during the TLS handshake", FailureKind.TLS)
        case _:
            words = str(error.reason or error).lower().replace("_", " ")
            return FailureReason(f"TLS fails: {words}", FailureKind.TLS)


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes, and the members of groups on the way, each once."""
    pending = [error]
    listed: set[int] = set()
    while pending:
        each = pending.pop()
        if id(each) in listed:
            continue
        listed.add(id(each))
        yield each
        cause = each.__cause__ or each.__context__
        if cause is not None:
            pending.append(cause)
        if isinstance(each, BaseExceptionGroup):
            pending += reversed(cast("BaseExceptionGroup[BaseException]", each).exceptions)


def _find_proxy_setting(scheme: str) -> str:
    """Return the variable that names the proxy for a scheme, as httpx2 chooses it."""
    if getproxies().get(scheme):
        return f"{scheme.upper()}_PROXY"
    return "ALL_PROXY"


def _join_address(host: str, port: int) -> str:
    if ":" in host:
        return f"[{host}]:{port}"
    return f"{host}:{port}"
