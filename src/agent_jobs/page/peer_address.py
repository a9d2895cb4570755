"""Read the address of a request's sender, for the audit log."""

from ipaddress import ip_address

from starlette.types import Scope


def read_address(scope: Scope) -> str:
    """Return the IP address of a client, as the peer or a trusted balancer names it; empty if it is none.

    A client can write anything into X-Forwarded-For, and a balancer may pass it on.
    """
    client = scope.get("client")
    if client is None:
        return ""
    written, _, _ = client[0].partition("%")  # a zone is free text
    try:
        return str(ip_address(written))
    except ValueError:
        return ""
