import json
import time
from typing import Any

import anyio
import httpx2
import pytest
from emulator_client import MODEL, Client, Json, list_types, parse_events, read_live_events, text_of

from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.server import RunningServer, run_emulator, serve

CREATED = ["response.created", "response.queued", "response.in_progress"]


def error_of(answer: httpx2.Response) -> Json:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return {"status": answer.status_code, **error}


def test_background_create_answers_at_once_with_a_queued_response(client: Client) -> None:
    answer = client.post(background=True, store=True, metadata={"job_id": "job_1"})
    body = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert (body["status"], body["background"], body["output"], body["usage"]) == ("queued", True, [], None)
    assert body["id"].startswith("resp_") and body["metadata"] == {"job_id": "job_1"}


def test_every_answer_has_the_headers_of_openai(client: Client) -> None:
    for answer in (client.post(background=True), client.get("resp_nothere"), client.http.get("/models")):
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["openai-version"] == "2020-10-01"
        assert answer.headers["openai-processing-ms"].isdigit()
        assert answer.headers["x-ratelimit-remaining-requests"]
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["x-emulated"] == "true"


def test_stream_goes_from_created_to_one_terminal_event(client: Client) -> None:
    events = client.stream()
    assert list_types(events)[:3] == CREATED
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    statuses = [event["response"]["status"] for event in events if "response" in event]
    assert statuses == ["queued", "queued", "in_progress", "completed"]
    assert events[-1]["type"] == "response.completed"
    assert client.get(events[0]["response"]["id"]).json() == events[-1]["response"]


