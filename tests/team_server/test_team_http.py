"""The team server over a real socket: authorization, limits and answers in both eras of the protocol."""

import json
import resource
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream
from click.testing import CliRunner
from hosts import eventually
from starlette.types import Message, Receive, Scope, Send
from team_servers import Team, serving_team

from agent_jobs.cli.emulator import emulator_command
from agent_jobs.cli.serve import serve_command
from agent_jobs.errors import ConfigError
from agent_jobs.settings.address_values import find_host
from agent_jobs.settings.settings import Settings
from agent_jobs.team_server import audit, connections, request_body, stream_head_delay, token_watch
from agent_jobs.team_server.host_check import HostNames
from agent_jobs.team_server.request_body import MAX_BODY_BYTES
from agent_jobs.team_server.server import open_listener, open_team_server
from agent_jobs.team_server.stream_head_delay import StreamHeadDelay

LIST_TOOLS = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_job_runs_over_http(team: Team, era: str):
    async with team.host(await team.add_token(), era) as host:
        started = await host.start(emulate={"duration_s": 2})
        assert (await host.end(started["job_id"]))["status"] == "completed"
        assert {tool.name for tool in (await host.client.list_tools()).tools} > {"agent_start", "agent_poll"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/mcp"),
        ("GET", "/mcp"),
        ("GET", "/other"),
        ("GET", "/metrics"),
        ("PUT", "/files/a"),
        ("GET", "/readyz/x"),
    ],
)
async def test_nothing_is_answered_without_a_token(team: Team, method: str, path: str):
    async with team.http() as http:
        answer = await http.request(method, path, json=LIST_TOOLS)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"] == "no_token"


async def test_health_needs_neither_token_nor_host(team: Team):
    async with team.http(Host="pod.internal") as http:
        assert [(await http.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 200]


async def make_revoked_token(team: Team) -> str:
    token, owners = await team.add_token("mallory"), team.server.engine.owners
    record, _ = await owners.find_token(token)
    assert record is not None
    assert await owners.revoke_token(record.id)
    return token


async def make_expired_token(team: Team) -> str:
    return await team.add_token("mallory", lifetime_s=-1)


async def make_garbled_token(team: Team) -> str:
    return (await team.add_token("mallory"))[:-1] + "!"


def make_text(text: str) -> Callable[[Team], Awaitable[str]]:
    async def make(team: Team) -> str:
        return text

    return make


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_expired_token, "expired"),
        (make_revoked_token, "revoked"),
        (make_garbled_token, "unknown"),
        (make_text("ajt_"), "unknown"),
        (make_text("sk-secret"), "unknown kind"),
        (make_text("ajt_" + "a" * 9000), "too long"),
    ],
    ids=["expired", "revoked", "garbled", "empty", "key", "huge"],
)
async def test_wrong_token_is_refused_and_logged(
    team: Team, make: Callable[[Team], Awaitable[str]], reason: str, caplog: pytest.LogCaptureFixture
):
    token = await make(team)
    async with team.http(token) as http:
        answer = await http.post("/mcp", json=LIST_TOOLS, headers=ACCEPT)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert reason not in answer.text, "the reason would help an attacker to guess"
    logged = [entry for _, entry in await team.server.engine.owners.read_log()]
    assert (logged[-1].action, logged[-1].address) == (f"refused: {reason}", "127.0.0.1")
    assert len(token) < 5 or token not in f"{logged} {caplog.text}"


@pytest.mark.parametrize(
    "authorization",
    [["Basic {token}"], ["{token}"], ["Bearer"], ["Bearer {token}", "Bearer {token}"], ["Bearer {token}, x"]],
)
async def test_malformed_authorization_is_refused(team: Team, authorization: list[str]):
    token = await team.add_token()
    headers = [("Authorization", each.replace("{token}", token)) for each in authorization]
    async with team.http() as http:
        answer = await http.post("/mcp", json=LIST_TOOLS, headers=[*headers, *ACCEPT.items()])
    assert answer.status_code == 401


