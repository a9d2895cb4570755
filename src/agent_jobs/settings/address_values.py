"""Read the settings of the team server that are addresses: its own, and those of an OAuth issuer."""

import re
from urllib.parse import SplitResult

from agent_jobs.settings.values import Reader, SecretStr, Written, parse_count
from agent_jobs.web_address import LOOPBACK_HOSTS, split_web_address

MAX_PORT = 65_535
MAX_HOST_CHARS = 253  # of a name in the DNS
_NAME = re.compile(rf"[^/\\@?#\[\]: ]{{1,{MAX_HOST_CHARS}}}")
#: What `find_host` finds, for a sentence.
HOST_ACCEPTS = "a host name or an IP address, such as 127.0.0.1 or 0.0.0.0"


def host_name() -> Reader:
    """Return the reader of an address to listen on: a name or an IP address, without a port."""

    def read(written: Written) -> str:
        host = find_host(written.text)
        if not host:
            written.refuse(HOST_ACCEPTS)
        return host

    return Reader(HOST_ACCEPTS, read)


def find_host(text: str) -> str:
    """Return a host name or an IP address without brackets; empty if the text is neither, or has a port."""
    host = re.sub(r"^\[(.*)\]$", r"\1", text)
    # A colon alone begins a port, unless it is part of an address of IPv6, maybe with a zone.
    if host.isprintable() and (_NAME.fullmatch(host) or _is_ipv6_address(host)):
        return host
    return ""


def _is_ipv6_address(text: str) -> bool:
    from ipaddress import IPv6Address  # not needed to start on stdin

    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def port_number() -> Reader:
    """Return the reader of a port; 0 is any free one."""
    accepts = f"a port from 0 to {MAX_PORT}"

    def read(written: Written) -> int:
        port = parse_count(written.text, MAX_PORT)
        if port is None:
            written.refuse(accepts)
        return port

    return Reader(accepts, read)


def origin_url(example: str) -> Reader:
    """Return the reader of the address of a server, without a path."""
    accepts = "a web address without a path"

    def read(written: Written) -> str:
        parts = _split_plain_address(written.text)
        if parts is None:
            written.refuse(accepts, f"Set it to something like {example}.")
        if parts.path.strip("/"):
            why = "The page, /files and the metadata for sign-ins stand at the root of their host."
            written.refuse(accepts, f"{why} Give the server a host name of its own, such as {example}.")
        return f"{parts.scheme}://{parts.netloc.lower()}"

    return Reader(accepts, read)


def issuer_url(example: str) -> Reader:
    """Return the reader of an address of an authorization server. Plain HTTP is for this machine alone."""
    accepts = "an address that starts with https://"

    def read(written: Written) -> str:
        parts = _split_plain_address(written.text)
        if parts is None or not _is_private_way(parts):
            written.refuse(accepts, f"Set it to something like {example}.")
        return written.text

    return Reader(accepts, read)


def introspection_url() -> Reader:
    """Return the reader of an introspection endpoint, with the credentials for it. No refusal shows it."""
    accepts = "an address such as https://NAME:SECRET@login.example.com/introspect"

    def read(written: Written) -> SecretStr:
        parts = split_web_address(written.text)
        if parts is None or parts.fragment or not _is_private_way(parts):
            written.refuse(accepts, "In a secret, write / as %2F, @ as %40, : as %3A and # as %23.")
        return SecretStr(written.text)

    return Reader(accepts, read)


def _split_plain_address(text: str) -> SplitResult | None:
    """Return the parts of a web address; None if it is something else, or has a user, a query or a fragment."""
    parts = split_web_address(text)
    if parts is None or any((parts.query, parts.fragment)) or "@" in parts.netloc:
        return None
    return parts


def _is_private_way(parts: SplitResult) -> bool:
    return parts.scheme == "https" or parts.hostname in LOOPBACK_HOSTS
