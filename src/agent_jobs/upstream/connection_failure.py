"""Why no connection could be made, and which setting changes that."""

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple, cast
from urllib.request import getproxies

BASE_URL, CERTIFICATES = "OPENAI_BASE_URL", "SSL_CERT_FILE"


class Kind(Enum):
    """What has to be changed."""

    ADDRESS = auto()  #: the host, the port or the network
    AUTHORITY = auto()  #: which certificates are trusted
    DATE = auto()  #: the clock, or the server's certificate
    HOST = auto()  #: the host, whose certificate is for another
    SCHEME = auto()  #: https, where only http is spoken
    TLS = auto()


class Reason(NamedTuple):
    """What went wrong, in few words."""

    words: str
    kind: Kind


#: By OpenSSL's codes; the words of others (on macOS and Windows the system checks) stand for themselves.
CERTIFICATE_REASONS: Mapping[int, Reason] = {
    9: Reason("its certificate is not valid yet", Kind.DATE),
    10: Reason("its certificate has expired", Kind.DATE),
    18: Reason("self-signed certificate", Kind.AUTHORITY),
    19: Reason("self-signed certificate in its chain", Kind.AUTHORITY),
    20: Reason("certificate of an unknown authority", Kind.AUTHORITY),
    21: Reason("certificate of an unknown authority", Kind.AUTHORITY),
    62: Reason("its certificate is for another host", Kind.HOST),
    64: Reason("its certificate is for another host", Kind.HOST),
}
#: What OpenSSL says of bytes that are no TLS.
NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"})
NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})
FIXES: Mapping[Kind, str] = {
    Kind.AUTHORITY: f"set {CERTIFICATES} to a PEM file with the certificate of its authority",
    Kind.DATE: f"check this machine's clock and {BASE_URL}; else the certificate must be renewed, there or in "
    f"{CERTIFICATES}",
    Kind.HOST: f"correct the host in {BASE_URL}",
    Kind.SCHEME: f"write http:// instead of https:// in {BASE_URL}, or another port",
    Kind.TLS: f"check host and port in {BASE_URL}, the proxy (HTTPS_PROXY) and {CERTIFICATES}",
}


@dataclass
class Dialed:
    """What a call connected to, as httpx2's trace extension reports it. Mutable: it fills while the call runs."""

    host: str = ""
    port: int = 0
    is_through_proxy: bool = False  #: a proxy answered, and beyond it is the server itself

    async def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Take in a step of the call."""
        if name == "connection.connect_tcp.started":
            self.host, self.port = info["host"], info["port"]
        elif name == "proxy.start_tls.started":
            self.is_through_proxy = True


class Failure(NamedTuple):
    """Why a server cannot be reached, and what a person at a terminal may do about it."""

    text: str
    fix: str


def explain_failure(
    error: BaseException, dialed: Dialed, *, scheme: str, host: str, port: int, is_default: bool = False
) -> Failure:
    """Return which setting does not lead to a server, and why.

    Args:
        error: What the HTTP client raised.
        dialed: What it connected to, which is another host than the server's where a proxy is used.
        scheme: Of the server's address, as are the following.
        host: Its name.
        port: Its port, the default one too.
        is_default: Whether that address is right, so that the network is to blame.
    """
    reason = _find_reason(error)
    at_proxy = bool(dialed.host) and (dialed.host, dialed.port) != (host, port) and not dialed.is_through_proxy
    if at_proxy:
        name = _find_proxy_setting(scheme)
        setting = CERTIFICATES if reason.kind is Kind.AUTHORITY else name
        fix = FIXES[Kind.AUTHORITY] if setting == CERTIFICATES else f"correct {name}, or name the host in NO_PROXY"
        proxy = _join(dialed.host, dialed.port)
        return Failure(f"{setting}: {reason.words}, cannot connect to the proxy {proxy}", fix)
    where = host if port == (443 if scheme == "https" else 80) else _join(host, port)
    text = f"{reason.words}, cannot connect to {where}"  # the reason first: short answers cut the end
    if is_default and reason.kind is Kind.ADDRESS:
        return Failure(text, "check the network; where only a proxy leads out, set HTTPS_PROXY")
    setting = CERTIFICATES if reason.kind is Kind.AUTHORITY else BASE_URL
    fix = FIXES.get(reason.kind, f"check host and port in {BASE_URL}; where only a proxy leads out, set HTTPS_PROXY")
    return Failure(f"{setting}: {text}", fix)


def explain_refusal(answer: str, *, scheme: str, dialed: Dialed, host: str) -> Failure:
    """Return what a proxy says that refuses to connect to a host."""
    setting = _find_proxy_setting(scheme)
    proxy = _join(dialed.host, dialed.port)
    if answer.startswith("407"):
        fix = f"put name and password into {setting}: http://NAME:PASSWORD@{proxy}"
    else:
        fix = f"check {BASE_URL} and {setting}; a host that needs no proxy stands in NO_PROXY"
    return Failure(f"{setting}: {answer}, the proxy {proxy} does not connect to {host}", fix)


def _find_reason(error: BaseException) -> Reason:
    for each in _causes(error):
        reason = _read_tls(each) if isinstance(each, ssl.SSLError) else _read_network(each)
        if reason is not None:
            return reason
    return Reason(str(error) or type(error).__name__, Kind.ADDRESS)


def _read_tls(error: ssl.SSLError) -> Reason:
    if isinstance(error, ssl.SSLCertVerificationError):
        code = getattr(error, "verify_code", 0)
        words = getattr(error, "verify_message", "") or "certificate is not trusted"
        return CERTIFICATE_REASONS.get(code, Reason(f"certificate: {words}", Kind.AUTHORITY))
    if error.reason in NO_TLS:
        return Reason("it does not speak TLS", Kind.SCHEME)
    if isinstance(error, ssl.SSLEOFError):
        return Reason("closed during the TLS handshake", Kind.TLS)
    return Reason(f"TLS fails: {str(error.reason or error).lower().replace('_', ' ')}", Kind.TLS)


def _read_network(error: BaseException) -> Reason | None:
    if isinstance(error, socket.gaierror):
        return Reason("no such host", Kind.ADDRESS)
    if isinstance(error, ConnectionRefusedError):
        return Reason("connection refused", Kind.ADDRESS)
    if isinstance(error, TimeoutError):
        return Reason("no answer", Kind.ADDRESS)
    if isinstance(error, OSError) and error.errno in NO_ROUTE:
        return Reason("no route to it", Kind.ADDRESS)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and what groups on the way hold."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _causes(each)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from _causes(cause)


def _find_proxy_setting(scheme: str) -> str:
    """Return the variable that names the proxy for a scheme, read as httpx2 reads them."""
    return f"{scheme.upper()}_PROXY" if getproxies().get(scheme) else "ALL_PROXY"


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
