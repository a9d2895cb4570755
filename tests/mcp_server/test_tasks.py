"""Native tasks: hosts that declare them wait for jobs themselves, by the SDK's own client."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx2
import pytest
from hosts import SPEED, Host, hosting, read, script_prompt
from mcp import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim, advertise
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    Request,
    RequestParams,
    Result,
)
from mcp_types.jsonrpc import HEADER_MISMATCH
from processes import MODERN, Server, serving
from pydantic import ConfigDict, Field
from test_asking import LOOKUP, REMOTE, TWO, answers, script

from agent_jobs.emulator.server import RunningServer
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import ConfigError
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.jobs.status import Status
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings.settings import Settings
from agent_jobs.store import open_store

TASKS = "io.modelcontextprotocol/tasks"
FOREVER: dict[str, Any] = {"duration_s": 0.1, "end": "never"}
PREFIX = "io.modelcontextprotocol/"
#: The `_meta` of a request of 2026-07-28 that declares tasks.
DECLARED: dict[str, Any] = {
    "_meta": {f"{PREFIX}protocolVersion": MODERN, f"{PREFIX}clientCapabilities": {"extensions": {TASKS: {}}}}
}
REQUIRED = {"taskId", "status", "createdAt", "lastUpdatedAt", "ttlMs", "resultType"}


class AnyParams(RequestParams):
    model_config = ConfigDict(extra="allow")


class AnyRequest(Request[AnyParams, str]):
    method: str
    params: AnyParams


class AnyResult(Result):
    model_config = ConfigDict(extra="allow")


class TaskResult(Result):
    model_config = ConfigDict(extra="allow")
    result_type: Literal["task"] = Field(alias="resultType")


class TaskHost(ClientExtension):
    """Declares tasks and keeps the created ones; a test fetches their states."""

    identifier = TASKS

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []

    def claims(self) -> list[ResultClaim[TaskResult]]:
        return [ResultClaim(result_type="task", model=TaskResult, resolve=self.keep)]

    async def keep(self, task: TaskResult, context: ClaimContext) -> CallToolResult:
        self.created.append(task.model_dump(by_alias=True))
        return CallToolResult(content=[])


class Tasks:
    """A host that waits for tasks, beside a host without tasks on the same jobs."""

    def __init__(self, plain: Host, client: Client, extension: TaskHost) -> None:
        self.plain = plain
        self.client = client
        self.extension = extension

    async def create(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Return the task that answers a call."""
        before = len(self.extension.created)
        result = await self.client.call_tool(tool, arguments)
        assert len(self.extension.created) == before + 1, result
        return self.extension.created[-1]

    async def start(self, emulate: dict[str, Any] | None = None, **more: Any) -> str:
        """Start a job with a scripted run; return the id of its task."""
        number = len(self.extension.created)
        task = await self.create("agent_start", prompt=script_prompt(f"work {number}", emulate), **more)
        return task["taskId"]

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        return await ask(self.client, method, **params)

    async def get(self, task_id: str) -> dict[str, Any]:
        return await self.send("tasks/get", taskId=task_id)

    async def until(self, task_id: str, *statuses: str) -> dict[str, Any]:
        """Return the task once it has one of these statuses."""
        return await self.once(task_id, lambda task: task["status"] in statuses)

    async def once(self, task_id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the task once this condition holds."""
        with anyio.fail_after(60):
            while not holds(task := await self.get(task_id)):  # noqa: ASYNC110  # a host gets no event either
                await anyio.sleep(0.02)
        return task

    async def end(self, task_id: str) -> dict[str, Any]:
        """Return the answer that a model gets once the task is completed."""
        return answer_of(await self.until(task_id, "completed"))


async def ask(client: Client, method: str, **params: Any) -> dict[str, Any]:
    request = AnyRequest(method=method, params=AnyParams.model_validate(params))
    return (await client.session.send_request(request, AnyResult)).model_dump(by_alias=True)


def answer_of(task: dict[str, Any]) -> dict[str, Any]:
    return read(CallToolResult.model_validate(task["result"]))


@asynccontextmanager
async def waiting(settings: Settings, **client: Any) -> AsyncGenerator[Tasks]:
    extension = TaskHost()
    server: dict[str, Any] = {
        "may_approve": settings.approvals == "model",
        "has_tasks": settings.tasks == "auto",
        "is_structured": settings.structured,
    }
    async with (
        hosting(settings) as plain,
        Client(build_server(plain.app.engine, **server), extensions=[extension], **client) as mcp,
    ):
        yield Tasks(plain, mcp, extension)


async def test_task_of_a_job_completes_with_the_answer_of_a_poll(settings: Settings) -> None:
    async with waiting(settings) as host:
        task = await host.create("agent_start", prompt=script_prompt("Why?", {"duration_s": 3, "searches": 2}))
        assert task.keys() >= REQUIRED
        assert task["ttlMs"] is None
        assert task["status"] == "working"
        assert task["pollIntervalMs"] >= 2_000
        assert task["taskId"].startswith("job_")
        assert "result" not in task
        ended = await host.until(task["taskId"], "completed")
        poll = await host.plain.client.call_tool("agent_poll", {"job_id": task["taskId"]})
        assert ended["resultType"] == "complete"
        assert ended["result"]["content"] == [each.model_dump(exclude_none=True) for each in poll.content]
        assert answer_of(ended)["status"] == "completed"
        assert (await host.get(task["taskId"]))["result"] == ended["result"]


@pytest.mark.parametrize("batch", [None, "a & b"])
async def test_task_names_the_page_of_its_jobs_beside_its_state(settings: Settings, batch: str | None) -> None:
    async with open_store(settings.data_path()) as store, waiting(settings) as host:
        await store.announce("ui http://127.0.0.1:4777", settings.base_url)
        task = await host.create(
            "agent_start", prompt=None, prompts=[script_prompt("Wait", FOREVER)] * 2, batch="a & b"
        )
        if batch is None:
            task = await host.create("agent_start", prompt=script_prompt("Wait longer", FOREVER))
        path = {None: f"/jobs/{task['taskId']}", "a & b": "/?batch=a+%26+b"}[batch]
        assert task["statusMessage"].endswith(f"; http://127.0.0.1:4777{path}")
        assert "http" not in (await host.get(task["taskId"]))["statusMessage"]


async def test_task_shows_the_activity_of_its_job(settings: Settings) -> None:
    async with waiting(settings) as host:
        task_id = await host.start({"duration_s": 20, "searches": 12, "end": "never"})
        await host.once(task_id, lambda task: "search" in task["statusMessage"])
        await host.send("tasks/cancel", taskId=task_id)


@pytest.mark.parametrize(
    ("emulate", "status", "of_job"),
    [
        ({}, "completed", "completed"),
        ({"end": "incomplete"}, "completed", "incomplete"),
        ({"end": "failed"}, "completed", "failed"),
        ({"end": "never"}, "cancelled", None),
    ],
    ids=["completed", "incomplete", "failed", "cancelled elsewhere"],
)
async def test_task_has_the_outcome_of_its_job(
    settings: Settings, emulate: dict[str, Any], status: str, of_job: str | None
) -> None:
    async with waiting(settings) as host:
        task_id = await host.start({"duration_s": 0.2, **emulate})
        if of_job is None:
            await host.plain.call("agent_cancel", job_id=task_id)
        task = await host.until(task_id, "completed", "cancelled", "failed")
        assert task["status"] == status
        assert ("result" in task) is (of_job is not None)
        if of_job is not None:
            assert answer_of(task)["status"] == of_job
        found = await host.plain.call("agent_list")
        assert not found["jobs"][0].get("undelivered")


async def test_poll_of_a_running_job_is_a_task(settings: Settings) -> None:
    async with waiting(settings) as host:
        started = await host.plain.start(emulate={"duration_s": 3})
        task = await host.create("agent_poll", job_id=started["job_id"])
        assert (task["taskId"], task["status"]) == (started["job_id"], "working")
        assert (await host.end(started["job_id"]))["status"] == "completed"


async def test_repeated_start_is_the_task_of_the_same_job_marked_as_duplicate(settings: Settings) -> None:
    async with waiting(settings) as host:
        prompt = script_prompt("the same", {"duration_s": 3})
        ids = [(await host.create("agent_start", prompt=prompt))["taskId"] for _ in range(2)]
        assert ids[0] == ids[1]
        assert (await host.end(ids[0]))["duplicate"] is True


async def test_call_that_does_not_wait_gets_the_plain_answer(settings: Settings) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("agent_start", {"prompt": script_prompt("a", FOREVER), "wait_s": 0}),
        ("agent_start", {"prompt": script_prompt("b", FOREVER), "wait_s": "0"}),
        ("agent_start", {"prompts": [script_prompt("c", FOREVER), script_prompt("d", FOREVER)], "wait_s": 0}),
        ("agent_start", {"prompt": "e", "options": {"dry_run": True}}),
        ("agent_poll", {"wait_s": 0}),
        ("agent_list", {}),
    ]
    async with waiting(settings) as host:
        for tool, arguments in calls:
            result = await host.client.call_tool(tool, arguments)
            assert not result.is_error
            assert read(result)
        assert host.extension.created == []


async def test_refusal_is_no_task(settings: Settings) -> None:
    refused: list[tuple[str, dict[str, Any]]] = [
        ("agent_start", {}),
        ("agent_start", {"prompt": "a", "options": {"tools": "x"}}),
        ("agent_start", {"prompt": "a", "previous_job_id": "job_nowhere"}),
        ("agent_poll", {"job_id": "job_nowhere"}),
        ("agent_poll", {"batch": "nowhere"}),
    ]
    async with waiting(settings) as host:
        for tool, arguments in refused:
            assert (await host.client.call_tool(tool, arguments)).is_error
        assert host.extension.created == []


@pytest.mark.parametrize(
    ("change", "client"),
    [
        ({}, {}),
        ({}, {"mode": "legacy", "extensions": [advertise(TASKS)]}),
        ({"tasks": "never"}, {"extensions": [TaskHost()]}),
    ],
    ids=["not declared", "declared before 2026-07-28", "switched off"],
)
async def test_no_answer_is_a_task_without_the_extension(
    settings: Settings, change: dict[str, Any], client: dict[str, Any]
) -> None:
    async with hosting(replace(settings, **change), **client) as host:
        job_id = (await host.call("agent_start", prompt=script_prompt("a", {"duration_s": 1})))["job_id"]
        with pytest.raises(MCPError) as refused:
            await ask(host.client, "tasks/get", taskId=job_id)
        wanted = MISSING_REQUIRED_CLIENT_CAPABILITY if not client else METHOD_NOT_FOUND
        assert refused.value.error.code == wanted
        if not client:
            assert refused.value.error.data == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        assert (await host.end(job_id))["status"] == "completed"


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_unknown_task_is_refused(settings: Settings, method: str) -> None:
    async with waiting(settings) as host:
        await host.start(FOREVER)
        for task_id in ("job_nowhere", "batch_nowhere", "", "x" * 5_000):
            with pytest.raises(MCPError, match="Task not found") as refused:
                await host.send(method, taskId=task_id, inputResponses={})
            assert refused.value.error.code == INVALID_PARAMS


async def test_invalid_parameters_are_refused(settings: Settings) -> None:
    none: list[tuple[str, dict[str, Any]]] = [
        ("tasks/get", {}),
        ("tasks/get", {"taskId": 5}),
        ("tasks/update", {"taskId": "x"}),
        ("tasks/update", {"taskId": "x", "inputResponses": []}),
        ("tasks/cancel", {}),
    ]
    async with waiting(settings) as host:
        for method, params in none:
            with pytest.raises(MCPError) as refused:
                await host.send(method, **params)
            assert refused.value.error.code == INVALID_PARAMS


async def test_over_http_the_header_has_to_name_the_task(settings: Settings) -> None:
    async with hosting(settings) as host:
        job_id = (await host.start(emulate=FOREVER))["job_id"]
        http = build_server(host.app.engine).streamable_http_app(json_response=True)
        transport = httpx2.ASGITransport(http)
        async with http.router.lifespan_context(http), httpx2.AsyncClient(transport=transport) as client:
            for name, code in ((job_id, None), ("job_other", HEADER_MISMATCH)):
                headers = {
                    "Accept": "application/json, text/event-stream",
                    "MCP-Protocol-Version": MODERN,
                    "Mcp-Method": "tasks/get",
                    "Mcp-Name": name,
                }
                request = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"taskId": job_id, **DECLARED}}
                answer = (await client.post("http://127.0.0.1:8000/mcp", json=request, headers=headers)).json()
                assert answer.get("error", {}).get("code") == code
                assert ("result" in answer) is (code is None)


async def test_task_without_an_engine_is_answered_with_the_reason() -> None:
    async def none() -> Engine:
        raise ConfigError("Ask the user to set OPENAI_API_KEY.")

    async with Client(build_server(none), extensions=[TaskHost()]) as client:
        with pytest.raises(MCPError, match="OPENAI_API_KEY") as refused:
            await ask(client, "tasks/get", taskId="job_x")
        assert refused.value.error.code == INTERNAL_ERROR


@pytest.mark.parametrize("batch", [None, "tea"])
async def test_batch_is_one_task(settings: Settings, batch: str | None) -> None:
    async with waiting(settings) as host:
        prompts = [script_prompt(f"part {number}", {"duration_s": number}) for number in range(1, 8)]
        task = await host.create("agent_start", prompts=prompts, **({"batch": batch} if batch else {}))
        assert task["status"] == "working"
        assert batch is None or task["taskId"] == batch
        ended = await host.until(task["taskId"], "completed")
        answer = answer_of(ended)
        assert len(answer["done"]) == 7
        assert {each["status"] for each in answer["done"]} == {"completed"}
        assert answer["next"] == "agent_result for each"
        assert answer_of(await host.get(task["taskId"]))["done"] == answer["done"]
        assert await host.plain.call("agent_poll", wait_s=0) == {
            "running": 0,
            "next": "all results were reported before: agent_list",
        }


async def test_batch_of_one_returns_its_output(settings: Settings) -> None:
    async with waiting(settings) as host:
        task_id = await host.start({"duration_s": 0.2}, batch="alone")
        task = await host.create("agent_poll", batch="alone")
        assert task["taskId"] == "alone"
        [done] = (await host.end("alone"))["done"]
        assert (done["job_id"], done["status"]) == (task_id, "completed")
        assert done["output"]


async def test_result_that_the_host_never_fetches_is_reported_by_the_next_poll(settings: Settings) -> None:
    async with waiting(settings) as host:
        task_id, later = await host.start({"duration_s": 0.2}), await host.start({"duration_s": 3})
        await host.plain.call("agent_poll", job_ids=[later], wait_s=40)
        assert (await host.create("agent_poll", job_id=task_id))["status"] == "completed"
        [done] = (await host.plain.call("agent_poll", wait_s=20))["done"]
        assert (done["job_id"], done["status"]) == (task_id, "completed")


@pytest.mark.parametrize("how", ["job", "batch"])
async def test_cancelling_a_task_cancels_its_jobs(settings: Settings, upstream: RunningServer, how: str) -> None:
    async with waiting(settings) as host:
        count = 1 if how == "job" else 3
        prompts = [script_prompt(f"never {number}", FOREVER) for number in range(count)]
        given = {"prompt": prompts[0]} if how == "job" else {"prompts": prompts}
        task_id = (await host.create("agent_start", **given))["taskId"]
        for _ in range(2):  # a task that ended may be cancelled again
            assert (await host.send("tasks/cancel", taskId=task_id))["resultType"] == "complete"
        task = await host.until(task_id, "cancelled")
        assert "result" not in task
        assert (await host.plain.call("agent_list", status="cancelled"))["counts"] == {"cancelled": count}
        assert "done" not in await host.plain.call("agent_poll", wait_s=0)


async def test_cancelling_a_finished_task_changes_nothing(settings: Settings) -> None:
    async with waiting(settings) as host:
        task_id = await host.start({"duration_s": 0.2})
        answer = await host.end(task_id)
        await host.send("tasks/cancel", taskId=task_id)
        assert await host.end(task_id) == answer


def form(*_: object) -> Any:
    """Declare that dialogs can be shown; in a task the test answers them itself."""
    raise AssertionError("asked outside of a task")


@pytest.mark.parametrize("action", ["accept", "decline"])
async def test_user_is_asked_in_a_task_and_answers_by_update(
    settings: Settings, upstream: RunningServer, action: str
) -> None:
    async with waiting(settings, elicitation_callback=form) as host:
        start = script(mcp_approval=REMOTE)
        task_id = await host.start(start["emulate"], options=start["options"])
        task = await host.until(task_id, "input_required")
        [(key, request)] = task["inputRequests"].items()
        assert request["method"] == "elicitation/create"
        assert all(each in request["params"]["message"] for each in ("shop/buy", '{"what": "a boat"}', task_id))
        assert "result" not in task
        given: dict[str, Any] = {"nonsense": {"action": "accept"}, key: {"action": action, "content": {}}}
        assert (await host.send("tasks/update", taskId=task_id, inputResponses=given))["resultType"] == "complete"
        await host.send("tasks/update", taskId=task_id, inputResponses=given)  # late answers change nothing
        assert (await host.end(task_id))["status"] == "completed"
    [decision] = [item for item in answers(upstream) if item["type"] == "mcp_approval_response"]
    assert decision["approve"] is (action == "accept")


async def test_invalid_answer_approves_nothing(settings: Settings) -> None:
    async with waiting(settings, elicitation_callback=form) as host:
        start = script(mcp_approval=REMOTE)
        task_id = await host.start(start["emulate"], options=start["options"])
        task = await host.until(task_id, "input_required")
        values: list[object] = [None, 5, "accept", {}, {"action": "maybe"}, {"content": {}}]
        for value in values:
            given = dict.fromkeys(task["inputRequests"], value)
            with pytest.raises(MCPError) as refused:
                await host.send("tasks/update", taskId=task_id, inputResponses=given)
            assert refused.value.error.code == INVALID_PARAMS
        assert (await host.get(task_id))["inputRequests"] == task["inputRequests"]


async def test_dialog_that_the_user_closes_is_shown_again_after_the_next_poll(settings: Settings) -> None:
    async with waiting(settings, elicitation_callback=form) as host:
        start = script(mcp_approval=REMOTE)
        task_id = await host.start(start["emulate"], options=start["options"])
        [first] = (await host.until(task_id, "input_required"))["inputRequests"]
        await host.send("tasks/update", taskId=task_id, inputResponses={first: {"action": "cancel"}})
        waiting_job = await host.end(task_id)
        assert waiting_job["status"] == "input_required"
        assert waiting_job["user"].startswith(f"only the user may approve: agent_poll job_id={task_id} asks them")
        assert (await host.create("agent_poll", job_id=task_id))["status"] == "input_required"
        [second] = (await host.get(task_id))["inputRequests"]
        assert second != first
        await host.send("tasks/update", taskId=task_id, inputResponses={second: {"action": "accept"}})
        assert (await host.end(task_id))["status"] == "completed"


@pytest.mark.parametrize("count", [2, 12])
async def test_questions_may_be_answered_one_by_one(settings: Settings, count: int) -> None:
    async with waiting(settings, elicitation_callback=form) as host:
        start = script(mcp_approval=REMOTE)
        prompts = [script_prompt(f"buy {number}", start["emulate"]) for number in range(count)]
        task = await host.create("agent_start", prompts=prompts, options=start["options"])
        seen: set[str] = set()
        with anyio.fail_after(60):
            while (state := await host.get(task["taskId"]))["status"] != "completed":
                assert len(state.get("inputRequests", {})) <= 8
                for key in state.get("inputRequests", {}):
                    assert key not in seen
                    seen.add(key)
                    given: dict[str, Any] = {key: {"action": "accept", "content": {}}}
                    await host.send("tasks/update", taskId=task["taskId"], inputResponses=given)
                await anyio.sleep(0.02)
        assert len(seen) == count
        assert len(answer_of(state)["done"]) == count


@pytest.mark.parametrize("slow", [0, 8])
async def test_answer_counts_though_another_job_has_asked_meanwhile(settings: Settings, slow: int) -> None:
    """A host is shown eight questions at most. The late one may take the place of one that it shows already."""
    async with waiting(settings, elicitation_callback=form) as host:
        start = script(mcp_approval=REMOTE)
        scripts = [start["emulate"] | {"duration_s": 10.0 if number == slow else 0.2} for number in range(9)]
        prompts = [script_prompt(f"buy {number}", emulate) for number, emulate in enumerate(scripts)]
        task = await host.create("agent_start", prompts=prompts, options=start["options"])
        state = await host.once(task["taskId"], lambda state: len(state.get("inputRequests", {})) == 8)
        shown = list[str](state["inputRequests"])
        with anyio.fail_after(60):
            batch = JobFilter(batch=task["taskId"])
            while (await (await host.plain.app.engine()).find(batch, 1)).counts != {Status.INPUT_REQUIRED: 9}:
                await host.get(task["taskId"])
        for key in reversed(shown):  # the last one lost its place first
            given: dict[str, Any] = {key: {"action": "accept", "content": {}}}
            await host.send("tasks/update", taskId=task["taskId"], inputResponses=given)
        state = await host.get(task["taskId"])
        assert state["status"] == "input_required"
        assert state["inputRequests"].keys().isdisjoint(shown)


async def test_question_for_the_model_completes_the_task(settings: Settings) -> None:
    async with waiting(settings, elicitation_callback=form) as host:
        start = script(function_calls=TWO)
        task_id = await host.start(start["emulate"], options=start["options"])
        waiting_job = await host.end(task_id)
        assert [need["name"] for need in waiting_job["needs"]] == ["lookup", "lookup"]
        assert await host.end(task_id) == waiting_job
        outputs = [{"call_id": need["call_id"], "output": "found"} for need in waiting_job["needs"]]
        await host.client.call_tool("agent_reply", {"job_id": task_id, "outputs": outputs})
        await host.create("agent_poll", job_id=task_id)
        ended = await host.once(
            task_id, lambda task: "result" in task and answer_of(task)["status"] != "input_required"
        )
        assert answer_of(ended)["status"] == "completed"


async def test_batch_wakes_the_model_for_a_question_while_other_jobs_run(settings: Settings) -> None:
    async with waiting(settings) as host:
        start = script(function_calls=[LOOKUP])
        await host.start(FOREVER, batch="both")
        asking = await host.start(start["emulate"], options=start["options"], batch="both")
        waiting_job = await host.end("both")
        assert [(each["job_id"], each["status"]) for each in waiting_job["done"]] == [(asking, "input_required")]
        assert waiting_job["running"] == 1


async def test_model_without_dialogs_learns_once_that_the_user_must_approve(settings: Settings) -> None:
    async with waiting(settings) as host:
        start = script(mcp_approval=REMOTE)
        task_id = await host.start(start["emulate"], options=start["options"])
        waiting_job = await host.end(task_id)
        assert f"agent-jobs reply {task_id}" in waiting_job["user"]
        assert await host.end(task_id) == waiting_job
        assert (await host.create("agent_poll", job_id=task_id))["status"] == "working"
        assert (await host.get(task_id))["status"] == "working"
        await host.plain.call("agent_reply", job_id=task_id, deny=[waiting_job["needs"][0]["call_id"]])
        assert (await host.end(task_id))["status"] == "completed"


async def test_task_has_no_dialog_if_the_model_may_approve(settings: Settings) -> None:
    async with waiting(replace(settings, approvals="model"), elicitation_callback=form) as host:
        start = script(mcp_approval=REMOTE)
        task_id = await host.start(start["emulate"], options=start["options"])
        waiting_job = await host.end(task_id)
        assert waiting_job["next"].endswith("approve=[...] or deny=[...]")


def ask_with_tasks(server: Server, method: str, **params: Any) -> dict[str, Any]:
    """Ask as a host of 2026-07-28 that declares tasks."""
    return server.request(method, params | DECLARED)


def test_task_outlives_its_server(tmp_path: Path, upstream: RunningServer) -> None:
    prompt = script_prompt("outlive", {"duration_s": 2 * SPEED})
    with serving(tmp_path, upstream.base_url) as server:
        assert TASKS in ask_with_tasks(server, "server/discover")["capabilities"]["extensions"]
        task = ask_with_tasks(server, "tools/call", name="agent_start", arguments={"prompt": prompt})
        assert (task["resultType"], task["status"], task["ttlMs"]) == ("task", "working", None)
        server.process.kill()
        server.process.wait()
    with serving(tmp_path, upstream.base_url) as server:
        again = ask_with_tasks(server, "tasks/get", taskId=task["taskId"])
        assert again["taskId"] == task["taskId"]
        assert again["createdAt"] == task["createdAt"]
        # Several jobs have no common id, so this poll waits on the server.
        ask_with_tasks(server, "tools/call", name="agent_poll", arguments={"job_ids": [task["taskId"]]})
        again = ask_with_tasks(server, "tasks/get", taskId=task["taskId"])
        assert json.loads(again["result"]["content"][0]["text"])["status"] == "completed"
    assert upstream.emulator.counters()["creates"] == 1


@pytest.mark.parametrize("where", ["environment", "env file"])
def test_user_can_switch_tasks_off(tmp_path: Path, upstream: RunningServer, where: str) -> None:
    path = tmp_path / "settings.env"
    path.write_text("AGENT_JOBS_TASKS=never\n")
    arguments, environment = (
        ([], {"AGENT_JOBS_TASKS": "never"}) if where == "environment" else (["--env-file", str(path)], {})
    )
    with serving(tmp_path, upstream.base_url, *arguments, **environment) as server:
        assert "extensions" not in ask_with_tasks(server, "server/discover")["capabilities"]
        arguments = {"prompt": script_prompt("short", {"duration_s": 0.2})}
        answer = ask_with_tasks(server, "tools/call", name="agent_start", arguments=arguments)
        assert answer["resultType"] == "complete"
        assert json.loads(answer["content"][0]["text"])["job_id"]
