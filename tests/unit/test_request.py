"""The arguments of a caller, and the body of POST /responses that is built from them."""

import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_jobs.emulator.server import RunningServer
from agent_jobs.errors import RequestError
from agent_jobs.mcp_server.wording import MODEL
from agent_jobs.request.body import (
    TITLE_CHARS,
    build_body,
    describe_refusal,
    hash_of,
    merge_preset_options,
    shape_for_mode,
    title_of,
)
from agent_jobs.request.models import load_models
from agent_jobs.request.options import OPTIONS, StartOptions
from agent_jobs.request.presets import EFFORTS, Preset, load_our_presets
from agent_jobs.request.start_request import StartRequest
from agent_jobs.validation import Choice

PLAIN: dict[str, Any] = {
    "model": load_models()["default"],
    "input": "Say hi",
    "background": True,
    "stream": True,
    "store": True,
    "stream_options": {"include_obfuscation": False},
    "metadata": {"job_id": "job_1"},
}
SEARCH: dict[str, Any] = {"tools": [{"type": "web_search"}], "include": ["web_search_call.action.sources"]}
PYTHON = {"type": "code_interpreter", "container": {"type": "auto"}}
PYTHON_TOO: dict[str, Any] = {"tools": [PYTHON], "include": ["code_interpreter_call.outputs"]}
FIELDS = [
    "filters", "search_context_size", "user_location", "vector_store_ids", "max_num_results", "container", "model",
    "output_format", "server_url", "connector_id", "headers", "authorization", "require_approval", "domain_secrets",
]  # fmt: skip
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("asked", "more"),
    [
        ({}, {}),
        ({"options": {}}, {}),
        ({"model": "gpt-x"}, {"model": "gpt-x"}),
        ({"model": ""}, {}),
        ({"effort": "high"}, {"reasoning": {"effort": "high"}}),
        ({"web_search": True}, SEARCH),
        ({"options": {"instructions": "Be brief."}}, {"instructions": "Be brief."}),
        ({"options": {"max_output_tokens": 16}}, {"max_output_tokens": 16}),
        ({"options": {"max_tool_calls": 1}}, {"max_tool_calls": 1}),
        ({"options": {"service_tier": "flex"}}, {"service_tier": "flex"}),
        ({"options": {"verbosity": "low"}}, {"text": {"verbosity": "low"}}),
        ({"options": {"metadata": {"team": "a"}}}, {"metadata": {"team": "a", "job_id": "job_1"}}),
        ({"options": {"metadata": {}}}, {}),
        ({"options": {"temperature": 0.5}, "model": "local"}, {"temperature": 0.5, "model": "local"}),
        ({"options": {"top_p": 1}, "model": "local"}, {"top_p": 1, "model": "local"}),
        ({"options": {"reasoning_summary": "auto"}}, {"reasoning": {"summary": "auto"}}),
        ({"options": {"reasoning_mode": "pro"}}, {"reasoning": {"mode": "pro"}}),
        (
            {"effort": "max", "options": {"reasoning_mode": "pro", "reasoning_summary": "concise"}},
            {"reasoning": {"effort": "max", "mode": "pro", "summary": "concise"}},
        ),
        (
            {"options": {"json_schema": {"type": "object"}, "verbosity": "high"}},
            {
                "text": {
                    "format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": False},
                    "verbosity": "high",
                }
            },
        ),
        ({"options": {"include": ["reasoning.encrypted_content"]}}, {"include": ["reasoning.encrypted_content"]}),
        (
            {"web_search": True, "options": {"include": ["file_search_call.results", SEARCH["include"][0]]}},
            {**SEARCH, "include": [*SEARCH["include"], "file_search_call.results"]},
        ),
        ({"options": {"tools": [{"type": "web_search_preview"}]}},
         {**SEARCH, "tools": [{"type": "web_search_preview"}]}),
        ({"web_search": True, "options": {"tools": [{"type": "web_search", "search_context_size": "low"}]}},
         {**SEARCH, "tools": [{"type": "web_search", "search_context_size": "low"}]}),
        ({"options": {"tools": [PYTHON]}}, PYTHON_TOO),
        ({"options": {"tools": []}}, {"tools": []}),
        (
            {"web_search": True, "options": {"tools": [PYTHON]}},
            {"tools": [*SEARCH["tools"], PYTHON], "include": [*SEARCH["include"], *PYTHON_TOO["include"]]},
        ),
        (
            {"attachments": [{"type": "input_file", "file_id": "file-1"}]},
            {
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "Say hi"},
                            {"type": "input_file", "file_id": "file-1"},
                        ],
                    }
                ]
            },
        ),
        *(
            ({"options": {name: value}}, {})
            for name, value in {
                "allow_duplicate": True,
                "conversation": "conv_1",
                "dry_run": True,
                "key": "monday",
                "max_cost_usd": 0.5,
                "timeout_s": 60,
            }.items()
        ),
    ],
)  # fmt: skip
def test_requested_options_are_in_the_body(asked: dict[str, Any], more: dict[str, Any]):
    assert build_body("Say hi", job_id="job_1", **asked) == {**PLAIN, **more}


