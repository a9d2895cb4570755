"""Faults under which comparable servers lost a paid result or paid for it twice in our measurements.

In every one of them no response is asked about in a storm: each server here checks that as it ends.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
import pytest
from anyio.abc import TaskGroup
from hosts import SPEED, Host, eventually, script_prompt
from hosts import hosting as hosting_at
from processes import serving
from starlette.types import ASGIApp, Receive, Scope, Send
from test_request_rates import check_rates

from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.server import RunningServer
from agent_jobs.emulator.server import run_emulator as running_unchecked
from agent_jobs.settings.settings import Settings
from agent_jobs.upstream import client

FOLLOW = pytest.mark.parametrize("follow", [0, 200], ids=["looked at", "followed"])
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing a socket resets its connection

#: The speeds of the clocks of the hosts in a test: its fastest makes the most requests in a second of ours.
SPEEDS: list[float] = []


@asynccontextmanager
async def hosting(settings: Settings, *, speed: float = SPEED) -> AsyncGenerator[Host]:
    """Run a host, and remember the speed of its clock for the check of request rates."""
    SPEEDS.append(speed)
    async with hosting_at(settings, speed=speed) as host:
        yield host


@contextmanager
def running_upstream(emulator: Emulator | None = None, *, time_scale: float = 1.0) -> Generator[RunningServer]:
    """Run an upstream, and check at the end that no response was requested in a storm."""
    SPEEDS.clear()
    with running_unchecked(emulator=emulator, time_scale=time_scale) as server:
        yield server
    check_rates(server.emulator, max(SPEEDS, default=SPEED))


@pytest.fixture
def upstream() -> Iterator[RunningServer]:
    with running_upstream(time_scale=SPEED) as server:
        yield server


class Line:
    """A connection to upstream that can be cut, fall silent and be restored."""

    def __init__(self, upstream: RunningServer, tasks: TaskGroup) -> None:
        self._upstream = urlsplit(upstream.base_url)
        self._tasks = tasks
        self._callers: set[asyncio.StreamWriter] = set()
        self._port = 0
        #: While set, everything sent is swallowed, and nothing arrives on such a connection any more.
        self.silent = False

    @property
    def base_url(self) -> str:
        return self._upstream._replace(netloc=f"127.0.0.1:{self._port}").geturl()

    async def repair(self) -> None:
        self._server = await asyncio.start_server(self._called, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset every connection, and refuse new ones until restored."""
        self._server.close()
        for caller in self._callers:
            with suppress(OSError):  # the client has closed it meanwhile
                caller.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            caller.transport.abort()
        self._callers.clear()

    def _called(self, heard: asyncio.StreamReader, caller: asyncio.StreamWriter) -> None:
        self._callers.add(caller)
        self._tasks.start_soon(self._connect, heard, caller)

    async def _connect(self, heard: asyncio.StreamReader, caller: asyncio.StreamWriter) -> None:
        answers, upstream = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        self._tasks.start_soon(self._carry, heard, upstream)
        await self._carry(answers, caller)
        self._callers.discard(caller)

    async def _carry(self, heard: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError):
                while data := await heard.read(65536):
                    if self.silent:
                        await anyio.sleep_forever()
                    to.write(data)
                    await to.drain()
        finally:
            to.close()


@asynccontextmanager
async def line_to(upstream: RunningServer) -> AsyncGenerator[Line]:
    async with anyio.create_task_group() as tasks:
        line = Line(upstream, tasks)
        await line.repair()
        try:
            yield line
        finally:
            line.cut()
            tasks.cancel_scope.cancel()


class Gateway:
    """Serve an API below another path, and record its requests."""

    def __init__(self, app: ASGIApp, path: str, asked: list[tuple[str, str, str]]) -> None:
        self._app = app
        self._path = path
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._asked.append((scope["method"], scope["path"], scope["query_string"].decode()))
            scope = {**scope, "path": scope["path"].removeprefix(self._path)}
        await self._app(scope, receive, send)


def read_counters(upstream: RunningServer) -> dict[str, Any]:
    return upstream.emulator.counters()


