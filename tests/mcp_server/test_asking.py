"""Jobs that ask the user in a dialog or the model by agent_reply, and jobs that get no answer."""

import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx2
import pytest
from hosts import Host, hosting, read, script_prompt
from mcp import Client
from mcp.client import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult, InputRequiredResult
from processes import parameters, serving
from upstream_log import size

from agent_jobs.emulator.server import RunningServer
from agent_jobs.rendering.questions import ASKING_BYTES
from agent_jobs.settings.settings import Settings

ERAS = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["before 2026-07-28", "2026-07-28"])
LOOKUP = {"name": "lookup", "arguments": {"word": "one"}}
REMOTE = {"server_label": "shop", "name": "buy", "arguments": '{"what": "a boat"}'}
TWO = [LOOKUP, {"name": "lookup", "arguments": {"word": "two"}}]


@dataclass
class Person:
    """The user of a host, who answers each question as intended."""

    does: Literal["accept", "decline", "cancel"] = "accept"
    seen: list[str] = field(default_factory=list[str])
    began: anyio.Event = field(default_factory=anyio.Event)
    may_answer: anyio.Event | None = None

    async def asked(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        self.seen.append(params.message)
        self.began.set()
        if self.may_answer is not None:
            await self.may_answer.wait()
        return ElicitResult(action=self.does, content={} if self.does == "accept" else None)


def answers(upstream: RunningServer) -> list[dict[str, Any]]:
    """Return the input of the newest run at upstream."""
    newest = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"][-1]
    items = httpx2.get(
        f"{upstream.base_url}/responses/{newest['id']}/input_items", headers={"Authorization": "Bearer x"}
    )
    return items.json()["data"]


def script(**emulate: Any) -> dict[str, Any]:
    """Return the arguments of a start whose run asks for a call."""
    function: dict[str, Any] = {
        "type": "function",
        "name": "lookup",
        "parameters": {"type": "object", "properties": {}},
    }
    shop = {"type": "mcp", "server_label": "shop", "server_url": "https://shop.example/mcp"}
    tools = [shop if "mcp_approval" in emulate else function]
    return {"emulate": {"duration_s": 0.2, **emulate}, "options": {"tools": tools}}


async def asking(host: Host, **emulate: Any) -> dict[str, Any]:
    """Start a job that asks, and return the answer that a host without dialogs gets."""
    started = await host.start(**script(**emulate))
    return await host.end(started["job_id"], wait_s=20)


def answer_needs(waiting_job: dict[str, Any], output: object = "found") -> list[dict[str, Any]]:
    return [{"call_id": call["call_id"], "output": output} for call in waiting_job["needs"]]


def toolbox(settings: Settings, folder: Path) -> Settings:
    """Return settings with a tool server: `write` and `hang` need an approval, `echo` does not."""
    server = Path(__file__).parents[1] / "support" / "tool_server.py"
    path = folder / "toolbox.json"
    entry = {"command": sys.executable, "args": ["-S", str(server)], "timeout_s": 2}
    path.write_text(json.dumps({"mcpServers": {"one": entry}}))
    return replace(settings, toolbox=path)


# The user, in a dialog of the host


@ERAS
@pytest.mark.parametrize(("does", "approved"), [("accept", True), ("decline", False)])
async def test_user_decides_in_a_dialog_while_the_job_is_polled(
    settings: Settings, upstream: RunningServer, mode: str, does: Literal["accept", "decline"], approved: bool
) -> None:
    person = Person(does)
    async with hosting(settings, mode=mode, elicitation_callback=person.asked) as host:
        started = await host.start("Buy me something", **script(mcp_approval=REMOTE))
        answer = await host.call("agent_poll", job_id=started["job_id"], wait_s=40)
    assert answer["status"] == "completed"
    [question] = person.seen
    assert all(text in question for text in ("Buy me something", started["job_id"], "shop/buy", '{"what": "a boat"}'))
    [decision] = [item for item in answers(upstream) if item["type"] == "mcp_approval_response"]
    assert decision["approve"] is approved
    assert ("denied" in decision.get("reason", "")) is not approved


@ERAS
@pytest.mark.parametrize(("does", "brought"), [("accept", "the text"), ("decline", "The user denied this call.")])
async def test_call_of_the_users_own_tools_is_made_only_if_the_user_accepts(
    settings: Settings,
    tmp_path: Path,
    upstream: RunningServer,
    mode: str,
    does: Literal["accept", "decline"],
    brought: str,
) -> None:
    person = Person(does)
    calls = [{"name": f"one__{name}", "arguments": {"text": "the text"}} for name in ("write", "echo")]
    async with hosting(toolbox(settings, tmp_path), mode=mode, elicitation_callback=person.asked) as host:
        started = await host.start(emulate={"duration_s": 0.2, "function_calls": calls}, options={"toolbox": ["one"]})
        assert (await host.end(started["job_id"]))["status"] == "completed"
    assert ["one/write" in question for question in person.seen] == [True]
    outputs = [item["output"] for item in answers(upstream) if item["type"] == "function_call_output"]
    assert outputs == ["the text", brought]  # the newest first


@ERAS
async def test_dismissed_question_stays_open_and_the_next_poll_asks_it_again(settings: Settings, mode: str) -> None:
    person = Person("cancel")
    async with hosting(settings, mode=mode, elicitation_callback=person.asked) as host:
        waiting_job = await asking(host, mcp_approval=REMOTE)
        assert waiting_job["status"] == "input_required"
        assert waiting_job["user"].startswith(
            f"only the user may approve: agent_poll job_id={waiting_job['job_id']} asks them"
        )
        person.does = "accept"
        assert (await host.end(waiting_job["job_id"]))["status"] == "completed"
    assert len(person.seen) == 2


async def test_unanswered_dialog_closes_with_the_call(settings: Settings) -> None:
    person = Person(may_answer=anyio.Event())
    async with hosting(replace(settings, max_wait_s=5), mode="legacy", elicitation_callback=person.asked) as host:
        waiting_job = await asking(host, mcp_approval=REMOTE)
        assert (waiting_job["status"], len(person.seen)) == ("input_required", 1)


@ERAS
async def test_poll_that_does_not_wait_shows_no_dialog(settings: Settings, mode: str) -> None:
    person = Person()
    async with hosting(settings, mode=mode, elicitation_callback=person.asked) as host:
        started = await host.start(**script(mcp_approval=REMOTE))
        await host.call("agent_poll", job_ids=[started["job_id"]], wait_s=20)
        waiting_job = await host.call("agent_poll", job_id=started["job_id"], wait_s=0)
        assert (waiting_job["status"], person.seen) == ("input_required", [])


@ERAS
async def test_first_answer_counts_when_two_windows_ask_at_once(
    settings: Settings, upstream: RunningServer, mode: str
) -> None:
    """Before 2026-07-28 the other dialog is withdrawn. Later versions note that its answer changed nothing."""
    quick, slow = Person("decline"), Person("accept", may_answer=anyio.Event())
    late: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(hosting(settings, mode=mode, elicitation_callback=slow.asked))
        two = await stack.enter_async_context(hosting(settings, mode=mode, elicitation_callback=quick.asked))
        job_id = (await one.start(**script(mcp_approval=REMOTE)))["job_id"]

        async def poll() -> None:
            late.append(await one.call("agent_poll", job_id=job_id))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll)
            await slow.began.wait()
            assert (await two.end(job_id))["status"] == "completed"
            assert slow.may_answer is not None
            slow.may_answer.set()
    [answer] = late
    assert answer["status"] == "completed"
    assert ("changed nothing" in answer.get("note", "")) is (mode == "auto")
    assert [item["approve"] for item in answers(upstream) if item["type"] == "mcp_approval_response"] == [False]


