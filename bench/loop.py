"""What waiting for a job costs the model that waits: a scripted host that does what the answers say, nothing else.

Time is scaled: a job of ten minutes is over in seconds, and answers, waits and hints are those of ten minutes.
"""

import json
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Any, Literal

import anyio
from mcp import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp_types import CallToolResult, Implementation, Request, RequestParams, Result
from pydantic import Field

from agent_jobs.app import open_app
from agent_jobs.clock import fast_clock
from agent_jobs.emulator import running
from agent_jobs.mcp_server.pacing import BACKGROUND_AFTER_S
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings import Settings
from bench.figures import Figure, settings
from bench.peers import answer_of

#: Lengths of jobs, and how many of their seconds pass in one of ours: each takes two to eight.
JOBS_S = {20: 10, 600: 100, 2400: 300}
#: By whose name the host calls and how long the server then waits, in seconds; with 0 it is not let wait. The last one
#: waits for native tasks itself, without its model; the peer, which has none, is waited for as in the first.
HOSTS = {
    "45 s waits": ("bench", 45),
    "240 s waits": ("codex", 240),
    "background after 120 s": ("claude-code", 1500),
    "hints alone": ("bench", 0),
    "with tasks": ("tasks", 45),
}
#: What is promised of ten minutes: turns, and bytes of the answers.
LIMITS = {
    ("45 s waits", 600): (16, 3_000),
    ("240 s waits", 600): (5, 3_000),
    ("background after 120 s", 600): (3, 3_000),
    ("with tasks", 600): (1, 500),
}
QUESTION = "Why do long jobs fail?"
#: @steipete/oracle 0.21.2 as it was measured: a start, a wait that ran out, and an end beside its text, in bytes.
PEER_START, PEER_RUNNING, PEER_ENDED = 419, 1_758, 2_603
#: How far apart polls are where nobody waits on the server's side.
PEER_POLL_S = 5


class CreatedTask(Result):
    """The answer to a call that goes on as a task."""

    result_type: Literal["task"] = Field(alias="resultType")
    task_id: str = Field(alias="taskId")
    poll_interval_ms: int = Field(alias="pollIntervalMs")


class TaskParams(RequestParams):
    """Which task is asked about."""

    task_id: str = Field(alias="taskId")


class GetTask(Request[TaskParams, Literal["tasks/get"]]):
    """Ask how a task stands."""

    method: Literal["tasks/get"] = "tasks/get"
    params: TaskParams


class TaskState(Result):
    """How a task stands."""

    result: CallToolResult | None = None