@pytest.mark.parametrize("effort", EFFORTS)
def test_every_effort_that_the_data_names_can_be_requested(effort: str):
    assert build_body("x", job_id="job_1", model="local", effort=effort)["reasoning"] == {"effort": effort}


def make_pairs(count: int, key: int = 3, value: int = 3) -> dict[str, str]:
    return {str(number).rjust(key, "k"): "v" * value for number in range(count)}


@pytest.mark.parametrize(
    "metadata", [make_pairs(15), make_pairs(1, key=64), make_pairs(1, value=512), make_pairs(1, value=0)]
)
def test_metadata_may_fill_the_api_s_limit_beside_the_job_id(metadata: dict[str, str]):
    assert build_body("x", job_id="job_1", options={"metadata": metadata})["metadata"] == {
        **metadata,
        "job_id": "job_1",
    }


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"effort": "hihg"}, "Did you mean 'high'?"),
    ({"effort": "HIGH"}, "effort does not accept 'HIGH'"),
    ({"effort": ""}, "Use one of none, minimal, low"),
    ({"options": {"max_output_token": 99}}, "Did you mean 'max_output_tokens'?"),
    ({"options": {"zzz": 1}}, "Use one of instructions, include, json_schema, max_output_tokens"),
    ({"options": {"background": False}}, "options does not accept 'background'"),
    ({"options": {"store": False}}, "options does not accept 'store'"),
    ({"options": {"input": "other"}}, "options does not accept 'input'"),
    ({"options": {"max_output_tokens": 15}}, "options.max_output_tokens accepts a whole number of at least 16, not"),
    ({"options": {"max_output_tokens": 99.0}}, "a whole number"),
    ({"options": {"max_output_tokens": "99"}}, "a whole number"),
    ({"options": {"max_output_tokens": None}}, "a whole number"),
    ({"options": {"max_tool_calls": 0}}, "options.max_tool_calls accepts a whole number of at least 1, not"),
    ({"options": {"max_tool_calls": True}}, "a whole number"),
    ({"options": {"instructions": ""}}, "options.instructions accepts a non-empty string, not"),
    ({"options": {"instructions": ["a"]}}, "options.instructions accepts a non-empty string, not"),
    ({"options": {"service_tier": None}}, "Use one of auto, default, flex"),
    ({"options": {"service_tier": "flexi"}}, "Did you mean 'flex'?"),
    ({"options": {"reasoning_summary": "detail"}}, "Did you mean 'detailed'?"),
    ({"options": {"reasoning_mode": "deep"}}, "Use one of standard, pro"),
    ({"options": {"temperature": 2.1}, "model": "local"}, "options.temperature accepts a number from 0 to 2, not"),
    ({"options": {"top_p": float("nan")}, "model": "local"}, "options.top_p accepts a number from 0 to 1, not"),
    ({"options": {"include": []}}, "options.include accepts a list of at least one non-empty string, not"),
    ({"options": {"include": ["web_search_call.sources"]}}, "Did you mean 'web_search_call.action.sources'?"),
    ({"options": {"allow_duplicate": "yes"}}, "options.allow_duplicate accepts true or false, not"),
    ({"options": {"dry_run": 1}}, "options.dry_run accepts true or false, not"),
    ({"options": {"conversation": "resp_1"}}, "begins with conv_"),
    ({"options": {"conversation": 1}}, "true for a new conversation"),
    ({"options": {"key": ""}}, "options.key accepts a string of 1 to 200 characters, not"),
    ({"options": {"key": "k" * 201}}, "1 to 200"),
    ({"options": {"max_cost_usd": 0}}, "options.max_cost_usd accepts an amount of US dollars above 0, not"),
    ({"options": {"max_cost_usd": float("inf")}}, "above 0"),
    ({"options": {"max_cost_usd": True}}, "options.max_cost_usd accepts a number"),
    ({"options": {"timeout_s": 0.5}}, "options.timeout_s accepts a number from 1 to 604800, not"),
    ({"options": {"timeout_s": 604_801}}, "from 1 to 604800"),
    ({"options": {"tools": [{"type": "shell", "x": float("nan")}]}}, "a value that JSON cannot"),
    ({"options": {"tools": [{"type": "shell", "x": {1, 2}}]}}, "a value that JSON cannot"),
    ({"preset": "thnik"}, "preset does not accept 'thnik'. Did you mean 'think'?"),
    ({"preset": ""}, "Use one of deep_research, think, review, quick."),
    ({"options": {"verbosity": "hihg"}}, "options.verbosity does not accept 'hihg'. Did you mean 'high'?"),
    ({"options": {"verbosity": None}}, "Use one of low, medium, high"),
    ({"options": {"metadata": make_pairs(16)}}, "up to 15 strings of 512 characters"),
    ({"options": {"metadata": make_pairs(1, key=65)}}, "up to 15 strings"),
    ({"options": {"metadata": make_pairs(1, value=513)}}, "up to 15 strings"),
    ({"options": {"metadata": {"n": 1}}}, "up to 15 strings"),
    ({"options": {"metadata": {1: "n"}}}, "up to 15 strings"),
    ({"options": {"metadata": {"job_id": "mine"}}}, "job_id is ours"),
    ({"options": {"metadata": [["a", "b"]]}}, "up to 15 strings"),
    ({"options": {"metadata": None}}, "up to 15 strings"),
    ({"options": {"tools": [{"type": "custom", "name": "f"}]}}, "cannot contain custom tools yet"),
    ({"options": {"tools": [PYTHON, {"type": "custom"}]}}, "cannot contain custom tools yet"),
    ({"options": {"tools": ["web_search"]}}, 'hosted tools like {"type":"code_interpreter"}'),
    ({"options": {"tools": [{}]}}, "hosted tools"),
    ({"options": {"tools": [{"type": 7}]}}, "hosted tools"),
    ({"options": {"tools": {"type": "web_search"}}}, "hosted tools"),
    ({"options": {"tools": None}}, "hosted tools"),
]


