import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_jobs.emulator.faults import Fault, FaultQueue, combine_faults
from agent_jobs.emulator.script import Script, answer_text, read_question, read_request
from agent_jobs.emulator.timeline import build_timeline
from agent_jobs.emulator.tool_items import Container

DOCS = Path(__file__).parents[2] / "docs" / "emulator.md"

scripts = st.builds(
    Script,
    duration_s=st.floats(0, 1000),
    length=st.integers(0, 3000),
    reasoning=st.integers(0, 3),
    searches=st.integers(0, 3),
    images=st.integers(0, 2),
    mcp_calls=st.integers(0, 2),
    container_files=st.just(({"filename": "a.txt", "text": "a"},)),
    phase=st.booleans(),
    chunk=st.none() | st.integers(1, 500),
    end=st.sampled_from(["completed", "incomplete"]),
)
BOX = Container("cntr_1", [("cfile_1", "a.txt")])


@given(scripts, st.text())
def test_deltas_join_to_the_answer_which_is_as_long_as_asked(script: Script, asked: str) -> None:
    text = answer_text(script, {"input": asked})
    assert len(text) == script.length and text == answer_text(script, {"input": asked})
    steps = build_timeline(script, "resp_1", text)
    deltas = "".join(step.event["delta"] for step in steps if step.event["type"] == "response.output_text.delta")
    assert deltas == ("I will look into this." if script.phase else "") + text
    times = [step.at_s for step in steps]
    assert times == sorted(times) and all(at_s <= script.duration_s * 1.000001 for at_s in times)


@given(scripts)
def test_every_item_that_opens_is_done_in_its_turn(script: Script) -> None:
    steps = build_timeline(script, "resp_1", answer_text(script, {"input": "x"}), container=BOX, unknown=True)
    opened = [step.event["output_index"] for step in steps if step.event["type"] == "response.output_item.added"]
    done = [step.event["output_index"] for step in steps if step.event["type"] == "response.output_item.done"]
    assert opened == done == list(range(len(opened)))


def test_five_million_characters_come_in_forty_deltas() -> None:
    script = Script(length=5_000_000)
    text = answer_text(script, {"input": "x"})
    steps = build_timeline(script, "resp_1", text)
    assert len(text) == 5_000_000
    assert sum(step.event["type"] == "response.output_text.delta" for step in steps) == 40


def test_another_question_gets_another_answer() -> None:
    assert answer_text(Script(), {"input": "cats"}) != answer_text(Script(), {"input": "dogs"})


@pytest.mark.parametrize(
    "asked",
    [
        'before [emulate {"length": 7, "text": "]}"}] after',
        [
            {"role": "user", "content": "early"},
            {"role": "user", "content": 'before [emulate {"length": 7, "text": "]}"} ] after'},
        ],
        [{"role": "user", "content": [
            {"type": "input_image", "image_url": "https://example.com"},
            {"type": "input_text", "text": 'before [emulate {"length": 7, "text": "]}"}] after'},
        ]}],
    ],
)  # fmt: skip
def test_directive_in_the_last_text_is_read_and_removed(asked: Any) -> None:
    script, body = read_request({"input": asked})
    assert (script.length, script.text) == (7, "]}")
    assert "emulate" not in json.dumps(body)
    assert read_question(body) == "before  after"


def test_metadata_carries_a_directive_and_the_text_overrides_it() -> None:
    metadata = {"emulate": '{"length": 7, "searches": 3}'}
    script, body = read_request({"input": '[emulate {"length": 8}]', "metadata": metadata})
    assert (script.length, script.searches) == (8, 3)
    assert body["metadata"] == metadata


def test_turn_with_outputs_does_not_repeat_its_calls() -> None:
    metadata = {"emulate": '{"function_calls": [{"name": "lookup"}], "length": 90}'}
    outputs = [{"type": "function_call_output", "call_id": "call_1", "output": "42"}]
    script, body = read_request({"input": outputs, "metadata": metadata})
    assert script.function_calls == ()
    assert "the outputs of call_1: 42" in answer_text(script, body)


