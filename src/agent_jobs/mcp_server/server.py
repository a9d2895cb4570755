"""The MCP face: the tools, their arguments and their answers."""

import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import anyio
from mcp.server import MCPServer
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import UnexpectedResourceError
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolResult,
    GetPromptResult,
    InputRequiredResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
    ToolAnnotations,
)
from pydantic import AnyUrl, Field

from agent_jobs import __version__
from agent_jobs.engine.engine import ID_WAIT_S, Engine
from agent_jobs.errors import AgentJobsError, RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.poll_schedule import next_poll_ms
from agent_jobs.jobs.queries import SO_FAR, JobFilter, Part, Reply
from agent_jobs.jobs.status import ACTIVE, Status
from agent_jobs.mcp_server.elicitation import can_ask, polled
from agent_jobs.mcp_server.pacing import PollPacing, Waits
from agent_jobs.mcp_server.tool_adapter import Answer, JobTool
from agent_jobs.rendering import answers
from agent_jobs.rendering.paging import page_cap_bytes
from agent_jobs.request.body import EFFORTS, Preset, StartRequest, dry_run_of, one_of, our_presets

if TYPE_CHECKING:
    from agent_jobs.mcp_server.tasks import TasksExtension

T = TypeVar("T")

#: Codex shows its model the first 260 characters; Copilot, Cline and Continue show none, so the tools say it as well.
INSTRUCTIONS = (
    "Hands long work (research, hard reasoning, reviews) to a background model. "
    "Call agent_start once, then agent_poll: it waits on the server. "
    "in_progress is normal, no error: poll again, or end your turn, tell the user the job_id, poll later. "
    "Never start the same work twice: each job costs money, and a job survives restarts. "
    "It is over when status is completed, incomplete, failed, cancelled or expired. "
    "input_required: the job asks something; do what `next` says. "
    "The job sees only its prompt: put all context in it."
)
PROGRESS_S = 10.0
LISTED, LISTED_MAX = 20, 100
DAY_S = 86_400.0


def build_server(
    engine: Callable[[], Awaitable[Engine]],
    *,
    max_wait_s: float | None = None,
    may_approve: bool = False,
    has_tasks: bool = True,
    is_structured: bool = False,
) -> MCPServer:
    """The MCP server over an engine that may still be opening.

    Args:
        engine: Gives the engine or raises why there is none; called by every tool call.
        max_wait_s: No tool call waits longer; None goes by the client's name, for hosts cut at different times. A
            client that cancels a call that waits is answered sooner from then on.
        may_approve: Whether the host's model may approve calls; otherwise a person does.
        has_tasks: Whether requests that declare native tasks are answered with tasks.
        is_structured: Whether answers are repeated as structured content, for programs that read only that.
    """
    tasks = _tasks_extension(engine, may_approve=may_approve, is_structured=is_structured) if has_tasks else None
    tools = _Tools(engine, max_wait_s, may_approve=may_approve, tasks=tasks)
    tool = partial(JobTool.of, is_structured=is_structured)
    server = _Server(
        engine,
        [
            tool(tools.agent_start, ToolAnnotations(open_world_hint=True, destructive_hint=False)),
            tool(tools.agent_poll, ToolAnnotations(read_only_hint=True)),
            tool(tools.agent_result, ToolAnnotations(read_only_hint=True)),
            tool(tools.agent_list, ToolAnnotations(read_only_hint=True)),
            tool(tools.agent_reply, ToolAnnotations(open_world_hint=True)),
            tool(tools.agent_cancel, ToolAnnotations(destructive_hint=True, idempotent_hint=True)),
        ],
        tasks,
    )
    server.resource("job://{job_id}", mime_type="application/json", description="How a job stands")(tools.job)
    server.resource("job://{job_id}/result", mime_type="text/markdown", description="A job's whole output")(tools.text)
    return server


def _tasks_extension(
    engine: Callable[[], Awaitable[Engine]], *, may_approve: bool, is_structured: bool
) -> "TasksExtension":
    from agent_jobs.mcp_server.tasks import TasksExtension  # not needed where tasks are switched off

    return TasksExtension(engine, may_approve=may_approve, is_structured=is_structured)


@contextmanager
def _hidden_rich() -> Generator[None]:
    """Keep the SDK from importing rich for a log handler that is not used: 42 modules, at every start."""
    if "rich" in sys.modules:
        yield
        return
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    modules["rich"] = None
    try:
        yield
    finally:
        del modules["rich"]