@pytest.mark.parametrize(("asked", "hint"), REFUSED)
def test_invalid_argument_is_refused_with_the_accepted_values(asked: dict[str, Any], hint: str):
    with pytest.raises(RequestError) as refusal:
        build_body("Say hi", job_id="job_1", presets=load_our_presets(), **asked)
    assert hint in MODEL.describe(refusal.value)
    assert len(MODEL.describe(refusal.value)) < 310


@pytest.mark.parametrize("prompt", ["", " ", "\n\t \n", "\u3000"])
def test_empty_prompt_is_refused(prompt: str):
    with pytest.raises(RequestError, match="prompt is empty"):
        build_body(prompt, job_id="job_1")


def test_arguments_of_the_caller_are_not_changed():
    tools, metadata = [PYTHON], {"team": "a"}
    build_body("x", job_id="job_1", web_search=True, options={"tools": tools, "metadata": metadata})
    assert (tools, metadata) == ([PYTHON], {"team": "a"})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("rde", "colour does not accept 'rde'. Did you mean 'red'?"),
        ("x", "colour does not accept 'x'. Use one of red, green."),
        ("x" * 5000, f"colour does not accept '{'x' * 40}'. Use one of red, green."),
        ("don't", 'colour does not accept "don\'t". Use one of red, green.'),
    ],
)
def test_value_that_is_not_allowed_is_answered_by_the_nearest_or_by_all(value: str, sentence: str):
    assert Choice(iter(["red", "green"])).check("colour", "red") == "red"
    with pytest.raises(RequestError) as refusal:
        Choice(iter(["red", "green"])).check("colour", value)
    assert MODEL.describe(refusal.value) == sentence


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("Say hi", "Say hi"),
        ("\n\n  First line \nSecond", "First line"),
        ("x" * TITLE_CHARS, "x" * TITLE_CHARS),
        ("x" * (TITLE_CHARS + 1), "x" * (TITLE_CHARS - 1) + "…"),
        ("第一行\r\n第二行", "第一行"),
        ("", ""),
    ],
)
def test_title_is_the_first_line(prompt: str, title: str):
    assert title_of(prompt) == title


