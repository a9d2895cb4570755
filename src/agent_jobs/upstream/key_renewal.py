"""Send a call again with another key, if the user has replaced the one that upstream refused."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import anyio
import httpx2

from agent_jobs.upstream.endpoint import Endpoint

UNAUTHORIZED = 401

#: Reads the key again; None if there is none for this address.
ReadEndpoint = Callable[[], Awaitable[Endpoint | None]]


async def read_no_endpoint() -> Endpoint | None:
    """Return None: the key stays what it is."""
    return None


class KeyRenewal(httpx2.Auth):
    """Sends a call again that upstream refused because of its key, if another key is stored by now."""

    def __init__(self, endpoint: Endpoint, read: ReadEndpoint) -> None:
        self.endpoint = endpoint
        self.keys: list[str] = []  #: that replaced the first one
        self._read = read
        self._lock = anyio.Lock()
        self._clients: Sequence[httpx2.AsyncClient] = ()

    def watch(self, *clients: httpx2.AsyncClient) -> None:
        """Have these clients send the key of the endpoint from now on."""
        self._clients = clients
        for client in clients:
            client.auth = self

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Send a call; once more after a 401, if there is another key."""
        sent_with = self.endpoint
        response = yield request
        if response.status_code == UNAUTHORIZED and await self.renew(sent_with):
            request.headers.update(self.endpoint.headers)
            yield request

    async def renew(self, refused: Endpoint) -> bool:
        """Read the key again; return True if it is another one than that of the refused call."""
        async with self._lock:  # many calls may be refused at once
            if self.endpoint is not refused:
                return True
            found = await self._read()
            if found is None or found == refused or found.base_url != refused.base_url:
                return False
            self.endpoint = found
            self.keys.append(found.key)
            for client in self._clients:
                client.headers.update(found.headers)
            return True