class Tasks(ClientExtension):
    """A host that waits for tasks by itself and gives its model their results."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self, speed: int) -> None:
        self._speed = speed

    def claims(self) -> list[ResultClaim[CreatedTask]]:
        """Declare that answers may be tasks."""
        return [ResultClaim(result_type="task", model=CreatedTask, resolve=self._wait)]

    async def _wait(self, task: CreatedTask, context: ClaimContext) -> CallToolResult:
        while True:
            await anyio.sleep(task.poll_interval_ms / 1e3 / self._speed)
            request = GetTask(params=TaskParams.model_validate({"taskId": task.task_id}))
            state = await context.session.send_request(request, TaskState)
            if state.result is not None:
                return state.result


@dataclass
class Conversation:
    """The calls of a model and what it was answered, in bytes of compact JSON."""

    calls: list[int] = field(default_factory=list[int])
    answers: list[int] = field(default_factory=list[int])

    def add(self, call: int, answer: int) -> None:
        self.calls.append(call)
        self.answers.append(answer)

    @property
    def sent(self) -> int:
        """What the model reads: each of its turns, the last one too, reads all calls and answers before it."""
        grown = [call + answer for call, answer in zip(self.calls, self.answers, strict=True)]
        return sum(bytes * (len(grown) - number) for number, bytes in enumerate(grown))


async def waiting(quick: bool) -> list[Figure]:
    """Turns, bytes of the answers and bytes sent over the conversation, by length of the job and kind of host."""
    figures: list[Figure] = []
    for length_s, speed in JOBS_S.items():
        if quick and length_s > 600:
            continue
        held: dict[str, Conversation] = {}
        with running(time_scale=speed) as upstream:
            async with anyio.create_task_group() as tasks:
                for kind in HOSTS:
                    tasks.start_soon(_hold, held, kind, upstream.base_url, length_s, speed)
        for kind in HOSTS:
            figures += _figures(kind, length_s, held[kind])
    return figures


async def _hold(held: dict[str, Conversation], kind: str, base_url: str, length_s: int, speed: int) -> None:
    held[kind] = Conversation()
    name, wait_s = HOSTS[kind]
    async with _host(name, base_url, speed) as client:
        script = {"duration_s": length_s, "searches": 12}
        answer = await _asked(
            client, held[kind], "agent_start", prompt=QUESTION, options={"metadata": {"emulate": json.dumps(script)}}
        )
        while "next_poll_ms" in answer:
            if not wait_s:  # a wait of the server's is longer than any hint
                await anyio.sleep(answer["next_poll_ms"] / 1e3 / speed)
            tool, job = answer["next"].partition(";")[0].split()
            asked = {"job_id": job.removeprefix("job_id="), **({} if wait_s else {"wait_s": 0})}
            began = anyio.current_time()
            answer = await _asked(client, held[kind], tool, **asked)
            if (anyio.current_time() - began) * speed > BACKGROUND_AFTER_S.get(name, inf):
                held[kind].add(0, 0)  # the turn in which the host itself says that the call goes on
        assert answer["status"] == "completed", answer


async def _asked(client: Client, conversation: Conversation, tool: str, **arguments: Any) -> dict[str, Any]:
    """The answer; neither the script of the emulated run nor the job's own text count."""
    answer = answer_of(await client.call_tool(tool, arguments))
    arguments.pop("options", None)
    conversation.add(_bytes({"name": tool, "arguments": arguments}), _bytes(answer | {"output": ""}))
    return answer


def _bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _peer(length_s: int, wait_s: int, calls: list[int]) -> Conversation:
    """The same calls, polls at a fixed distance, and the answers that the peer gives to them."""
    polls = ceil(length_s / (wait_s or PEER_POLL_S))
    answers = [PEER_START, *[PEER_RUNNING] * (polls - 1), PEER_ENDED]
    return Conversation([calls[0], *[calls[-1]] * polls], answers)


def _figures(kind: str, length_s: int, ours: Conversation) -> list[Figure]:
    beside = _peer(length_s, HOSTS[kind][1], ours.calls)
    job = f"{length_s} s" if length_s < 60 else f"{length_s // 60} min"
    turns, answers = LIMITS.get((kind, length_s), (None, None))
    return [
        _figure(f"{job}, {kind}: turns", "", turns, len(ours.calls), len(beside.calls)),
        _figure(f"{job}, {kind}: answers", "B", answers, sum(ours.answers), sum(beside.answers)),
        _figure(f"{job}, {kind}: conversation", "KiB", None, ours.sent / 1024, beside.sent / 1024),
    ]


def _figure(what: str, unit: str, most: int | None, ours: float, beside: float) -> Figure:
    if most is None:
        return Figure(what, "", ours=[ours], beside=[beside], unit=unit)
    return Figure(what, f"<= {most:,}", lambda figure: figure.p50 <= most, [ours], [beside], unit)


@asynccontextmanager
async def _host(name: str, base_url: str, speed: int) -> AsyncGenerator[Client]:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_app(Settings.from_env(settings(folder, base_url)), fast_clock(speed)) as app,
            Client(
                build_server(app.engine),
                client_info=Implementation(name=name, version="1"),
                extensions=[Tasks(speed)] if name == "tasks" else [],
            ) as client,
        ):
            yield client
