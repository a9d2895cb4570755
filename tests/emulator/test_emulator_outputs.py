"""Outputs besides text: sources, images, remote tools, reasoning, structured answers."""

import base64
import json
import struct
from enum import Enum
from typing import Any, Literal

import jsonschema
import pytest
from emulator_client import MODEL, Client, Json, list_types, read_live_events, text_of
from openai import AsyncOpenAI
from pydantic import BaseModel

from agent_jobs.emulator.structured import build_sample

SERVER: Json = {"type": "mcp", "server_label": "docs", "server_url": "https://example.com/mcp"}


def list_items(body: Json, kind: str) -> list[Json]:
    return [item for item in body["output"] if item["type"] == kind]


def run_to_end(client: Client, emulate: Json, **fields: Any) -> Json:
    return client.stream(emulate=emulate, **fields)[-1]["response"]


def test_searches_leave_calls_and_citations(client: Client) -> None:
    events = client.stream(emulate={"searches": 3}, include=["web_search_call.action.sources"])
    body = events[-1]["response"]
    actions = [call["action"] for call in list_items(body, "web_search_call")]
    assert [action["query"] for action in actions] == [f"emulated query {number}" for number in (1, 2, 3)]
    found = [source["url"] for action in actions for source in action["sources"]]
    assert len(found) == 6 and len(set(found)) == 4
    assert body["tool_usage"]["web_search"]["num_requests"] == 3
    part = body["output"][-1]["content"][0]
    notes = part["annotations"]
    assert [note["type"] for note in notes] == ["url_citation"] * 4
    assert all(0 <= note["start_index"] < note["end_index"] <= len(part["text"]) for note in notes)
    assert [note["url"].removesuffix("?utm_source=openai") in found for note in notes] == [True] * 4
    assert notes[0]["url"] == notes[-1]["url"] and notes[0]["title"] == notes[-1]["title"]
    assert notes[0]["start_index"] != notes[-1]["start_index"]
    added = [event["annotation"] for event in events if event["type"] == "response.output_text.annotation.added"]
    assert added == notes


def test_sources_are_given_only_where_they_are_requested(client: Client) -> None:
    [call] = list_items(run_to_end(client, {"searches": 1}), "web_search_call")
    assert "sources" not in call["action"]


def test_image_is_a_png_of_the_size_requested(client: Client) -> None:
    tools = [{"type": "image_generation", "partial_images": 2}]
    events = client.stream(emulate={"images": 2, "image_px": 5}, tools=tools)
    pictures = [
        base64.b64decode(call["result"]) for call in list_items(events[-1]["response"], "image_generation_call")
    ]
    assert len(set(pictures)) == 2
    for picture in pictures:
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", picture[16:24]) == (5, 5)
    assert list_types(events).count("response.image_generation_call.partial_image") == 4


def test_cancelled_run_keeps_an_open_image_as_failed(client: Client) -> None:
    with client.streaming(emulate={"images": 1, "reasoning": 0, "duration_s": 1000}) as answer:
        events = read_live_events(answer)
        response_id = next(events)["response"]["id"]
        next(event for event in events if event["type"] == "response.image_generation_call.generating")
        body = client.cancel(response_id).json()
    assert [item["status"] for item in body["output"]] == ["failed"]


def test_remote_server_is_listed_and_called(client: Client) -> None:
    tool = SERVER | {"require_approval": "never", "allowed_tools": ["find", "write"], "headers": {"x": "secret"}}
    body = run_to_end(client, {"mcp_calls": 2}, tools=[tool | {"authorization": "secret"}])
    [listed] = list_items(body, "mcp_list_tools")
    assert [found["name"] for found in listed["tools"]] == ["find", "write"] and listed["server_label"] == "docs"
    calls = list_items(body, "mcp_call")
    assert [(call["name"], call["server_label"], call["status"]) for call in calls] == [
        ("find", "docs", "completed")
    ] * 2
    assert all(json.loads(call["arguments"]) and call["output"] and call["error"] is None for call in calls)
    assert body["output"][0] == listed and text_of(body)
    assert "secret" not in json.dumps(body)


@pytest.mark.parametrize(
    ("approval", "asked"),
    [
        ({}, True),
        ({"require_approval": "always"}, True),
        ({"require_approval": {"never": {"tool_names": ["lookup"]}}}, False),
        ({"require_approval": {"never": {"tool_names": ["read"]}}}, True),
    ],
)
def test_call_that_needs_approval_ends_the_turn(client: Client, approval: Json, asked: bool) -> None:
    first = run_to_end(client, {"mcp_calls": 1}, tools=[SERVER | approval])
    requests = list_items(first, "mcp_approval_request")
    assert len(requests) == asked and len(list_items(first, "mcp_call")) == (not asked)
    assert bool(text_of(first)) != asked
    if asked:
        assert (requests[0]["server_label"], requests[0]["name"]) == ("docs", "lookup")
        reply = {"type": "mcp_approval_response", "approval_request_id": requests[0]["id"], "approve": True}
        body = {"model": MODEL, "input": [reply], "previous_response_id": first["id"], "metadata": first["metadata"]}
        assert text_of(client.http.post("/responses", json=body).json())


