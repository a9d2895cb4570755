"""The server as a host starts it, asked for its tools: in a folder of its own, without the user's key and jobs."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from typing import Any

from agent_jobs.ctrl_c import raise_on_ctrl_c

LIMIT_S = 30.0
OLD, MODERN = "2025-11-25", "2026-07-28"
_META = "io.modelcontextprotocol/"
_CLIENT = {"name": "agent-jobs doctor", "version": "1"}


class SelfTestError(Exception):
    """The server does not answer as a host needs it."""


def tools_in(version: str) -> list[str]:
    """The names of the tools that a new server process lists in this version of the protocol.

    Raises:
        SelfTestError: It ended, did not answer in time, or answered something else.
    """
    with raise_on_ctrl_c(), tempfile.TemporaryDirectory(prefix="agent-jobs-doctor-") as folder:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("AGENT_JOBS_", "OPENAI_"))}
        process = subprocess.Popen(
            [sys.executable, "-m", "agent_jobs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**kept, "AGENT_JOBS_DATA_DIR": folder},
        )
        watchdog = threading.Timer(LIMIT_S, process.kill)
        watchdog.start()
        try:
            return _asked(process, version)
        except (OSError, ValueError, KeyError) as error:
            raise SelfTestError(f"the server did not answer as it should ({error or 'it ended'})") from error
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
