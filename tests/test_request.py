"""What a caller may ask for, and the body of POST /responses that it becomes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_jobs.errors import RequestError
from agent_jobs.request import EFFORTS, TITLE_CHARS, build, models, one_of, title_of

PLAIN: dict[str, Any] = {
    "model": models()["default"],
    "input": "Say hi",
    "background": True,
    "stream": True,
    "store": True,
    "stream_options": {"include_obfuscation": False},
    "metadata": {"job_id": "job_1"},
}
SEARCH: dict[str, Any] = {"tools": [{"type": "web_search"}], "include": ["web_search_call.action.sources"]}
PYTHON = {"type": "code_interpreter", "container": {"type": "auto"}}


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
        ({"options": {"tools": [PYTHON]}}, {"tools": [PYTHON]}),
        ({"options": {"tools": []}}, {"tools": []}),
        ({"web_search": True, "options": {"tools": [PYTHON]}}, {**SEARCH, "tools": [*SEARCH["tools"], PYTHON]}),
    ],
)
def test_what_is_asked_for_stands_in_the_body(asked: dict[str, Any], more: dict[str, Any]):
    assert build("Say hi", job_id="job_1", **asked) == {**PLAIN, **more}


@pytest.mark.parametrize("effort", EFFORTS)
def test_every_effort_that_the_data_names_can_be_asked_for(effort: str):
    assert build("x", job_id="job_1", effort=effort)["reasoning"] == {"effort": effort}


def pairs(count: int, key: int = 3, value: int = 3) -> dict[str, str]:
    return {str(number).rjust(key, "k"): "v" * value for number in range(count)}


@pytest.mark.parametrize("metadata", [pairs(15), pairs(1, key=64), pairs(1, value=512), pairs(1, value=0)])
def test_metadata_may_be_as_large_as_the_api_takes_besides_ours(metadata: dict[str, str]):
    assert build("x", job_id="job_1", options={"metadata": metadata})["metadata"] == {**metadata, "job_id": "job_1"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"effort": "hihg"}, "did you mean 'high'?"),
    ({"effort": "HIGH"}, "effort does not take 'HIGH'"),
    ({"effort": ""}, "use one of none, minimal, low"),
    ({"options": {"max_output_token": 99}}, "did you mean 'max_output_tokens'?"),
    ({"options": {"zzz": 1}}, "use one of instructions, max_output_tokens"),
    ({"options": {"background": False}}, "options does not take 'background'"),
    ({"options": {"store": False}}, "options does not take 'store'"),
    ({"options": {"input": "other"}}, "options does not take 'input'"),
    ({"options": {"max_output_tokens": 15}}, "options.max_output_tokens takes a whole number of at least 16."),
    ({"options": {"max_output_tokens": 99.0}}, "a whole number"),
    ({"options": {"max_output_tokens": "99"}}, "a whole number"),
    ({"options": {"max_output_tokens": None}}, "a whole number"),
    ({"options": {"max_tool_calls": 0}}, "options.max_tool_calls takes a whole number of at least 1."),
    ({"options": {"max_tool_calls": True}}, "a whole number"),
    ({"options": {"instructions": ""}}, "options.instructions takes a text."),
    ({"options": {"instructions": ["a"]}}, "options.instructions takes a text."),
    ({"options": {"service_tier": None}}, "options.service_tier takes a text."),
    ({"options": {"verbosity": "hihg"}}, "options.verbosity does not take 'hihg': did you mean 'high'?"),
    ({"options": {"verbosity": None}}, "use one of low, medium, high"),
    ({"options": {"metadata": pairs(16)}}, "up to 15 texts of 512 characters"),
    ({"options": {"metadata": pairs(1, key=65)}}, "up to 15 texts"),
    ({"options": {"metadata": pairs(1, value=513)}}, "up to 15 texts"),
    ({"options": {"metadata": {"n": 1}}}, "up to 15 texts"),
    ({"options": {"metadata": {1: "n"}}}, "up to 15 texts"),
    ({"options": {"metadata": {"job_id": "mine"}}}, "job_id is ours"),
    ({"options": {"metadata": [["a", "b"]]}}, "up to 15 texts"),
    ({"options": {"metadata": None}}, "up to 15 texts"),
    ({"options": {"tools": [{"type": "function", "name": "f"}]}}, "cannot take function tools yet"),
    ({"options": {"tools": [PYTHON, {"type": "custom"}]}}, "cannot take custom tools yet"),
    ({"options": {"tools": ["web_search"]}}, 'hosted tools like {"type":"code_interpreter"}'),
    ({"options": {"tools": [{}]}}, "hosted tools"),
    ({"options": {"tools": [{"type": 7}]}}, "hosted tools"),
    ({"options": {"tools": {"type": "web_search"}}}, "hosted tools"),
    ({"options": {"tools": None}}, "hosted tools"),
]


@pytest.mark.parametrize(("asked", "hint"), REFUSED)
def test_what_cannot_be_asked_for_is_refused_with_what_can(asked: dict[str, Any], hint: str):
    with pytest.raises(RequestError) as refusal:
        build("Say hi", job_id="job_1", **asked)
    assert hint in str(refusal.value)
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize("prompt", ["", " ", "\n\t \n", "\u3000"])
def test_an_empty_prompt_is_refused(prompt: str):
    with pytest.raises(RequestError, match="prompt is empty"):
        build(prompt, job_id="job_1")


def test_what_the_caller_handed_over_is_not_changed():
    tools, metadata = [PYTHON], {"team": "a"}
    build("x", job_id="job_1", web_search=True, options={"tools": tools, "metadata": metadata})
    assert (tools, metadata) == ([PYTHON], {"team": "a"})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("rde", "colour does not take 'rde': did you mean 'red'?"),
        ("x", "colour does not take 'x': use one of red, green."),
        ("x" * 5000, f"colour does not take '{'x' * 40}': use one of red, green."),
        ("don't", 'colour does not take "don\'t": use one of red, green.'),
    ],
)
def test_a_value_that_is_not_allowed_is_answered_by_the_nearest_or_by_all(value: str, sentence: str):
    assert one_of("colour", "red", iter(["red", "green"])) == "red"
    with pytest.raises(RequestError) as refusal:
        one_of("colour", value, iter(["red", "green"]))
    assert str(refusal.value) == sentence


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
def test_the_title_is_the_first_line(prompt: str, title: str):
    assert title_of(prompt) == title


@given(st.text(min_size=1).filter(str.strip))
def test_any_prompt_goes_out_as_it_came_under_a_short_title_of_one_line(prompt: str):
    assert build(prompt, job_id="job_1")["input"] == prompt
    title = title_of(prompt)
    assert 0 < len(title) <= TITLE_CHARS
    assert title == title.strip()
    assert len(title.splitlines()) == 1
