"""Send a callback to the address that the caller of a job named: over https, signed, and to the internet only.

The name of the host is resolved once. The connection goes to the address that was checked, while TLS and the Host
header keep the name: a name that changes its address between the check and the connection gains nothing.
"""

import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from ssl import SSLContext
from typing import NamedTuple

import anyio
import httpx2

from agent_jobs.callback_hosts import AllowedHost
from agent_jobs.callback_urls import RefusedUrlError, choose_address, parse_callback_url
from agent_jobs.clock import Clock
from agent_jobs.errors import ConfigError
from agent_jobs.notice_targets import decode_secret
from agent_jobs.notices.requests import sign_webhook
from agent_jobs.notices.sender import hide_addresses
from agent_jobs.secret_file import read_secret_file

REQUEST_LIMIT_S = 15.0  # for one attempt, from the name to the status
GONE = 410  # the receiver wants no more of them

#: Returns the addresses of a host's name.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class Outcome(NamedTuple):
    """The outcome of one attempt."""

    problem: str = ""  #: empty if the receiver accepted it
    is_final: bool = True


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name, as the system resolves it."""
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def read_signing_secrets(path: Path) -> list[bytes]:
    """Return the secrets in a file, one on each line.

    Raises:
        ConfigError: The file cannot be read, or a line of it is no secret.
    """
    words = read_secret_file("AGENT_JOBS_CALLBACK_SECRET_FILE", path).split()
    secrets = [secret for secret in map(decode_secret, words) if secret is not None]
    if not secrets or len(secrets) < len(words):
        raise ConfigError(
            "AGENT_JOBS_CALLBACK_SECRET_FILE names {path}, which has no secret in each line.",
            "callback_secrets",
            path=path,
        )
    return secrets


class CallbackSender:
    """Sends callbacks.

    Args:
        allowed: The hosts that may be called.
        secrets: Sign each callback, the first one first. There are two while one is being changed.
        clock: The time of the signatures.
        resolve: Returns the addresses of a name.
        tls: Which certificates are trusted; None means those that the system trusts.
    """

    def __init__(
        self,
        allowed: Sequence[AllowedHost],
        secrets: Sequence[bytes],
        clock: Clock,
        *,
        resolve: Resolve = resolve_name,
        tls: SSLContext | None = None,
    ) -> None:
        self._allowed = allowed
        self._secrets = secrets
        self._clock = clock
        self._resolve = resolve
        self._tls = tls

    async def send(self, address: str, message_id: str, body: bytes) -> Outcome:
        """POST a callback once. No outcome repeats the address, which may hold a secret."""
        hide_addresses()
        try:
            with anyio.fail_after(REQUEST_LIMIT_S):
                status = await self._post_callback(address, message_id, body)
        except RefusedUrlError as refused:
            return Outcome(str(refused), is_final=False)
        except (TimeoutError, httpx2.TimeoutException):
            return Outcome("no answer in time", is_final=False)
        except httpx2.HTTPError as error:
            return Outcome(f"no connection ({type(error).__name__})", is_final=False)
        if 200 <= status < 300:
            return Outcome()
        return Outcome(f"it answered with status {status}", is_final=status == GONE)

    async def _post_callback(self, address: str, message_id: str, body: bytes) -> int:
        url = parse_callback_url(address, self._allowed)
        ip = choose_address(url, await self._resolve(url.host, url.port))
        headers = {"host": url.host_header, **self._sign(message_id, body)}
        # Not through a proxy: it would resolve the name itself.
        async with (
            httpx2.AsyncClient(verify=self._tls or True, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "POST", url.address_of(ip), content=body, headers=headers, extensions={"sni_hostname": url.host}
            ) as response,
        ):
            return response.status_code

    def _sign(self, message_id: str, body: bytes) -> dict[str, str]:
        sent_at = int(self._clock.now())
        signatures = [sign_webhook(secret, message_id, sent_at, body) for secret in self._secrets]
        return {
            "content-type": "application/json",
            "user-agent": "agent-jobs",
            "webhook-id": message_id,
            "webhook-timestamp": str(sent_at),
            "webhook-signature": " ".join(signatures),
        }