@ERAS
async def test_no_dialog_is_shown_if_the_model_may_approve(settings: Settings, mode: str) -> None:
    person = Person()
    async with hosting(replace(settings, approvals="model"), mode=mode, elicitation_callback=person.asked) as host:
        waiting_job = await asking(host, mcp_approval=REMOTE)
        await host.call("agent_reply", job_id=waiting_job["job_id"], approve=[waiting_job["needs"][0]["call_id"]])
        assert (await host.end(waiting_job["job_id"]))["status"] == "completed"
    assert person.seen == []


@ERAS
async def test_model_without_dialogs_learns_that_the_user_must_approve(
    settings: Settings, upstream: RunningServer, mode: str
) -> None:
    async with hosting(settings, mode=mode) as host:
        waiting_job = await asking(host, mcp_approval=REMOTE)
        [call] = waiting_job["needs"]
        assert (call["name"], call["approval"]) == ("shop/buy", True)
        assert f"agent-jobs reply {waiting_job['job_id']}" in waiting_job["user"]
        why = await host.refused("agent_reply", job_id=waiting_job["job_id"], approve=[call["call_id"]])
        assert why.startswith("Only the user may approve")
        await host.call("agent_reply", job_id=waiting_job["job_id"], deny=[call["call_id"]])
        await host.end(waiting_job["job_id"])
    assert [item["approve"] for item in answers(upstream) if item["type"] == "mcp_approval_response"] == [False]