async def test_refused_tokens_do_not_fill_the_audit_log(team: Team, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(audit, "MAX_REFUSED_A_MINUTE", 2)
    owners = team.server.engine.owners
    before = len(await owners.read_log())
    async with team.http("ajt_wrong") as http:
        for _ in range(8):
            assert (await http.post("/mcp")).status_code == 401
    assert len(await owners.read_log()) - before <= 2 * 2  # a new minute may begin meanwhile


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:8000"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "10.0.0.1"}, 421),
        ({"Host": "x@127.0.0.1"}, 421),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:9"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://localhost:6274"}, 200),
    ],
)
async def test_other_hosts_and_pages_are_refused(team: Team, headers: dict[str, str], status: int):
    async with team.http(await team.add_token()) as http:
        answer = await http.post("/mcp", json=LIST_TOOLS, headers={**ACCEPT, **headers})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("host", "public_url", "name", "is_known"),
    [
        ("0.0.0.0", None, "10.0.0.1:8000", True),
        ("0.0.0.0", None, "[fe80::1]", True),
        ("0.0.0.0", None, "jobs.example.com", False),
        ("0.0.0.0", "https://jobs.example.com", "jobs.example.com", True),
        ("0.0.0.0", "https://jobs.example.com", "JOBS.example.com:443", True),
        ("0.0.0.0", "https://jobs.example.com", "jobs.example.com:80", False),
        ("0.0.0.0", "http://jobs.example.com:8080", "jobs.example.com:8080", True),
        ("127.0.0.1", "https://jobs.example.com", "jobs.example.com", True),
        ("127.0.0.1", "https://jobs.example.com", "evil.example.com", False),
        ("jobs-1", None, "jobs-1:8000", True),
        ("127.0.0.5", None, "127.0.0.5:8000", True),
        ("127.0.0.5", None, "127.0.0.6:8000", False),
        ("127.0.0.5", None, "localhost:8000", True),
        ("0.0.0.0", None, "", False),
        ("0.0.0.0", None, "a b", False),
        ("0.0.0.0", None, "1.2.3.4:99999", False),
    ],
)
def test_host_names_follow_the_settings_of_a_server(host: str, public_url: str | None, name: str, is_known: bool):
    assert HostNames(host, public_url).is_known_host(name) is is_known


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_mcp_answers_post_alone(team: Team, method: str):
    async with team.http(await team.add_token()) as http:
        answer = await http.request(method, "/mcp", headers=ACCEPT)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert (await http.get("/other")).status_code == 404


