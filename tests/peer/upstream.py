# pyright: basic, reportMissingImports=false
"""Serve a third-party Responses API: Microsoft's agent server, streaming counted words.

It runs in the environment that requirements.txt describes, never in this project's own.
"""

import argparse
import asyncio
import json
import logging
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import uvicorn
from azure.ai.agentserver.responses import (
    InMemoryResponseProvider,
    ResponseEventStream,
    ResponsesAgentServerHost,
    ResponsesServerOptions,
    TextResponse,
)

HOST = "127.0.0.1"
OVERRIDE = re.compile(r"\b(seconds|tokens)=(\d+(?:\.\d+)?)")
#: Set once texts may get their last word.
released = asyncio.Event()


async def words(tokens: int, seconds: float, stop: asyncio.Event) -> AsyncIterator[str]:
    for index in range(tokens):
        if index == tokens - 1:
            await wait_for_one(released, stop)
        yield f"word-{index}" if index == 0 else f" word-{index}"
        try:
            await asyncio.wait_for(stop.wait(), seconds / tokens)
        except TimeoutError:
            continue
        return


async def wait_for_one(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def turns_of(items: list[dict]) -> list[dict]:
    """Return the turns that a prompt scripts for the emulator: "[emulate {"turns": [{"function_calls": [...]}]}]"."""
    texts = [part.get("text", "") for item in items if item.get("role") == "user" for part in item["content"]]
    script = " ".join(texts).partition("[emulate ")[2]
    return json.JSONDecoder().raw_decode(script)[0]["turns"] if script else []


def outputs_of(items: list[dict]) -> list[str]:
    return [str(item["output"]) for item in items if item.get("type") == "function_call_output"]


def turn_after(turns: list[dict], answered: int) -> dict:
    """Return the turn that follows this number of answered calls."""
    for turn in turns:
        if answered <= 0:
            return turn
        answered -= len(turn.get("function_calls", ()))
    return {}


def scripted(stream: ResponseEventStream, turn: dict, outputs: list[str]):
    """Call the turn's functions; without any, write its text or the outputs of the calls."""
    yield stream.emit_created()
    yield stream.emit_in_progress()
    calls = turn.get("function_calls", ())
    for call in calls:
        arguments = json.dumps(call["arguments"])
        yield from stream.output_item_function_call(call["name"], f"call_{uuid4().hex}", arguments)
    if not calls:
        yield from stream.output_item_message(turn.get("text", f"outputs: {'; '.join(outputs)}"))
    yield stream.emit_completed()


def responses_app(seconds: float, tokens: int) -> ResponsesAgentServerHost:
    app = ResponsesAgentServerHost(
        store=InMemoryResponseProvider(),
        options=ResponsesServerOptions(shutdown_grace_period_seconds=1),
        graceful_shutdown_timeout=2,
        configure_observability=None,
    )

    @app.response_handler
    async def count_words(request, context, cancellation_signal):
        items = [*await context.get_history(), *await context.get_input_items()]
        if turns := turns_of(items):
            outputs = outputs_of(items)
            stream = ResponseEventStream(response_id=context.response_id, request=request)
            for event in scripted(stream, turn_after(turns, len(outputs)), outputs):
                yield event
            return
        prompt = await context.get_input_text()
        asked = dict(OVERRIDE.findall(prompt))
        text = words(int(asked.get("tokens", tokens)), float(asked.get("seconds", seconds)), cancellation_signal)
        async for event in TextResponse(context, request, text=text):
            # A stopped text is not complete: without a last event of ours, the package sets the status itself.
            if cancellation_signal.is_set():
                return
            yield event

    return app


class Counted:
    """Count the requests that a client really sent, whatever the app does with them."""

    def __init__(self, app) -> None:
        self.app = app
        self.requests: Counter[str] = Counter()
        self.creates: Counter[str] = Counter()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/_counts":
            await self.report(send)
        elif scope["path"] == "/_release":
            released.set()
            await self.report(send)
        else:
            self.count(scope)
            await self.app(scope, receive, send)

    def count(self, scope) -> None:
        kind = kind_of(scope["method"], scope["path"], scope["query_string"].decode())
        self.requests[f"{scope['method']} {kind}"] += 1
        if kind == "create":
            self.creates[dict(scope["headers"]).get(b"x-client-request-id", b"").decode()] += 1

    async def report(self, send) -> None:
        body = json.dumps({"requests": self.requests, "creates": self.creates}).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def kind_of(method: str, path: str, query: str) -> str:
    match method, path.strip("/").split("/"):
        case "POST", ["responses"]:
            return "create"
        case "GET", ["responses", _]:
            return "stream" if "stream=true" in query else "retrieve"
        case "POST", ["responses", _, "cancel"]:
            return "cancel"
        case "DELETE", ["responses", _]:
            return "delete"
        case _:
            return "other"


class Announced(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        sys.stdout.write(f"READY http://{HOST}:{port}\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--held", action="store_true")
    options = parser.parse_args()
    if not options.held:
        released.set()
    # uvicorn shuts down gracefully and then raises the signal again under the handler it found.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logging.basicConfig(level=logging.ERROR)
    config = uvicorn.Config(
        Counted(responses_app(options.seconds, options.tokens)),
        host=HOST,
        port=options.port,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=1,
    )
    Announced(config).run()


if __name__ == "__main__":
    main()
