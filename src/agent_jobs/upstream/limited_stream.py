"""Limit the silence between the pieces of an answer, at the cost of one timer for all of them."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import suppress
from math import inf
from typing import Any, cast

import httpx2

_SURE_S = 1.0  # after the limit: a process that was stopped or busy reads data that has arrived within moments


class LimitedStream(httpx2.AsyncByteStream):
    """A body whose next piece must arrive within a limit, which may change between pieces.

    httpx2 sets a timer for each read and cancels it soon after, which is a sixth of the CPU of a stream of words. This
    one timer looks when the limit could be over, and shuts the connection down if it is, so that the read ends.

    Args:
        answer: Its body is replaced by this one, whose limit replaces the timeout of reads.
        limit_s: Seconds of silence after which reading raises httpx2.ReadTimeout.
    """

    def __init__(self, answer: httpx2.Response, limit_s: float) -> None:
        self._stream = cast(httpx2.AsyncByteStream, answer.stream)
        self._network: Any = answer.extensions.get("network_stream")
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waits_since = inf  #: inf while the reader is busy, however long
        self._suspected_since = 0.0  #: the wait that was too long when last looked at
        self._is_over = False
        if self._network is not None:  # else the transport is not httpx2's own, and keeps its timeouts
            answer.request.extensions.get("timeout", {}).pop("read", None)
            answer.stream = self

    @property
    def limit_s(self) -> float:
        """The seconds that the next piece may take."""
        return self._limit_s

    @limit_s.setter
    def limit_s(self, limit_s: float) -> None:
        if limit_s != self._limit_s:
            self._limit_s = limit_s
            self._look_in(limit_s)

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        pieces = aiter(self._stream)
        self._look_in(self._limit_s)
        try:
            while True:
                self._waits_since = self._loop.time()
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    self._check_silence()
                    return
                except httpx2.TransportError:
                    self._check_silence()
                    raise
                self._waits_since = inf
                yield piece
        finally:
            self._stop_timer()

    async def aclose(self) -> None:
        """Close the body."""
        self._stop_timer()
        await self._stream.aclose()

    def _look_in(self, after_s: float) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(after_s, self._check_wait)

    def _check_wait(self) -> None:
        """Shut the connection down if nothing has arrived for too long, else look again when that may be so."""
        now = self._loop.time()
        left_s = min(self._waits_since, now) + self._limit_s - now
        if left_s > 0:
            self._look_in(left_s)
        elif self._suspected_since != self._waits_since:
            self._suspected_since = self._waits_since
            self._look_in(min(_SURE_S, self._limit_s))
        else:
            self._is_over = True
            with suppress(OSError):  # the other side has closed it
                self._network.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def _check_silence(self) -> None:
        if self._is_over:
            raise httpx2.ReadTimeout("silent")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
