"""Read the settings of the team server that are addresses: its own, and those of an OAuth issuer."""

from urllib.parse import SplitResult, urlsplit

from agent_jobs.setting_values import Reader, Written

MAX_PORT = 65_535
#: Hosts to which plain HTTP does not leave this machine.
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


def host_name() -> Reader:
    """Return the reader of an address to listen on: a name or an IP address, without a port."""
    accepts = "a host name or an IP address, such as 127.0.0.1 or 0.0.0.0"

    def read(written: Written) -> str:
        host = written.text.removeprefix("[").removesuffix("]")
        is_name = ":" not in host or host.count(":") > 1  # several are IPv6, one is a port
        if not is_name or any(letter in host for letter in "/@?# "):
            written.refuse(accepts)
        return host

    return Reader(accepts, read)


def port_number() -> Reader:
    """Return the reader of a port; 0 is any free one."""
    accepts = f"a port from 0 to {MAX_PORT}"

    def read(written: Written) -> int:
        text = written.text
        if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PORT)) and int(text) <= MAX_PORT):
            written.refuse(accepts)
        return int(text)

    return Reader(accepts, read)


def origin_url(example: str) -> Reader:
    """Return the reader of the address of a server, without a path."""
    accepts = "a web address without a path"

    def read(written: Written) -> str:
        parts = _split_web_address(written.text)
        if parts is None or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
            written.refuse(accepts, f"Set it to something like {example}.")
        return f"{parts.scheme}://{parts.netloc.lower()}"

    return Reader(accepts, read)


def _split_web_address(url: str) -> SplitResult | None:
    """Return the parts of a web address; None if it is something else."""
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return None
    if parts.scheme in ("http", "https") and parts.hostname and has_port:
        return parts
    return None
