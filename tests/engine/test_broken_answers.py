"""Messages of tool servers that the SDK cannot read are repaired, or become an error at once."""

import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import uvicorn
from hosts import Host, hosting
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from test_agent_loop import add_tool_servers, bad_server_entry, read_outputs, script_with_calls, tool_call
from test_toolbox import WebServer

from agent_jobs.settings.settings import Settings


def format_answer(text: str = "well", more: str = "", content: str | None = None) -> str:
    """Return an answer to a call, in which @ID@ stands for its id."""
    parts = f'[{{"type":"text","text":"{text}"}}]' if content is None else content
    return f'{{"jsonrpc":"2.0","id":@ID@,"result":{{"content":{parts}{more}}}}}'


def nested_text(levels: int) -> str:
    return ',"structuredContent":{"a":' + "[" * levels + "]" * levels + "}"


#: The answers of a server, and the text that the model must read.
ANSWERS: dict[str, tuple[str, str]] = {
    "half a surrogate pair": (format_answer(r"well \ud83d"), "well ?"),
    "the other half, in a key": (format_answer(more=r',"structuredContent":{"\udc00":"\ud83d"}'), "well"),
    "a whole pair": (format_answer(r"well \ud83d\ude00"), "well \U0001f600"),
    "deep": (format_answer(more=nested_text(300)), "well"),
    "very deep": (format_answer(more=nested_text(100_000)), "well"),
    "deep, and nothing else": (format_answer(content="[]", more=nested_text(300)), "[nested too deeply]"),
    "deep, with half a pair": (format_answer(r"well \ud83d", more=nested_text(300)), "well ?"),
    "brackets in a text": (format_answer("well " + "[{" * 300, more=nested_text(300)), "well " + "[{" * 300),
    "a byte order mark": ("\ufeff" + format_answer(), "well"),
    "a tab in a text": (format_answer("we\tll"), "we\tll"),
    "a batch of one": (f"[{format_answer()}]", "well"),
    "a carriage return": (format_answer() + "\r", "well"),
    "cut": (format_answer()[:60], "its answer is not JSON"),
    "cut in its depth": (format_answer()[:-1] + ',"a":' + "[" * 100_000, "its answer is not JSON"),
    "broken before its id": ('{"jsonrpc":"2.0","result":{"content":oops},"id":@ID@}', "its answer is not JSON"),
    "a result that is a text": ('{"jsonrpc":"2.0","id":@ID@,"result":"well"}', "its answer is not a JSON-RPC message"),
    "an error that is a text": ('{"jsonrpc":"2.0","id":@ID@,"error":"no"}', "its answer is not a JSON-RPC message"),
}
LATIN = (format_answer("wéll"), "w\ufffdll")


async def read_answers(host: Host, server: str) -> dict[str, str]:
    """Return the model's view of each answer; all calls run at the same time, together with a good one."""
    lines = [{"line": line} for line, _ in ANSWERS.values()] + [{"line": LATIN[0], "encoding": "latin-1"}]
    calls = [*(tool_call(f"{server}__raw", **line) for line in lines), tool_call(f"{server}__echo", text="good")]
    turns = script_with_calls(calls, [tool_call(f"{server}__echo", text="after it")])
    job = await host.start(emulate=turns, options={"toolbox": [f"{server}/raw", f"{server}/echo"]})
    assert (await host.end(job["job_id"]))["output"] == "the end"
    names = [*ANSWERS, "latin", "beside", "after"]
    return dict(zip(names, await read_outputs(host, job["job_id"]), strict=True))


def assert_answers(read: dict[str, str]) -> None:
    # Outputs are cut and their white space is folded in this view.
    wanted = {name: " ".join(text.split()) for name, (_, text) in ANSWERS.items()}
    wanted |= {"latin": LATIN[1], "beside": "good", "after": "after it"}
    assert {name: text for name, text in read.items() if wanted[name][:80] not in text} == {}


async def test_broken_answer_is_repaired_or_becomes_an_error_at_once(settings: Settings) -> None:
    async with hosting(add_tool_servers(settings, bad=bad_server_entry("marked", timeout_s=600))) as host:
        assert_answers(await read_answers(host, "bad"))


