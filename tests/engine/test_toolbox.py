"""Tool servers of the user as real processes and over real HTTP, well-behaved and broken ones."""

import base64
import json
import socket
import sys
import textwrap
import tracemalloc
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
import uvicorn
from anyio.abc import TaskStatus
from hosts import eventually
from mcp.server import MCPServer
from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp_types import ToolAnnotations
from pydantic import BaseModel

from agent_jobs.errors import ConfigError, RequestError, ToolServerError
from agent_jobs.toolbox.config import load_toolbox
from agent_jobs.toolbox.output import ToolOutput
from agent_jobs.toolbox.stdio_transport import STOP_STEPS_S
from agent_jobs.toolbox.toolbox import Policy, Toolbox

SCRIPT = str(Path(__file__).parents[1] / "support" / "tool_server.py")
TOKEN = "t0ken-that-no-output-has"


def bad_server_entry(*flags: str, **more: Any) -> dict[str, Any]:
    """Return an entry for tests/support/tool_server.py."""
    return {"command": sys.executable, "args": ["-S", SCRIPT, *flags], **more}


@asynccontextmanager
async def open_toolbox(
    folder: Path, environ: Mapping[str, str] | None = None, start_timeout_s: float = 30.0, /, **servers: Any
) -> AsyncGenerator[Toolbox]:
    path = folder / "tools.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    async with anyio.create_task_group() as tasks:
        yield Toolbox(load_toolbox(path), {} if environ is None else environ, tasks, start_timeout_s=start_timeout_s)
        tasks.cancel_scope.cancel()


async def call_tool(box: Toolbox, name: str, /, **arguments: Any) -> ToolOutput:
    server = name.partition("__")[0]
    return await box.call(name, json.dumps(arguments), [server])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Tools of a job


async def test_tools_of_a_server_are_functions_with_its_name(tmp_path: Path):
    async with open_toolbox(
        tmp_path, one=bad_server_entry(allow=["ec*", "env"], deny=["env"]), two=bad_server_entry(allow=["write"])
    ) as box:
        assert await box.list_functions(["one", "two"]) == [
            {
                "type": "function",
                "name": name,
                "description": f"Does {name[5:]}.",
                "parameters": {"type": "object", "properties": {}},
                "strict": False,
            }
            for name in ("one__echo", "two__write")
        ]
        assert (await box.call("one__echo", '{"text": "hallo"}', ["one"])) == ToolOutput("hallo")


async def test_tools_that_a_job_does_not_name_are_not_offered_and_do_not_run(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry(), unstartable={"command": "/no/such/program"}) as box:
        assert await box.list_functions([]) == []
        assert [f["name"] for f in await box.list_functions(["one/p*", "one/echo", "!one/p?t"])] == [
            "one__echo",
            "one__pid",
        ]
        assert await box.find_policy("one__put", ["one", "!one/put"]) is None
        assert (await box.call("one__put", "{}", ["one/echo"])).failed
        assert (await box.call("one__echo", "{}", [])).failed


async def test_rule_without_a_matching_tool_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rules = {"deny": ["wrte", "ec*"], "approval": {"putt": "always", "x": "never", "put": "ask"}}
    async with open_toolbox(tmp_path, one=bad_server_entry(**rules)) as box:
        for _ in range(2):
            await box.list_functions(["one"])
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("agent_jobs")]
    assert messages == [
        f"tool server one: deny or approval names '{glob}', but the server has no such tool"
        for glob in ("wrte", "putt")
    ]


async def test_job_cannot_name_a_tool_that_the_user_does_not_allow(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry(deny=["crash"])) as box:
        with pytest.raises(RequestError, match="no tool 'crash'"):
            await box.list_functions(["one/crash"])
        assert (await call_tool(box, "one__crash")).output == "There is no function one__crash."


