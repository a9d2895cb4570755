"""Refuse requests for other host names, and requests from other web sites.

A page whose name an attacker points to this machine (DNS rebinding) must not reach it through a browser.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_jobs.team_server.refusals import RefusalResponse
from agent_jobs.web_address import LOOPBACK_HOSTS, is_loopback, split_address

DEFAULT_PORTS = {"http": 80, "https": 443}


class HostNames:
    """The names by which this server may be reached.

    Args:
        host: The address that it listens on.
        public_url: The address that its users know; None if they use the other one.
    """

    def __init__(self, host: str, public_url: str | None) -> None:
        self._is_local = is_loopback(host)
        self._own_names = (LOOPBACK_HOSTS | {host.lower()}) - {""}
        self._public_scheme = (public_url or "").partition(":")[0]
        self._public_origins = {_normalize_origin(public_url or "")} - {""}

    def is_known_host(self, host: str) -> bool:
        """Return True if a Host header names this server.

        Any IP address does, unless only this machine reaches the server: DNS rebinding needs a host name.
        """
        if _normalize_origin(f"{self._public_scheme}://{host}") in self._public_origins:
            return True
        name = _split_host(host)
        return name in self._own_names or (not self._is_local and _is_ip_address(name))

    def is_known_origin(self, origin: str) -> bool:
        """Return True if a page of this origin may send requests here: one of this server, or of this machine."""
        if _normalize_origin(origin) in self._public_origins:
            return True
        scheme, _, host = origin.partition("://")
        return self._is_local and scheme.lower() in DEFAULT_PORTS and _split_host(host) in self._own_names


class HostCheck:
    """Passes on requests for this server alone."""

    def __init__(self, app: ASGIApp, names: HostNames) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if not self._names.is_known_host(headers.get("host", "")):
                return await RefusalResponse.wrong_host()(scope, receive, send)
            if not all(map(self._names.is_known_origin, headers.getlist("origin"))):  # a program sends none
                return await RefusalResponse.wrong_origin()(scope, receive, send)
        return await self._app(scope, receive, send)


def _is_ip_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _split_host(host: str) -> str:
    """Return the name or address of a Host header in lower case; empty if it is malformed."""
    parts = split_address(f"//{host}")
    has_more = any((parts.path, parts.query, parts.fragment))
    if has_more or parts.port == 0 or "@" in parts.netloc:
        return ""
    return parts.hostname or ""


def _normalize_origin(url: str) -> str:
    """Return scheme, host and port of an address, the port also where it is the usual one; empty if malformed."""
    scheme, _, host = url.partition("://")
    name = _split_host(host)
    if not name or scheme not in DEFAULT_PORTS:
        return ""
    return f"{scheme}://{name}:{urlsplit(f'//{host}').port or DEFAULT_PORTS[scheme]}"