#: Messages that arrive instead of an answer to a call.
NO_ANSWERS = [
    '{"id":@ID@,"level":"info","message":oops}',
    '{"id":@ID@,"level":"info","error":"oops"}',
    '{"jsonrpc":"2.0","method":"notifications/message","params":{"id":@ID@,',
    '{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"\\ud83d"}}',
    '{"jsonrpc":"2.0","id":"log","method":"log","result":oops}',
    "{'id': @ID@, 'result': 1}",
    "null",
    "[]",
    "\ufeff",
]


async def test_message_without_an_answer_ends_no_call(settings: Settings) -> None:
    async with hosting(add_tool_servers(settings, bad=bad_server_entry(timeout_s=600))) as host:
        script = script_with_calls([tool_call("bad__raw", line=f"{line}\n{format_answer()}") for line in NO_ANSWERS])
        job = await host.start(emulate=script, options={"toolbox": ["bad/raw"]})
        assert (await host.end(job["job_id"]))["output"] == "the end"
        assert await read_outputs(host, job["job_id"]) == ["well"] * len(NO_ANSWERS)


# Behind a URL


def build_web_server(events: str) -> Starlette:
    """Return a server that sends the requested line: as one body, or as events with the line ends of `events`."""

    def written(body: str, encoding: str = "utf-8") -> Response:
        if not events:
            return Response(body.encode(encoding), media_type="application/json")
        *before, last = [f"data: {line}" for line in body.removesuffix("\r").split("\n")]
        lines = [*(line for each in before for line in (each, "")), ": a comment", "event: message", last, "", ""]
        return Response(events.join(lines).encode(encoding), media_type="text/event-stream")

    async def endpoint(request: Request) -> Response:
        if request.method == "GET":
            return Response(status_code=405)
        message = json.loads(await request.body())
        number, method, params = message.get("id"), message.get("method"), message.get("params", {})
        if number is None:
            return Response(status_code=202)
        if method == "tools/call" and params["name"] == "raw":
            given = params["arguments"]
            return written(given["line"].replace("@ID@", str(number)), given.get("encoding", "utf-8"))
        tool = {"description": "Does it.", "inputSchema": {"type": "object"}}
        results: dict[str, Any] = {
            "initialize": {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "x", "version": "1"},
            },
            "tools/list": {"tools": [{"name": name, **tool} for name in ("raw", "echo")]},
            "tools/call": {"content": [{"type": "text", "text": params.get("arguments", {}).get("text", "")}]},
        }
        known = {"result": results[method]} if method in results else {"error": {"code": -32601, "message": "no"}}
        return written("\ufeff" + json.dumps({"jsonrpc": "2.0", "id": number, **known}))

    return Starlette(routes=[Route("/mcp", endpoint, methods=["GET", "POST", "DELETE"])])


@asynccontextmanager
async def hosting_web(settings: Settings, events: str) -> AsyncGenerator[Host]:
    """Run a host with such a server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = WebServer(uvicorn.Config(build_web_server(events), log_config=None, timeout_graceful_shutdown=1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            await server.up.wait()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
            async with hosting(
                add_tool_servers(settings, web={"url": url, "approval": "never", "timeout_s": 600})
            ) as host:
                yield host
            server.should_exit = True


@pytest.mark.parametrize("events", ["", "\n", "\r\n", "\r"], ids=["a body", "events", "CRLF", "CR"])
async def test_broken_answer_behind_a_url_is_repaired_or_becomes_an_error_at_once(
    settings: Settings, events: str
) -> None:
    async with hosting_web(settings, events) as host:
        assert_answers(await read_answers(host, "web"))


async def test_event_without_an_answer_ends_no_call(settings: Settings) -> None:
    lines = [line for line in NO_ANSWERS if '"method"' in line]
    async with hosting_web(settings, "\n") as host:
        script = script_with_calls([tool_call("web__raw", line=f"{line}\n{format_answer()}") for line in lines])
        job = await host.start(emulate=script, options={"toolbox": ["web/raw"]})
        assert (await host.end(job["job_id"]))["output"] == "the end"
        assert await read_outputs(host, job["job_id"]) == ["well"] * len(lines)
