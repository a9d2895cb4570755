"""The team server refuses hostile requests in time, without a traceback and without facts about its machine."""

import sqlite3
from collections.abc import AsyncGenerator, Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio.abc import SocketStream
from team_apps import SECRET
from team_servers import Team, serving_team

from agent_jobs.page.peer_address import read_address
from agent_jobs.settings.settings import Settings
from agent_jobs.team_server import request_body
from agent_jobs.team_server.request_body import MAX_BODY_BYTES, OPEN_BODY_BYTES

METRICS_TOKEN = "a-token-for-prometheus-0123456789"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
async def open_team(
    team_settings: Settings, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncGenerator[Team]:
    """Run a team server with all routes that need no team token."""
    folder = tmp_path_factory.mktemp("open")
    (folder / "hooks").write_text(SECRET)
    (folder / "metrics").write_text(METRICS_TOKEN)
    settings = replace(
        team_settings,
        data_dir=folder / "data",
        webhook_secret_file=folder / "hooks",
        metrics_token_file=folder / "metrics",
    )
    async with serving_team(settings) as team:
        yield team


@contextmanager
def without_table(path: Path, table: str) -> Generator[None]:
    """Keep a server from using a table of its database."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
        db.execute("PRAGMA legacy_alter_table = ON")
        db.execute(f"ALTER TABLE {table} RENAME TO gone")
        try:
            yield
        finally:
            db.execute(f"ALTER TABLE gone RENAME TO {table}")


async def connect(team: Team) -> SocketStream:
    host, _, port = team.url.removeprefix("http://").rpartition(":")
    return await anyio.connect_tcp(host, int(port))


async def send_raw(team: Team, request: bytes) -> bytes:
    """Send these bytes and return the answer until the server closes the connection."""
    answer = b""
    async with await connect(team) as stream:
        await stream.send(request)
        with anyio.fail_after(60):
            while True:
                try:
                    answer += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return answer


@pytest.mark.parametrize("path", ["/mcp", "/sign-in", "/files/a"])
async def test_malformed_origin_is_refused(team: Team, caplog: pytest.LogCaptureFixture, path: str):
    origins = (
        b"http://[bad", b"http://[::1", b"http://a:b:c", b"http://localhost:x", b"http://localhost:99999", b"",
        b"http://", b"//", b"localhost", "http://é".encode(), "http://[é".encode("latin-1"), b"http://127.0.0.1@a",
        b"http://localhost\r\nOrigin: http://evil.example",
    )  # fmt: skip
    for origin in origins:
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: %s\r\n\r\n" % (
            path.encode(),
            origin,
        )
        assert b" 403 " in (await send_raw(team, head)).partition(b"\r\n")[0], origin
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("CONNECT", "/healthz", 405),
        ("CONNECT", "/readyz", 405),
        ("CONNECT", "/static/style.css", 405),
        ("CONNECT", "/sign-in", 405),
        ("CONNECT", "localhost:80", 405),
        ("CONNECT", "/mcp", 405),
        ("POST", "/healthz", 405),
        ("OPTIONS", "/readyz", 405),
        ("BREW", "/healthz", 405),
        ("get", "/healthz", 405),
        ("HEAD", "/healthz", 200),
        ("GET", "/readyz", 200),
    ],
)
async def test_health_has_get_and_head_alone_and_nothing_is_a_tunnel(
    team: Team, caplog: pytest.LogCaptureFixture, method: str, path: str, status: int
):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert f" {status} ".encode() in (await send_raw(team, head.encode())).partition(b"\r\n")[0]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("path", "slow_status", "long_status"),
    [("/hooks/openai", 408, 413), ("/metrics", 408, 413), ("/sign-in", 408, 413), ("/new", 401, 401)],
)
async def test_long_or_slow_body_without_a_token_is_not_kept(
    open_team: Team, monkeypatch: pytest.MonkeyPatch, path: str, slow_status: int, long_status: int
):
    monkeypatch.setattr(request_body, "OPEN_BODY_S", 0.1)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nConnection: close\r\n"
    slow = await send_raw(open_team, f"{head}Content-Length: 100\r\n\r\n{{".encode())
    assert f" {slow_status} ".encode() in slow.partition(b"\r\n")[0]
    async with open_team.http(Origin=open_team.url, **FORM) as http:
        long = await http.post(path, content=b"token=" + b"x" * OPEN_BODY_BYTES)
    assert long.status_code == long_status


async def test_form_of_a_signed_in_browser_may_be_long(open_team: Team):
    token = await open_team.add_token("hanna")
    async with open_team.http(Origin=open_team.url, **FORM) as http:
        assert (await http.post("/sign-in", content=f"token={token}")).status_code == 200
        long = b"form_token=x&prompt=" + b"x" * (2 * OPEN_BODY_BYTES)
        assert (await http.post("/new", content=long)).status_code == 403, "its form token was read, and is wrong"
        assert (await http.post("/new", content=b"x" * (MAX_BODY_BYTES + 1))).status_code == 413


async def test_page_reports_an_unusable_database(open_team: Team, caplog: pytest.LogCaptureFixture):
    token = await open_team.add_token("ida")
    path = Path((await open_team.server.engine.store_info()).path)
    async with open_team.http(Origin=open_team.url, Accept="text/html") as http:
        assert (await http.post("/sign-in", data={"token": token})).status_code == 200
        with without_table(path, "token"):
            answers = [await http.get(url) for url in ("/", "/jobs.json", "/live/jobs", "/health")]
            answers += [await http.post(url, data={"token": token}) for url in ("/new", "/sign-in")]
            assert (await http.get("/sign-in")).status_code == 200
        assert (await http.get("/")).status_code == 200
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2"), answer.url
        assert "cannot be checked now" in answer.text
        assert str(path.parent) not in answer.text and "such table" not in answer.text
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0\x85", "fe80::1"),
        ("1.2.3.4\x9b31m", ""),
        ("x" * 30_000, ""),
        ("fe80::1%" + "x" * 30_000, "fe80::1"),
        ("evil.example", ""),
        ("\u0661.2.3.4", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_only_an_ip_address_is_logged(written: str | None, address: str):
    client = None if written is None else (written, 0)
    assert read_address({"type": "http", "client": client}) == address


async def test_owner_sees_nothing_of_the_machine(open_team: Team, caplog: pytest.LogCaptureFixture):
    token = await open_team.add_token("jane")
    path = Path((await open_team.server.engine.store_info()).path)
    secrets = (
        str(path.parent),
        path.name,
        "such table",
        str(open_team.server.engine.base_url),
        "process",
        "agent-jobs doctor",
    )
    async with open_team.http(Origin=open_team.url, Accept="text/html") as http, open_team.host(token) as host:
        assert (await http.post("/sign-in", data={"token": token})).status_code == 200
        health = [await http.get("/health"), await http.get("/health.json")]
        assert [check["name"] for check in health[1].json()] == ["Jobs"]
        with without_table(path, "job"):
            pages = [await http.get("/"), await http.get("/jobs.json"), await http.get("/jobs/job_1")]
            refused = [
                await host.refused("agent_list"),
                await host.refused("agent_poll", job_id="job_1", wait_s=0),
                await host.refused("agent_start", prompt="x"),
            ]
    assert [page.status_code for page in pages] == [503] * 3
    for text in [page.text for page in (*health, *pages)] + [str(error) for error in refused]:
        assert not [secret for secret in secrets if secret in text], text
    for text in [page.text for page in pages] + [str(error) for error in refused]:
        assert "database cannot be used now. Try again." in text
    assert str(path.parent) in caplog.text, "the log has the details"


async def test_refusals_name_the_right_cause(open_team: Team):
    token = await open_team.add_token("kim")
    path = Path((await open_team.server.engine.store_info()).path)
    async with open_team.http(token) as http:
        for name in ("a%0ab", "%0a", "a%0a", "a%0d"):
            put = await http.put(httpx2.URL(f"{open_team.url}/files/{name}"), content=b"x")
            assert (put.status_code, put.json()["error"]) == (400, "bad_name"), name
        for method, url in (
            ("POST", "/files/a"),
            ("DELETE", "/files/a"),
            ("BREW", "/metrics"),
            ("PUT", "/hooks/openai"),
        ):
            assert (await http.request(method, url)).status_code == 405, (method, url)
        for url in ("/mcp/", "/metrics/", "/other"):
            assert (await http.get(url)).status_code == 404, url
        with without_table(path, "shelf"):
            put = await http.put("/files/a", content=b"x")
        assert (put.status_code, put.json()["error"]) == (503, "no_database")
    for scheme in ("bearer", "Bearer", "BEARER"):
        async with open_team.http(Authorization=f"{scheme} {METRICS_TOKEN}") as http:
            assert (await http.get("/metrics")).status_code == 200


async def test_odd_bytes_and_upgrades_do_not_fill_the_log(open_team: Team, caplog: pytest.LogCaptureFixture):
    assert b" 400 " in await send_raw(open_team, b"\x16\x03\x01 no HTTP\r\n\r\n")
    upgrade = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: %s\r\nUpgrade: %s\r\n\r\n"
    for protocol in (b"websocket", b"h2c"):
        assert await send_raw(open_team, upgrade % (b"Upgrade, close", protocol))
    assert not [record.message for record in caplog.records if record.name.startswith("uvicorn")]
