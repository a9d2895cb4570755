import json
import select
import socket
import time
from typing import Any

import httpx2
import pytest
from emulator_client import MODEL, TERMINAL, Client, Json, list_types, parse_events, read_live_events, request, text_of

from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.server import RunningServer, run_emulator

ENDS = ("response.completed", "response.failed", "response.incomplete")


def raw_exchange(server: RunningServer, body: Json) -> bytes:
    """Send a create request over a bare socket and read until the server closes."""
    host, port = server.url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = f"POST /v1/responses HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer k\r\nconnection: close\r\n"
    head += f"content-length: {len(content)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + content)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


def count_accepted(server: RunningServer) -> int:
    return server.emulator.counters()["accepted"]


def wait_until_accepted(server: RunningServer) -> None:
    """Wait until one request is accepted: its client may have gone before it was read."""
    until = time.monotonic() + 60
    while count_accepted(server) != 1:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("status", "type", "code"),
    [
        (401, "invalid_request_error", "invalid_api_key"),
        (403, "invalid_request_error", "unsupported_country_region_territory"),
        (404, "invalid_request_error", None),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (500, "server_error", None),
        (502, "server_error", None),
        (503, "service_unavailable_error", "server_is_overloaded"),
        (418, "server_error", None),
    ],
)
def test_status_refuses_one_request_with_its_usual_error(
    client: Client, server: RunningServer, status: int, type: str, code: str | None
) -> None:
    server.queue_fault(status=status)
    answer = client.post(background=True)
    assert (answer.status_code, answer.json()["error"]["type"], answer.json()["error"]["code"]) == (status, type, code)
    assert answer.headers["x-request-id"].startswith("req_")
    assert count_accepted(server) == 0
    assert client.post(background=True).status_code == 200


def test_refusal_can_have_its_own_body_and_headers(client: Client, server: RunningServer) -> None:
    quota = {
        "error": {"message": "No money.", "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}
    }
    headers = {"Retry-After": "3", "retry-after-ms": "3000", "x-should-retry": "false"}
    server.queue_fault(status=429, body=quota, headers=headers)
    answer = client.post()
    assert {name: answer.headers[name] for name in headers} == headers


@pytest.mark.parametrize(
    ("status", "sent"), [(502, "text/html"), (503, "text/html"), (200, "text/html; charset=utf-8")]
)
def test_proxy_may_answer_html(client: Client, server: RunningServer, status: int, sent: str) -> None:
    server.queue_fault(status=status, body="<html>Bad gateway</html>", content_type=sent)
    answer = client.post(background=True)
    assert (answer.status_code, answer.headers["content-type"], answer.text) == (
        status,
        sent,
        "<html>Bad gateway</html>",
    )
    assert count_accepted(server) == 0


def test_bare_202_only_changes_the_status(client: Client, server: RunningServer) -> None:
    server.queue_fault(status=202)
    answer = client.post(background=True)
    assert (answer.status_code, answer.json()["status"], count_accepted(server)) == (202, "queued", 1)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [500, 502, 503])
def test_error_after_acceptance_leaves_a_running_response(
    client: Client, server: RunningServer, status: int, stream: bool
) -> None:
    server.queue_fault(status=status, after_accept=True)
    assert client.post(background=True, stream=stream).status_code == status
    [run] = [entry for entry in server.emulator.log() if entry["entry"] == "response"]
    assert client.wait_until_ended(run["id"])["status"] == "completed"


def test_after_acceptance_even_an_error_is_replaced(client: Client, server: RunningServer) -> None:
    server.queue_fault(status=500, after_accept=True, on="retrieve")
    assert client.get("resp_x").status_code == 500


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ("detail", {"detail": "Response with id 'resp_x' not found."}),
        ("text", "Response with id 'resp_x' not found."),
        (
            "integer_code",
            {
                "error": {
                    "message": "Response with id 'resp_x' not found.",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": 404,
                }
            },
        ),
    ],
)
def test_errors_take_the_shapes_of_other_servers(client: Client, server: RunningServer, shape: str, body: Any) -> None:
    server.queue_fault(error_body=shape, on="retrieve")
    answer = client.get("resp_x")
    assert (answer.text if isinstance(body, str) else answer.json()) == body


def test_servers_without_background_name_the_parameter(client: Client, server: RunningServer) -> None:
    server.queue_fault(refuse_background=True, times=-1)
    error = client.post(background=True).json()["error"]
    assert (error["param"], error["code"]) == ("background", "unsupported_parameter")
    assert client.post(stream=True).status_code == 200


