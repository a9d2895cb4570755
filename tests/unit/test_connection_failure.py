"""The error for a server that cannot be reached names the reason and the setting, in tools, run and doctor."""

import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import anyio
import pytest
import trustme
from anyio.abc import AnyByteStream, ByteStream, Listener, SocketAttribute, SocketStream
from anyio.streams.tls import TLSListener
from hosts import hosting
from terminals import Terminal

from agent_jobs.cli.checks.endpoint_check import check_endpoint
from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def assert_named(settings: Settings, setting: str, reason: str, where: str, fix: str) -> None:
    """Assert that a job that cannot be sent and doctor both name the setting and the reason."""
    async with hosting(settings) as host:
        started = await host.start()
        with anyio.fail_after(60):
            while "activity" not in started:  # a busy machine may still be connecting
                started = await host.call("agent_poll", job_id=started["job_id"], wait_s=1)
        assert started["status"] == "pending"
        assert started["activity"].startswith(f"{setting}: {reason}, ")
        assert where in started["activity"]
        [finding] = await check_endpoint(await host.app.engine(), settings)
    assert finding.state == "problem"
    assert f"{setting}: {reason}, " in finding.text
    assert fix in finding.fix


async def test_refused_connection_is_named_with_the_address(settings: Settings, closed_port: int):
    address = f"127.0.0.1:{closed_port}"
    settings = replace(settings, base_url=f"http://{address}/v1")
    where = f"cannot connect to {address}"
    await assert_named(settings, "OPENAI_BASE_URL", "connection refused", where, "host and port in OPENAI_BASE_URL")


@pytest.mark.parametrize(
    "url", ["http://api.opnai.invalid/v1", "https://api..invalid/v1", f"http://{'a' * 70}.invalid"]
)
async def test_mistyped_host_is_named_with_the_address(settings: Settings, url: str):
    settings = replace(settings, base_url=url)
    await assert_named(settings, "OPENAI_BASE_URL", "no such host", "cannot connect to", "OPENAI_BASE_URL")


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("HTTPS_PROXY", "https"), ("HTTP_PROXY", "http"), ("ALL_PROXY", "https"), ("https_proxy", "https")],
)
async def test_dead_proxy_is_named_and_not_the_server_behind_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, closed_port: int, name: str, scheme: str
):
    monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    settings = replace(settings, base_url=f"{scheme}://api.example.com/v1")
    where, fix = f"the proxy 127.0.0.1:{closed_port}", f"correct {name.upper()}, or name the host in NO_PROXY"
    await assert_named(settings, name.upper(), "connection refused", where, fix)


async def test_proxy_whose_host_is_mistyped_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://prxy.invalid:3128")
    settings = replace(settings, base_url="https://api.example.com/v1")
    await assert_named(settings, "HTTPS_PROXY", "no such host", "the proxy prxy.invalid:3128", "correct HTTPS_PROXY")


@pytest.mark.parametrize(
    ("answer", "fix"),
    [
        ("407 Proxy Authentication Required", "NAME:PASSWORD@"),
        ("403 Forbidden", "NO_PROXY"),
        ("502 Bad Gateway", "check OPENAI_BASE_URL and HTTPS_PROXY"),
    ],
)
async def test_proxy_that_refuses_is_named_with_its_words(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, answer: str, fix: str
):
    settings = replace(settings, base_url="https://api.example.com/v1")
    async with listening(f"HTTP/1.1 {answer}\r\n\r\n") as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        where = f"the proxy 127.0.0.1:{port} does not connect to"
        await assert_named(settings, "HTTPS_PROXY", answer, where, fix)


@pytest.mark.parametrize(
    ("identity", "days", "trusted", "setting", "reason", "fix"),
    [
        (
            "127.0.0.1",
            1,
            False,
            "SSL_CERT_FILE",
            "certificate of an unknown authority",
            "set SSL_CERT_FILE to a PEM file",
        ),
        ("127.0.0.1", -1, True, "OPENAI_BASE_URL", "its certificate has expired", "this machine's clock"),
        ("other.example", 1, True, "OPENAI_BASE_URL", "its certificate is for another host", "correct the host"),
    ],
)
async def test_untrusted_certificate_is_reported_with_its_fault(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    identity: str,
    days: int,
    trusted: bool,
    setting: str,
    reason: str,
    fix: str,
):
    authority = trustme.CA()
    until = datetime.now(UTC) + timedelta(days=days)
    certificate = authority.issue_cert(identity, not_before=until - timedelta(days=30), not_after=until)
    if trusted:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = SSLContext(PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    async with listening("", context) as port:
        settings = replace(settings, base_url=f"https://127.0.0.1:{port}/v1")
        await assert_named(settings, setting, reason, f"127.0.0.1:{port}", fix)


async def test_self_signed_certificate_is_named_as_such(settings: Settings, tmp_path: Path):
    authority = trustme.CA()
    authority.private_key_pem.write_to_path(tmp_path / "pem")
    authority.cert_pem.write_to_path(tmp_path / "pem", append=True)
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    async with listening("", context) as port:
        settings = replace(settings, base_url=f"https://127.0.0.1:{port}/v1")
        await assert_named(
            settings, "SSL_CERT_FILE", "self-signed certificate", f"127.0.0.1:{port}", "set SSL_CERT_FILE"
        )


async def test_server_without_tls_is_named_as_such(settings: Settings, upstream: RunningServer):
    settings = replace(settings, base_url=upstream.base_url.replace("http:", "https:"))
    await assert_named(
        settings, "OPENAI_BASE_URL", "it does not speak TLS", "127.0.0.1:", "http:// instead of https://"
    )


def test_start_names_a_dead_proxy_on_a_terminal(upstream: RunningServer, tmp_path: Path, closed_port: int):
    terminal = Terminal("https://api.example.com/v1", tmp_path / "data")
    proxy = {"HTTPS_PROXY": f"http://127.0.0.1:{closed_port}"}
    words = f"HTTPS_PROXY: connection refused, cannot connect to the proxy 127.0.0.1:{closed_port}; trying again."
    assert f"Not sent yet: {words}" in terminal.pipe("start", "What is a log?", **proxy).stderr


class _Quiet(TLSListener):
    """A listener that ignores clients that do not trust its certificate."""

    def __init__(self, listener: Listener[ByteStream], context: SSLContext) -> None:
        super().__init__(listener, context, standard_compatible=False)

    @staticmethod
    async def handle_handshake_error(exc: BaseException, stream: AnyByteStream) -> None:
        await stream.aclose()


@asynccontextmanager
async def listening(answer: str, context: SSLContext | None = None) -> AsyncGenerator[int]:
    """Run a server that gives each connection one answer, and yield its port."""

    async def reply(client: AnyByteStream) -> None:
        async with client:
            await client.receive()
            await client.send(answer.encode())

    listener: Listener[SocketStream] = await anyio.create_tcp_listener(local_host="127.0.0.1")
    served = listener if context is None else _Quiet(listener, context)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(served.serve, reply)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()
