"""Webhooks of the provider: each causes a retrieval of its job. A lost one costs time, a forged one is refused."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from hosts import Host, eventually, hosting
from postgres_server import new_database
from team_apps import NEXT_SECRET, SECRET, client_of, serving_routes, webhook_request

from agent_jobs.emulator.server import RunningServer
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import ConfigError
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.status import Status
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr
from agent_jobs.store import open_store
from agent_jobs.store.postgres_address import PostgresAddress
from agent_jobs.store.team_records import Webhook
from agent_jobs.team_server.provider_webhooks import BODY_BYTES, WEBHOOK_PATH, build_webhook_routes, read_secrets

#: Without streams, only polls and webhooks show the progress of a job.
POLLED: dict[str, Any] = {"follow": 0}


@dataclass(frozen=True)
class Team:
    """A server that receives webhooks, and the client of its jobs."""

    host: Host
    http: httpx2.AsyncClient
    engine: Engine

    async def post(self, **request: Any) -> int:
        return (await self.http.post(WEBHOOK_PATH, **request)).status_code


@asynccontextmanager
async def team(settings: Settings, upstream: RunningServer, *, sends: bool = False) -> AsyncGenerator[Team]:
    """Run a server. If `sends` is true, the emulator sends webhooks to it."""
    assert settings.webhook_secret_file is not None
    async with hosting(settings) as host:
        routes = build_webhook_routes(host.app.engine, settings.webhook_secret_file)
        async with serving_routes(routes) as url, client_of(url) as http:
            if sends:
                upstream.emulator.send_webhooks(f"{url}{WEBHOOK_PATH}", SECRET)
            yield Team(host, http, await host.app.engine())


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.fixture
def hooked(settings: Settings, secrets: Path) -> Settings:
    return replace(settings, webhook_secret_file=secrets, **POLLED)


@pytest.fixture(params=["sqlite", "postgres"])
def on_both(request: pytest.FixtureRequest, hooked: Settings) -> Iterator[Settings]:
    if request.param == "sqlite":
        yield hooked
        return
    with new_database(request.getfixturevalue("postgres_server_url")) as url:
        yield replace(hooked, database_url=SecretStr(url))


def list_response_ids(upstream: RunningServer) -> list[str]:
    return [entry["id"] for entry in upstream.emulator.log() if entry["entry"] == "response"]


def count_gets(upstream: RunningServer) -> list[int]:
    """Count the GETs of each created response, in order."""
    asked = [e.get("response_id") for e in upstream.emulator.log() if e.get("operation") == "retrieve"]
    return [asked.count(response_id) for response_id in list_response_ids(upstream)]


async def test_webhook_has_its_job_retrieved_and_the_next_ones_polled_seldom(
    on_both: Settings, upstream: RunningServer
) -> None:
    async with team(on_both, upstream, sends=True) as server:
        first = await server.host.start(emulate={"duration_s": 1})  # it is polled, since no webhook has arrived yet
        assert (await server.host.end(first["job_id"]))["status"] == "completed"
        await wait_for_first_webhook(server)
        second = await server.host.start(emulate={"duration_s": 12, "text": "told"})
        assert (await server.host.end(second["job_id"]))["output"] == "told"
    assert count_gets(upstream)[1] == 1, "only the webhook caused its retrieval"


async def wait_for_first_webhook(server: Team) -> None:
    """Send webhooks until one is accepted: from then on the server expects more."""
    status = 0
    while status != 204:
        status = await server.post(**webhook_request("resp_of_another_program"))


async def test_poll_replaces_lost_webhooks_and_late_or_doubled_ones_change_nothing(
    hooked: Settings, upstream: RunningServer
) -> None:
    upstream.queue_fault(on="webhook", webhook_lost=True, times=1)
    upstream.queue_fault(on="webhook", webhook_copies=3, times=1, skip=1)
    upstream.queue_fault(on="webhook", delay_s=20, times=1, skip=2)
    async with team(hooked, upstream, sends=True) as server:
        await wait_for_first_webhook(server)
        jobs = [await server.host.start(emulate={"duration_s": 30 + n}) for n in range(3)]
        for job in jobs:
            assert (await server.host.end(job["job_id"]))["status"] == "completed"
    assert max(count_gets(upstream)) <= 2


@pytest.mark.parametrize("loses", ["the answer", "nothing"])
async def test_webhook_of_an_unknown_response_finds_its_job(
    on_both: Settings, upstream: RunningServer, loses: str
) -> None:
    """If the answer of a start is lost or comes after the webhook, the job still has one response."""
    if loses == "the answer":
        upstream.queue_fault(on="create", drop="after_accept")
    else:
        upstream.queue_fault(on="create", delay_created_s=5)
    async with team(on_both, upstream, sends=True) as server:
        started = await server.host.start(emulate={"duration_s": 1, "text": "found"})
        with anyio.fail_after(60):
            while (answer := await server.host.end(started["job_id"]))["status"] != "completed":
                pass
    assert answer["output"] == "found"
    assert upstream.emulator.counters()["creates"] == 1


async def test_response_of_another_program_is_retrieved_once(hooked: Settings, upstream: RunningServer) -> None:
    async with team(hooked, upstream, sends=True) as server:
        assert await server.post(**webhook_request("resp_elsewhere")) == 204
        await eventually(lambda: upstream.emulator.counters()["retrieves"] == 1)
        job = await server.host.start(emulate={"duration_s": 3})
        await server.host.end(job["job_id"])
    gets = [entry for entry in upstream.emulator.log() if entry.get("response_id") == "resp_elsewhere"]
    assert len(gets) == 1


HERE = "https://here/v1"
NOW = 1_800_000_000.0


async def test_webhook_that_comes_during_a_step_has_the_next_step_run_at_once(
    on_both: Settings,
) -> None:
    """The current step may have retrieved the response a moment before it finished."""
    url = on_both.database_url
    address = None if url is None else PostgresAddress(url.get_secret_value())
    async with open_store(on_both.data_path(), address) as store:
        turn = Turn(number=1, request={}, request_id="r", base_url=HERE)
        await store.add(Job(id="job_1", title="t", status=Status.PENDING, created_at=NOW, turn=turn))
        await store.record_response_id("job_1", 1, "resp_1", NOW)
        await store.schedule("job_1", NOW, 1)
        assert await store.find_due(NOW + 1, HERE) == ["job_1"]
        webhook = Webhook("wh_1", HERE, "resp_1", "response.completed")
        assert await store.record_webhook(webhook._replace(base_url="https://there/v1", id="wh_0"), NOW + 2) == ""
        assert await store.record_webhook(webhook, NOW + 2) == "job_1"
        await store.schedule("job_1", NOW + 3, 300, 300)
        assert await store.next_due_at(HERE) == NOW + 3
        assert await store.find_due(NOW + 3, HERE) == ["job_1"]
        assert await store.record_webhook(webhook, NOW + 4) is None, "a replay"
        await store.schedule("job_1", NOW + 5, 300, 300)
        assert await store.next_due_at(HERE) == NOW + 305
        assert await store.expects_webhook(HERE, "resp_2", NOW)
        assert not await store.expects_webhook(HERE, "resp_1", NOW), "it came"
        assert not await store.expects_webhook(HERE, "resp_2", NOW + 3), "too long ago"
        await store.forget_webhooks(NOW + 10)
        assert await store.last_webhook_at(HERE) is None


def forge_webhook(**change: Any) -> dict[str, Any]:
    request = webhook_request("resp_1")
    headers = request["headers"] | change.pop("headers", {})
    return {**request, **change, "headers": {name: value for name, value in headers.items() if value is not None}}


FORGED: dict[str, dict[str, Any]] = {
    "another secret": webhook_request("resp_1", secret=NEXT_SECRET),
    "over five minutes old": webhook_request("resp_1", sent_at=1_000_000_000),
    "from the future": webhook_request("resp_1", sent_at=4_000_000_000),
    "another body": forge_webhook(content=b'{"type": "response.completed", "data": {"id": "resp_2"}}'),
    "another id": forge_webhook(headers={"webhook-id": "wh_other"}),
    "another time": forge_webhook(headers={"webhook-timestamp": "1"}),
    "no number as time": forge_webhook(headers={"webhook-timestamp": "nan"}),
    "no signature": forge_webhook(headers={"webhook-signature": None}),
    "garbage as signature": forge_webhook(headers={"webhook-signature": "garbage"}),
    "three parts": forge_webhook(headers={"webhook-signature": "v1,a,b"}),
    "another version": forge_webhook(headers={"webhook-signature": "v2,AAAA"}),
    "no base64": forge_webhook(headers={"webhook-signature": "v1,*"}),
    "no UTF-8": forge_webhook(content=b"\xff"),
    "empty": forge_webhook(content=b""),
}


async def test_forged_repeated_and_odd_webhooks_change_nothing(hooked: Settings, upstream: RunningServer) -> None:
    async with team(hooked, upstream) as server:
        job = await server.host.start(emulate={"end": "never"})
        for name, request in FORGED.items():
            assert await server.post(**request) == 400, name
        assert await server.post(content=b"x" * (BODY_BYTES + 1)) == 413
        assert (await server.http.get(WEBHOOK_PATH)).status_code == 405
        for odd in (None, 7, ["resp"], {"id": "resp"}, "r" * 201):
            assert await server.post(**webhook_request(odd)) == 204
        assert await server.post(**webhook_request("batch_1", kind="batch.completed")) == 204
        intake = server.engine.webhooks
        assert intake is not None
        # A repeated message is not a second hint, whatever response it names.
        [response_id] = list_response_ids(upstream)
        genuine = webhook_request(response_id)
        message_id = genuine["headers"]["webhook-id"]
        assert await server.post(**genuine) == 204
        assert await server.post(**genuine) == 204
        assert await intake.accept(message_id, response_id, "response.completed") is None
        assert await intake.accept("wh_new", response_id, "response.completed") == job["job_id"]


def rewrite(path: Path, content: str) -> None:
    path.write_text(content)


async def test_secrets_can_be_changed_without_a_restart(
    hooked: Settings, upstream: RunningServer, secrets: Path
) -> None:
    async with team(hooked, upstream) as server:
        for content, accepted in (
            (f"{SECRET}\n{NEXT_SECRET}\n", {SECRET, NEXT_SECRET}),
            ("no secret", {SECRET, NEXT_SECRET}),  # a mistake changes nothing
            (NEXT_SECRET, {NEXT_SECRET}),
        ):
            rewrite(secrets, content)
            for secret in (SECRET, NEXT_SECRET):
                expected = 204 if secret in accepted else 400
                assert await server.post(**webhook_request("resp_x", secret=secret)) == expected


@pytest.mark.parametrize(
    "content",
    ["", "\n\n", "whsec_", "whsec_c2hvcnQ=", "not base64 at all!", "a\0b", "\n".join([SECRET] * 5), b"\xff\xfe"],
)
def test_unusable_secrets_are_refused_without_being_repeated(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "secrets"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as refused:
        read_secrets(path)
    assert str(path) in str(refused.value)
    assert "c2hvcnQ" not in str(refused.value)
    with pytest.raises(ConfigError):
        read_secrets(tmp_path / "none")
