"""MCP Events over HTTP: polls and signed messages tell hosts that a job has finished or needs an answer."""

import base64
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any

import pytest
from hosts import SPEED, Host, eventually
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND
from receiver import Received, Receiver, receiving
from team_servers import Team, serving_team
from test_callbacks import verify
from test_tasks import ask

from agent_jobs.callback_urls import AllowedHost
from agent_jobs.clock import Clock, create_steady_clock
from agent_jobs.engine.event_feed import MAX_SUBSCRIPTIONS
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings.settings import Settings
from agent_jobs.store.team_records import NewSubscription

SECRET = "whsec_" + base64.b64encode(b"an event receiver's own secret").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret of the receiver").decode()
NOT_FOUND, EXHAUSTED, UNSUPPORTED, UNVERIFIED = -32023, -32025, -32026, -32027
FUNCTION: dict[str, Any] = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}
ASKS: dict[str, Any] = {
    "turns": [{"function_calls": [{"name": "lookup", "arguments": {}, "call_id": "call_1"}]}, {"text": "private"}]
}
CLIENT_INFO = {"name": "x", "version": "1"}
OWNERS = count(1)
LIFETIMES: list[dict[str, Any]] = [{"ttlMs": 0}, {"ttlMs": 1000}, {"ttlMs": 1_800_000}, {}, {"ttlMs": 10**15}]
#: Seconds by which tests set the clock of the server forward.
SKIPPED_S: list[float] = []


def echo_challenge(body: bytes) -> bytes:
    return json.dumps({"challenge": json.loads(body).get("challenge", "")}).encode()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def reset_receiver(receiver: Receiver) -> None:
    receiver.echo = echo_challenge
    receiver.received.clear()
    receiver.statuses.clear()
    receiver.refuse = lambda body: False


@pytest.fixture(scope="module")
async def team(team_settings: Settings, receiver: Receiver, anyio_backend: str) -> AsyncGenerator[Team]:
    port = int(receiver.url.rpartition(":")[2])
    hosts = (AllowedHost("127.0.0.1", port), AllowedHost("localhost", 1), AllowedHost("hooks.example.com"))
    now = create_steady_clock(SPEED)
    clock = Clock(SPEED, lambda: now() + sum(SKIPPED_S))
    async with serving_team(replace(team_settings, callback_hosts=hosts), clock) as team:
        yield team


class EventHost:
    """A host that asks for events."""

    def __init__(self, host: Host, receiver: Receiver) -> None:
        self.host = host
        self.receiver = receiver

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        return await ask(self.host.client, f"events/{method}", **params)

    async def ask_refused(self, method: str, **params: Any) -> MCPError:
        with pytest.raises(MCPError) as refusal:
            await self.ask(method, **params)
        return refusal.value

    async def poll(self, cursor: str | None, name: str = "job.finished", **more: Any) -> dict[str, Any]:
        return await self.ask("poll", name=name, cursor=cursor, **more)

    def build_params(self, path: str = "/hook", secret: str = SECRET, **more: Any) -> dict[str, Any]:
        delivery = {"mode": "webhook", "url": f"{self.receiver.url}{path}", "secret": secret}
        return {"name": "job.finished", "delivery": delivery, **more}

    def list_messages(self, path: str = "/hook") -> list[tuple[dict[str, Any], Received]]:
        """Return the messages that the receiver got at a path, without challenges."""
        found = [(json.loads(each.body), each) for each in self.receiver.received if each.path == path]
        return [(body, each) for body, each in found if "eventId" in body]

    async def finish(self, **more: Any) -> str:
        job = await self.host.start(emulate={"duration_s": 0.2, "text": "private"}, **more)
        return (await self.host.end(job["job_id"]))["job_id"]


@asynccontextmanager
async def event_host(team: Team, receiver: Receiver, era: str = "modern", token: str = "") -> AsyncGenerator[EventHost]:
    """Run a host whose owner has no other host."""
    async with team.host(token or await team.add_token(f"owner{next(OWNERS)}"), era) as host:
        yield EventHost(host, receiver)


# The offered events.


