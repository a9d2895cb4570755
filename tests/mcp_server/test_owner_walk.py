"""A second owner on every verb of the engine, tool, resource, prompt and task: another owner's job is an unknown id.

A new verb, tool, resource or method without a row here fails the first tests.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hosts import SPEED, script_prompt
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent
from test_asking import LOOKUP
from test_tasks import TaskHost, ask

from agent_jobs.app import open_app
from agent_jobs.clock import create_fast_clock
from agent_jobs.emulator.server import RunningServer
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, ConfigError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.owners import Owner, OwnerLimits
from agent_jobs.jobs.queries import JobFilter, Reply
from agent_jobs.mcp_server.events import EventsExtension
from agent_jobs.mcp_server.server import build_server
from agent_jobs.request.start_request import StartRequest
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

UNKNOWN = "job_000000000000"
DONE: dict[str, Any] = {"duration_s": 0.1, "text": "secret answer"}
ASKS: dict[str, Any] = {"duration_s": 0.1, "function_calls": [LOOKUP]}
FUNCTION: dict[str, Any] = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}


def batch_of(job_id: str) -> str:
    """Return the batch of the jobs, and one that does not exist for a job that does not."""
    if job_id == UNKNOWN:
        return "evening"
    return "night"


#: Arguments of every tool that name a job, a batch or a key.
TOOLS: dict[str, list[Callable[[str], dict[str, Any]]]] = {
    "agent_start": [lambda job_id: {"prompt": "go on", "previous_job_id": job_id, "wait_s": 0}],
    "agent_poll": [
        lambda job_id: {"job_id": job_id, "wait_s": 0},
        lambda job_id: {"job_ids": [job_id], "wait_s": 0},
        lambda job_id: {"batch": batch_of(job_id), "wait_s": 0},
        lambda job_id: {"wait_s": 0},
    ],
    "agent_result": [
        lambda job_id: {"job_id": job_id},
        lambda job_id: {"job_id": job_id, "part": "items"},
        lambda job_id: {"job_id": job_id, "part": "partial"},
    ],
    "agent_list": [lambda job_id: {}, lambda job_id: {"batch": "night"}, lambda job_id: {"query": "secret"}],
    "agent_reply": [
        lambda job_id: {"job_id": job_id, "message": "x"},
        lambda job_id: {"job_id": job_id, "approve": ["call_1"]},
    ],
    "agent_cancel": [
        lambda job_id: {"job_id": job_id},
        lambda job_id: {"job_ids": [job_id]},
        lambda job_id: {"batch": batch_of(job_id)},
    ],
}
RESOURCES = {"job://{job_id}", "job://{job_id}/result"}
TASKS: dict[str, dict[str, Any]] = {
    "tasks/get": {},
    "tasks/update": {"inputResponses": {"x": {"action": "accept"}}},
    "tasks/cancel": {},
}
#: Methods of a team server, with what they need beside the filter that names a job.
DELIVERY = {"url": "https://hooks.example.com/", "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}
EVENTS: dict[str, dict[str, Any]] = {
    "events/list": {},
    "events/poll": {"cursor": "e0"},
    "events/subscribe": {"delivery": DELIVERY},
    "events/unsubscribe": {"delivery": DELIVERY},
}
#: Methods of the protocol that name no job, with the reason.
PROTOCOL = {
    "ping": "says nothing",
    "server/discover": "about the server",
    "prompts/list": "presets, which the operator sets for all",
    "prompts/get": "presets, which the operator sets for all",
    "resources/list": "there are templates only",
    "resources/templates/list": "names no job",
    "resources/read": "see RESOURCES",
    "subscriptions/listen": "the server publishes nothing yet",
    "tools/list": "names no job",
    "tools/call": "see TOOLS",
}
#: Calls every verb of the engine about a job.
VERBS: dict[str, Callable[[Engine, Job], Awaitable[object]]] = {
    "adopt": lambda engine, job: engine.adopt(job.id, "resp_x"),
    "ask_again": lambda engine, job: engine.ask_again(job.id, "tracker/close"),
    "cancel": lambda engine, job: engine.cancel(JobFilter(job_ids=(job.id,))),
    "count_unindexed": lambda engine, job: engine.count_unindexed(),
    "delete": lambda engine, job: engine.delete([job.id]),
    "details": lambda engine, job: engine.details(job.id),
    "estimate": lambda engine, job: engine.estimate(StartRequest(prompts=["x"], previous_job_id=job.id)),
    "find": lambda engine, job: engine.find(JobFilter(), 9),
    "find_newest": lambda engine, job: engine.find_newest(JobFilter(), 9),
    "find_newest_finished": lambda engine, job: engine.find_newest_finished(job.client),
    "find_open": lambda engine, job: engine.find_open(JobFilter(job_ids=(job.id,))),
    "find_progress": lambda engine, job: engine.find_progress(job.id),
    "find_unobserved": lambda engine, job: engine.find_unobserved(JobFilter()),
    "find_view": lambda engine, job: engine.find_view(f"/jobs/{job.id}"),
    "find_full_id": lambda engine, job: engine.find_full_id(job.id),
    "mark_delivered": lambda engine, job: engine.mark_delivered(job),
    "mark_read": lambda engine, job: engine.mark_read(job),
    "open_calls": lambda engine, job: engine.open_calls(job),
    "plan": lambda engine, job: engine.plan(StartRequest(prompts=["x"], repeats_job_id=job.id)),
    "poll": lambda engine, job: engine.poll(job.id),
    "progress": lambda engine, job: engine.progress(job.id),
    "prune": lambda engine, job: engine.prune(-1e9, unread=True),
    "read_budget": lambda engine, job: engine.read_budget(),
    "reply": lambda engine, job: engine.reply(job.id, Reply(message="x")),
    "result": lambda engine, job: engine.result(job.id),
    "search": lambda engine, job: engine.search("secret", 9),
    "start": lambda engine, job: engine.start(StartRequest(prompts=["x"], previous_job_id=job.id)),
    "sum_spending": lambda engine, job: engine.sum_spending(["day"], JobFilter()),
    "sum_today": lambda engine, job: engine.sum_today(spent=False),
    "wait_for_any": lambda engine, job: engine.wait_for_any(JobFilter(job_ids=(job.id,))),
    "wait_for_response_id": lambda engine, job: engine.wait_for_response_id(job, wait_s=0),
    "wait_until_answered": lambda engine, job: engine.wait_until_answered(job.id, "call_1", wait_s=0),
}
#: Verbs that name no job, with the reason why they are the same for all.
SHARED = {
    "base_url": "about the endpoint",
    "change_mark": "a number",
    "describe_model": "about the endpoint",
    "end_waits": "about this process",
    "feed": "bound to the owner's store; see EVENTS",
    "files": "bound to the owner's store",
    "metrics": "the operator's",
    "owners": "the operator's, and bound to the owner's store",
    "follow_text": "see the test of live texts",
    "is_deciding": "see the test of live texts",
    "learned_mode": "about the endpoint",
    "list_models": "about the endpoint",
    "mark_delivered_later": "mark_delivered in the background",
    "now": "the time",
    "for_owner": "it makes the engines of owners",
    "other_workers": "about processes",
    "owner": "the owner's name",
    "with_reporter": "it changes nothing but reports",
    "require_clients": "about the endpoint",
    "server_info": "about the database",
    "store_info": "about the database",
    "submit": "takes what `plan` returned",
    "wait_for_any_change": "wakes a waiter, who then reads what is theirs",
    "webhooks": "the provider's, for a server",
    "with_team_page": "about the address",
}


def make_events(engine: Callable[[], Awaitable[Engine]]) -> EventsExtension:
    async def report(action: str) -> None:
        pass

    return EventsExtension(engine, lambda: "", report)


@dataclass
class Team:
    """One server and one app for all owners, as over HTTP."""

    engine: Engine
    client: Client
    extension: TaskHost
    owner: str = ""

    async def call(self, owner: str, tool: str, **arguments: Any) -> str:
        """Return the answer of a tool as text."""
        self.owner = owner
        result = await self.client.call_tool(tool, arguments)
        texts = [content.text for content in result.content if isinstance(content, TextContent)]
        return "".join(texts) or json.dumps(self.extension.created[-1])

    async def outcome(self, owner: str, ask_server: Callable[[], Awaitable[object]]) -> str:
        """Return what a request is answered with, or how it is refused."""
        self.owner = owner
        try:
            return str(await ask_server())
        except MCPError as error:
            return f"{error.code} {error}"


@asynccontextmanager
async def serving(settings: Settings, **client: Any) -> AsyncGenerator[Team]:
    async with open_app(settings, create_fast_clock(SPEED)) as app:
        extension = TaskHost()
        teams: list[Team] = []

        async def engine() -> Engine:
            return (await app.engine()).for_owner(teams[0].owner)

        async with Client(build_server(engine, may_approve=True, extensions=[make_events(engine)]), **client) as mcp:
            teams.append(Team(await app.engine(), mcp, extension))
            yield teams[0]


async def alices_jobs(team: Team) -> list[Job]:
    """Start a job that finishes, one that asks and one that runs, all in one batch."""
    alice = team.engine.for_owner("alice")
    started: list[Job] = []
    scripts: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (DONE, {"key": "k"}),
        (ASKS, {"tools": [FUNCTION]}),
        ({"end": "never"}, {}),
    ]
    for number, (emulate, options) in enumerate(scripts):
        request = StartRequest(
            prompts=[script_prompt(f"secret {number}", emulate)], batch="night", options=options, client="host"
        )
        started += [one.job for one in await alice.start(request)]
    with anyio.fail_after(60):
        await alice.poll(started[0].id, wait_s=600)
        await alice.poll(started[1].id, wait_s=600)
    return [await alice.poll(job.id) for job in started]


def hide_ids(text: str, *ids: str) -> str:
    """Return a text without the ids that a caller gave, in which alone two refusals may differ."""
    for each in ids:
        text = text.replace(each, "ID")
    return text


def test_every_verb_of_the_engine_is_in_the_walk() -> None:
    assert {name for name in dir(Engine) if not name.startswith("_")} - {"presets"} == VERBS.keys() | SHARED.keys()


async def test_every_tool_resource_and_method_is_in_the_walk(settings: Settings) -> None:
    async with serving(settings) as team:
        team.owner = "bob"
        assert {tool.name for tool in (await team.client.list_tools()).tools} == TOOLS.keys()
        templates = (await team.client.list_resource_templates()).resource_templates
        assert {str(template.uri_template) for template in templates} == RESOURCES
        assert (await team.client.list_resources()).resources == []
    for extensions, more in (((), set[str]()), ([make_events(team_engine)], set(EVENTS))):
        server = build_server(team_engine, extensions=extensions)
        low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # there is no public list
        assert low._request_handlers.keys() == PROTOCOL.keys() | TASKS.keys() | more  # pyright: ignore[reportPrivateUsage]


async def team_engine() -> Engine:
    raise AssertionError("not called")


async def describe(engine: Engine, jobs: list[Job]) -> list[object]:
    """Describe the changes that callers make to jobs, without those of the jobs' own runs."""
    results = [await engine.result(job.id) for job in jobs]
    facts = [
        (one.job.is_terminal, one.job.delivered_at, one.job.read_at, one.job.cancel_requested_at) for one in results
    ]
    return [*facts, *(one.calls for one in results)]


