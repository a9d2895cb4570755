"""The arguments that models and hosts in strict mode send, through a real MCP client."""

import json
from typing import Any

import pytest
from hosts import Host, hosting

from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings

EMPTY: list[Any] = ["", [], {}, None, [""], {"a": None}, [[]]]
OPTIONAL = {
    "agent_start": ["prompts", "preset", "model", "effort", "web_search", "files", "previous_job_id", "batch",
                    "priority", "wait_s", "options"],
    "agent_poll": ["job_ids", "batch", "wait_s"],
    "agent_result": ["part", "offset", "max_bytes"],
    "agent_list": ["status", "batch", "query", "days", "limit"],
    "agent_cancel": ["job_ids", "batch"],
}  # fmt: skip


@pytest.mark.parametrize("empty", EMPTY, ids=repr)
@pytest.mark.parametrize("tool", OPTIONAL)
async def test_empty_argument_counts_as_not_given(settings: Settings, tool: str, empty: Any) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 0.2, "text": "done"})
        await host.end(started["job_id"])
        given: dict[str, Any] = dict.fromkeys(OPTIONAL[tool], dict[str, Any]() if empty == {"a": None} else empty)
        if tool == "agent_start":
            given["prompt"] = "another"
        elif tool != "agent_list":
            given["job_id"] = started["job_id"]
        answer = await host.call(tool, **given)
    assert answer["jobs"] if tool == "agent_list" else answer["job_id"]


async def test_host_that_fills_every_argument_starts_one_job(settings: Settings, upstream: RunningServer) -> None:
    options: dict[str, Any] = {
        "instructions": "",
        "tools": [],
        "json_schema": {},
        "max_output_tokens": 0,
        "toolbox": [],
        "key": "",
    }
    async with hosting(settings) as host:
        started = await host.call(
            "agent_start", prompt="x", prompts=[], preset="deep_research", model="", effort="", web_search=False,
            files=[""], previous_job_id="", batch="", priority="normal", wait_s=0, options=options,
        )  # fmt: skip
        assert (await host.call("agent_list", status="", batch="", query="", days=0, limit=0))["jobs"]
        await host.end(started["job_id"])
        answer = await host.call("agent_result", job_id=started["job_id"], part="meta")
    assert upstream.emulator.counters()["creates"] == 1
    tools = [tool["type"] for tool in answer["meta"]["request"]["tools"]]
    assert "web_search" in tools, "the false that the host filled in removed a tool of the preset"


JSON_TEXTS = ['{"a":1}', '["x"]', '"quoted"', "123", "null", "true", "[]", "{}", "1e400"]


@pytest.mark.parametrize("text", JSON_TEXTS)
async def test_text_that_happens_to_be_json_stays_that_text(settings: Settings, text: str) -> None:
    async with hosting(settings) as host:
        await host.call("agent_start", prompt=text, batch=text, wait_s=0)
        for query in ({"query": text}, {"batch": text}):
            assert [row["title"] for row in (await host.call("agent_list", **query))["jobs"]] == [text]
        assert repr(text)[1:-1] in await host.refused("agent_poll", job_id=text)


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "a placeholder": ("agent_list", {"random_string": "x"}),
    "an unknown empty argument": ("agent_list", {"foo": ""}),
    "a text for prompts": ("agent_start", {"prompts": "one task"}),
    "JSON text for prompts": ("agent_start", {"prompts": '["one", "two"]'}),
    "JSON text for options": ("agent_start", {"prompt": "x", "options": '{"verbosity":"low"}'}),
    "a list for a text": ("agent_start", {"prompt": ["x"]}),
    "the same prompt twice": ("agent_start", {"prompt": "x", "prompts": ["x"]}),
}


@pytest.mark.parametrize(("tool", "arguments"), FORMS.values(), ids=FORMS)
async def test_unambiguous_form_is_accepted(settings: Settings, tool: str, arguments: dict[str, Any]) -> None:
    async with hosting(settings) as host:
        await host.call(tool, **arguments)