async def test_dialog_is_bounded_and_cannot_be_disguised(settings: Settings) -> None:
    person = Person("cancel")
    dressed = {**REMOTE, "arguments": "{\n\n\u202eSafe. " + "x" * 50_000 + "}"}
    async with hosting(settings, mode="legacy", elicitation_callback=person.asked) as host:
        waiting_job = await asking(host, mcp_approval=dressed)
    [question] = person.seen
    assert len(question) < 2_500
    assert "\\n\\n\\u202eSafe." in question
    assert f"characters are not shown: agent_result job_id={waiting_job['job_id']} part=items" in question


@ERAS
async def test_dialog_works_over_pipes(tmp_path: Path, upstream: RunningServer, mode: str) -> None:
    person = Person()
    over = Client(parameters(tmp_path, upstream.base_url), mode=mode, elicitation_callback=person.asked)
    async with over as client:
        arguments = script(mcp_approval=REMOTE)
        prompt = script_prompt("ask", arguments["emulate"])
        started = read(await client.call_tool("agent_start", {"prompt": prompt, "options": arguments["options"]}))
        answer = read(await client.call_tool("agent_poll", {"job_id": started["job_id"]}))
    assert (answer["status"], len(person.seen)) == ("completed", 1)


async def test_answer_counts_after_a_restart_of_the_server(settings: Settings) -> None:
    person = Person()
    async with hosting(settings, elicitation_callback=person.asked) as host:
        poll = {"job_id": (await host.start(**script(mcp_approval=REMOTE)))["job_id"]}
        asked = await host.client.session.call_tool("agent_poll", poll, allow_input_required=True)
    assert isinstance(asked, InputRequiredResult)
    decision = {key: ElicitResult(action="accept", content={}) for key in asked.input_requests or {}}
    async with hosting(settings, elicitation_callback=person.asked) as host:
        answer = read(await host.client.session.call_tool("agent_poll", poll, input_responses={**decision}))
        assert answer["status"] == "completed"
        again = read(await host.client.session.call_tool("agent_poll", poll, input_responses={**decision}))
        assert again["note"].startswith("The user's answer changed nothing:")
    assert person.seen == []


# The host's model, by agent_reply


async def test_job_continues_once_the_model_answers_its_functions(settings: Settings) -> None:
    async with hosting(settings) as host:
        waiting_job = await asking(host, function_calls=TWO)
        assert [json.loads(call["arguments"])["word"] for call in waiting_job["needs"]] == ["one", "two"]
        assert waiting_job["next"] == f"agent_reply job_id={waiting_job['job_id']} outputs=[{{call_id,output}}]"
        await host.call("agent_reply", job_id=waiting_job["job_id"], outputs=answer_needs(waiting_job, {"found": 3}))
        answer = await host.end(waiting_job["job_id"])
        assert all(f'{call["call_id"]}: {{"found": 3}}' in answer["output"] for call in waiting_job["needs"])


async def test_partial_answer_is_kept_and_the_rest_stays_open(settings: Settings) -> None:
    async with hosting(settings) as host:
        waiting_job = await asking(host, function_calls=TWO)
        one, two = answer_needs(waiting_job)
        left = await host.call("agent_reply", job_id=waiting_job["job_id"], outputs=[one])
        assert [call["call_id"] for call in left["needs"]] == [two["call_id"]]
        assert two["call_id"] in await host.refused("agent_reply", job_id=waiting_job["job_id"], outputs=[one])
        await host.call("agent_reply", job_id=waiting_job["job_id"], outputs=[two])
        assert (await host.end(waiting_job["job_id"]))["status"] == "completed"