async def outcome_of(call: Awaitable[object]) -> str:
    with anyio.fail_after(60):
        try:
            return str(await call)
        except AgentJobsError as error:
            return f"{type(error).__name__} {error.code} {error}"


async def test_job_of_another_owner_is_an_unknown_job_for_every_face(
    settings: Settings, upstream: RunningServer
) -> None:
    async with serving(settings) as team:
        jobs = await alices_jobs(team)
        before = await describe(team.engine, jobs)
        bob = team.engine.for_owner("bob")
        posts = upstream.emulator.counters()["creates"]
        for job in jobs:
            unknown = replace(job, id=UNKNOWN)
            for name, verb in VERBS.items():
                theirs, nobodys = await outcome_of(verb(bob, job)), await outcome_of(verb(bob, unknown))
                assert hide_ids(theirs, job.id) == hide_ids(nobodys, UNKNOWN), name
                assert "secret" not in theirs, name
            for tool, calls in TOOLS.items():
                for arguments in calls:
                    theirs = await team.call("bob", tool, **arguments(job.id))
                    nobodys = await team.call("bob", tool, **arguments(UNKNOWN))
                    assert hide_ids(theirs, job.id, "night") == hide_ids(nobodys, UNKNOWN, batch_of(UNKNOWN)), tool
                    assert "secret" not in theirs
            for template in RESOURCES:
                uris = [template.format(job_id=each) for each in (job.id, UNKNOWN)]
                theirs, nobodys = [
                    await team.outcome("bob", lambda uri=uri: team.client.read_resource(uri)) for uri in uris
                ]
                assert hide_ids(theirs, job.id) == hide_ids(nobodys, UNKNOWN)
        assert await describe(team.engine, jobs) == before
        assert upstream.emulator.counters()["creates"] == posts
        assert '"secret answer"' in await team.call("alice", "agent_poll", job_id=jobs[0].id)