async def test_options_as_a_plain_text_are_refused_with_the_right_form(settings: Settings) -> None:
    async with hosting(settings) as host:
        assert '{"instructions":"..."}' in await host.refused("agent_start", prompt="x", options="be brief")
        assert '"call_id"' in await host.refused("agent_reply", job_id="x", outputs="done")


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
TEXT = {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}}
#: Each form of the arguments, with the field of the request that it must become.
REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an object for a text": ({"prompt": {"a": "é"}}, {"input": '{"a": "é"}'}),
    "a part for a text": ({"prompt": {"type": "text", "text": "hello"}}, {"input": "hello"}),
    "parts for a text": ({"prompt": [{"type": "input_text", "text": t} for t in "ab"]}, {"input": "a\n\nb"}),
    "messages for a text": ({"prompt": [{"role": "user", "content": [{"text": "hi"}]}]}, {"input": "hi"}),
    "all in one object": ({"arguments": {"prompt": "inner"}}, {"input": "inner"}),
    "all in one text": ({"params": '{"prompt": "in a text"}'}, {"input": "in a text"}),
    "another way to write a name": ({"prompt": "s", "webSearch": True}, {"tools": [{"type": "web_search"}]}),
    "true as a text": ({"prompt": "t", "web_search": "true"}, {"tools": [{"type": "web_search"}]}),
    "false as a text": ({"prompt": "f", "preset": "deep_research", "web_search": "false"}, {"tools": None}),
    "a choice in capitals": ({"prompt": "c", "effort": " HIGH"}, {"reasoning": {"effort": "high"}}),
    "an option beside options": ({"prompt": "o", "max_output_tokens": 99}, {"max_output_tokens": 99}),
    "a schema beside options": ({"prompt": "js", "responseFormat": SCHEMA}, {"text": TEXT}),
    "a whole number as a text": ({"prompt": "w", "options": {"max_output_tokens": "99"}}, {"max_output_tokens": 99}),
    "a number with a sign and zeros": (
        {"prompt": "w3", "options": {"max_output_tokens": " +099 "}},
        {"max_output_tokens": 99},
    ),
    "a whole number as a float": ({"prompt": "w2", "options": {"max_tool_calls": 7.0}}, {"max_tool_calls": 7}),
    "zero as a text": ({"prompt": "z", "options": {"max_output_tokens": "0"}}, {"max_output_tokens": None}),
    "one text for a list": (
        {"prompt": "l", "options": {"include": "web_search_call.results"}},
        {"include": ["web_search_call.results"]},
    ),
    "JSON text for a list": (
        {"prompt": "lj", "options": {"include": '["web_search_call.results"]'}},
        {"include": ["web_search_call.results"]},
    ),
    "a name for a tool": (
        {"prompt": "n", "options": {"tools": "image_generation"}},
        {"tools": [{"type": "image_generation"}]},
    ),
    "an object for a list": (
        {"prompt": "ol", "options": {"tools": {"type": "image_generation"}}},
        {"tools": [{"type": "image_generation"}]},
    ),
    "JSON text for an object": ({"prompt": "m", "options": {"metadata": '{"team":"a"}'}}, {"team": "a"}),
    "options in a list": ({"prompt": "lo", "options": [{"verbosity": "low"}]}, {"text": {"verbosity": "low"}}),
    "an option that is null": ({"prompt": "nu", "options": {"verbosity": None}}, {"text": None}),
    "an option that is null, and one beside options": (
        {"prompt": "nb", "preset": "quick", "options": {"verbosity": None}, "max_output_tokens": 99},
        {"text": None, "max_output_tokens": 99},
    ),
    "a schema that is null": ({"prompt": "ns", "options": {"response_format": None}}, {"text": None}),
}


async def request_of(host: Host, started: dict[str, Any]) -> dict[str, Any]:
    """Return the request of the started job, or of the first of several."""
    job_id = started.get("job_id") or started["job_ids"][0]
    body = (await (await host.app.engine()).result(job_id)).job.turn.request
    return {**body, "team": body["metadata"].get("team")}


async def test_each_form_of_a_start_becomes_the_intended_request(settings: Settings) -> None:
    found: dict[str, dict[str, Any]] = {}
    async with hosting(settings) as host:
        for name, (arguments, expected) in REQUESTS.items():
            body = await request_of(host, await host.call("agent_start", **arguments))
            found[name] = {key: body.get(key) for key in expected}
    assert found == {name: expected for name, (_, expected) in REQUESTS.items()}


