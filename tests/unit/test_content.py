"""The parts of a response are read without an exception, and hold no secret and no base64."""

import base64
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import (
    Response,
    ResponseCodeInterpreterToolCall,
    ResponseCompactionItem,
    ResponseFileSearchToolCall,
    ResponseFunctionShellToolCall,
    ResponseFunctionToolCall,
    ResponseFunctionWebSearch,
    ResponseOutputItem,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseToolSearchCall,
    ResponseUsage,
)
from openai.types.responses.mcp_tool_call_error import HTTPError
from openai.types.responses.response_code_interpreter_tool_call import OutputImage, OutputLogs
from openai.types.responses.response_file_search_tool_call import Result
from openai.types.responses.response_function_shell_tool_call import Action
from openai.types.responses.response_function_web_search import (
    ActionFind,
    ActionOpenPage,
    ActionSearch,
    ActionSearchSource,
)
from openai.types.responses.response_output_item import (
    ImageGenerationCall,
    LocalShellCall,
    LocalShellCallAction,
    McpApprovalRequest,
    McpCall,
    McpListTools,
    McpListToolsTool,
    ProgramOutput,
)
from openai.types.responses.response_output_text import (
    Annotation,
    AnnotationContainerFileCitation,
    AnnotationFileCitation,
    AnnotationFilePath,
    AnnotationURLCitation,
)
from openai.types.responses.response_reasoning_item import Content, Summary
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from agent_jobs.jobs.job import Job, Output, Turn
from agent_jobs.jobs.response import Failure, Usage, items_of, mapping_of, text_of
from agent_jobs.jobs.status import Status
from agent_jobs.rendering.markdown import render_markdown
from agent_jobs.rendering.outline import MAX_HEADINGS, find_headings
from agent_jobs.rendering.output import decode_image, find_sources, join_reasoning, list_files, list_items
from agent_jobs.rendering.paging import count_json_bytes, cut_page, select_page
from agent_jobs.rendering.redaction import hide_blobs, redact_request
from agent_jobs.rendering.short_lines import LINE_CHARS, TITLE_CHARS

NOW = 1_800_000_000.0
PICTURE = b"\x89PNG" + bytes(range(256)) * 8
BASE64 = base64.b64encode(PICTURE).decode()


# Outline.


def test_half_a_surrogate_pair_in_a_heading_becomes_a_question_mark():
    assert find_headings("a\ud83d\n# b\udc00") == [{"offset": 3, "level": 1, "title": "b?"}]


def test_outline_has_the_headings_outside_code_with_their_offsets():
    text = "\n".join(
        [
            "Vorwort über 長い",
            "# Ergebnis ##",
            "#no heading",
            "```python",
            "# a comment",
            "~~~",
            "````",
            "   ## Kosten 🎈 #1",
            "1. in a list",
            "    ~~~~ sh",
            "    # a comment",
            "~~~",
            "# a comment",
            "    ~~~~",
            "~~~ `js`",
            "# a comment",
            "~~~",
            "    # code by its indent",
            "```inline``` # no heading",
            "####### too deep",
            "###",
            "###### Ende\r",
            "```",
            "# never closed",
        ]
    )
    found = find_headings(text)
    assert [(entry["level"], entry["title"]) for entry in found] == [(1, "Ergebnis"), (2, "Kosten 🎈 #1"), (6, "Ende")]
    for entry in found:
        assert cut_page(text, entry["offset"], 1_000)[0].lstrip(" #").startswith(entry["title"])


def test_outline_is_bounded():
    found = find_headings(("# " + "long " * 1_000 + "\n") * 2_000)
    assert len(found) == MAX_HEADINGS
    assert max(len(entry["title"]) for entry in found) == TITLE_CHARS
    assert count_json_bytes(select_page(found, 0, 4_000)[0]) <= 4_000


@given(st.text(st.sampled_from("#`~ \t\r\nab長")))
def test_outline_of_any_text_points_at_lines_that_begin_with_its_headings(text: str):
    for entry in find_headings(text):
        line = text.encode()[entry["offset"] :].decode().lstrip()
        assert line.startswith("#" * entry["level"] + " ") or line.startswith("#" * entry["level"] + "\t")
        assert entry["title"]


@pytest.mark.parametrize("text", ["#" * 10**6, "# " + " #" * 10**6, " " * 10**6, "```" * 10**6, "# a\n" * 250_000])
def test_hostile_text_is_outlined_in_a_moment(text: str):
    find_headings(text)  # a pattern that backtracks would exceed the timeout of the tests