async def test_task_of_another_owner_is_not_found(settings: Settings) -> None:
    extension = TaskHost()
    async with serving(settings, extensions=[extension]) as team:
        jobs = await alices_jobs(team)
        for job in jobs:
            for method, params in TASKS.items():
                for task_id in (job.id, "night", UNKNOWN):
                    outcome = await team.outcome(
                        "bob",
                        lambda method=method, sent={**params, "taskId": task_id}: ask(team.client, method, **sent),
                    )
                    assert outcome == "-32602 Task not found"
        assert "working" in await team.outcome("alice", lambda: ask(team.client, "tasks/get", taskId=jobs[2].id))


async def test_event_of_another_owner_is_not_seen(settings: Settings) -> None:
    async with serving(settings) as team:
        for job in await alices_jobs(team):
            for method, params in EVENTS.items():
                for name in ("job.finished", "job.needs_input"):
                    sent = {**params, "name": name}
                    theirs, nobodys = [
                        await team.outcome(
                            "bob",
                            lambda method=method, sent={**sent, "arguments": {"job_id": each}}: ask(
                                team.client, method, **sent
                            ),
                        )
                        for each in (job.id, UNKNOWN)
                    ]
                    assert theirs == nobodys, method
                    if method == "events/poll":
                        assert "'events': []" in await team.outcome(
                            "bob", lambda method=method, sent=sent: ask(team.client, method, **sent)
                        )
        everything = {"name": "job.finished", "cursor": "e0"}
        assert "completed" in await team.outcome("alice", lambda: ask(team.client, "events/poll", **everything))


