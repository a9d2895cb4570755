"""Calls wait as long as the client's name and its cancellations allow, and report progress meanwhile."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest
from hosts import SPEED, Host, eventually, hosting, script_prompt
from mcp import Client
from mcp.client._memory import InMemoryTransport
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import SessionMessage
from mcp_types import Implementation, JSONRPCNotification, JSONRPCRequest
from processes import MODERN
from upstream_log import creates, size

from agent_jobs.app import open_app
from agent_jobs.clock import Clock, create_fast_clock, create_steady_clock
from agent_jobs.emulator.server import RunningServer
from agent_jobs.mcp_server import tools
from agent_jobs.mcp_server.server import build_server
from agent_jobs.mcp_server.wait_limits import BACKGROUND_NOTE, WaitLimits, find_wait_cap_s
from agent_jobs.settings.settings import Settings

ENDLESS = {"end": "never"}
#: Seconds of this clock in a real one. Time between a host's limit and the end of its call counts as waited.
PASSING = 5.0
INF = float("inf")
#: Connections of a client in this process: by messages in both eras, or by plain calls.
WIRES = ["legacy", MODERN, "direct"]


@pytest.mark.parametrize(
    ("client", "cap_s"),
    [
        ("claude-code", 1500),
        ("Claude Code", 1500),
        ("codex-mcp-client", 240),
        ("codex_vscode", 240),
        ("Goose", 240),
        ("gemini-cli-mcp-client", 540),
        ("qwen-cli-mcp-client-agent-jobs", 540),
        ("qwen-cli-mcp-client-another name", 540),
        ("opencode", 380),
        ("kilo", 380),
        ("Kilo Code", 380),
        ("continue-cli-client", 45),
        ("@cline/core", 45),
        ("copilot-cli", 45),
        ("mcp", 25),
        ("MCP", 25),
        ("fastmcp", 25),
        ("Java SDK MCP Client", 25),
        ("rmcp", 25),
        ("mcp-use", 45),
        ("fast-agent-mcp", 45),
        ("codexter", 45),
        ("my-claude-code", 45),
        ("someone", 45),
        ("", 45),
    ],
)
def test_client_waits_as_long_as_its_host_was_seen_to_allow(client: str, cap_s: float) -> None:
    assert find_wait_cap_s(client) == cap_s
    assert WaitLimits(None).limit_s(client) == cap_s
    assert WaitLimits(50).limit_s(client) == 50


@dataclass(frozen=True, slots=True)
class Cutting(Clock):
    """Clock of a host that cuts calls. A wait within its limit takes a second, a longer one lasts until the cut."""

    cut_s: float = INF
    asked_s: list[float] = field(default_factory=list[float])
    passed_s: list[float] = field(default_factory=list[float])

    @classmethod
    def at(cls, cut_s: float) -> "Cutting":
        passed_s: list[float] = []
        wall = create_steady_clock(PASSING)
        return cls(PASSING, lambda: wall() + sum(passed_s), cut_s, [], passed_s)

    def limit(self, seconds: float) -> anyio.CancelScope:
        if seconds == INF:
            return Clock.limit(self, seconds)
        self.asked_s.append(seconds)
        return Clock.limit(self, INF if seconds > self.cut_s else min(seconds, 1.0))


@asynccontextmanager
async def connected(
    settings: Settings, clock: Clock, wire: str = "direct", client: str = "someone"
) -> AsyncGenerator[Host]:
    """Run a host with this connection. Jobs are polled, because a stream has limits of its own."""
    async with open_app(replace(settings, follow=0), clock) as app:
        mcp = build_server(app.engine, max_wait_s=settings.max_wait_s)
        transport = mcp if wire == "direct" else InMemoryTransport(mcp)
        mode = MODERN if wire == "direct" else wire
        async with Client(transport, mode=mode, client_info=Implementation(name=client, version="1")) as session:
            yield Host(app, session)


async def cut(host: Host, clock: Cutting, tool: str, **arguments: Any) -> dict[str, Any] | None:
    """Return the answer to a call; None if the host cancelled it because it waited too long."""
    clock.asked_s.clear()
    began, answers = clock.now(), list[dict[str, Any]]()
    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            answers.append(await host.call(tool, **arguments))

        tasks.start_soon(call)
        await eventually(lambda: bool(answers) or max(clock.asked_s, default=0.0) > clock.cut_s)
        if not answers:
            clock.passed_s.append(max(0.0, began + clock.cut_s - clock.now()))
            tasks.cancel_scope.cancel()
    return answers[0] if answers else None


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("cut_s", "lost"), [(5, 1), (30, 1), (60, 0)])
async def test_host_that_cuts_calls_loses_one_poll_at_most_and_reads_the_result(
    settings: Settings, upstream: RunningServer, wire: str, cut_s: float, lost: int
) -> None:
    clock = Cutting.at(cut_s)
    async with connected(settings, clock, wire) as host:
        prompt = script_prompt("long work", {"duration_s": 1.5 * SPEED, "text": "the result"})
        started = await cut(host, clock, "agent_start", prompt=prompt)
        assert started is not None, "a start is shorter than every limit that was seen"
        polls = [await cut(host, clock, "agent_poll", job_id=started["job_id"])]
        while (answer := polls[-1]) is None or "next_poll_ms" in answer:
            polls.append(await cut(host, clock, "agent_poll", job_id=started["job_id"]))
    assert polls.count(None) == lost
    assert answer["output"] == "the result"
    assert all(each["next_poll_ms"] <= cut_s * 800 for each in polls[1:-1] if each is not None) or not lost
    assert creates(upstream) == 1


@pytest.mark.parametrize(
    ("wire", "tool", "arguments"),
    [
        *((wire, "agent_poll", {}) for wire in WIRES),
        ("legacy", "agent_poll", {"wait_s": 10_000}),
        ("legacy", "agent_start", {"prompt": script_prompt("more", ENDLESS), "wait_s": 40}),
        (MODERN, "agent_start", {"prompts": [script_prompt("more", ENDLESS)] * 2, "wait_s": 40}),
    ],
    ids=[*WIRES, "long poll", "start", "starts"],
)
async def test_cut_call_shortens_all_later_ones(
    settings: Settings, wire: str, tool: str, arguments: dict[str, Any]
) -> None:
    clock = Cutting.at(20)
    async with connected(settings, clock, wire) as host:
        await host.start(emulate=ENDLESS)
        assert await cut(host, clock, tool, **arguments) is None
        for later in ({}, {"wait_s": 10_000}, {"wait_s": 17}):
            polled = await cut(host, clock, "agent_poll", **later)
            assert polled is not None
            assert max(clock.asked_s) <= 17
            assert max(clock.asked_s) > 12
        started = await cut(host, clock, "agent_start", prompt=script_prompt("another", ENDLESS), wait_s=10_000)
        assert started is not None
        assert 12 < max(clock.asked_s) <= 17
        open_jobs = await host.call("agent_list", status="open")
        await host.call("agent_cancel", job_ids=[row["job_id"] for row in open_jobs["jobs"]])


async def test_learned_limit_overrides_the_setting_and_the_table(settings: Settings) -> None:
    waits = WaitLimits(300)
    waits.learn_limit("codex-mcp-client", 60)
    assert waits.limit_s("codex-mcp-client") == 48
    assert waits.limit_s("another") == 300
    waits.learn_limit("codex-mcp-client", 200)
    assert waits.limit_s("codex-mcp-client") == 48, "a limit was learned; this call was cancelled for another reason"
    waits.learn_limit("codex-mcp-client", 0.5)
    assert waits.limit_s("codex-mcp-client") == 48, "no host cuts calls within a second"
    waits.learn_limit("codex-mcp-client", 5)
    assert waits.limit_s("codex-mcp-client") == waits.limit_s("codex-mcp-client") == 4
    assert waits.start_limit_s("codex-mcp-client") == 4
    assert waits.choose_hint_ms("codex-mcp-client", 30_000) == 4_000
    assert waits.choose_hint_ms("codex-mcp-client", 2_000) == 2_000
    assert waits.choose_hint_ms("another", 30_000) == 30_000


@pytest.mark.parametrize("end", ["the host leaves", "the process ends"])
async def test_connection_that_closes_during_a_poll_sets_no_limit(settings: Settings, end: str) -> None:
    clock = Cutting.at(20)
    client = Implementation(name="someone", version="1")
    start: dict[str, Any] = {"prompt": script_prompt("long work", ENDLESS), "wait_s": 0}
    async with open_app(replace(settings, follow=0), clock) as app:
        mcp = build_server(app.engine)
        low = mcp._lowlevel_server  # pyright: ignore[reportPrivateUsage]
        async with create_client_server_memory_streams() as (ours, theirs), anyio.create_task_group() as tasks:
            tasks.start_soon(low.run, *theirs, low.create_initialization_options())
            received, sent = ours
            opened = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client.model_dump()}
            await sent.send(message(1, "initialize", opened))
            await received.receive()
            await sent.send(message(None, "notifications/initialized", {}))
            await sent.send(message(2, "tools/call", {"name": "agent_start", "arguments": start}))
            await received.receive()
            clock.asked_s.clear()
            await sent.send(message(3, "tools/call", {"name": "agent_poll", "arguments": {}}))
            await eventually(lambda: max(clock.asked_s, default=0.0) > 40)
            if end == "the host leaves":
                await sent.aclose()
            else:
                tasks.cancel_scope.cancel()
        async with Client(mcp, client_info=client) as session:
            host = Host(app, session)
            assert await cut(host, clock, "agent_poll") is None, "this one is to wait 45 s again"


def message(number: int | None, method: str, params: dict[str, Any]) -> SessionMessage:
    if number is None:
        return SessionMessage(JSONRPCNotification(jsonrpc="2.0", method=method, params=params))
    return SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=number, method=method, params=params))


@pytest.mark.parametrize(
    ("client", "longest_s", "arguments"),
    [
        ("someone", 3, {}),
        ("fastmcp", 3, {"wait_s": 0}),
        ("someone", 3, {"prompts": 2}),
        ("codex-mcp-client", 5, {}),
    ],
)
async def test_start_answers_before_any_host_that_was_seen_cuts_it(
    settings: Settings, upstream: RunningServer, client: str, longest_s: float, arguments: dict[str, Any]
) -> None:
    upstream.queue_fault(on="create", delay_s=1000)
    upstream.queue_fault(on="create", delay_s=1000)
    clock = Cutting.at(longest_s)
    prompt = script_prompt("slow to begin", ENDLESS)
    given = {"prompts": [prompt] * 2} if "prompts" in arguments else {"prompt": prompt, **arguments}
    async with connected(settings, clock, client=client) as host:
        answer = await cut(host, clock, "agent_start", **given)
        assert answer is not None
        assert max(clock.asked_s) <= longest_s


@pytest.mark.parametrize(
    ("wire", "tool", "count"),
    [
        *((wire, "agent_poll", 1) for wire in WIRES),
        ("legacy", "agent_poll", 2),
        ("legacy", "agent_start", 1),
        (MODERN, "agent_start", 2),
    ],
)
async def test_progress_shows_the_activity_of_the_jobs(
    settings: Settings, wire: str, tool: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "PROGRESS_S", 0.05)
    expected = "searches" if count == 1 else "2 in_progress"
    messages: list[str] = []
    heard = anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        messages.append(str(message))
        if expected in messages[-1]:
            heard.set()

    prompt = script_prompt(
        "SECRET-PROMPT", {"duration_s": 0.1, "searches": 12, "end": "never", "text": "SECRET-OUTPUT"}
    )
    given = {"prompt": prompt} if count == 1 else {"prompts": [prompt] * count}
    async with hosting(settings) if wire == "direct" else connected(settings, create_fast_clock(SPEED), wire) as host:
        if tool == "agent_poll":
            started = await host.call("agent_start", **given, wait_s=0)
            given = {name: started[name] for name in ("job_id", "batch") if name in started}
        async with anyio.create_task_group() as tasks:
            waiting = {**given, "wait_s": 10_000}
            tasks.start_soon(lambda: host.client.call_tool(tool, waiting, progress_callback=hear))
            with anyio.fail_after(60):
                await heard.wait()
            rows = (await host.call("agent_list", status="open"))["jobs"]
            await host.call("agent_cancel", job_ids=[row["job_id"] for row in rows])
    assert not any(word in each for each in messages for word in ("SECRET", "working", "None"))


@pytest.mark.parametrize(("wait_s", "noted"), [(None, True), (120, False)])
async def test_claude_code_learns_that_a_long_poll_may_go_to_the_background(
    settings: Settings, wait_s: float | None, noted: bool
) -> None:
    async with connected(replace(settings, max_wait_s=wait_s), Cutting.at(2000), client="claude-code") as host:
        answers = [
            await host.start(emulate={"duration_s": 1, "end": "never", "searches": 12}, wait_s=1),
            await host.call("agent_poll", wait_s=1),
        ]
        job_id = answers[0]["job_id"]
        answers += [await host.call("agent_poll", job_id=job_id, wait_s=1) for _ in range(6)]
        quick = await host.call("agent_poll", job_id=job_id, wait_s=0)
        await host.call("agent_cancel", job_id=job_id)
    assert [answer["next"].endswith(BACKGROUND_NOTE) for answer in answers] == [noted] * len(answers)
    assert all(answer["next"].startswith("agent_poll") for answer in answers)
    assert [size(answer) <= 240 for answer in answers] == [True] * 7 + [False], "the last one has advice"
    assert size(answers[-1]) <= 400
    assert quick["next"] == f"agent_poll job_id={job_id}" + (
        BACKGROUND_NOTE if noted and "activity" not in quick else ""
    )


async def test_other_hosts_get_no_note_about_a_background(settings: Settings) -> None:
    async with hosting(settings, client_info=Implementation(name="codex-mcp-client", version="1")) as host:
        started = await host.start(emulate=ENDLESS)
        assert started["next"] == f"agent_poll job_id={started['job_id']}"
        await host.call("agent_cancel", job_id=started["job_id"])
