"""The emulator refuses invalid bodies, unsupported models and unknown ids like the API."""

import json
from typing import Any

import openai
import pytest
from emulator_client import MODEL, Client, Json
from openai import AsyncOpenAI
from openai.types.conversations import ConversationItemList

from agent_jobs.emulator.server import RunningServer


def refusal(client: Client, **fields: Any) -> Json:
    answer = client.http.post("/responses", json={"model": MODEL, "input": "x", **fields})
    assert answer.status_code in (400, 404), answer.text
    return {"status": answer.status_code, **answer.json()["error"]}


def make_strict(schema: Json) -> Json:
    return {"format": {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}}


def closed_object(**properties: Json) -> Json:
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


BAD_SCHEMAS: dict[str, tuple[Json, str]] = {
    "open": ({"type": "object", "properties": {}}, "In context=(), 'additionalProperties' is required to be supplied"),
    "optional": (closed_object(a={"type": "string"}) | {"required": []}, "In context=(), 'required' is required"),
    "nested": (
        closed_object(list={"type": "array", "items": {"type": "object"}}),
        "In context=('properties', 'list', 'items'), 'additionalProperties'",
    ),
    "root": (
        {"type": "array", "items": {}},
        "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'",
    ),
    "untyped": (closed_object(a={}), "In context=('properties', 'a'), schema must have a 'type' key."),
    "allOf": (closed_object(a={"type": "object", "allOf": []}), "'allOf' is not permitted"),
    "no items": (closed_object(a={"type": "array"}), "array schema missing items"),
    "nowhere": (closed_object(a={"$ref": "#/$defs/b"}), "reference to component '#/$defs/b' which was not found"),
}


@pytest.mark.parametrize(("schema", "message"), BAD_SCHEMAS.values(), ids=BAD_SCHEMAS)
def test_schema_that_breaks_the_strict_rules_is_refused(client: Client, schema: Json, message: str) -> None:
    error = refusal(client, text=make_strict(schema))
    assert (error["status"], error["code"], error["param"]) == (400, "invalid_json_schema", "text.format.schema")
    assert error["message"].startswith("Invalid schema for response_format 'thing': ") and message in error["message"]
    tool = {"type": "function", "name": "f", "parameters": schema, "strict": True}
    error = refusal(client, tools=[tool])
    assert (error["code"], error["param"]) == ("invalid_function_parameters", "tools[0].parameters")


MCP: Json = {"type": "mcp", "server_label": "docs"}
BODIES: dict[str, tuple[Json, str, str | None]] = {
    "include": ({"include": ["reasoning.secrets"]}, "include[0]", "invalid_value"),
    "format": ({"text": {"format": "json"}}, "text.format", "invalid_type"),
    "format type": ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
    "no schema": (
        {"text": {"format": {"type": "json_schema", "name": "a"}}},
        "text.format.schema",
        "missing_required_parameter",
    ),
    "name": (
        {"text": {"format": {"type": "json_schema", "name": "a b", "schema": {"type": "object"}}}},
        "text.format.name",
        "invalid_value",
    ),
    "container": ({"tools": [{"type": "code_interpreter"}]}, "tools[0].container", "missing_required_parameter"),
    "label": ({"tools": [{"type": "mcp"}]}, "tools[0].server_label", "missing_required_parameter"),
    "server": ({"tools": [MCP]}, "tools[0]", "missing_required_parameter"),
}


@pytest.mark.parametrize(("fields", "param", "code"), BODIES.values(), ids=BODIES)
def test_body_is_refused_at_the_place_that_is_wrong(client: Client, fields: Json, param: str, code: str | None) -> None:
    error = refusal(client, **fields)
    assert (error["status"], error["param"], error["code"]) == (400, param, code)


def test_models_refuse_unsupported_settings(client: Client) -> None:
    def settings(**fields: Any) -> tuple[Any, ...]:
        error = refusal(client, **fields)
        return error["status"], error["param"], error["code"]

    assert settings(reasoning={"effort": "none"}) == (400, "reasoning.effort", "unsupported_value")
    assert settings(model="gpt-5", reasoning={"effort": "max"}) == (400, "reasoning.effort", "unsupported_value")
    assert settings(top_p=0.5) == (400, "top_p", "unsupported_parameter")
    assert settings(model="gpt-6-luna", temperature=1) == (400, "temperature", "unsupported_parameter")
    assert settings(model="gpt-9") == (400, "model", "model_not_found")
    assert settings(model="o3-deep-research") == (404, None, "model_not_found")
    body = {"model": "gpt-6-luna", "input": "x", "temperature": 1, "reasoning": {"effort": "none"}}
    assert client.http.post("/responses", json=body).status_code == 200
    assert "o3-deep-research" not in client.http.get("/models").text
    assert client.http.get("/models/o3-deep-research").status_code == 404