async def test_events_are_offered_over_http_alone(team: Team, receiver: Receiver):
    async with event_host(team, receiver) as host:
        listed = await host.ask("list")
        assert [event["name"] for event in listed["events"]] == ["job.finished", "job.needs_input"]
        assert {tuple(event["delivery"]) for event in listed["events"]} == {("poll", "webhook")}
        assert (await host.ask_refused("list", cursor="x")).code == INVALID_PARAMS

    async def no_engine() -> Any:
        raise AssertionError("not called")

    async with Client(build_server(no_engine)) as local:
        for method in ("list", "poll", "subscribe", "unsubscribe"):
            with pytest.raises(MCPError) as refusal:
                await ask(local, f"events/{method}", name="job.finished")
            assert refusal.value.code == METHOD_NOT_FOUND
        assert "events" not in str(local.server_capabilities)


@pytest.mark.parametrize(
    ("method", "params", "version"),
    [
        ("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": CLIENT_INFO}, ""),
        ("server/discover", {}, "2026-07-28"),
    ],
)  # fmt: skip
async def test_capability_is_named_at_the_top_level_in_both_eras(
    team: Team, method: str, params: dict[str, Any], version: str
):
    headers = {"Accept": "application/json, text/event-stream"}
    if version:
        prefix = "io.modelcontextprotocol/"
        params = {**params, "_meta": {f"{prefix}protocolVersion": version, f"{prefix}clientCapabilities": {}}}
        headers |= {"MCP-Protocol-Version": version, "Mcp-Method": method}
    async with team.http(await team.add_token(), **headers) as http:
        answer = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    text = answer.text.partition("data: ")[2] or answer.text
    capabilities = json.loads(text)["result"]["capabilities"]
    assert capabilities["events"] == {}
    assert "tools" in capabilities
    assert ("io.modelcontextprotocol/events" in capabilities.get("extensions", {})) == (method == "server/discover")


# Polls.


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_poll_returns_the_events_after_its_cursor(team: Team, receiver: Receiver, era: str):
    async with event_host(team, receiver, era) as host:
        before = await host.finish()
        start = await host.poll(None)
        assert (start["events"], start["truncated"], start["hasMore"]) == ([], False, False)
        jobs = [await host.finish(batch="night", options={"key": "k"}), await host.finish(), await host.finish()]
        page = await host.poll(start["cursor"], maxEvents=2)
        rest = await host.poll(page["cursor"])
        events = page["events"] + rest["events"]
        assert ([event["data"]["job_id"] for event in events], page["hasMore"], rest["hasMore"]) == (jobs, True, False)
        assert events[0]["data"] == {"job_id": jobs[0], "status": "completed", "batch": "night", "key": "k"}
        assert (await host.poll(rest["cursor"]))["events"] == []
        filtered = await host.poll(start["cursor"], arguments={"job_id": jobs[1]})
        assert [event["eventId"] for event in filtered["events"]] == [events[1]["eventId"]]
        assert [event["data"]["job_id"] for event in (await host.poll("e0"))["events"]] == [before, *jobs]
        assert (await host.poll(start["cursor"], "job.needs_input"))["events"] == []
        assert "private" not in str(events)


async def test_poll_shows_that_a_job_asks(team: Team, receiver: Receiver):
    async with event_host(team, receiver) as host:
        cursor = (await host.poll(None, "job.needs_input"))["cursor"]
        job = await host.host.start(emulate={"duration_s": 0.2, **ASKS}, options={"tools": [FUNCTION]})
        await host.host.end(job["job_id"])
        [event] = (await host.poll(cursor, "job.needs_input"))["events"]
        assert event["data"] == {"job_id": job["job_id"], "status": "input_required"}
        await host.host.call("agent_reply", job_id=job["job_id"], outputs={"call_1": "done"})
        await host.host.end(job["job_id"])
        [finished] = (await host.poll(cursor))["events"]
        assert finished["data"]["status"] == "completed"


