"""Read the hosts that a server may call back. Pure."""

import re

from agent_jobs.callback_urls import AllowedHost
from agent_jobs.settings.values import Reader, Written, parse_count

ACCEPTS = "names of hosts, each with or without a port, separated by commas"
MAX_PORT = 65_535
_HOST = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)(:(?P<port>[0-9]{1,5}))?")


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
