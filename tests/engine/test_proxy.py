"""A company network: every call goes through a CONNECT proxy to a server with a certificate of a private authority."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext, SSLError

import anyio
import pytest
import trustme
from anyio.abc import AnyByteStream, ByteStream, Listener
from anyio.from_thread import start_blocking_portal
from anyio.streams.tls import TLSListener
from hosts import eventually, hosting
from processes import Server, serving

from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings

UPSTREAM = "upstream.test"


@dataclass
class Network:
    """The server `upstream.test`, and a proxy that alone knows its address."""

    proxy: str
    direct: str
    ca: Path
    connects: list[str] = field(default_factory=list[str])


@pytest.fixture
def network(upstream: RunningServer, tmp_path: Path) -> Generator[Network]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = SSLContext(PROTOCOL_TLS_SERVER)
    authority.issue_cert(UPSTREAM, "127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    network = Network("", "", tmp_path / "ca.pem")
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(run_proxy(network, int(upstream.url.rpartition(":")[2]), context)),
    ):
        yield network


@asynccontextmanager
async def run_proxy(network: Network, plain_port: int, context: SSLContext) -> AsyncGenerator[None]:
    server = await anyio.create_tcp_listener(local_host="127.0.0.1")
    proxy = await anyio.create_tcp_listener(local_host="127.0.0.1")
    tls_port, proxy_port = (port_of(listener) for listener in (server, proxy))
    network.proxy, network.direct = f"http://127.0.0.1:{proxy_port}", f"https://127.0.0.1:{tls_port}/v1"

    async def terminate(client: AnyByteStream) -> None:
        await relay_bytes(client, plain_port)

    async def tunnel(client: ByteStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await client.receive()
        network.connects.append(head.decode().partition("\r\n")[0])
        await client.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await relay_bytes(client, tls_port)

    async with server, proxy, anyio.create_task_group() as tasks:
        tasks.start_soon(_Quiet(server, context).serve, terminate)
        tasks.start_soon(proxy.serve, tunnel)
        yield
        tasks.cancel_scope.cancel()


class _Quiet(TLSListener):
    """A listener that accepts that a client does not trust its certificate."""

    def __init__(self, listener: Listener[ByteStream], context: SSLContext) -> None:
        super().__init__(listener, context, standard_compatible=False)

    @staticmethod
    async def handle_handshake_error(exc: BaseException, stream: AnyByteStream) -> None:
        await stream.aclose()
        if not isinstance(exc, SSLError | anyio.BrokenResourceError | anyio.EndOfStream):
            raise exc


def port_of(listener: "Listener[anyio.abc.SocketStream]") -> int:
    return listener.extra(anyio.abc.SocketAttribute.local_port)


async def relay_bytes(client: AnyByteStream, port: int) -> None:
    """Carry bytes both ways until one side ends."""
    async with client, await anyio.connect_tcp("127.0.0.1", port) as server, anyio.create_task_group() as tasks:

        async def carry(source: AnyByteStream, target: AnyByteStream) -> None:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                async for chunk in source:
                    await target.send(chunk)
            tasks.cancel_scope.cancel()

        tasks.start_soon(carry, client, server)
        tasks.start_soon(carry, server, client)


def finish_job(server: Server) -> str:
    server.initialize()
    started = server.call("agent_start", prompt="hello", wait_s=20)
    return server.call("agent_poll", job_id=started["job_id"])["status"]


@contextmanager
def server_behind_proxy(network: Network, data_dir: Path, base_url: str, **environment: str) -> Generator[Server]:
    """Start the server with the company's settings in an env file."""
    env_file = data_dir.parent / "company.env"
    lines = {"HTTPS_PROXY": network.proxy, **environment}
    env_file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    with serving(data_dir, base_url, "--env-file", str(env_file)) as server:
        yield server


def test_job_runs_through_the_proxy_to_a_server_with_a_private_authority(
    network: Network, upstream: RunningServer, tmp_path: Path
) -> None:
    with server_behind_proxy(
        network, tmp_path / "data", f"https://{UPSTREAM}/v1", SSL_CERT_FILE=str(network.ca)
    ) as server:
        assert finish_job(server) == "completed"
        assert server.end() == 0
    assert set(network.connects) == {f"CONNECT {UPSTREAM}:443 HTTP/1.1"}
    assert upstream.emulator.counters()["creates"] == 1


def test_host_in_no_proxy_is_reached_directly(network: Network, upstream: RunningServer, tmp_path: Path) -> None:
    settings = {"NO_PROXY": "example.com,127.0.0.1", "SSL_CERT_FILE": str(network.ca)}
    with server_behind_proxy(network, tmp_path / "data", network.direct, **settings) as server:
        assert finish_job(server) == "completed"
    assert network.connects == []
    assert upstream.emulator.counters()["creates"] == 1


async def test_server_with_an_untrusted_authority_is_sent_nothing(
    network: Network, upstream: RunningServer, tmp_path: Path
) -> None:
    with server_behind_proxy(network, tmp_path / "data", f"https://{UPSTREAM}/v1") as server:
        server.initialize()
        started = server.call("agent_start", prompt="hello", wait_s=0)
        await eventually(lambda: len(network.connects) > 1)  # it tries again: the network may come back
        assert server.call("agent_poll", job_id=started["job_id"], wait_s=0)["status"] == "pending"
    assert upstream.emulator.counters()["creates"] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "/no/such/file.pem"),
        ("SSL_CERT_FILE", __file__),
        ("HTTPS_PROXY", "socks5://127.0.0.1:1080"),
        ("HTTPS_PROXY", "ftp://127.0.0.1:1080"),
        ("HTTPS_PROXY", "http://127.0.0.1:port"),
    ],
)
async def test_unusable_network_setting_is_named_in_the_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    async with hosting(settings) as host:
        assert name in await host.refused("agent_start", prompt="hello")


def test_server_with_an_unreadable_env_file_runs_and_reports_it(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "http://127.0.0.1:9/v1", "--env-file", str(tmp_path / "gone.env")) as server:
        server.initialize()
        answer = server.request("tools/call", {"name": "agent_start", "arguments": {"prompt": "hello"}})
        assert answer["isError"] is True
        assert "gone.env" in answer["content"][0]["text"]
        assert server.end() == 0