# Responses, built with the types of the openai package.


def a_response(*output: ResponseOutputItem, **fields: Any) -> dict[str, Any]:
    response = Response(
        id="resp_1",
        created_at=NOW,
        model="gpt-6.1-sol",
        object="response",
        status="completed",
        output=[*output],
        parallel_tool_calls=True,
        tool_choice="auto",
        tools=[],
        **fields,
    )
    return response.to_dict(mode="json")


def cite(url: str, title: str) -> AnnotationURLCitation:
    return AnnotationURLCitation(type="url_citation", url=url, title=title, start_index=0, end_index=1)


def a_message(text: str, *annotations: Annotation, phase: Any = None) -> ResponseOutputMessage:
    part = ResponseOutputText(type="output_text", text=text, annotations=[*annotations])
    return ResponseOutputMessage(
        id="msg_1", type="message", role="assistant", status="completed", content=[part], phase=phase
    )


def a_search(query: str, *urls: str) -> ResponseFunctionWebSearch:
    found = [ActionSearchSource(type="url", url=url) for url in urls]
    action = ActionSearch(type="search", query=query, queries=[query, query + " costs"], sources=found)
    return ResponseFunctionWebSearch(id="ws_1", type="web_search_call", status="completed", action=action)


IMAGE = ImageGenerationCall(
    id="ig_1",
    type="image_generation_call",
    status="completed",
    result=BASE64,
    output_format="webp",
    revised_prompt="A cat.",
)
CODE = ResponseCodeInterpreterToolCall(
    id="ci_1",
    type="code_interpreter_call",
    status="completed",
    container_id="cntr_1",
    code="print(40 + 2)\nplot()",
    outputs=[
        OutputLogs(type="logs", logs="42\n"),
        OutputImage(type="image", url="https://files.example/plot.png"),
        OutputImage(type="image", url="data:image/png;base64," + BASE64),
    ],
)
WROTE = AnnotationContainerFileCitation(
    type="container_file_citation",
    container_id="cntr_1",
    file_id="cfile_1",
    filename="t.csv",
    start_index=0,
    end_index=1,
)
NOTES = AnnotationFileCitation(type="file_citation", file_id="file_1", filename="notes.pdf", index=3)
THOUGHT = ResponseReasoningItem(
    id="rs_1",
    type="reasoning",
    summary=[Summary(type="summary_text", text="**Plan**"), Summary(type="summary_text", text="Look it up.")],
    encrypted_content="gAAAAAB" + "x" * 100,
)


def output_of(*output: ResponseOutputItem) -> list[dict[str, Any]]:
    return a_response(*output)["output"]


def test_sources_come_once_the_cited_ones_first_without_tracking_parameters():
    output = output_of(
        a_search("tea", "https://seen.example/?utm_source=openai", "https://B.example:443/x", "https://a.example/?q=1"),
        a_message(
            "text",
            cite("https://a.example/?q=1&utm_source=openai#:~:text=tea", "About tea"),
            NOTES,
            cite("https://b.example/x?utm_source=openai", ""),
            cite("https://a.example?q=1", "The same"),
            WROTE,
            AnnotationFilePath(type="file_path", file_id="file_2", index=1),
            cite("https://b.example/X", "Another"),
            cite("https://b.example/x", "Late title"),
        ),
    )
    assert find_sources(output) == [
        {"url": "https://a.example/?q=1#:~:text=tea", "title": "About tea", "cited": 2},
        {"file_id": "file_1", "filename": "notes.pdf", "cited": 1},
        {"url": "https://b.example/x", "title": "Late title", "cited": 2},
        {"container_id": "cntr_1", "file_id": "cfile_1", "filename": "t.csv", "cited": 1},
        {"url": "https://b.example/X", "title": "Another", "cited": 1},
        {"url": "https://seen.example/", "cited": 0},
    ]


@pytest.mark.parametrize("url", ["https://[broken", "https://app.example/#/a", "not a url", "https://x.example/?a=&b"])
def test_address_of_any_kind_is_an_unchanged_source(url: str):
    other = "https://app.example/#/b"
    assert [source["url"] for source in find_sources(output_of(a_search("q", url, url, other)))] == [url, other]


def test_data_url_is_no_source():
    assert find_sources(output_of(a_search("q", "data:image/png;base64," + BASE64))) == []