def test_servers_without_background_streams_name_the_stream(client: Client, server: RunningServer) -> None:
    server.queue_fault(refuse_background_stream=True, times=-1)
    assert client.post(background=True, stream=True).json()["error"]["param"] == "stream"
    assert client.post(background=True).status_code == 200


def test_json_may_answer_a_request_for_a_stream(client: Client, server: RunningServer) -> None:
    server.queue_fault(json_instead_of_stream=True)
    created = client.post(background=True, stream=True)
    assert (created.headers["content-type"], created.json()["status"]) == ("application/json", "queued")
    server.queue_fault(json_instead_of_stream=True, on="stream")
    assert client.get(created.json()["id"], stream="true").json()["object"] == "response"


def test_foreground_run_answered_in_json_has_ended(client: Client, server: RunningServer) -> None:
    server.queue_fault(json_instead_of_stream=True)
    assert client.post(stream=True).json()["status"] == "completed"


def test_delayed_answer_has_been_accepted(client: Client, server: RunningServer) -> None:
    server.queue_fault(delay_s=6000)  # a minute
    with pytest.raises(httpx2.ReadTimeout):
        client.http.post("/responses", json=request(background=True), timeout=0.1)
    wait_until_accepted(server)
    server.queue_fault(delay_s=20)
    assert client.create(emulate={"duration_s": 1})["status"] == "queued"


def test_black_hole_accepts_and_never_answers(client: Client, server: RunningServer) -> None:
    server.queue_fault(hang=True)
    with pytest.raises(httpx2.ReadTimeout):
        client.http.post("/responses", json=request(background=True, stream=True), timeout=0.1)
    wait_until_accepted(server)


@pytest.mark.parametrize(("drop", "runs"), [("before_headers", 0), ("after_accept", 1)])
@pytest.mark.parametrize("stream", [True, False])
def test_dropped_connection_carries_no_byte(
    client: Client, server: RunningServer, drop: str, runs: int, stream: bool
) -> None:
    server.queue_fault(drop=drop)
    with pytest.raises(httpx2.RemoteProtocolError):
        client.post(background=True, stream=stream)
    assert count_accepted(server) == runs
    server.queue_fault(drop=drop)
    assert raw_exchange(server, request(background=True, stream=stream)) == b""


def test_connection_dropped_before_created_has_sent_its_headers(client: Client, server: RunningServer) -> None:
    server.queue_fault(drop="before_created")
    received = raw_exchange(server, request(background=True, stream=True))
    assert received.startswith(b"HTTP/1.1 200") and received.endswith(b"\r\n\r\n") and b"data:" not in received
    server.queue_fault(drop="before_created")
    with client.streaming() as answer, pytest.raises(httpx2.RemoteProtocolError):
        answer.read()
    assert count_accepted(server) == 2


def test_connection_dropped_after_some_events_has_sent_them_in_full(client: Client, server: RunningServer) -> None:
    server.queue_fault(drop={"after_events": 4})
    seen: list[Json] = []
    with client.streaming() as answer, pytest.raises(httpx2.RemoteProtocolError):
        for event in read_live_events(answer):
            seen.append(event)  # noqa: PERF402
    assert len(seen) == 4
    response_id = seen[0]["response"]["id"]
    assert list_types(client.resume(response_id, starting_after=3))[-1] == "response.completed"


def test_get_can_be_dropped_too(client: Client, server: RunningServer) -> None:
    response_id = client.create()["id"]
    server.queue_fault(drop="before_headers", on="retrieve")
    with pytest.raises(httpx2.RemoteProtocolError):
        client.get(response_id)
    assert client.get(response_id).status_code == 200


def test_stream_may_stay_open_after_its_terminal_event(client: Client, server: RunningServer) -> None:
    server.queue_fault(drop="after_terminal_open")
    with client.streaming() as answer:
        events = read_live_events(answer)
        while next(events)["type"] != "response.completed":
            pass
        assert not has_more(answer)


def has_more(answer: httpx2.Response) -> bool:
    """Return True if more comes, or the end of the stream."""
    connection = answer.extensions["network_stream"].get_extra_info("socket")
    return bool(select.select([connection], [], [], 0.2)[0])


def test_stream_of_a_cancelled_response_may_never_close(client: Client, server: RunningServer) -> None:
    response_id = client.first_event(emulate={"end": "never"})["response"]["id"]
    client.cancel(response_id)
    server.queue_fault(drop="after_terminal_open", on="stream")
    with pytest.raises(httpx2.ReadTimeout):
        client.http.get(f"/responses/{response_id}?stream=true&starting_after=9999", timeout=0.1)