@given(st.text(min_size=1).filter(str.strip))
def test_any_prompt_goes_out_as_it_came_under_a_short_title_of_one_line(prompt: str):
    assert build_body(prompt, job_id="job_1")["input"] == prompt
    title = title_of(prompt)
    assert 0 < len(title) <= TITLE_CHARS
    assert title == title.strip()
    assert len(title.splitlines()) == 1


def test_preset_fills_in_missing_arguments() -> None:
    body = build_body("Why is the sky blue?", job_id="job_1", preset="deep_research", presets=load_our_presets())
    assert body["reasoning"] == {"effort": "high", "summary": "auto"}
    assert (body["tools"], body["include"]) == (SEARCH["tools"], SEARCH["include"])
    assert "source" in body["instructions"]
    assert body["input"] == "Why is the sky blue?"


@pytest.mark.parametrize(
    ("asked", "name", "value"),
    [
        ({"effort": "low"}, "reasoning", {"effort": "low", "summary": "auto"}),
        ({"web_search": False}, "tools", None),
        ({"web_search": False}, "include", None),
        ({"model": "gpt-x"}, "model", "gpt-x"),
        ({"options": {"instructions": "Be brief."}}, "instructions", "Be brief."),
        ({"options": {"reasoning_summary": None}}, "reasoning", {"effort": "high"}),
        ({"options": {"instructions": None}}, "instructions", None),
    ],
)
def test_arguments_of_the_caller_win_over_the_preset(asked: dict[str, Any], name: str, value: Any) -> None:
    body = build_body("x", job_id="job_1", preset="deep_research", presets=load_our_presets(), **asked)
    assert body.get(name) == value


def test_model_is_that_of_the_caller_else_preset_else_setting_else_default() -> None:
    presets = {"own": Preset(description="", prompt="{task}", model="preset")}
    asked: dict[str, Any] = {"job_id": "job_1", "presets": presets}
    assert build_body("x", **asked, preset="own", default_model="user", model="caller")["model"] == "caller"
    assert build_body("x", **asked, preset="own", default_model="user")["model"] == "preset"
    assert build_body("x", **asked, default_model="user")["model"] == "user"
    assert build_body("x", **asked)["model"] == load_models()["default"]


def test_option_of_the_caller_beats_that_of_the_preset() -> None:
    presets = {"own": Preset(description="", prompt="{task}", options={"timeout_s": 60})}
    timeouts: list[tuple[dict[str, Any], int | None]] = [({}, 60), ({"timeout_s": 90}, 90), ({"timeout_s": None}, None)]
    for options, timeout_s in timeouts:
        assert StartOptions.parse(merge_preset_options("own", options, presets)).timeout_s == timeout_s
    assert StartOptions.parse(merge_preset_options(None, {"timeout_s": 90}, presets)).timeout_s == 90


OURS: list[tuple[str, Any]] = [
    ("allow_duplicate", True),
    ("conversation", True),
    ("conversation", "conv_1"),
    ("dry_run", True),
    ("key", "monday"),
    ("max_cost_usd", 0.5),
    ("timeout_s", 60),
    ("toolbox", ("git", "time__*")),
    ("toolbox", ()),
]