def test_each_item_is_one_entry_with_its_details():
    mcp = McpCall(
        id="mcp_1",
        type="mcp_call",
        server_label="wiki",
        name="search",
        arguments='{"q": "tea"}',
        output=json.dumps({"data": BASE64}),
        status="completed",
    )
    failed = HTTPError(type="http_error", code=502, message="Bad gateway")
    output = output_of(
        THOUGHT,
        a_search("tea", "https://a.example", "https://b.example"),
        ResponseFunctionWebSearch(
            id="ws_2",
            type="web_search_call",
            status="failed",
            action=ActionOpenPage(type="open_page", url="https://a.example"),
        ),
        ResponseFunctionWebSearch(
            id="ws_3",
            type="web_search_call",
            status="completed",
            action=ActionFind(type="find_in_page", url="https://a.example", pattern="price"),
        ),
        ResponseFileSearchToolCall(
            id="fs_1",
            type="file_search_call",
            status="completed",
            queries=["tea", "cup"],
            results=[Result(file_id="file_1", text="t")],
        ),
        CODE,
        IMAGE,
        mcp,
        mcp.model_copy(update={"output": None, "error": failed, "status": "failed"}),
        McpListTools(
            id="l", type="mcp_list_tools", server_label="wiki", tools=[McpListToolsTool(name="a", input_schema={})]
        ),
        McpApprovalRequest(
            id="mcpr_1", type="mcp_approval_request", server_label="wiki", name="delete", arguments="{}"
        ),
        ResponseFunctionToolCall(
            type="function_call", call_id="call_1", name="f", arguments='{"text": "' + "word " * 99 + '"}'
        ),
        ResponseToolSearchCall(
            id="ts_1",
            type="tool_search_call",
            execution="server",
            status="completed",
            arguments={"q": "tea", "nan": float("inf")},
        ),
        LocalShellCall(
            id="ls_1",
            type="local_shell_call",
            call_id="c",
            status="completed",
            action=LocalShellCallAction(type="exec", command=["ls", "-l"], env={"KEY": "SECRET"}),
        ),
        ResponseFunctionShellToolCall(
            id="sh_1",
            type="shell_call",
            call_id="c",
            status="in_progress",
            action=Action(commands=["make", "make test"]),
        ),
        ProgramOutput(id="po_1", type="program_output", call_id="c", result="5 rows", status="completed"),
        ResponseCompactionItem(id="cmp_1", type="compaction", encrypted_content="gAAAAAB"),
        a_message("First line.\n\nSecond line.", phase="final_answer"),
    )
    entries = list_items(output)
    assert entries.pop(11) == {
        "type": "function_call",
        "name": "f",
        "arguments": ('{"text": "' + "word " * 99)[: LINE_CHARS - 1] + "…",
    }
    assert entries == [
        {"type": "reasoning", "text": "**Plan**; Look it up."},
        {
            "type": "web_search_call",
            "status": "completed",
            "action": "search",
            "query": "tea; tea costs",
            "sources": 2,
        },
        {"type": "web_search_call", "status": "failed", "action": "open_page", "url": "https://a.example"},
        {
            "type": "web_search_call",
            "status": "completed",
            "action": "find_in_page",
            "url": "https://a.example",
            "pattern": "price",
        },
        {"type": "file_search_call", "status": "completed", "query": "tea; cup", "results": 1},
        {
            "type": "code_interpreter_call",
            "status": "completed",
            "code": "print(40 + 2) plot()",
            "output": "42",
        },
        {"type": "image_generation_call", "status": "completed", "prompt": "A cat."},
        {
            "type": "mcp_call",
            "status": "completed",
            "server": "wiki",
            "name": "search",
            "arguments": '{"q": "tea"}',
            "output": f'{{"data": "[{len(BASE64)} bytes not shown]"}}',
        },
        {
            "type": "mcp_call",
            "status": "failed",
            "server": "wiki",
            "name": "search",
            "arguments": '{"q": "tea"}',
            "error": "Bad gateway",
        },
        {"type": "mcp_list_tools", "server": "wiki", "tools": 1},
        {"type": "mcp_approval_request", "server": "wiki", "name": "delete", "arguments": "{}"},
        {"type": "tool_search_call", "status": "completed", "arguments": '{"q": "tea", "nan": null}'},
        {"type": "local_shell_call", "status": "completed", "action": "exec", "command": "ls; -l"},
        {"type": "shell_call", "status": "in_progress", "command": "make; make test"},
        {"type": "program_output", "status": "completed", "output": "5 rows"},
        {"type": "compaction"},
        {
            "type": "message",
            "status": "completed",
            "phase": "final_answer",
            "text": "First line. Second line.",
        },
    ]