async def test_names_that_do_not_exist_are_refused_with_the_nearest_one(tmp_path: Path):
    async with open_toolbox(tmp_path, tracker=bad_server_entry()) as box:
        with pytest.raises(RequestError, match="no tool server 'traker'") as refused:
            box.check_names(["traker"])
        assert refused.value.data["near"] == "tracker"
        with pytest.raises(RequestError, match="tracker has no tool 'ecko'") as refused:
            await box.list_functions(["tracker/ecko"])
        assert refused.value.data["near"] == "echo"
        box.check_names(["tracker", "tracker/not-looked-at-yet", "!tracker/x"])
    async with open_toolbox(tmp_path) as box:
        with pytest.raises(RequestError, match="there are no tool servers") as refused:
            box.check_names(["anything"])
        assert refused.value.code == "no_tool_servers"


async def test_function_is_recognized_by_name_before_its_server_runs(tmp_path: Path):
    async with open_toolbox(
        tmp_path, **{"one": bad_server_entry(), "Brave Search": {"command": "/no/such/program"}}
    ) as box:
        names = ["one/e*", "Brave Search"]
        assert box.has_function("one__echo", names)
        assert box.has_function("Brave_Search__web_0123456789", names)
        assert not box.has_function("onetwo__echo", names)
        assert not box.has_function("one__echo", ["Brave Search"])


async def test_another_process_calls_a_function_that_it_never_listed(tmp_path: Path):
    name = "a server with spaces"
    async with open_toolbox(tmp_path, **{name: bad_server_entry()}) as box:
        functions = {f["description"]: f["name"] for f in await box.list_functions([name])}
    async with open_toolbox(tmp_path, **{name: bad_server_entry()}) as box:
        assert await box.find_policy(functions["Does write."], [name]) == Policy(True, False, False)
        assert await box.call(functions["Does echo."], '{"text": "x"}', [name]) == ToolOutput("x")


# Approvals


