"""A tool server that behaves as badly as it is told: MCP by hand, so that nothing between it and the pipe is polite.

Run as a program, without anything that is not in the standard library.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FLAGS = sys.argv[1:]
FLOOD = 100_000_000
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SEEN: list[str] = []


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"Does {name}.", "inputSchema": {"type": "object"}, **more}


READ_ONLY = {"readOnlyHint": True}
TOOLS = [
    tool("echo", annotations=READ_ONLY),
    tool("write"),
    tool("put", annotations={"idempotentHint": True, "readOnlyHint": False}),
    *map(
        tool,
        (
            "ask",
            "crash",
            "deaf",
            "endless",
            "env",
            "fail",
            "flood",
            "give",
            "hang",
            "huge",
            "image",
            "odd",
            "pid",
            "raw",
            "seen",
            "stderr",
        ),
    ),
]
BAD_SCHEMAS: list[Any] = [
    {"type": "object", "properties": {"a": {"type": "str"}, "b": {"type": "array"}}},
    {"type": "object", "oneOf": [{"properties": {"x": {"type": "string"}}}, {"$ref": "http://evil.example/s.json"}]},
    {"type": "object", "properties": {"n": {"type": "integer", "exclusiveMinimum": True, "pattern": "("}}},
    {"type": "object", "properties": {f"p{n}": {"description": "x" * 1000} for n in range(100)}},
]


SCHEMA = {"inputSchema": {"type": "object"}}
#: Each is refused by the letter of the protocol, and with it the whole list.
ODD_TOOLS: list[Any] = [
    "no tool",
    {"name": 3, **SCHEMA},
    {"description": "It has no name.", **SCHEMA},
    {"name": "odd_none"},
    {"name": "odd_null", "inputSchema": None},
    {"name": "odd_text", "inputSchema": "object"},
    {"name": "odd_type", "inputSchema": {"properties": {"a": {"type": "string"}, "b": True}, "required": "a"}},
    {"name": "odd_snake", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
    {"name": "odd_output", **SCHEMA, "outputSchema": {}},
    {"name": "odd_outputs", **SCHEMA, "outputSchema": [{"type": "array"}]},
    {"name": "odd_words", **SCHEMA, "description": 3, "title": ["x"], "icons": "none", "_meta": 1, "execution": 2},
    {"name": "odd_hints", **SCHEMA, "annotations": {"readOnlyHint": "yes"}},
    {"name": "odd_hint", **SCHEMA, "annotations": "read-only"},
]


def say(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def flood(stream: Any, end: str = "\n") -> None:
    for _ in range(FLOOD // 1_000_000):
        stream.write("x" * 1_000_000)
    stream.write(end)
    stream.flush()


def text(value: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value}]}


def call(number: Any, name: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if name == "hang":
        return None
    if name == "deaf":
        time.sleep(600)
    if name == "endless":
        while True:
            flood(sys.stdout)
    if name == "crash":
        print(f"cannot go on with {os.environ.get('TOKEN', '')}", file=sys.stderr, flush=True)
        os._exit(7)
    if name == "flood":
        flood(sys.stdout)
    if name == "stderr":
        flood(sys.stderr, end="")
    if name == "huge":
        sys.stdout.write(f'{{"jsonrpc": "2.0", "id": {number}, "result": "')
        flood(sys.stdout, end='"}\n')
        return None
    if name == "give":
        return arguments["result"]
    if name == "raw":
        line = arguments["line"].replace("@ID@", str(number)) + "[" * arguments.get("deep", 0)
        sys.stdout.buffer.write(line.encode(arguments.get("encoding", "utf-8")) + b"\n")
        sys.stdout.flush()
        return None
    if name == "odd":
        return {"content": "not a list"}
    if name == "fail":
        return {**text("it went wrong"), "isError": True}
    if name == "image":
        broken = {"type": "image", "mimeType": "image/png", "data": "bm90IGFuIGltYWdl"}
        good = {"type": "image", "mimeType": "image/png", "data": PIXEL}
        return {"content": [*text("look:")["content"], good, broken]}
    if name == "ask":
        say(
            id="q",
            method="elicitation/create",
            params={"message": "?", "requestedSchema": {"type": "object", "properties": {}}},
        )
        return text(json.loads(sys.stdin.readline())["error"]["message"])
    said = {
        "env": lambda: os.environ.get(arguments.get("name", ""), "(not set)"),
        "pid": lambda: str(os.getpid()),
        "seen": lambda: " ".join(SEEN),
    }
    return text(said[name]() if name in said else arguments.get("text", "") * arguments.get("times", 1))


def tools() -> list[dict[str, Any]]:
    if "many" in FLAGS:
        return [tool(f"tool_{n}") for n in range(200)]
    if "bad-schemas" in FLAGS:
        return [tool(f"bad_{n}", inputSchema=schema) for n, schema in enumerate(BAD_SCHEMAS)]
    if "no-tools" in FLAGS:
        return [{"name": 3}]
    if "odd-tools" in FLAGS:
        return [*ODD_TOOLS, *TOOLS]
    return TOOLS


def answer(message: dict[str, Any]) -> None:
    method, params, number = message.get("method"), message.get("params", {}), message.get("id")
    SEEN.append(params.get("name") or str(method))
    if method == "initialize":
        server = {"name": "bad", "version": "1"}
        say(id=number, result={"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": server})
    elif method == "tools/list":
        say(id=number, result={"tools": tools()})
    elif method == "tools/call":
        result = call(number, params["name"], params.get("arguments", {}))
        if result is not None:
            say(id=number, result=result)
    elif number is not None:
        say(id=number, error={"code": -32601, "message": "Method not found"})


def main() -> None:
    if "stubborn" in FLAGS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "unready" in FLAGS and not Path(FLAGS[-1]).exists():
        print("Traceback (most recent call last):\nImportError: no module of that name", file=sys.stderr, flush=True)
        sys.exit(1)
    if "family" in FLAGS:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(FLAGS[-1]).write_text(f"{os.getpid()} {child.pid}")
    if "garbage" in FLAGS:
        print('Welcome!\n{}\n[1]\n\x00\xff{"jsonrpc": 3}\nnull\n' + "[" * 100_000, flush=True)
    if "marked" in FLAGS:
        sys.stdout.buffer.write("\ufeff".encode())
    if "mute" in FLAGS:
        time.sleep(600)
    for line in sys.stdin:
        answer(json.loads(line))
    if "stubborn" in FLAGS:
        time.sleep(600)


if __name__ == "__main__":
    main()