def test_stream_may_end_without_a_terminal_event(client: Client, server: RunningServer) -> None:
    server.queue_fault(eof_without_terminal=True)
    events = client.stream()
    assert not set(ENDS) & set(list_types(events))
    assert client.wait_until_ended(events[0]["response"]["id"])["status"] == "completed"
    server.queue_fault(eof_without_terminal=True, drop={"after_events": 2})
    assert len(client.stream()) == 2


def raw_stream(client: Client, **fields: Any) -> bytes:
    with client.streaming("hello", {"length": 60, **fields}) as answer:
        return answer.read()


@pytest.mark.parametrize(("name", "ending"), [("crlf", b"\r\n"), ("cr", b"\r")])
def test_lines_may_end_otherwise(client: Client, server: RunningServer, name: str, ending: bytes) -> None:
    server.queue_fault(**{name: True})
    raw = raw_stream(client)
    assert raw.endswith(ending * 2)
    assert raw.count(b"\n") == (raw.count(b"\r\n") if name == "crlf" else 0)
    assert list_types(parse_events(raw))[-1] == "response.completed"


def test_stream_may_begin_with_a_byte_order_mark(client: Client, server: RunningServer) -> None:
    server.queue_fault(bom=True)
    raw = raw_stream(client)
    assert raw.startswith(b"\xef\xbb\xbfevent:") and raw.count(b"\xef\xbb\xbf") == 1


def test_events_may_come_without_event_lines(client: Client, server: RunningServer) -> None:
    server.queue_fault(no_event_lines=True)
    raw = raw_stream(client)
    assert b"event:" not in raw and list_types(parse_events(raw))[-1] == "response.completed"


def test_comments_and_events_without_data_may_stand_between(client: Client, server: RunningServer) -> None:
    server.queue_fault(comments=True)
    raw = raw_stream(client)
    events = parse_events(raw)
    assert raw.count(b": ping\n\nevent: ping\n\nevent: response.") == len(events)
    assert list_types(events)[-1] == "response.completed"


def test_done_marker_may_follow(client: Client, server: RunningServer) -> None:
    server.queue_fault(done_marker=True)
    assert raw_stream(client).endswith(b"data: [DONE]\n\n")


def test_stream_may_come_in_small_pieces(client: Client, server: RunningServer) -> None:
    server.queue_fault(split_bytes=7)
    received = raw_exchange(server, request("naïve 東京", {"length": 60}, background=True, stream=True))
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    sizes = [len(piece) for piece in body.split(b"\r\n")[1::2]]
    assert sizes and max(sizes) <= 7


def test_sequence_numbers_may_be_missing(client: Client, server: RunningServer) -> None:
    server.queue_fault(no_sequence_numbers=True)
    assert not any("sequence_number" in event for event in client.stream())


def test_sequence_numbers_may_have_gaps_that_resuming_respects(client: Client, server: RunningServer) -> None:
    server.queue_fault(sequence_gaps=True)
    events = client.stream(stream_options={"include_obfuscation": False})
    numbers = [event["sequence_number"] for event in events]
    assert numbers == list(range(0, 3 * len(events), 3))
    assert client.resume(events[0]["response"]["id"], starting_after=7, include_obfuscation="false") == events[3:]


def test_events_may_be_duplicated(client: Client, server: RunningServer) -> None:
    server.queue_fault(duplicate_events=True)
    events = client.stream()
    assert events[::2] == events[1::2] and len(events) > 10
    server.queue_fault(duplicate_events=True, on="stream")
    again = client.resume(events[0]["response"]["id"], starting_after=5)
    assert [event["sequence_number"] for event in again[:4]] == [5, 5, 6, 6]