def test_input_with_the_whole_history_continues_at_the_next_turn() -> None:
    directive: dict[str, Any] = {
        "chunk": 5,
        "turns": [{"function_calls": [{}, {}]}, {"function_calls": [{}]}, {"text": "the end"}],
    }
    asked = {"role": "user", "content": f"go on [emulate {json.dumps(directive)}]"}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
    scripts = [read_request({"input": [asked, *[output] * outputs]})[0] for outputs in (0, 2, 3, 4)]
    assert [len(script.function_calls) for script in scripts] == [2, 1, 0, 0]
    assert [script.text for script in scripts] == [None, None, "the end", None]
    assert [len(script.turns or ()) for script in scripts] == [2, 1, 0, 0]
    assert {script.chunk for script in scripts} == {5}


def test_repeated_text_does_not_repeat_its_calls() -> None:
    asked = {"role": "user", "content": '[emulate {"function_calls": [{"name": "lookup"}]}]'}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
    assert len(read_request({"input": [output, asked]})[0].function_calls) == 1
    assert read_request({"input": [asked, output]})[0].function_calls == ()


def test_web_search_tool_makes_two_searches() -> None:
    tools = [{"type": "web_search_preview"}]
    assert read_request({"input": "x", "tools": tools})[0].searches == 2
    assert read_request({"input": '[emulate {"searches": 0}]', "tools": tools})[0].searches == 0


@pytest.mark.parametrize(
    "directive",
    [
        '{"lenght": 3}',
        '{"images": 1.5}',
        '{"container_files": [{"filename": "a"}]}',
        '{"length": -1}',
        '{"length": "3"}',
        '{"end": "maybe"}',
        "[]",
        "{",
        '{"reasoning": true}',
        '{"turns": {}}',
        '{"turns": []}',
        '{"turns": [{"turns": [{}]}]}',
        '{"turns": [{}, {"lenght": 3}]}',
    ],
)
def test_wrong_directive_is_a_value_error(directive: str) -> None:
    with pytest.raises(ValueError):
        read_request({"input": "x", "metadata": {"emulate": directive}})
    with pytest.raises(ValueError):
        read_request({"input": f"[emulate {directive}]"})


def test_directive_that_is_not_closed_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="the directive reads"):
        read_request({"input": '[emulate {"length": 3} and so on'})


def test_faults_apply_in_order_to_matching_requests() -> None:
    queue = FaultQueue([
        Fault(on="retrieve", status=500),
        Fault(status=501, match="needle"),
        Fault(status=502, skip=1, times=2),
    ])  # fmt: skip
    taken = [queue.take("create", text).status for text in ("hay", "hay", "needle", "hay", "hay")]
    assert taken == [None, 502, 501, 502, None]
    assert queue.take("retrieve", "").status == 500


def test_unlimited_fault_applies_until_it_is_cleared() -> None:
    queue = FaultQueue([Fault(on="any", times=-1, status=500)])
    assert [queue.take("delete", "").status for _ in range(3)] == [500, 500, 500]
    queue.clear()
    assert queue.take("delete", "") == Fault()


def test_later_fault_wins_over_an_earlier_one() -> None:
    assert combine_faults(Fault(status=500, crlf=True), Fault(status=400)) == Fault(status=400, crlf=True)


@pytest.mark.parametrize("given", [{"stauts": 500}, {"on": "update"}, {"drop": "everything"}])
def test_wrong_fault_is_a_value_error(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Fault.read(given)


@pytest.mark.parametrize("kind", [Script, Fault])
def test_docs_name_every_field_of_scripts_and_faults(kind: type[Any]) -> None:
    named = DOCS.read_text()
    assert [field.name for field in fields(kind) if f"`{field.name}`" not in named] == []