@pytest.mark.parametrize(("name", "value"), OURS)
def test_option_of_agent_jobs_becomes_a_field_and_stays_out_of_the_body(name: str, value: Any) -> None:
    given = {(): "none", ("git", "time__*"): ["git", "time__*"]}.get(value, value)
    options = StartOptions.parse({name: given, "verbosity": "low"})
    assert options == replace(StartOptions(upstream={"verbosity": "low"}), **{name: value})
    assert build_body("x", job_id="job_1", options=options) == build_body(
        "x", job_id="job_1", options={"verbosity": "low"}
    )
    assert StartOptions.parse({name: None}) == StartOptions.parse({}) == StartOptions()
    with pytest.raises(RequestError, match=f"options.{name} accepts"):
        StartOptions.parse({name: []})


def test_conversation_of_false_counts_as_missing() -> None:
    assert StartOptions.parse({"conversation": False}).conversation is None


@pytest.mark.parametrize("dry_run", [None, False, True])
def test_dry_run_is_read_from_the_caller_only(dry_run: bool | None) -> None:
    order = StartRequest(prompts=["x"], options={"dry_run": dry_run, "zzz": 1})
    assert order.is_dry_run is bool(dry_run)
    with pytest.raises(RequestError, match=r"options\.dry_run accepts true or false"):
        _ = replace(order, options={"dry_run": 1}).is_dry_run


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"options": {"key": "monday", "allow_duplicate": True, "timeout_s": 60, "max_cost_usd": 1}}),
    ({"preset": "think", "effort": "low"}, {"preset": "think", "effort": "low", "options": {"dry_run": True}}),
    ({"options": {"verbosity": "low"}, "effort": "low"}, {"preset": "quick"}),
    ({"model": load_models()["default"]}, {}),
]
OTHER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"preset": "think"}),
    ({"preset": "think"}, {"preset": "review"}),
    ({}, {"attachments": [{"type": "input_file", "file_id": "a"}]}),
    *(({"attachments": [{"type": "input_file", "file_id": a}]}, {"attachments": [{"type": "input_file", "file_id": b}]})
      for a, b in [("a", "b")]),
    ({"options": {"metadata": {"team": "a"}}}, {"options": {"metadata": {"team": "b"}}}),
    ({"options": {"json_schema": {"type": "object"}}}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_same_work_has_the_same_hash_in_every_job(one: dict[str, Any], other: dict[str, Any]) -> None:
    ours: dict[str, Any] = {"presets": load_our_presets()}
    assert hash_of(build_body("x", job_id="job_1", **one, **ours)) == hash_of(
        build_body("x", job_id="job_2", **other, **ours)
    )


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_other_work_has_another_hash(one: dict[str, Any], other: dict[str, Any]) -> None:
    ours: dict[str, Any] = {"presets": load_our_presets()}
    assert hash_of(build_body("x", job_id="job_1", **one, **ours)) != hash_of(
        build_body("x", job_id="job_1", **other, **ours)
    )


@given(st.dictionaries(st.sampled_from([*OPTIONS]) | st.text(), ANY_JSON, max_size=5), st.none() | st.text())
def test_any_options_become_a_body_or_a_refusal(options: dict[str, Any], preset: str | None) -> None:
    try:
        body = build_body("x", job_id="job_1", options=options, preset=preset, presets=load_our_presets())
    except RequestError as refusal:
        assert MODEL.describe(refusal)
    else:
        assert json.loads(json.dumps(body, allow_nan=False)) == body


@given(st.sampled_from(["web_search", "file_search", "code_interpreter", "image_generation", "mcp", "later"]),
       st.dictionaries(st.sampled_from(FIELDS), ANY_JSON, max_size=4))  # fmt: skip
def test_any_tool_becomes_a_body_or_a_refusal(kind: str, fields: dict[str, Any]) -> None:
    tool = {"type": kind, "server_label": "s", "require_approval": "never", "vector_store_ids": ["vs"], **fields}
    try:
        build_body("x", job_id="job_1", options={"tools": [tool]})
    except RequestError as refusal:
        assert MODEL.describe(refusal)


def test_options_that_are_nested_without_end_are_refused() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    for options in ({"tools": [{"type": "later", "x": deep}]}, {"json_schema": {"type": "object", "properties": deep}}):
        with pytest.raises(RequestError, match="JSON cannot"):
            build_body("x", job_id="job_1", options=options)


REFUSALS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"effort": "max"}, "unsupported_value", "reasoning.effort", "Change effort: No."),
    ({}, "", "reasoning.summary", "Change reasoning_summary: No."),
    ({}, "", "reasoning", "Change effort: No."),
    ({}, "", "text.format.schema", "Change json_schema: No."),
    ({}, "", "text.verbosity", "Change verbosity: No."),
    ({}, "", "max_output_tokens", "Change max_output_tokens: No."),
    ({}, "", "metadata.team", "Change metadata: No."),
    ({}, "", "input", "Change prompt: No."),
    ({"attachments": [{}]}, "", "input[0].content[0].text", "Change prompt: No."),
    ({"attachments": [{}]}, "", "input[0].content[1].file_id", "Change files: No."),
    ({"web_search": True}, "", "tools[0].filters", "Change web_search: No."),
    ({"web_search": True}, "", "include[0]", "Change web_search: No."),
    ({"options": {"tools": [PYTHON]}}, "", "tools[0].container", "Change tools: No."),
    ({"options": {"tools": [PYTHON]}}, "", "tools[7].container", "Change tools: No."),
    ({"options": {"tools": [PYTHON]}}, "", "include[0]", "Change include: No."),
    ({}, "", "tools", "Change tools: No."),
    ({}, "", "model", "Change model: No."),
    ({"model": "gpt-x"}, "model_not_found", "", "Change model: No."),
    ({"model": "gpt-5-mini"}, "model_not_found", "model",
     "Change model: No. gpt-5-mini was to be shut down on 2026-12-11: use gpt-6.1-terra."),
    *(({}, "", param, "No.") for param in ("", "background", "stream", "store", "zzz", "tool", "inputs", "textual")),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "code", "param", "sentence"), REFUSALS)