def test_item_of_an_unknown_type_has_the_fields_that_are_known():
    assert list_items([{"type": "dream_call", "name": "n", "output": {"text": "t"}}, {}, "no item", None]) == [
        {"type": "dream_call", "name": "n", "output": "t"},
        {"type": "unknown"},
    ]


def test_refusal_has_its_text():
    refusal = ResponseOutputRefusal(type="refusal", refusal="No.")
    message = ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[refusal])
    assert list_items(output_of(message)) == [{"type": "message", "status": "completed", "text": "No."}]


def test_reasoning_is_its_summaries_or_else_its_content():
    plain = ResponseReasoningItem(
        id="rs", type="reasoning", summary=[], content=[Content(type="reasoning_text", text="Hm.")]
    )
    assert join_reasoning(output_of(THOUGHT, a_message("text"), plain)) == "**Plan**\n\nLook it up.\n\nHm."
    assert join_reasoning(output_of(a_message("text"))) == ""


def test_files_have_descriptors_and_a_picture_is_saved_byte_for_byte():
    output = output_of(IMAGE, CODE, a_message("t", WROTE, NOTES, WROTE, AnnotationFilePath(
        type="file_path", file_id="file_2", index=1)))  # fmt: skip
    assert list_files(output) == [
        {"type": "image", "id": "ig_1", "media_type": "image/webp", "bytes": len(PICTURE)},
        {"type": "image", "url": "https://files.example/plot.png"},
        {"type": "image", "media_type": "image/png", "bytes": len(PICTURE)},
        {"type": "container_file", "container_id": "cntr_1", "file_id": "cfile_1", "filename": "t.csv"},
        {"type": "file", "file_id": "file_2"},
    ]
    assert [decode_image(item) for item in output] == [PICTURE, None, None]


@pytest.mark.parametrize("result", ["data:image/png;base64," + BASE64, BASE64[:80] + "\n" + BASE64[80:]])
def test_picture_is_read_in_every_wrapping_of_a_server(result: str):
    assert decode_image({"type": "image_generation_call", "result": result}) == PICTURE


@pytest.mark.parametrize("result", [None, "", 7, ["x"], "no base64!", "長", "\ud83d", "AAAAA"])
def test_invalid_picture_has_no_size(result: Any):
    item = {"type": "image_generation_call", "result": result}
    assert decode_image(item) is None
    assert list_files([item]) == []


def test_response_without_blobs_is_the_response_with_notes_of_their_sizes():
    text = "An answer with `code` and https://a.example/" + "path/" * 30
    response = a_response(THOUGHT, IMAGE, CODE, a_message(text), metadata={"job_id": "job_1"})
    response["id"] = "resp_" + "x" * 421
    bare = hide_blobs(response)
    assert BASE64[:60] not in json.dumps(bare)
    assert "gAAAA" not in json.dumps(bare)
    assert bare["output"][0]["encrypted_content"] == "[107 bytes not shown]"
    assert bare["output"][1]["result"] == f"[{len(BASE64)} bytes not shown]"
    assert text_of(items_of(bare["output"])) == text
    response["output"][0]["encrypted_content"] = bare["output"][0]["encrypted_content"]
    response["output"][1]["result"] = bare["output"][1]["result"]
    response["output"][2]["outputs"][2]["url"] = bare["output"][2]["outputs"][2]["url"]
    assert bare == response


def test_secret_that_a_server_echoes_is_masked():
    tool = {"type": "mcp", "server_url": "https://a.example", "headers": {"X-Key": "SECRET"}, "authorization": "SECRET"}
    masked = {**tool, "headers": {"X-Key": "***"}, "authorization": "***"}
    assert hide_blobs({"id": "resp_1", "tools": [tool]}) == {"id": "resp_1", "tools": [masked]}


