"""The server as a host starts it, asked for its tools: in a folder of its own, without the user's jobs."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_jobs.ctrl_c import raise_on_ctrl_c

LIMIT_S = 30.0
OLD, MODERN = "2025-11-25", "2026-07-28"
_META = "io.modelcontextprotocol/"
_CLIENT = {"name": "agent-jobs doctor", "version": "1"}


class SelfTestError(Exception):
    """The server does not answer as a host needs it."""


@dataclass(frozen=True)
class Started:
    """A start that went well."""

    tools: list[str]
    listed_s: float  #: from the start of the process until its tools were listed


def start_own(version: str) -> Started:
    """Start this installation, without the user's settings.

    Raises:
        SelfTestError: As `start_server`.
    """
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("AGENT_JOBS_", "OPENAI_"))}
    return start_server([sys.executable, "-m", "agent_jobs"], kept, version)


def start_server(command: Sequence[str], environment: Mapping[str, str], version: str = OLD, tool: str = "") -> Started:
    """Start a server in a data folder of its own, list its tools in this version of the protocol, and call one.

    Raises:
        SelfTestError: It ended, did not answer in time, or answered something else.
    """
    with (
        raise_on_ctrl_c(),
        tempfile.TemporaryDirectory(prefix="agent-jobs-doctor-") as folder,
        tempfile.TemporaryFile("w+", errors="replace") as stderr,
    ):
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
                env={**environment, "AGENT_JOBS_DATA_DIR": folder},
            )  # fmt: skip
        except OSError as error:
            raise SelfTestError(f"{command[0]} does not start ({error.strerror})") from error
        watchdog = threading.Timer(LIMIT_S, process.kill)
        watchdog.start()
        try:
            tools = _asked(process, version)
            listed_s = time.monotonic() - began
            if tool:
                _request(process, 3, "tools/call", {"name": tool, "arguments": {}})
            return Started(tools, listed_s)
        except (OSError, ValueError, KeyError) as error:
            stderr.seek(0)
            said = next((line.strip() for line in reversed(stderr.readlines()) if line.strip()), "")
            raise SelfTestError(f"the server did not answer as it should ({said or error or 'it ended'})") from error
        finally:
            watchdog.cancel()
            process.kill()
            process.communicate()


def _asked(process: "subprocess.Popen[str]", version: str) -> list[str]:
    if version == MODERN:
        meta = {f"{_META}protocolVersion": MODERN, f"{_META}clientInfo": _CLIENT, f"{_META}clientCapabilities": {}}
        params: dict[str, Any] = {"_meta": meta}
        _request(process, 1, "server/discover", params)
    else:
        params = {}
        _request(process, 1, "initialize", {"protocolVersion": OLD, "capabilities": {}, "clientInfo": _CLIENT})
        _send(process, {"method": "notifications/initialized"})
    return [tool["name"] for tool in _request(process, 2, "tools/list", params)["tools"]]


def _request(process: "subprocess.Popen[str]", number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
    _send(process, {"id": number, "method": method, "params": params})
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        if message.get("id") == number:
            return message["result"]
    raise ValueError("it ended")


def _send(process: "subprocess.Popen[str]", message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    process.stdin.flush()
