"""Callbacks to the callers of jobs: signed, to allowed hosts of the internet only, and until they are accepted."""

import base64
import json
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from hosts import eventually, hosting
from postgres_server import new_database
from receiver import Receiver, receiving
from standardwebhooks import Webhook as StandardWebhook
from standardwebhooks import WebhookVerificationError

from agent_jobs.callback_urls import (
    AllowedHost,
    RefusedUrlError,
    choose_address,
    is_public,
    parse_callback_url,
)
from agent_jobs.clock import Clock
from agent_jobs.errors import ConfigError
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.status import Status
from agent_jobs.notices.callback_sender import CallbackSender, Outcome, read_signing_secrets
from agent_jobs.settings.callback_hosts import callback_hosts
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr, Written
from agent_jobs.store import open_store
from agent_jobs.store.postgres_address import PostgresAddress

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
NEXT_SECRET = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba9876543210").decode()
ALLOWED = (AllowedHost("hooks.example.com"), AllowedHost("other.example.com", 8443), AllowedHost("localhost", 8080))
PUBLIC, OTHER_PUBLIC = "93.184.216.34", "2606:4700::1111"


# Addresses that a start accepts.


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com/",
        "https://HOOKS.example.com:443/path?a=1&b=2",
        "https://other.example.com:8443/x",
        "http://localhost:8080/",
        "https://localhost:8080/",
    ],
)
def test_address_of_an_allowed_host_is_accepted(url: str) -> None:
    assert parse_callback_url(url, ALLOWED).host in {entry.host for entry in ALLOWED}


@pytest.mark.parametrize(
    "url",
    [
        # other hosts, in every notation
        "https://example.com/", "https://evil.com/", "https://hooks.example.com.evil.com/", "https://xhooks.example.com/",
        "https://hooks.example.com./", "https://127.0.0.1/", "https://[::1]/", "https://0.0.0.0/", "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data", "https://[::ffff:127.0.0.1]/", "https://[::ffff:a9fe:a9fe]/",
        "https://2130706433/", "https://0x7f000001/", "https://017700000001/", "https://0177.0.0.1/", "https://127.1/",
        "https://metadata.google.internal/", "https://localhost/", "https://\u2461.example.com/",
        # user names
        "https://hooks.example.com@evil.com/", "https://user@hooks.example.com/", "https://:@hooks.example.com/",
        "https://evil.com#@hooks.example.com/", "https://evil.com\\@hooks.example.com/", "https://@hooks.example.com/",
        # other schemes and ports
        "http://hooks.example.com/", "ftp://hooks.example.com/", "file:///etc/passwd", "gopher://hooks.example.com/",
        "//hooks.example.com/", "hooks.example.com", "https:hooks.example.com", "HTTP://hooks.example.com:443/",
        "https://hooks.example.com:22/", "https://hooks.example.com:0/", "https://hooks.example.com:99999/",
        "https://hooks.example.com:x/", "https://other.example.com/", "http://other.example.com:8443/",
        "http://localhost:8081/", "http://127.0.0.1:8080/",
        # no addresses
        "", " ", "https://", "https:///path", "https://hooks.example.com/ x", "https://hooks.example.com/\r\nX: y",
        "https://hooks.example.com/\0", "https://hooks.example.com/" + "a" * 2000, "https://[::1", "https://h\u00f6oks.example.com/",
    ],
)  # fmt: skip
def test_address_that_is_not_allowed_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(RefusedUrlError) as refused:
        parse_callback_url(url, ALLOWED)
    assert len(url) < 9 or url not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["https://a.com", "a.com/x", "*.a.com", "a b", "a.com:x", "@a.com", ",", "[::1]x", "a..b:"]
)
def test_unusable_list_of_hosts_is_refused(text: str) -> None:
    reader = callback_hosts()
    with pytest.raises(ConfigError):
        reader.read(Written("AGENT_JOBS_CALLBACK_HOSTS", text, "", {}, []))


def test_list_of_hosts_is_read() -> None:
    read = callback_hosts().read(Written("X", " Hooks.example.com, localhost:8080,[::1]:90 ", "", {}, []))
    assert read == (AllowedHost("hooks.example.com"), AllowedHost("localhost", 8080), AllowedHost("::1", 90))


# Addresses to which callbacks are sent.


