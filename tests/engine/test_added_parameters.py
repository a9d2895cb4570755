"""Parameters that agent-jobs added are dropped if an endpoint refuses them; requested ones never are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, hosting, script_prompt

from agent_jobs.emulator.server import RunningServer
from agent_jobs.request.added_parameters import ASKED, find_refused_additions
from agent_jobs.request.body import build_body
from agent_jobs.request.presets import load_our_presets
from agent_jobs.settings.settings import Settings

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
#: A request with all parameters that agent-jobs adds.
OPTIONS = {"json_schema": SCHEMA, "verbosity": "low"}
FULL: dict[str, Any] = {
    **build_body("x", job_id="job_1", model="m", preset="deep_research", presets=load_our_presets(), options=OPTIONS),
    ASKED: [],
}

#: Messages of real servers, their param, and the added parameters that they name.
WORDINGS: list[tuple[str, str, list[str]]] = [
    ("Unknown parameter: 'stream_options'.", "", ["stream_options"]),
    ("Unrecognized request argument supplied: stream_options", "", ["stream_options"]),
    ("Unrecognized request arguments supplied: metadata, store", "", ["metadata", "no store"]),
    ("stream_options: Extra inputs are not permitted; store: Extra inputs are not permitted", "",
     ["stream_options", "no store"]),
    ("[{'type': 'extra_forbidden', 'loc': ('body', 'include'), 'msg': 'Extra inputs are not permitted', "
     "'input': {'metadata': 1}}]", "", ["include"]),
    ("1 validation error for ResponsesRequest metadata Extra inputs are not permitted [type=extra_forbidden]", "",
     ["metadata"]),
    ("metadata is not supported here", "", ["metadata"]),
    ("`metadata` is not supported with this model", "metadata", ["metadata"]),
    ("The 'metadata' parameter is only allowed when 'store' is enabled.", "", ["metadata"]),
    ("metadata: property 'metadata' is unsupported", "validation_error", ["metadata"]),
    ("litellm.UnsupportedParamsError: openai does not support parameters: {'metadata': {'job_id': 'x'}, 'store': True},"
     " for model=m. To drop these, set `litellm.drop_params=True`", "", ["metadata", "no store"]),
    ('json: unknown field "stream_options"', "", ["stream_options"]),
    ("unknown field `metadata`, expected one of `model`, `input`, `store`", "", ["metadata"]),
    ('Invalid JSON payload received. Unknown name "include": Cannot find field.', "", ["include"]),
    ("Unrecognized key(s) in object: 'stream_options', 'store'", "", ["stream_options", "no store"]),
    ("Additional properties are not allowed ('metadata', 'store' were unexpected)", "", ["metadata", "no store"]),
    ("extra field Stream_Options not permitted", "", ["stream_options"]),
    ("create() got an unexpected keyword argument 'include'", "", ["include"]),
    ("Parameter store not supported", "", ["no store"]),
    ("Unsupported parameter", "store", ["no store"]),
    ("Store must be set to false", "", ["store"]),
    ("'store' must be false", "", ["store"]),
    ("store=true is not supported", "", ["store"]),
    ("stream options are not supported", "", ["stream_options"]),
    ("Invalid value: 'web_search_call.action.sources'.", "include[0]", ["include"]),
    ("Your organization must be verified to generate reasoning summaries.", "reasoning.summary", ["reasoning.summary"]),
    ("Your organization must be verified to generate reasoning summaries.", "", ["reasoning.summary"]),
    ("Unsupported parameter: 'reasoning.effort' is not supported with this model.", "", ["reasoning.effort"]),
    ("This model does not support reasoning.", "", ["reasoning.summary", "reasoning.effort"]),
    ("Unsupported value: 'verbosity' does not support 'low' with this model.", "", ["text.verbosity"]),
    ("Invalid schema for response_format 'answer': In context=(), 'x' is not permitted.", "text.format.schema",
     ["strict, for this schema"]),
    # The same words about something else.
    ("Please include a valid model.", "", []),
    ("The metadata server is away.", "", []),
    ("Invalid input: please include a model.", "", []),
    ("The vector store is not available.", "", []),
    ("Unsupported file type. Please include text only.", "", []),
    ("Unknown parameter: 'store'.", "input", []),
    ("Invalid model: supported parameters are store, metadata", "", []),
    ("Unknown parameter: 'store_options'.", "", []),
    ("Unknown parameter: 'temperature'.", "temperature", []),
]  # fmt: skip


@pytest.mark.parametrize(("words", "param", "names"), WORDINGS)
def test_refusal_names_added_parameters_in_every_wording(words: str, param: str, names: list[str]) -> None:
    assert find_refused_additions("", param, words, FULL) == names


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("Unknown parameter: 'metadata'.", "metadata"),
        ("Unknown parameter: 'reasoning.summary'.", "reasoning_summary"),
        ("Unknown parameter: 'reasoning.effort'.", "effort"),
        ("Unknown parameter: 'include'.", "include:web_search_call.action.sources"),
        ("Unknown parameter: 'text.verbosity'.", "verbosity"),
        ("Invalid schema for response_format 'answer'.", "json_schema"),
    ],
)
def test_refusal_never_names_a_requested_parameter(words: str, asked: str) -> None:
    assert find_refused_additions("", "", words, FULL)
    assert find_refused_additions("", "", words, {**FULL, ASKED: [asked]}) == []


def envelope(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


def forbidden(*names: str) -> dict[str, Any]:
    return {
        "detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
                   for name in names]
    }  # fmt: skip


RESEARCH = {"preset": "deep_research"}
#: A server's refusal, the options of the request, and the fields that the accepted request lacks.
REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "FastAPI": ({"status": 422, "body": forbidden("stream_options", "metadata")}, {}, {"metadata": {}}),
    "vLLM": (
        {"status": 400, "body": {"object": "error", "message": str(forbidden("metadata")["detail"]), "code": 400}},
        {},
        {"metadata": {}},
    ),
    "litellm": (
        {
            "status": 500,
            "body": envelope("litellm.UnsupportedParamsError: x does not support parameters: ['metadata']"),
        },
        {},
        {"metadata": {}},
    ),
    "a plain text": (
        {"status": 404, "body": "Unrecognized request argument supplied: metadata", "content_type": "text/plain"},
        {},
        {"metadata": {}},
    ),
    "405": ({"status": 405, "body": envelope("Unsupported parameter: 'metadata'.")}, {}, {"metadata": {}}),
    "501": ({"status": 501, "body": envelope("metadata is not implemented")}, {}, {"metadata": {}}),
    "in a 200": ({"status": 200, "body": envelope("Unknown parameter: 'metadata'.")}, {}, {"metadata": {}}),
    "an organization that is not verified": (
        {"status": 400, "body": envelope("Your organization must be verified.", param="reasoning.summary")},
        RESEARCH,
        {"reasoning": {"effort": "high", "summary": None}},
    ),
    "a model that does not reason": (
        {"status": 400, "body": envelope("Unsupported parameter: 'reasoning.effort' is not supported.")},
        {"preset": "think"},
        {"reasoning": {"effort": "medium", "summary": None}},
    ),
    "includes": ({"status": 400, "body": envelope("Unknown parameter: 'include'.")}, {"web_search": True}, {}),
    "a store that is not known": ({"status": 400, "body": envelope("Unknown parameter: 'store'.")}, {}, {}),
}


async def get_accepted_fields(host: Host, job_id: str, names: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a completed job's request as upstream accepted it."""
    assert (await host.end(job_id))["status"] == "completed"
    output = (await (await host.app.engine()).result(job_id)).job.output
    assert output is not None
    assert output.response is not None
    return {name: output.response.get(name) for name in names}