async def test_cursor_outside_the_feed_is_a_gap_and_an_invalid_one_is_refused(team: Team, receiver: Receiver):
    async with event_host(team, receiver) as host:
        await host.finish()
        second = await host.finish()
        store, now = team.server.engine._store, team.server.engine.now()  # pyright: ignore[reportPrivateUsage]
        newest = (await host.poll(None))["cursor"]
        ahead = await host.poll("e999999")
        assert (ahead["truncated"], ahead["events"], ahead["cursor"]) == (True, [], newest)
        aged = await host.poll("e0", maxAgeMs=0)
        assert (aged["truncated"], aged["events"]) == (True, [])
        await store.forget_events(now + 9e9)
        old = await host.poll("e0")
        assert (old["truncated"], [event["data"]["job_id"] for event in old["events"]]) == (True, [second])
        for cursor in ("", "x", "e", "e-1", "e1 ", "1", "e" + "9" * 400, "e1;DROP TABLE feed", "\u0661"):
            assert (await host.ask_refused("poll", name="job.finished", cursor=cursor)).code == INVALID_PARAMS, cursor


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"name": "job.started"}, NOT_FOUND),
        ({"name": "finished"}, NOT_FOUND),
        ({"name": ""}, NOT_FOUND),
        ({}, INVALID_PARAMS),
        ({"name": 7}, INVALID_PARAMS),
        ({"name": "job.finished", "arguments": {"job_id": "job_000000000000"}}, NOT_FOUND),
        ({"name": "job.finished", "arguments": {"batch": "no such"}}, NOT_FOUND),
        ({"name": "job.finished", "arguments": {"owner": "alice"}}, INVALID_PARAMS),
        ({"name": "job.finished", "arguments": {"job_id": ["x"]}}, INVALID_PARAMS),
        ({"name": "job.finished", "arguments": {"job_id": "x" * 201}}, INVALID_PARAMS),
        ({"name": "job.finished", "arguments": "x"}, INVALID_PARAMS),
        ({"name": "job.finished", "maxEvents": 0}, INVALID_PARAMS),
        ({"name": "job.finished", "maxAgeMs": -1}, INVALID_PARAMS),
    ],
)
async def test_wrong_request_is_refused_with_the_code_of_the_protocol(
    team: Team, receiver: Receiver, params: dict[str, Any], code: int
):
    async with event_host(team, receiver) as host:
        assert (await host.ask_refused("poll", **params)).code == code


# Messages to receivers.


async def test_receiver_gets_signed_events_once_it_has_echoed_a_challenge(team: Team, receiver: Receiver):
    async with event_host(team, receiver) as host:
        await host.finish()
        made = await host.ask("subscribe", **host.build_params("/hook?token=s3cret"))
        [challenge] = receiver.received
        assert json.loads(challenge.body)["type"] == "verification"
        assert challenge.headers["webhook-id"].startswith("msg_verification_")
        again = await host.ask("subscribe", **host.build_params("/hook?token=s3cret"))
        assert (again["id"], again["cursor"]) == (made["id"], made["cursor"])
        assert len(receiver.received) == 1, "the receiver is verified for this owner"
        receiver.statuses += [500, 302]
        jobs = [await host.finish(), await host.finish()]
        path = "/hook?token=s3cret"
        await eventually(lambda: len(host.list_messages(path)) == 4)
        messages = host.list_messages(path)
        assert {body["data"]["job_id"] for body, _ in messages} == set(jobs)
        accepted = {body["eventId"] for body, _ in messages[2:]}
        assert len(accepted) == 2, "each is accepted once"
        for body, each in messages:
            headers = dict(each.headers.items())
            assert (headers["webhook-id"], headers["x-mcp-subscription-id"]) == (body["eventId"], made["id"])
            assert (body["name"], headers["content-type"]) == ("job.finished", "application/json")
            verify(SECRET, each.body, headers)
        assert b"private" not in b"".join(each.body for _, each in messages)
        polled = await host.poll(made["cursor"])
        assert {event["eventId"] for event in polled["events"]} == accepted, "an event has one id in both"
        assert "s3cret" not in str(made)