async def test_live_text_and_launch_of_another_owner_are_not_seen(settings: Settings) -> None:
    async with serving(settings) as team:
        emulate = {"duration_s": 30, "text": "secret " * 50}
        [started] = await team.engine.for_owner("alice").start(StartRequest(prompts=[script_prompt("write", emulate)]))
        text = team.engine.follow_text(started.job.id)
        with anyio.fail_after(60):
            while not text.text:  # noqa: ASYNC110  # a stream sets no event of ours
                await anyio.sleep(0.01)
        assert team.engine.for_owner("bob").follow_text(started.job.id).text == ""
        assert not team.engine.for_owner("bob").is_deciding(started.job.id)


async def test_polls_of_two_owners_are_paced_apart(settings: Settings) -> None:
    """Six empty polls of one owner's jobs do not have another owner's model leave, nor wait for a hint."""
    async with serving(settings) as team:
        for owner in ("alice", "bob"):
            request = StartRequest(prompts=[script_prompt(f"work of {owner}", {"end": "never"})])
            await team.engine.for_owner(owner).start(request)
        answers = [await team.call("alice", "agent_poll", wait_s=0.05) for _ in range(6)]
        assert "end your turn" in answers[-1] or answers[-1] != answers[0]
        began = team.engine.now()
        first = await team.call("bob", "agent_poll", wait_s=0)
        assert "end your turn" not in first
        assert team.engine.now() - began < 5


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"conversation": "conv_alice"}, "no_such_conversation"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_alice"]}]}, "shared_id"),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_alice"}]}, "shared_id"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file_a"]}}]}, "shared_id"),
        ({"tools": [{"type": "new_kind", "deep": [{"store_id": "vs_alice"}]}]}, "shared_id"),
    ],
    ids=str,
)
async def test_id_of_the_provider_that_may_be_anothers_is_refused(
    settings: Settings, upstream: RunningServer, options: dict[str, Any], code: str
) -> None:
    async with serving(settings) as team:
        metadata = {"metadata": {"conversation": "conv_alice"}}
        await team.engine.for_owner("bob").start(
            StartRequest(prompts=['"conversation":"conv_alice"'], options=metadata)
        )
        creates = upstream.emulator.counters()["creates"]
        with pytest.raises(AgentJobsError) as refusal:
            await team.engine.for_owner("bob").start(StartRequest(prompts=["x"], options=options))
        assert refusal.value.code == code
        assert upstream.emulator.counters()["creates"] == creates


