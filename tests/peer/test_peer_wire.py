"""What the peer really does on the wire: the other tests against it stand on these facts."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from peer.environment import Peer, upstream

Event = dict[str, Any]

# Nothing waits longer, and the package gives up on a handler that ignores a cancel only after 10 s:
# a cancel answered within this was honoured.
TIMEOUT = 8

FOREVER = "[seconds=1000 tokens=10000]"
BEGINNING = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
]
ENDING = [
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with upstream(seconds=0.5, tokens=20) as peer:
        yield peer


@pytest.fixture
async def client(peer: Peer) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=peer.base_url, timeout=TIMEOUT, trust_env=False) as client:
        yield client


def text_of(tokens: int) -> str:
    return " ".join(f"word-{index}" for index in range(tokens))


def request(prompt: str = "", **others: Any) -> dict[str, Any]:
    return {"model": "counter", "input": prompt, "background": True, "stream": True, "store": True, **others}


@asynccontextmanager
async def events(client: httpx2.AsyncClient, method: str, url: str, **how: Any) -> AsyncGenerator[AsyncIterator[Event]]:
    async with client.stream(method, url, **how) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.aiter_lines()
        yield (json.loads(line.removeprefix("data: ")) async for line in lines if line.startswith("data: "))


async def all_events(client: httpx2.AsyncClient, method: str, url: str, **how: Any) -> list[Event]:
    async with events(client, method, url, **how) as stream:
        return [event async for event in stream]


async def start(client: httpx2.AsyncClient, prompt: str = "") -> str:
    """Start a run and hang up as soon as it has a name."""
    async with events(client, "POST", "/responses", json=request(prompt)) as stream:
        created = await anext(stream)
    return created["response"]["id"]


async def finish(client: httpx2.AsyncClient, prompt: str = "") -> list[Event]:
    return await all_events(client, "POST", "/responses", json=request(prompt))


async def retrieve(client: httpx2.AsyncClient, run: str) -> dict[str, Any]:
    return (await client.get(f"/responses/{run}")).raise_for_status().json()


async def cancel(client: httpx2.AsyncClient, run: str) -> dict[str, Any]:
    return (await client.post(f"/responses/{run}/cancel")).raise_for_status().json()


def read_refusal(answer: httpx2.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return answer.status_code, error["message"]


async def test_response_created_comes_first_and_names_a_background_run(client: httpx2.AsyncClient) -> None:
    async with events(client, "POST", "/responses", json=request(metadata={"key": "value"})) as stream:
        created = await anext(stream)
    response = created["response"]
    assert (created["type"], created["sequence_number"]) == ("response.created", 0)
    assert response["id"].startswith("caresp_")
    assert response["background"] is True
    assert response["status"] == "in_progress"
    assert (response["model"], response["metadata"]) == ("counter", {"key": "value"})
    assert response.keys().isdisjoint({"store", "usage"})


async def test_events_are_numbered_from_zero_without_a_gap_and_end_with_completed(client: httpx2.AsyncClient) -> None:
    seen = await finish(client, "[seconds=0 tokens=3]")
    assert [event["type"] for event in seen] == [*BEGINNING, *["response.output_text.delta"] * 2, *ENDING]
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert "".join(event["delta"] for event in seen if "delta" in event) == text_of(3)
    assert seen[-1]["response"]["usage"] is None


async def test_stream_is_named_events_without_a_done_marker(client: httpx2.AsyncClient) -> None:
    raw = (await client.post("/responses", json=request("[seconds=0 tokens=1]"))).text
    assert raw.startswith("event: response.created\ndata: {")
    assert "[DONE]" not in raw


async def test_run_without_a_stream_answers_in_progress_and_can_never_be_streamed(client: httpx2.AsyncClient) -> None:
    created = (await client.post("/responses", json=request(FOREVER, stream=False))).json()
    assert (created["status"], created["background"], created["output"]) == ("in_progress", True, [])
    answer = await client.get(f"/responses/{created['id']}", params={"stream": "true"})
    assert read_refusal(answer) == (
        400,
        "This response cannot be streamed because it was not created with stream=true.",
    )


async def test_running_response_is_in_progress_and_shows_none_of_its_text(client: httpx2.AsyncClient) -> None:
    run = await start(client, FOREVER)
    async with events(client, "GET", f"/responses/{run}", params={"stream": "true"}) as stream:
        [delta] = [await anext(stream) for _ in BEGINNING][-1:]
        assert delta["delta"] == "word-0"
        running = await retrieve(client, run)
    assert (running["id"], running["status"], running["background"]) == (run, "in_progress", True)
    assert [(item["status"], item["content"]) for item in running["output"]] == [("in_progress", [])]


async def test_run_outlives_the_stream_that_started_it(client: httpx2.AsyncClient) -> None:
    run = await start(client)
    seen = await all_events(client, "GET", f"/responses/{run}", params={"stream": "true"})
    assert [event["type"] for event in seen[:5]] == BEGINNING
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[-1]["type"] == "response.completed"
    finished = await retrieve(client, run)
    assert (finished["status"], finished["background"]) == ("completed", True)
    assert finished["output"][0]["content"][0]["text"] == text_of(20)
    assert "usage" not in finished


async def test_stream_resumes_after_the_number_it_is_given(client: httpx2.AsyncClient) -> None:
    run = await start(client)
    resume = {"stream": "true", "starting_after": 4}
    live = await all_events(client, "GET", f"/responses/{run}", params=resume)
    assert [event["sequence_number"] for event in live] == list(range(5, 28))
    assert "word-0" + "".join(event["delta"] for event in live if "delta" in event) == text_of(20)
    replayed = await all_events(client, "GET", f"/responses/{run}", params=resume)
    assert replayed == live


async def test_stream_resumed_after_its_end_is_empty(client: httpx2.AsyncClient) -> None:
    last = (await finish(client, "[seconds=0 tokens=1]"))[-1]
    run, beyond = last["response"]["id"], {"stream": "true", "starting_after": last["sequence_number"]}
    assert await all_events(client, "GET", f"/responses/{run}", params=beyond) == []


async def test_cancel_answers_cancelled_and_drops_the_text(client: httpx2.AsyncClient) -> None:
    run = await start(client, FOREVER)
    cancelled = await cancel(client, run)
    assert (cancelled["id"], cancelled["status"], cancelled["background"]) == (run, "cancelled", True)
    assert cancelled["output"] == []
    assert await retrieve(client, run) == cancelled
    assert await cancel(client, run) == cancelled


async def test_stream_of_a_cancelled_run_ends_in_a_failed_event_that_says_cancelled(
    client: httpx2.AsyncClient,
) -> None:
    async with events(client, "POST", "/responses", json=request(FOREVER)) as stream:
        created = await anext(stream)
        await cancel(client, created["response"]["id"])
        last = [event async for event in stream][-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "cancelled"
    assert last["response"]["output"] == []
    assert "error" not in last["response"]


async def test_cancelled_run_can_no_longer_be_streamed(client: httpx2.AsyncClient) -> None:
    run = await start(client, FOREVER)
    await cancel(client, run)
    answer = await client.get(f"/responses/{run}", params={"stream": "true", "starting_after": 0})
    assert read_refusal(answer) == (
        400,
        "This response cannot be streamed because it was not created with stream=true or the stream TTL has expired.",
    )


async def test_completed_run_refuses_to_be_cancelled_and_stays_completed(client: httpx2.AsyncClient) -> None:
    run = (await finish(client, "[seconds=0 tokens=1]"))[-1]["response"]["id"]
    answer = await client.post(f"/responses/{run}/cancel")
    assert read_refusal(answer) == (400, "Cannot cancel a completed response.")
    assert (await retrieve(client, run))["status"] == "completed"


async def test_unknown_id_is_not_found(client: httpx2.AsyncClient) -> None:
    known = await start(client, FOREVER)
    unknown = known[:-8] + "0" * 8
    for method, path in [("GET", ""), ("GET", "?stream=true"), ("POST", "/cancel"), ("DELETE", "")]:
        answer = await client.request(method, f"/responses/{unknown}{path}")
        assert read_refusal(answer) == (404, f"Response with id '{unknown}' not found.")


async def test_id_of_another_make_is_malformed_rather_than_not_found(client: httpx2.AsyncClient) -> None:
    for method, path in [("GET", ""), ("GET", "?stream=true"), ("POST", "/cancel"), ("DELETE", "")]:
        answer = await client.request(method, f"/responses/resp_1{path}")
        assert read_refusal(answer) == (400, "Malformed identifier.")


async def test_run_can_be_deleted_only_once_it_has_ended(client: httpx2.AsyncClient) -> None:
    run = await start(client, FOREVER)
    assert read_refusal(await client.delete(f"/responses/{run}")) == (400, "Cannot delete an in-flight response.")
    await cancel(client, run)
    deleted = (await client.delete(f"/responses/{run}")).json()
    assert deleted == {"id": run, "object": "response", "deleted": True}
    assert (await client.get(f"/responses/{run}")).status_code == 404


async def test_background_needs_store(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/responses", json=request(store=False))
    assert read_refusal(answer) == (400, "background=true requires store=true")


async def test_same_request_id_twice_is_two_runs_and_counted_twice(peer: Peer, client: httpx2.AsyncClient) -> None:
    before = peer.counts()["requests"].get("POST create", 0)
    again = {"json": request("[seconds=0 tokens=1]"), "headers": {"X-Client-Request-Id": "twice"}}
    runs = [(await all_events(client, "POST", "/responses", **again))[0]["response"]["id"] for _ in range(2)]
    assert len(set(runs)) == 2
    assert peer.counts()["creates"]["twice"] == 2
    assert peer.counts()["requests"]["POST create"] == before + 2


async def test_each_kind_of_request_is_counted_apart() -> None:
    with upstream(seconds=0, tokens=1) as fresh:
        async with httpx2.AsyncClient(base_url=fresh.base_url, timeout=TIMEOUT, trust_env=False) as client:
            run = (await finish(client))[0]["response"]["id"]
            await client.get(f"/responses/{run}")
            await client.get(f"/responses/{run}", params={"stream": "true"})
            await client.post(f"/responses/{run}/cancel")
            await client.delete(f"/responses/{run}")
        requests = {"POST create", "GET retrieve", "GET stream", "POST cancel", "DELETE delete"}
        assert fresh.counts() == {"requests": dict.fromkeys(requests, 1), "creates": {"": 1}}
