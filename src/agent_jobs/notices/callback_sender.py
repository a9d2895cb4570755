"""Send a callback to the address that the caller of a job named: over https, signed, and to the internet only.

The name of the host is resolved once. The connection goes to the address that was checked, while TLS and the Host
header keep the name: a name that changes its address between the check and the connection gains nothing.
"""

import hmac
import json
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex, token_urlsafe
from ssl import SSLContext, SSLError
from typing import NamedTuple

import anyio
import httpx2

from agent_jobs.callback_urls import AllowedHost, RefusedUrlError, choose_address, parse_callback_url
from agent_jobs.clock import Clock
from agent_jobs.errors import ConfigError
from agent_jobs.files.secret_file import read_secret_file
from agent_jobs.notices.requests import sign_webhook
from agent_jobs.notices.sender import hide_addresses
from agent_jobs.settings.notice_targets import decode_secret

REQUEST_LIMIT_S = 15.0  # for one attempt, from the name to the status
FINAL = frozenset({410, 413})  # the receiver wants it no more, or finds it too large
CHALLENGE_LIMIT_S = 10.0  # the subscriber waits for it
CHALLENGE_BYTES = 32
MAX_SECRET_BYTES = 64  # as the specification says
MAX_ECHO_BYTES = 4096

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
            "AGENT_JOBS_CALLBACK_SECRET_FILE names {path}, which must have a secret on each line.",
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

    async def send(
        self, address: str, message_id: str, body: bytes, subscription_id: str = "", secrets: Sequence[str] = (), /
    ) -> Outcome:
        """POST a callback once. No outcome repeats the address, which may hold a secret.

        With a subscription, that one's secrets sign it.
        """
        hide_addresses()
        try:
            with anyio.fail_after(REQUEST_LIMIT_S):
                headers = self._make_headers(message_id, body, subscription_id, secrets)
                status, _ = await self._post_callback(address, headers, body)
        except RefusedUrlError as refused:
            return Outcome(str(refused), is_final=False)
        except (TimeoutError, httpx2.TimeoutException):
            return Outcome("no answer in time", is_final=False)
        except httpx2.HTTPError as error:
            return Outcome(f"no connection ({type(error).__name__})", is_final=False)
        if 200 <= status < 300:
            return Outcome()
        return Outcome(f"it answered with status {status}", is_final=status in FINAL)

    def check_url(self, url: str) -> None:
        """Raise RefusedUrlError for an address that may not be called."""
        parse_callback_url(url, self._allowed)

    def is_secret(self, text: str) -> bool:
        """Return True if a text is a secret that can sign messages."""
        secret = decode_secret(text)
        return secret is not None and len(secret) <= MAX_SECRET_BYTES

    async def challenge(self, url: str, subscription_id: str, secret: str) -> str:
        """Ask a receiver to echo a challenge; return why it is not verified, empty if it is.

        The reasons are words of the protocol, and show nothing that the receiver answered.

        Raises:
            RefusedUrlError: Its name stands for an address that may not be called.
        """
        hide_addresses()
        nonce = token_urlsafe(CHALLENGE_BYTES)
        body = json.dumps({"type": "verification", "challenge": nonce}, separators=(",", ":")).encode()
        headers = self._make_headers(f"msg_verification_{token_hex(12)}", body, subscription_id, [secret])
        try:
            with anyio.fail_after(CHALLENGE_LIMIT_S):
                status, answer = await self._post_callback(url, headers, body, MAX_ECHO_BYTES)
        except (TimeoutError, httpx2.TimeoutException):
            return "timeout"
        except httpx2.HTTPError as error:
            return _name_failure(error)
        if status >= 400:
            return f"http_{status // 100}xx"
        if status < 300 and hmac.compare_digest(_read_echo(answer).encode("utf-8", "replace"), nonce.encode()):
            return ""
        return "challenge_failed"

    async def _post_callback(
        self, address: str, signed: dict[str, str], body: bytes, max_answer_bytes: int = 0
    ) -> tuple[int, bytes]:
        """Return the status, and the beginning of the answer."""
        url = parse_callback_url(address, self._allowed)
        ip = choose_address(url, await self._resolve(url.host, url.port))
        headers = {"host": url.host_header, **signed}
        # Not through a proxy: it would resolve the name itself.
        async with (
            httpx2.AsyncClient(verify=self._tls or True, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "POST", url.address_of(ip), content=body, headers=headers, extensions={"sni_hostname": url.host}
            ) as response,
        ):
            return response.status_code, await _read_beginning(response, max_answer_bytes)

    def _make_headers(
        self, message_id: str, body: bytes, subscription_id: str, secrets: Sequence[str]
    ) -> dict[str, str]:
        sent_at = int(self._clock.now())
        keys, subscription = self._secrets, dict[str, str]()
        if subscription_id:
            keys = [key for key in map(decode_secret, secrets) if key is not None]
            subscription = {"x-mcp-subscription-id": subscription_id}
        return {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "agent-jobs",
            "webhook-id": message_id,
            "webhook-timestamp": str(sent_at),
            "webhook-signature": " ".join(sign_webhook(key, message_id, sent_at, body) for key in keys),
            **subscription,
        }


async def _read_beginning(response: httpx2.Response, max_bytes: int) -> bytes:
    """Return an answer up to a limit; a longer one is cut, and nothing is read if nothing is wanted."""
    found = b""
    if not max_bytes:
        return found
    async for piece in response.aiter_raw():
        found += piece
        if len(found) > max_bytes:
            break
    return found[:max_bytes]


def _read_echo(answer: bytes) -> str:
    """Return the challenge in an answer; empty if it has none."""
    with suppress(ValueError, RecursionError, AttributeError, TypeError):
        echoed = json.loads(answer).get("challenge")
        if isinstance(echoed, str):
            return echoed
    return ""


def _name_failure(error: httpx2.HTTPError) -> str:
    """Return the protocol's word for a connection that failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SSLError):
            return "tls_error"
        cause = cause.__cause__ or cause.__context__
    return "connection_refused"
