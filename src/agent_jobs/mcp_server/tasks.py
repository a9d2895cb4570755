"""Let hosts wait for jobs by native tasks (`io.modelcontextprotocol/tasks`), at no cost to their models.

A task is a job or a batch under its own id. The store keeps it, so a later process can answer for it. Kept here is only
what hosts of this process asked and were answered.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlencode

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
from agent_jobs.jobs.queries import BatchState, JobFilter, JobPage
from agent_jobs.jobs.response import Call
from agent_jobs.jobs.status import Status
from agent_jobs.mcp_server.elicitation import (
    MAX_DIALOGS,
    apply_answers,
    build_question_key,
    can_show_form,
    create_question,
)
from agent_jobs.mcp_server.tool_adapter import create_result, describe_error
from agent_jobs.rendering import answers, batches
from agent_jobs.rendering.answers import Answer
from agent_jobs.rendering.paging import OUTPUT_BYTES, find_page_cap_bytes
from agent_jobs.rendering.questions import escape_invisible, render_questions
from agent_jobs.request.start_request import StartRequest

TASKS = "io.modelcontextprotocol/tasks"
VERSIONS = frozenset(MODERN_PROTOCOL_VERSIONS)
MIN_POLL_MS = 2_000  # a host's poll costs no tokens, but reads the database
BATCH_BYTES = 4_000  # of the rows of a finished batch: one longer answer instead of a model turn for every few jobs
BATCH_ROWS = 100
MESSAGE_CHARS = 200
ECHOED_CHARS = 40  # of a host's task id in an error

#: By the key of a question: the job and the call that it is about.
Questions = Mapping[str, tuple[Job, Call]]


class CreatedTask(CallToolResult):
    """The answer of a tool that goes to the host as a task."""

    model_config = ConfigDict(defer_build=True)  # like all models here: at start-up it would cost milliseconds

    task: dict[str, Any]


class TaskParams(RequestParams):
    """Parameters of `tasks/get` and `tasks/cancel`."""

    model_config = ConfigDict(defer_build=True)

    task_id: str = Field(alias="taskId")


class UpdateParams(TaskParams):
    """Parameters of `tasks/update`."""

    input_responses: dict[str, Any] = Field(alias="inputResponses")


class TaskState(NamedTuple):
    """The state of a task."""

    status: str
    message: str
    created_at: float
    updated_at: float
    poll_ms: int = MIN_POLL_MS
    questions: Questions = MappingProxyType({})  #: for the host to ask its user
    answer: Answer | None = None  #: the answer of a poll, if the task is completed
    reported: Sequence[Job] = ()  #: jobs whose end or question the answer reports


class TaskHost(NamedTuple):
    """The abilities of a host."""

    may_ask: bool
    page_bytes: int = OUTPUT_BYTES


class _AskingJob(NamedTuple):
    """A job that waits for answers."""

    job: Job
    calls: Sequence[Call]
    questions: Questions  #: for the host to ask its user
    needs_model: bool


def declares_tasks(version: str | None, capabilities: ClientCapabilities | None) -> bool:
    """Return True if a request declares the extension; a declaration in an earlier protocol does not count."""
    if version not in VERSIONS or capabilities is None:
        return False
    return TASKS in (capabilities.extensions or {})


class TasksExtension(Extension):
    """Answers waiting calls with tasks, and serves `tasks/get`, `tasks/update` and `tasks/cancel`."""

    identifier = TASKS

    def __init__(self, engine: Callable[[], Awaitable[Engine]], *, may_approve: bool, is_structured: bool) -> None:
        """Keep the access to the engine.

        Args:
            engine: As for `build_server`.
            may_approve: Whether the host's model approves calls, so that no dialog is shown.
            is_structured: As for `build_server`.
        """
        self._is_structured = is_structured
        self._engine = engine
        self._may_approve = may_approve
        self._duplicates: set[str] = set()  #: jobs that were returned for a repeated request
        self._dismissals: Counter[tuple[str, str]] = Counter()  #: by job and call: dialogs that the user closed
        #: By job: calls that no dialog is shown for until the next agent_poll.
        self._dismissed: dict[str, set[str]] = {}
        self._reported_revisions: dict[str, int] = {}  #: by job: the revision whose question the model got
        self._known_revisions: dict[str, int] = {}  #: by job: the revision that the model knew at its last agent_poll

    def methods(self) -> Sequence[MethodBinding]:
        """Return the methods of the extension, for the versions of the protocol that have it."""
        return [
            MethodBinding("tasks/get", TaskParams, self._get_task, VERSIONS),
            MethodBinding("tasks/update", UpdateParams, self._update_task, VERSIONS),
            MethodBinding("tasks/cancel", TaskParams, self._cancel_task, VERSIONS),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Send a created task in its own form, which the SDK's models do not know."""
        result = await call_next(ctx)
        if isinstance(result, CreatedTask):
            return result.task
        return result

    def is_wanted(self, ctx: Context, wait_s: float | None) -> bool:
        """Return True if the answer to a call is a task: its host declares tasks, and the call would wait."""
        if wait_s == 0 or ctx.input_responses is not None:
            return False
        return declares_tasks(ctx.protocol_version, ctx.client_capabilities)

    async def start(self, ctx: Context, jobs: Engine, order: StartRequest) -> Answer | CreatedTask:
        """Start jobs and return them as one task, or the plain answer if they have no id in common.

        Raises:
            AgentJobsError: As `Engine.start`.
        """
        started = await jobs.start(order)
        duplicates = [one.job.id for one in started if one.duplicate]
        if len(order.prompts) == 1:
            self._duplicates.update(duplicates)
            return await self._create_task(ctx, jobs, JobFilter(job_ids=(started[0].job.id,)))
        answer = answers.render_starts([one.job for one in started], len(duplicates))
        if "batch" not in answer:
            return answer
        return await self._create_task(ctx, jobs, JobFilter(batch=answer["batch"]))

    async def poll(self, ctx: Context, jobs: Engine, task_id: str) -> CreatedTask:
        """Return a job or a batch as a task.

        Dialogs that the user closed are shown again. A question that the model knows does not complete the task.

        Raises:
            JobNotFoundError: There is no such job or batch.
        """
        group = await _find_group(jobs, task_id)
        for job in (await jobs.find(group, BATCH_ROWS)).jobs:
            self._reopen_dialogs(job)
        return await self._create_task(ctx, jobs, group)

    async def _create_task(self, ctx: Context, jobs: Engine, group: JobFilter) -> CreatedTask:
        host = _describe_host(ctx.client_capabilities, ctx.session.client_params)
        state = await self._load_state(jobs, group, host)
        if view := await jobs.find_view(_page_path(group)):
            state = state._replace(message=f"{state.message}; {view}")
        return CreatedTask(content=[], task=_render_task(group, state, "task"))

    async def _get_task(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        with _as_protocol_error(ctx, params.task_id):
            jobs = await self._engine()
            group = await _find_group(jobs, params.task_id)
            host = _describe_host(ctx.session.client_capabilities, ctx.session.client_params)
            state = await self._load_state(jobs, group, host)
            self._reported_revisions |= {job.id: job.revision for job in state.reported if not job.is_terminal}
            jobs.mark_delivered_later(*state.reported)
            return _render_task(group, state, "complete") | self._render_outcome(state)

    async def _update_task(self, ctx: ServerRequestContext[Any, Any], params: UpdateParams) -> HandlerResult:
        """Answer the questions of the job; keys that it does not ask for, or no longer, are ignored."""
        with _as_protocol_error(ctx, params.task_id):
            jobs = await self._engine()
            group = await _find_group(jobs, params.task_id)
            questions = (await self._load_state(jobs, group, TaskHost(may_ask=True))).questions
            given = {key: _read_answer(value) for key, value in params.input_responses.items() if key in questions}
            for key, answer in given.items():
                await self._apply_answer(jobs, *questions[key], answer)
            return {}

    async def _apply_answer(self, jobs: Engine, job: Job, call: Call, answer: ElicitResult) -> None:
        key = build_question_key(job, call)
        if answer.action == "cancel":
            self._dismissed.setdefault(job.id, set()).add(key)
            self._dismissals[job.id, key] += 1
        else:
            await apply_answers(jobs, job.id, {key: answer})

    async def _cancel_task(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        with _as_protocol_error(ctx, params.task_id):
            jobs = await self._engine()
            cancelled = await jobs.cancel(await _find_group(jobs, params.task_id))
            jobs.mark_delivered_later(*(job for job in cancelled if job.status is Status.CANCELLED))
            return {}

    async def _load_state(self, jobs: Engine, group: JobFilter, host: TaskHost) -> TaskState:
        if group.batch:
            return await self._load_batch_state(jobs, group, host)
        return await self._load_job_state(jobs, await jobs.poll(group.job_ids[0]), host)

    async def _load_job_state(self, jobs: Engine, job: Job, host: TaskHost) -> TaskState:
        state = TaskState(
            "working", _describe_job(job, jobs.now()), job.created_at, _last_update(job), _choose_poll_ms(jobs, [job])
        )
        if job.status is Status.CANCELLED:
            return state._replace(status="cancelled", reported=[job])
        if job.is_terminal:
            is_duplicate = job.id in self._duplicates
            answer = answers.render_start(job, jobs.now(), duplicate=is_duplicate, limit_bytes=host.page_bytes)
            return state._replace(status="completed", answer=answer, reported=[job])
        asking = await self._examine_job(jobs, job, host)
        if asking.questions:
            return state._replace(status="input_required", questions=asking.questions)
        if asking.needs_model:
            answer = render_questions(job, asking.calls, may_approve=self._may_approve, dialog=host.may_ask)
            return state._replace(status="completed", answer=answer, reported=[job])
        return state

    async def _load_batch_state(self, jobs: Engine, group: JobFilter, host: TaskHost) -> TaskState:
        """Return the state of a batch, which is completed once all its jobs finished, or one asks the model."""
        page = await jobs.find(group, BATCH_ROWS)
        batch = await jobs.wait_for_any(group)
        unfinished = [job for job in [*batch.done, *batch.asking] if not job.is_terminal]
        asking = [await self._examine_job(jobs, job, host) for job in unfinished]
        state = _describe_working_batch(jobs, page, batch.running or unfinished)
        if questions := _join_questions(asking):
            return state._replace(status="input_required", questions=questions)
        is_over = not batch.running and not asking
        if not is_over and not any(one.needs_model for one in asking):
            return state
        if page.counts.keys() == {Status.CANCELLED}:
            return state._replace(status="cancelled", reported=page.jobs)
        return await self._complete_batch(jobs, group, state, _select_outcome(page, batch, asking), host)

    async def _complete_batch(
        self, jobs: Engine, group: JobFilter, state: TaskState, outcome: BatchState, host: TaskHost
    ) -> TaskState:
        """Return the state of a completed batch with the answer that reports its jobs."""
        if len(outcome.done) == 1:
            outcome = replace(outcome, done=[await jobs.poll(outcome.done[0].id)])  # with its output
        answer, reported = batches.render_batch(
            outcome, group, jobs.now(), limit_bytes=host.page_bytes, rows_bytes=BATCH_BYTES
        )
        return state._replace(status="completed", answer=answer, reported=reported)

    async def _examine_job(self, jobs: Engine, job: Job, host: TaskHost) -> _AskingJob:
        """Return who has to answer an unfinished job: the user in dialogs, the model, or neither now."""
        calls = await jobs.open_calls(job)
        questions = self._find_questions(job, calls, host)
        return _AskingJob(job, calls, questions, not questions and self._needs_model(job, calls))

    def _find_questions(self, job: Job, calls: Sequence[Call], host: TaskHost) -> Questions:
        """Return the approvals for the host to ask its user for, each by a key that is used once."""
        if not host.may_ask or self._may_approve:
            return {}
        approvals = {build_question_key(job, call): call for call in calls if call.needs == "approval"}
        return {
            f"{job.id}:{self._dismissals[job.id, key]}:{key}": (job, call)
            for key, call in approvals.items()
            if key not in self._dismissed.get(job.id, ())
        }

    def _needs_model(self, job: Job, calls: Sequence[Call]) -> bool:
        """Return True if the model has to act, or does not know yet that the user has to."""
        if not calls:
            return False
        is_for_user = not self._may_approve and all(call.needs == "approval" for call in calls)
        return not is_for_user or self._known_revisions.get(job.id) != job.revision

    def _reopen_dialogs(self, job: Job) -> None:
        """Show the closed dialogs of a job again, and do not report again the question that its model knows."""
        self._dismissed.pop(job.id, None)
        if job.id in self._reported_revisions:
            self._known_revisions[job.id] = self._reported_revisions[job.id]

    def _render_outcome(self, state: TaskState) -> dict[str, Any]:
        """Return the fields of a task beside its status: its result, or the questions for the user."""
        if state.answer is not None:
            return {"result": _dump_model(create_result(state.answer, is_structured=self._is_structured))}
        if state.questions:
            # Others may begin to ask before the host answers these, so the state has all.
            shown = islice(state.questions.items(), MAX_DIALOGS)
            return {"inputRequests": {key: _dump_model(create_question(*asked)) for key, asked in shown}}
        return {}


def _describe_host(capabilities: ClientCapabilities | None, client: InitializeRequestParams | None) -> TaskHost:
    if client is None:
        return TaskHost(can_show_form(capabilities))
    return TaskHost(can_show_form(capabilities), find_page_cap_bytes(client.client_info.name))


async def _find_group(jobs: Engine, task_id: str) -> JobFilter:
    """Return the filter for the job or the batch of this id."""
    if task_id:
        for group in (JobFilter(job_ids=(task_id,)), JobFilter(batch=task_id)):
            if (await jobs.find(group, 1)).jobs:
                return group
    raise JobNotFoundError("There is no job and no batch {task!r}.", "no_such_batch", task=task_id[:ECHOED_CHARS])


def _page_path(group: JobFilter) -> str:
    """Return the path of a task's jobs on the page."""
    if group.batch:
        return f"/?{urlencode({'batch': group.batch})}"
    return f"/jobs/{group.job_ids[0]}"


def _describe_working_batch(jobs: Engine, page: JobPage, unfinished: Sequence[Job]) -> TaskState:
    message = ", ".join(f"{count} {status}" for status, count in page.counts.items())
    created_at = min(job.created_at for job in page.jobs)
    return TaskState(
        "working", message, created_at, max(map(_last_update, page.jobs)), _choose_poll_ms(jobs, unfinished)
    )


def _join_questions(asking: Sequence[_AskingJob]) -> Questions:
    """Return the questions of several jobs."""
    return {key: asked for one in asking for key, asked in one.questions.items()}


def _select_outcome(page: JobPage, batch: BatchState, asking: Sequence[_AskingJob]) -> BatchState:
    """Return the jobs that the result of a completed batch reports, and the others.

    If every job was reported before, all of the page are reported again: a result has to have something in it.
    """
    needs_model = [one.job for one in asking if one.needs_model]
    finished = [job for job in batch.done if job.is_terminal]
    if not finished and not needs_model:
        finished = sorted(page.jobs, key=lambda job: job.finished_at or 0.0)
    waiting = [one.job for one in asking if not one.needs_model]
    return BatchState([*finished, *needs_model], batch.running, waiting, batch.delivered)


@contextmanager
def _as_protocol_error(ctx: ServerRequestContext[Any, Any], task_id: str) -> Generator[None]:
    """Check that a request declares the extension and names one task; raise our errors as those of the protocol."""
    if not declares_tasks(ctx.protocol_version, ctx.session.client_capabilities):
        data: dict[str, Any] = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "Missing required client capability", data)
    headers: Mapping[str, str] = getattr(ctx.request, "headers", {})  # only a request over HTTP has headers
    name = headers.get(MCP_NAME_HEADER)  # the SDK compares it for its own methods alone
    if name is not None and decode_header_value(name) != task_id:
        raise MCPError(HEADER_MISMATCH, "The header Mcp-Name names another task than the request.")
    try:
        yield
    except JobNotFoundError:
        raise MCPError(INVALID_PARAMS, "Task not found") from None
    except AgentJobsError as error:
        raise MCPError(INTERNAL_ERROR, describe_error(error)) from None


def _read_answer(value: object) -> ElicitResult:
    try:
        return ElicitResult.model_validate(value)
    except ValidationError:
        raise MCPError(INVALID_PARAMS, "An input response needs an action: accept, decline or cancel.") from None


def _render_task(group: JobFilter, state: TaskState, kind: str) -> dict[str, Any]:
    """Return a task as a mapping, because the SDK's models would drop `ttlMs`, which is null."""
    return {
        "resultType": kind,
        "taskId": group.batch or group.job_ids[0],
        "status": state.status,
        "createdAt": _iso_time(state.created_at),
        "lastUpdatedAt": _iso_time(state.updated_at),
        "ttlMs": None,
        "pollIntervalMs": state.poll_ms,
        "statusMessage": state.message,
    }


def _dump_model(model: Any) -> dict[str, Any]:
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


def _describe_job(job: Job, now: float) -> str:
    """Return the line about a job that a person reads beside the status of its task."""
    text = str(job.status)
    if not job.is_terminal:
        text = answers.render_job(job, now).get("activity") or text
    elif job.error:
        text = f"{job.status}: {job.error.message}"
    return escape_invisible(text)[:MESSAGE_CHARS]


def _last_update(job: Job) -> float:
    times = (job.turn.sent_at, job.turn.polled_at, job.turn.asked_at, job.finished_at)
    return max(job.created_at, *(time or 0.0 for time in times))


def _choose_poll_ms(jobs: Engine, unfinished: Iterable[Job]) -> int:
    hints_ms = (next_poll_ms(job, jobs.now()) for job in unfinished)
    return max(MIN_POLL_MS, min(hints_ms, default=MIN_POLL_MS))


def _iso_time(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
