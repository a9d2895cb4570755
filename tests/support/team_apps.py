"""Routes of the team server, served alone over loopback, and webhooks as the provider would send them."""

import base64
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

import anyio
import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from agent_jobs.emulator.webhooks import sign_message

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
NEXT_SECRET = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba9876543210").decode()


@asynccontextmanager
async def serving_routes(routes: Sequence[BaseRoute]) -> AsyncGenerator[str]:
    """Serve these routes in this process, and yield their address."""
    config = uvicorn.Config(Starlette(routes=routes), port=0, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals  # pyright: ignore[reportAttributeAccessIssue]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_serve_to_end, server)
        with anyio.fail_after(60):
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await anyio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = server.force_exit = True


async def _serve_to_end(server: uvicorn.Server) -> None:
    """Serve also while a failed test is cancelled, so that all sockets are closed."""
    with anyio.CancelScope(shield=True):
        await server.serve()


def _no_signals() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def webhook_request(
    response_id: Any, *, secret: str = SECRET, sent_at: float | None = None, kind: str = "response.completed"
) -> dict[str, Any]:
    """Return the arguments of a POST of the provider."""
    message_id, at = f"wh_{token_hex(8)}", int(time.time() if sent_at is None else sent_at)
    body = json.dumps({"object": "event", "type": kind, "data": {"id": response_id}}).encode()
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign_message(secret, message_id, at, body),
    }
    return {"content": body, "headers": headers}


@asynccontextmanager
async def client_of(url: str) -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        yield client