@pytest.mark.parametrize(("fault", "asked", "gone"), REFUSALS.values(), ids=REFUSALS)
async def test_added_parameter_is_dropped_once_and_remembered(
    settings: Settings, upstream: RunningServer, fault: dict[str, Any], asked: dict[str, Any], gone: dict[str, Any]
) -> None:
    upstream.queue_fault(on="create", **fault)
    async with hosting(settings) as host:
        for posts in (2, 3):
            started = await host.start(emulate={"duration_s": 1, "text": "taken"}, **asked)
            assert await get_accepted_fields(host, started["job_id"], gone) == gone
            assert upstream.emulator.counters()["creates"] == posts


ASKED_FOR: dict[str, tuple[str, dict[str, Any], str]] = {
    "metadata": ("Unknown parameter: 'metadata'.", {"options": {"metadata": {"team": "a"}}}, "metadata"),
    "a summary": (
        "Unknown parameter: 'reasoning.summary'.",
        {"options": {"reasoning_summary": "auto"}},
        "reasoning.summary",
    ),
    "an effort": ("Unsupported parameter: 'reasoning.effort'.", {**RESEARCH, "effort": "low"}, "reasoning.effort"),
    "a schema's strictness": (
        "Invalid schema for response_format 'answer'.",
        {"options": {"json_schema": {"schema": SCHEMA, "strict": True}}},
        "text.format.schema",
    ),
}


