"""The server as a host runs it: its process, pipes and signals, and a kill."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hosts import eventually, hosting, read, script_prompt
from mcp import Client, MCPError
from mcp.client.stdio import stdio_client
from mcp_types import TextContent, TextResourceContents
from processes import MODERN, Server, answer_of, parameters, serving

from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.settings.settings import Settings
from agent_jobs.text import compact_json

VERSIONS = ["2025-06-18", "2025-11-25", MODERN]
#: The mode in which the SDK's client opens a connection of each era, and the version that it then speaks.
ERAS = {"legacy": "2025-11-25", "auto": MODERN}
TOOLS = ["agent_start", "agent_poll", "agent_result", "agent_list", "agent_reply", "agent_cancel"]


def start(server: Server, emulate: dict[str, Any], **more: Any) -> dict[str, Any]:
    return server.call("agent_start", prompt=script_prompt("hello", emulate), **{"wait_s": 0, **more})


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_of_the_protocol_drives_a_job_to_its_end(
    tmp_path: Path, upstream: RunningServer, version: str
) -> None:
    with serving(tmp_path, upstream.base_url) as server:
        opened = server.initialize(version)
        assert version in (opened.get("protocolVersion"), *opened.get("supportedVersions", ()))
        assert opened["instructions"]
        tools = server.request("tools/list")["tools"]
        assert [tool["name"] for tool in tools] == TOOLS
        assert len(compact_json(tools).encode()) <= 4000
        job_id = start(server, {"duration_s": 2, "text": "over stdio"})["job_id"]
        assert server.call("agent_poll", job_id=job_id)["output"] == "over stdio"
        assert server.call("agent_result", job_id=job_id, part="usage")["usage"]["output_tokens"] > 0
        assert [row["job_id"] for row in server.call("agent_list")["jobs"]] == [job_id]
        cancelled = server.call("agent_cancel", job_id=start(server, {"end": "never"})["job_id"])
        assert cancelled["status"] == "cancelled"
        assert "think" in [prompt["name"] for prompt in server.request("prompts/list")["prompts"]]
        [message] = server.request("prompts/get", {"name": "think", "arguments": {"task": "TASK"}})["messages"]
        assert "TASK" in message["content"]["text"]
        [content] = server.request("resources/read", {"uri": f"job://{job_id}/result"})["contents"]
        assert content["text"] == "over stdio"
        assert server.end() == 0
        assert server.stderr() == ""


@pytest.mark.parametrize(("mode", "version"), ERAS.items())
async def test_client_of_each_era_drives_every_tool_prompt_and_resource(
    tmp_path: Path, upstream: RunningServer, mode: str, version: str
) -> None:
    async with Client(parameters(tmp_path, upstream.base_url), mode=mode) as client:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            return read(await client.call_tool(tool, arguments))

        assert client.protocol_version == version
        assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
        started = await call("agent_start", prompt=script_prompt("hello", {"duration_s": 2, "text": "by a client"}))
        job_id = started["job_id"]
        assert await call("agent_poll", job_id=job_id) == {
            "job_id": job_id, "status": "completed", "output": "by a client",
        }  # fmt: skip
        assert (await call("agent_result", job_id=job_id))["output"] == "by a client"
        assert (await call("agent_list", status="completed"))["counts"] == {"completed": 1}
        endless = await call("agent_start", prompts=[script_prompt("endless", {"end": "never"})] * 2)
        assert (await call("agent_cancel", batch=endless["batch"]))["counts"] == {"cancelled": 2}

        for prompt in (await client.list_prompts()).prompts:
            [message] = (await client.get_prompt(prompt.name, {"task": "TASK"})).messages
            assert isinstance(message.content, TextContent)
            assert f'preset="{prompt.name}"' in message.content.text and "TASK" in message.content.text
        templates = (await client.list_resource_templates()).resource_templates
        texts = [await text_of(client, template.uri_template.format(job_id=job_id)) for template in templates]
        assert texts == [
            compact_json({"job_id": job_id, "status": "completed", "output": "by a client"}),
            "by a client",
        ]


async def text_of(client: Client, uri: str) -> str:
    [content] = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


@pytest.mark.parametrize("mode", ERAS)
async def test_resource_of_an_unknown_job_is_refused_like_a_tool_call_and_not_logged(
    tmp_path: Path, upstream: RunningServer, mode: str
) -> None:
    with (tmp_path / "stderr").open("w+") as stderr:
        transport = stdio_client(parameters(tmp_path / "data", upstream.base_url), errlog=stderr)
        async with Client(transport, mode=mode) as client:
            started = read(await client.call_tool("agent_start", {"prompt": "PROMPT-7", "wait_s": 0}))
            for uri in ("job://job_none", "job://job_none/result"):
                with pytest.raises(MCPError, match=rf"no job 'job_none'. The newest are {started['job_id']}"):
                    await client.read_resource(uri)
        stderr.seek(0)
        assert stderr.read() == ""
    assert "PROMPT-7" not in (tmp_path / "data" / "agent-jobs.log").read_text()


ENDS: dict[str, Callable[[Server], int]] = {
    "end of stdin": lambda server: server.end(),
    "SIGTERM": lambda server: send_signal(server, signal.SIGTERM),
    "SIGINT": lambda server: send_signal(server, signal.SIGINT),
    "SIGHUP": lambda server: send_signal(server, signal.SIGHUP),
}


def send_signal(server: Server, number: signal.Signals) -> int:
    server.process.send_signal(number)
    return server.process.wait(60)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_server_ends_cleanly_with_a_poll_under_way(
    tmp_path: Path, upstream: RunningServer, end: Callable[[Server], int]
) -> None:
    with serving(tmp_path, upstream.base_url) as server:
        server.initialize()
        started = start(server, {"end": "never"})
        server.send("tools/call", {"name": "agent_poll", "arguments": {"job_id": started["job_id"]}})
        assert end(server) == 0
        assert server.stderr() == ""
    assert not list((tmp_path / "run").glob("*.lock")), "the store was closed"


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_id_that_is_on_its_way_when_the_server_ends_is_kept(
    tmp_path: Path, settings: Settings, upstream: RunningServer, end: Callable[[Server], int]
) -> None:
    upstream.queue_fault(on="create", delay_s=1.0 * 10)  # a second, at the emulator's pace
    assert settings.data_dir is not None
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        request = {"prompt": script_prompt("hello", {"duration_s": 1, "text": "not lost"})}
        server.send("tools/call", {"name": "agent_start", "arguments": request})
        await eventually(lambda: upstream.emulator.counters()["creates"] == 1)
        assert end(server) == 0
    async with hosting(settings) as host:
        job_id = (await host.refused("agent_poll", job_id="unknown")).partition("The newest are ")[2].split()[0]
        assert (await host.end(job_id))["output"] == "not lost"
    assert upstream.emulator.counters()["creates"] == 1


async def test_server_killed_during_a_job_loses_nothing(settings: Settings, upstream: RunningServer) -> None:
    assert settings.data_dir is not None
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        started = start(server, {"duration_s": 20, "text": "survived"})
        server.process.kill()
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        assert server.call("agent_poll", job_id=started["job_id"])["output"] == "survived"
        assert server.end() == 0
    assert upstream.emulator.counters()["creates"] == 1


async def test_server_killed_before_the_first_byte_of_the_post_costs_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    base_url = f"http://127.0.0.1:{port}/v1"
    with serving(tmp_path, base_url) as server:
        server.initialize()
        started = start(server, {"duration_s": 1, "text": "run after all"})
        assert started["status"] == "pending"
        server.process.kill()
    with run_emulator(port=port, time_scale=10) as upstream, serving(tmp_path, base_url) as server:
        server.initialize()
        assert server.call("agent_poll", job_id=started["job_id"])["output"] == "run after all"
        assert upstream.emulator.counters()["creates"] == 1


async def test_server_killed_before_the_id_arrived_leaves_an_unconfirmed_job_that_can_be_adopted(
    settings: Settings, upstream: RunningServer
) -> None:
    assert settings.data_dir is not None
    upstream.queue_fault(on="create", hang=True, after_accept=True)
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        started = start(server, {"duration_s": 1, "text": "found again"}, wait_s=0)
        assert started["status"] == "starting"
        server.process.kill()
    async with hosting(settings) as host:
        answer = await host.end(started["job_id"])
        assert answer["error"]["code"] == "start_unconfirmed"
        [run] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
        engine = await host.app.engine()
        await engine.adopt(started["job_id"], run["id"])
        assert (await host.end(started["job_id"]))["output"] == "found again"
    assert upstream.emulator.counters()["creates"] == 1


async def test_living_server_takes_over_from_a_killed_one(settings: Settings, upstream: RunningServer) -> None:
    assert settings.data_dir is not None
    async with hosting(settings, speed=1) as host:
        with serving(settings.data_dir, upstream.base_url) as server:
            server.initialize()
            started = start(server, {"duration_s": 15, "text": "taken over"})
            server.process.kill()
        assert (await host.end(started["job_id"]))["output"] == "taken over"


def test_neither_key_nor_prompt_nor_output_is_logged(tmp_path: Path, upstream: RunningServer) -> None:
    with serving(tmp_path, upstream.base_url, AGENT_JOBS_LOG_LEVEL="debug") as server:
        server.initialize()
        prompt = 'PROMPT-7 [emulate {"duration_s": 1, "text": "OUTPUT-7"}]'
        started = server.call("agent_start", prompt=prompt, wait_s=0)
        assert server.call("agent_poll", job_id=started["job_id"])["output"] == "OUTPUT-7"
        server.call("agent_start", prompt="PROMPT-7", effort="KEY-7")
        assert server.end() == 0
        logged = server.stderr()
    logged += (tmp_path / "agent-jobs.log").read_text()
    assert started["job_id"] in logged, "the log is of use"
    assert not any(secret in logged for secret in ("PROMPT-7", "OUTPUT-7", "KEY-7", "sk-secret"))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OPENAI_API_KEY": "", "AGENT_JOBS_STRUCTURED": "1"}, "agent-jobs key set"),
        ({"OPENAI_BASE_URL": "not an address"}, "OPENAI_BASE_URL"),
        ({"AGENT_JOBS_MAX_WAIT_S": "soon", "AGENT_JOBS_STRUCTURED": "1"}, "AGENT_JOBS_MAX_WAIT_S"),
        ({"AGENT_JOBS_DATA_DIR": "/dev/null/jobs"}, "AGENT_JOBS_DATA_DIR"),
    ],
    ids=["no key", "bad address", "bad number", "no folder"],
)
def test_server_with_wrong_settings_stays_up_and_its_tools_name_them(
    tmp_path: Path, environment: dict[str, str], expected: str
) -> None:
    base_url = environment.pop("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    data_dir = Path(environment.pop("AGENT_JOBS_DATA_DIR", str(tmp_path)))
    with serving(data_dir, base_url, **environment) as server:
        server.initialize()
        assert server.request("tools/list")["tools"]
        refused = server.request("tools/call", {"name": "agent_start", "arguments": {"prompt": "hello"}})
        assert refused["isError"]
        answer = answer_of(refused)
        assert expected in answer["error"]["message"]
        assert refused.get("structuredContent") == (answer if "AGENT_JOBS_STRUCTURED" in environment else None)
        assert server.end() == 0


LINES: dict[str, tuple[str, int | None, int | None]] = {
    "half a surrogate pair": (r'{"jsonrpc":"2.0","id":77,"method":"tools/call","params":{"name":"agent_list",'
                              r'"arguments":{"query":"\ud83d"}}}', 77, None),
    "a byte order mark": ('\ufeff{"jsonrpc":"2.0","id":77,"method":"ping"}', 77, None),
    "CRLF": ('{"jsonrpc":"2.0","id":77,"method":"ping"}\r', 77, None),
    "broken JSON": ('{"jsonrpc":"2.0","id":77,"method":', 77, -32700),
    "broken JSON with an id in its arguments": ('{"jsonrpc":"2.0","params":{"id":3,"text":"{"},"id":77,', 77, -32700),
    "broken JSON whose only id is an argument's": ('{"jsonrpc":"2.0","params":{"id":3},', None, -32700),
    "an answer that is none": ('{"id":3,"result":{}}', None, -32600),
    "no JSON": ("hello", None, -32700),
    "too deep": ('{"jsonrpc":"2.0","id":77,"method":"ping","params":{"a":' + "[" * 100_000, 77, -32700),
    "a batch": ('[{"jsonrpc":"2.0","id":77,"method":"ping"}]', None, -32600),
}  # fmt: skip


@pytest.mark.parametrize(("line", "number", "code"), LINES.values(), ids=LINES)
def test_line_that_cannot_be_read_is_repaired_or_answered(
    tmp_path: Path, line: str, number: int | None, code: int | None
) -> None:
    with serving(tmp_path, "http://127.0.0.1:9/v1") as server:
        server.initialize()
        assert server.process.stdin is not None
        server.process.stdin.write("\n" + line + "\n")
        server.process.stdin.flush()
        while (message := server._answers.get(timeout=60)) is not None and message.get("id") != number:  # pyright: ignore[reportPrivateUsage]
            pass
        assert message is not None
        assert message.get("error", {}).get("code") == code
        assert server.request("tools/list")["tools"]