PRIVATE = """
    127.0.0.1 127.8.8.8 ::1 0.0.0.0 :: 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 fd00:ec2::254 fe80::1
    fe80::1%eth0 fec0::1 ff02::1 224.0.0.1 255.255.255.255 240.0.0.1 192.0.2.1 198.18.0.1 ::ffff:127.0.0.1
    ::ffff:169.254.169.254 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::a9fe:a9fe 2002:7f00:1:: 2001:0:7f00:1:: 2001:db8::1
    2130706433 0x7f.1 0177.0.0.1 localhost
"""


def test_only_addresses_of_the_internet_are_public() -> None:
    assert all(map(is_public, (PUBLIC, OTHER_PUBLIC, "::ffff:93.184.216.34")))
    assert [address for address in ("", *PRIVATE.split()) if is_public(address)] == []


@pytest.mark.parametrize("addresses", [[], ["10.0.0.1"], [PUBLIC, "10.0.0.1"], ["::ffff:127.0.0.1"], [PUBLIC, "::1"]])
def test_name_with_a_private_address_is_not_called(addresses: Sequence[str]) -> None:
    with pytest.raises(RefusedUrlError):
        choose_address(parse_callback_url("https://hooks.example.com/", ALLOWED), addresses)


def test_allowed_port_of_this_machine_leads_nowhere_else() -> None:
    url = parse_callback_url("http://localhost:8080/", ALLOWED)
    assert choose_address(url, ["127.0.0.1"]) == "127.0.0.1"
    for elsewhere in ("10.0.0.1", PUBLIC):
        with pytest.raises(RefusedUrlError):
            choose_address(url, [elsewhere])


class Names:
    """A name server whose answers change, like that of an attacker."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return [self._answers.pop(0)]


async def test_private_address_is_never_connected_to() -> None:
    names = Names("10.0.0.1", "169.254.169.254", "127.0.0.1")
    sender = CallbackSender(ALLOWED, [b"x"], Clock(), resolve=names.resolve)
    for _ in range(3):
        outcome = await sender.send("https://hooks.example.com/", "msg_1", b"{}")
        assert outcome == Outcome("its name resolves to an address that is not public", is_final=False)
    assert names.asked == 3


async def test_name_is_resolved_once_and_stays_that_of_tls_and_host() -> None:
    authority, asked_names = trustme.CA(), list[str]()
    server_context, client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server_context)  # pyright: ignore[reportUnknownMemberType]
    authority.configure_trust(client_context)  # pyright: ignore[reportUnknownMemberType]
    server_context.sni_callback = lambda _socket, name, _context: asked_names.append(name)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with receiving(server_context) as receiver:
        port = int(receiver.url.rpartition(":")[2])
        names = Names("127.0.0.1", "10.0.0.1")
        allowed = [AllowedHost("localhost", port)]
        sender = CallbackSender(allowed, [b"x" * 24], Clock(), resolve=names.resolve, tls=client_context)
        assert await sender.send(f"{receiver.url}/path?q=1", "msg_1", b"{}") == Outcome()
        assert (names.asked, asked_names) == (1, ["localhost"])
        [received] = receiver.received
        assert (received.path, received.headers["host"]) == ("/path?q=1", f"localhost:{port}")
        distrustful = CallbackSender(allowed, [b"x"], Clock(), resolve=Names("127.0.0.1").resolve)
        assert "no connection" in (await distrustful.send(receiver.url, "msg_2", b"{}")).problem
        assert len(receiver.received) == 1


# Callbacks of jobs.


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def calling(settings: Settings, receiver: Receiver, tmp_path: Path) -> Settings:
    secrets = tmp_path / "secrets"
    secrets.write_text(f"{SECRET}\n{NEXT_SECRET}\n")
    port = int(receiver.url.rpartition(":")[2])
    hosts = (AllowedHost("127.0.0.1", port), AllowedHost("hooks.example.com"))
    return replace(settings, callback_hosts=hosts, callback_secret_file=secrets)


@pytest.fixture(params=["sqlite", "postgres"])
def on_both(request: pytest.FixtureRequest, calling: Settings) -> Iterator[Settings]:
    if request.param == "sqlite":
        yield calling
        return
    with new_database(request.getfixturevalue("postgres_server_url")) as url:
        yield replace(calling, database_url=SecretStr(url))


FUNCTION: dict[str, Any] = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}


async def test_job_calls_back_when_it_asks_and_when_it_finished(on_both: Settings, receiver: Receiver) -> None:
    receiver.statuses += [500, 302]  # a receiver that is not ready, and one that redirects
    calls: dict[str, Any] = {
        "turns": [{"function_calls": [{"name": "lookup", "arguments": {}, "call_id": "call_1"}]}, {"text": "private"}]
    }
    async with hosting(on_both) as host, hosting(on_both):  # only one of two processes sends
        options = {"callback_url": f"{receiver.url}/hook?token=s3cret", "tools": [FUNCTION], "key": "mine"}
        job = await host.start("a private prompt", emulate={"duration_s": 0.2, **calls}, options=options)
        await eventually(lambda: len(receiver.received) == 3)
        await host.call("agent_reply", job_id=job["job_id"], outputs={"call_1": "done"})
        await host.end(job["job_id"])
        await eventually(lambda: len(receiver.received) >= 4)
    bodies = [json.loads(each.body) for each in receiver.received]
    assert [body["type"] for body in bodies] == ["job.needs_input"] * 3 + ["job.finished"]
    assert bodies[-1]["data"] == {"job_id": job["job_id"], "status": "completed", "key": "mine"}
    assert {each.path for each in receiver.received} == {"/hook?token=s3cret"}, "no redirect is followed"
    assert b"private" not in b"".join(each.body for each in receiver.received)
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 2
    for each in receiver.received:
        for secret in (SECRET, NEXT_SECRET):
            verify(secret, each.body, dict(each.headers.items()))


def verify(secret: str, body: bytes, headers: dict[str, str]) -> None:
    """Check a signature as a receiver does. The emulated clock is ahead, so the message's own time is used."""
    library = StandardWebhook(secret)
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    expected = library.sign(headers["webhook-id"], at, body.decode())
    if expected not in headers["webhook-signature"].split(" "):
        raise WebhookVerificationError(expected)