async def test_cursor_of_a_message_stays_before_an_event_that_is_still_being_sent(team: Team, receiver: Receiver):
    """If an event overtakes another, its cursor stays before the other one."""
    async with event_host(team, receiver) as host:
        made = await host.ask("subscribe", **host.build_params("/slow"))
        receiver.refuse = lambda body: True
        first = await host.finish()
        await eventually(lambda: bool(host.list_messages("/slow")))
        receiver.refuse = lambda body: first.encode() in body
        second = await host.finish()
        await eventually(lambda: any(body["data"]["job_id"] == second for body, _ in host.list_messages("/slow")))
        overtaking = next(body for body, _ in host.list_messages("/slow") if body["data"]["job_id"] == second)
        assert overtaking["cursor"] == made["cursor"]
        assert (await host.ask("subscribe", **host.build_params("/slow")))["cursor"] == made["cursor"]
        receiver.refuse = lambda body: False
        third = await host.finish()
        await eventually(lambda: host.list_messages("/slow")[-1][0]["data"]["job_id"] == third)


async def test_job_batch_and_kind_choose_the_events(team: Team, receiver: Receiver):
    async with event_host(team, receiver) as host:
        job = await host.host.start(emulate={"duration_s": 1, **ASKS}, options={"tools": [FUNCTION]}, batch="night")
        only = {"job_id": job["job_id"]}
        await host.ask("subscribe", **host.build_params("/asks", name="job.needs_input", arguments=only))
        await host.ask("subscribe", **host.build_params("/job", arguments=only))
        await host.ask("subscribe", **host.build_params("/batch", arguments={"batch": "night"}))
        other = await host.finish()
        await host.host.end(job["job_id"])
        await host.host.call("agent_reply", job_id=job["job_id"], outputs={"call_1": "done"})
        await host.host.end(job["job_id"])
        await host.ask("subscribe", **host.build_params("/all", cursor="e0"))
        await eventually(lambda: len(host.list_messages("/all")) == 2)
        await eventually(lambda: all(host.list_messages(path) for path in ("/asks", "/job", "/batch")))
        names = {
            path: [body["data"]["job_id"] for body, _ in host.list_messages(path)]
            for path in ("/asks", "/job", "/batch")
        }
        assert set(map(tuple, names.values())) == {(job["job_id"],)}
        assert {body["data"]["job_id"] for body, _ in host.list_messages("/all")} == {job["job_id"], other}


async def test_secret_of_a_receiver_can_be_changed(team: Team, receiver: Receiver):
    async with event_host(team, receiver) as host:
        for secret in (SECRET, OTHER_SECRET):
            await host.ask("subscribe", **host.build_params(secret=secret))
        await host.finish()
        await eventually(lambda: bool(host.list_messages()))
        _, received = host.list_messages()[0]
        for secret in (SECRET, OTHER_SECRET):
            verify(secret, received.body, dict(received.headers.items()))


ECHOES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda body: b"",
    "another challenge": lambda body: b'{"challenge": "x"}',
    "no object": lambda body: json.dumps([json.loads(body)["challenge"]]).encode(),
    "a number": lambda body: b'{"challenge": 1}',
    "the whole message": lambda body: body[:-1],
    "half a pair": lambda body: b'{"challenge": "\\ud800"}',
    "very deep": lambda body: b"[" * 4000,
    "very long": lambda body: b" " * 300_000 + echo_challenge(body),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
async def test_receiver_that_does_not_echo_the_challenge_gets_nothing(
    team: Team, receiver: Receiver, echo: Callable[[bytes], bytes]
):
    async with event_host(team, receiver) as host:
        receiver.echo = echo
        refusal = await host.ask_refused("subscribe", **host.build_params())
        assert (refusal.code, refusal.data) == (UNVERIFIED, {"reason": "challenge_failed"})
        assert receiver.url not in str(refusal)
        await host.finish()
        receiver.echo = echo_challenge
        await host.ask("subscribe", **host.build_params("/later"))
        await host.finish()
        await eventually(lambda: bool(host.list_messages("/later")))
        assert host.list_messages() == []


@pytest.mark.parametrize(("status", "reason"), [(302, "challenge_failed"), (404, "http_4xx"), (500, "http_5xx")])
async def test_failed_challenge_names_only_a_kind_of_failure(team: Team, receiver: Receiver, status: int, reason: str):
    async with event_host(team, receiver) as host:
        receiver.statuses.append(status)
        assert (await host.ask_refused("subscribe", **host.build_params())).data == {"reason": reason}
        unreachable = {"mode": "webhook", "url": "http://localhost:1/", "secret": SECRET}
        assert (await host.ask_refused("subscribe", name="job.finished", delivery=unreachable)).data == {
            "reason": "connection_refused"
        }