WRONG: list[tuple[Callable[[str], dict[str, Any]], str]] = [
    (lambda call_id: {"outputs": [{"call_id": "call_x", "output": ""}]}, "The job does not ask for 'call_x'"),
    (lambda call_id: {"outputs": [{"call_id": call_id}]}, "outputs accepts"),
    (lambda call_id: {"outputs": [{"call_id": call_id, "output": 1}] * 2}, "answered twice"),
    (lambda call_id: {"outputs": [{"call_id": call_id, "output": 1}], "deny": [call_id]}, "answered twice"),
    (lambda call_id: {"outputs": []}, "Answer with outputs, approve, deny or message"),
    (lambda call_id: {}, "Answer with outputs, approve, deny or message"),
    (lambda call_id: {"approve": [call_id]}, "waits for an output, not for an approval"),
]


@pytest.mark.parametrize(("reply", "why"), WRONG, ids=[why for _, why in WRONG])
async def test_wrong_answer_gets_a_sentence_and_changes_nothing(
    settings: Settings, reply: Callable[[str], dict[str, Any]], why: str
) -> None:
    async with hosting(replace(settings, approvals="model")) as host:
        waiting_job = await asking(host, function_calls=[LOOKUP])
        [call] = waiting_job["needs"]
        assert why in await host.refused("agent_reply", job_id=waiting_job["job_id"], **reply(call["call_id"]))
        assert await host.call("agent_poll", job_id=waiting_job["job_id"], wait_s=0) == waiting_job


async def test_output_for_an_approval_is_refused(settings: Settings) -> None:
    async with hosting(settings) as host:
        waiting_job = await asking(host, mcp_approval=REMOTE)
        why = await host.refused("agent_reply", job_id=waiting_job["job_id"], outputs=answer_needs(waiting_job))
        assert "waits for an approval, not for an output. Use approve or deny." in why


