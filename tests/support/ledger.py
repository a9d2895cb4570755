"""A tool server whose calls can be counted: it appends each one to a file when it begins, ends and is cancelled.

Run as a program, with the file's path; without anything that is not in the standard library.
"""

import json
import os
import sys
import threading
from typing import Any

LOG = sys.argv[1] if len(sys.argv) > 1 else os.devnull
#: Longer than any test takes.
HANG_S = 600.0
TOOLS = [
    {"name": "write", "description": "Writes.", "inputSchema": {"type": "object"}},
    {
        "name": "read",
        "description": "Reads.",
        "inputSchema": {"type": "object"},
        "annotations": {"readOnlyHint": True},
    },
]
STOPS: dict[Any, threading.Event] = {}


def note(*words: object) -> None:
    """Write one line in full to disk before the call continues."""
    with open(LOG, "ab", buffering=0) as log:
        log.write((" ".join(map(str, words)) + "\n").encode())


def say(**message: Any) -> None:
    os.write(1, (json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode())


def call(number: Any, name: str, arguments: dict[str, Any]) -> None:
    stop = STOPS[number] = threading.Event()
    note("begin", name, arguments.get("n"))
    stop.wait(HANG_S if arguments.get("hang") else arguments.get("seconds", 0))
    while "until" in arguments and not os.path.exists(arguments["until"]) and not stop.is_set():
        stop.wait(0.01)
    if stop.is_set():
        return note("cancelled", name, arguments.get("n"))
    note("end", name, arguments.get("n"))
    say(id=number, result={"content": [{"type": "text", "text": f"{name} {arguments.get('n')}"}]})


def answer(message: dict[str, Any]) -> None:
    method, params, number = message.get("method"), message.get("params", {}), message.get("id")
    if method == "initialize":
        server = {"name": "ledger", "version": "1"}
        say(id=number, result={"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": server})
    elif method == "tools/list":
        say(id=number, result={"tools": TOOLS})
    elif method == "tools/call":
        given = params["arguments"]
        # A call that ends by itself does so even if its caller is gone.
        threading.Thread(target=call, args=(number, params["name"], given), daemon="hang" in given).start()
    elif method == "notifications/cancelled" and params["requestId"] in STOPS:
        STOPS[params["requestId"]].set()
    elif number is not None:
        say(id=number, error={"code": -32601, "message": "Method not found"})


if __name__ == "__main__":
    for line in sys.stdin:
        answer(json.loads(line))