@pytest.mark.parametrize(
    "delivery",
    [
        *({"url": url} for url in (
            "https://evil.example/", "https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/", "",
            "http://hooks.example.com/", "https://hooks.example.com:8443/", "https://a@hooks.example.com/",
            "http://127.0.0.1:2/", "file:///etc/passwd", "https://hooks.example.com/" + "x" * 2000,
        )),
        *({"secret": secret} for secret in (
            "", "s3cret", "whsec_x", "whsec_" + base64.b64encode(b"x" * 23).decode(),
            "whsec_" + base64.b64encode(b"x" * 65).decode(),
        )),
    ],
)  # fmt: skip
async def test_address_or_secret_that_may_not_be_used_is_refused(
    team: Team, receiver: Receiver, delivery: dict[str, str]
):
    async with event_host(team, receiver) as host:
        params = host.build_params()
        refusal = await host.ask_refused("subscribe", **{**params, "delivery": {**params["delivery"], **delivery}})
        assert refusal.code == INVALID_PARAMS
        assert [value for value in delivery.values() if len(value) > 8 and value in str(refusal)] == []
        assert receiver.received == []


async def test_other_ways_of_delivery_are_not_supported(team: Team, receiver: Receiver, team_settings: Settings):
    async with event_host(team, receiver) as host:
        params = host.build_params()
        refusal = await host.ask_refused("subscribe", **{**params, "delivery": {**params["delivery"], "mode": "push"}})
        assert (refusal.code, refusal.data) == (UNSUPPORTED, {"feature": "deliveryMode", "value": "push"})
    async with serving_team(team_settings) as other, event_host(other, receiver) as host:
        assert {tuple(event["delivery"]) for event in (await host.ask("list"))["events"]} == {("poll",)}
        assert (await host.ask_refused("subscribe", **host.build_params())).code == UNSUPPORTED
        assert (await host.poll(None))["events"] == []


async def test_subscription_ends_when_it_is_unsubscribed(team: Team, receiver: Receiver):
    async with event_host(team, receiver) as host:
        await host.ask("subscribe", **host.build_params())
        await host.ask("subscribe", **host.build_params("/stays"))
        gone = {"name": "job.finished", "delivery": {"url": f"{receiver.url}/hook"}}
        assert await host.ask("unsubscribe", **gone) is not None
        assert (await host.ask_refused("unsubscribe", **gone)).data == {"kind": "subscription"}
        await host.finish()
        await eventually(lambda: bool(host.list_messages("/stays")))
        assert host.list_messages() == []