async def test_answer_to_a_job_that_does_not_ask_is_refused(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"})
        why = await host.refused("agent_reply", job_id=started["job_id"], message="hello")
        assert "needs no answer" in why
        await host.call("agent_cancel", job_id=started["job_id"])
        assert "cancelled" in await host.refused("agent_reply", job_id=started["job_id"], message="hello")
        for more in ({"message": "hello"}, {"approve": ["x"]}):
            assert "There is no job 'job_x'" in await host.refused("agent_reply", job_id="job_x", **more)


async def test_message_replaces_every_missing_answer(settings: Settings) -> None:
    async with hosting(settings) as host:
        waiting_job = await asking(host, function_calls=TWO)
        await host.call(
            "agent_reply",
            job_id=waiting_job["job_id"],
            outputs=answer_needs(waiting_job)[:1],
            message="Go on without it",
        )
        output = (await host.end(waiting_job["job_id"]))["output"]
    assert ": found" in output
    assert "Not done. The user says: Go on without it" in output


async def test_message_in_place_of_an_approval_is_the_reason_of_the_refusal(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as host:
        waiting_job = await asking(host, mcp_approval=REMOTE)
        await host.call("agent_reply", job_id=waiting_job["job_id"], message="Too big")
        await host.end(waiting_job["job_id"])
    [decision] = [item for item in answers(upstream) if item["type"] == "mcp_approval_response"]
    assert (decision["approve"], decision["reason"]) == (False, "Not done. The user says: Too big")


async def test_first_of_many_simultaneous_answers_counts(settings: Settings) -> None:
    came: list[bool] = []
    async with hosting(settings) as one, hosting(settings) as two:
        waiting_job = await asking(one, function_calls=[LOOKUP])

        async def reply(host: Host, number: int) -> None:
            outputs = answer_needs(waiting_job, f"answer {number}")
            result = await host.client.call_tool("agent_reply", {"job_id": waiting_job["job_id"], "outputs": outputs})
            came.append(not result.is_error)
            if not result.is_error:
                counted.append(f"answer {number}")

        counted: list[str] = []
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(reply, (one, two)[number % 2], number)
        assert sum(came) == 1
        assert counted[0] in (await one.end(waiting_job["job_id"]))["output"]


async def test_approval_that_comes_while_another_approved_call_runs_disturbs_neither(
    settings: Settings, tmp_path: Path
) -> None:
    calls: list[dict[str, Any]] = [
        {"name": "one__hang", "arguments": {}},
        {"name": "one__write", "arguments": {"text": "written"}},
    ]
    async with hosting(replace(toolbox(settings, tmp_path), approvals="model")) as host:
        started = await host.start(emulate={"duration_s": 0.2, "function_calls": calls}, options={"toolbox": ["one"]})
        job_id = started["job_id"]
        slow, quick = (await host.call("agent_poll", job_id=job_id))["needs"]
        await host.call("agent_reply", job_id=job_id, approve=[slow["call_id"]])
        with anyio.fail_after(60):
            while (await host.call("agent_result", job_id=job_id, part="items"))["items"][0]["state"] != "running":
                await anyio.lowlevel.checkpoint()
        await host.call("agent_reply", job_id=job_id, approve=[quick["call_id"]])
        output = (await host.end(job_id))["output"]
    assert f"{quick['call_id']}: written" in output
    assert "unknown" not in output


def test_answer_outlives_the_processes_that_asked_and_received_it(tmp_path: Path, upstream: RunningServer) -> None:
    """One process asks and is killed, one without a key stores the answer and is killed, and a third one continues."""
    with serving(tmp_path, upstream.base_url) as server:
        server.initialize()
        arguments = script(function_calls=[LOOKUP])
        prompt = script_prompt("ask", arguments["emulate"])
        job_id = server.call("agent_start", prompt=prompt, options=arguments["options"], wait_s=0)["job_id"]
        waiting_job = server.call("agent_poll", job_id=job_id)
    with serving(tmp_path, upstream.base_url, OPENAI_API_KEY="") as server:
        server.initialize()
        assert server.call("agent_poll", job_id=job_id, wait_s=0)["needs"] == waiting_job["needs"]
        server.call("agent_reply", job_id=job_id, outputs=answer_needs(waiting_job, "kept"))
    with serving(tmp_path, upstream.base_url) as server:
        server.initialize()
        assert "kept" in server.call("agent_poll", job_id=job_id)["output"]
    assert upstream.emulator.counters()["creates"] == 2


# No answer, and the reports to hosts meanwhile


async def test_unanswered_question_fails_the_job_in_time_even_if_it_is_polled(settings: Settings) -> None:
    async with hosting(replace(settings, input_timeout_s=60.0, max_wait_s=45.0)) as host:
        waiting_job = await asking(host, function_calls=[LOOKUP])
        answer = await host.call("agent_poll", job_id=waiting_job["job_id"], wait_s=45)
        answer = (
            await host.call("agent_poll", job_id=waiting_job["job_id"], wait_s=45) if "error" not in answer else answer
        )
    assert (answer["status"], answer["error"]["code"]) == ("failed", "deadline_exceeded")


@ERAS
@pytest.mark.parametrize("dialogs", [True, False], ids=["dialogs", "no dialogs"])
async def test_missing_approval_expires_and_a_late_one_changes_nothing(
    settings: Settings, upstream: RunningServer, mode: str, dialogs: bool
) -> None:
    person: dict[str, Any] = {"elicitation_callback": Person("cancel").asked} if dialogs else {}
    async with hosting(replace(settings, input_timeout_s=30.0), mode=mode, **person) as host:
        waiting_job = await asking(host, mcp_approval=REMOTE)
        with anyio.fail_after(60):
            while "error" not in (answer := await host.call("agent_poll", job_id=waiting_job["job_id"], wait_s=20)):
                await host.call(
                    "agent_poll", job_ids=[waiting_job["job_id"]], wait_s=20
                )  # reports a known question no more
        assert (answer["status"], answer["error"]["code"]) == ("failed", "deadline_exceeded")
        assert answer["next"] == "agent_start again once the user can answer"
        late = await host.refused(
            "agent_reply", job_id=waiting_job["job_id"], deny=[waiting_job["needs"][0]["call_id"]]
        )
        assert f"{waiting_job['job_id']} is failed and needs no answer" in late
    assert upstream.emulator.counters()["creates"] == 1


async def test_job_that_waits_is_cancelled_at_once(settings: Settings, upstream: RunningServer) -> None:
    async with hosting(settings) as host:
        waiting_job = await asking(host, function_calls=[LOOKUP])
        assert (await host.call("agent_cancel", job_id=waiting_job["job_id"]))["status"] == "cancelled"
        assert "cancelled" in await host.refused(
            "agent_reply", job_id=waiting_job["job_id"], outputs=answer_needs(waiting_job)
        )
    assert upstream.emulator.counters()["creates"] == 1


@pytest.mark.parametrize("of_all", [True, False], ids=["any of mine", "a list"])
async def test_poll_of_several_jobs_reports_a_question_once_and_again_when_it_changes(
    settings: Settings, of_all: bool
) -> None:
    async with hosting(settings) as host:
        started = await host.start(**script(function_calls=TWO))
        job_id = started["job_id"]
        group: dict[str, Any] = {} if of_all else {"job_ids": [job_id]}
        news = await host.call("agent_poll", **group, wait_s=20)
        assert [(row["job_id"], row["status"]) for row in news["done"]] == [(job_id, "input_required")]
        assert news["next"] == "agent_poll each that is input_required"
        quiet = await host.call("agent_poll", **group, wait_s=5)
        assert (quiet["running"], quiet["input_required"]) == (0, 1)
        waiting_job = await host.call("agent_poll", job_id=job_id, wait_s=0)
        await host.call("agent_reply", job_id=job_id, outputs=answer_needs(waiting_job)[:1])
        assert "done" not in await host.call("agent_poll", **group, wait_s=0)  # the reply told what is left
        await host.call("agent_reply", job_id=job_id, outputs=answer_needs(waiting_job)[1:])
        assert (await host.call("agent_poll", **group, wait_s=40))["done"][0]["status"] == "completed"


async def test_question_does_not_delay_the_report_of_another_finished_job(settings: Settings) -> None:
    async with hosting(settings) as host:
        waiting_job = await asking(host, function_calls=[LOOKUP])
        await host.start(emulate={"duration_s": 3, "text": "the other"})
        answer = await host.call("agent_poll", wait_s=40)
        assert [row.get("output") for row in answer["done"]] == ["the other"]
        assert answer["input_required"] == 1
        assert [row["job_id"] for row in (await host.call("agent_list", status="input_required"))["jobs"]] == [
            waiting_job["job_id"]
        ]


async def test_each_window_gets_the_question(settings: Settings) -> None:
    async with hosting(settings) as one, hosting(settings) as two:
        waiting_job = await asking(one, function_calls=[LOOKUP])
        assert (await two.call("agent_poll", wait_s=20))["done"][0]["job_id"] == waiting_job["job_id"]


@pytest.mark.parametrize(
    ("count", "length"), [(1, 100_000), (25, 2_500), (64, 10)], ids=["huge", "huge and many", "many"]
)
async def test_question_stays_small_and_can_be_read_in_full(settings: Settings, count: int, length: int) -> None:
    calls = [{"name": "lookup", "arguments": {"word": "ü" * length}} for _ in range(count)]
    async with hosting(settings) as host:
        waiting_job = await asking(host, function_calls=calls)
        assert size(waiting_job) <= ASKING_BYTES
        assert len(waiting_job["needs"]) + waiting_job.get("more", 0) == count
        assert waiting_job["whole"] == f"agent_result job_id={waiting_job['job_id']} part=items"
        entries: list[dict[str, Any]] = []
        page: dict[str, Any] = {"next": "offset=0"}
        while "next" in page:
            offset = int(page["next"].rpartition("=")[2])
            page = await host.call("agent_result", job_id=waiting_job["job_id"], part="items", offset=offset)
            assert size(page) <= 26_000
            entries += page["items"]
    whole: dict[str, str] = {}
    for entry in entries:
        if entry["type"] == "call":
            whole[entry["call_id"]] = whole.get(entry["call_id"], "") + entry["arguments"]
    assert [json.loads(arguments) for arguments in whole.values()] == [call["arguments"] for call in calls]
