"""`agent-jobs` processes on pipes for asynchronous tests: as `anyio.open_process`, but forked where possible."""

import asyncio
import subprocess
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
from anyio.abc import ByteReceiveStream
from fork_server import COMMAND, Process

MAX_READ = 65_536


class Output(ByteReceiveStream):
    """The stdout of a process."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def receive(self, max_bytes: int = MAX_READ) -> bytes:
        if read := await self._reader.read(max_bytes):
            return read
        raise anyio.EndOfStream

    async def aclose(self) -> None:
        pass  # it is closed with its process


@dataclass(frozen=True)
class PipedProcess:
    """A process, and its pipes."""

    process: Process
    stdin: asyncio.WriteTransport
    stdout: Output

    @property
    def pid(self) -> int:
        return self.process.pid

    async def send(self, written: bytes) -> None:
        """Write to its stdin.

        Raises:
            anyio.BrokenResourceError: It has ended.
        """
        if self.stdin.is_closing():
            raise anyio.BrokenResourceError
        self.stdin.write(written)
        await anyio.lowlevel.checkpoint()

    async def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        while (status := self.process.poll()) is None:  # noqa: ASYNC110  # a moment: its stdout is closed by then
            await anyio.sleep(0.005)
        return status

    def kill(self) -> None:
        self.process.kill()


@asynccontextmanager
async def open_process(environment: Mapping[str, str], stderr: Path) -> AsyncGenerator[PipedProcess]:
    """Start a server; it is killed at the end. What it writes to stderr is appended to a file."""
    reader, transports = asyncio.StreamReader(), list[asyncio.BaseTransport]()
    with stderr.open("ab") as errors:
        process = Process(COMMAND, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    try:
        stdin, stdout = cast("TextIOWrapper", process.stdin), cast("TextIOWrapper", process.stdout)
        loop = asyncio.get_running_loop()
        written, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, stdin.buffer)
        transports.append(written)
        read, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stdout.buffer)
        transports.append(read)
        yield PipedProcess(process, written, Output(reader))
    finally:
        process.kill()
        process.wait()
        for transport in transports:
            transport.close()
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()  # they close the pipes in the loop's next round
