"""What hostile requests get from the team server: a refusal in time, no traceback, and nothing of the machine."""

import anyio
import pytest
from anyio.abc import SocketStream
from team_servers import Team


async def connect(team: Team) -> SocketStream:
    host, _, port = team.url.removeprefix("http://").rpartition(":")
    return await anyio.connect_tcp(host, int(port))


async def send_raw(team: Team, request: bytes) -> bytes:
    """Send these bytes and return the answer until the server closes the connection."""
    answer = b""
    async with await connect(team) as stream:
        await stream.send(request)
        with anyio.fail_after(20):
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