async def test_conversation_of_the_owners_own_job_can_be_continued(settings: Settings) -> None:
    async with serving(settings) as team:
        alice = team.engine.for_owner("alice")
        [started] = await alice.start(StartRequest(prompts=["x"], options={"conversation": True}), wait_s=600)
        conversation = (await alice.details(started.job.id)).request["conversation"]
        [again] = await alice.start(StartRequest(prompts=["y"], options={"conversation": conversation}))
        assert again.job.owner == "alice"
        with pytest.raises(AgentJobsError, match="There is no conversation"):
            await team.engine.for_owner("bob").start(
                StartRequest(prompts=["y"], options={"conversation": conversation})
            )


async def test_limits_of_an_owner_refuse_a_start_with_a_fix(settings: Settings) -> None:
    async with serving(replace(settings, owner_starts_per_minute=2)) as team:
        await team.engine.owners.set_owner(Owner("carol", OwnerLimits(starts_per_minute=1)))
        for owner, allowed in (("alice", 2), ("carol", 1)):
            for number in range(allowed):
                assert "job_id" in await team.call(owner, "agent_start", prompt=f"work {number}", wait_s=0)
            refused = json.loads(await team.call(owner, "agent_start", prompt="one more", wait_s=0))["error"]
            assert refused["code"] == "request_error" or refused["code"]
            assert f"More than {allowed} jobs would be started within a minute. Call again in " in refused["message"]


async def test_jobs_of_an_owner_run_with_the_owners_key_or_not_at_all(
    settings: Settings, upstream: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "alice").write_text("sk-alice\n")
    async with serving(replace(settings, owner_keys_dir=tmp_path / "keys")) as team:
        await team.engine.owners.set_owner(Owner("alice", key_ref="alice"))
        alice, bob = team.engine.for_owner("alice"), team.engine.for_owner("bob")
        jobs = [
            (await engine.start(StartRequest(prompts=[script_prompt("x", {"duration_s": 1})]), wait_s=600))[0].job
            for engine in (alice, bob)
        ]
        assert [job.status for job in jobs] == ["completed", "completed"]
        assert jobs[0].turn.fingerprint != jobs[1].turn.fingerprint
        shares = StartRequest(prompts=["x"], options={"tools": [{"type": "file_search", "vector_store_ids": ["vs_a"]}]})
        assert (await alice.plan(shares)).jobs, "with a key of their own no id is another owner's"
        creates = upstream.emulator.counters()["creates"]
        for key_ref in ("gone", "../keys/alice", "env:AGENT_JOBS_NO_SUCH_KEY", "/etc/passwd"):
            await team.engine.owners.set_owner(Owner("alice", key_ref=key_ref))
            with pytest.raises(ConfigError) as refusal:
                await alice.start(StartRequest(prompts=["y"]))
            assert refusal.value.code == "owner_key_missing"
            assert "AGENT_JOBS_OWNER_KEYS_DIR" in await team.call("alice", "agent_start", prompt="y", wait_s=0)
        assert upstream.emulator.counters()["creates"] == creates


@pytest.mark.parametrize("verb", ["delete", "prune"])
async def test_responses_are_deleted_with_the_key_of_their_owner(
    settings: Settings, upstream: RunningServer, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "alice").write_text("sk-alice\n")
    # The emulator refuses this key, as a provider refuses that of another account.
    async with serving(replace(settings, owner_keys_dir=tmp_path, api_key=SecretStr("invalid"))) as team:
        await team.engine.owners.set_owner(Owner("alice", key_ref="alice"))
        alice = team.engine.for_owner("alice")
        [started] = await alice.start(StartRequest(prompts=[script_prompt("x", {"duration_s": 1})]), wait_s=600)
        assert started.job.status == "completed"
        if verb == "delete":
            deleted = await alice.delete([started.job.id], upstream=True)
        else:
            deleted = await team.engine.prune(0, upstream=True, unread=True)
        assert (deleted.deleted, deleted.deleted_upstream) == (1, 1)
    assert upstream.emulator.counters()["deletes"] == 1