def test_events_and_items_may_be_of_unknown_types(client: Client, server: RunningServer) -> None:
    server.queue_fault(unknown_events=True)
    events = client.stream()
    assert "response.hologram_call.rendering" in list_types(events)
    assert "hologram_call" in list_types(events[-1]["response"]["output"])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_created_may_come_late_and_after_keepalives(client: Client, server: RunningServer) -> None:
    server.queue_fault(delay_created_s=10, keepalives=3)
    events = client.stream()
    assert list_types(events)[:4] == [*["keepalive"] * 3, "response.created"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert set(events[0]) == {"type", "sequence_number"}
    server.queue_fault(delay_created_s=10)
    assert client.create()["status"] == "queued"


@pytest.mark.parametrize("shape", ["nested", "flat"])
@pytest.mark.parametrize("end", ["failed", "completed"])
def test_error_event_may_come_before_the_end(client: Client, server: RunningServer, shape: str, end: str) -> None:
    server.queue_fault(error_event=shape)
    events = client.stream(emulate={"end": end, "error_code": "server_error", "error_message": "Oh."})
    assert list_types(events)[-2:] == ["error", f"response.{end}"]
    error = events[-2]
    found = error["error"] if shape == "nested" else error
    assert (found["code"], found["message"], found["param"]) == ("server_error", "Oh.", None)
    assert ("error" in error) == (shape == "nested") and error["sequence_number"] == events[-1]["sequence_number"] - 1


def test_error_event_may_be_the_last(client: Client, server: RunningServer) -> None:
    server.queue_fault(error_event="nested", eof_without_terminal=True)
    events = client.stream(emulate={"end": "failed"})
    assert list_types(events)[-1] == "error"
    assert client.wait_until_ended(events[0]["response"]["id"])["status"] == "failed"


def test_response_may_be_stuck_in_the_queue(client: Client, server: RunningServer) -> None:
    server.queue_fault(stuck_queued=True)
    with client.streaming(emulate={"queued_s": 0, "duration_s": 0}) as answer:
        events = read_live_events(answer)
        response_id = next(events)["response"]["id"]
        assert [next(events)["type"] for _ in range(2)] == ["response.queued", "keepalive"]
    assert client.get(response_id).json()["status"] == "queued"
    assert client.cancel(response_id).json()["status"] == "cancelled"


@pytest.mark.parametrize("stream", [True, False])
def test_server_may_ignore_background(client: Client, server: RunningServer, stream: bool) -> None:
    server.queue_fault(ignore_background=True, times=2)
    answer = client.post(background=True, stream=stream)
    body = parse_events(answer.content)[0]["response"] if stream else answer.json()
    assert body["background"] is False
    dead = client.first_event(emulate={"end": "never"})["response"]["id"]
    client.wait_until(dead, lambda body: body.get("error") is not None)


def test_run_may_be_complete_at_once(client: Client, server: RunningServer) -> None:
    server.queue_fault(complete_at_once=True)
    assert client.create()["status"] == "completed"


def test_new_response_may_be_unknown_for_a_while(client: Client, server: RunningServer) -> None:
    server.queue_fault(not_found_for_s=300)
    response_id = client.first_event()["response"]["id"]
    lagging = [client.get(response_id), client.cancel(response_id), client.get(response_id, stream="true")]
    assert {answer.status_code for answer in lagging} == {404}
    error = client.post(previous_response_id=response_id).json()["error"]
    assert error["code"] == "previous_response_not_found"
    assert client.wait_until(response_id, lambda body: "status" in body)


def test_ended_response_may_be_unknown_for_a_while(client: Client, server: RunningServer) -> None:
    server.queue_fault(not_found_after_end_s=300)
    response_id = client.stream()[0]["response"]["id"]
    assert client.get(response_id).status_code == 404
    assert client.wait_until(response_id, lambda body: "status" in body)["status"] == "completed"


def test_every_get_may_give_another_id(client: Client, server: RunningServer) -> None:
    server.queue_fault(id_changes=True)
    response_id = client.create()["id"]
    ids = {response_id, *[client.get(response_id).json()["id"] for _ in range(2)]}
    assert sorted(len(id) for id in ids) == [len(response_id), 421, 421]


def test_completed_response_may_be_empty_at_first(client: Client, server: RunningServer) -> None:
    server.queue_fault(completed_empty=2)
    response_id = client.create()["id"]
    first = client.wait_until_ended(response_id)
    assert (first["status"], first["output"], first["usage"]) == ("completed", [], None)
    assert client.get(response_id).json()["output"] == []
    last = client.get(response_id).json()
    assert last["usage"] and text_of(last)


def test_cancelled_response_may_turn_out_completed(client: Client, server: RunningServer) -> None:
    server.queue_fault(complete_after_cancel=True)
    response_id = client.create(emulate={"duration_s": 1000})["id"]
    assert client.cancel(response_id).json()["status"] == "cancelled"
    body = client.get(response_id).json()
    assert body["status"] == "completed" and len(text_of(body)) == 600


def test_cancel_may_come_too_late(client: Client, server: RunningServer) -> None:
    server.queue_fault(late_complete=True, on="cancel")
    response_id = client.create(emulate={"duration_s": 20, "queued_s": 0})["id"]
    client.wait_until(response_id, lambda body: body["status"] == "in_progress")
    assert client.cancel(response_id).json()["status"] == "in_progress"
    assert client.wait_until_ended(response_id)["status"] == "completed"


@pytest.mark.parametrize("status", [200, 400, 409])
def test_cancel_of_a_finished_response_may_be_answered_differently(
    client: Client, server: RunningServer, status: int
) -> None:
    server.queue_fault(cancel_status=status)
    response_id = client.create()["id"]
    client.wait_until_ended(response_id)
    answer = client.cancel(response_id)
    assert answer.status_code == status
    assert (answer.json()["status"] == "completed") if status == 200 else answer.json()["error"]


def test_cancel_may_clear_the_output(client: Client, server: RunningServer) -> None:
    server.queue_fault(cancel_clears_output=True)
    response_id = client.create(emulate={"duration_s": 1000, "reasoning": 0, "queued_s": 0})["id"]
    assert client.cancel(response_id).json()["output"] == []


def test_cancelled_stream_may_end_with_a_failed_event(client: Client, server: RunningServer) -> None:
    server.queue_fault(failed_event_on_cancel=True)
    with client.streaming(emulate={"end": "never"}) as answer:
        events = read_live_events(answer)
        client.cancel(next(events)["response"]["id"])
        *_, last = events
    assert (last["type"], last["response"]["status"]) == ("response.failed", "cancelled")


def test_get_may_suggest_the_next_poll(client: Client, server: RunningServer) -> None:
    server.queue_fault(poll_after_ms=1500)
    response_id = client.create()["id"]
    assert client.get(response_id).headers["openai-poll-after-ms"] == "1500"
    assert client.get(response_id).headers["openai-poll-after-ms"] == "1500"
    assert "openai-poll-after-ms" not in client.get(client.create()["id"]).headers


def test_bodies_may_lack_required_fields(client: Client, server: RunningServer) -> None:
    server.queue_fault(missing_fields=True)
    events = client.stream()
    body = client.get(events[0]["response"]["id"]).json()
    assert events[0]["response"]["output"] is None
    for response in (events[0]["response"], body):
        assert not {"object", "tools", "tool_choice", "created_at"} & set(response)
    assert body["status"] == "completed" and text_of(body)


def test_running_response_may_have_an_unknown_status(client: Client, server: RunningServer) -> None:
    server.queue_fault(unknown_status="warming_up")
    response_id = client.create(emulate={"duration_s": 300})["id"]
    assert client.get(response_id).json()["status"] == "warming_up"
    assert client.wait_until(response_id, lambda body: body["status"] in TERMINAL)["status"] == "completed"


def test_request_carries_faults_for_its_own_response(client: Client) -> None:
    faults = [{"poll_after_ms": 5}, {"on": "retrieve", "status": 500}, {"on": "cancel", "status": 503, "skip": 1}]
    created = client.create(emulate={"end": "never", "faults": faults})
    other = client.create(emulate={"end": "never"})
    assert client.get(other["id"]).status_code == 200
    assert client.get(created["id"]).status_code == 500
    assert client.get(created["id"]).headers["openai-poll-after-ms"] == "5"
    assert [client.cancel(created["id"]).status_code for _ in range(3)] == [200, 503, 200]


def test_faults_of_a_request_can_are_in_its_text(client: Client) -> None:
    assert (
        client.post('hello [emulate {"faults": [{"status": 429, "headers": {"retry-after": "1"}}]}]').status_code == 429
    )


def test_fault_can_wait_for_a_certain_request(client: Client, server: RunningServer) -> None:
    server.queue_fault(status=500, match="needle", times=2)
    server.queue_fault(status=404, on="any", match="resp_x")
    statuses = [client.post(text, background=True).status_code for text in ("hay", "needle", "hay", "needle", "needle")]
    assert statuses == [200, 500, 200, 500, 200]
    assert client.http.delete("/responses/resp_x").status_code == 404


def test_faults_are_queued_and_cleared_over_http(client: Client, server: RunningServer) -> None:
    where = f"{server.url}/_emulator/faults"
    with httpx2.Client() as admin:
        assert admin.post(where, json={"status": 500}).status_code == 200
        assert admin.post(where, json=[{"status": 502}, {"status": 503, "times": -1}]).status_code == 200
        assert [client.post().status_code for _ in range(4)] == [500, 502, 503, 503]
        assert admin.delete(where).status_code == 200
        assert client.post().status_code == 200
        wrong = admin.post(where, json={"stauts": 500})
        assert (wrong.status_code, wrong.json()["error"]["message"]) == (400, "unknown fault fields: stauts")


def test_request_whose_client_has_gone_is_not_accepted() -> None:
    with run_emulator(emulator=Emulator(100)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        with Client(server) as client:
            assert client.post().status_code == 200
            assert client.http.post("/responses", json={"model": MODEL, "input": "x"}).status_code == 200
        assert server.emulator.counters()["creates"] == 2
