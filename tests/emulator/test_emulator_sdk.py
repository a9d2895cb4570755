import json
from typing import Any, get_args

import anyio
import openai
import pytest
from emulator_client import MODEL, Client, Json
from openai import AsyncOpenAI
from openai.pagination import AsyncCursorPage
from openai.types.model import Model
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseCreatedEvent,
    ResponseItemList,
    ResponseStreamEvent,
)
from pydantic import BaseModel, ValidationError

from agent_jobs.emulator.server import RunningServer

# Each event is checked against the class of its own type, because a laxer member of the union could accept it.
_CLASSES: tuple[type[BaseModel], ...] = get_args(get_args(ResponseStreamEvent)[0])
EVENTS = {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in _CLASSES}
TOOLS: list[Any] = [
    {"type": "web_search"},
    {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}},
    {
        "type": "mcp",
        "server_label": "docs",
        "server_url": "https://example.com",
        "authorization": "secret",
        "require_approval": "never",
    },
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "image_generation", "partial_images": 2},
]
SCRIPTS: dict[str, Json] = {
    "message": {"reasoning": 2, "searches": 2, "phase": True},
    "function calls": {"function_calls": [{"name": "lookup", "arguments": {"q": "x"}}, {"name": "lookup"}]},
    "approval": {"mcp_approval": True},
    "code": {"container_files": [{"filename": "a.csv", "text": "a,b"}, {"filename": "b.csv", "text": ""}]},
    "images": {"images": 2, "image_px": 3},
    "mcp calls": {"mcp_calls": 2},
    "refusal": {"refuse": True},
    "failed": {"end": "failed", "error_code": "server_error"},
    "incomplete": {"end": "incomplete"},
    "incomplete and empty": {"end": "incomplete", "length": 0},
    "empty": {"length": 0, "reasoning": 0},
}


def check_event(event: Json) -> None:
    EVENTS[event["type"]].model_validate(event, strict=True)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_every_event_and_body_has_the_shape_of_the_sdk(client: Client, script: Json) -> None:
    include = ["web_search_call.action.sources", "reasoning.encrypted_content", "code_interpreter_call.outputs"]
    asked: Json = {"tools": TOOLS, "include": include, "reasoning": {"summary": "auto"}}
    events = client.stream(emulate=script, **asked, instructions="Be brief.")
    for event in events:
        check_event(event)
    body = client.wait_until_ended(events[0]["response"]["id"])
    Response.model_validate(body, strict=True)
    assert events[-1]["response"] == body


def test_missing_required_field_would_be_noticed(client: Client) -> None:
    events = client.stream(emulate={"length": 10})
    for event in events:
        field = next(name for name in event if name not in ("type", "name", "obfuscation"))
        with pytest.raises(ValidationError):
            check_event({name: value for name, value in event.items() if name != field})


async def test_sdk_creates_and_polls_a_background_response(sdk: AsyncOpenAI) -> None:
    response = await sdk.responses.create(model=MODEL, input="hello", background=True, store=True)
    assert response.status == "queued"
    with anyio.fail_after(60):
        while response.status in ("queued", "in_progress"):
            response = await sdk.responses.retrieve(response.id)
    assert response.status == "completed"
    assert response.output_text.startswith("This is an emulated answer to: hello.")
    assert response.usage is not None and response.completed_at is not None


async def test_sdk_streams_and_gets_the_same_text_as_a_get(sdk: AsyncOpenAI) -> None:
    stream = await sdk.responses.create(model=MODEL, input="hello", background=True, stream=True, store=True)
    events = [event async for event in stream]
    first, last = events[0], events[-1]
    assert isinstance(first, ResponseCreatedEvent) and isinstance(last, ResponseCompletedEvent)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == last.response.output_text == (await sdk.responses.retrieve(first.response.id)).output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_sdk_answers_in_the_foreground(sdk: AsyncOpenAI) -> None:
    response = await sdk.responses.create(model=MODEL, input="hello")
    assert response.status == "completed" and response.output_text


async def test_sdk_resumes_after_an_event(sdk: AsyncOpenAI) -> None:
    stream = await sdk.responses.create(model=MODEL, input="hello", background=True, stream=True, store=True)
    seen = [event async for event in stream]
    created = seen[0]
    assert isinstance(created, ResponseCreatedEvent)
    again = await sdk.responses.retrieve(created.response.id, stream=True, starting_after=5)
    assert [event.sequence_number async for event in again] == list(range(6, len(seen)))


