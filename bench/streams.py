"""An upstream whose runs do what their ids say, `python -m bench.streams`; and a bare reader of its streams.

A run is `resp_<kind>_<amount>_<started>` with the nanosecond (CLOCK_MONOTONIC) of its POST. `burst` writes `amount`
deltas as fast as it can and completes; `paced` does so at `PACE_HZ`; `idle` does so at that pace and then stays open
for ever; `ends` writes nothing, completes after `amount` milliseconds, and has the nanosecond of that as its text.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import httpx2

#: About what a model writes: a delta is a token.
PACE_HZ = 50
WORDS = ("the", " answer", " to", " it", " depends", " on", " what", " you", " measure", ",", " and", " when", ".\n")
ITEM_ID = "msg_" + "0123456789abcdef" * 3
PACKED_BYTES = 64 * 1024  # some servers pack many events into one write


def run_id(kind: str, amount: int, started_ns: int = 0) -> str:
    return f"resp_{kind}_{amount}_{started_ns}"


async def serve() -> None:
    server = await asyncio.start_server(serve_connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def bare(base_url: str, deltas: int) -> None:
    """Open as many bare httpx2 streams as a line of stdin says, and answer when their deltas are here."""
    loop = asyncio.get_running_loop()
    url = f"{base_url}/responses/{run_id('idle', deltas)}?stream=true"
    limits = httpx2.Limits(max_connections=None)
    async with (
        httpx2.AsyncClient(trust_env=False, limits=limits, timeout=None) as client,
        asyncio.TaskGroup() as tasks,
    ):
        while count := await loop.run_in_executor(None, sys.stdin.readline):
            opened = [asyncio.Event() for _ in range(int(count))]
            for each in opened:
                tasks.create_task(hold_stream(client, url, 3 + deltas, each))
            for each in opened:
                await each.wait()
            print(flush=True)


async def hold_stream(client: httpx2.AsyncClient, url: str, events: int, opened: asyncio.Event) -> None:
    number = 0
    async with client.sse(url) as source:
        async for sse in source:
            json.loads(sse.data)
            number += 1
            if number == events:
                opened.set()


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            body = await reader.readexactly(int(fields.get(b"content-length", 0)))
            path = head.split(b" ", 2)[1].decode()
            run = create_run(body) if head.startswith(b"POST") else path.partition("?")[0].rpartition("/")[2]
            if _wants_stream(head, body, path):
                await write_stream(writer, run)
                break
            answer = json.dumps(create_response(run)).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: %d\r\n\r\n%s" % (len(answer), answer))
    writer.close()


def create_run(body: bytes) -> str:
    found = re.search(rb"bench (\w+) (\d+)", body)
    assert found is not None, "the prompt says what the run does"
    return run_id(found[1].decode(), int(found[2]), time.monotonic_ns())


def _wants_stream(head: bytes, body: bytes, path: str) -> bool:
    return json.loads(body)["stream"] if head.startswith(b"POST") else "stream=true" in path


async def write_stream(writer: asyncio.StreamWriter, run: str) -> None:
    kind, amount, started_ns = split_run_id(run)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n")
    writer.write(encode_beginning(run))
    await writer.drain()
    if kind == "ends":
        await asyncio.sleep((started_ns - time.monotonic_ns()) / 1e9 + amount / 1e3)
        writer.write(encode_completed(run, 0, str(time.monotonic_ns())))
        return
    if kind in ("paced", "idle"):
        began = time.monotonic()
        for number, event in enumerate(encode_deltas(amount)):
            await asyncio.sleep(began + number / PACE_HZ - time.monotonic())
            writer.write(event)
    else:
        for pack in pack_deltas(amount):
            writer.write(pack)
            await writer.drain()
    if kind == "idle":
        await asyncio.sleep(3600)
    writer.write(encode_completed(run, amount, "".join(WORDS[number % len(WORDS)] for number in range(amount))))
    await writer.drain()


def encode_beginning(run: str) -> bytes:
    response = {"id": run, "object": "response", "status": "in_progress", "background": True, "output": []}
    item = {"id": ITEM_ID, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response | {"status": "queued"}},
        {"type": "response.in_progress", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
    ]
    return b"".join(encode_event(event | {"sequence_number": number}) for number, event in enumerate(events))


@cache
def encode_deltas(count: int) -> list[bytes]:
    return [encode_event(delta) for delta in create_deltas(count)]


@cache
def pack_deltas(count: int) -> list[bytes]:
    whole = b"".join(encode_deltas(count))
    return [whole[at : at + PACKED_BYTES] for at in range(0, len(whole), PACKED_BYTES)]


def create_deltas(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {
            "type": "response.output_text.delta",
            "sequence_number": 3 + number,
            "item_id": ITEM_ID,
            "output_index": 0,
            "content_index": 0,
            "delta": WORDS[number % len(WORDS)],
            "logprobs": [],
        }


def encode_completed(run: str, deltas: int, text: str) -> bytes:
    ended = create_response(run) | create_end(text)
    return encode_event({"type": "response.completed", "sequence_number": 3 + deltas, "response": ended})


def encode_event(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def create_response(run: str) -> dict[str, Any]:
    """Return the run's response object; only a run of kind `ends` completes without its stream."""
    kind, amount, started_ns = split_run_id(run)
    response = {"id": run, "object": "response", "status": "in_progress", "background": True, "output": []}
    ends_ns = started_ns + amount * 1_000_000
    now_ns = time.monotonic_ns()
    return response | create_end(str(ends_ns)) if kind == "ends" and now_ns >= ends_ns else response


def create_end(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"id": ITEM_ID, "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    usage = {"input_tokens": 10, "output_tokens": 200, "total_tokens": 210}
    return {"status": "completed", "output": [message], "usage": usage}


def split_run_id(run: str) -> tuple[str, int, int]:
    _, kind, amount, started_ns = run.split("_")
    return kind, int(amount), int(started_ns)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bare", base_url, deltas]:
            asyncio.run(bare(base_url, int(deltas)))
        case _:
            asyncio.run(serve())