@pytest.mark.parametrize(("words", "asked", "param"), ASKED_FOR.values(), ids=ASKED_FOR)
async def test_requested_parameter_is_never_dropped_silently(
    settings: Settings, upstream: RunningServer, words: str, asked: dict[str, Any], param: str
) -> None:
    upstream.queue_fault(on="create", status=400, body=envelope(words, param=param))
    async with hosting(settings) as host:
        answer = await host.end((await host.start(**asked))["job_id"])
    assert answer["status"] == "failed"
    assert words in answer["error"]["message"]
    assert upstream.emulator.counters()["creates"] == 1


async def test_refused_strict_schema_is_sent_without_strict(settings: Settings, upstream: RunningServer) -> None:
    words = "Invalid schema for response_format 'answer': In context=(), 'n' is not permitted."
    body = envelope(words, code="invalid_json_schema", param="text.format.schema")
    upstream.queue_fault(on="create", status=400, body=body)
    async with hosting(settings) as host:
        started = await host.start(options={"json_schema": SCHEMA})
        text = (await get_accepted_fields(host, started["job_id"], {"text": None}))["text"]
        assert not text["format"].get("strict")
        # The schema caused the refusal, not the endpoint.
        again = await host.start(options={"json_schema": {**SCHEMA, "title": "Another"}})
        assert (await get_accepted_fields(host, again["job_id"], {"text": None}))["text"]["format"]["strict"] is True
    assert upstream.emulator.counters()["creates"] == 3


async def test_limit_of_the_budget_is_not_blamed_on_the_caller(
    settings: Settings, upstream: RunningServer, tmp_path: Path
) -> None:
    upstream.queue_fault(on="create", status=400, body=envelope("Unsupported parameter: max_output_tokens"))
    table = tmp_path / "prices.toml"
    prices = "input = 2.0\ncached = 0.2\ncache_write = 2.5\noutput = 10.0\ncontext_tokens = 400_000\n"
    table.write_text(f'[models."gpt-6.1-sol"]\n{prices}')
    async with hosting(replace(settings, daily_budget_usd=1.0, prices=table)) as host:
        answer = await host.end((await host.start())["job_id"])
    assert "Change options" not in answer["error"]["message"]
    assert "AGENT_JOBS_BUDGET_MODE=spent" in answer["error"]["message"]


async def test_list_of_requested_parameters_is_hidden_and_changes_no_identity(settings: Settings) -> None:
    async with hosting(settings) as host:
        prompt = script_prompt("same", {"duration_s": 900})
        job_id = (await host.call("agent_start", prompt=prompt, effort="low", preset="think"))["job_id"]
        again = await host.call("agent_start", prompt=prompt, effort="low", preset="think")
        await host.call("agent_cancel", job_id=job_id)
        assert (again["job_id"], again["duplicate"]) == (job_id, True)
        assert ASKED not in str(await host.call("agent_result", job_id=job_id, part="meta"))