def test_refusal_names_the_argument_that_has_to_change(
    asked: dict[str, Any], code: str, param: str, sentence: str
) -> None:
    assert describe_refusal(code, param, "No.", build_body("x", job_id="job_1", **asked)) == sentence


@pytest.mark.parametrize("message", ["The requested model 'gpt-x' does not exist.", "No such model."])
def test_refusal_that_names_the_model_itself_says_so_once(message: str) -> None:
    body = build_body("x", job_id="job_1", model="gpt-x")
    assert describe_refusal("model_not_found", "model", message, body) == message


@given(st.text() | st.from_regex(r"(tools|include|input)[\[\].0-9a-z]{0,12}"))
def test_message_of_upstream_is_always_reported(param: str) -> None:
    body = build_body("x", job_id="job_1", web_search=True)
    assert describe_refusal("", param, "Its words.", body).endswith("Its words.")


TAKEN: list[dict[str, Any]] = [
    *({"preset": preset, "presets": load_our_presets()} for preset in load_our_presets()),
    {"attachments": [{"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}]},
    {"options": {"json_schema": {"type": "object"}, "verbosity": "low", "include": [SEARCH["include"][0]]}},
    {"web_search": True, "effort": "max", "options": {"tools": [PYTHON], "reasoning_mode": "pro", "timeout_s": 60}},
]


@pytest.mark.parametrize("asked", TAKEN)
def test_built_request_is_accepted_upstream(asked: dict[str, Any], upstream: RunningServer) -> None:
    body = shape_for_mode(build_body("x", job_id="job_1", **asked), "background")
    with httpx2.Client(trust_env=False) as http:
        answer = http.post(
            f"{upstream.base_url}/responses", json=dict(body), headers={"Authorization": "Bearer sk-secret"}
        )
    assert answer.status_code == 200, answer.text