def list_runs(upstream: RunningServer) -> list[dict[str, Any]]:
    """Return the responses that upstream really created, from its own log."""
    return [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]


def repair(upstream: RunningServer) -> None:
    """End the faults that wait for requests."""
    httpx2.delete(f"{upstream.url}/_emulator/faults").raise_for_status()


async def adopt_response(host: Host, job_id: str, response_id: str) -> dict[str, Any]:
    """Adopt a response that a person found at the provider, and return the finished job."""
    engine = await host.app.engine()
    await engine.adopt(job_id, response_id)
    return await host.end(job_id)


async def read_pages(host: Host, answer: dict[str, Any]) -> list[str]:
    """Return the pages of the output, from this answer's page to the last one."""
    read = [answer["output"]]
    while "next" in answer:
        tool, job, offset = answer["next"].split()
        found = {"job_id": job.partition("=")[2], "offset": int(offset.partition("=")[2])}
        answer = await host.call(tool, **found, max_bytes=100_000)
        read.append(answer["output"])
    return read


# The POST.


async def test_post_closed_after_it_was_accepted_is_paid_once_and_its_result_is_found(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="create", drop="after_accept")
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "paid once"}, wait_s=5)
        assert started["error"]["code"] == "start_unconfirmed"
        [run] = list_runs(upstream)
        assert run["metadata"]["job_id"] == started["job_id"], "by this a person finds it"
        assert (await adopt_response(host, started["job_id"], run["id"]))["output"] == "paid once"
    assert (read_counters(upstream)["creates"], read_counters(upstream)["accepted"]) == (1, 1)


async def test_post_reset_after_it_was_accepted_is_paid_once_and_its_result_is_found(
    settings: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="create", hang=True, after_accept=True)
    async with line_to(upstream) as line, hosting(replace(settings, base_url=line.base_url)) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "paid once"})
        assert started["status"] == "starting"
        line.cut()
        assert (await host.end(started["job_id"]))["error"]["code"] == "start_unconfirmed"
        await line.repair()
        [run] = list_runs(upstream)
        assert (await adopt_response(host, started["job_id"], run["id"]))["output"] == "paid once"
    assert (read_counters(upstream)["creates"], read_counters(upstream)["accepted"]) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "accepted"),
    [({"hang": True, "after_accept": True}, 1), ({"hang": True, "status": 503}, 0)],
    ids=["accepted", "not accepted"],
)
async def test_post_without_an_answer_is_shown_at_once_and_never_sent_again(
    settings: Settings, upstream: RunningServer, fault: dict[str, Any], accepted: int
) -> None:
    upstream.queue_fault(on="create", **fault)
    settings = replace(settings, start_timeout_s=5.0)
    async with hosting(settings, speed=20) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "paid once"})
        assert started["status"] == "starting"
        assert started["job_id"] in started["next"]
        answer = await host.end(started["job_id"])
        assert answer["error"]["code"] == "start_unconfirmed"
        assert started["job_id"] in answer["next"]
        [request_id] = read_counters(upstream)["creates_by_request_id"]
    async with hosting(settings) as after:
        assert (await after.end((await after.start(emulate={"duration_s": 1}))["job_id"]))["status"] == "completed"
        assert await after.end(started["job_id"]) == answer
        for run in list_runs(upstream)[:accepted]:
            assert (await adopt_response(after, started["job_id"], run["id"]))["output"] == "paid once"
    assert read_counters(upstream)["creates_by_request_id"][request_id] == 1
    assert read_counters(upstream)["accepted"] == accepted + 1


async def test_post_lost_in_the_network_is_not_sent_again_when_the_network_is_back(
    settings: Settings, upstream: RunningServer
) -> None:
    async with line_to(upstream) as line:
        settings = replace(settings, base_url=line.base_url, start_timeout_s=5.0)
        async with hosting(settings, speed=20) as host:
            line.silent = True
            started = await host.start(emulate={"duration_s": 1})
            assert started["status"] == "starting"
            assert (await host.end(started["job_id"]))["error"]["code"] == "start_unconfirmed"
            line.silent = False
            assert (await host.end((await host.start(emulate={"duration_s": 1}))["job_id"]))["status"] == "completed"
    assert read_counters(upstream)["creates"] == 1


