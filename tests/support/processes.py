"""The server as a host runs it: a process on pipes, spoken to in raw JSON-RPC lines."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fork_server import COMMAND, Process
from mcp.client.stdio import StdioServerParameters

ANSWER_S = 100.0
MODERN = "2026-07-28"


class Server:
    """One `agent-jobs` process. Everything on its stdout must be a JSON-RPC message."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._answered: dict[int, dict[str, Any]] = {}
        self._next_id = 0
        self._modern = False
        threading.Thread(target=self._read, daemon=True).start()

    def initialize(self, version: str = "2025-11-25") -> dict[str, Any]:
        """Open the connection in this version of the protocol, as a host of that time does."""
        if version == MODERN:
            self._modern = True
            return self.request("server/discover")
        client = {"name": "test", "version": "1"}
        answer = self.request("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": client})
        self.notify("notifications/initialized")
        return answer

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool and return its answer."""
        return answer_of(self.request("tools/call", {"name": tool, "arguments": arguments}))

    def request(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.answer(self.send(method, params))

    def answer(self, number: int) -> dict[str, Any]:
        """Return the result of a request; results of other requests may arrive before it."""
        while number not in self._answered:
            message = self._answers.get(timeout=ANSWER_S)
            assert message is not None, f"the server ended: {self.stderr()}"
            if "id" in message:
                self._answered[message["id"]] = message
        message = self._answered.pop(number)
        assert "error" not in message, message
        return message["result"]

    def answered(self, number: int) -> bool:
        """Return True if a request was answered before the latest one whose answer was awaited."""
        return number in self._answered

    def send(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Send a request without waiting for its answer."""
        self._next_id += 1
        self._write({"id": self._next_id, "method": method, "params": self._dated(params or {})})
        return self._next_id

    def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        self._write({"method": method, "params": params or {}})

    def end(self, limit_s: float = 60.0) -> int:
        """Close stdin, as a host does, and give the exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(limit_s)

    def stderr(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def _dated(self, params: dict[str, Any]) -> dict[str, Any]:
        if not self._modern:
            return params
        prefix = "io.modelcontextprotocol/"
        client = {"name": "test", "version": "1"}
        meta = {f"{prefix}protocolVersion": MODERN, f"{prefix}clientInfo": client, f"{prefix}clientCapabilities": {}}
        return params | {"_meta": meta}

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)


def answer_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON in the text of a tool's result."""
    [content] = result["content"]
    return json.loads(content["text"])


@contextmanager
def serving(data_dir: Path, base_url: str, *arguments: str, **environment: str) -> Generator[Server]:
    """Start the server with an environment of its own; it is killed at the end if it still lives."""
    with Process(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(data_dir, base_url) | environment,
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def parameters(data_dir: Path, base_url: str) -> StdioServerParameters:
    """By which the SDK's client starts the same server."""
    return StdioServerParameters(
        command=sys.executable, args=["-m", "agent_jobs"], env=_environment(data_dir, base_url)
    )


def _environment(data_dir: Path, base_url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "PYTHON"))}
    ours = {"OPENAI_API_KEY": "sk-secret", "OPENAI_BASE_URL": base_url, "AGENT_JOBS_DATA_DIR": str(data_dir)}
    return kept | ours
