"""An answer may pause for as long as its limit, even if its reader is busy meanwhile."""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest
import trustme

from agent_jobs.upstream.limited_stream import LimitedStream

#: Seconds that an answer may pause.
LIMIT_S = 0.1
LONG_S = 60.0  # the limit of a wait that must end sooner by itself
HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
CHUNKED, UNTIL_CLOSED = HEAD + b"transfer-encoding: chunked\r\n\r\n", HEAD + b"\r\n"

Write = Callable[[bytes], None]


@asynccontextmanager
async def answering(head: bytes, authority: trustme.CA | None = None) -> AsyncGenerator[tuple[LimitedStream, Write]]:
    """Open an answer with one piece, and yield it with a function that writes the next piece."""
    served, trusted = None, ssl.create_default_context()
    if authority is not None:
        served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(served)  # pyright: ignore[reportUnknownMemberType]
        authority.configure_trust(trusted)  # pyright: ignore[reportUnknownMemberType]
    writers: list[asyncio.StreamWriter] = []

    def write(piece: bytes) -> None:
        writers[0].write(b"%x\r\n%s\r\n" % (len(piece), piece) if head is CHUNKED else piece)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        write(b"first")

    server = await asyncio.start_server(serve, "localhost", 0, ssl=served)
    url = f"http{'s' if served else ''}://localhost:{server.sockets[0].getsockname()[1]}"
    async with (
        server,
        httpx2.AsyncClient(verify=trusted, trust_env=False, timeout=LONG_S) as client,
        client.stream("GET", url) as answer,
    ):
        try:
            yield LimitedStream(answer, LONG_S), write
        finally:
            writers[0].transport.abort()


@pytest.mark.parametrize("head", [CHUNKED, UNTIL_CLOSED], ids=["chunked", "until closed"])
@pytest.mark.parametrize("authority", [None, trustme.CA()], ids=["http", "https"])
async def test_answer_that_stops_ends_in_a_read_timeout(head: bytes, authority: trustme.CA | None) -> None:
    pieces: list[bytes] = []
    with anyio.fail_after(LONG_S / 2):
        async with answering(head, authority) as (stream, _):
            with pytest.raises(httpx2.ReadTimeout):
                async for piece in stream:
                    pieces.append(piece)
                    stream.limit_s = LIMIT_S
    assert pieces == [b"first"]


async def test_reader_that_is_busy_for_longer_than_the_limit_continues_to_read() -> None:
    pieces: list[bytes] = []
    async with answering(CHUNKED) as (stream, write):
        async for piece in stream:
            pieces.append(piece)
            if len(pieces) == 3:
                break
            stream.limit_s = LIMIT_S
            await anyio.sleep(LIMIT_S * 5)
            write(b"more")
    assert pieces == [b"first", b"more", b"more"]


async def test_resumed_process_reads_data_that_arrived_while_it_was_stopped() -> None:
    pieces: list[bytes] = []
    async with answering(CHUNKED) as (stream, write):

        def arrive_during_a_stop() -> None:
            write(b"more")
            time.sleep(LIMIT_S * 5)

        async for piece in stream:
            pieces.append(piece)
            if len(pieces) == 3:
                break
            stream.limit_s = LIMIT_S
            asyncio.get_running_loop().call_soon(arrive_during_a_stop)
    assert pieces == [b"first", b"more", b"more"]