async def test_running_job_goes_on_with_the_key_that_it_was_sent_with_when_its_owner_gets_another(
    settings: Settings, upstream: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "first").write_text("sk-first\n")
    (tmp_path / "second").write_text("invalid\n")
    async with serving(replace(settings, owner_keys_dir=tmp_path, follow=0)) as team:
        await team.engine.owners.set_owner(Owner("alice", key_ref="first"))
        alice = team.engine.for_owner("alice")
        for key_ref in ("first", ""):  # a key of their own, then the shared one
            await team.engine.owners.set_owner(Owner("alice", key_ref=key_ref))
            [started] = await alice.start(StartRequest(prompts=[script_prompt(key_ref or "x", {"duration_s": 5})]))
            await team.engine.owners.set_owner(Owner("alice", key_ref="second"))
            with anyio.fail_after(60):
                assert (await alice.poll(started.job.id, wait_s=600)).status == "completed"
        [refused] = await alice.start(StartRequest(prompts=["y"]), wait_s=600)
        assert refused.job.status == "failed", "the next job is sent with the new key"


async def test_step_of_a_job_whose_key_is_gone_waits_and_uses_no_other_key(
    settings: Settings, upstream: RunningServer, tmp_path: Path
) -> None:
    async with serving(replace(settings, owner_keys_dir=tmp_path)) as team:
        alice = team.engine.for_owner("alice")
        planned = await alice.plan(StartRequest(prompts=["x"]))
        await team.engine.owners.set_owner(Owner("alice", key_ref="gone"))
        [started] = await alice.submit(planned)
        [other] = await team.engine.for_owner("bob").start(
            StartRequest(prompts=[script_prompt("x", {"duration_s": 1})])
        )
        await team.engine.for_owner("bob").poll(other.job.id, wait_s=600)
        assert (await alice.poll(started.job.id)).status == "pending"
        assert upstream.emulator.counters()["creates"] == 1
        (tmp_path / "gone").write_text("sk-back\n")
        with anyio.fail_after(60):
            assert (await alice.poll(started.job.id, wait_s=600)).status == "completed"


async def test_cancel_of_a_job_whose_key_is_gone_is_sent_once_the_key_is_back(
    settings: Settings, upstream: RunningServer, tmp_path: Path
) -> None:
    key, keyed = tmp_path / "alice", replace(settings, owner_keys_dir=tmp_path)
    key.write_text("sk-alice\n")
    async with serving(keyed) as team:
        await team.engine.owners.set_owner(Owner("alice", key_ref="alice"))
        request = StartRequest(prompts=[script_prompt("x", {"duration_s": 3600})])
        [started] = await team.engine.for_owner("alice").start(request)
        assert started.job.turn.response_id
    key.unlink()
    async with serving(keyed) as team:
        alice = team.engine.for_owner("alice")
        [waiting] = await alice.cancel(JobFilter(job_ids=(started.job.id,)))
        assert not waiting.is_terminal
        key.write_text("sk-alice\n")
        with anyio.fail_after(60):
            assert (await alice.poll(started.job.id, wait_s=600)).status == "cancelled"
        assert upstream.emulator.counters()["cancels"] == 1


@pytest.mark.parametrize("lent", [(), ("alice",)])
async def test_tool_servers_are_lent_only_to_the_owners_of_a_setting(
    settings: Settings, tmp_path: Path, lent: tuple[str, ...]
) -> None:
    toolbox = tmp_path / "toolbox.json"
    toolbox.write_text(json.dumps({"mcpServers": {"box": {"command": "no-such-program"}}}))
    codes: dict[str, str] = {}
    async with serving(replace(settings, toolbox=toolbox, toolbox_owners=lent)) as team:
        for owner in ("alice", "bob"):
            with pytest.raises(AgentJobsError) as refusal:
                await team.engine.for_owner(owner).start(StartRequest(prompts=["x"], options={"toolbox": ["box"]}))
            codes[owner] = refusal.value.code
    assert {owner for owner, code in codes.items() if code != "no_tool_servers"} == set(lent)
