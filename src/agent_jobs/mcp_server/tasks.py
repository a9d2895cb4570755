"""Native tasks (`io.modelcontextprotocol/tasks`): the host waits for a job or a batch, and its model does not.

A task is a job or a batch under its own id, so the store keeps it and a later process answers for it. Kept here is only
what hosts of this process asked and were answered.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CallToolResult,
    ClientCapabilities,
    ElicitResult,
    InitializeRequestParams,
    RequestParams,
)
from mcp_types.jsonrpc import HEADER_MISMATCH
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ConfigDict, Field, ValidationError

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, JobNotFoundError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.poll_schedule import next_poll_ms
from agent_jobs.jobs.queries import BatchState, JobFilter
from agent_jobs.jobs.response import Call
from agent_jobs.jobs.status import Status
from agent_jobs.mcp_server.elicitation import ASKED, can_show_form, decide, key_of, request_for
from agent_jobs.mcp_server.tool_adapter import Answer, as_result
from agent_jobs.rendering import answers
from agent_jobs.rendering.paging import OUTPUT_BYTES, page_cap_bytes
from agent_jobs.request.body import StartRequest

TASKS = "io.modelcontextprotocol/tasks"
VERSIONS = frozenset(MODERN_PROTOCOL_VERSIONS)
POLL_MIN_MS = 2_000  # a host's poll costs no tokens, but reads the database
BATCH_BYTES = 4_000  # of the rows of an ended batch: one longer answer instead of a model turn for every few jobs
BATCH_ROWS = 100
MESSAGE_CHARS = 200

Questions = Mapping[str, tuple[Job, Call]]


class CreatedTask(CallToolResult):
    """The answer of a tool that goes to the host as a task."""

    model_config = ConfigDict(defer_build=True)  # as all models here: at start-up it would take milliseconds

    task: dict[str, Any]


class TaskParams(RequestParams):
    """Parameters of `tasks/get` and `tasks/cancel`."""

    model_config = ConfigDict(defer_build=True)

    task_id: str = Field(alias="taskId")


class UpdateParams(TaskParams):
    """Parameters of `tasks/update`."""

    input_responses: dict[str, Any] = Field(alias="inputResponses")


class TaskState(NamedTuple):
    """How a task stands."""

    status: str
    message: str
    created_at: float
    updated_at: float
    poll_ms: int = POLL_MIN_MS
    questions: Questions = MappingProxyType({})  #: what the host is to ask its user
    answer: Answer | None = None  #: what a poll answers, if the task is completed
    shown: Sequence[Job] = ()  #: jobs whose end or question the host gets to know


class TaskHost(NamedTuple):
    """What a host can show."""

    may_ask: bool
    page_bytes: int = OUTPUT_BYTES


def _host_of(capabilities: ClientCapabilities | None, client: InitializeRequestParams | None) -> TaskHost:
    return TaskHost(can_show_form(capabilities), page_cap_bytes(client.client_info.name if client else ""))


def declares_tasks(version: str | None, capabilities: ClientCapabilities | None) -> bool:
    """Return True if a request declares the extension; what a host of an earlier protocol says of it does not count."""
    extensions = capabilities.extensions if capabilities else None
    return version in VERSIONS and TASKS in (extensions or {})


class TasksExtension(Extension):
    """Answers waiting calls with tasks, and serves `tasks/get`, `tasks/update` and `tasks/cancel`."""

    identifier = TASKS

    def __init__(self, engine: Callable[[], Awaitable[Engine]], *, may_approve: bool, is_structured: bool) -> None:
        """Keep what gives the engine.

        Args:
            engine: As for `build_server`.
            may_approve: Whether the host's model approves calls, so that no dialog is shown.
            is_structured: As for `build_server`.
        """
        self._is_structured = is_structured
        self._engine = engine
        self._may_approve = may_approve
        self._duplicates: set[str] = set()  #: jobs that answered for work that was asked for again
        self._dismissals: dict[tuple[str, str], int] = {}  #: by job and call: dialogs that the user closed
        self._dismissed: set[tuple[str, str]] = set()  #: calls that no dialog is shown for until the next agent_poll
        self._told: dict[str, int] = {}  #: by job: the revision in which the model learned what it asks
        self._polled: dict[str, int] = {}  #: by job: the revision that the model knew when it called agent_poll

    def methods(self) -> Sequence[MethodBinding]:
        """Return the methods of the extension, for the versions of the protocol that have it."""
        return [
            MethodBinding("tasks/get", TaskParams, self._get, VERSIONS),
            MethodBinding("tasks/update", UpdateParams, self._update, VERSIONS),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, VERSIONS),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Send a created task in its own form, of which the SDK's models know nothing."""
        result = await call_next(ctx)
        return result.task if isinstance(result, CreatedTask) else result

    def is_wanted(self, ctx: Context, wait_s: float | None) -> bool:
        """Return True if a call is to be answered with a task: its host declares them, and the call would wait."""
        is_answer = ctx.input_responses is not None
        return declares_tasks(ctx.protocol_version, ctx.client_capabilities) and wait_s != 0 and not is_answer

    async def start(self, ctx: Context, jobs: Engine, order: StartRequest) -> Answer | CreatedTask:
        """Start jobs and return them as one task; where no one id names all of them, return the plain answer.

        Raises:
            AgentJobsError: As `Engine.start`.
        """
        started = await jobs.start(order)
        duplicates = [one.job.id for one in started if one.duplicate]
        if len(order.prompts) == 1:
            self._duplicates.update(duplicates)
            return await self._create(ctx, jobs, JobFilter(job_ids=(started[0].job.id,)))
        answer = answers.started_together([one.job for one in started], len(duplicates))
        return await self._create(ctx, jobs, JobFilter(batch=answer["batch"])) if "batch" in answer else answer

    async def poll(self, ctx: Context, jobs: Engine, task_id: str) -> CreatedTask:
        """Return a job or a batch as a task.

        Dialogs that the user closed are shown again. What the model knows already does not complete the task.

        Raises:
            JobNotFoundError: There is no such job or batch.
        """
        group = await _find_group(jobs, task_id)
        for job in (await jobs.find(group, BATCH_ROWS)).jobs:
            self._ask_again(job)
        return await self._create(ctx, jobs, group)

    async def _create(self, ctx: Context, jobs: Engine, group: JobFilter) -> CreatedTask:
        state = await self._state(jobs, group, host=_host_of(ctx.client_capabilities, ctx.session.client_params))
        return CreatedTask(content=[], task=_wire(group, state, "task", is_structured=self._is_structured))

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        with _as_protocol_error(ctx, params.task_id):
            jobs = await self._engine()
            group = await _find_group(jobs, params.task_id)
            state = await self._state(
                jobs, group, host=_host_of(ctx.session.client_capabilities, ctx.session.client_params)
            )
            self._told |= {job.id: job.revision for job in state.shown if not job.is_terminal}
            jobs.mark_delivered_later(*state.shown)
            return _wire(group, state, "complete", is_structured=self._is_structured)

    async def _update(self, ctx: ServerRequestContext[Any, Any], params: UpdateParams) -> HandlerResult:
        """Answer what the job asks; keys that it does not ask for, or no longer, are ignored."""
        with _as_protocol_error(ctx, params.task_id):
            jobs = await self._engine()
            group = await _find_group(jobs, params.task_id)
            questions = (await self._state(jobs, group, host=TaskHost(may_ask=True))).questions
            given = {key: _read_answer(value) for key, value in params.input_responses.items() if key in questions}
            for key, answer in given.items():
                job, call = questions[key]
                if answer.action == "cancel":
                    self._dismissed.add((job.id, key_of(job, call)))
                    self._dismissals[job.id, key_of(job, call)] = self._count_dismissals(job, call) + 1
                else:
                    await decide(jobs, job.id, {key_of(job, call): answer})
            return {}

    async def _cancel(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        with _as_protocol_error(ctx, params.task_id):
            jobs = await self._engine()
            stopped = await jobs.cancel(await _find_group(jobs, params.task_id))
            jobs.mark_delivered_later(*(job for job in stopped if job.status is Status.CANCELLED))
            return {}

    async def _state(self, jobs: Engine, group: JobFilter, *, host: "TaskHost") -> TaskState:
        if group.batch:
            return await self._state_of_batch(jobs, group, host=host)
        return await self._state_of_job(jobs, await jobs.poll(group.job_ids[0]), host=host)

    async def _state_of_job(self, jobs: Engine, job: Job, *, host: "TaskHost") -> TaskState:
        calls = await jobs.open_calls(job)
        state = TaskState("working", _message(job, jobs.now()), job.created_at, _updated_at(job), _poll_ms(jobs, [job]))
        if job.status is Status.CANCELLED:
            return state._replace(status="cancelled", shown=[job])
        if questions := self._questions(job, calls, may_ask=host.may_ask):
            return state._replace(status="input_required", questions=questions)
        if job.is_terminal:
            is_duplicate = job.id in self._duplicates
            answer = answers.started(job, jobs.now(), duplicate=is_duplicate, limit_bytes=host.page_bytes)
            return state._replace(status="completed", answer=answer, shown=[job])
        if self._needs_model(job, calls):
            answer = answers.asking(job, calls, may_approve=self._may_approve, dialog=host.may_ask)
            return state._replace(status="completed", answer=answer, shown=[job])
        return state

    async def _state_of_batch(self, jobs: Engine, group: JobFilter, *, host: "TaskHost") -> TaskState:
        """Return the state of a batch, which is completed once all of it ended, or one asks the model."""
        found = await jobs.find(group, BATCH_ROWS)
        gathered = await jobs.wait_for_any(group)
        asking = [job for job in [*gathered.done, *gathered.asking] if not job.is_terminal]
        calls = {job.id: await jobs.open_calls(job) for job in asking}
        by_job = {job.id: self._questions(job, calls[job.id], may_ask=host.may_ask) for job in asking}
        questions: Questions = {key: each for asked in by_job.values() for key, each in asked.items()}
        pressing = [job for job in asking if not by_job[job.id] and self._needs_model(job, calls[job.id])]
        state = TaskState(
            "working",
            ", ".join(f"{count} {status}" for status, count in found.counts.items()),
            min(job.created_at for job in found.jobs),
            max(map(_updated_at, found.jobs)),
            _poll_ms(jobs, gathered.running or asking),
        )
        if questions:
            return state._replace(status="input_required", questions=dict(islice(questions.items(), ASKED)))
        if not pressing and (gathered.running or asking):
            return state
        if found.counts.keys() == {Status.CANCELLED}:
            return state._replace(status="cancelled", shown=found.jobs)
        fresh = [job for job in gathered.done if job.is_terminal]
        ended = fresh or [] if pressing else fresh or _by_end(found.jobs)
        waiting = [job for job in asking if job not in pressing]
        done = [*ended, *pressing]
        if len(done) == 1:
            done = [await jobs.poll(done[0].id)]  # with its output
        told = BatchState(done, gathered.running, waiting, gathered.delivered)
        answer, shown = answers.gathered(told, group, jobs.now(), limit_bytes=host.page_bytes, rows_bytes=BATCH_BYTES)
        return state._replace(status="completed", answer=answer, shown=shown)

    def _questions(self, job: Job, calls: Sequence[Call], *, may_ask: bool) -> Questions:
        """Return the approvals that the host is to ask its user for, each by a key that is used once."""
        if not may_ask or self._may_approve:
            return {}
        open_calls = (call for call in calls if call.needs == "approval")
        asked = (call for call in open_calls if (job.id, key_of(job, call)) not in self._dismissed)
        return {
            f"{job.id}:{self._count_dismissals(job, call)}:{key_of(job, call)}": (job, call)
            for call in islice(asked, ASKED)
        }

    def _needs_model(self, job: Job, calls: Sequence[Call]) -> bool:
        """Return True if the model has to act, or does not know yet that a person has to."""
        if not calls:
            return False
        is_for_person = not self._may_approve and all(call.needs == "approval" for call in calls)
        return not is_for_person or self._polled.get(job.id) != job.revision

    def _ask_again(self, job: Job) -> None:
        """Show the closed dialogs of a job again, and wait for a change of what its model knows."""
        self._dismissed = {each for each in self._dismissed if each[0] != job.id}
        if job.id in self._told:
            self._polled[job.id] = self._told[job.id]

    def _count_dismissals(self, job: Job, call: Call) -> int:
        return self._dismissals.get((job.id, key_of(job, call)), 0)


async def _find_group(jobs: Engine, task_id: str) -> JobFilter:
    """Return what asks for the job or the batch of this id."""
    for group in (JobFilter(job_ids=(task_id,)), JobFilter(batch=task_id)) if task_id else ():
        if (await jobs.find(group, 1)).jobs:
            return group
    raise JobNotFoundError(f"There is no job and no batch {task_id[:40]!r}: agent_list shows what there is.")


@contextmanager
def _as_protocol_error(ctx: ServerRequestContext[Any, Any], task_id: str) -> Generator[None]:
    """Refuse requests that do not declare the extension or name another task in their header; reword our errors."""
    if not declares_tasks(ctx.protocol_version, ctx.session.client_capabilities):
        data: dict[str, Any] = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "Missing required client capability", data)
    headers: Mapping[str, str] = getattr(ctx.request, "headers", {})  # there are some over HTTP only
    name = headers.get(MCP_NAME_HEADER)  # the SDK compares it for its own methods alone
    if name is not None and decode_header_value(name) != task_id:
        raise MCPError(HEADER_MISMATCH, "The header Mcp-Name names another task than the request.")
    try:
        yield
    except JobNotFoundError:
        raise MCPError(INVALID_PARAMS, "Task not found") from None
    except AgentJobsError as error:
        raise MCPError(INTERNAL_ERROR, str(error)) from None