# Any JSON.

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
#: Every name and type that the modules read, so that wrong types reach every line of them.
NAMES = [
    *("type", "id", "status", "content", "summary", "text", "refusal", "annotations", "url", "title", "file_id"),
    *("filename", "container_id", "action", "operation", "sources", "query", "queries", "results", "output", "outputs"),
    *("result", "output_format", "encrypted_content", "arguments", "name", "error", "message", "logs", "command"),
    *("input", "instructions", "tools", "headers", "authorization", "server_url", "model", "usage", "variables"),
]
KINDS = [
    *("message", "reasoning", "web_search_call", "image_generation_call", "code_interpreter_call", "mcp_call"),
    *("url_citation", "file_citation", "container_file_citation", "file_path", "search", "program_output", "image"),
]


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    named = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=6)
    return named | st.tuples(named, st.sampled_from(KINDS)).map(lambda both: {**both[0], "type": both[1]})


values: st.SearchStrategy[Any] = st.recursive(
    scalars | st.sampled_from(["https://a.example/?utm_source=x", "http://[", "data:image/png;base64,AAAA", BASE64]),
    lambda inner: st.lists(inner, max_size=4) | objects(inner),
    max_leaves=12,
)


def render_everything(value: Any) -> list[Any]:
    """Return all that the modules render if this value replaces an output, an item, a response and a request."""
    body = mapping_of(value) or {"output": value}
    answers: list[Any] = []
    for output in (value, [value], body.get("output")):
        answers += [find_sources(output), list_items(output), join_reasoning(output), list_files(output)]
    answers += [hide_blobs(body), redact_request(body)]
    answers.append(render_markdown(a_job(output=Output("text", body))))
    return answers


@settings(deadline=None)
@given(values)
def test_any_json_is_rendered_as_json_without_an_exception(value: Any):
    for answer in render_everything(value):
        json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()
        assert BASE64 not in json.dumps(answer)


def lengthen_texts(value: Any) -> Any:
    """Return the same JSON with a long suffix on each of its texts except the types."""
    if isinstance(value, str):
        return value if value in KINDS else value + " 長い" * 2_000
    if isinstance(value, list):
        return [lengthen_texts(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return {name: lengthen_texts(each) for name, each in mapping_of(value).items()} or value


@settings(max_examples=50, deadline=None)
@given(st.lists(values, max_size=3))
def test_entry_is_bounded_and_a_request_is_too(output: list[Any]):
    wide = lengthen_texts(output)
    for entries in (find_sources(wide), list_items(wide), list_files(wide)):
        assert all(count_json_bytes(entry) <= 7_000 for entry in entries)
    assert (
        count_json_bytes(redact_request({f"field {number}": value for number, value in enumerate(wide * 20)})) <= 4_000
    )


@pytest.mark.parametrize("wrap", ["list", *KINDS])
def test_json_that_is_nested_too_deep_is_cut(wrap: str):
    deep: Any = "bottom"
    for _ in range(2_000):
        deep = [deep] if wrap == "list" else {"content": deep, "type": wrap}
    output: list[Any] = [{"type": kind, name: deep} for kind in KINDS for name in NAMES]
    for answer in render_everything(
        {"output": [*output, {"content": [{"annotations": output}]}], **dict.fromkeys(NAMES, deep)}
    ):
        json.dumps(answer)


@pytest.mark.parametrize("text", ["data:" * 200_000, "data:a/b" + ";x" * 300_000, ("x" * 499 + " ") * 2_000])
def test_hostile_text_is_searched_for_base64_in_a_moment(text: str):
    assert hide_blobs({"text": text}) == {"text": text}  # a pattern that backtracks would exceed the timeout


# Requests.


def test_shown_request_hides_the_prompt_the_files_and_the_secrets():
    body = {
        "model": "gpt-6.1-sol",
        "background": True,
        "instructions": "Be PROMPT.",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "PROMPT " * 100},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:x;base64,PROMPT"},
                    {"type": "input_image", "image_url": "https://a.example/PROMPT"},
                ],
            }
        ],
        "max_output_tokens": 32_000,
        "prompt_cache_key": "team",
        "metadata": {"job_id": "job_1"},
        "tools": [
            {"type": "web_search"},
            {
                "type": "mcp",
                "server_label": "wiki",
                "server_url": "https://user:SECRET@wiki.example/SECRET/mcp?key=SECRET",
                "authorization": "${WIKI_TOKEN}",
                "headers": {"X-Api-Key": "SECRET", "Authorization": "Bearer ${WIKI_TOKEN}", "X-Pin": 1234},
                "require_approval": "never",
            },
            {"type": "mcp", "server_label": "b", "server_url": "SECRET", "authorization": "SECRET"},
            {"type": "code_interpreter", "container": {"network_policy": {"domain_secrets": [{"value": "SECRET"}]}}},
        ],
    }
    shown = redact_request(body)
    assert "SECRET" not in json.dumps(shown)
    assert "PROMPT" not in json.dumps(shown)
    assert shown == {
        "model": "gpt-6.1-sol",
        "background": True,
        "instructions": "[10 bytes]",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "[700 bytes]"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "[20 bytes]"},
                    {"type": "input_image", "image_url": "[24 bytes]"},
                ],
            }
        ],
        "max_output_tokens": 32_000,
        "prompt_cache_key": "team",
        "metadata": {"job_id": "job_1"},
        "tools": [
            {"type": "web_search"},
            {
                "type": "mcp",
                "server_label": "wiki",
                "server_url": "https://wiki.example/…",
                "authorization": "${WIKI_TOKEN}",
                "headers": {"X-Api-Key": "***", "Authorization": "${WIKI_TOKEN}", "X-Pin": "***"},
                "require_approval": "never",
            },
            {"type": "mcp", "server_label": "b", "server_url": "***", "authorization": "***"},
            {"type": "code_interpreter", "container": {"network_policy": {"domain_secrets": [{"value": "***"}]}}},
        ],
    }


