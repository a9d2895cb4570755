"""A proxy on loopback before PostgreSQL: it delays, stalls, cuts, and loses answers, as a network does."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import anyio


class Proxy:
    """Links between clients and a server, all with the same faults."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._links: set[_Link] = set()
        self._is_flowing = asyncio.Event()
        self._is_flowing.set()
        self._lost_answer = self._stalls_at = self._stalls_after = b""
        self._skipped = 0
        self._port = 0
        self.is_reachable = True
        self.refused = 0  #: new links that are closed at once
        self.delay_s = 0.0  #: for each piece, in both directions
        self.lost = 0  #: answers that were lost

    @property
    def url(self) -> str:
        """Return the URL of the database through this proxy."""
        user = self._target.netloc.rpartition("@")[0]
        return urlunsplit(self._target._replace(netloc=f"{user}@127.0.0.1:{self._port}"))

    def stall(self) -> None:
        """Let nothing through, as a cut cable does: no side sees that the other is gone."""
        self._is_flowing.clear()

    def stall_at(self, words: bytes) -> None:
        """Let nothing through from the next message with these words on."""
        self._stalls_at = words

    def stall_after(self, words: bytes) -> None:
        """Deliver the next message with these words, and let nothing through from then on."""
        self._stalls_after = words

    @property
    def is_stalled(self) -> bool:
        """Return True while nothing is let through."""
        return not self._is_flowing.is_set()

    def flow(self) -> None:
        """Let everything through again, with what was held up."""
        self._is_flowing.set()

    def cut(self) -> None:
        """Close all links, and refuse new ones."""
        self.is_reachable = False
        for link in self._links:
            link.close()

    def lose_answer(self, to: bytes, *, after: int = 0) -> None:
        """Deliver the message with these words, after skipping some, and close its link instead of answering."""
        self._lost_answer, self._skipped = to, after

    async def serve(self) -> asyncio.Server:
        """Listen on a port of its own."""
        server = await asyncio.start_server(self._serve_link, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        return server

    async def _serve_link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refused or not self.is_reachable:
            self.refused = max(0, self.refused - 1)
            return writer.close()
        try:
            server = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            return writer.close()
        link = _Link(reader, writer, *server)
        self._links.add(link)
        try:
            with suppress(asyncio.CancelledError):  # asyncio logs tasks of connections that were cancelled
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._carry_questions, link, tasks.cancel_scope)
                    tasks.start_soon(self._carry_answers, link, tasks.cancel_scope)
        finally:
            self._links.discard(link)
            link.close()

    async def _carry_questions(self, link: "_Link", scope: anyio.CancelScope) -> None:
        while piece := await _read_piece(link.questions):
            if self._stalls_at and self._stalls_at in piece:
                self._stalls_at = b""
                self.stall()
            await self._hold_up()
            link.loses_answer = self._loses_answer_to(piece)
            link.to_server.write(piece)
            if self._stalls_after and self._stalls_after in piece:
                self._stalls_after = b""
                self.stall()
        scope.cancel()

    async def _carry_answers(self, link: "_Link", scope: anyio.CancelScope) -> None:
        while piece := await _read_piece(link.answers):
            await self._hold_up()
            if link.loses_answer:
                self.lost += 1
                break
            link.to_client.write(piece)
        scope.cancel()

    async def _hold_up(self) -> None:
        await self._is_flowing.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

    def _loses_answer_to(self, piece: bytes) -> bool:
        if not self._lost_answer or self._lost_answer not in piece:
            return False
        self._skipped -= 1
        if self._skipped < 0:
            self._lost_answer = b""
            return True
        return False


@dataclass(eq=False)
class _Link:
    """A connection of a client, and the one to the server behind it."""

    questions: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    answers: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    loses_answer: bool = False

    def close(self) -> None:
        """Close both connections."""
        self.to_client.close()
        self.to_server.close()


async def _read_piece(source: asyncio.StreamReader) -> bytes:
    """Return what came; nothing once the link is closed in whatever way."""
    with suppress(OSError):
        return await source.read(65536)
    return b""


@asynccontextmanager
async def proxied(url: str) -> AsyncGenerator[Proxy]:
    """Yield a proxy before the server of this URL."""
    proxy = Proxy(url)
    server = await proxy.serve()
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