async def test_message_of_a_process_that_died_is_sent_by_another(on_both: Settings) -> None:
    url = on_both.database_url
    address = None if url is None else PostgresAddress(url.get_secret_value())
    now = 1_800_000_000.0
    async with open_store(on_both.data_path(), address) as one, open_store(on_both.data_path(), address) as other:
        turn = Turn(number=1, request={}, request_id="r", base_url="https://here/v1")
        job = Job(id="job_1", title="t", status=Status.PENDING, created_at=now, turn=turn, callback_url="https://x/")
        await one.add(job)
        await one.request_cancel("job_1", now)
        [pending] = await other.find_callbacks(now - 10)
        assert (pending.kind, pending.status) == ("job.finished", "cancelled")
        assert await one.add_callback(pending, "msg_1", "{}", now)
        assert not await other.add_callback(pending, "msg_2", "{}", now), "it is claimed for good"
        assert await other.find_callbacks(now - 10) == []
        [message] = await one.claim_callbacks(now, now + 60, 8)
        assert (message.id, message.url, message.attempts) == ("msg_1", "https://x/", 1)
        assert await other.claim_callbacks(now + 59, now + 120, 8) == []
        [again] = await other.claim_callbacks(now + 60, now + 120, 8)
        assert (again.id, again.attempts) == ("msg_1", 2)
        await other.finish_callback("msg_1")
        assert await other.claim_callbacks(now + 1e6, now + 2e6, 8) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"callback_hosts": ()}, "this server calls no addresses"),
        ({"callback_secret_file": None}, "this server calls no addresses"),
        ({}, "does not allow its host"),
    ],
)
async def test_start_with_a_callback_that_is_not_allowed_is_refused_in_a_sentence(
    calling: Settings, change: dict[str, Any], words: str
) -> None:
    async with hosting(replace(calling, **change)) as host:
        refusal = await host.refused(
            "agent_start", prompt="x", options={"callback_url": "https://evil.example.com/t0ken"}
        )
    assert words in refusal
    assert "t0ken" not in refusal


@pytest.mark.parametrize("content", ["", "x", "whsec_", f"{SECRET}\nx"])
def test_unusable_secret_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secrets"
    path.write_text(content)
    with pytest.raises(ConfigError):
        read_signing_secrets(path)
    with pytest.raises(ConfigError):
        read_signing_secrets(tmp_path / "none")