# Polls.


@pytest.mark.parametrize(
    "fault",
    [
        {"hang": True},
        {"hang": True, "times": 5},
        {"drop": "before_headers"},
        {"drop": "before_headers", "times": 20},
        {"status": 503, "times": 3},
    ],
    ids=["silent once", "silent five times", "reset once", "reset twenty times", "503 three times"],
)
async def test_failed_get_costs_one_poll(
    settings: Settings, upstream: RunningServer, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    monkeypatch.setattr(client, "RETRIEVE_READ_S", 0.2)
    upstream.queue_fault(on="retrieve", **fault)
    async with hosting(replace(settings, follow=0), speed=50) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "still there"})
        assert (await host.end(started["job_id"]))["output"] == "still there"
    assert read_counters(upstream)["retrieves"] > fault.get("times", 1), "every fault was met"
    assert read_counters(upstream)["creates"] == 1


async def test_job_whose_polls_get_no_answer_delays_no_other(
    settings: Settings, upstream: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RETRIEVE_READ_S", 1.0)
    async with hosting(replace(settings, follow=0)) as host:
        stuck = await host.start("stuck", emulate={"duration_s": 1, "text": "late"})
        upstream.queue_fault(on="retrieve", hang=True, times=-1, match=stuck["response_id"])
        other = await host.start("other", emulate={"duration_s": 1, "text": "in time"})
        assert (await host.end(other["job_id"]))["output"] == "in time"
        assert "next_poll_ms" in await host.call("agent_poll", job_id=stuck["job_id"], wait_s=1)
        repair(upstream)
        assert (await host.end(stuck["job_id"]))["output"] == "late"


@FOLLOW
async def test_connection_that_falls_silent_during_a_job_is_replaced(
    settings: Settings, upstream: RunningServer, monkeypatch: pytest.MonkeyPatch, follow: int
) -> None:
    async with line_to(upstream) as line:
        settings = replace(settings, base_url=line.base_url, follow=follow)
        async with hosting(settings) as host:
            # Short only while the line is silent: later, a busy machine may take longer than that to answer.
            with monkeypatch.context() as silence:
                silence.setattr(client, "RETRIEVE_READ_S", 0.5)
                silence.setattr(client, "STREAM_IDLE_S", 0.5)
                started = await host.start(emulate={"duration_s": 20, "text": "heard after all"})
                line.silent = True
                assert "next_poll_ms" in await host.call("agent_poll", job_id=started["job_id"], wait_s=10)
            line.silent = False
            with anyio.fail_after(60):
                assert (await host.end(started["job_id"]))["output"] == "heard after all"
    assert read_counters(upstream)["creates"] == 1


@FOLLOW
@pytest.mark.parametrize("duration_s", [900, 2000], ids=["ends meanwhile", "ends after it"])
async def test_half_an_hour_of_503_loses_no_result(settings: Settings, follow: int, duration_s: float) -> None:
    with running_upstream(time_scale=800) as upstream:
        settings = replace(settings, base_url=upstream.base_url, follow=follow)
        async with hosting(settings, speed=800) as host:
            script = {"duration_s": duration_s, "text": "kept", "faults": [{"drop": {"after_events": 6}}]}
            upstream.queue_fault(on="any", status=503, skip=1, times=-1)  # all but the POST
            started = answer = await host.start(emulate=script)
            while answer.get("elapsed_s", 0) < 1800 or "cannot poll" not in answer.get("activity", ""):
                answer = await host.call("agent_poll", job_id=started["job_id"])
                assert "next_poll_ms" in answer, answer
            repair(upstream)
            assert (await host.end(started["job_id"]))["output"] == "kept"
        assert read_counters(upstream)["creates"] == 1


@FOLLOW
async def test_outage_of_twelve_seconds_loses_no_result(
    settings: Settings, upstream: RunningServer, follow: int
) -> None:
    async with line_to(upstream) as line:
        settings = replace(settings, base_url=line.base_url, follow=follow)
        async with hosting(settings) as host:
            started = await host.start(emulate={"duration_s": 8, "text": "kept"})
            line.cut()
            with anyio.fail_after(60):
                while "cannot poll" not in started.get("activity", ""):
                    started = await host.call("agent_poll", job_id=started["job_id"], wait_s=12)
            await eventually(lambda: list_runs(upstream)[0]["status"] == "completed")
            await line.repair()
            assert (await host.end(started["job_id"]))["output"] == "kept"
    assert read_counters(upstream)["creates"] == 1


# The server itself.


async def test_repeatedly_killed_server_returns_the_result_of_its_one_post(
    settings: Settings, upstream: RunningServer
) -> None:
    assert settings.data_dir is not None
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        prompt = script_prompt("long work", {"duration_s": 30, "text": "survived"})
        started = server.call("agent_start", prompt=prompt, wait_s=0)
        server.process.kill()
    for _ in range(2):
        with serving(settings.data_dir, upstream.base_url) as server:
            server.initialize()
            answer = server.call("agent_poll", job_id=started["job_id"], wait_s=0.5)
            assert answer["job_id"] == started["job_id"]
            server.process.kill()
    with serving(settings.data_dir, upstream.base_url) as server:
        server.initialize()
        answer = server.call("agent_poll", job_id=started["job_id"])
        assert answer == {"job_id": started["job_id"], "status": "completed", "output": "survived"}
        assert server.end() == 0
    assert [run["id"] for run in list_runs(upstream)] == [started["response_id"]]
    assert read_counters(upstream)["creates"] == 1


# The output.


@FOLLOW
@pytest.mark.parametrize("length", [60_000, 5_000_000], ids=["60 KB", "5 MB"])
async def test_long_output_is_read_page_by_page_to_its_last_byte(
    settings: Settings, upstream: RunningServer, follow: int, length: int
) -> None:
    async with hosting(replace(settings, follow=follow)) as host:
        answer = await host.end((await host.start(emulate={"duration_s": 1, "length": length}))["job_id"])
        read = await read_pages(host, answer)
    [run] = list_runs(upstream)
    assert len(run["text"]) == length
    assert answer["bytes"] == len(run["text"].encode())
    assert "".join(read) == run["text"]


async def test_output_that_json_enlarges_is_read_to_its_last_byte(settings: Settings) -> None:
    text = '"\\\n\t\x00\x1f\u2028東京 🙂 e\u0301' * 4000
    async with hosting(settings) as host:
        answer = await host.end((await host.start(emulate={"duration_s": 1, "text": text}))["job_id"])
        assert "".join(await read_pages(host, answer)) == text


# The address.


async def test_base_url_with_path_and_query_is_kept_and_uses_background(settings: Settings) -> None:
    emulator, asked = Emulator(time_scale=10), list[tuple[str, str, str]]()
    emulator.app.add_middleware(Gateway, path="/team/openai", asked=asked)
    with running_upstream(emulator=emulator) as upstream:
        base_url = f"{upstream.url}/team/openai/v1?api-version=preview&tenant=a%20b"
        async with hosting(replace(settings, base_url=base_url)) as host:
            script = {"duration_s": 10, "text": "through", "faults": [{"drop": {"after_events": 9}}]}
            started = await host.start(emulate=script)
            assert (await host.end(started["job_id"]))["output"] == "through"
            started = await host.start(emulate={"end": "never"})
            assert (await host.call("agent_cancel", job_id=started["job_id"]))["status"] == "cancelled"
    assert [run["background"] for run in list_runs(upstream)] == [True, True]
    assert {"creates", "retrieves", "streams", "cancels"} <= {name for name, n in read_counters(upstream).items() if n}
    assert all(path.startswith("/team/openai/v1/responses") for _, path, _ in asked), asked
    for _, _, query in asked:
        assert parse_qs(query).items() >= {"api-version": ["preview"], "tenant": ["a b"]}.items()
