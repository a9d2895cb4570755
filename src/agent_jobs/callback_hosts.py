"""Read the hosts that a server may call back. Pure."""

import re
from typing import NamedTuple

from agent_jobs.setting_values import Reader, Written, parse_count
from agent_jobs.web_address import LOOPBACK_HOSTS, write_host

ACCEPTS = "names of hosts, each with or without a port, separated by commas"
MAX_PORT = 65_535
_HOST = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)(:(?P<port>[0-9]{1,5}))?")


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


def callback_hosts() -> Reader:
    """Return the reader of the hosts that may be called back."""

    def read(written: Written) -> tuple[AllowedHost, ...]:
        found: list[AllowedHost] = []
        for word in written.text.lower().split(","):
            match = _HOST.fullmatch(word.strip())
            if match is None:
                written.refuse(ACCEPTS, "Write no https:// and no path.")
            port = parse_count(match["port"] or "", MAX_PORT)
            if match["port"] and not port:
                written.refuse(ACCEPTS, f"A port is a number from 1 to {MAX_PORT}.")
            found.append(AllowedHost(match["host"].strip("[]"), port))
        return tuple(dict.fromkeys(found))

    return Reader(ACCEPTS, read, tuple[AllowedHost, ...], join=",".join)