async def test_sdk_cancels_and_deletes(sdk: AsyncOpenAI) -> None:
    never = {"emulate": json.dumps({"end": "never"})}
    response = await sdk.responses.create(model=MODEL, input="hello", background=True, store=True, metadata=never)
    assert (await sdk.responses.cancel(response.id)).status == "cancelled"
    assert (await sdk.responses.cancel(response.id)).status == "cancelled"
    await sdk.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.responses.retrieve(response.id)
    assert caught.value.request_id


async def test_sdk_lists_input_items_over_pages(sdk: AsyncOpenAI) -> None:
    asked: Any = [{"role": "user", "content": f"part {number}"} for number in range(5)]
    response = await sdk.responses.create(model=MODEL, input=asked, background=True, store=True)
    pages: AsyncCursorPage[Any] = await sdk.responses.input_items.list(response.id, limit=2, order="asc")
    assert [item.content[0].text async for item in pages] == [f"part {number}" for number in range(5)]


def test_page_of_input_items_has_the_shape_of_the_sdk(client: Client) -> None:
    call = client.wait_until_ended(client.create(emulate={"function_calls": [{"name": "lookup"}]})["id"])["output"][-1]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "42"}
    asked = [{"role": "user", "content": [{"type": "input_text", "text": "go on"}]}, call, output]
    created = client.http.post("/responses", json={"model": MODEL, "input": asked}).json()
    page = client.http.get(f"/responses/{created['id']}/input_items").json()
    ResponseItemList.model_validate(page, strict=True)


async def test_sdk_reads_models_tokens_and_conversations(sdk: AsyncOpenAI) -> None:
    models = [model async for model in sdk.models.list()]
    assert {model.id for model in models} >= {
        "gpt-6.2-sol",
        "gpt-6.2-astra",
        "gpt-6.1-sol",
        "gpt-6-luna",
        "gpt-5.6-sol",
    }
    assert (await sdk.models.retrieve("gpt-5.6-sol")).shutdown_date
    assert (await sdk.responses.input_tokens.count(model=MODEL, input="four words of input")).input_tokens == 5
    conversation = await sdk.conversations.create(items=[{"role": "user", "content": "hello"}])
    assert (await sdk.conversations.retrieve(conversation.id)).id == conversation.id
    items = await sdk.conversations.items.list(conversation.id)
    assert len(items.data) == 1
    assert (await sdk.conversations.delete(conversation.id)).deleted


async def test_sdk_raises_its_own_classes_for_errors(sdk: AsyncOpenAI, server: RunningServer) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.responses.create(model="gpt-9", input="hello")
    assert caught.value.code == "model_not_found" and caught.value.param == "model"
    for status, kind in (
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (503, openai.InternalServerError),
    ):
        server.queue_fault(status=status)
        with pytest.raises(kind):
            await sdk.responses.create(model=MODEL, input="hello")
    server.queue_fault(drop="after_accept")
    with pytest.raises(openai.APIConnectionError):
        await sdk.responses.create(model=MODEL, input="hello")


async def test_sdk_raises_a_nested_error_event_and_yields_a_flat_one(sdk: AsyncOpenAI) -> None:
    async def types_with(shape: str) -> list[str]:
        script = {"emulate": json.dumps({"end": "failed", "faults": [{"error_event": shape}]})}
        stream = await sdk.responses.create(model=MODEL, input="hello", background=True, stream=True, metadata=script)
        return [event.type async for event in stream]

    with pytest.raises(openai.APIError):
        await types_with("nested")
    assert (await types_with("flat"))[-2:] == ["error", "response.failed"]


async def test_keepalive_reaches_the_sdk_under_its_own_name(sdk: AsyncOpenAI) -> None:
    script = {"emulate": json.dumps({"faults": [{"keepalives": 2}]})}
    stream = await sdk.responses.create(model=MODEL, input="hello", background=True, stream=True, metadata=script)
    events = [event async for event in stream]
    assert [str(event.type) for event in events[:3]] == ["keepalive", "keepalive", "response.created"]


def test_model_card_has_the_shape_of_the_sdk(client: Client) -> None:
    for card in client.http.get("/models").json()["data"]:
        Model.model_validate(card, strict=True)