async def test_lifetime_is_granted_within_limits(team: Team, receiver: Receiver):
    async with event_host(team, receiver) as host:
        granted: list[int] = []
        for lifetime in LIFETIMES:
            asked_at = team.server.engine.now()
            made = await host.ask("subscribe", **host.build_params(**lifetime))
            expires_at = datetime.fromisoformat(made["refreshBefore"]).timestamp()
            assert expires_at > asked_at
            granted.append(int((expires_at - asked_at) // 300) * 5)  # the emulated clock is fast
        assert granted == [5, 5, 30, 60, 1440]


# Other owners, tokens that expire, and limits.


async def test_other_owner_reads_nothing_and_changes_nothing(team: Team, receiver: Receiver):
    async with event_host(team, receiver) as alice, event_host(team, receiver) as bob:
        job_id = await alice.finish(batch="night")
        made = await alice.ask("subscribe", **alice.build_params("/alice"))
        assert (await bob.poll("e0"))["events"] == []
        for arguments in ({"job_id": job_id}, {"batch": "night"}):
            foreign = await bob.ask_refused("poll", name="job.finished", cursor="e0", arguments=arguments)
            unknown = await bob.ask_refused(
                "poll", name="job.finished", cursor="e0", arguments=dict.fromkeys(arguments, "no such")
            )
            assert foreign.error == unknown.error
            assert (await bob.ask_refused("subscribe", **bob.build_params(arguments=arguments))).error == unknown.error
        gone = {"name": "job.finished", "delivery": {"url": f"{receiver.url}/alice"}}
        assert (await bob.ask_refused("unsubscribe", **gone)).code == NOT_FOUND
        challenges = len(receiver.received)
        stolen = await bob.ask("subscribe", **bob.build_params("/alice", OTHER_SECRET))
        assert (stolen["id"] != made["id"], len(receiver.received)) == (True, challenges + 1), "bob is challenged too"
        await bob.finish()
        theirs_id = await alice.finish()
        await eventually(lambda: len(alice.list_messages("/alice")) == 2)
        ids = {
            each.headers["x-mcp-subscription-id"]: body["data"]["job_id"]
            for body, each in alice.list_messages("/alice")
        }
        assert ids[made["id"]] == theirs_id
        assert ids[stolen["id"]] != theirs_id


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_no_message_is_sent_once_the_token_has_ended(team: Team, receiver: Receiver, end: str):
    owner, owners = f"owner{next(OWNERS)}", team.server.engine.owners
    lifetime_s = 1800.0 if end == "expired" else None
    token, record = await owners.add_token(owner, lifetime_s=lifetime_s)
    stays = await team.add_token(owner)
    async with event_host(team, receiver, token=token) as ending, event_host(team, receiver, token=stays) as host:
        made = await ending.ask("subscribe", **ending.build_params("/ends"))
        await host.ask("subscribe", **host.build_params("/stays", cursor=made["cursor"]))
        receiver.refuse = lambda body: True  # a message that waits for its next attempt is not sent either
        await host.finish()
        await eventually(lambda: bool(host.list_messages("/ends")))
        if end == "revoked":
            await owners.revoke_token(record.id)
        else:
            assert record.expires_at is not None
            assert datetime.fromisoformat(made["refreshBefore"]).timestamp() <= record.expires_at
            SKIPPED_S.append(1800.0)
        sent = len(host.list_messages("/ends"))
        receiver.refuse = lambda body: False
        late = await host.finish()
        await eventually(lambda: any(body["data"]["job_id"] == late for body, _ in host.list_messages("/stays")))
        assert late not in {body["data"]["job_id"] for body, _ in host.list_messages("/ends")}
        assert len(host.list_messages("/ends")) <= sent + 1, "one attempt may have been under way"


async def test_subscriptions_and_challenges_of_an_owner_are_limited(team: Team, receiver: Receiver):
    owner = f"owner{next(OWNERS)}"
    async with event_host(team, receiver, token=await team.add_token(owner)) as host:
        made = await host.ask("subscribe", **host.build_params())
        store = team.server.engine._store.for_owner(owner)  # pyright: ignore[reportPrivateUsage]
        now = team.server.engine.now()
        number = 0
        for number in range(10_000):
            new = NewSubscription(f"sub_{number}", "", "finished", "", "", f"{receiver.url}/hook", SECRET, now + 9e9)
            if await store.save_subscription(new, now, limit=MAX_SUBSCRIPTIONS) is None:
                break
        assert number == MAX_SUBSCRIPTIONS - 1
        refusal = await host.ask_refused("subscribe", **host.build_params(arguments={}, name="job.needs_input"))
        assert (refusal.code, refusal.data) == (EXHAUSTED, {"limit": "subscriptions", "max": MAX_SUBSCRIPTIONS})
        assert (await host.ask("subscribe", **host.build_params()))["id"] == made["id"], (
            "a refresh is not a new subscription"
        )
    receiver.echo = lambda body: b""
    async with event_host(team, receiver) as flooding:
        codes = [(await flooding.ask_refused("subscribe", **flooding.build_params(f"/{n}"))).code for n in range(40)]
        assert EXHAUSTED in codes
        assert len(receiver.received) < 40


async def test_audit_log_has_subscriptions_without_their_address(team: Team, receiver: Receiver):
    owner = f"owner{next(OWNERS)}"
    async with event_host(team, receiver, token=await team.add_token(owner)) as host:
        await host.ask("subscribe", **host.build_params("/s3cret"))
        await host.ask("unsubscribe", **host.build_params("/s3cret"))
    entries = [entry for _, entry in await team.server.engine.owners.read_log(owner=owner)]
    assert [entry.action for entry in entries] == ["subscribe job.finished", "unsubscribe job.finished"]
    assert "s3cret" not in str(entries)
