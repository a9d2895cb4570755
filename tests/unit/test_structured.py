"""Structured output: the schema in the request, and the report of an answer that does not match it."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_jobs.errors import RequestError
from agent_jobs.mcp_server.wording import MODEL
from agent_jobs.request.body import build_body
from agent_jobs.request.json_schema import find_mismatch

OPEN: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CLOSED: dict[str, Any] = {**OPEN, "additionalProperties": False}


def body_with(schema: Any) -> Any:
    return build_body("x", job_id="job_1", options={"json_schema": schema})


def object_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def nest_object(levels: int) -> dict[str, Any]:
    return object_of(a=nest_object(levels - 1)) if levels else CLOSED


STRICT: list[dict[str, Any]] = [
    CLOSED,
    object_of(),
    object_of(a=CLOSED, b={"type": "array", "items": CLOSED}),
    object_of(a={"anyOf": [CLOSED, {"type": "null"}]}),
    object_of(a={"enum": ["x", "y"]}, b={"const": 1}, c={"type": ["string", "null"]}),
    {**object_of(a={"$ref": "#/$defs/A"}), "$defs": {"A": CLOSED}},
    {**object_of(a={"$ref": "#"}), "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tree"},
    object_of(a={"type": "string", "format": "date-time"}, b={"type": "string", "pattern": "^[a-z]+$"}),
    object_of(a={"type": "number", "minimum": 0}, b={"type": "array", "items": {"type": "string"}, "minItems": 1}),
    object_of(default={"type": "string"}, uniqueItems={"type": "boolean"}),
    nest_object(8),
]
ANY_LIST: list[dict[str, Any]] = [
    {"uniqueItems": True},
    {"contains": {}},
    {"prefixItems": []},
    {"items": {"type": "string", "format": "uri"}},
]
NOT_STRICT: list[dict[str, Any]] = [
    OPEN,
    {"type": "object"},
    {**CLOSED, "required": []},
    {**CLOSED, "additionalProperties": True},
    object_of(a=OPEN),
    object_of(a={"type": "array", "items": OPEN}),
    object_of(a={"anyOf": [OPEN]}),
    object_of(a={"properties": {}}),
    object_of(a={}),
    object_of(a=True),
    {**object_of(a={"$ref": "#/$defs/A"}), "$defs": {"A": OPEN}},
    {**CLOSED, "allOf": [{}]},
    {**CLOSED, "patternProperties": {}},
    {**CLOSED, "required": ["n", "more"]},
    {name: value for name, value in object_of().items() if name != "required"},
    *(object_of(a={"type": "string", **more}) for more in (
        {"format": "uri"}, {"format": "iri"}, {"format": 7}, {"default": "x"}, {"examples": ["x"]}, {"minLength": 1},
        {"contentEncoding": "base64"}, {"x-order": 1}, {"$comment": "x"}, {"pattern": "^(?!a)"}, {"pattern": "(?<=a)b"},
    )),
    *(object_of(a={"type": ["array", "null"], "items": {"type": "string"}, **more}) for more in ANY_LIST),
    object_of(a={"type": ["array", "null"]}),
    object_of(a={"type": "strnig"}),
    object_of(a={"type": ["object", "null"], "properties": {"n": {"type": "integer"}}}),
    object_of(a={"anyOf": [{"type": "string"}, {"type": "string", "default": ""}]}),
    {**object_of(a={"$ref": "#/$defs/A", "description": "x"}), "$defs": {"A": CLOSED}},
    {**object_of(a={"$ref": "#/$defs/A"}), "$defs": {"A": {"type": "string", "format": "uri"}}},
    object_of(a={"$ref": "https://example.org/a.json"}),
    {**CLOSED, "anyOf": [CLOSED]},
    {**CLOSED, "minProperties": 1},
    {**CLOSED, "default": {}},
    nest_object(12),
    {**CLOSED, "required": "n"},
    {**CLOSED, "properties": []},
]  # fmt: skip


@pytest.mark.parametrize(("schema", "strict"), [*((s, True) for s in STRICT), *((s, False) for s in NOT_STRICT)])
def test_strict_is_set_if_the_schema_keeps_to_its_rules(schema: dict[str, Any], strict: bool) -> None:
    found = body_with(schema)["text"]["format"]
    assert (found["type"], found["name"], found["strict"]) == ("json_schema", "answer", strict)
    if schema != object_of(a={"type": ["array", "null"]}):
        assert found["schema"] == schema


def test_list_in_an_answer_gets_items_and_the_callers_schema_stays() -> None:
    given = object_of(a={"type": ["array", "null"]})
    found = body_with(given)["text"]["format"]["schema"]
    assert found == object_of(a={"type": ["array", "null"], "items": {}})
    assert given == object_of(a={"type": ["array", "null"]})


def test_schema_may_come_with_its_name() -> None:
    asked = {"name": "lakes-1", "schema": CLOSED, "strict": False, "description": "Lakes."}
    assert body_with(asked)["text"]["format"] == {"type": "json_schema", **asked}


def test_schema_may_come_in_a_fence() -> None:
    assert body_with(f"```json\n{json.dumps(CLOSED)}\n```") == body_with(CLOSED)


def test_schema_of_an_object_that_has_a_schema_is_still_a_schema() -> None:
    schema = object_of(schema={"type": "string"})
    assert body_with(schema)["text"]["format"]["schema"] == schema


@pytest.mark.parametrize(
    ("schema", "hint"),
    [
        ("{}", "options.json_schema accepts an object like"),
        ([], "options.json_schema accepts an object like"),
        ({}, "accepts the JSON schema of an object"),
        ({"type": "array"}, "accepts the JSON schema of an object"),
        ({"type": ["object"]}, "accepts the JSON schema of an object"),
        ({"schema": {"type": "string"}}, "accepts the JSON schema of an object"),
        ({"schema": "object"}, "options.json_schema accepts an object like"),
        ({"schema": CLOSED, "name": "a b"}, "up to 64 letters"),
        ({"schema": CLOSED, "name": "a" * 65}, "up to 64 letters"),
        ({"schema": CLOSED, "name": 1}, "up to 64 letters"),
        ({"schema": CLOSED, "strict": "yes"}, "options.json_schema.strict accepts true or false, not"),
        ({"schema": OPEN, "strict": True}, "options.json_schema is not strict: give every object"),
        ({"schema": object_of(a={"type": "string", "format": "uri"}), "strict": True},
         "options.json_schema is not strict: leave out format uri. Correct the schema, or leave strict out."),
        ({"schema": {**CLOSED, "x-order": 1}, "strict": True}, "is not strict: leave out x-order. Correct"),
        ({"schema": CLOSED, "description": 1}, "options.json_schema.description accepts a non-empty string, not"),
    ],
)  # fmt: skip
def test_invalid_schema_is_refused(schema: Any, hint: str) -> None:
    with pytest.raises(RequestError) as refusal:
        body_with(schema)
    assert hint in MODEL.describe(refusal.value)


FENCED = [
    '```json\n{"n":1}\n```',
    '```\n{"n":1}\n```\n',
    '~~~~JSON\n{"n":1}\n~~~~',
    'Here it is:\n\n```json\n{"n": 1}\n```\nCall again if you need more.',
    '```json\r\n{"n":1}\r\n```',
    '```json\n{"n":1}',
    'As said:\n```json\n{"n":1}\n```\nonce more:\n```json\n{"n": 1}\n```',
    'Run this:\n```sh\nls\n```\nand here:\n```json\n{"n":1}\n```',
    '\ufeff{"n":1}',
    '{"n":1,"code":"```json\\n{}\\n```"}',
]


@pytest.mark.parametrize("text", ['{"n":1}', ' {"n": 1}\n', '{"n":1,"more":true}', *FENCED])
def test_answer_that_matches_its_schema_is_not_reported(text: str) -> None:
    assert find_mismatch(text, body_with(OPEN)) is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not JSON"),
        ("Here it is: {}", "not JSON"),
        ('```json\n{"n":1}\n```\n\n```json\n{"n":2}\n```', "not JSON"),
        ('```json\n{"n":1\n```', "not JSON"),
        ('The answer is `{"n":1}`.', "not JSON"),
        ('```json\n{"n":"x"}\n```', "$.n breaks 'type'"),
        ('{"n":1', "not JSON"),
        ('{"n":NaN}', "not JSON"),
        ('{"n":' + "9" * 5000 + "}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "$ breaks 'required'"),
        ("[]", "$ breaks 'type'"),
        ('{"n":"secret words"}', "$.n breaks 'type'"),
        ('{"n":1,"more":1}', "$ breaks 'additionalProperties'"),
    ],
)
def test_answer_that_does_not_match_is_reported_without_its_words(text: str, sentence: str) -> None:
    mismatch = find_mismatch(text, body_with(CLOSED))
    assert mismatch is not None
    assert sentence in mismatch
    assert "secret words" not in mismatch
    assert len(mismatch) < 200


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"n": {"type": "strnig"}}},
        {"type": "object", "properties": {"n": {"$ref": "#/$defs/none"}}},
        {"type": "object", "properties": {"n": {"$ref": "http://127.0.0.1:9/schema.json"}}},
        {"type": "object", "properties": {"n": {"pattern": "("}}},
        {"type": "object", "$ref": "#"},
        {"type": "object", "required": 7},
    ],
)
def test_schema_that_cannot_be_checked_is_reported_and_nothing_is_fetched(schema: Any) -> None:
    mismatch = find_mismatch('{"n":"x"}', body_with(schema))
    assert mismatch == "The output is JSON, but it cannot be checked against its JSON schema."


def test_any_text_is_valid_without_a_schema() -> None:
    assert find_mismatch("Hello", build_body("x", job_id="job_1", options={"verbosity": "low"})) is None
    assert find_mismatch("Hello", build_body("x", job_id="job_1")) is None


@given(st.text())
def test_any_text_matches_or_is_reported(text: str) -> None:
    mismatch = find_mismatch(text, body_with(CLOSED))
    assert mismatch is None or mismatch.startswith("The output")


def test_rarely_used_modules_are_imported_on_demand() -> None:
    script = (
        "import sys; before = {*sys.modules}; import agent_jobs.request.body;"
        "print({'jsonschema', 'tomllib', 'difflib'} & (sys.modules.keys() - before))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