def _read_answer(value: object) -> ElicitResult:
    try:
        return ElicitResult.model_validate(value)
    except ValidationError:
        raise MCPError(INVALID_PARAMS, "An input response takes an action: accept, decline or cancel.") from None


def _wire(group: JobFilter, state: TaskState, kind: str, *, is_structured: bool) -> dict[str, Any]:
    """Return a task as it is sent: a mapping, because the SDK's models would drop `ttlMs`, which is null."""
    task: dict[str, Any] = {
        "resultType": kind,
        "taskId": group.batch or group.job_ids[0],
        "status": state.status,
        "createdAt": _iso(state.created_at),
        "lastUpdatedAt": _iso(state.updated_at),
        "ttlMs": None,
        "pollIntervalMs": state.poll_ms,
        "statusMessage": state.message,
    }
    if kind == "complete" and state.answer is not None:
        task["result"] = _dump(as_result(state.answer, is_structured=is_structured))
    if kind == "complete" and state.status == "input_required":
        task["inputRequests"] = {key: _dump(request_for(*asked)) for key, asked in state.questions.items()}
    return task


def _dump(model: Any) -> dict[str, Any]:
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


def _message(job: Job, now: float) -> str:
    """Return what a person reads of a job beside the status of its task."""
    if not job.is_terminal:
        text = answers.shown(job, now).get("activity") or job.status
    else:
        text = f"{job.status}: {job.error.message}" if job.error else job.status
    return answers.visible(text)[:MESSAGE_CHARS]


def _updated_at(job: Job) -> float:
    times = (job.turn.sent_at, job.turn.polled_at, job.turn.asked_at, job.finished_at)
    return max(job.created_at, *(time or 0.0 for time in times))


def _poll_ms(jobs: Engine, running: Sequence[Job]) -> int:
    return max(POLL_MIN_MS, min((next_poll_ms(job, jobs.now()) for job in running), default=POLL_MIN_MS))


def _by_end(jobs: Sequence[Job]) -> list[Job]:
    return sorted(jobs, key=lambda job: job.finished_at or 0.0)


def _iso(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
