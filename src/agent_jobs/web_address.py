"""Take web addresses apart, and recognise those of this machine. Pure."""

from urllib.parse import SplitResult, urlsplit

#: Names of this machine, to which plain HTTP leaves it by no network.
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
#: The ends of the host names of Azure's endpoints.
AZURE_HOST_ENDINGS = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
_NOTHING = SplitResult("", "", "", "", "")


def split_address(url: str) -> SplitResult:
    """Return the parts of an address; all are empty if it cannot be one, or has an impossible port."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises the ValueError of a port that is none
    except ValueError:
        return _NOTHING
    return parts


def split_web_address(url: str) -> SplitResult | None:
    """Return the parts of a web address; None if it is something else."""
    parts = split_address(url)
    if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
        return parts
    return None


def is_loopback(host: str) -> bool:
    """Return True if a host is this machine."""
    from ipaddress import ip_address  # not needed to start

    if host in LOOPBACK_HOSTS:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def write_host(host: str) -> str:
    """Return a host as addresses have it: one of IPv6 stands in brackets."""
    if ":" in host:
        return f"[{host}]"
    return host
