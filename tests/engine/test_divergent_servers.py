"""Observed behaviour of compatible servers, row by row, with the file that tests each row.

 1. JSON answers a stream: here; on the POST `test_tools.py` (whatever form the answer takes)
 2. background with stream refused: `test_durable.py` (refuses the stream); `completed` at once: `test_tools.py`
 3. another id in every answer: here
 4. the shapes of a stream: `test_tools.py` (BOM, CR, CRLF, comments, no event lines, split, no numbers),
    `test_follow.py` (duplicates, gaps, an early end); an event without data and an end after no event: here
 5. a cancel of what is over, 200, 400 and 409: `test_tools.py`; `completed` after a confirmed cancel: here
 6. a response that stays `queued` or `in_progress` for ever: here
 7. unknown ids, error bodies: `test_refusals.py`, here; a model that is accepted and fails later: here
 8. fields that are missing: `test_tools.py`; fields that hold null: here
 9. `completed` with nothing in it: `test_tools.py` (a gateway that answers oddly)
10. a stream of a cancelled response that never sends nor closes: here
11. a cancelled stream that ends in `response.failed`: `test_follow.py`; at the root, 400 to a resumption: here
12. background accepted and ignored: `test_durable.py`; not mentioned: here
13. 503 with and without an error envelope: `test_tools.py`, `test_fault_table.py`
"""

import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
from anyio import to_thread
from hosts import SPEED, Host, eventually, hosting
from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.settings.settings import Settings
from agent_jobs.upstream import client

JSON = dict[str, Any]


