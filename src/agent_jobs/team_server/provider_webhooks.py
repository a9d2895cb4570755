"""Answer `POST /hooks/openai`: check the signature of a webhook, and have the engine retrieve the job that it names.

A webhook is only a hint: a forged one is refused, a repeated one changes nothing, and a genuine one leads to a GET,
which decides.
"""

import base64
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import ConfigError, StoreError
from agent_jobs.files.secret_file import read_secret_file
from agent_jobs.team_server.request_body import read_request_body

logger = logging.getLogger(__name__)

WEBHOOK_PATH = "/hooks/openai"
BODY_BYTES = 64 * 1024  # the provider sends a few hundred bytes
BODY_S = 5.0  # until the body is complete
ANSWER_S = 0.9  # the provider counts a slow answer as a failure, and sends the webhook again
MAX_SECRETS = 4  # two while one is being changed, and some for a person's mistakes
MIN_SECRET_BYTES = 16  # Standard Webhooks asks for 24; shorter ones can be guessed
MAX_ID_CHARS = 200  # of a message or a response
RESPONSE_EVENTS = "response."  # the types of all events about responses begin so


class SecretsFile:
    """The secrets in a file, one on each line. A file that was changed is read again, without a restart.

    Args:
        path: The file.

    Raises:
        ConfigError: It cannot be read, or has no usable secret.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = self._find_version()
        self._keys = read_secrets(path)

    def read_current_keys(self) -> Sequence[Webhook]:
        """Return the verifiers of signatures. While the file cannot be used, the last ones stay."""
        try:
            version = self._find_version()
            if version != self._read_at:
                self._keys = read_secrets(self._path)
                self._read_at = version
        except ConfigError as error:
            logger.warning("%s", error)
        return self._keys

    def _find_version(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise _refuse_secrets_file(self._path, f"cannot be read: {error.strerror}") from None
        return found.st_mtime_ns, found.st_size


def read_secrets(path: Path) -> list[Webhook]:
    """Return a verifier of signatures for each secret in a file.

    Raises:
        ConfigError: The file cannot be read, or a line of it is no secret. No sentence repeats a line.
    """
    lines = read_secret_file("AGENT_JOBS_WEBHOOK_SECRET_FILE", path).split()
    if not 0 < len(lines) <= MAX_SECRETS:
        raise _refuse_secrets_file(path, f"has {len(lines)} secrets; it accepts 1 to {MAX_SECRETS}, one on each line")
    return [_parse_secret(path, number, line) for number, line in enumerate(lines, 1)]


def _parse_secret(path: Path, number: int, line: str) -> Webhook:
    try:
        text = line.removeprefix("whsec_").rstrip("=")
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if len(key) < MIN_SECRET_BYTES:
        raise _refuse_secrets_file(path, f"has no signing secret in line {number}: one begins with whsec_")
    return Webhook(key)


def _refuse_secrets_file(path: Path, problem: str) -> ConfigError:
    return ConfigError(f"AGENT_JOBS_WEBHOOK_SECRET_FILE names {path}, which {problem}.", "webhook_secrets")


class _Event(NamedTuple):
    """A webhook with a valid signature."""

    message_id: str
    kind: str
    response_id: str  #: empty for an event that is about something else


class _WebhookEndpoint:
    """Receives the webhooks of one provider."""

    def __init__(self, engine: Callable[[], Awaitable[Engine]], secrets: SecretsFile) -> None:
        self._engine = engine
        self._secrets = secrets

    async def receive(self, request: Request) -> Response:
        """Answer a webhook: 2xx once it is stored; any other status makes the provider send it again."""
        body = None
        with anyio.move_on_after(BODY_S):
            body = await read_request_body(request, BODY_BYTES)
        if body is None:
            return PlainTextResponse("The body is too long or too slow.", 413, {"Connection": "close"})
        event = read_event(self._secrets.read_current_keys(), body, dict(request.headers))
        if event is None:
            return PlainTextResponse("The signature is not of a secret of this server, or it is too old.", 400)
        if not event.response_id:
            return Response(status_code=204)
        return await self._store_event(event)

    async def _store_event(self, event: _Event) -> Response:
        with anyio.move_on_after(ANSWER_S):
            try:
                intake = (await self._engine()).webhooks
                if intake is not None:
                    await intake.accept(event.message_id, event.response_id, event.kind)
                    return Response(status_code=204)
            except (StoreError, ConfigError) as error:
                logger.warning("cannot store a webhook: %s", error)
        return PlainTextResponse("It cannot be stored now: send it again.", 503)


def build_webhook_routes(engine: Callable[[], Awaitable[Engine]], secrets: Path) -> list[Route]:
    """Return the route of the provider's webhooks. It needs no token: the signature is the proof.

    Args:
        engine: Returns the engine once it is open, unbound to any owner.
        secrets: The file with the signing secrets, `Settings.webhook_secret_file`.

    Raises:
        ConfigError: The file has no usable secret.
    """
    endpoint = _WebhookEndpoint(engine, SecretsFile(secrets))
    return [Route(WEBHOOK_PATH, endpoint.receive, methods=["POST"])]


def read_event(keys: Sequence[Webhook], body: bytes, headers: dict[str, str]) -> _Event | None:
    """Return the event in a webhook; None if no secret fits, or it was signed over five minutes ago."""
    for key in keys:
        try:
            content = key.verify(body, headers)
        except (WebhookVerificationError, ValueError, RecursionError):
            continue  # version 1.1.0 lets ValueError out for a garbled signature or body
        return _parse_event(headers["webhook-id"], content)
    return None


def _parse_event(message_id: str, content: Any) -> _Event | None:
    """Return what a signed body says; an event without a response if it is about something else."""
    if len(message_id) > MAX_ID_CHARS:
        return None
    match content:
        case {"type": str() as kind, "data": {"id": str() as response_id}} if kind.startswith(RESPONSE_EVENTS):
            return _Event(message_id, kind[:MAX_ID_CHARS], _drop_long_id(response_id))
        case {**event}:
            return _Event(message_id, str(event.get("type"))[:MAX_ID_CHARS], "")
        case _:
            return None


def _drop_long_id(response_id: str) -> str:
    """Return the id of a response; empty if it is longer than any."""
    if len(response_id) > MAX_ID_CHARS:
        return ""
    return response_id
