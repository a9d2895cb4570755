"""Decide which addresses a server may call back: those of allowed hosts, and nothing inside a network. Pure."""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

from agent_jobs.web_address import LOOPBACK_HOSTS, is_loopback, write_host

MAX_URL_CHARS = 2000
HTTPS_PORT = 443
_PLAIN_URL = re.compile(
    rf"[!-\[\]-~]{{1,{MAX_URL_CHARS}}}"
)  # ASCII without spaces and backslashes, which parsers read in different ways
#: Networks of IPv6 that lead to addresses of IPv4 or of an organization.
_TUNNELS = tuple(map(ip_network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10")))


class AllowedHost(NamedTuple):
    """A host that may be called. Without a port, only the port of https is allowed."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        host = write_host(self.host)
        if self.port is None:
            return host
        return f"{host}:{self.port}"

    @property
    def schemes(self) -> tuple[str, ...]:
        """Return how its addresses may begin."""
        return ("https", "http") if self.is_loopback else ("https",)

    @property
    def is_loopback(self) -> bool:
        """Return True if the operator allows this machine itself, on one port: tests call it."""
        return self.port is not None and self.host in LOOPBACK_HOSTS


class CallbackUrl(NamedTuple):
    """An address that may be called."""

    scheme: str
    host: str
    port: int
    target: str  #: path and query
    allowed: AllowedHost  #: the entry of the operator's list that allows it

    @property
    def host_header(self) -> str:
        """Return the value of the Host header."""
        host = write_host(self.host)
        if self.scheme == "https" and self.port == HTTPS_PORT:
            return host
        return f"{host}:{self.port}"

    def address_of(self, ip: str) -> str:
        """Return the same address with the IP address of the host."""
        return f"{self.scheme}://{write_host(ip)}:{self.port}{self.target}"


class RefusedUrlError(Exception):
    """The address may not be called. Its text is a clause that does not repeat the address, which may hold a secret."""


def parse_callback_url(url: str, allowed: Sequence[AllowedHost]) -> CallbackUrl:
    """Return an address in its parts.

    Raises:
        RefusedUrlError: It may not be called.
    """
    if not _PLAIN_URL.fullmatch(url):
        raise RefusedUrlError(f"an address has up to {MAX_URL_CHARS} ASCII characters, without spaces and backslashes")
    try:
        parts = urlsplit(url)
        port = HTTPS_PORT if parts.port is None else parts.port
    except ValueError:
        raise RefusedUrlError("it is not an address") from None
    if "@" in parts.netloc:
        raise RefusedUrlError("it has a user name, which an address must not have")
    host = parts.hostname or ""
    entry = _find_entry(host, port, allowed)
    if entry is None:
        raise RefusedUrlError("the server's operator does not allow its host, or not this port")
    if parts.scheme not in entry.schemes:
        raise RefusedUrlError("it does not begin with https://")
    return CallbackUrl(parts.scheme, host, port, f"{parts.path or '/'}?{parts.query}".rstrip("?"), entry)


def choose_address(url: CallbackUrl, addresses: Sequence[str]) -> str:
    """Return the address to connect to, from the addresses of the host's name.

    Raises:
        RefusedUrlError: There is none, or one of them is not public: a name with both could be an attacker's.
    """
    if not addresses:
        raise RefusedUrlError("its name does not resolve")
    check = is_loopback if url.allowed.is_loopback else is_public
    if not all(map(check, addresses)):
        raise RefusedUrlError("its name resolves to an address that is not public")
    return addresses[0]


def is_public(address: str) -> bool:
    """Return True if an address is one of the internet: not private, local, reserved or a tunnel to such a one."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if any(ip in network for network in _TUNNELS):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _find_entry(host: str, port: int, allowed: Sequence[AllowedHost]) -> AllowedHost | None:
    """Return the entry that allows a host on a port."""
    return next((entry for entry in allowed if (entry.host, entry.port or HTTPS_PORT) == (host, port)), None)
