"""Run host windows: each keeps a server process, starts another if it is killed, and calls its tools."""

import json
import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from async_processes import PipedProcess, open_process

Json = dict[str, Any]

KEY = "sk-chaos"
MAX_LINE = 4 * 2**20
#: Seconds in which a server starts, or ends after its stdin was closed.
PATIENCE_S = 20.0
#: Separates the name of a window from the number of its server in the name of a process.
SERVER = "-"
#: Seconds that a host waits for the answer of a tool.
HOST_WAIT_S = 60.0


class KilledError(Exception):
    """The server died before it answered, so the outcome of the call is unknown."""


class RefusalError(Exception):
    """The tool answered with an error."""

    def __init__(self, error: Json) -> None:
        super().__init__(error["message"])
        self.code: str = error["code"]


class Window:
    """One host window on the shared database. Its calls may come from many tasks at once."""

    def __init__(self, name: str, folder: Path, data_dir: Path, base_url: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.complaints: list[str] = []
        self._stderr = folder / f"stderr-{name}.txt"
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "PYTHON"))}
        ours = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": base_url, "AGENT_JOBS_DATA_DIR": str(data_dir)}
        self._environment = {**kept, **ours, **environment, "PYTHONFAULTHANDLER": "1"}
        self._servers = 0
        self._process: PipedProcess | None = None
        self._pid: int | None = None
        self._closing = False
        self._ready, self._gone = anyio.Event(), anyio.Event()
        self._numbers = count(1)
        self._questions: dict[int, Question] = {}

    async def call(self, tool: str, **arguments: Any) -> Json:
        """Call a tool as soon as a server is ready, and return its answer.

        Raises:
            KilledError: The server died before it answered.
            RefusalError: The tool refused.
        """
        return await (await self.ask(tool, **arguments)).answer()

    async def ask(self, tool: str, **arguments: Any) -> "Question":
        """Write the call of a tool to the server, and return the question, which has the answer later."""
        await self._ready.wait()
        return await self._request("tools/call", {"name": tool, "arguments": arguments})

    @property
    def state(self) -> str:
        """Return the state of the window's server, in a word or two."""
        if self._gone.is_set():
            return "ended"
        if not self._ready.is_set():
            return "starts"
        return f"{'is closed' if self._closing else 'runs'} ({len(self._questions)} calls)"

    def kill(self) -> str | None:
        """SIGKILL the server, from any thread; return the name of its process, or None if there was none."""
        return self._send_signal(signal.SIGKILL)

    def abort(self) -> str | None:
        """End the server so that it writes the stacks of its threads to stderr; return as `kill` does."""
        return self._send_signal(signal.SIGABRT)

    def _send_signal(self, number: int) -> str | None:
        name, pid, self._pid = self._server, self._pid, None
        if pid is None:
            return None
        os.kill(pid, number)
        return name

    @property
    def _server(self) -> str:
        """Return the name of the running process."""
        return f"{self.name}{SERVER}{self._servers}"

    async def serve(self) -> None:
        """Keep a server running until closed."""
        while not self._closing:
            async with self._spawn() as process:
                self._process, self._pid = process, process.pid
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._initialize)
                    await self._read_answers(process)
                    tasks.cancel_scope.cancel()
                self._handle_exit(await process.wait())

    async def close(self) -> None:
        """Close the server's stdin, as an ending host does, and wait until the server has ended."""
        with anyio.move_on_after(PATIENCE_S):
            await self._ready.wait()
            self._closing = True
            assert self._process is not None
            self._process.stdin.close()
            await self._gone.wait()
            return
        self.complaints.append(f"server {self.name} did not end when its stdin did")

    def _spawn(self) -> AbstractAsyncContextManager[PipedProcess]:
        self._servers += 1
        # Each request names its project, so the provider can tell which process sent it.
        environment = {**self._environment, "OPENAI_PROJECT_ID": self._server}
        return open_process(environment, self._stderr)

    async def _initialize(self) -> None:
        client = {"name": "chaos", "version": "1"}
        opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        try:
            with anyio.fail_after(PATIENCE_S):
                await (await self._request("initialize", opening)).result()
                await self._send({"method": "notifications/initialized"})
        except KilledError:
            return
        self._ready.set()

    async def _read_answers(self, process: PipedProcess) -> None:
        """Give each question its answer until the server ends."""
        lines = BufferedByteReceiveStream(process.stdout)
        while True:
            try:
                line = await lines.receive_until(b"\n", MAX_LINE)
            except (anyio.EndOfStream, anyio.IncompleteRead):
                return
            try:
                message: Json = json.loads(line)
            except ValueError:
                self.complaints.append(f"server {self.name} wrote {line[:80]!r} to stdout")
                continue
            if question := self._questions.pop(message.get("id", 0), None):
                question.set_message(message)

    def _handle_exit(self, status: int) -> None:
        """Record how the server ended, and release every caller that waits for its answers."""
        killed, self._pid = self._pid is None, None
        if self._ready.is_set():
            self._ready = anyio.Event()
        if not killed and (status != 0 or not self._closing):
            self.complaints.append(f"server {self.name} ended by itself with status {status}")
        for question in self._questions.values():
            question.set_message(None)
        self._questions.clear()
        if self._closing:
            self._gone.set()

    async def _request(self, method: str, params: Json) -> "Question":
        number = next(self._numbers)
        question = self._questions[number] = Question(f"{method} {params.get('arguments', '')}"[:120], self.complaints)
        await self._send({"id": number, "method": method, "params": params})
        return question

    async def _send(self, message: Json) -> None:
        assert self._process is not None
        try:
            await self._process.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise KilledError from None


class Question:
    """A request to a server, which may die before it answers."""

    def __init__(self, text: str, complaints: list[str]) -> None:
        self._text = text
        self._complaints = complaints
        self._is_answered = anyio.Event()
        self._message: Json | None = None

    def set_message(self, message: Json | None) -> None:
        """Set the answer, or None if there will be none."""
        self._message = message
        self._is_answered.set()

    async def result(self) -> Json:
        """Return the result that the server answered.

        Raises:
            KilledError: The server died before it answered.
        """
        with anyio.move_on_after(HOST_WAIT_S):
            await self._is_answered.wait()
        if not self._is_answered.is_set():
            self._complaints.append(f"no answer within {HOST_WAIT_S:g} s to {self._text}")
        if self._message is None:
            raise KilledError
        return self._message["result"]

    async def answer(self) -> Json:
        """Return the answer of the tool.

        Raises:
            KilledError: The server died before it answered.
            RefusalError: The tool refused.
        """
        result = await self.result()
        [content] = result["content"]
        answer: Json = json.loads(content["text"])
        if result.get("isError"):
            raise RefusalError(answer["error"])
        return answer


@asynccontextmanager
async def running_servers(*windows: Window) -> AsyncGenerator[None]:
    """Keep a server running in each window; close them in order at the end, or kill them if the run failed."""
    async with anyio.create_task_group() as tasks:
        for window in windows:
            tasks.start_soon(window.serve)
        try:
            yield
            for window in windows:
                await window.close()
        finally:
            for window in windows:
                window.kill()
            tasks.cancel_scope.cancel()
