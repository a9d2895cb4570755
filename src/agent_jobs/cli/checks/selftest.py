"""Start a server as a host does and list its tools, in a folder of its own without the user's jobs."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.process_group import signal_group

LIMIT_S = 60.0  # a server on a busy machine needs many seconds for its imports
#: Protocol versions with and without a handshake.
OLD, MODERN = "2025-11-25", "2026-07-28"
#: Beginnings of the names of the user's settings.
OWN_PREFIXES = ("AGENT_JOBS_", "OPENAI_")
_META = "io.modelcontextprotocol/"
_CLIENT = {"name": "agent-jobs doctor", "version": "1"}


class SelfTestError(Exception):
    """The server did not start or did not answer as a host expects."""


@dataclass(frozen=True)
class StartedServer:
    """A server that started and listed its tools."""

    tools: list[str]
    listed_s: float  #: from the start of the process until its tools were listed


def start_this_installation(version: str) -> StartedServer:
    """Start this installation, without the user's settings.

    Raises:
        SelfTestError: As `start_server`.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OWN_PREFIXES)}
    return start_server([sys.executable, "-m", "agent_jobs"], environment, version)


def start_server(
    command: Sequence[str], environment: Mapping[str, str], version: str = OLD, tool: str = ""
) -> StartedServer:
    """Start a server in a temporary data folder, list its tools in this protocol version, and call one of them.

    Raises:
        SelfTestError: The server ended, did not answer in time, or gave a wrong answer.
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
                env={**environment, "AGENT_JOBS_DATA_DIR": folder}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise SelfTestError(f"{command[0]} does not start ({error.strerror})") from error
        is_late = threading.Event()
        watchdog = threading.Timer(LIMIT_S, lambda: (is_late.set(), signal_group(process)))
        watchdog.start()
        try:
            tools = _list_tools(process, version)
            listed_s = time.monotonic() - began
            if tool:
                _call_server(process, 3, "tools/call", {"name": tool, "arguments": {}})
            return StartedServer(tools, listed_s)
        except (OSError, ValueError, KeyError) as error:
            last_line = _read_error_line(stderr)
            if is_late.is_set():
                said = f"; its last line is: {last_line}" if last_line else ""
                raise SelfTestError(f"the server did not answer within {LIMIT_S:g} s{said}") from error
            raise SelfTestError(f"the server did not answer correctly ({last_line or error or 'it ended'})") from error
        finally:
            watchdog.cancel()
            signal_group(process)  # a launcher such as uvx leaves a child that holds our pipes
            process.communicate()


def _read_error_line(file: IO[str]) -> str:
    """Return the last line with text, which is where programs name the error that ended them."""
    file.seek(0)
    return file.read().rstrip().rpartition("\n")[2].strip()


def _list_tools(process: "subprocess.Popen[str]", version: str) -> list[str]:
    """Return the names of the server's tools."""
    params: dict[str, Any] = {}
    if version == MODERN:
        meta = {f"{_META}protocolVersion": MODERN, f"{_META}clientInfo": _CLIENT, f"{_META}clientCapabilities": {}}
        params = {"_meta": meta}
        _call_server(process, 1, "server/discover", params)
    else:
        _call_server(process, 1, "initialize", {"protocolVersion": OLD, "capabilities": {}, "clientInfo": _CLIENT})
        _send_message(process, {"method": "notifications/initialized"})
    return [tool["name"] for tool in _call_server(process, 2, "tools/list", params)["tools"]]


def _call_server(
    process: "subprocess.Popen[str]", number: int, method: str, params: dict[str, Any]
) -> dict[str, Any]:  # fmt: skip
    """Send a request; return its result."""
    _send_message(process, {"id": number, "method": method, "params": params})
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        if message.get("id") == number:
            return message["result"]
    raise ValueError("it ended")


def _send_message(process: "subprocess.Popen[str]", message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    process.stdin.flush()