def test_prompt_is_shown_as_its_size_in_bytes():
    assert redact_request({"input": "長い"}) == {"input": "[6 bytes]"}


def test_request_that_is_too_long_loses_its_longest_fields():
    body = {"model": "m", "text": {"format": {"schema": {f"field {number}": "x" for number in range(500)}}}}
    shown = redact_request(body)
    assert shown["model"] == "m"
    assert re.fullmatch(r"\[\d+ bytes\]", shown["text"])
    assert redact_request({f"field {number}": number for number in range(5_000)}) == {"fields": 5_000}


# Files.


def a_job(text: str = "text", **changes: Any) -> Job:
    turn = Turn(number=1, request={"model": "asked"}, request_id="r", base_url="u", response_id="resp_1")
    job = Job(id="job_1", title="Tea", status=Status.COMPLETED, created_at=NOW, turn=turn, output=Output(text))
    return replace(job, **changes)


def test_file_of_a_result_has_the_facts_then_the_text_then_the_sources():
    text = '# Tea\n\nIt is "hot". 🫖\n'
    usage = ResponseUsage(
        input_tokens=1_200,
        input_tokens_details=InputTokensDetails(cached_tokens=200, cache_write_tokens=0),
        output_tokens=900,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=700),
        total_tokens=2_100,
    )
    response = a_response(
        a_search("tea", "https://seen.example/a b>"),
        a_message(text, cite("https://a.example/?utm_source=openai", "On [tea]\nand <b>cups"), NOTES),
        usage=usage,
    )
    job = a_job(finished_at=NOW + 95, usage=Usage.of(response["usage"]), output=Output(text, response))
    assert render_markdown(job) == (
        "---\n"
        'title: "Tea"\n'
        'job_id: "job_1"\n'
        'status: "completed"\n'
        'model: "gpt-6.1-sol"\n'
        'response_id: "resp_1"\n'
        'started: "2027-01-15T08:00:00+00:00"\n'
        'finished: "2027-01-15T08:01:35+00:00"\n'
        'tokens: "1200 in (200 cached), 900 out (700 reasoning)"\n'
        "---\n"
        "\n"
        f"{text}"
        "\n"
        "\n"
        "## Sources\n"
        "\n"
        "1. [On \\[tea\\] and \\<b\\>cups](<https://a.example/>)\n"
        "2. notes.pdf\n"
        "3. [https://seen.example/a b\\>](<https://seen.example/a%20b%3E>)\n"
    )


def test_title_cannot_close_the_front_matter():
    markdown = render_markdown(a_job(title='a"b\n---\nmodel: other \ud83d', error=Failure("code", "two\nlines")))
    assert markdown.splitlines()[1] == 'title: "a\\"b --- model: other ?"'
    assert 'error: "code: two lines"' in markdown.splitlines()


@pytest.mark.parametrize("job", [a_job(""), a_job(output=None, finished_at=None)])
def test_job_without_a_text_has_a_file_too(job: Job):
    assert render_markdown(job).endswith("\n---\n")
    assert 'model: "asked"' in render_markdown(job)


@given(st.text())
def test_file_has_the_text_unchanged(text: str):
    assert render_markdown(a_job(text)).endswith(f"---\n\n{text}\n" if text else "---\n")