def test_reasoning_item_needs_its_following_item(client: Client) -> None:
    asked: Json = {"role": "user", "content": "hi"}
    thought, said = client.wait_until_ended(client.create()["id"])["output"]

    def outcome(*given: Json) -> Any:
        answer = client.http.post("/responses", json={"model": MODEL, "input": list(given)})
        return answer.json().get("error") or answer.status_code

    assert outcome(asked, thought, said, asked) == 200
    assert outcome(asked, {"type": "item_reference", "id": thought["id"]}, said, asked) == 200
    for given in ([asked, thought], [thought, asked]):
        assert outcome(*given) == {
            "message": f"Item '{thought['id']}' of type 'reasoning' was provided without its required following item.",
            "type": "invalid_request_error",
            "param": "input",
            "code": None,
        }


def test_items_that_were_not_stored_are_not_found(client: Client) -> None:
    include = ["reasoning.encrypted_content"]
    thought, said = client.post(store=False, include=include).json()["output"]
    assert refusal(client, input=[thought | {"encrypted_content": None}, said]) == {
        "status": 404,
        "message": f"Item with id '{thought['id']}' not found. Items are not persisted when `store` is set to false. "
        "Try again with `store` set to true, or remove this item from your input.",
        "type": "invalid_request_error",
        "param": "input",
        "code": None,
    }
    assert refusal(client, input=[{"type": "item_reference", "id": "msg_x"}])["status"] == 404
    assert client.http.post("/responses", json={"model": MODEL, "input": [thought, said]}).status_code == 200


def test_forget_deletes_responses_conversations_and_containers(client: Client, server: RunningServer) -> None:
    def forget(**ids: str) -> int:
        return client.http.post(f"{server.url}/_emulator/forget", json=ids).status_code

    response = client.wait_until_ended(client.create()["id"])
    assert forget(response_id=response["id"]) == 200
    assert client.get(response["id"]).status_code == 404
    error = refusal(client, previous_response_id=response["id"])
    assert (error["status"], error["param"]) == (400, "previous_response_id")
    assert error["code"] == "previous_response_not_found"
    assert forget(response_id=response["id"]) == 404
    conversation = client.http.post("/conversations", json={}).json()
    server.forget(conversation_id=conversation["id"])
    assert refusal(client, conversation=conversation["id"])["status"] == 404
    assert forget(conversation_id=conversation["id"]) == forget(container_id="cntr_x") == 404
    assert forget(job="x") == 400
    assert response["id"] in {entry.get("id") for entry in server.emulator.log()}


async def test_conversation_items_can_be_read_and_deleted(sdk: AsyncOpenAI) -> None:
    conversation = await sdk.conversations.create(metadata={"topic": "a"})
    script = {"emulate": json.dumps({"searches": 1, "length": 40})}
    await sdk.responses.create(model=MODEL, input="first", metadata=script, conversation=conversation.id)
    page = await sdk.conversations.items.list(conversation.id, order="asc")
    ConversationItemList.model_validate({"object": "list", **page.to_dict()})
    kinds = [item.type for item in page.data]
    assert kinds == ["message", "reasoning", "web_search_call", "message"]
    first = page.data[0]
    assert first.id is not None
    assert (await sdk.conversations.items.retrieve(first.id, conversation_id=conversation.id)) == first
    await sdk.conversations.items.delete(first.id, conversation_id=conversation.id)
    with pytest.raises(openai.NotFoundError):
        await sdk.conversations.items.retrieve(first.id, conversation_id=conversation.id)
    assert (await sdk.conversations.update(conversation.id, metadata={"topic": "b"})).metadata == {"topic": "b"}
    many: Any = [{"role": "user", "content": "x"}] * 21
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.conversations.items.create(conversation.id, items=many)
    assert caught.value.param == "items"