@pytest.mark.parametrize("is_chunked", [False, True], ids=["declared", "chunked"])
async def test_oversized_body_is_refused(team: Team, is_chunked: bool):
    async def send_chunks() -> Any:
        for _ in range(5):
            yield b" " * (MAX_BODY_BYTES // 4)

    content: Any = send_chunks() if is_chunked else b" " * (MAX_BODY_BYTES + 1)
    async with team.http(await team.add_token(), **{"Content-Type": "application/json"}, **ACCEPT) as http:
        answer = await http.post("/mcp", content=content)
        assert answer.status_code == 413
        assert (await http.post("/mcp", json=LIST_TOOLS)).status_code == 200


async def connect(team: Team) -> SocketStream:
    host, _, port = team.url.removeprefix("http://").rpartition(":")
    return await anyio.connect_tcp(host, int(port))


async def read_to_end(stream: SocketStream) -> bytes:
    read = b""
    with anyio.fail_after(60):
        while True:
            try:
                read += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return read


async def test_slow_body_is_refused(team: Team, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_body, "BODY_S", 0.1)
    head = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {await team.add_token()}\r\n"
    async with await connect(team) as stream:
        await stream.send(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert b" 408 " in await read_to_end(stream)


@pytest.mark.parametrize("sent", ["", "POST /mcp HTT", "POST /mcp HTTP/1.1\r\nHost: localhost\r\nA: "])
async def test_slow_headers_close_the_connection(team: Team, sent: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "HEADERS_S", 0.1)
    async with await connect(team) as stream:
        await stream.send(sent.encode() or b"")
        assert await read_to_end(stream) == b""


async def test_body_of_a_refused_request_keeps_no_connection(team: Team, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "HEADERS_S", 0.1)
    async with await connect(team) as stream:
        await stream.send(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert b" 401 " in await stream.receive()
        await stream.send(b" ")
        assert await read_to_end(stream) == b""


async def test_oldest_connection_without_a_token_is_closed_for_another(team: Team, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "MAX_IDLE", 3)

    async def ask(stream: SocketStream) -> None:
        await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read = b""
        while not read.endswith(b"ok\n"):
            read += await stream.receive()

    async with AsyncExitStack() as stack:
        opened: list[SocketStream] = []
        for _ in range(5):
            opened.append(await stack.enter_async_context(await connect(team)))
            await ask(opened[-1])
        assert [await read_to_end(each) for each in opened[:2]] == [b"", b""]
        for each in opened[2:]:
            await ask(each)


async def test_thousand_connections_without_a_token_do_no_harm(team: Team):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    host, _, port = team.url.removeprefix("http://").rpartition(":")
    answers: list[dict[str, Any]] = []
    async with team.host(await team.add_token()) as waiting, anyio.create_task_group() as tasks:
        job = await waiting.start(emulate={"end": "never"})

        async def poll() -> None:
            answers.append(await waiting.call("agent_poll", job_id=job["job_id"], wait_s=900))

        tasks.start_soon(poll)
        with ExitStack() as stack:
            for _ in range(1000):
                sock = stack.enter_context(socket.create_connection((host, int(port))))
                sock.send(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
                await anyio.lowlevel.checkpoint()
            async with team.host(await team.add_token("bob")) as host_of_bob:
                assert (await host_of_bob.call("agent_list"))["jobs"] is not None
            await waiting.call("agent_cancel", job_id=job["job_id"])
    assert answers[0]["status"] == "cancelled", "a waiting poll keeps its connection"


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_drain_answers_waiting_polls(team_settings: Settings, tmp_path: Path, era: str):
    answers: list[dict[str, Any]] = []
    async with (
        serving_team(replace(team_settings, data_dir=tmp_path)) as team,
        team.host(await team.add_token(), era) as host,
        anyio.create_task_group() as tasks,
    ):
        job = await host.start(emulate={"end": "never"})

        async def poll(**jobs: Any) -> None:
            answers.append(await host.call("agent_poll", wait_s=900, **jobs))

        tasks.start_soon(partial(poll, job_id=job["job_id"]))
        tasks.start_soon(poll)
        await eventually(lambda: team.server.open_requests == 2)
        async with team.http() as http:
            await http.get("/healthz")  # opens the connection
            tasks.start_soon(team.server.drain)
            answer = await http.get("/readyz")
            assert (answer.status_code, answer.headers["connection"]) == (503, "close")
    assert {answer.get("status", "queued") for answer in answers} <= {"queued", "in_progress"}
    assert len(answers) == 2
    assert all("next_poll_ms" in answer for answer in answers)


async def test_stream_is_silent_until_its_first_event(monkeypatch: pytest.MonkeyPatch):
    sent: list[Message] = []

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
        await send(head)
        await send({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})
        assert sent == [], "once headers are sent, a balancer could not repeat the request"
        monkeypatch.setattr(stream_head_delay, "HOLD_S", 0.0)
        await send({"type": "http.response.body", "body": b"event: message\r\ndata: {}\r\n\r\n", "more_body": True})
        await send({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def record(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await StreamHeadDelay(stream)({"type": "http"}, receive, record)
    assert [message.get("body", b"")[:6] for message in sent] == [b"", b"event:", b": ping", b""]


async def test_silent_stream_gets_its_pings_after_a_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_head_delay, "HOLD_S", 0.0)
    sent: list[str] = []

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
        await send(head)
        await send({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})

    async def record(message: Message) -> None:
        sent.append(message["type"])

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await StreamHeadDelay(stream)({"type": "http"}, receive, record)
    assert sent == ["http.response.start", "http.response.body"]


async def test_listening_for_others_without_a_token_is_refused(team_settings: Settings, tmp_path: Path):
    settings = replace(team_settings, host="0.0.0.0", data_dir=tmp_path)
    with pytest.raises(ConfigError, match="agent-jobs token add OWNER"):
        async with open_team_server(settings):
            pass
    async with open_team_server(replace(settings, host="::1")) as server:
        await server.engine.owners.add_token("alice")
    async with open_team_server(settings):
        pass


def test_port_in_use_is_reported_in_a_sentence(team_settings: Settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = replace(team_settings, port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="Choose others with --host and --port") as refused:
            open_listener(settings)
    assert str(refused.value).count("ddress") == str(refused.value).count("127.0.0.1") == 1


@pytest.mark.parametrize(
    "host", ["x" * 300, "é..x", "a..b", "x" * 64 + ".example", "a\0b", "no-such-host.invalid", "::1::"]
)
def test_host_that_cannot_be_listened_on_is_reported_in_a_sentence(team_settings: Settings, host: str):
    with pytest.raises(ConfigError) as refused:
        open_listener(replace(team_settings, host=host, port=0))
    assert str(refused.value).startswith(f"Cannot listen on {host}, port 0 (")
    of_emulator = CliRunner().invoke(emulator_command, ["--host", host, "--port", "0"])
    assert of_emulator.exit_code == 1
    assert of_emulator.stderr.startswith(f"Error: Cannot listen on {host}:0 (")


@pytest.mark.parametrize(
    "host",
    ["", " ", "http://x", "a b", "localhost:80", "a/b", "user@x", "x" * 300, "a\0b", "[::1", "::1]", "1:2:3", "\t"],
)
def test_option_for_the_host_is_checked_as_its_variable(host: str):
    refused = CliRunner().invoke(serve_command, ["--http", "--host", host])
    assert refused.exit_code == 2
    assert "--host accepts a host name or an IP address" in refused.stderr
    assert not find_host(host)


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("jobs-1", "jobs-1"),
        ("bücher.de", "bücher.de"),
    ],
)
def test_host_to_listen_on_is_read(written: str, host: str):
    assert find_host(written) == host


async def test_answers_show_json(team: Team):
    async with team.http(await team.add_token(), **ACCEPT) as http:
        answer = await http.post("/mcp", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert json.loads(answer.text)["error"]["code"] == -32700


async def test_webhooks_of_the_provider_need_a_signature_in_place_of_a_token(team_settings: Settings, tmp_path: Path):
    secrets = tmp_path / "webhook"
    secrets.write_text("whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=" + "\n")
    secrets.chmod(0o600)
    settings = replace(team_settings, data_dir=tmp_path / "data", webhook_secret_file=secrets)
    async with serving_team(settings) as team, team.http() as http:
        assert (await http.post("/hooks/openai", content=b"{}")).status_code == 400
        assert (await http.post("/hooks/openai/x", content=b"{}")).status_code == 401
        assert (await http.post("/hooks/openai", content=b"{}", headers={"Host": "evil.example"})).status_code == 421


META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
WATCHED: dict[str, Any] = {"_meta": META, "notifications": {"resourceSubscriptions": ["job://job_1"]}}
LISTEN: dict[str, Any] = {"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen", "params": WATCHED}
LISTENS = {**ACCEPT, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}


async def test_listening_clients_are_released_when_the_server_drains(team_settings: Settings, tmp_path: Path):
    async with (
        serving_team(replace(team_settings, data_dir=tmp_path)) as team,
        team.http(await team.add_token()) as http,
        http.stream("POST", "/mcp", json=LISTEN, headers=LISTENS) as stream,
    ):
        lines = stream.aiter_lines()
        while "acknowledged" not in await anext(lines):
            pass
        await team.server.drain()
        rest = [line async for line in lines]
    assert '"id":7' in "".join(rest), "the stream ends with its answer, as the protocol has it"


async def test_listening_client_is_released_when_its_token_is_revoked(team: Team, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(token_watch, "CHECK_S", 0.1)
    token, record = await team.server.engine.owners.add_token("gina")
    async with team.http(token) as http:
        refused = await http.post("/mcp", json={**LISTEN, "params": {"_meta": META}}, headers=LISTENS)
        assert '"error"' in refused.text
        async with http.stream("POST", "/mcp", json=LISTEN, headers=LISTENS) as stream:
            lines = stream.aiter_lines()
            while "acknowledged" not in await anext(lines):
                pass
            await team.server.engine.owners.revoke_token(record.id)
            with anyio.fail_after(60):
                rest = [line async for line in lines]
    assert '"id":7' in "".join(rest)


def test_server_on_stdin_loads_nothing_of_the_team_server():
    script = (
        "import sys, agent_jobs.cli.serve, agent_jobs.mcp_server.stdio, agent_jobs.app;"
        "print([name for name in sys.modules if name.startswith('agent_jobs.team_server')])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_owner_is_sent_to_the_operator_for_a_setting(team: Team, era: str):
    async with team.host(await team.add_token(), era) as host:
        limits = {"max_cost_usd": 1, "max_output_tokens": 100}
        refusal = await host.refused("agent_start", prompt="x", model="priced-nowhere", options=limits)
    assert refusal.endswith("Ask the operator of this server to add it to the price table of AGENT_JOBS_PRICES.")