def test_reasoning_is_summed_up_only_where_it_is_requested(client: Client) -> None:
    silent = client.stream(emulate={"reasoning": 2})
    [thought] = list_items(silent[-1]["response"], "reasoning")
    assert thought["summary"] == [] and "encrypted_content" not in thought
    assert not any("reasoning_summary" in type for type in list_types(silent))
    [thought] = list_items(run_to_end(client, {"reasoning": 2}, reasoning={"summary": "auto"}), "reasoning")
    assert [part["type"] for part in thought["summary"]] == ["summary_text"] * 2
    [thought] = list_items(run_to_end(client, {}, include=["reasoning.encrypted_content"]), "reasoning")
    assert thought["encrypted_content"].startswith("gAAAA")


class Mood(Enum):
    calm = "calm"
    loud = "loud"


class Town(BaseModel):
    name: str
    people: int
    area_km2: float
    coastal: bool
    mood: Mood
    kind: Literal["city", "village"]
    note: str | None


class Country(BaseModel):
    towns: list[Town]
    capital: Town
    parent: "Country | None"


async def test_sdk_parses_a_structured_answer(sdk: AsyncOpenAI) -> None:
    response = await sdk.responses.parse(model=MODEL, input="Where?", text_format=Country)
    country = response.output_parsed
    assert isinstance(country, Country) and len(country.towns) == 2 and country.capital.mood is Mood.calm


async def test_scripted_text_and_a_refusal_beat_the_schema(sdk: AsyncOpenAI) -> None:
    async def parse(**script: Any) -> Any:
        metadata = {"emulate": json.dumps(script)}
        return await sdk.responses.parse(model=MODEL, input="Where?", text_format=Mooded, metadata=metadata)

    class Mooded(BaseModel):
        mood: Mood

    assert (await parse(text='{"mood":"loud"}')).output_parsed == Mooded(mood=Mood.loud)
    refused = await parse(refuse=True)
    assert refused.output_parsed is None and refused.output[-1].content[0].type == "refusal"


SCHEMAS: dict[str, Json] = {
    "free": {"type": "object"},
    "bounds": {
        "type": "object",
        "properties": {
            "low": {"type": "integer", "minimum": 7},
            "above": {"type": "number", "exclusiveMinimum": 7, "multipleOf": 2},
            "high": {"type": "integer", "maximum": -3},
            "below": {"type": "integer", "exclusiveMaximum": -3},
            "many": {"type": "array", "items": {"type": "null"}, "minItems": 5},
            "few": {"type": "array", "items": {"const": 1}, "maxItems": 1},
            "long": {"type": "string", "minLength": 40},
            "short": {"type": "string", "maxLength": 2},
            "when": {"type": "string", "format": "date-time"},
            "maybe": {"type": ["string", "null"]},
            "any": {},
        },
        "required": ["low", "above", "high", "below", "many", "few", "long", "short", "when", "maybe", "any"],
    },
    "recursion": {
        "type": "object",
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "v": {"enum": [3]}}}},
        "properties": {
            "head": {"$ref": "#/$defs/node"},
            "self": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
            "tree": {"type": "array", "items": {"$ref": "#/$defs/node"}},
        },
        "required": ["head", "self"],
    },
}


REFUSED_PARTS: list[tuple[Json, str]] = [
    ({"type": "money"}, "'money' is not valid under any of the given schemas."),
    ({"type": ["money", "null"]}, "['money', 'null'] is not valid under any of the given schemas."),
    ({"type": []}, "[] is not valid under any of the given schemas."),
    ({"type": 5}, "5 is not valid under any of the given schemas."),
    ({"type": [{}]}, "[{}] is not valid under any of the given schemas."),
    ({"enum": []}, "[] should be non-empty."),
    ({"anyOf": []}, "[] should be non-empty."),
]


@pytest.mark.parametrize(("part", "problem"), REFUSED_PARTS)
def test_schema_with_a_type_that_json_does_not_have_is_refused(client: Client, part: Json, problem: str) -> None:
    schema = {"type": "object", "properties": {"a": part}, "required": ["a"]}
    answer = client.post(text={"format": {"type": "json_schema", "name": "thing", "schema": schema}})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].endswith(f"In context=('properties', 'a'), {problem}")


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_sample_fits_its_schema(client: Client, schema: Json) -> None:
    value = build_sample(schema)
    jsonschema.Draft202012Validator(schema).validate(value)  # pyright: ignore[reportUnknownMemberType]
    form = {"type": "json_schema", "name": "thing", "schema": schema}
    body = client.post(text={"format": form}).json()
    assert json.loads(text_of(body)) == value and body["text"]["format"] == form


def test_incomplete_structured_answer_is_cut_in_its_middle(client: Client) -> None:
    form = {"type": "json_schema", "name": "thing", "schema": SCHEMAS["bounds"]}
    body = run_to_end(client, {"end": "incomplete"}, text={"format": form})
    assert json.dumps(build_sample(SCHEMAS["bounds"])).startswith(text_of(body)) and text_of(body)
    with pytest.raises(ValueError):
        json.loads(text_of(body))


def test_json_object_gives_an_object(client: Client) -> None:
    asked = {"format": {"type": "json_object"}}
    assert isinstance(json.loads(text_of(client.post("Give me JSON.", text=asked).json())), dict)
    assert client.post("Give me text.", text=asked).json()["error"]["param"] == "input"