class Divergent:
    """Middleware before the emulator that rewrites or replaces its answers.

    Args:
        events: Makes what is sent from the events that would be.
        shown: Makes the response object that is shown from the one there is, in JSON and in events.
        stream: Answers `GET ?stream=true` instead of the emulator.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        events: Callable[[bytes], bytes] | None = None,
        shown: Callable[[JSON], JSON] | None = None,
        stream: ASGIApp | None = None,
    ) -> None:
        self._app = app
        self._events = events
        self._shown = shown
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if self._stream and "stream" in QueryParams(scope["query_string"]):
            return await self._stream(scope, receive, send)

        async def rewritten(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name.lower() != b"content-length"]
                message = {**message, "headers": kept}
            elif body := message.get("body"):
                message = {**message, "body": self._rewritten(body)}
            await send(message)

        await self._app(scope, receive, rewritten)

    def _rewritten(self, body: bytes) -> bytes:
        if self._shown and body.startswith(b"{"):
            body = json.dumps(self._shown(json.loads(body))).encode()
        elif self._shown and b"data: " in body:
            body = b"\n\n".join(_event_of(event, self._shown) for event in body.split(b"\n\n"))
        return self._events(body) if self._events and b"data: " in body else body


class Late:
    """Middleware before the emulator that holds back its first answer to a GET until the test releases it."""

    def __init__(self, app: ASGIApp, *, arrived: threading.Event, let_go: threading.Event) -> None:
        self._app = app
        self._arrived = arrived
        self._let_go = let_go

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def late(message: Message) -> None:
            await to_thread.run_sync(self._let_go.wait)
            await send(message)

        first = scope["type"] == "http" and scope["method"] == "GET" and not self._arrived.is_set()
        if first:
            self._arrived.set()
        await self._app(scope, receive, late if first else send)


def _event_of(event: bytes, shown: Callable[[JSON], JSON]) -> bytes:
    head, data, body = event.partition(b"data: ")
    if not data or b'"response":' not in body:
        return event
    value = json.loads(body)
    return head + data + json.dumps({**value, "response": shown(value["response"])}).encode()


@asynccontextmanager
async def host_behind(
    settings: Settings, *, root: bool = False, **divergent: Any
) -> AsyncGenerator[tuple[Host, RunningServer]]:
    """Run a host on a server that diverges."""
    emulator = Emulator(time_scale=SPEED)
    emulator.app.add_middleware(Divergent, **divergent)
    with run_emulator(emulator=emulator) as upstream:
        async with hosting(replace(settings, base_url=upstream.url if root else upstream.base_url)) as host:
            yield host, upstream


async def check_job_completes(host: Host, upstream: RunningServer, **script: Any) -> JSON:
    """Run one job to its end, and check that one POST brings its text."""
    started = await host.start(emulate={"duration_s": 4, "text": "whole", **script})
    answer = await host.end(started["job_id"])
    assert answer["output"] == "whole", answer
    assert upstream.emulator.counters()["creates"] == 1
    return started


def status_of(upstream: RunningServer) -> str:
    [run] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
    return run["status"]


BROKEN_STREAM: JSON = {"faults": [{"drop": {"after_events": 4}}]}


def build_answering_app(status: int, kind: str, body: bytes, *, closes: bool = True) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": not closes})
        while not closes and (await receive())["type"] != "http.disconnect":
            pass

    return app


STREAM = "text/event-stream"
TOO_OLD = b'{"error": {"message": "can no longer be streamed", "param": "stream"}}'

#: Answers to a resumed stream after which the job must be polled to its end.
RESUMED: dict[str, ASGIApp] = {
    "1 JSON of a running response": build_answering_app(
        200, "application/json", b'{"id": "resp_1", "status": "in_progress"}'
    ),
    "1 JSON of nothing": build_answering_app(200, "application/json", b"null"),
    "4 an end after no event": build_answering_app(200, STREAM, b""),
    "4 events without data": build_answering_app(
        200, STREAM, b"event: response.created\n\nid: 7\n\ndata:\n\ndata: null\n\n"
    ),
    "7 a detail": build_answering_app(400, "application/json", b'{"detail": "no such stream"}'),
    "7 an integer code": build_answering_app(404, "application/json", b'{"error": {"message": "gone", "code": 404}}'),
    "7 plain text": build_answering_app(405, "text/plain", b"Method Not Allowed"),
    "10 never an event and never an end": build_answering_app(200, STREAM, b"", closes=False),
    "11 too old": build_answering_app(400, "application/json", TOO_OLD),
}


@pytest.mark.parametrize("stream", RESUMED.values(), ids=RESUMED)
async def test_result_arrives_after_any_answer_to_a_resumed_stream(
    settings: Settings, stream: ASGIApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "STREAM_IDLE_S", 0.3)
    asked: list[str] = []

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await stream(scope, receive, send)

    async with host_behind(settings, stream=noted) as (host, upstream):
        await check_job_completes(host, upstream, **(BROKEN_STREAM | {"duration_s": 20}))
    assert asked


async def test_finished_response_as_json_instead_of_a_stream_ends_the_job(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="stream", json_instead_of_stream=True, times=-1)
    async with hosting(settings) as host:
        await check_job_completes(host, upstream, **(BROKEN_STREAM | {"duration_s": 20}))
    assert upstream.emulator.counters()["streams"] >= 1


def another_id() -> Callable[[JSON], JSON]:
    numbers: Iterator[int] = iter(range(10_000))
    return lambda response: {**response, "id": f"resp_{next(numbers):0416d}"} if "id" in response else response


async def test_first_of_many_long_ids_is_retrieved(settings: Settings) -> None:
    asked: set[str] = set()
    shown, real = another_id(), dict[str, str]()

    class Renaming:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            path = scope.get("path", "")
            name = path.removeprefix("/v1/responses/").removesuffix("/cancel")
            if name != path:
                asked.add(name)
                scope = {**scope, "path": path.replace(name, real[name])}
            await self._app(scope, receive, send)

    def renamed(response: JSON) -> JSON:
        new = shown(response)
        real[str(new.get("id"))] = str(response.get("id"))
        return new

    emulator = Emulator(time_scale=SPEED)
    emulator.app.add_middleware(Renaming)
    emulator.app.add_middleware(Divergent, shown=renamed)
    with run_emulator(emulator=emulator) as upstream:
        async with hosting(replace(settings, base_url=upstream.base_url, follow=0)) as host:
            await check_job_completes(host, upstream, duration_s=30)
    [first] = asked
    assert (len(first), len(real) > 2) == (421, True)


BESIDES: dict[str, Callable[[bytes], bytes]] = {
    "event without data": lambda body: b"event: ping\n\n" + body,
    "data that is no event": lambda body: b"data: \n\n" + body + b"data: []\n\ndata: not json\n\n",
    "fields and comments": lambda body: b": alive\n\nretry: 10\n\nid\n\n" + body,
    "every event twice": lambda body: body + body,
}


@pytest.mark.parametrize("events", BESIDES.values(), ids=BESIDES)
async def test_unknown_parts_of_a_stream_are_ignored(settings: Settings, events: Callable[[bytes], bytes]) -> None:
    async with host_behind(settings, events=events) as (host, upstream):
        await check_job_completes(host, upstream, length=2000)
        assert upstream.emulator.counters()["retrieves"] == 0


async def test_confirmed_cancel_stays_if_upstream_completes_later(
    settings: Settings,
) -> None:
    saying: list[str] = ["cancelled"]

    def shown(response: JSON) -> JSON:
        return {**response, "status": saying[0]} if response.get("status") == "cancelled" else response

    async with host_behind(settings, shown=shown) as (host, _):
        started = await host.start(emulate={"end": "never"})
        assert (await host.call("agent_cancel", job_id=started["job_id"]))["status"] == "cancelled"
        saying[0] = "completed"
        assert (await host.call("agent_poll", job_id=started["job_id"]))["status"] == "cancelled"
        assert (await host.call("agent_cancel", job_id=started["job_id"]))["status"] == "cancelled"


@pytest.mark.parametrize("script", [{"end": "never"}, {"faults": [{"stuck_queued": True}]}], ids=["runs", "queued"])
async def test_response_that_never_moves_shows_its_age_and_ends_at_its_limit(
    settings: Settings, upstream: RunningServer, script: JSON
) -> None:
    async with hosting(replace(settings, job_timeout_s=15)) as host:
        started = await host.start(emulate=script)
        answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=5)
        assert answer["elapsed_s"] >= 4
        assert (await host.end(started["job_id"]))["error"]["code"] == "deadline_exceeded"
    assert status_of(upstream) == "cancelled"


async def test_endless_response_of_a_killed_server_ends_a_day_after_its_limit(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="cancel", status=404, body={"detail": "unknown"}, times=-1)
    limited = replace(settings, job_timeout_s=5, follow=0, max_wait_s=3600)
    async with hosting(limited, speed=20_000) as host:
        started = await host.start(emulate={"end": "never"})
        with anyio.fail_after(60):
            while "next_poll_ms" in (answer := await host.call("agent_poll", job_id=started["job_id"], wait_s=3600)):
                pass
    assert answer["error"]["code"] == "deadline_exceeded"


async def test_ignored_cancel_frees_job_and_slot_at_last(settings: Settings, upstream: RunningServer) -> None:
    upstream.queue_fault(on="cancel", status=200, body={"id": "resp_x"}, times=-1)
    limited = replace(settings, job_timeout_s=3600, follow=0, max_concurrent=1, max_wait_s=3600.0)
    async with hosting(limited, speed=20_000) as host:
        started = await host.start(emulate={"end": "never"})
        while (await host.call("agent_poll", job_id=started["job_id"], wait_s=0))["status"] != "in_progress":
            pass
        await host.call("agent_cancel", job_id=started["job_id"])
        assert (await host.end(started["job_id"], wait_s=3600))["error"]["code"] == "deadline_exceeded"


async def test_process_that_sent_a_cancel_polls_at_growing_intervals(settings: Settings) -> None:
    with run_emulator(time_scale=50) as upstream:
        upstream.queue_fault(on="cancel", status=200, body={"id": "resp_x"}, times=-1)
        async with hosting(replace(settings, base_url=upstream.base_url, follow=0), speed=50) as host:
            started = await host.start(emulate={"end": "never"})
            await host.call("agent_cancel", job_id=started["job_id"])
            engine = await host.app.engine()
            began = engine.now()
            await eventually(lambda: engine.now() > began + 400)
    assert upstream.emulator.counters()["retrieves"] < 100


async def test_poll_that_was_overtaken_is_repeated(settings: Settings) -> None:
    emulator, arrived, let_go = Emulator(time_scale=SPEED), threading.Event(), threading.Event()
    emulator.app.add_middleware(Late, arrived=arrived, let_go=let_go)
    with run_emulator(emulator=emulator) as upstream:
        upstream.queue_fault(on="cancel", status=200, body={"id": "resp_x"}, times=-1)
        polled = replace(settings, base_url=upstream.base_url, follow=0, mode="background")
        async with hosting(polled) as host:
            started = await host.start(emulate={"queued_s": 5, "duration_s": 20, "text": "paid for"})
            await eventually(arrived.is_set)
            async with hosting(polled) as other:
                while (await other.call("agent_cancel", job_id=started["job_id"]))["status"] == "queued":
                    pass
            let_go.set()
            assert (await host.end(started["job_id"]))["output"] == "paid for"


async def test_poll_answered_400_about_the_id_counts_as_404(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(replace(settings, follow=0, max_wait_s=3600), speed=50) as host:
        started = await host.start(emulate={"end": "never"})
        await eventually(
            lambda: upstream.emulator.counters()["creates"] == 1
        )  # a busy machine names it after the start
        [run] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
        words = f"Invalid response id '{run['id']}'"
        upstream.queue_fault(on="retrieve", status=400, body={"detail": words}, times=-1)
        assert (await host.end(started["job_id"], wait_s=3600))["status"] == "expired"


async def test_accepted_unknown_model_fails_once_upstream_reports_it(settings: Settings) -> None:
    script = {"duration_s": 1, "end": "failed", "error_code": "model_not_found", "error_message": "No such model."}
    async with hosting(settings) as host:
        started = await host.start(emulate=script)
        assert started["status"] == "queued"
        answer = await host.end(started["job_id"])
    assert answer["error"] == {"code": "model_not_found", "message": "No such model."}
    assert "another model" in answer["next"]


NEEDED = {"id", "status", "output"}


@pytest.mark.parametrize("follow", [0, 200], ids=["looked at", "followed"])
async def test_null_fields_count_as_missing(settings: Settings, follow: int) -> None:
    def shown(response: JSON) -> JSON:
        running = response.get("status") != "completed"
        return {
            name: None if name not in NEEDED or (running and name == "output") else value
            for name, value in response.items()
        }

    async with host_behind(replace(settings, follow=follow), shown=shown) as (host, upstream):
        await check_job_completes(host, upstream)


async def test_server_at_its_root_is_used_there(settings: Settings) -> None:
    async with host_behind(settings, root=True, stream=RESUMED["11 too old"]) as (host, upstream):
        await check_job_completes(host, upstream, **(BROKEN_STREAM | {"duration_s": 20}))
        started = await host.start(emulate={"end": "never"})
        assert (await host.call("agent_cancel", job_id=started["job_id"]))["status"] == "cancelled"


async def test_server_that_does_not_confirm_background_is_trusted_once_a_poll_succeeds(settings: Settings) -> None:
    def shown(response: JSON) -> JSON:
        return {name: value for name, value in response.items() if name != "background"}

    async with host_behind(settings, shown=shown) as (host, upstream):
        started = await check_job_completes(host, upstream, **(BROKEN_STREAM | {"duration_s": 20}))
        assert "lasts" not in started
        await eventually(lambda: status_of(upstream) == "completed")


@pytest.mark.parametrize("error_body", ["detail", "text", "integer_code"])
async def test_error_of_any_shape_becomes_a_sentence(
    settings: Settings, upstream: RunningServer, error_body: str
) -> None:
    upstream.queue_fault(on="create", status=422, error_body=error_body)
    async with hosting(settings) as host:
        answer = await host.end((await host.start())["job_id"])
    assert answer["status"] == "failed"
    assert answer["error"]["message"]
    assert isinstance(answer["error"]["code"], str)


def instead_of_creating(app: ASGIApp) -> Callable[[ASGIApp], ASGIApp]:
    """Answer every create with another app, so that the emulator sees none."""

    def before(emulator: ASGIApp) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            creates = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == "/v1/responses"
            await (app if creates else emulator)(scope, receive, send)

        return answer

    return before


REFUSED_IN_A_200: dict[str, tuple[str, bytes, str]] = {
    "an error in the first event": (STREAM, b'data: {"error": {"message": "no such tool", "code": 400}}\n\n', ""),
    "an error text in the first event": (STREAM, b'data: {"error": "no such tool"}\n\n', ""),
    "an event named error": (STREAM, b'event: error\ndata: {"message": "no such tool"}\n\n', ""),
    "an event named error with a text": (STREAM, b"event: error\ndata: no such tool\n\n", ""),
    "an event of type error": (STREAM, b'data: {"type": "error", "code": "bad", "message": "no such tool"}\n\n', "bad"),
    "after a comment": (
        STREAM,
        b': hi\n\ndata: {"type": "ping"}\n\ndata: {"error": {"message": "no such tool"}}\n\n',
        "",
    ),
    "a failed response without an id": (
        STREAM,
        b'data: {"type": "response.failed", "response": {"status": "failed", "error": "no such tool"}}\n\n',
        "",
    ),
    "JSON with an error": ("application/json", b'{"error": {"message": "no such tool", "type": "bad"}}', "bad"),
    "JSON with an error text": ("application/json", b'{"error": "no such tool"}', ""),
    "JSON with errors": ("application/json", b'{"errors": [{"message": "no such tool"}]}', ""),
    "JSON with a detail": ("application/json", b'{"detail": "no such tool"}', ""),
    "JSON that is an error": ("application/json", b'{"object": "error", "message": "no such tool", "code": 400}', ""),
    "a server error": ("application/json", b'{"error": {"message": "no such tool", "type": "server_error"}}', ""),
    "a login page": ("text/html", b"<!DOCTYPE html><title>Sign in, no such tool</title>", "not_a_responses_api"),
}


@pytest.mark.parametrize(("kind", "body", "code"), REFUSED_IN_A_200.values(), ids=REFUSED_IN_A_200)
async def test_error_in_a_200_is_a_refusal_in_the_provider_s_words(
    settings: Settings, kind: str, body: bytes, code: str
) -> None:
    emulator = Emulator(time_scale=SPEED)
    emulator.app.add_middleware(instead_of_creating(build_answering_app(200, kind, body)))
    with run_emulator(emulator=emulator) as upstream:
        async with hosting(replace(settings, base_url=upstream.base_url)) as host:
            answer = await host.start(wait_s=20)
    assert answer["status"] == "failed"
    assert answer["error"]["code"] != "start_unconfirmed"
    assert "no such tool" in answer["error"]["message"]
    assert code in answer["error"]["code"]


UNCLEAR_IN_A_200: dict[str, tuple[str, bytes]] = {
    "a gateway that gave up": ("application/json", b'{"error": {"message": "upstream request timeout"}}'),
    "a gateway by its number": (STREAM, b'data: {"error": {"message": "oops", "code": 502}}\n\n'),
    "nothing": ("application/json", b""),
    "a stream without an event": (STREAM, b""),
    "an object of something else": ("application/json", b'{"object": "thing"}'),
}


@pytest.mark.parametrize(("kind", "body"), UNCLEAR_IN_A_200.values(), ids=UNCLEAR_IN_A_200)
async def test_start_that_may_have_been_accepted_stays_unconfirmed(settings: Settings, kind: str, body: bytes) -> None:
    emulator = Emulator(time_scale=SPEED)
    emulator.app.add_middleware(instead_of_creating(build_answering_app(200, kind, body)))
    with run_emulator(emulator=emulator) as upstream:
        async with hosting(replace(settings, base_url=upstream.base_url)) as host:
            answer = await host.start(wait_s=20)
    assert answer["error"]["code"] == "start_unconfirmed"


FAILED_SHAPES: dict[str, JSON] = {
    "a text": {"status": "failed", "error": "the model fell over"},
    "status error": {"status": "error", "error": {"message": "the model fell over"}},
    "a list": {"status": "failed", "error": None, "errors": [{"message": "the model fell over"}]},
    "no status": {"status": None, "error": {"message": "the model fell over"}},
}


@pytest.mark.parametrize("follow", [0, 200], ids=["looked at", "followed"])
@pytest.mark.parametrize("failed", FAILED_SHAPES.values(), ids=FAILED_SHAPES)
async def test_failed_response_is_reported_in_the_provider_s_words(
    settings: Settings, failed: JSON, follow: int
) -> None:
    def shown(response: JSON) -> JSON:
        return {**response, **failed} if response.get("status") == "failed" else response

    async with host_behind(replace(settings, follow=follow), shown=shown) as (host, _):
        started = await host.start(emulate={"duration_s": 2, "end": "failed"})
        answer = await host.end(started["job_id"])
    assert (answer["status"], answer["error"]["message"]) == ("failed", "the model fell over")


@pytest.mark.parametrize("words", ["Overloaded. Try again in 5 seconds.", "Please retry after 10s", "Try again later."])
async def test_failure_that_asks_for_a_retry_is_retryable(settings: Settings, words: str) -> None:
    script = {"duration_s": 1, "end": "failed", "error_code": "odd", "error_message": words}
    async with hosting(settings) as host:
        answer = await host.end((await host.start(emulate=script))["job_id"])
    assert answer["error"]["retryable"] is True
    assert "again" in answer["next"]
