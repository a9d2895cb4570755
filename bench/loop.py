"""Measure what waiting for a job costs the waiting model: a scripted host does only what the answers say.

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
from agent_jobs.clock import create_fast_clock
from agent_jobs.emulator.server import run_emulator
from agent_jobs.mcp_server.server import build_server
from agent_jobs.mcp_server.wait_limits import BACKGROUND_AFTER_S
from agent_jobs.settings.settings import Settings
from bench.figures import Figure, settings
from bench.peers import read_answer

#: Seconds that jobs take, and the factor of their clock: each takes two to eight real seconds.
JOBS_S = {20: 10, 600: 100, 2400: 300}
#: The host's client name, and the seconds that the server then waits; 0 forbids waits. The last host waits for native
#: tasks itself, without its model. The peer has no tasks, so it is polled as in the first row.
HOSTS = {
    "45 s waits": ("bench", 45),
    "240 s waits": ("codex", 240),
    "background after 120 s": ("claude-code", 1500),
    "hints alone": ("bench", 0),
    "with tasks": ("tasks", 45),
}
#: The promise for ten minutes: turns, and bytes of the answers.
LIMITS = {
    ("45 s waits", 600): (16, 3_000),
    ("240 s waits", 600): (5, 3_000),
    ("background after 120 s", 600): (3, 3_000),
    ("with tasks", 600): (1, 500),
}
QUESTION = "Why do long jobs fail?"
#: Bytes of the answers measured on @steipete/oracle 0.21.2: a start, a wait that ran out, an end without its text.
PEER_START, PEER_RUNNING, PEER_ENDED = 419, 1_758, 2_603
PEER_POLL_S = 5  # seconds between polls if the server does not wait


class CreatedTask(Result):
    """The answer to a call that continues as a task."""

    result_type: Literal["task"] = Field(alias="resultType")
    task_id: str = Field(alias="taskId")
    poll_interval_ms: int = Field(alias="pollIntervalMs")


class TaskParams(RequestParams):
    """The id of a task."""

    task_id: str = Field(alias="taskId")


class GetTask(Request[TaskParams, Literal["tasks/get"]]):
    """Ask for the state of a task."""

    method: Literal["tasks/get"] = "tasks/get"
    params: TaskParams


class TaskState(Result):
    """The state of a task."""

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
    """The calls of a model and their answers, in bytes of compact JSON."""

    calls: list[int] = field(default_factory=list[int])
    answers: list[int] = field(default_factory=list[int])

    def add(self, call: int, answer: int) -> None:
        self.calls.append(call)
        self.answers.append(answer)

    @property
    def sent_bytes(self) -> int:
        """Return the bytes that the model reads: each of its turns reads all calls and answers before it."""
        grown = [call + answer for call, answer in zip(self.calls, self.answers, strict=True)]
        return sum(bytes * (len(grown) - number) for number, bytes in enumerate(grown))


async def measure_waiting(quick: bool) -> list[Figure]:
    """Measure turns, bytes of the answers and bytes of the conversation, by length of the job and kind of host."""
    figures: list[Figure] = []
    for length_s, speed in JOBS_S.items():
        if quick and length_s > 600:
            continue
        held: dict[str, Conversation] = {}
        with run_emulator(time_scale=speed) as upstream:
            async with anyio.create_task_group() as tasks:
                for kind in HOSTS:
                    tasks.start_soon(hold_conversation, held, kind, upstream.base_url, length_s, speed)
        for kind in HOSTS:
            figures += create_figures(kind, length_s, held[kind])
    return figures


async def hold_conversation(held: dict[str, Conversation], kind: str, base_url: str, length_s: int, speed: int) -> None:
    held[kind] = Conversation()
    name, wait_s = HOSTS[kind]
    async with open_host(name, base_url, speed) as client:
        script = {"duration_s": length_s, "searches": 12}
        answer = await call_tool(
            client, held[kind], "agent_start", prompt=QUESTION, options={"metadata": {"emulate": json.dumps(script)}}
        )
        while "next_poll_ms" in answer:
            if not wait_s:  # a wait at the server is longer than any hint
                await anyio.sleep(answer["next_poll_ms"] / 1e3 / speed)
            tool, job = answer["next"].partition(";")[0].split()
            asked = {"job_id": job.removeprefix("job_id="), **({} if wait_s else {"wait_s": 0})}
            began = anyio.current_time()
            answer = await call_tool(client, held[kind], tool, **asked)
            if (anyio.current_time() - began) * speed > BACKGROUND_AFTER_S.get(name, inf):
                held[kind].add(0, 0)  # the host uses a turn to say that the call is still running
        assert answer["status"] == "completed", answer


async def call_tool(client: Client, conversation: Conversation, tool: str, **arguments: Any) -> dict[str, Any]:
    """Return a tool's answer and count its bytes, without the emulated run's script and the job's own text."""
    answer = read_answer(await client.call_tool(tool, arguments))
    arguments.pop("options", None)
    conversation.add(count_bytes({"name": tool, "arguments": arguments}), count_bytes(answer | {"output": ""}))
    return answer


def count_bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def create_peer(length_s: int, wait_s: int, calls: list[int]) -> Conversation:
    """Return the same calls, polls at a fixed distance, and the answers that the peer gives to them."""
    polls = ceil(length_s / (wait_s or PEER_POLL_S))
    answers = [PEER_START, *[PEER_RUNNING] * (polls - 1), PEER_ENDED]
    return Conversation([calls[0], *[calls[-1]] * polls], answers)


def create_figures(kind: str, length_s: int, ours: Conversation) -> list[Figure]:
    beside = create_peer(length_s, HOSTS[kind][1], ours.calls)
    job = f"{length_s} s" if length_s < 60 else f"{length_s // 60} min"
    turns, answers = LIMITS.get((kind, length_s), (None, None))
    return [
        create_figure(f"{job}, {kind}: turns", "", turns, len(ours.calls), len(beside.calls)),
        create_figure(f"{job}, {kind}: answers", "B", answers, sum(ours.answers), sum(beside.answers)),
        create_figure(f"{job}, {kind}: conversation", "KiB", None, ours.sent_bytes / 1024, beside.sent_bytes / 1024),
    ]


def create_figure(what: str, unit: str, most: int | None, ours: float, beside: float) -> Figure:
    if most is None:
        return Figure(what, "", ours=[ours], beside=[beside], unit=unit)
    return Figure(what, f"<= {most:,}", lambda figure: figure.p50 <= most, [ours], [beside], unit)


@asynccontextmanager
async def open_host(name: str, base_url: str, speed: int) -> AsyncGenerator[Client]:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_app(Settings.from_env(settings(folder, base_url)), create_fast_clock(speed)) as app,
            Client(
                build_server(app.engine),
                client_info=Implementation(name=name, version="1"),
                extensions=[Tasks(speed)] if name == "tasks" else [],
            ) as client,
        ):
            yield client
