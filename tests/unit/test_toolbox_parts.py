"""The parts of the toolbox that need no server: the file, the names of functions, their schemas and outputs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema.validators import Draft202012Validator
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from agent_jobs.emulator.server import RunningServer
from agent_jobs.errors import ConfigError
from agent_jobs.request.body import build_body, shape_for_mode
from agent_jobs.strict_schema import is_strict
from agent_jobs.toolbox.config import ServerConfig, ToolServers, load_toolbox
from agent_jobs.toolbox.functions import (
    DESCRIPTION_CHARS,
    MAX_FUNCTIONS,
    build_function,
    build_function_name,
    prefix_of,
)
from agent_jobs.toolbox.output import MAX_IMAGES, TEXT_CHARS, read_output
from agent_jobs.toolbox.schema import fit_schema
from agent_jobs.toolbox.server_entry import KEYS
from agent_jobs.toolbox.stdio_transport import MESSAGE_BYTES, NOISE_BYTES, STOP_STEPS_S

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

# The file


def read(folder: Path, written: Any) -> ToolServers:
    path = folder / "tools.json"
    path.write_text(written if isinstance(written, str) else json.dumps(written))
    return load_toolbox(path)


def load(folder: Path, written: Any) -> dict[str, ServerConfig]:
    return dict(read(folder, written))


def test_file_of_a_host_can_be_used_as_it_is(tmp_path: Path):
    servers = load(
        tmp_path,
        {
            "globalShortcut": "",
            "mcpServers": {
                "git": {"type": "stdio", "command": "uvx", "args": ["mcp-server-git"], "autoApprove": ["git_push"]},
                "@owner/web.search": {"type": "streamableHttp", "url": "https://tools.example.org/mcp"},
                "off": {"command": "x", "disabled": True},
            },
        },
    )
    assert servers == {
        "git": ServerConfig(name="git", command="uvx", args=("mcp-server-git",)),
        "@owner/web.search": ServerConfig(name="@owner/web.search", url="https://tools.example.org/mcp"),
    }
    assert servers["git"].approval_of("git_push") == "ask"


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        (3, "object like"),
        ({}, "either a command or a url"),
        ({"command": "x", "url": "http://x"}, "either a command or a url"),
        ({"command": ""}, "command accepts a string"),
        ({"command": "x\0"}, "command accepts a string"),
        ({"command": "x", "args": "y"}, "args accepts a list"),
        ({"command": "x", "args": [None]}, "args accepts a list"),
        ({"command": "x", "env": {"A": [1]}}, "env accepts strings by name"),
        ({"command": "x", "env": {"A=B": "1"}}, "env accepts strings by name"),
        ({"command": "x", "env": {"A": "${input:token}"}}, "only an editor can ask for"),
        ({"command": "x", "arg": ["--read-only"]}, "did you mean 'args'"),
        ({"command": "x", "timeout_s": 0}, "1 to 3600"),
        ({"command": "x", "timeout_s": True}, "1 to 3600"),
        ({"command": "x", "type": "http"}, "does not go with its command"),
        ({"url": "http://x", "type": "sse"}, "type sse is not supported"),
        ({"url": "http://x", "transport": "sse"}, "type sse is not supported"),
        ({"url": "http://x", "type": "websocket"}, "stdio or http"),
        ({"url": "x"}, "web address"),
        ({"url": "http://[x"}, "web address"),
        ({"url": "http://x", "headers": {"A": "b\nc"}}, "a header cannot carry"),
        ({"url": "http://x", "headers": {"A B": "c"}}, "a header cannot carry"),
        ({"url": "http://x", "headers": {"A": {}}}, "headers accepts strings by name"),
    ],
)
def test_entry_that_cannot_be_used_is_refused_with_its_file_its_name_and_its_key(tmp_path: Path, entry: Any, hint: str):
    assert hint in read_refusal(tmp_path, {"mcpServers": {"tracker": entry, "fine": {"command": "x"}}})


@pytest.mark.parametrize(
    "rule",
    [
        '"deney": ["*"]',
        '"Deny": ["*"]',
        '"denied": ["*"]',
        '"alow": ["a"]',
        '"allowed_tools": ["a"]',
        '"blockedTools": ["a"]',
        '"aproval": "always"',
        '"approve": "always"',
        '"readOnly": true',
        '"allow": "git_*"',
        '"allow": null',
        '"allow": [3]',
        '"deny": {"a": true}',
        '"deny": ["a"], "deny": ["b"]',
        '"disabledTools": "a"',
        '"excludeTools": {"a": true}',
        '"includeTools": [3]',
        '"approval": "sometimes"',
        '"approval": {"*": ["never"]}',
        '"approval": {"a": "always", "a": "never"}',
        '"approval": null',
        '"disabled": "no"',
        '"disabled": null',
        '"enabled": "false"',
        '"isActive": 0',
    ],
)
def test_mistake_in_a_rule_keeps_its_server_from_being_used_and_no_other(tmp_path: Path, rule: str):
    read_refusal(tmp_path, f'{{"mcpServers": {{"tracker": {{"command": "x", {rule}}}, "fine": {{"command": "x"}}}}}}')


def read_refusal(folder: Path, written: Any) -> str:
    """Return the reason why the server `tracker` cannot be used, while `fine` can."""
    servers = read(folder, written)
    assert [*servers] == ["fine"]
    [(name, sentence)] = servers.refused.items()
    assert name == "tracker"
    assert sentence.startswith(f"AGENT_JOBS_TOOLBOX: {folder / 'tools.json'}: tracker: ")
    assert servers.warnings == [sentence]
    return sentence


STDIO, WEB = {"command": "x"}, {"url": "https://x/mcp"}


@pytest.mark.parametrize(
    ("entry", "expected", "note"),
    [
        ({**STDIO, "timeout": 60_000}, {}, "timeout is not used"),
        ({**STDIO, "timeout": "60s"}, {}, "timeout is not used"),
        ({**STDIO, "timeout_ms": 60_000}, {}, "timeout_ms is not used"),
        ({**STDIO, "envFile": ".env"}, {}, "envFile is not read"),
        ({**WEB, "oauth": {"clientId": "x"}}, {}, "oauth is not used"),
        ({**STDIO, "anything": [1]}, {}, "a: anything is not used."),
        ({**STDIO, "startup_timeout_sec": 1, "env_vars": ["A"]}, {}, "startup_timeout_sec, env_vars are not used."),
        ({"url": "https://y", "httpUrl": "https://x/mcp"}, {}, "url is not used beside httpUrl"),
        ({**STDIO, "type": "stdio", "url": "https://x"}, {"url": None}, "url is not used"),
        ({**WEB, "serverUrl": "https://y"}, {}, "serverUrl is not used"),
        ({**STDIO, "allow": ["a"], "includeTools": ["b"]}, {"allow": ("a",)}, "includeTools is not used"),
        ({**STDIO, "autoApprove": ["*"], "alwaysAllow": ["*"], "$schema": "x", "trust": True}, {}, ""),
        ({**STDIO, "enabled": True, "disabled": False, "isActive": True}, {}, ""),
        ({**STDIO, "url": "", "env": None, "headers": None}, {}, ""),
        ({**STDIO, "type": "", "cwd": "", "args": None, "env": [], "headers": ""}, {}, ""),
        ({**STDIO, "env": {"A": 1, "B": 0.5, "C": True, "D": None}}, {"env": {"A": "1", "B": "0.5", "C": "true"}}, ""),
        ({**STDIO, "args": ["--port", 80, False]}, {"args": ("--port", "80", "false")}, ""),
        ({**WEB, "headers": {"A": 1, "B": True, "C": None}}, {"headers": {"A": "1", "B": "true"}}, ""),
        ({"serverUrl": "https://x/mcp"}, {"url": "https://x/mcp"}, ""),
        ({"httpUrl": "https://x/mcp"}, {"url": "https://x/mcp"}, ""),
        ({**WEB, "type": "streamable-http"}, {}, ""),
        ({**WEB, "type": "Streamable HTTP"}, {}, ""),
        ({**WEB, "transportType": "streamableHttp"}, {}, ""),
        ({"command": ["x", "y"], "type": "local", "environment": {"A": "1"}}, {"args": ("y",), "env": {"A": "1"}}, ""),
        ({"command": {"path": "x", "args": ["y"]}}, {"args": ("y",)}, ""),
        ({**STDIO, "disabledTools": ["a"], "deny": ["b"]}, {"deny": ("b", "a")}, ""),
        ({**STDIO, "disabled_tools": ["a"], "excludeTools": ["c"]}, {"deny": ("a", "c")}, ""),
        ({**STDIO, "includeTools": ["a"]}, {"allow": ("a",)}, ""),
        ({**STDIO, "enabled_tools": ["a"]}, {"allow": ("a",)}, ""),
    ],
)
def test_keys_of_other_programs_are_translated_or_skipped_with_a_note(
    tmp_path: Path, entry: Any, expected: dict[str, Any], note: str
):
    servers = read(tmp_path, {"mcpServers": {"a": entry}})
    way: dict[str, Any] = {"command": "x"} if "command" in entry else {"url": "https://x/mcp"}
    assert dict(servers) == {"a": ServerConfig(name="a", **{**way, **expected})}
    assert len(servers.notes) == bool(note)
    assert note in "".join(servers.notes)


@pytest.mark.parametrize("switch", ['"disabled": true', '"enabled": false', '"isActive": false', '"active": false'])
def test_disabled_server_is_ignored_with_all_its_faults(tmp_path: Path, switch: str):
    servers = read(tmp_path, f'{{"mcpServers": {{"a": {{{switch}, "type": "sse", "deney": 1}}}}}}')
    assert (dict(servers), servers.off, servers.warnings) == ({}, {"a"}, [])


FORMS = {
    "VS Code": '{"servers": {"a": {"command": "x"}}, "inputs": [{"id": "t", "type": "promptString"}]}',
    "the settings of VS Code": '{"mcp": {"inputs": [], "servers": {"a": {"command": "x"}}}}',
    "Zed": '{"context_servers": {"a": {"source": "custom", "command": "x"}}}',
    "opencode": '{"mcp": {"a": {"type": "local", "command": ["x"]}}}',
    "comments": '// ours\n{"mcpServers": /* "b": */ {"a": {"command": "x"} // the last, }\n}}',
    "commas": '{"$schema": "https://x//y", "mcpServers": {"a": {"command": "x", "args": [], }, }, }',
    "a text like a comment": '{"mcpServers": {"a": {"command": "x", "title": "/* no */ // , }"},}}',
    "a byte order mark": '\ufeff{"mcpServers": {"a": {"command": "x"}}}',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("written", FORMS.values(), ids=FORMS)
def test_file_as_hosts_and_editors_write_it_is_read(tmp_path: Path, written: str, encoding: str):
    path = tmp_path / "tools.json"
    path.write_bytes(written.encode(encoding))
    servers = load_toolbox(path)
    assert dict(servers) == {"a": ServerConfig(name="a", command="x")}
    assert servers.warnings == []


def test_duplicate_server_is_not_used(tmp_path: Path):
    servers = read(tmp_path, '{"mcpServers": {"a": {"command": "x", "deny": ["*"]}, "a": {"command": "x"}}}')
    assert [*servers] == []
    assert "more than one server" in servers.refused["a"]


@pytest.mark.parametrize("name", ["none", "", "-x", "a" * 41, "a\nb", "!a", "ä"])
def test_server_needs_a_name_that_a_job_can_use(tmp_path: Path, name: str):
    servers = read(tmp_path, {"mcpServers": {name: {"command": "x"}, "fine": {"command": "x"}}})
    assert [*servers] == ["fine"]
    assert "a server's name has" in servers.refused[name]
    assert servers.refused[name].isprintable()


@pytest.mark.parametrize("written", ["", "{", "[]", "{}", '{"mcpServers": []}', "\udcff", "[" * 100_000])
def test_file_that_is_no_such_file_is_refused(tmp_path: Path, written: str):
    (tmp_path / "tools.json").write_bytes(written.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"tools.json (is not JSON|needs an object)"):
        load_toolbox(tmp_path / "tools.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_toolbox(tmp_path)


def test_representation_of_a_server_contains_no_secret(tmp_path: Path):
    entry = {"url": "http://x/?key=hidden", "headers": {"A": "hidden"}}
    servers = load(tmp_path, {"mcpServers": {"a": entry, "b": {"command": "x", "env": {"K": "hidden"}}}})
    assert "hidden" not in repr(servers)


# Names


@pytest.mark.parametrize(
    ("server", "tool", "name"),
    [
        ("git", "git_log", "git__git_log"),
        ("git", "a__b", "git__a__b"),
        ("a__b", "c", "a__b__c_a92700ced2"),
        ("a_", "b", "a___b_a00766a378"),
        ("files", "read.file", "files__read_file_97875296cb"),
        ("files", "read_file", "files__read_file"),
        ("s" * 40, "t" * 40, f"{'s' * 40}__{'t' * 11}_8be5796433"),
        ("s", "x_0123456789", "s__x_0123456789_42cc51788e"),
        ("@owner/x", "ä", "_owner_x____718d03f90f"),
    ],
)
def test_tool_has_the_same_name_in_every_process_and_every_version(server: str, tool: str, name: str):
    assert build_function_name(server, tool) == name


@given(st.sets(st.tuples(st.text("a_", min_size=1, max_size=6), st.text("a_.", min_size=1, max_size=6)), min_size=2))
def test_no_two_tools_have_the_same_name(tools: set[tuple[str, str]]):
    assert len({build_function_name(*each) for each in tools}) == len(tools)


@given(st.text(min_size=1, max_size=40), st.text(min_size=1))
def test_every_name_is_accepted_by_the_api(server: str, tool: str):
    name = build_function_name(server, tool)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name)
    assert name.startswith(prefix_of(server))


# Schemas

KEYWORDS = [
    *("type", "properties", "required", "items", "prefixItems", "anyOf", "oneOf", "allOf", "not", "enum", "const"),
    *("additionalProperties", "minimum", "exclusiveMinimum", "multipleOf", "minLength", "uniqueItems", "pattern"),
    *("format", "default", "description", "title", "$ref", "$defs", "definitions", "$schema", "$id", "x-anything"),
]
LEAVES = (
    st.sampled_from(["object", "array", "string", "str", "#", "#/$defs/a", "http://evil.example/s", "(", None, True])
    | st.integers(-2, 3)
    | st.floats()
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a", "b"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(KEYWORDS), SCHEMAS, max_size=6))
def test_any_offered_schema_is_sent_as_the_valid_schema_of_an_object(schema: dict[str, Any]):
    before = repr(schema)
    parameters = build_function("a__b", "", schema)["parameters"]
    assert repr(schema) == before
    Draft202012Validator.check_schema(parameters)
    assert parameters["type"] == "object"
    assert isinstance(parameters["properties"], dict)
    assert not {"anyOf", "oneOf", "allOf", "not", "enum", "$ref"} & parameters.keys()


CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (CLOSED, True),
        ({**CLOSED, "title": "dropped", "$schema": "dropped"}, True),
        ({"type": "object", "properties": {}, "required": [], "additionalProperties": False}, True),
        ({"type": "object"}, False),
        ({**CLOSED, "required": []}, False),
        ({**CLOSED, "properties": {"a": {"type": "string", "format": "uri"}}}, False),
        ({**CLOSED, "properties": {"a": {}}}, False),
        ({**CLOSED, "properties": {"a": {"type": ["object", "null"]}}}, False),
        ({**CLOSED, "properties": {"a": {"type": "array", "items": CLOSED}}}, True),
        ({**CLOSED, "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "object"}]}}}, False),
    ],
)
def test_strictness_is_on_where_a_schema_fits_and_off_elsewhere(schema: dict[str, Any], strict: bool):
    assert build_function("a__b", "", schema)["strict"] is strict


def test_alternatives_of_a_root_become_its_properties():
    assert fit_schema(
        {
            "$defs": {"x": {"properties": {"x": {"type": "string"}}, "required": ["x"]}, "y": {"enum": [1, 2]}},
            "allOf": [{"$ref": "#/$defs/x"}],
            "anyOf": [{"properties": {"y": {"$ref": "#/$defs/y"}}, "required": ["y"]}, {"required": ["x"]}],
            "properties": {
                "z": {"$ref": "#/$defs/missing", "description": "kept"},
                "far": {"type": "array", "items": {"$ref": "http://evil.example/schema.json"}},
            },
        }
    ) == {
        "type": "object",
        "properties": {
            "z": {"description": "kept"},
            "far": {"type": "array", "items": {}},
            "x": {"type": "string"},
            "y": {"$ref": "#/$defs/y"},
        },
        "required": ["x"],
        "$defs": {"x": {"properties": {"x": {"type": "string"}}, "required": ["x"]}, "y": {"enum": [1, 2]}},
    }


@pytest.mark.parametrize("keyword", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"])
@pytest.mark.parametrize("number", [10**400, -(10**400), float("inf"), float("nan")])
def test_number_that_no_float_can_hold_is_left_out_of_a_schema(keyword: str, number: float):
    schema = {"properties": {"a": {"type": "integer", keyword: number}}}
    assert fit_schema(schema) == {"type": "object", "properties": {"a": {"type": "integer"}}}


def test_endless_schema_is_described_in_words():
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(5_000):
        deep = {"properties": {"a": deep}}
    assert fit_schema(deep) is None
    assert not is_strict({"properties": {}})


@pytest.mark.parametrize(
    ("text", "end"), [("One. " * 500, "One. …"), ("word " * 500, "word …"), ("x" * 5000, "x …"), ("short", "short")]
)
def test_description_is_cut_where_a_sentence_or_a_word_ends(text: str, end: str):
    description = build_function("a__b", text, {})["description"]
    assert len(description) <= 1_024
    assert description.endswith(end)


# Outputs


def read_tool_output(*content: ContentBlock, **more: Any) -> str | list[dict[str, Any]]:
    return read_output(
        CallToolResult(content=list(content), **more), lambda text: text.replace("hush", "[secret]")
    ).output


def text(value: str) -> TextContent:
    return TextContent(type="text", text=value)


def test_texts_of_every_kind_are_one_output():
    resource = TextResourceContents(uri="file:///a", text="inside")
    link = ResourceLink(type="resource_link", name="report", uri="https://example.org/r", description="the report")
    sound = AudioContent(type="audio", data="AAAA", mime_type="audio/wav")
    blob = BlobResourceContents(uri="file:///b", blob="AAAA", mime_type="application/zip")
    output = read_tool_output(
        text("hush \ud800"),
        EmbeddedResource(type="resource", resource=resource),
        link,
        sound,
        EmbeddedResource(type="resource", resource=blob),
    )
    assert output == (
        "[secret] ?\ninside\nreport https://example.org/r the report\n"
        "[audio/wav is left out: models do not accept sound here]\n"
        "[application/zip of 3 bytes is left out: it is not an image that a model accepts]"
    )


def test_answer_of_structure_alone_is_its_json():
    assert read_tool_output(structured_content={"grüße": [1]}) == '{"grüße": [1]}'
    assert read_tool_output() == "(The tool returned nothing.)"


def test_number_of_sent_images_is_limited():
    picture = ImageContent(type="image", data=PIXEL, mime_type="image/png")
    output = read_tool_output(*[picture] * 10, text("end"))
    assert isinstance(output, list)
    assert [part["type"] for part in output] == ["input_image"] * 8 + ["input_text"]
    assert output[-1]["text"].endswith("end")


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        ("not base64!", "image/png"),
        ("AAAA", "image/jpeg"),
        ("iVBORw0KGgo", "image/png"),
        ("Qk0AAAAA", "image/bmp"),
        ("", "image/png"),
    ],
)
def test_data_with_the_label_of_an_image_is_not_sent(data: str, mime: str):
    assert f"[{mime} of" in read_tool_output(ImageContent(type="image", data=data, mime_type=mime))


# docs/agent-loop.md

PAGE = (Path(__file__).parents[2] / "docs/agent-loop.md").read_text()


def test_file_of_the_documentation_is_read_as_it_says(tmp_path: Path):
    (written,) = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    servers = load(tmp_path, written)
    git, tracker = servers["git"], servers["tracker"]
    assert [git.approval_of(tool) for tool in ("git_add", "git_commit", "git_log")] == ["never", "always", "ask"]
    assert [git.allows(tool) for tool in ("git_log", "git_reset")] == [True, False]
    assert [tracker.allows(tool) for tool in ("get_issue", "delete_issue")] == [True, False]
    settled, secrets = tracker.resolve({"TRACKER_TOKEN": "very-secret"})
    assert settled.headers == {"Authorization": "Bearer very-secret"}
    assert "very-secret" in secrets
    with pytest.raises(ConfigError, match="TRACKER_TOKEN"):
        tracker.resolve({})


def test_every_key_is_in_its_table_and_no_other():
    table = PAGE.partition("| key | |\n|---|---|\n")[2].partition("\n\n")[0]
    named = [key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(KEYS)


def test_limits_are_those_of_the_program():
    assert f"{TEXT_CHARS:,} characters of a call" in PAGE
    assert f"up to {MAX_IMAGES} and" in PAGE
    assert f"| {MESSAGE_BYTES >> 20} MiB;" in PAGE
    assert f"{NOISE_BYTES >> 20} MiB between" in PAGE
    assert f"{MAX_FUNCTIONS} functions" in PAGE
    assert f"{DESCRIPTION_CHARS:,} characters" in PAGE
    assert sum(STOP_STEPS_S) < 2


PLACES: dict[str, Callable[[Any], Any]] = {
    "a property": lambda part: {"x": part},
    "nested": lambda part: {"x": {"type": "object", "properties": {"y": part}}},
    "anyOf": lambda part: {"x": {"anyOf": [part, {"type": "null"}]}},
    "items": lambda part: {"x": {"type": "array", "items": part}},
    "any property": lambda part: {"x": {"type": "object", "additionalProperties": part}},
}


@pytest.mark.parametrize("kind", ["array", ["array"], ["array", "null"], ["string", "array"]])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_every_part_that_may_be_an_array_has_items(kind: Any, place: Callable[[Any], Any]) -> None:
    schema = {"type": "object", "properties": place({"type": kind}), "$defs": {"a": {"type": kind}}}
    sent = build_function("a__b", "", schema)["parameters"]
    assert sent["properties"] == place({"type": kind, "items": {}})
    assert sent["$defs"] == {"a": {"type": kind, "items": {}}}
    own = build_body("x", job_id="job_1", options={"tools": [{"type": "function", "name": "f", "parameters": schema}]})
    assert own["tools"][0]["parameters"] == sent


def test_array_without_items_is_accepted_upstream(upstream: RunningServer) -> None:
    schema = {"type": "object", "properties": {"x": {"type": ["array", "null"]}}}
    function = {"type": "function", "name": "f", "parameters": schema}
    body = shape_for_mode(build_body("x", job_id="job_1", options={"tools": [function]}), "background")
    with httpx2.Client(trust_env=False, base_url=upstream.base_url) as http:
        answer = http.post("/responses", json=dict(body), headers={"Authorization": "Bearer sk-secret"})
    assert answer.status_code == 200, answer.text
