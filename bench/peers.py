"""Run the programs that we are measured against, each as `python -m bench.peers <name>`, and talk to children."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: Variables that would slow a child's start, redirect it, or give it this user's settings.
STRIPPED = ("PYTHONDONTWRITEBYTECODE", "PYTHONPROFILEIMPORTTIME", "COVERAGE_", "OPENAI_", "AGENT_JOBS_")
#: Characters of the output of each run.
OUTPUT_CHARS = 600
#: Seconds of a run: the starts of one batch are over by then, and the first poll finds its end.
RUN_S = 0.8


def environment(**ours: str) -> dict[str, str]:
    """Return the environment of a child: that of this process, without variables that would distort a figure."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(STRIPPED)}
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **ours}


class StdioServer:
    """An MCP server in a child process. Its client writes raw lines and blocks, so it adds only microseconds."""

    def __init__(self, *arguments: str, **env: str) -> None:
        self.spawned_ns = time.monotonic_ns()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment(**env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        client = {"name": "bench", "version": "1"}
        _, self.initialized_ns = self.ask(
            "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        )
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def ask(self, method: str, params: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Return the result of a request, and the nanosecond at which its line arrived."""
        self._send({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            arrived_ns = time.monotonic_ns()
            answer = json.loads(line)
            if "id" in answer:
                return answer["result"], arrived_ns
        raise RuntimeError(f"{self._process.args} ended without an answer to {method}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Close the server's stdin and wait until it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()


@contextmanager
def upstream(module: str = "bench.peers") -> Generator[str]:
    """Run an upstream in a process of its own, and yield its base URL."""
    with subprocess.Popen(
        [sys.executable, "-m", module], cwd=ROOT, env=environment(), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def minimal_server(answer: str = "{}") -> Any:
    """Return the smallest MCP server: three trivial tools, one of which answers as `agent_poll` would."""
    from mcp.server import MCPServer
    from mcp_types import CallToolResult, TextContent

    result = CallToolResult(content=[TextContent(type="text", text=answer)])
    server = MCPServer("minimal", log_level="WARNING")

    @server.tool()
    async def start(prompt: str) -> str:
        return prompt

    @server.tool(structured_output=False)
    async def poll(job_id: str, wait_s: float = 45) -> CallToolResult:
        return result

    @server.tool()
    async def cancel(job_id: str) -> str:
        return job_id

    return server


def read_answer(result: Any) -> dict[str, Any]:
    """Return the JSON in the text of a tool's result."""
    [content] = result.content
    return json.loads(content.text)


def read_creation_ns(response_id: str) -> int:
    """Return when the upstream wrote `response.created`. The id has it: CLOCK_MONOTONIC is one for all processes."""
    return int(response_id.removeprefix("resp_"))


async def _serve_upstream() -> None:
    server = await asyncio.start_server(_serve_connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a POST with the begin of OpenAI's stream and later `response.completed`, and a GET with the state."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields.get(b"content-length", 0)))
            if head.startswith(b"POST"):
                await _stream(reader, writer)
                break
            response_id = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
            body = json.dumps(_response(response_id)).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: %d\r\n\r\n%s" % (len(body), body))
    writer.close()


async def _stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    response_id = f"resp_{time.monotonic_ns()}"
    writer.write(_event("response.created", 0, response_id, "queued"))
    writer.write(_event("response.queued", 1, response_id, "queued"))
    with suppress(TimeoutError):
        await asyncio.wait_for(reader.read(), RUN_S)
        return  # the client hung up
    writer.write(_event("response.completed", 2, response_id))
    await writer.drain()


def _event(kind: str, number: int, response_id: str, status: str = "in_progress") -> bytes:
    event = {"type": kind, "sequence_number": number, "response": _response(response_id, status)}
    return f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode()


def _response(response_id: str, status: str = "in_progress") -> dict[str, Any]:
    response = {"id": response_id, "object": "response", "status": status, "background": True, "output": []}
    if time.monotonic_ns() - read_creation_ns(response_id) < RUN_S * 1e9:
        return response
    text = {"type": "output_text", "text": "x" * OUTPUT_CHARS, "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    usage = {"input_tokens": 10, "output_tokens": 200, "total_tokens": 210}
    return response | {"status": "completed", "output": [message], "usage": usage}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["minimal", *answer]:
            minimal_server(*answer).run()
        case _:
            asyncio.run(_serve_upstream())