class _Server(MCPServer):
    """Ours, with the user's presets as prompts: hosts show them as commands."""

    def __init__(
        self, engine: Callable[[], Awaitable[Engine]], tools: list[JobTool], tasks: "TasksExtension | None"
    ) -> None:
        with _hidden_rich():
            super().__init__(
                "agent-jobs",
                version=__version__,
                instructions=INSTRUCTIONS,
                log_level="WARNING",
                tools=[*tools],
                extensions=[tasks] if tasks else [],
            )
        self._engine = engine

    async def list_prompts(self) -> list[Prompt]:
        """The presets, each with the task as its one argument."""
        task = PromptArgument(name="task", description="What the job is to do", required=True)
        return [
            Prompt(name=name, description=preset.description, arguments=[task])
            for name, preset in (await self._presets()).items()
        ]

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context | None = None
    ) -> GetPromptResult:
        """What asks a host's model to start a job by this preset."""
        presets = await self._presets()
        task = (arguments or {}).get("task")
        if name not in presets or not isinstance(task, str) or not task.strip():
            raise MCPError(INVALID_PARAMS, f"Prompts are {', '.join(presets)}; each takes a task.")
        text = TextContent(type="text", text=presets[name].asking(task))
        return GetPromptResult(
            description=presets[name].description, messages=[PromptMessage(role="user", content=text)]
        )

    async def read_resource(
        self, uri: AnyUrl | str, context: Context | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """A resource, or our sentence that says why there is none; the SDK would log it, titles and all."""
        try:
            return await super().read_resource(uri, context)
        except UnexpectedResourceError as error:
            cause = error.__cause__
            if not isinstance(cause, AgentJobsError):
                raise
            code = INVALID_PARAMS if isinstance(cause, RequestError) else INTERNAL_ERROR
            raise MCPError(code, str(cause)) from None

    async def _presets(self) -> Mapping[str, Preset]:
        try:
            return (await self._engine()).presets
        except AgentJobsError:  # the tools say what is wrong
            return our_presets()


class _Tools:
    """The tools: each parses, makes one call of the engine, and renders."""

    def __init__(
        self,
        engine: Callable[[], Awaitable[Engine]],
        max_wait_s: float | None,
        *,
        may_approve: bool,
        tasks: "TasksExtension | None",
    ) -> None:
        self._engine = engine
        self._tasks = tasks
        self._waits = Waits(max_wait_s)
        self._may_approve = may_approve
        self._pace = PollPacing()

    async def agent_start(
        self,
        ctx: Context,
        prompt: Annotated[str | None, Field(description="The whole task: the job sees nothing else")] = None,
        prompts: Annotated[list[str] | None, Field(description="Or up to 20 tasks, a job each")] = None,
        preset: Annotated[str | None, Field(description="deep_research, think, review, quick")] = None,
        model: str | None = None,
        effort: Annotated[str | None, Field(json_schema_extra={"enum": [*EFFORTS]})] = None,
        web_search: bool | None = None,
        files: Annotated[list[str] | None, Field(description="Paths or globs to attach")] = None,
        previous_job_id: Annotated[str | None, Field(description="Go on from this ended job")] = None,
        batch: Annotated[str | None, Field(description="Name to poll jobs together by")] = None,
        priority: Literal["normal", "high"] = "normal",
        wait_s: Annotated[float | None, Field(ge=0, description="Seconds to wait for its end")] = None,
        options: Annotated[
            dict[str, Any] | None,
            Field(
                description="instructions, json_schema, tools, toolbox (the user's tool servers, by name), "
                "max_output_tokens, max_tool_calls, verbosity, "
                "reasoning_summary, service_tier, timeout_s, max_cost_usd, dry_run, conversation, key, allow_duplicate"
            ),
        ] = None,
    ) -> Answer | CallToolResult:
        """Hand long work (research, hard reasoning, reviews) to a background model. Returns a job_id within
        seconds; then call agent_poll. Start the same work only once, however long it takes: each start costs money.
        """
        if prompt is not None and prompts == [prompt]:
            prompts = None
        if (prompt is None) == (prompts is None):
            raise RequestError("Give either prompt, or prompts for several jobs.")
        order = StartRequest(
            prompts=[prompt] if prompt is not None else prompts or [],
            preset=preset,
            model=model,
            effort=effort,
            web_search=web_search,
            files=files or (),
            previous_job_id=previous_job_id,
            batch=batch or "",
            priority=int(priority == "high"),
            options=options or {},
        )
        jobs = await self._engine()
        if dry_run_of(order.options):
            return answers.estimated(await jobs.estimate(order))
        if self._tasks is not None and self._tasks.is_wanted(ctx, wait_s):
            return await self._tasks.start(ctx, jobs, order)
        client = _client_name(ctx)
        usual_s = self._waits.start_limit_s(client)
        if wait_s is None:
            wait_s = usual_s if prompt is not None else 0.0
        wait_s = min(wait_s, self._waits.limit_s(client))
        id_wait_s = min(ID_WAIT_S, max(usual_s, wait_s))
        ids: list[str] = []
        starting = jobs.start(order, wait_s=wait_s, id_wait_s=id_wait_s, on_submitted=ids.extend)
        longest_s = max(wait_s, id_wait_s)
        started = await self._wait(
            ctx, jobs, starting, longest_s, lambda: JobFilter(job_ids=tuple(ids)) if ids else None
        )
        if prompt is None:
            return answers.started_together([one.job for one in started], sum(one.duplicate for one in started))
        [one] = started
        self._answered(jobs, one.job, waited=False)
        answer = answers.started(
            one.job,
            jobs.now(),
            duplicate=one.duplicate,
            host_note=self._waits.background_note(client),
            limit_bytes=_page_bytes(ctx),
        )
        return self._hinted(ctx, answer)

    async def agent_poll(
        self,
        ctx: Context,
        job_id: str | None = None,
        job_ids: list[str] | None = None,
        batch: str | None = None,
        wait_s: Annotated[float | None, Field(ge=0, description="Default: as long as the host allows")] = None,
    ) -> Answer | CallToolResult | InputRequiredResult:
        """Wait on the server until a job ends, and get its output. in_progress is normal, no error: call again; if it
        takes long, end your turn, tell the user the job_id and poll later. input_required: do what `next` says. No
        arguments: any of your jobs.
        """
        jobs = await self._engine()
        group = _group(job_id, job_ids, batch)
        if self._tasks is not None and (task_id := job_id or batch) and self._tasks.is_wanted(ctx, wait_s):
            return await self._tasks.poll(ctx, jobs, task_id)
        cap_s = self._waits.limit_s(_client_name(ctx))
        asked, waits = answers.asked(group), wait_s != 0
        wait_s = min(self._pace.effective_wait_s(asked, cap_s if wait_s is None else wait_s, jobs.now()), cap_s)
        if job_id is None:
            return await self._gathered(ctx, jobs, group, wait_s)
        dialog = can_ask(ctx) and not self._may_approve
        if not dialog:
            polling = jobs.poll(job_id, wait_s=wait_s, new_only=True)
            job = await self._wait(ctx, jobs, polling, wait_s, lambda: group)
            advise = self._answered(jobs, job, waited=wait_s > 0)
            return await self._shown(ctx, jobs, job, waits=waits, advise=advise)
        asking = polled(ctx, jobs, job_id, wait_s, cap_s)
        found = await self._wait(ctx, jobs, asking, cap_s if wait_s > 0 else 0.0, lambda: group)
        if isinstance(found, InputRequiredResult):
            return found
        job, note = found
        advise = self._answered(jobs, job, waited=wait_s > 0)
        return await self._shown(ctx, jobs, job, waits=waits, advise=advise, dialog=True, note=note)

    async def agent_result(
        self,
        ctx: Context,
        job_id: str,
        part: Part = "text",
        offset: Annotated[int, Field(ge=0)] = 0,
        max_bytes: Annotated[int | None, Field(ge=500, le=100_000)] = None,
    ) -> Answer:
        """Read more of an output by pages, its outline, sources or files; items: what it did and asks, whole."""
        jobs = await self._engine()
        result = await jobs.result(job_id)
        asks = result.job.status is Status.INPUT_REQUIRED and part == "items"
        if not (result.job.is_terminal or part in SO_FAR or asks):
            raise RequestError(f"{job_id} is still {result.job.status}: agent_poll it until it ends.")
        if part == "text":
            jobs.mark_delivered_later(result.job)
        return answers.part(result, part, offset, max_bytes or _page_bytes(ctx))

    async def agent_list(
        self,
        ctx: Context,
        status: Annotated[str | None, Field(description="or open: all not ended")] = None,
        batch: str | None = None,
        query: Annotated[str | None, Field(description="In the title")] = None,
        days: Annotated[float | None, Field(gt=0)] = None,
        limit: Annotated[int, Field(ge=1, le=LISTED_MAX)] = LISTED,
    ) -> Answer:
        """Find jobs, newest first, with counts and today's cost. To wait use agent_poll."""
        jobs = await self._engine()
        since = 0.0 if days is None else jobs.now() - days * DAY_S
        group = JobFilter(batch=batch or "", statuses=_statuses(status), words=query or "", since=since)
        return answers.listed(await jobs.find(group, limit), jobs.now(), _page_bytes(ctx))

    async def agent_reply(
        self,
        ctx: Context,
        job_id: str,
        outputs: Annotated[
            list[dict[str, Any]] | None, Field(description="[{call_id, output}]: what your functions gave")
        ] = None,
        approve: Annotated[list[str] | None, Field(description="call_ids the user allowed, never on your own")] = None,
        deny: Annotated[list[str] | None, Field(description="call_ids not to be done")] = None,
        message: Annotated[str | None, Field(description="For the job, in place of answers you do not give")] = None,
    ) -> Answer:
        """Answer the `needs` of a job that is input_required, all or some; it goes on once all are answered. Then
        agent_poll.
        """
        jobs = await self._engine()
        if approve and not self._may_approve:
            await jobs.poll(job_id)  # or there is no such job
            ask = "agent_poll asks them" if can_ask(ctx) else f"they run `agent-jobs reply {job_id}` in a terminal"
            raise RequestError(f"Only the user may approve: {ask}, or set AGENT_JOBS_APPROVALS=model. You may deny.")
        reply = Reply(
            outputs=_outputs(outputs or []), approve=tuple(approve or ()), deny=tuple(deny or ()), message=message or ""
        )
        job = await jobs.reply(job_id, reply)
        jobs.mark_delivered_later(job)
        return await self._shown(ctx, jobs, job, dialog=can_ask(ctx))

    async def agent_cancel(
        self, ctx: Context, job_id: str | None = None, job_ids: list[str] | None = None, batch: str | None = None
    ) -> Answer:
        """Stop jobs, upstream too, so that they cost no more."""
        group = _group(job_id, job_ids, batch)
        if group.active:
            raise RequestError("Say which: job_id, job_ids or batch.")
        jobs = await self._engine()
        stopped = await jobs.cancel(group)
        jobs.mark_delivered_later(*stopped)
        if job_id is None:
            return answers.stopped(stopped, group)
        return answers.shown(stopped[0], jobs.now(), limit_bytes=_page_bytes(ctx))

    async def job(self, job_id: str) -> str:
        """A job as a poll that does not wait would tell of it."""
        jobs = await self._engine()
        return answers.dumps(answers.shown((await jobs.result(job_id)).job, jobs.now()))

    async def text(self, job_id: str) -> str:
        """A job's whole output."""
        output = (await (await self._engine()).result(job_id)).job.output
        return output.text if output else ""

    async def _shown(
        self,
        ctx: Context,
        jobs: Engine,
        job: Job,
        *,
        waits: bool = False,
        advise: bool = False,
        dialog: bool = False,
        note: str = "",
    ) -> Answer:
        if calls := await jobs.open_calls(job):
            return answers.asking(job, calls, may_approve=self._may_approve, dialog=dialog, note=note)
        # Both do not fit: a poll that does not wait asks for the activity.
        background = self._waits.background_note(_client_name(ctx)) if waits or not job.activity else ""
        answer = answers.shown(
            job, jobs.now(), advise=advise, note=note, host_note=background, limit_bytes=_page_bytes(ctx)
        )
        return self._hinted(ctx, answer)

    async def _gathered(self, ctx: Context, jobs: Engine, group: JobFilter, wait_s: float) -> Answer:
        gathered = await self._wait(ctx, jobs, jobs.wait_for_any(group, wait_s=wait_s), wait_s, lambda: group)
        asked = answers.asked(group)
        done = [await jobs.poll(gathered.done[0].id)] if len(gathered.done) == 1 else gathered.done
        advise = not done and wait_s > 0 and self._pace.has_empty_waits(asked)
        answer, told = answers.gathered(
            replace(gathered, done=done),
            group,
            jobs.now(),
            advise=advise,
            host_note=self._waits.background_note(_client_name(ctx)),
            limit_bytes=_page_bytes(ctx),
        )
        answer = self._hinted(ctx, answer)
        if done or not gathered.is_running:
            self._pace.over(asked)
        else:
            self._pace.poll_hint(asked, answer["next_poll_ms"], jobs.now())
        jobs.mark_delivered_later(*told)
        return answer

    def _answered(self, jobs: Engine, job: Job, *, waited: bool) -> bool:
        """Take note of what a model was told of one job; returns whether to advise it to leave."""
        asked = answers.asked(JobFilter(job_ids=(job.id,)))
        jobs.mark_delivered_later(job)
        if job.is_terminal or job.status is Status.INPUT_REQUIRED:
            self._pace.over(asked)
            return False
        self._pace.poll_hint(asked, next_poll_ms(job, jobs.now()), jobs.now())
        return waited and self._pace.has_empty_waits(asked)

    def _hinted(self, ctx: Context, answer: Answer) -> Answer:
        """Return the answer with a hint that suits what was learned of the client."""
        if "next_poll_ms" not in answer:
            return answer
        return answer | {"next_poll_ms": self._waits.hint_ms(_client_name(ctx), answer["next_poll_ms"])}

    async def _wait(
        self, ctx: Context, jobs: Engine, work: Awaitable[T], wait_s: float, group: Callable[[], JobFilter | None]
    ) -> T:
        """Await work on a group of jobs for a call that may wait; learn from a client that cancels it."""
        began = jobs.now()
        try:
            return await _report_activity(ctx, jobs, work, wait_s, group)
        except anyio.get_cancelled_exc_class():
            if wait_s > 0 and _is_cancelled_by_client(ctx):
                self._waits.learn_limit(_client_name(ctx), jobs.now() - began)
            raise


def _client_name(ctx: Context) -> str:
    client = ctx.session.client_params
    return client.client_info.name if client else ""


def _is_cancelled_by_client(ctx: Context) -> bool:
    """Return True if the client gave this call up, rather than its connection or this process ending."""
    request = ctx.session._request_outbound  # pyright: ignore[reportPrivateUsage]  # mcp 2.3 has no public way
    # A client in this process cancels the call itself, without a notification.
    return request.cancel_requested.is_set() or request.transport.kind == "direct"


def _page_bytes(ctx: Context) -> int:
    """Return how much of an output the host shows as a whole."""
    client = ctx.session.client_params
    return page_cap_bytes(client.client_info.name if client else "")


def _group(job_id: str | None, job_ids: list[str] | None, batch: str | None) -> JobFilter:
    """The jobs that a call is about: one, several, a batch; or those in which something goes on."""
    if job_id is not None and job_ids == [job_id]:
        job_ids = None
    if sum(given is not None for given in (job_id, job_ids, batch)) > 1:
        raise RequestError("Give one of job_id, job_ids and batch.")
    ids = (job_id,) if job_id is not None else tuple(job_ids or ())
    return JobFilter(job_ids=ids, batch=batch or "", active=not (ids or batch))


def _outputs(given: Sequence[dict[str, Any]]) -> dict[str, object]:
    outputs: dict[str, object] = {}
    for each in given:
        call_id = each.get("call_id")
        if not isinstance(call_id, str) or "output" not in each:
            raise RequestError('outputs takes [{"call_id":"call_...","output":"..."}].')
        if call_id in outputs:
            raise RequestError(f"{call_id[:60]!r} is answered twice: answer each call once.")
        outputs[call_id] = each["output"]
    return outputs


def _statuses(status: str | None) -> frozenset[Status]:
    if status is None:
        return frozenset()
    if status == "open":
        return ACTIVE
    return frozenset({Status(one_of("status", status, [*Status, "open"]))})


async def _report_activity(
    ctx: Context, jobs: Engine, work: Awaitable[T], wait_s: float, group: Callable[[], JobFilter | None]
) -> T:
    """Await the work; every ten seconds tell a host that gave a progress token what the jobs of the group do."""
    if wait_s < PROGRESS_S:
        return await work

    async def report() -> None:
        waited_s, doing = 0.0, str(Status.PENDING)
        while True:
            await anyio.sleep(PROGRESS_S)
            waited_s += PROGRESS_S
            with suppress(AgentJobsError):  # the call itself says so if the database cannot be read
                if (found := group()) is not None:
                    doing = answers.activity(await jobs.find_open(found)) or doing
            await ctx.report_progress(waited_s, message=doing)

    refusal: AgentJobsError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(report)
        try:
            return await work
        except AgentJobsError as error:  # would leave the group as a group
            refusal = error
        finally:
            tasks.cancel_scope.cancel()
    assert refusal is not None
    raise refusal
