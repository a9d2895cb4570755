"""Run a tool server as a child process, and limit everything that is kept of its output.

The SDK's own stdio transport keeps a line of any length, passes stderr on, and takes up to four seconds to stop.
"""

import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client import Transport
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

from agent_jobs import jsonrpc
from agent_jobs.process_group import signal_group

MESSAGE_BYTES = 16 * 2**20  # of one message, for instance an answer with images; a longer one is skipped
NOISE_BYTES = 256 * 2**20  # between two messages: a server that prints more is stopped
STDERR_LINES = 20  # kept for an error message
STDERR_LINE_CHARS = 400
STOP_STEPS_S = (0.4, 0.4, 0.3)  # limits of the steps of a stop: closing stdin, SIGTERM, SIGKILL
_HEAD_BYTES = 256  # of a skipped message, in which its id is searched
_SENT_AHEAD = 64  # messages: a cancelled call must not wait until a server reads its cancellation

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]
Heard = MemoryObjectSendStream[SessionMessage | Exception]


class StdioTransport:
    """One run of a stdio server; `gone` is set when it can send nothing any more."""

    def __init__(self, command: str, args: Sequence[str], env: Mapping[str, str], cwd: str | None) -> None:
        self._command = [command, *args]
        self._env = {**get_default_environment(), **env}
        self._cwd = cwd
        self._process: Process | None = None
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._too_noisy = False
        self.gone = anyio.Event()

    def last_words(self) -> str:
        """Return how it ended and the last line of its stderr, as far as they are known."""
        words: list[str] = []
        if self._too_noisy:
            words.append("it printed only lines that do not belong to the protocol")
        elif self._process is not None and self._process.returncode is not None:
            words.append(f"it ended with status {self._process.returncode}")
        for line in reversed(self._stderr):
            if line.strip():
                words.append(f"its last words: {line.strip()}")
                break
        return "; ".join(words)

    def open_transport(self) -> Transport:
        """Start it and open the streams of messages; at the end, stop it and all processes of its group.

        Raises:
            OSError: It cannot be started.
        """
        return self._open_child_streams()

    @asynccontextmanager
    async def _open_child_streams(self) -> AsyncGenerator[Streams]:
        self._process = process = await anyio.open_process(
            self._command, env=self._env, cwd=self._cwd, start_new_session=True
        )
        assert process.stdin and process.stdout and process.stderr
        heard, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, said = anyio.create_memory_object_stream[SessionMessage](_SENT_AHEAD)
        try:
            async with anyio.create_task_group() as tasks, incoming, outgoing:
                tasks.start_soon(self._read_stdout, process.stdout, heard)
                tasks.start_soon(self._write_stdin, process.stdin, said)
                tasks.start_soon(self._keep_stderr, process.stderr)
                try:
                    yield incoming, outgoing
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            heard.close()
            said.close()
            with anyio.CancelScope(shield=True):
                await _stop_process(process)

    async def _read_stdout(self, stdout: ByteReceiveStream, heard: Heard) -> None:
        noise = 0
        lines = _LineReader()
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with heard:
                async for chunk in stdout:
                    noise += len(chunk)
                    for line, whole in lines.add(chunk):
                        message = _read_message_line(line, is_whole=whole)
                        if message is not None:
                            noise = 0
                            await heard.send(message)
                    if noise > NOISE_BYTES:
                        self._too_noisy = True
                        break
        self.gone.set()

    async def _write_stdin(self, stdin: ByteSendStream, said: MemoryObjectReceiveStream[SessionMessage]) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            async for item in said:
                await stdin.send(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        said.close()

    async def _keep_stderr(self, stderr: ByteReceiveStream) -> None:
        rest = ""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for chunk in stderr:
                *lines, rest = (rest + chunk.decode(errors="replace")).split("\n")
                self._stderr.extend(line[:STDERR_LINE_CHARS] for line in lines)
                rest = rest[:STDERR_LINE_CHARS]
        self._stderr.append(rest)


class _LineReader:
    """Splits a stream of bytes into lines; of a line that is too long, only the beginning is kept."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._whole = True

    def add(self, chunk: bytes) -> Iterator[tuple[bytes, bool]]:
        """Yield the lines that end in this chunk, and whether they are complete."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._extend_line(end)
            yield bytes(self._line), self._whole
            self._line = bytearray()
            self._whole = True
        self._extend_line(rest)

    def _extend_line(self, part: bytes) -> None:
        if self._whole:
            self._line += part
        if len(self._line) > MESSAGE_BYTES:
            self._line = self._line[:_HEAD_BYTES]
            self._whole = False


def _read_message_line(line: bytes, *, is_whole: bool) -> SessionMessage | None:
    """Return the message in a line, repaired if necessary; None if the line answers nothing."""
    if not is_whole:
        return _refuse_long_answer(line)
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        repaired = jsonrpc.repair_message(line.decode("utf-8", "replace"))
    if repaired is None:
        return None
    return SessionMessage(jsonrpc_message_adapter.validate_json(repaired, by_name=False))


def _refuse_long_answer(head: bytes) -> SessionMessage | None:
    """Return an error for the call whose answer was too long."""
    number = jsonrpc.find_id_of_broken_answer(head.decode("utf-8", "replace"))
    if number is None:
        return None
    error = ErrorData(code=INTERNAL_ERROR, message=f"the answer was longer than {MESSAGE_BYTES >> 20} MiB")
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=number, error=error))


async def _stop_process(process: Process) -> None:
    """Ask a process to end, then kill it and its group; a process that left the group is not stopped."""
    assert process.stdin
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.aclose()
    for step_s, then in zip(STOP_STEPS_S, ("SIGTERM", "SIGKILL", None), strict=True):
        with anyio.move_on_after(step_s):
            while _is_group_alive(process):  # noqa: ASYNC110  # the end of a group raises no event
                await anyio.sleep(0.01)
            break
        if then is not None:
            signal_group(process, then)
    # A process outside the group that holds the pipes keeps asyncio's transport open, which warns when it is collected.
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    if transport is not None:
        with suppress(PermissionError):
            transport.close()
    with anyio.move_on_after(STOP_STEPS_S[-1]):
        await process.aclose()


def _is_group_alive(process: Process) -> bool:
    if process.returncode is None:
        return True
    if sys.platform == "win32":  # pragma: no cover
        return False
    try:
        with suppress(PermissionError):  # macOS raises this for processes that just died
            os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
