"""The front door gives the answers of the SDK before the SDK is imported."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp.server import MCPServer
from processes import MODERN, answer_of, serving

from agent_jobs.emulator.server import RunningServer
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import ConfigError
from agent_jobs.mcp_server.front_door import FrontDoor, load_answers
from agent_jobs.mcp_server.server import build_server
from agent_jobs.mcp_server.stdio import run_server

LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
PREFIX = "io.modelcontextprotocol/"
EVERYTHING = frozenset({"initialize", "server/discover", "ping", *LISTS})
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}

Line = bytes | dict[str, Any] | list[Any]


def request(number: object, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def initialize(version: object = "2025-11-25", number: object = 1, **params: Any) -> dict[str, Any]:
    client = {"name": "test", "version": "1"}
    given = {"protocolVersion": version, "capabilities": {}, "clientInfo": client} | params
    return request(number, "initialize", **given)


def wrap_request(number: object, method: str, version: object = MODERN, **meta: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {f"{PREFIX}protocolVersion": version, f"{PREFIX}clientCapabilities": {}}
    return request(number, method, _meta=plain | meta)


async def no_engine() -> Engine:
    raise ConfigError("There is no engine here.")


@cache
def server() -> MCPServer:
    return build_server(no_engine)


class WatchedDoor(FrontDoor):
    """Reports when it has taken a line."""

    def __init__(self, stdin: int, stdout: int, left_out: frozenset[str]) -> None:
        super().__init__(stdin, stdout, load_answers(), left_out=left_out)
        self.taken = threading.Semaphore(0)

    def _take_line(self, line: bytes | None) -> None:
        super()._take_line(line)
        self.taken.release()


def is_answered(line: Line) -> bool:
    if isinstance(line, bytes):
        return bool(line.strip())
    number = None if isinstance(line, list) or "result" in line else line.get("id")
    return isinstance(line, list) or (isinstance(number, int | str) and not isinstance(number, bool))


async def answers(lines: Sequence[Line], left_out: frozenset[str] = frozenset()) -> tuple[list[Any], int]:
    """Return all sorted answers to these lines, and the number of those that came before the SDK."""
    host_reads, stdout = os.pipe()
    stdin, host_writes = os.pipe()
    door = WatchedDoor(stdin, stdout, left_out)
    door.open()
    for line in lines:
        os.write(host_writes, (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
        assert door.taken.acquire(timeout=60)
    os.set_blocking(host_reads, False)
    with os.fdopen(stdout, "wb"), os.fdopen(stdin, "rb"), os.fdopen(host_reads, "rb", buffering=0) as back:
        early = back.read() or b""
        everything = early
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_server, server(), door)
            with anyio.fail_after(60):
                while everything.count(b"\n") < sum(map(is_answered, lines)):
                    await anyio.wait_readable(host_reads)
                    everything += back.read() or b""
            os.close(host_writes)
        everything += back.read() or b""
    found = [json.loads(line) for line in everything.splitlines()]
    return sorted(found, key=lambda each: json.dumps(each, sort_keys=True)), early.count(b"\n")


async def compare_answers(*lines: Line) -> int:
    """Return how many of these lines the front door answers, after a check that the SDK alone answers the same."""
    alone, none = await answers(lines, EVERYTHING)
    together, early = await answers(lines)
    assert none == 0
    assert together == alone
    return early


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", MODERN, "1999-01-01", ""])
async def test_every_version_of_the_handshake_gets_the_answers_of_the_sdk(version: str) -> None:
    asked = [request(number, method) for number, method in enumerate(("ping", *LISTS), 2)]
    assert await compare_answers(initialize(version), INITIALIZED, *asked) == 6


@pytest.mark.parametrize("first", ["server/discover", *LISTS])
async def test_every_opening_with_an_envelope_gets_the_answers_of_the_sdk(first: str) -> None:
    asked = [wrap_request(number, method) for number, method in enumerate(("server/discover", *LISTS), 2)]
    assert await compare_answers(wrap_request(1, first), *asked) == 6


CAPABILITIES: dict[str, Any] = {
    "roots": {"listChanged": True},
    "sampling": {"tools": {}},
    "elicitation": {"form": {"applyDefaults": True}, "url": {}},
    "experimental": {"x": {"y": 1}},
    "extensions": {f"{PREFIX}tasks": {}, f"{PREFIX}ui": {"mimeTypes": ["text/html"]}},
    "tasks": {"list": {}, "cancel": {}, "requests": {"sampling": {"createMessage": {}}, "elicitation": {"create": {}}}},
}


@pytest.mark.parametrize("name", CAPABILITIES)
async def test_capabilities_of_a_host_change_no_answer(name: str) -> None:
    capabilities = {name: CAPABILITIES[name]}
    assert await compare_answers(initialize(capabilities=capabilities), INITIALIZED, request(2, "tools/list")) == 2
    opened = wrap_request(1, "server/discover", **{f"{PREFIX}clientCapabilities": capabilities})
    assert await compare_answers(opened, wrap_request(2, "tools/list")) == 2


TOOLS = request("t", "tools/list")
ODD: dict[str, tuple[list[Line], int]] = {
    "a byte order mark": ([b"\xef\xbb\xbf" + json.dumps(initialize()).encode(), TOOLS], 2),
    "a notification first": ([INITIALIZED, initialize(), TOOLS], 2),
    "an answer to nothing first": ([{"jsonrpc": "2.0", "id": 9, "result": {}}, initialize(), TOOLS], 2),
    "garbage first": ([b"}{", initialize(), TOOLS], 2),
    "an empty line first": ([b"", b"  ", initialize(), TOOLS], 2),
    "a batch first": ([[initialize(), TOOLS], initialize(number=2), TOOLS], 2),
    "ten notifications first": ([*[INITIALIZED] * 10, initialize(), TOOLS], 2),
    "half a surrogate pair in a name": ([initialize(clientInfo={"name": "\ud83d", "version": "1"}), TOOLS], 2),
    "no handshake at all": ([TOOLS], 0),
    "a ping before the handshake": ([request(0, "ping"), initialize(), TOOLS], 0),
    "a call before the handshake": ([request(0, "tools/call", name="agent_list"), initialize(), TOOLS], 0),
    "a handshake twice": ([initialize(), initialize("2024-11-05", 2), TOOLS], 2),
    "a handshake of no version": ([request(1, "initialize", capabilities={}), TOOLS], 0),
    "a handshake whose version is a number": ([initialize(1), TOOLS], 0),
    "a handshake with an envelope": ([wrap_request(1, "initialize"), initialize(number=2), TOOLS], 0),
    "a client without a version": ([initialize(clientInfo={"name": "x"}), initialize(number=2), TOOLS], 0),
    "a capability that is a text": ([initialize(capabilities={"roots": "yes"}), initialize(number=2), TOOLS], 0),
    "a capability of a wrong form": ([initialize(capabilities={"roots": {"listChanged": "maybe"}}), TOOLS], 0),
    "an unknown capability": ([initialize(capabilities={"telepathy": {}}), TOOLS], 0),
    "an icon": ([initialize(clientInfo={"name": "x", "version": "1", "icons": [{"src": "x:"}]}), TOOLS], 0),
    "an id that is null": ([initialize(number=None), initialize(), TOOLS], 2),
    "an id that is a fraction": ([initialize(number=1.5), initialize(), TOOLS], 2),
    "an id that is true": ([initialize(number=True), initialize(), TOOLS], 2),
    "an id that is a text": ([initialize(number="one"), TOOLS], 2),
    "a wrong version of JSON-RPC": ([initialize() | {"jsonrpc": "1.0"}, TOOLS], 0),
    "a method that is a number": ([{"jsonrpc": "2.0", "id": 1, "method": 5}, initialize(number=2), TOOLS], 2),
    "a member too many": ([initialize() | {"more": 1}, TOOLS], 0),
    "a cursor": ([initialize(), request(2, "tools/list", cursor="x"), TOOLS], 2),
    "parameters that are a list": ([initialize(), request(2, "tools/list") | {"params": []}, TOOLS], 2),
    "no parameters": ([initialize(), {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}], 2),
    "a token for progress": ([initialize(), request(2, "tools/list", _meta={"progressToken": 7})], 2),
    "a token that is a list": ([initialize(), request(2, "tools/list", _meta={"progressToken": []}), TOOLS], 2),
    "an unknown method": ([initialize(), request(2, "tools/lists"), TOOLS], 2),
    "an envelope after the handshake": ([initialize(), wrap_request(2, "tools/list"), TOOLS], 2),
    "a handshake after an envelope":
        ([wrap_request(1, "tools/list"), initialize(number=2), wrap_request(3, "tools/list")], 2),
    "no envelope after an envelope": ([wrap_request(1, "tools/list"), TOOLS, wrap_request(3, "tools/list")], 2),
    "an envelope of another version": ([wrap_request(1, "tools/list", "2027-01-01"), wrap_request(2, "tools/list")], 0),
    "an envelope whose version is a number": ([wrap_request(1, "tools/list", 7), wrap_request(2, "tools/list")], 0),
    "half an envelope": ([request(1, "tools/list", _meta={f"{PREFIX}protocolVersion": MODERN})], 0),
    "an envelope with more": ([wrap_request(1, "tools/list", **{f"{PREFIX}logLevel": "debug"})], 0),
    "a ping with an envelope": ([wrap_request(1, "ping"), wrap_request(2, "tools/list")], 0),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "early"), ODD.values(), ids=ODD)
async def test_odd_opening_ends_in_the_answers_of_the_sdk(lines: list[Line], early: int) -> None:
    assert await compare_answers(*lines) == early


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3),
    lambda each: st.lists(each, max_size=2) | st.dictionaries(st.text(max_size=3), each, max_size=2),
    max_leaves=4,
)
capabilities = st.dictionaries(
    st.sampled_from([*CAPABILITIES, "other"]),
    values | st.dictionaries(st.sampled_from(["listChanged", "form", "requests", "list", "x"]), values, max_size=2),
    max_size=2,
)
clients = st.dictionaries(st.sampled_from(["name", "version", "title", "websiteUrl", "icons", "x"]), values, max_size=4)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(capabilities=capabilities, client=clients | st.just({"name": "x", "version": "1"}))
def test_every_description_of_a_host_gets_the_answers_of_the_sdk(
    capabilities: dict[str, Any], client: dict[str, Any]
) -> None:
    opened = initialize(capabilities=capabilities, clientInfo=client)
    meta = {f"{PREFIX}clientCapabilities": capabilities, f"{PREFIX}clientInfo": client}
    anyio.run(lambda: compare_answers(opened, TOOLS))
    anyio.run(lambda: compare_answers(wrap_request(1, "tools/list", **meta), wrap_request(2, "tools/list")))


async def test_host_that_gives_up_on_discovery_may_still_initialize() -> None:
    found, early = await answers([wrap_request(1, "server/discover"), initialize(number=2), TOOLS])
    assert early == 3
    by_id = {each["id"]: each["result"] for each in found}
    assert MODERN in by_id[1]["supportedVersions"]
    assert by_id[2]["protocolVersion"] == "2025-11-25"
    assert by_id["t"]["tools"]


async def test_lists_are_answered_while_the_sdk_is_still_being_imported(
    tmp_path: Path, upstream: RunningServer
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "slow").mkdir()
    # The first import of the SDK waits until the test writes into the gate, and then imports the real one.
    (tmp_path / "slow" / "mcp.py").write_text(
        f"import sys; open({str(gate)!r}).read(); sys.path.remove({str(tmp_path / 'slow')!r}); del sys.modules['mcp']\n"
        "import mcp; sys.modules[__name__] = mcp\n"
    )
    with serving(tmp_path / "data", upstream.base_url, PYTHONPATH=str(tmp_path / "slow")) as server:
        assert server.initialize()["serverInfo"]["name"] == "agent-jobs"
        names = [tool["name"] for tool in server.request("tools/list")["tools"]]
        assert "agent_start" in names
        call = server.send("tools/call", {"name": "agent_list", "arguments": {}})
        assert server.request("ping") == {}
        assert not server.answered(call)
        gate.write_text("")
        assert answer_of(server.answer(call))["jobs"] == []
        assert server.end() == 0


def test_user_with_presets_gets_them_as_prompts(tmp_path: Path, upstream: RunningServer) -> None:
    presets = tmp_path / "presets.toml"
    presets.write_text('[mine]\ndescription = "Mine."\n')
    with serving(tmp_path / "data", upstream.base_url, AGENT_JOBS_PRESETS=str(presets)) as server:
        server.initialize()
        assert "mine" in [prompt["name"] for prompt in server.request("prompts/list")["prompts"]]


def test_front_door_imports_nothing_but_the_standard_library() -> None:
    door = "agent_jobs.mcp_server.front_door"
    script = f"import sys; before = set(sys.modules); import {door}; print(*set(sys.modules) - before)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    outside = {name.partition(".")[0] for name in ran.stdout.split()} - sys.stdlib_module_names
    assert outside == {"agent_jobs"}
    assert "typing" not in ran.stdout.split()


def explain(data: bytes, capfd: pytest.CaptureFixture[str]) -> str:
    """Return what a server writes on stderr about its input."""
    stdin, host_writes = os.pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    door = FrontDoor(stdin, null, load_answers())
    os.write(host_writes, data)
    os.close(host_writes)
    door.open()
    ended = threading.Event()
    door.hand_over(lambda line: ended.set() if line is None else None)
    assert ended.wait(timeout=60)
    os.close(stdin)
    os.close(null)
    return capfd.readouterr().err


@pytest.mark.parametrize(
    "data",
    [
        b"hi\n", b"hi", b"\n\nhi\nthere\n", b"What is 1 + 1?\r\n", b"42\n", b'"a task"\n', b'{"prompt": "hi"}\n',
        b"{\n  \"prompt\": 1\n}\n", b"# Notes\n", b"\xff\xfe\n", b"\xef\xbb\xbfhi",
    ],
)  # fmt: skip
def test_text_that_is_piped_into_the_server_is_explained_once(data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    shown = explain(data, capfd)
    assert shown.count("agent-jobs run -") == 1
    assert "MCP server" in shown


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"\r\n", initialize(), wrap_request(1, "tools/list"), [initialize()], INITIALIZED, {"jsonrpc": "1.0"}],
)
def test_messages_of_a_host_need_no_explanation(line: Line, capfd: pytest.CaptureFixture[str]) -> None:
    data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\nnot a message\n"
    assert explain(data, capfd) == ""