async def test_tool_that_declares_itself_read_only_runs_and_others_wait(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        policies = {
            name: await box.find_policy(f"one__{name}", ["one"]) for name in ("echo", "write", "put", "nothing")
        }
    assert policies == {
        "echo": Policy(asks=False, read_only=True, idempotent=False),
        "write": Policy(asks=True, read_only=False, idempotent=False),
        "put": Policy(asks=True, read_only=False, idempotent=True),
        "nothing": None,
    }


@pytest.mark.parametrize(
    ("approval", "asks"),
    [("ask", "write"), ("always", "echo write"), ("never", ""), ({"wr*": "never", "*": "always"}, "echo")],
)
async def test_file_of_the_user_overrides_the_read_only_declaration(tmp_path: Path, approval: Any, asks: str):
    async with open_toolbox(tmp_path, one=bad_server_entry(approval=approval)) as box:
        policies = {name: await box.find_policy(f"one__{name}", ["one"]) for name in ("echo", "write")}
    assert " ".join(name for name, policy in policies.items() if policy and policy.asks) == asks


# Outputs of calls


async def test_long_output_is_cut_with_a_note(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        output = (await call_tool(box, "one__echo", text="0123456789", times=100_000)).output
    assert isinstance(output, str)
    assert len(output) < 41_000
    assert "960000 characters are left out" in output
    assert output.startswith("0123456789")
    assert output.endswith("0123456789")


async def test_images_are_passed_on_and_other_data_is_replaced_with_a_note(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        text, image, note = (await call_tool(box, "one__image")).output
    assert text == {"type": "input_text", "text": "look:"}
    assert isinstance(image, dict)
    assert image["type"] == "input_image"
    assert image["image_url"].startswith("data:image/png;base64,iVBORw0")
    assert isinstance(note, dict)
    assert "12 bytes is left out" in note["text"]


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
RAW = base64.b64decode(PIXEL)
ROOM_FOR_BOTH = base64.b64encode(b"\xff\xd8\xff\xfb\xef\xbe" + bytes(9)).decode()


def image_part(data: object = PIXEL, mime: object = "image/png", **more: Any) -> dict[str, Any]:
    return {"type": "image", "data": data, "mimeType": mime, **more}


def text_parts(*each: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text} for text in each]}


def resource_part(**contents: Any) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": "file:///a", **contents}}


def blob_part(raw: bytes, mime: str | None = None) -> dict[str, Any]:
    return resource_part(blob=base64.b64encode(raw).decode(), **({"mimeType": mime} if mime else {}))


PNG, JPEG = f"data:image/png;base64,{PIXEL}", f"data:image/jpeg;base64,{ROOM_FOR_BOTH}"
NOTHING, FAILED = "(The tool returned nothing.)", "(The tool failed without a message.)"
#: A tool's answer, and the output that the model reads; an image is shown as its address.
GIVEN: dict[str, tuple[dict[str, Any], str | list[str]]] = {
    "an image": ({"content": [image_part()]}, [PNG]),
    "an image called jpg": ({"content": [image_part(ROOM_FOR_BOTH, "image/jpg")]}, [JPEG]),
    "an image with another's label": ({"content": [image_part(PIXEL, "image/webp")]}, [PNG]),
    "an image with no label": ({"content": [{"type": "image", "data": PIXEL}]}, [PNG]),
    "an image with a label that is no text": ({"content": [image_part(PIXEL, 3)]}, [PNG]),
    "an image in a blob of bytes": ({"content": [blob_part(RAW, "application/octet-stream")]}, [PNG]),
    "an image in a blob without a label": ({"content": [blob_part(RAW)]}, [PNG]),
    "an image as a sound": ({"content": [{"type": "audio", "data": PIXEL, "mimeType": "audio/wav"}]}, [PNG]),
    "an image in lines": ({"content": [image_part("\n".join(textwrap.wrap(PIXEL, 20)) + "\r\n")]}, [PNG]),
    "an image with spaces": ({"content": [image_part(f" {PIXEL[:9]} {PIXEL[9:]}\t")]}, [PNG]),
    "an image without padding": ({"content": [image_part(PIXEL.rstrip("="))]}, [PNG]),
    "an image in the alphabet of addresses": (
        {"content": [image_part(ROOM_FOR_BOTH.replace("/", "_").replace("+", "-"), "image/jpeg")]},
        [JPEG],
    ),
    "an image as an address": ({"content": [image_part(PNG)]}, [PNG]),
    "an image as an address with another's label": ({"content": [image_part(PNG.replace("png", "jpg"), "")]}, [PNG]),
    "an image as an address in a blob": ({"content": [resource_part(blob=PNG)]}, [PNG]),
    "an image as an address in a text": (text_parts("a plot:", PNG), ["a plot:", PNG]),
    "words that begin like an address": (text_parts("data:,text;base64, of it"), "data:,text;base64, of it"),
    "an image as a model's API has it": (
        {"content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}]},
        [PNG],
    ),
    "an image as another API has it": ({"content": [{"type": "image_url", "image_url": {"url": PNG}}]}, [PNG]),
    "an image elsewhere": (
        {"content": [image_part("https://example.org/a.png")]},
        "[image/png is left out: the tool sent an address and not the data: https://example.org/a.png]",
    ),
    "no base64": ({"content": [image_part("what?!?!")]}, "[image/png of 6 bytes is left out: it is not base64]"),
    "an image without data": (
        {"content": [{"type": "image", "mimeType": "image/png"}]},
        "[content of the type 'image' is left out: nothing here reads it]",
    ),
    "a drawing": ({"content": [image_part(base64.b64encode(b"<svg/>").decode(), "image/svg+xml")]}, "<svg/>"),
    "a text in a blob": ({"content": [blob_part("gr\u00fc\u00df".encode(), "text/plain")]}, "gr\u00fc\u00df"),
    "a text in a blob of bytes": ({"content": [blob_part(b"a,b\n1,2", "application/octet-stream")]}, "a,b\n1,2"),
    "a text in a blob without a label": ({"content": [blob_part(b"\xef\xbb\xbfa")]}, "a"),
    "a text of Windows in a blob": ({"content": [blob_part(b"gr\xfc\xdf", "text/csv")]}, "gr\u00fc\u00df"),
    "a wide text in a blob": ({"content": [blob_part("gr\u00fc\u00df".encode("utf-16"))]}, "gr\u00fc\u00df"),
    "a text in a charset": (
        {"content": [blob_part("\u0434\u0430".encode("koi8-r"), "text/plain; charset=koi8-r")]},
        "\u0434\u0430",
    ),
    "a text in an address": ({"content": [resource_part(blob="data:text/plain,a%20b")]}, "a b"),
    "bytes": (
        {"content": [blob_part(b"\x00\xff", "application/zip")]},
        "[application/zip of 2 bytes is left out: it is not an image that a model accepts]",
    ),
    "bytes in letters": (
        {"content": [blob_part(b"%PDF-1.4 a")]},
        "[data of 10 bytes is left out: it is not an image that a model accepts]",
    ),
    "a resource without contents": (
        {"content": [resource_part()]},
        "[the resource file:///a is left out: the tool did not send its contents]",
    ),
    "a resource without an address": ({"content": [{"type": "resource", "resource": {"text": "a"}}]}, "a"),
    "a sound": (
        {"content": [{"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}]},
        "[audio/wav is left out: models do not accept sound here]",
    ),
    "a link": ({"content": [{"type": "resource_link", "uri": "file:///a", "title": "A"}]}, "A file:///a"),
    "a link without an address": (
        {"content": [{"type": "resource_link", "name": "A"}]},
        "[content of the type 'resource_link' is left out: nothing here reads it]",
    ),
    "an unknown type": (
        {"content": [{"type": "video", "frames": []}, {"type": "text", "text": "after"}]},
        "[content of the type 'video' is left out: nothing here reads it]\nafter",
    ),
    "an unknown type with a text": ({"content": [{"type": "markdown", "text": "# a"}]}, "# a"),
    "an unknown type with data": (
        {"content": [{"type": "video", "data": "AAAA", "mimeType": "video/mp4"}]},
        "[video/mp4 of 3 bytes is left out: it is not an image that a model accepts]",
    ),
    "no type": ({"content": [{"text": "a"}, "b", None, 3]}, "a\nb\n3"),
    "nothing known": ({"content": [{}]}, "[content without a type is left out: nothing here reads it]"),
    "a text that is none": ({"content": [{"type": "text", "text": {"a": 1}}]}, '{"a": 1}'),
    "odd annotations": ({"content": [{"type": "text", "text": "a", "annotations": "user"}], "_meta": 3}, "a"),
    "one part alone": ({"content": {"type": "text", "text": "a"}}, "a"),
    "an empty list": ({"content": []}, NOTHING),
    "an empty text": ({"content": [{"type": "text", "text": ""}]}, NOTHING),
    "nothing at all": ({}, NOTHING),
    "a failure without content": ({"isError": True}, FAILED),
    "a failure with an empty list": ({"content": [], "isError": True}, FAILED),
    "a failure with structure": ({"structuredContent": {"code": 7}, "isError": True}, '{"code": 7}'),
    "a summary": ({**text_parts("1 row"), "structuredContent": {"a": 1}}, '1 row\n{"a": 1}'),
    "a summary with an image": (
        {"content": [{"type": "text", "text": "a plot"}, image_part()], "structuredContent": {"a": 1}},
        ["a plot", PNG, '{"a": 1}'],
    ),
    "an image and its numbers": ({"content": [image_part()], "structuredContent": {"a": 1}}, [PNG, '{"a": 1}']),
    "the same as structure": ({**text_parts('{"a":1}'), "structuredContent": {"a": 1}}, '{"a":1}'),
    "the same within words": (
        {**text_parts('Found: {"a": 1}'), "structuredContent": {"a": 1}},
        'Found: {"a": 1}',
    ),
    "the same, wrapped": ({**text_parts("a"), "structuredContent": {"result": "a"}}, "a"),
    "the same, as a list": (
        {**text_parts("1", "b"), "structuredContent": {"result": [1, "b"]}},
        '1\nb\n{"result": [1, "b"]}',
    ),
    "a list of texts": (
        {**text_parts("a", "b"), "structuredContent": {"result": ["a", "b"]}},
        "a\nb",
    ),
    "a structure that is no object": ({"content": [], "structuredContent": [1]}, '{"result": [1]}'),
    "a structure with an image": (
        {"content": [], "structuredContent": {"png": PIXEL.rstrip("=") * 20}},
        '{"png": "[base64 of 1880 characters is left out: a model cannot read it]"}',
    ),
    "an answer of the first protocol": ({"toolResult": {"a": 1}}, '{"a": 1}'),
}  # fmt: skip


async def test_answer_is_passed_on_by_its_content_or_replaced_with_a_note(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        outputs: dict[str, str | list[Any]] = {}
        for name, (result, _) in GIVEN.items():
            called = await call_tool(box, "one__give", result=result)
            assert (name, called.failed) == (name, "isError" in result)
            output = called.output
            outputs[name] = output if isinstance(output, str) else [
                part["text"] if part["type"] == "input_text" else part["image_url"] for part in output
            ]  # fmt: skip
    assert outputs == {name: expected for name, (_, expected) in GIVEN.items()}


async def test_failing_tool_returns_its_error(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        assert await call_tool(box, "one__fail") == ToolOutput("it went wrong", failed=True)


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "null", '{"text": "\\ud800"}', '{"a":' * 3000, "NaN"])
async def test_arguments_that_are_no_json_object_never_reach_a_server(tmp_path: Path, arguments: str):
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        called = await box.call("one__echo", arguments, ["one"])
        assert called.failed
        assert "JSON" in str(called.output)
        assert await box.call("one__echo", "", ["one"]) == ToolOutput("(The tool returned nothing.)")


async def test_request_of_a_server_to_its_client_is_refused(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        assert "not supported" in str((await call_tool(box, "one__ask")).output)


# Secrets


async def test_secrets_are_filled_in_by_name_and_hidden_in_answers(tmp_path: Path):
    entry = bad_server_entry(env={"TOKEN": "${env:TOKEN}", "ZONE": "${ZONE:-UTC}", "PASSWORD": "literal-secret"})
    async with open_toolbox(tmp_path, {"TOKEN": TOKEN, "HOME": "/not/told"}, one=entry) as box:
        assert (await call_tool(box, "one__env", name="TOKEN")).output == "[secret]"
        assert (await call_tool(box, "one__env", name="PASSWORD")).output == "[secret]"
        assert (await call_tool(box, "one__env", name="ZONE")).output == "UTC"
        crashed = await call_tool(box, "one__crash")
    assert "cannot go on with [secret]" in str(crashed.output)
    assert TOKEN not in (tmp_path / "tools.json").read_text()


async def test_child_process_inherits_no_environment_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        assert (await call_tool(box, "one__env", name="OPENAI_API_KEY")).output == "(not set)"


async def test_unset_variable_is_an_error_until_it_is_set(tmp_path: Path):
    environ: dict[str, str] = {}
    async with open_toolbox(
        tmp_path, environ, one=bad_server_entry(env={"T": "${TOKEN}"}), two=bad_server_entry()
    ) as box:
        with pytest.raises(ConfigError, match=r"one: env.T names \$\{TOKEN\}"):
            await box.list_functions(["one"])
        assert await box.list_functions(["two"])
        environ["TOKEN"] = TOKEN
        assert await box.list_functions(["one"])


# Servers that misbehave


async def test_garbage_on_stdout_is_skipped(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry("garbage")) as box:
        assert await call_tool(box, "one__echo", text="x") == ToolOutput("x")


@pytest.mark.parametrize(("tool", "sign"), [("flood", ""), ("stderr", ""), ("huge", "longer than 16 MiB")])
async def test_flood_of_output_is_read_and_discarded(tmp_path: Path, tool: str, sign: str):
    """100 MB in one line, as noise, as stderr, and as an answer."""
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        await box.list_functions(["one"])
        tracemalloc.start()
        try:
            called = await call_tool(box, f"one__{tool}")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert sign in str(called.output)
        assert called.failed == bool(sign)
        assert await call_tool(box, "one__echo", text="x") == ToolOutput("x")
    assert peak < 50_000_000


async def test_server_that_only_prints_is_stopped_and_started_again(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry(allow=["endless", "echo"])) as box:
        called = await call_tool(box, "one__endless")
        assert called == ToolOutput(
            "Tool server one ended: it printed only lines that do not belong to the protocol.", failed=True
        )
        assert await call_tool(box, "one__echo", text="x") == ToolOutput("x")


async def test_server_that_does_not_read_delays_no_other_call(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry(timeout_s=1)) as box:
        assert (await call_tool(box, "one__deaf")).failed
        with anyio.fail_after(60):  # it still reads after ten minutes
            called = await call_tool(box, "one__echo", text="x" * 1_000_000)
        assert called == ToolOutput("Tool server one did not answer echo within 1 s.", failed=True)


async def test_several_jobs_share_one_run_of_a_server(tmp_path: Path):
    pids: set[object] = set()

    async def job(box: Toolbox) -> None:
        await box.list_functions(["one"])
        pids.add((await call_tool(box, "one__pid")).output)

    async with open_toolbox(tmp_path, one=bad_server_entry()) as box, anyio.create_task_group() as jobs:
        for _ in range(8):
            jobs.start_soon(job, box)
    assert len(pids) == 1


async def test_server_that_crashes_in_a_call_is_started_again_for_the_next(tmp_path: Path):
    """The restart is immediate as long as the server answers between its crashes."""
    pids: set[object] = set()
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        for _ in range(3):
            pids.add((await call_tool(box, "one__pid")).output)
            crashed = await call_tool(box, "one__crash")
            assert crashed.failed
            assert "Tool server one ended: it ended with status 7; its last words: cannot go on" in crashed.output
        pids.add((await call_tool(box, "one__pid")).output)
    assert len(pids) == 4
    assert all(str(pid).isdecimal() for pid in pids)


async def test_server_that_cannot_start_is_reported_with_its_last_output(tmp_path: Path):
    missing = tmp_path / "missing"
    async with open_toolbox(
        tmp_path, one=bad_server_entry("unready", str(missing)), two={"command": "/no/such/program"}
    ) as box:
        with pytest.raises(ToolServerError, match=r"one cannot be started: .*status 1.*ImportError: no module"):
            await box.list_functions(["one"])
        with pytest.raises(ToolServerError, match="two cannot be started: there is no /no/such/program"):
            await box.list_functions(["two"])
        missing.touch()
        assert await box.list_functions(["one"])


async def test_server_that_never_starts_is_retried_at_growing_intervals(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry("unready", "/no/such/file")) as box:
        messages = [str((await call_tool(box, "one__echo")).output) for _ in range(4)]
    assert ["again in" in sentence for sentence in messages] == [False, False, True, True]


@pytest.mark.parametrize("entry", [bad_server_entry("mute"), bad_server_entry("mute", "stubborn")])
async def test_server_that_hangs_at_its_start_is_stopped(tmp_path: Path, entry: dict[str, Any]):
    async with open_toolbox(tmp_path, {}, 0.3, one=entry) as box:
        with pytest.raises(ToolServerError, match=r"one cannot be started: it was not ready within 0.3 s"):
            await box.list_functions(["one"])


async def test_unanswered_call_times_out_and_is_cancelled_on_the_server(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry(timeout_s=1)) as box:
        called = await call_tool(box, "one__hang")
        assert called == ToolOutput("Tool server one did not answer hang within 1 s.", failed=True)
        with anyio.fail_after(60):
            while (
                seen := await call_tool(box, "one__seen")
            ).failed:  # on a busy machine a second may be too short for it
                pass
        assert "hang notifications/cancelled seen" in str(seen.output)


async def test_cancelling_a_call_cancels_it_on_the_server_and_leaves_the_others_alone(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_tool, box, "one__hang")
                while "hang" not in str((await call_tool(box, "one__seen")).output):
                    pass
                tasks.cancel_scope.cancel()
        assert str((await call_tool(box, "one__seen")).output).endswith("hang seen notifications/cancelled seen")


async def test_cancelled_call_does_not_stop_a_server_that_starts_for_others(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry()) as box:
        with anyio.move_on_after(0):
            await box.list_functions(["one"])
        assert await box.list_functions(["one"])


async def test_two_hundred_tools_are_refused_and_a_subset_is_accepted(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry("many")) as box:
        with pytest.raises(RequestError, match="names 200 tools, and the API accepts 128"):
            await box.list_functions(["one"])
        assert len(await box.list_functions(["one/tool_1*"])) == 111


async def test_schemas_that_the_api_refuses_are_repaired(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry("bad-schemas")) as box:
        parameters = [f["parameters"] for f in await box.list_functions(["one"])]
        descriptions = [f["description"] for f in await box.list_functions(["one"])]
    assert parameters == [
        {"type": "object", "properties": {"a": {}, "b": {"type": "array", "items": {}}}},
        {"type": "object", "properties": {"x": {"type": "string"}}},
        {"type": "object", "properties": {"n": {"type": "integer"}}},
        {"type": "object", "properties": {}},
    ]
    assert descriptions[3].startswith('Does bad_3.\nArguments: {"type": "object", "properties": {"p0"')


async def test_list_or_answer_outside_the_protocol_fails_with_a_sentence(tmp_path: Path):
    async with open_toolbox(tmp_path, one=bad_server_entry("no-tools"), two=bad_server_entry()) as box:
        with pytest.raises(
            ToolServerError, match=r"one did not list its tools in a form that the protocol defines: tools"
        ):
            await box.list_functions(["one"])
        assert "did not answer odd in a form that the protocol defines" in str(
            (await call_tool(box, "two__odd")).output
        )
        assert await call_tool(box, "two__echo", text="x") == ToolOutput("x")


async def test_malformed_tool_is_offered_if_it_has_a_name_and_hides_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with open_toolbox(tmp_path, one=bad_server_entry("odd-tools")) as box:
        parameters = {each["name"]: each["parameters"] for each in await box.list_functions(["one"])}
        await box.list_functions(["one"])
        policies = {name: await box.find_policy(f"one__{name}", ["one"]) for name in ("echo", "odd_hints", "odd_hint")}
    none: dict[str, Any] = {"type": "object", "properties": {}}
    a = {"a": {"type": "string"}}
    odd = ("none", "null", "text", "output", "outputs", "words", "hints", "hint")
    assert {name: each for name, each in parameters.items() if "odd_" in name} == {
        **{f"one__odd_{name}": none for name in odd},
        "one__odd_type": {"type": "object", "properties": {**a, "b": {}}, "required": []},
        "one__odd_snake": {"type": "object", "properties": a},
    }
    assert "one__echo" in parameters
    asks = {name: policy.asks for name, policy in policies.items() if policy is not None}
    assert asks == {"echo": False, "odd_hints": True, "odd_hint": True}
    [record] = [record for record in caplog.records if record.name.startswith("agent_jobs")]
    assert record.getMessage() == "tool server one: 3 of its tools are not offered, because they have no name"


async def test_started_servers_end_with_the_process_in_under_two_seconds(tmp_path: Path):
    pids = tmp_path / "pids"
    entry = bad_server_entry("stubborn", "family", str(pids))
    alive: list[int] = []
    leave, left = anyio.Event(), anyio.Event()

    async def process() -> None:
        async with open_toolbox(tmp_path, one=entry, two=bad_server_entry()) as box:
            await box.list_functions(["one", "two"])
            alive.extend(map(int, [*pids.read_text().split(), str((await call_tool(box, "two__pid")).output)]))
            assert [is_alive(pid) for pid in alive] == [True, True, True]
            leave.set()
        left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process)
        await leave.wait()
        with anyio.fail_after(60):
            await left.wait()
    await eventually(lambda: not any(map(is_alive, alive)))
    assert sum(STOP_STEPS_S) + STOP_STEPS_S[-1] < 2, "as long as a process waits for those that it has to stop"


async def test_number_of_simultaneous_calls_is_limited(tmp_path: Path):
    path = tmp_path / "tools.json"
    path.write_text(json.dumps({"mcpServers": {"one": bad_server_entry()}}))
    async with anyio.create_task_group() as tasks:
        box = Toolbox(load_toolbox(path), {}, tasks, concurrency=1)
        slots: list[str] = []
        both = anyio.Event()

        async def run(tool: str, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
            async def before_calling() -> None:
                slots.append(tool)
                task_status.started()
                if len(slots) == 2:
                    both.set()

            await box.call(f"one__{tool}", "{}", ["one"], before_calling)

        async with anyio.create_task_group() as first:
            await first.start(run, "hang")
            tasks.start_soon(run, "echo")
            for _ in range(3):
                await box.list_functions(["one"])  # asks the server: as far as that call could have come, too
            assert slots == ["hang"]
            first.cancel_scope.cancel()
        with anyio.fail_after(60):
            await both.wait()
        tasks.cancel_scope.cancel()


# Over HTTP


class Answer(BaseModel):
    ok: bool


def confirm() -> Answer | Elicit[Answer]:
    return Elicit("Sure?", Answer)


def build_web_server() -> MCPServer:
    server = MCPServer("web", log_level="CRITICAL")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def who(ctx: Context) -> str:  # pyright: ignore[reportUnusedFunction]
        """Return the name of the caller."""
        return f"{(ctx.headers or {}).get('authorization')} {ctx.protocol_version}"

    @server.tool()
    async def huge() -> str:  # pyright: ignore[reportUnusedFunction]
        """Too much."""
        return "x" * 50_000_000

    @server.tool()
    async def sure(answer: Annotated[ElicitationResult[Answer], Resolve(confirm)]) -> str:  # pyright: ignore[reportUnusedFunction]
        """Asks first."""
        return str(answer)

    return server


class WebServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def serve_web(listener: socket.socket, *, json_response: bool) -> AsyncGenerator[str]:
    app = build_web_server().streamable_http_app(json_response=json_response)
    server = WebServer(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        await server.up.wait()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        server.should_exit = True


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.parametrize("json_response", [True, False])
async def test_server_behind_a_url_gets_its_headers_and_its_answers_are_limited(
    tmp_path: Path, listener: socket.socket, json_response: bool
):
    async with serve_web(listener, json_response=json_response) as url:
        entry = {"type": "http", "url": url, "headers": {"Authorization": "Bearer ${TOKEN}"}}
        async with open_toolbox(tmp_path, {"TOKEN": TOKEN}, web=entry) as box:
            assert [f["name"] for f in await box.list_functions(["web"])] == ["web__huge", "web__sure", "web__who"]
            assert await call_tool(box, "web__who") == ToolOutput("[secret] 2026-07-28")
            huge = await call_tool(box, "web__huge")
            assert huge.failed
            assert "longer than 16 MiB" in huge.output
            assert (await call_tool(box, "web__sure")).failed
            assert await call_tool(box, "web__who") == ToolOutput("[secret] 2026-07-28")


async def test_restarted_server_behind_a_url_is_used_again(tmp_path: Path, listener: socket.socket):
    address = listener.getsockname()
    async with open_toolbox(tmp_path, web={"url": f"http://127.0.0.1:{address[1]}/mcp"}) as box:
        async with serve_web(listener, json_response=True):
            assert not (await call_tool(box, "web__who")).failed
        listener.close()
        assert "web ended: All connection attempts failed" in (await call_tool(box, "web__who")).output
        with socket.create_server(address) as again:
            async with serve_web(again, json_response=True):
                assert not (await call_tool(box, "web__who")).failed


async def test_unreachable_or_refusing_server_is_reported_with_the_reason(tmp_path: Path, listener: socket.socket):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    async with serve_web(listener, json_response=True) as url:
        servers = {"gone": {"url": f"http://127.0.0.1:{port}/mcp"}, "wrong": {"url": url.replace("/mcp", "/no")}}
        async with open_toolbox(tmp_path, **servers) as box:
            with pytest.raises(ToolServerError, match=r"gone cannot be started: .*connect"):
                await box.list_functions(["gone"])
            with pytest.raises(ToolServerError, match=r"wrong cannot be started: .*status 404"):
                await box.list_functions(["wrong"])