WRAPPED: dict[str, Any] = {"name": "answer", "schema": SCHEMA, "strict": True}
SCHEMAS: dict[str, dict[str, Any]] = {
    "a text": {"json_schema": json.dumps(SCHEMA)},
    "a text in a wrapper": {"json_schema": {"name": "answer", "schema": json.dumps(SCHEMA)}},
    "of chat completions": {"json_schema": {"type": "json_schema", "json_schema": WRAPPED}},
    "without a type": {"json_schema": {"json_schema": WRAPPED}},
    "of responses": {"json_schema": {"type": "json_schema", **WRAPPED}},
    "in format": {"json_schema": {"format": {"type": "json_schema", **WRAPPED}}},
    "in text": {"json_schema": {"text": {"format": {"type": "json_schema", **WRAPPED}}}},
    "with its key": {"json_schema": {"response_format": {"type": "json_schema", "json_schema": WRAPPED}}},
    "a function's": {"json_schema": {"type": "function", "name": "answer", "parameters": SCHEMA}},
    "without its own type": {"json_schema": {name: value for name, value in SCHEMA.items() if name != "type"}},
    "response_format": {"response_format": {"type": "json_schema", "json_schema": WRAPPED}},
    "response_format as a text": {"response_format": json.dumps({"type": "json_schema", "json_schema": WRAPPED})},
    "text": {"text": {"format": {"type": "json_schema", **WRAPPED}}},
    "format": {"format": SCHEMA},
    "twice the same": {"json_schema": SCHEMA, "response_format": {"type": "json_schema", "json_schema": WRAPPED}},
}


async def test_schema_is_found_in_every_wrapper(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = {
            name: await host.call("agent_start", prompt=name, options=options) for name, options in SCHEMAS.items()
        }
        found = {name: (await request_of(host, answer))["text"] for name, answer in started.items()}
        both = {"text": {"format": WRAPPED, "verbosity": "low"}}
        answer = await host.call("agent_start", prompt="with verbosity", options=both)
        assert (await request_of(host, answer))["text"] == {**TEXT, "verbosity": "low"}
        answer = await host.call("agent_start", prompt="plain text", options={"response_format": {"type": "text"}})
        assert "text" not in await request_of(host, answer)
    sent = json.loads(json.dumps(TEXT))
    assert {name: json.loads(json.dumps(text)) for name, text in found.items()} == dict.fromkeys(SCHEMAS, sent)


#: Arguments that are incomplete or contradict each other, and the words of their refusal.
UNCLEAR: dict[str, tuple[str, dict[str, Any], str]] = {
    "JSON of no form": ("agent_start", {"prompt": "x", "options": {"response_format": {"type": "json_object"}}},
                        'options.json_schema accepts the JSON schema of an object, like {"type":"object"'),
    "a text that is no schema": ("agent_start", {"prompt": "x", "options": {"text": "brief"}},
                                 'options.json_schema accepts an object like {"type":"object"'),
    "two schemas": ("agent_start", {"prompt": "x", "options": {"json_schema": SCHEMA, "format": {"type": "object"}}},
                    "options.format and options.json_schema differ. Give options.json_schema only."),
    "an option in two places": ("agent_start", {"prompt": "x", "verbosity": "low", "options": {"verbosity": "high"}},
                                "verbosity is given twice, beside options and in it. Give it in options only."),
    "prompts with more": ("agent_start", {"prompts": [{"prompt": "x", "effort": "low"}]},
                          'prompts accepts a list of strings like ["..."], not this object.'),
    "several texts for one": ("agent_start", {"prompt": ["x", "y"]},
                              'prompt accepts one string like "..." (several tasks go into prompts), not this list.'),
    "options as a list of texts": ("agent_start", {"prompt": "x", "options": ["verbosity=low"]},
                                   'options accepts an object like {"instructions":"..."}, not this string.'),
    "an object for a status": ("agent_list", {"status": {"a": "b"}},
                               'status accepts one string like "...", not this object.'),
}  # fmt: skip


async def test_ambiguous_argument_is_refused_with_the_right_form(settings: Settings) -> None:
    async with hosting(settings) as host:
        for tool, arguments, sentence in UNCLEAR.values():
            assert sentence in await host.refused(tool, **arguments)


@pytest.mark.parametrize(
    "ids",
    ['[{"job_id": "A", "status": "queued"}, {"job_id": "B"}]', "A, B", "['A', 'B']", '["A", "B"]'],
    ids=["objects", "a text with commas", "a list of Python", "JSON text"],
)
async def test_ids_are_found_in_every_form(settings: Settings, ids: str) -> None:
    async with hosting(settings) as host:
        [one, other] = [(await host.start(emulate={"duration_s": 900}))["job_id"] for _ in range(2)]
        stopped = await host.call("agent_cancel", job_ids=ids.replace("A", one).replace("B", other))
        assert sum(stopped["counts"].values()) == 2
        found = await host.call("agent_poll", jobId={"job_id": one}, wait_s="0")
        assert found["job_id"] == one
        listed = await host.call("agent_list", limit="1.0", days="0")
        assert [row["job_id"] for row in listed["jobs"]] == [other]


async def test_start_of_one_prompt_of_several_names_its_poll(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.call("agent_start", prompts=[{"prompt": "alone"}])
        assert started["next"] == f"agent_poll job_id={started['job_ids'][0]}"
