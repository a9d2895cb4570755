"""Send webhooks about responses that ended, signed as Standard Webhooks defines it."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from .faults import Fault
from .run import Clock, Run

if TYPE_CHECKING:  # most emulators send no webhooks
    import httpx2

__all__ = ["ATTEMPTS", "WebhookSender", "sign_message"]

ATTEMPTS = 5  # OpenAI tries for three days
FIRST_RETRY_S = 5.0  # emulated, then doubling
TIMEOUT_S = 10.0  # real seconds


class WebhookSender:
    """Sends a webhook for each background response that ends, until its receiver accepts it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._url = self._secret = ""
        self._client: httpx2.AsyncClient | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Close the connections to the receiver at the end."""
        try:
            yield
        finally:
            if self._client is not None:
                await self._client.aclose()

    def configure(self, url: str, secret: str) -> None:
        """Send webhooks to this address from now on, signed with this secret; an empty address sends none."""
        self._url, self._secret = url, secret

    async def send(self, run: Run, fault: Fault) -> None:
        """Send the webhook of a response that ended, with what the fault does to it."""
        if not self._url or fault.webhook_lost:
            return
        await self._clock.sleep(fault.delay_s)
        kind = f"response.{run.status}"
        event = {
            "id": f"evt_{secrets.token_hex(16)}",
            "object": "event",
            "created_at": int(time.time()),
            "type": kind,
            "data": {"id": run.id},
        }
        message_id, body = f"wh_{secrets.token_hex(16)}", json.dumps(event).encode()
        for _ in range(fault.webhook_copies):
            await self._deliver(message_id, body)

    async def _deliver(self, message_id: str, body: bytes) -> None:
        wait_s = FIRST_RETRY_S
        for _ in range(ATTEMPTS):
            if await self._post_message(message_id, body):
                return
            await self._clock.sleep(wait_s)
            wait_s *= 2

    async def _post_message(self, message_id: str, body: bytes) -> bool:
        """Return True if the receiver accepted the message."""
        sent_at = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)",
            "webhook-id": message_id,
            "webhook-timestamp": str(sent_at),
            "webhook-signature": sign_message(self._secret, message_id, sent_at, body),
        }
        import httpx2

        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)
        try:
            with anyio.fail_after(TIMEOUT_S):
                answer = await self._client.post(self._url, content=body, headers=headers)
        except (TimeoutError, httpx2.HTTPError):
            return False
        return answer.is_success


def sign_message(secret: str, message_id: str, sent_at: int, body: bytes) -> str:
    """Return the signature of a message, with a secret that begins with whsec_."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{message_id}.{sent_at}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"