def test_every_frame_names_its_type_twice(client: Client) -> None:
    with client.streaming(emulate={"length": 5}) as answer:
        frames = answer.read().decode().removesuffix("\n\n").split("\n\n")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    for frame in frames:
        event, data = frame.split("\n")
        assert event.removeprefix("event: ") == json.loads(data.removeprefix("data: "))["type"]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_stream_decides_the_content_and_accept_does_not(client: Client, accept: str) -> None:
    client.http.headers["accept"] = accept
    assert client.post(background=True).headers["content-type"] == "application/json"
    answer = client.post(background=True, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    got = client.get(parse_events(answer.content)[0]["response"]["id"])
    assert got.headers["content-type"] == "application/json"


def test_foreground_run_is_never_queued(client: Client) -> None:
    events = parse_events(client.post(stream=True).content)
    assert list_types(events)[:2] == ["response.created", "response.in_progress"]
    assert {event["response"]["status"] for event in events[:2]} == {"in_progress"}
    body = client.post().json()
    assert (body["status"], body["background"]) == ("completed", False)
    assert client.get(body["id"]).json() == body


def test_background_run_continues_without_its_client(client: Client) -> None:
    created = client.first_event(emulate={"duration_s": 20})["response"]
    assert client.wait_until_ended(created["id"])["status"] == "completed"


def test_foreground_run_ends_with_its_client(client: Client) -> None:
    response_id = client.first_event(emulate={"end": "never"}, background=False)["response"]["id"]
    client.wait_until(
        response_id, lambda body: body.get("error") is not None and "not found" in body["error"]["message"]
    )


def test_resumed_stream_gives_the_events_after_a_number(client: Client) -> None:
    events = client.stream(stream_options={"include_obfuscation": False})
    response_id = events[0]["response"]["id"]
    plain = {"include_obfuscation": "false"}
    assert client.resume(response_id, **plain) == events
    assert client.resume(response_id, starting_after=0, **plain) == events[1:]
    assert client.resume(response_id, starting_after=len(events) - 1) == []
    assert client.resume(response_id, starting_after=10_000) == []


def test_resumed_stream_continues_live(client: Client) -> None:
    created = client.first_event(emulate={"duration_s": 20})["response"]
    rest = client.resume(created["id"], starting_after=0)
    assert list_types(rest)[0] == "response.queued" and list_types(rest)[-1] == "response.completed"


def test_deltas_are_obfuscated_unless_asked_not_to(client: Client) -> None:
    events = client.stream(emulate={"length": 100})
    for event in events:
        assert ("obfuscation" in event) == event["type"].endswith(".delta")
    plain = client.stream(emulate={"length": 100}, stream_options={"include_obfuscation": False})
    assert not any("obfuscation" in event for event in plain)


def test_only_background_streams_can_be_resumed(client: Client) -> None:
    def refusal(response_id: str) -> Json:
        error = error_of(client.get(response_id, stream="true"))
        assert (error["status"], error["param"], error["code"]) == (400, "stream", "invalid_request_error")
        return error["message"]

    because = "This response cannot be streamed because it was not created with"
    assert refusal(client.post().json()["id"]) == f"{because} background=true."
    assert refusal(client.create()["id"]) == f"{because} stream=true."


def test_stream_can_be_resumed_for_five_minutes_only() -> None:
    with run_emulator(time_scale=1_000_000) as server, Client(server) as client:
        response_id = client.stream()[0]["response"]["id"]
        answer = client.get(response_id, stream="true")
        while answer.status_code == 200:
            answer = client.get(response_id, stream="true")
        message = "This response can no longer be streamed because it is more than 5 minutes old"
        assert (answer.status_code, error_of(answer)["message"]) == (400, message)


def test_response_without_store_is_deleted_after_a_while() -> None:
    with run_emulator(emulator=Emulator(100, retention_s=0)) as server, Client(server) as client:
        kept, lost = client.create()["id"], client.create(store=None)["id"]
        assert client.wait_until_ended(kept)["status"] == "completed"
        client.wait_until(lost, lambda body: "error" in body and body["error"] is not None)
        assert error_of(client.get(lost))["message"] == f"Response with id '{lost}' not found."
        assert client.get(kept).status_code == 200


def test_foreground_response_that_is_not_stored_is_gone_at_once(client: Client) -> None:
    assert client.get(client.post(store=False).json()["id"]).status_code == 404
    assert client.get(client.post().json()["id"]).status_code == 200


def test_cancel_ends_a_run_and_its_stream_without_a_terminal_event(client: Client) -> None:
    with client.streaming(emulate={"duration_s": 100}) as answer:
        events = read_live_events(answer)
        response_id = next(events)["response"]["id"]
        seen = [next(events) for _ in range(15)]
        cancelled = client.cancel(response_id)
        seen += list(events)
    assert cancelled.status_code == 200 and cancelled.json()["status"] == "cancelled"
    assert cancelled.json()["usage"] is None and cancelled.json()["completed_at"] is None
    assert not {"response.completed", "response.failed", "response.incomplete"} & set(list_types(seen))
    assert client.get(response_id).json() == client.cancel(response_id).json() == cancelled.json()
    deltas = "".join(event["delta"] for event in seen if event["type"] == "response.output_text.delta")
    assert text_of(cancelled.json()) == deltas != ""
    assert list_types(client.resume(response_id))[-1] == list_types(seen)[-1]


def test_queued_response_can_be_cancelled(client: Client) -> None:
    created = client.create(emulate={"queued_s": 1000})
    assert client.cancel(created["id"]).json() == created | {"status": "cancelled"}


@pytest.mark.parametrize(("end", "status"), [("completed",) * 2, ("failed",) * 2, ("incomplete",) * 2])
def test_ended_response_cannot_be_cancelled(client: Client, end: str, status: str) -> None:
    response_id = client.create(emulate={"end": end})["id"]
    client.wait_until_ended(response_id)
    assert error_of(client.cancel(response_id)) == {
        "status": 400,
        "message": f"Cannot cancel a {status} response.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def test_foreground_response_cannot_be_cancelled(client: Client) -> None:
    error = error_of(client.cancel(client.post().json()["id"]))
    assert (error["status"], error["message"]) == (400, "Cannot cancel a synchronous response.")


def test_deleted_response_is_gone_everywhere(client: Client) -> None:
    with client.streaming(emulate={"end": "never"}) as answer:
        events = read_live_events(answer)
        response_id = next(events)["response"]["id"]
        deleted = client.http.delete(f"/responses/{response_id}")
        assert "response.completed" not in list_types(events)
    assert deleted.json() == {"id": response_id, "object": "response", "deleted": True}
    path = f"/responses/{response_id}"
    gone = [
        client.get(response_id),
        client.get(response_id, stream="true"),
        client.cancel(response_id),
        client.http.delete(path),
        client.http.get(f"{path}/input_items"),
    ]
    assert {answer.status_code for answer in gone} == {404}
    assert {error_of(answer)["message"] for answer in gone} == {f"Response with id '{response_id}' not found."}


def test_input_items_come_in_pages_without_the_directive(client: Client) -> None:
    response_id = client.create("question [emulate {}]")["id"]
    path = f"/responses/{response_id}/input_items"
    page = client.http.get(path).json()
    assert page["data"][0]["content"] == [{"type": "input_text", "text": "question"}]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, *[page["data"][0]["id"]] * 2)
    assert error_of(client.http.get(path, params={"limit": 0}))["code"] == "integer_below_min_value"
    assert error_of(client.http.get(path, params={"limit": 101}))["code"] == "integer_above_max_value"
    assert error_of(client.http.get(path, params={"limit": "x"}))["code"] == "invalid_type"
    assert error_of(client.http.get(path, params={"order": "up"}))["code"] == "invalid_value"
    assert error_of(client.http.get(path, params={"after": "msg_x"}))["param"] == "after"


def test_both_prefixes_and_an_api_version_are_served(server: RunningServer) -> None:
    with httpx2.Client(base_url=server.url, headers={"api-key": "k"}, params={"api-version": "preview"}) as http:
        created = http.post("/responses", json={"model": MODEL, "input": "x", "background": True}).json()
        assert http.get(f"/v1/responses/{created['id']}").status_code == 200
        assert http.get("/models").status_code == 200


def test_unknown_path_is_an_invalid_url(client: Client) -> None:
    error = error_of(client.http.get("/nowhere"))
    assert (error["status"], error["message"]) == (404, "Invalid URL (GET /v1/nowhere)")


def test_key_is_required(server: RunningServer) -> None:
    with httpx2.Client(base_url=server.base_url) as http:
        missing = error_of(http.get("/models"))
        wrong = error_of(http.get("/models", headers={"authorization": "Bearer invalid"}))
        assert http.get("/models", headers={"authorization": "bearer anything"}).status_code == 200
    assert missing["status"] == 401 and missing["message"].startswith("You didn't provide an API key.")
    assert (wrong["status"], wrong["code"]) == (401, "invalid_api_key")


REFUSALS: list[tuple[Json, str, str | None, str | None]] = [
    ({"model": None}, "Missing required parameter: 'model'.", "model", "missing_required_parameter"),
    ({"model": "x"}, "The requested model 'x' does not exist.", "model", "model_not_found"),
    ({"bad": 1}, "Unknown parameter: 'bad'.", "bad", "unknown_parameter"),
    (
        {"max_output_tokens": "9"},
        "Invalid type for 'max_output_tokens': expected an integer, but got a string instead.",
        "max_output_tokens",
        "invalid_type",
    ),
    ({"background": 1}, "Invalid type for 'background': expected a boolean", "background", "invalid_type"),
    ({"max_tool_calls": True}, "Invalid type for 'max_tool_calls': expected an integer", None, "invalid_type"),
    ({"input": 5}, "Invalid type for 'input': expected a string or an array, but got an integer", None, None),
    ({"input": ["x"]}, "Invalid type for 'input[0]': expected an object, but got a string", None, None),
    ({"input": None}, "One of 'input' or", "input", "missing_required_parameter"),
    (
        {"max_output_tokens": 15},
        "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 15 instead.",
        "max_output_tokens",
        "integer_below_min_value",
    ),
    ({"top_logprobs": 21}, "Invalid 'top_logprobs': integer above maximum value.", None, "integer_above_max_value"),
    ({"temperature": 0.5}, "Unsupported parameter: 'temperature' is not supported", None, "unsupported_parameter"),
    ({"metadata": {str(key): "" for key in range(17)}}, "Invalid 'metadata': too many properties.", "metadata", None),
    ({"metadata": {"k" * 65: ""}}, "Invalid 'metadata': string too long.", None, "string_above_max_length"),
    ({"metadata": {"k": "v" * 513}}, "Invalid 'metadata.k': string too long.", None, "string_above_max_length"),
    ({"metadata": {"k": 1}}, "Invalid type for 'metadata.k': expected a string", "metadata.k", "invalid_type"),
    ({"metadata": {"emulate": "{"}}, "Invalid emulate directive:", None, None),
    (
        {"metadata": {"emulate": '{"faults": [{"x": 1}]}'}},
        "Invalid emulate directive: unknown fault fields: x",
        None,
        None,
    ),
    ({"safety_identifier": "s" * 129}, "Invalid 'safety_identifier': string too long.", None, None),
    (
        {"stream_options": {"include_obfuscation": False}},
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        "stream_options",
        None,
    ),
    ({"reasoning": {"effort": "extreme"}}, "Invalid value: 'extreme'. Supported values are:", "reasoning.effort", None),
    (
        {"reasoning": {"effort": "none"}},
        "Unsupported value: 'none' is not supported with the 'gpt-6.2-sol' model.",
        "reasoning.effort",
        "unsupported_value",
    ),
    ({"service_tier": "turbo"}, "Invalid value: 'turbo'.", "service_tier", "invalid_value"),
    ({"tools": [{}]}, "Missing required parameter: 'tools[0].type'.", "tools[0].type", None),
    ({"tools": ["x"]}, "Invalid type for 'tools[0]': expected an object", "tools[0]", "invalid_type"),
    ({"tools": [{"type": "magic"}]}, "Invalid value: 'magic'.", "tools[0].type", "invalid_value"),
    ({"tools": [{"type": "function"}]}, "Missing required parameter: 'tools[0].name'.", "tools[0].name", None),
    (
        {"previous_response_id": "resp_x"},
        "Previous response with id 'resp_x' not found.",
        "previous_response_id",
        "previous_response_not_found",
    ),
    (
        {"previous_response_id": "resp_x", "conversation": "conv_x"},
        "Mutually exclusive parameters.",
        "previous_response_id",
        "mutually_exclusive_parameters",
    ),
]


@pytest.mark.parametrize(("fields", "message", "param", "code"), REFUSALS, ids=[case[1][:40] for case in REFUSALS])
def test_invalid_body_is_refused_in_openais_words(
    client: Client, fields: Json, message: str, param: str | None, code: str | None
) -> None:
    error = error_of(client.http.post("/responses", json={"model": MODEL, "input": "x", **fields}))
    assert (error["status"], error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith(message)
    assert param is None or error["param"] == param
    assert code is None or error["code"] == code
    assert client.http.get("/responses/any").status_code == 404


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_body_that_is_no_json_object_is_refused(client: Client, content: bytes) -> None:
    error = error_of(client.http.post("/responses", content=content))
    assert error["message"].startswith("We could not parse the JSON body of your request.")


def test_background_without_store_is_refused_by_a_strict_server_only(client: Client) -> None:
    assert client.post(background=True, store=False).status_code == 200
    with run_emulator(emulator=Emulator(100, strict_store=True)) as server, Client(server) as strict:
        error = error_of(strict.post(background=True, store=False))
        assert (error["status"], error["param"]) == (400, "store")


def test_more_models_can_be_made_known() -> None:
    with run_emulator(emulator=Emulator(100, models=["my-deployment"])) as server, Client(server) as client:
        for model in ("my-deployment", "emulated-1"):
            body = {"model": model, "input": "x", "temperature": 0.5, "reasoning": {"effort": "none"}}
            assert client.http.post("/responses", json=body).json()["model"] == model
        assert client.http.get("/models/my-deployment").json()["id"] == "my-deployment"
        assert error_of(client.http.get("/models/x"))["code"] == "model_not_found"


def test_response_echoes_its_request_but_not_its_secrets(client: Client) -> None:
    tool = {"type": "mcp", "server_label": "docs", "server_url": "https://example.com"}
    body = client.create(
        instructions="Be brief.",
        max_output_tokens=100,
        reasoning={"effort": "high"},
        text={"verbosity": "low"},
        tools=[tool | {"authorization": "secret", "headers": {"x": "secret"}}],
        service_tier="fast",
        safety_identifier="me",
    )
    assert (body["instructions"], body["max_output_tokens"]) == ("Be brief.", 100)
    assert body["reasoning"] == {"effort": "high", "summary": None}
    assert body["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert (body["tools"], body["service_tier"], body["safety_identifier"]) == ([tool], "priority", "me")


def test_answer_says_that_it_is_emulated_and_is_as_long_as_asked(client: Client) -> None:
    for length in (0, 10, 60_000):
        body = client.wait_until_ended(client.create("What is up?", {"length": length})["id"])
        assert len(text_of(body)) == length
        assert text_of(body).startswith("This is an emulated answer to: What is up?."[:length])


def test_five_million_characters_arrive_in_full(client: Client) -> None:
    events = client.stream(emulate={"length": 5_000_000})
    deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert len(deltas) == 5_000_000 and deltas == text_of(events[-1]["response"])


def test_failed_run_is_a_200_with_an_error(client: Client) -> None:
    script = {"end": "failed", "error_code": "rate_limit_exceeded", "error_message": "Slow down."}
    events = client.stream(emulate=script)
    assert list_types(events)[-1] == "response.failed"
    answer = client.get(events[0]["response"]["id"])
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert answer.json()["error"] == {"code": "rate_limit_exceeded", "message": "Slow down."}
    assert answer.json()["output"][-1]["status"] == "incomplete" and text_of(answer.json())


def test_incomplete_run_keeps_its_text_and_gives_the_reason(client: Client) -> None:
    body = client.stream(emulate={"end": "incomplete", "reason": "content_filter"})[-1]["response"]
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert body["output"][-1]["status"] == "incomplete" and text_of(body)
    empty = client.stream(emulate={"end": "incomplete", "length": 0})[-1]["response"]
    assert [item["type"] for item in empty["output"]] == ["reasoning"]


def test_refusal_is_a_completed_run(client: Client) -> None:
    body = client.stream(emulate={"end": "refusal"})[-1]["response"]
    assert body["status"] == "completed"
    assert [part["type"] for part in body["output"][-1]["content"]] == ["refusal"]


def test_run_that_never_ends_stays_in_progress(client: Client) -> None:
    response_id = client.create(emulate={"end": "never", "duration_s": 1})["id"]
    with client.http.stream(
        "GET", f"/responses/{client.first_event(emulate={'end': 'never'})['response']['id']}?stream=true"
    ) as answer:
        for event in read_live_events(answer):
            if event["type"] == "keepalive":
                break
    assert client.get(response_id).json()["status"] == "in_progress"
    assert client.cancel(response_id).json()["status"] == "cancelled"


def test_phased_answer_has_a_commentary_and_a_final_message(client: Client) -> None:
    body = client.stream(emulate={"phase": True, "text": "Done."})[-1]["response"]
    messages = [item for item in body["output"] if item["type"] == "message"]
    assert [message["phase"] for message in messages] == ["commentary", "final_answer"]
    assert messages[1]["content"][0]["text"] == "Done."


def test_chunk_sets_the_size_of_a_delta(client: Client) -> None:
    events = client.stream(emulate={"text": "abcdefg", "chunk": 3})
    assert [event["delta"] for event in events if event["type"] == "response.output_text.delta"] == ["abc", "def", "g"]


def test_usage_can_be_overridden_or_left_out(client: Client) -> None:
    usage = client.stream(emulate={"usage": {"input_tokens": 1000, "output_tokens": 7}})[-1]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (1000, 7, 1007)
    assert client.stream(emulate={"usage": None})[-1]["response"]["usage"] is None


def test_calls_end_a_turn_and_their_outputs_begin_the_next(client: Client) -> None:
    script = {"function_calls": [{"name": "lookup", "arguments": {"q": "ü"}}, {"name": "add", "arguments": "{}"}]}
    first = client.stream(emulate=script)[-1]["response"]
    calls = [item for item in first["output"] if item["type"] == "function_call"]
    assert [(call["name"], json.loads(call["arguments"])) for call in calls] == [("lookup", {"q": "ü"}), ("add", {})]
    assert first["status"] == "completed" and text_of(first) == ""

    def answer(*calls: Json) -> httpx2.Response:
        outputs = [{"type": "function_call_output", "call_id": call["call_id"], "output": "42"} for call in calls]
        body = {"model": MODEL, "input": outputs, "previous_response_id": first["id"], "metadata": first["metadata"]}
        return client.http.post("/responses", json=body)

    missing = error_of(answer(calls[0]))
    assert (missing["status"], missing["param"]) == (400, "input")
    assert missing["message"] == f"No tool output found for function call {calls[1]['call_id']}."
    strange = error_of(answer(*calls, {"call_id": "call_x"}))
    assert strange["message"] == "No tool call found for function call output with call_id call_x."
    second = answer(*calls).json()
    assert second["previous_response_id"] == first["id"]
    assert f"{calls[0]['call_id']}: 42" in text_of(second) and calls[1]["call_id"] in text_of(second)


@pytest.mark.parametrize("link", ["previous_response_id", "conversation"])
def test_each_turn_has_a_script_of_its_own(client: Client, link: str) -> None:
    turns = [{"function_calls": [{"name": "a"}, {"name": "b"}]}, {"function_calls": [{"name": "c"}]}, {"text": "done"}]
    named = {"conversation": client.http.post("/conversations", json={}).json()["id"]} if link == "conversation" else {}
    response = client.wait_until_ended(client.create(f"go on [emulate {json.dumps({'turns': turns})}]", **named)["id"])
    called: list[list[str]] = []
    while calls := [item for item in response["output"] if item["type"] == "function_call"]:
        called.append([call["name"] for call in calls])
        outputs = [{"type": "function_call_output", "call_id": call["call_id"], "output": "1"} for call in calls]
        before = named or {"previous_response_id": response["id"]}
        body = {"model": MODEL, "input": outputs, "background": True, "store": True, **before}
        answer = client.http.post("/responses", json=body)
        assert answer.status_code == 200, answer.text
        response = client.wait_until_ended(answer.json()["id"])
    assert (called, text_of(response)) == ([["a", "b"], ["c"]], "done")


def test_approval_request_ends_a_turn(client: Client) -> None:
    script = {"mcp_approval": {"server_label": "docs", "name": "write"}}
    first = client.stream(emulate=script)[-1]["response"]
    asked = first["output"][-1]
    assert (asked["type"], asked["server_label"], asked["name"]) == ("mcp_approval_request", "docs", "write")
    reply = {"type": "mcp_approval_response", "approval_request_id": asked["id"], "approve": True}
    body = {"model": MODEL, "input": [reply], "previous_response_id": first["id"], "metadata": first["metadata"]}
    assert text_of(client.http.post("/responses", json=body).json())


def test_silence_is_filled_with_numbered_keepalives() -> None:
    with run_emulator(time_scale=1000) as server, Client(server) as client:
        events = client.stream(emulate={"duration_s": 100, "reasoning": 0, "text": "x"})
    assert list_types(events)[:5] == [*CREATED, "response.output_item.added", "response.content_part.added"]
    assert list_types(events)[5:9] == [*["keepalive"] * 3, "response.output_text.delta"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_conversation_stores_a_response_and_is_locked_meanwhile(client: Client) -> None:
    conversation = client.http.post("/conversations", json={"items": [{"role": "user", "content": "hi"}]}).json()
    where = f"/conversations/{conversation['id']}"
    named: Any = {"conversation": {"id": conversation["id"]}}
    client.wait_until_ended(client.create(emulate={"end": "failed"}, **named)["id"])
    running_id = client.create(emulate={"duration_s": 20}, **named)["id"]
    locked = error_of(client.post(**named))
    assert (locked["status"], locked["code"], locked["param"]) == (400, "conversation_locked", "conversation")
    assert client.wait_until_ended(running_id)["conversation"] == {"id": conversation["id"]}
    assert client.post("more", **named).status_code == 200
    assert client.http.post(f"{where}/items", json={"items": [{"role": "user", "content": "last"}]}).status_code == 200
    items = client.http.get(f"{where}/items", params={"order": "asc"}).json()["data"]
    assert [item.get("role", item["type"]) for item in items] == [
        "user", *["user", "reasoning", "assistant"] * 2, "user",
    ]  # fmt: skip
    assert client.http.get(where).json()["id"] == conversation["id"]
    assert client.http.delete(where).json()["deleted"]
    assert error_of(client.http.get(where))["status"] == 404
    assert error_of(client.post(**named))["message"] == f"Conversation with id '{conversation['id']}' not found."


def test_counters_and_log_show_requests_and_results(client: Client, server: RunningServer) -> None:
    client.http.headers["x-client-request-id"] = "turn-1"
    server.queue_fault(drop="before_headers")
    with pytest.raises(httpx2.RemoteProtocolError):
        client.create()
    created = client.create("hello", metadata={"job_id": "job_1"})
    ended = client.wait_until_ended(created["id"])
    counters = client.http.get(f"{server.url}/_emulator/counters").json()
    assert counters == server.emulator.counters()
    assert (counters["creates"], counters["accepted"], counters["streams"], counters["cancels"]) == (2, 1, 0, 0)
    assert (counters["creates_by_request_id"], counters["accepted_by_request_id"]) == ({"turn-1": 2}, {"turn-1": 1})
    assert counters["retrieves"] >= 1
    log = client.http.get(f"{server.url}/_emulator/log").json()
    assert log == server.emulator.log()
    dropped, accepted = log[:2]
    assert (dropped["operation"], dropped["status"], dropped["response_id"]) == ("create", None, None)
    assert (accepted["status"], accepted["response_id"], accepted["job_id"]) == (200, created["id"], "job_1")
    assert accepted["at"] <= time.time()
    result = log[-1]
    assert (result["entry"], result["id"], result["status"]) == ("response", created["id"], "completed")
    assert (result["metadata"], result["text"]) == ({"job_id": "job_1"}, text_of(ended))
    client.http.post(f"{server.url}/_emulator/reset")
    assert server.emulator.log() == [] and client.get(created["id"]).status_code == 404


def test_stopping_does_not_wait_for_open_streams() -> None:
    with run_emulator() as server:
        client = Client(server)
        body = {"model": MODEL, "input": "x", "stream": True, "metadata": {"emulate": '{"end": "never"}'}}
        opened = client.http.send(client.http.build_request("POST", "/responses", json=body), stream=True)
    with pytest.raises(httpx2.RemoteProtocolError):
        opened.read()
    client.http.close()


async def test_serve_runs_until_cancelled() -> None:
    emulator = Emulator(time_scale=100)
    with run_emulator() as taken:
        port = int(taken.url.rsplit(":", 1)[1])
        with pytest.raises(OSError):
            await serve(emulator, port=port)
    async with anyio.create_task_group() as tasks, httpx2.AsyncClient(headers={"api-key": "k"}) as http:
        tasks.start_soon(lambda: serve(emulator, port=port))
        with anyio.fail_after(60):
            while True:
                try:
                    answer = await http.get(f"http://127.0.0.1:{port}/v1/models")
                    break
                except httpx2.ConnectError:
                    await anyio.lowlevel.checkpoint()
        assert answer.status_code == 200
        tasks.cancel_scope.cancel()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{port}/v1/models")


def test_restarted_server_does_not_continue_old_runs() -> None:
    emulator = Emulator(time_scale=100)
    with run_emulator(emulator=emulator) as server, Client(server) as client:
        response_id = client.create(emulate={"duration_s": 1000})["id"]
    with run_emulator(emulator=emulator) as server, Client(server) as client:
        assert client.get(response_id).json()["status"] in ("queued", "in_progress")
        assert client.create()["status"] == "queued"
