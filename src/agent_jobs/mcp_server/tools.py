"""The tools of the MCP server: each checks its arguments, calls the engine once and renders the answer."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import anyio
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, InputRequiredResult
from pydantic import Field

from agent_jobs.engine.engine import ID_WAIT_S, Engine, Started
from agent_jobs.errors import AgentJobsError, RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.poll_schedule import next_poll_ms
from agent_jobs.jobs.queries import SO_FAR, BatchState, Estimate, JobFilter, Part, Reply
from agent_jobs.jobs.status import ACTIVE, Status
from agent_jobs.mcp_server.elicitation import can_ask, poll_with_dialogs
from agent_jobs.mcp_server.repeated_polls import PollPacing
from agent_jobs.mcp_server.tool_adapter import describe_error
from agent_jobs.mcp_server.wait_limits import WaitLimits
from agent_jobs.rendering import answers, batches
from agent_jobs.rendering.answers import Answer
from agent_jobs.rendering.paging import find_page_cap_bytes
from agent_jobs.rendering.questions import render_questions
from agent_jobs.rendering.result_parts import render_part
from agent_jobs.request.presets import EFFORTS
from agent_jobs.request.start_request import StartRequest
from agent_jobs.text import compact_json
from agent_jobs.validation import Choice, value_error

if TYPE_CHECKING:
    from agent_jobs.mcp_server.tasks import TasksExtension

T = TypeVar("T")

PROGRESS_S = 10.0  # between progress messages: often enough for a host that resets its timeout with each
DEFAULT_ROWS = 20
MAX_ROWS = 100
DAY_S = 86_400.0
ECHOED_CHARS = 60  # of a caller's value in an error


class Tools:
    """The six tools, and the two resources, over an engine that may still be opening.

    Args:
        engine: Gives the engine or raises why there is none.
        max_wait_s: No tool call waits longer; None goes by the client's name.
        may_approve: Whether the host's model may approve calls; otherwise the user does.
        tasks: Answers calls with native tasks; None if they are switched off.
    """

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
        self._limits = WaitLimits(max_wait_s)
        self._may_approve = may_approve
        self._pacing = PollPacing()

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
        previous_job_id: Annotated[str | None, Field(description="Continue this finished job")] = None,
        batch: Annotated[str | None, Field(description="Name to poll jobs together by")] = None,
        priority: Literal["normal", "high"] = "normal",
        wait_s: Annotated[float | None, Field(ge=0, description="Seconds to wait for the result")] = None,
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
        order = StartRequest(
            prompts=_choose_prompts(prompt, prompts),
            preset=preset,
            model=model,
            effort=effort,
            web_search=web_search,
            files=files or (),
            previous_job_id=previous_job_id,
            batch=batch or "",
            priority=int(priority == "high"),
            client=_client_name(ctx),
            options=options or {},
        )
        jobs = await self._engine()
        if order.is_dry_run:
            return _render_estimate(await jobs.estimate(order))
        if self._tasks is not None and self._tasks.is_wanted(ctx, wait_s):
            return await self._tasks.start(ctx, jobs, order)
        if prompt is None:
            return await self._start_several(ctx, jobs, order, wait_s)
        [started] = await self._start_jobs(ctx, jobs, order, wait_s)
        return self._render_start(ctx, jobs, started, await jobs.find_view(f"/jobs/{started.job.id}"))

    async def agent_poll(
        self,
        ctx: Context,
        job_id: str | None = None,
        job_ids: list[str] | None = None,
        batch: str | None = None,
        wait_s: Annotated[float | None, Field(ge=0, description="Default: as long as the host allows")] = None,
    ) -> Answer | CallToolResult | InputRequiredResult:
        """Wait on the server until a job finishes, and get its output. in_progress is normal, no error: call again; if
        it takes long, end your turn, tell the user the job_id and poll later. input_required: do what `next` says. No
        arguments: any of your jobs.
        """
        jobs = await self._engine()
        group = _select_jobs(job_id, job_ids, batch)
        task_id = job_id or batch
        if task_id and self._tasks is not None and self._tasks.is_wanted(ctx, wait_s):
            return await self._tasks.poll(ctx, jobs, task_id)
        cap_s = self._limits.limit_s(_client_name(ctx), jobs.owner)
        asked_to_wait = wait_s != 0
        if wait_s is None:
            wait_s = cap_s
        wait_s = min(self._pacing.effective_wait_s(_poll_key(jobs, group), wait_s, jobs.now()), cap_s)
        if job_id is None:
            return await self._poll_group(ctx, jobs, group, wait_s)
        return await self._poll_job(ctx, jobs, job_id, wait_s, cap_s, asked_to_wait=asked_to_wait)

    async def agent_result(
        self,
        ctx: Context,
        job_id: str,
        part: Part = "text",
        offset: Annotated[int, Field(ge=0)] = 0,
        max_bytes: Annotated[int | None, Field(ge=500, le=100_000)] = None,
    ) -> Answer:
        """Read more pages of an output, its outline, sources or files; items: its steps, and open calls in full."""
        jobs = await self._engine()
        result = await jobs.result(job_id, only_text=part == "text")
        status = result.job.status
        asks = status is Status.INPUT_REQUIRED and part == "items"
        if not (result.job.is_terminal or part in SO_FAR or asks):
            raise RequestError("{job_id} is {status} and has no result yet.", "no_result", job_id=job_id, status=status)
        if part == "text":
            jobs.mark_delivered_later(result.job)
        return render_part(result, part, offset, max_bytes or _page_bytes(ctx))

    async def agent_list(
        self,
        ctx: Context,
        status: Annotated[str | None, Field(description="or open: all unfinished")] = None,
        batch: str | None = None,
        query: Annotated[str | None, Field(description="In the title")] = None,
        days: Annotated[float | None, Field(gt=0)] = None,
        limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = DEFAULT_ROWS,
    ) -> Answer:
        """Find jobs, newest first, with counts and today's cost. To wait use agent_poll."""
        from agent_jobs.mcp_server.wording import MODEL  # not needed to start

        jobs = await self._engine()
        since = 0.0
        if days is not None:
            since = jobs.now() - days * DAY_S
        group = JobFilter(batch=batch or "", statuses=_read_statuses(status), words=query or "", since=since)
        return batches.render_list(await jobs.find(group, limit), jobs.now(), MODEL.describe, _page_bytes(ctx))

    async def agent_reply(
        self,
        ctx: Context,
        job_id: str,
        outputs: Annotated[
            list[dict[str, Any]] | None, Field(description="[{call_id, output}]: results of your functions")
        ] = None,
        approve: Annotated[list[str] | None, Field(description="call_ids the user allowed, never on your own")] = None,
        deny: Annotated[list[str] | None, Field(description="call_ids not to be done")] = None,
        message: Annotated[str | None, Field(description="For the job, instead of the other answers")] = None,
    ) -> Answer:
        """Answer the `needs` of a job that is input_required, all or some; it continues once all are answered. Then
        agent_poll.
        """
        jobs = await self._engine()
        if approve and not self._may_approve:
            await jobs.poll(job_id)  # or raises that there is no such job
            code = "approval_at_terminal"
            if can_ask(ctx):
                code = "approval_in_dialog"
            raise RequestError("Only the user may approve.", code, job_id=job_id)
        reply = Reply(
            outputs=_read_outputs(outputs or []),
            approve=tuple(approve or ()),
            deny=tuple(deny or ()),
            message=message or "",
        )
        job = await jobs.reply(job_id, reply)
        jobs.mark_delivered_later(job)
        return await self._render_job(ctx, jobs, job)

    async def agent_cancel(
        self, ctx: Context, job_id: str | None = None, job_ids: list[str] | None = None, batch: str | None = None
    ) -> Answer:
        """Stop jobs at the provider, so that they cost no more."""
        group = _select_jobs(job_id, job_ids, batch)
        if group.active:
            raise RequestError("The call names no job.", "no_selection")
        jobs = await self._engine()
        cancelled = await jobs.cancel(group)
        jobs.mark_delivered_later(*cancelled)
        if job_id is None:
            return batches.render_cancel(cancelled, group)
        return answers.render_job(cancelled[0], jobs.now(), limit_bytes=_page_bytes(ctx))

    async def read_job(self, job_id: str) -> str:
        """Return a job as a poll that does not wait would answer."""
        jobs = await self._engine()
        result = await jobs.result(job_id)
        return compact_json(answers.render_job(result.job, jobs.now()))

    async def read_output(self, job_id: str) -> str:
        """Return the full output of a job."""
        jobs = await self._engine()
        result = await jobs.result(job_id)
        return answers.read_output_text(result.job)

    async def _start_several(self, ctx: Context, jobs: Engine, order: StartRequest, wait_s: float | None) -> Answer:
        if wait_s is None:
            wait_s = 0.0  # the jobs of several prompts are polled together
        started = await self._start_jobs(ctx, jobs, order, wait_s)
        submitted = [one.job for one in started]
        view = await jobs.find_view(answers.build_page_path(submitted))
        return answers.render_starts(submitted, sum(one.duplicate for one in started), view)

    async def _start_jobs(
        self, ctx: Context, jobs: Engine, order: StartRequest, wait_s: float | None
    ) -> Sequence[Started]:
        """Start jobs and wait for their ids, and up to `wait_s` for them to finish; None is the usual wait."""
        client = _client_name(ctx)
        usual_s = self._limits.start_limit_s(client, jobs.owner)
        if wait_s is None:
            wait_s = usual_s
        wait_s = min(wait_s, self._limits.limit_s(client, jobs.owner))
        id_wait_s = min(ID_WAIT_S, max(usual_s, wait_s))
        ids: list[str] = []

        def select_started() -> JobFilter | None:
            if not ids:
                return None
            return JobFilter(job_ids=tuple(ids))

        starting = jobs.start(order, wait_s=wait_s, id_wait_s=id_wait_s, on_submitted=ids.extend)
        return await self._await_engine(ctx, jobs, starting, max(wait_s, id_wait_s), select_started)

    async def _poll_job(
        self, ctx: Context, jobs: Engine, job_id: str, wait_s: float, cap_s: float, *, asked_to_wait: bool
    ) -> Answer | InputRequiredResult:
        note = ""

        def select_job() -> JobFilter:
            return JobFilter(job_ids=(job_id,))

        may_ask = wait_s > 0 or ctx.input_responses is not None
        if may_ask and not self._may_approve and can_ask(ctx):
            limit_s = 0.0
            if wait_s > 0:
                limit_s = cap_s  # the dialogs may take as long as the host allows for a call
            polling = poll_with_dialogs(ctx, jobs, job_id, wait_s, cap_s)
            outcome = await self._await_engine(ctx, jobs, polling, limit_s, select_job)
            if isinstance(outcome, InputRequiredResult):
                return outcome
            job, note = outcome
        else:
            polling = jobs.poll(job_id, wait_s=wait_s, new_only=True)
            job = await self._await_engine(ctx, jobs, polling, wait_s, select_job)
        advise = self._record_answer(jobs, job, waited=wait_s > 0)
        return await self._render_job(ctx, jobs, job, waits=asked_to_wait, advise=advise, note=note)

    async def _poll_group(self, ctx: Context, jobs: Engine, group: JobFilter, wait_s: float) -> Answer:
        polling = jobs.wait_for_any(group, wait_s=wait_s)
        state = await self._await_engine(ctx, jobs, polling, wait_s, lambda: group)
        if len(state.done) == 1:
            state = replace(state, done=[await jobs.poll(state.done[0].id)])  # with its output
        key = _poll_key(jobs, group)
        client = _client_name(ctx)
        answer, reported = batches.render_batch(
            state,
            group,
            jobs.now(),
            advise=not state.done and wait_s > 0 and self._pacing.count_empty_wait(key),
            host_note=self._limits.describe_background(client),
            limit_bytes=find_page_cap_bytes(client),
        )
        answer = self._limit_hint(jobs, client, answer)
        self._record_hint(jobs, key, state, answer)
        jobs.mark_delivered_later(*reported)
        return answer

    def _record_hint(self, jobs: Engine, key: str, state: BatchState, answer: Answer) -> None:
        if state.done or not state.is_running:
            self._pacing.reset(key)
        else:
            self._pacing.remember_hint(key, answer["next_poll_ms"], jobs.now())

    def _record_answer(self, jobs: Engine, job: Job, *, waited: bool) -> bool:
        """Record that a model gets to know the state of a job; return whether to advise it to leave."""
        key = _poll_key(jobs, JobFilter(job_ids=(job.id,)))
        jobs.mark_delivered_later(job)
        if job.is_terminal or job.status is Status.INPUT_REQUIRED:
            self._pacing.reset(key)
            return False
        now = jobs.now()
        self._pacing.remember_hint(key, next_poll_ms(job, now), now)
        return waited and self._pacing.count_empty_wait(key)

    def _render_start(self, ctx: Context, jobs: Engine, started: Started, view: str) -> Answer:
        self._record_answer(jobs, started.job, waited=False)
        client = _client_name(ctx)
        answer = answers.render_start(
            started.job,
            jobs.now(),
            duplicate=started.duplicate,
            host_note=self._limits.describe_background(client),
            view=view,
            limit_bytes=find_page_cap_bytes(client),
        )
        return self._limit_hint(jobs, client, answer)

    async def _render_job(
        self, ctx: Context, jobs: Engine, job: Job, *, waits: bool = False, advise: bool = False, note: str = ""
    ) -> Answer:
        if calls := await jobs.open_calls(job):
            return render_questions(job, calls, may_approve=self._may_approve, dialog=can_ask(ctx), note=note)
        client = _client_name(ctx)
        host_note = ""
        # The note and the activity do not both fit, and a poll that does not wait asks for the activity.
        if not job.is_terminal and (waits or not job.activity):
            host_note = self._limits.describe_background(client)
        answer = answers.render_job(
            job, jobs.now(), advise=advise, note=note, host_note=host_note, limit_bytes=find_page_cap_bytes(client)
        )
        return self._limit_hint(jobs, client, answer)

    def _limit_hint(self, jobs: Engine, client: str, answer: Answer) -> Answer:
        """Return the answer with a hint that is no longer than the client lets a call wait."""
        if "next_poll_ms" not in answer:
            return answer
        return answer | {"next_poll_ms": self._limits.choose_hint_ms(client, answer["next_poll_ms"], jobs.owner)}

    async def _await_engine(
        self, ctx: Context, jobs: Engine, work: Awaitable[T], wait_s: float, select: Callable[[], JobFilter | None]
    ) -> T:
        """Await work of the engine for a call that may wait; learn from a client that cancels it.

        `select` returns the jobs whose activity the host is to see.
        """
        began = jobs.now()
        try:
            if wait_s < PROGRESS_S or not _wants_progress(ctx):
                return await work
            return await _report_activity(ctx, jobs, work, select)
        except anyio.get_cancelled_exc_class():
            if wait_s > 0 and _is_cancelled_by_client(ctx):
                self._limits.learn_limit(_client_name(ctx), jobs.now() - began, jobs.owner)
            raise


def _poll_key(jobs: Engine, group: JobFilter) -> str:
    """Return the key under which a caller's polls for some jobs are paced; owners do not share one."""
    return f"{jobs.owner} {answers.format_filter_arguments(group)}"


def _client_name(ctx: Context) -> str:
    client = ctx.session.client_params
    if client is None:
        return ""
    return client.client_info.name


def _wants_progress(ctx: Context) -> bool:
    """Return True if the host listens for progress, which is read from the database."""
    request = ctx.session._request_outbound  # pyright: ignore[reportPrivateUsage]  # mcp 2.3 has no public way
    if request.transport.kind == "direct":
        return True  # a client in this process has a callback, and no token
    return bool(ctx.request_context.meta) and "progress_token" in ctx.request_context.meta


def _is_cancelled_by_client(ctx: Context) -> bool:
    """Return True if the client gave this call up, rather than its connection or this process ending."""
    request = ctx.session._request_outbound  # pyright: ignore[reportPrivateUsage]  # mcp 2.3 has no public way
    # A client in this process cancels the call itself, without a notification.
    return request.cancel_requested.is_set() or request.transport.kind == "direct"


def _page_bytes(ctx: Context) -> int:
    """Return how much of an output the host shows uncut."""
    return find_page_cap_bytes(_client_name(ctx))


def _render_estimate(estimate: Estimate) -> Answer:
    unbounded = ""
    if estimate.unbounded is not None:
        unbounded = describe_error(estimate.unbounded)
    return answers.render_estimate(estimate, unbounded)


def _choose_prompts(prompt: str | None, prompts: list[str] | None) -> list[str]:
    match prompt, prompts:
        case None, None:
            raise RequestError("There is no prompt.", "prompt_or_prompts")
        case None, several:
            return several
        case one, None:
            return [one]
        case one, several:
            if several != [one]:
                raise RequestError("Both prompt and prompts are given.", "prompt_or_prompts")
            return several


def _select_jobs(job_id: str | None, job_ids: list[str] | None, batch: str | None) -> JobFilter:
    """Return the filter for one job, several jobs or a batch; for the active jobs if nothing is given."""
    ids = tuple(job_ids or ())
    if job_id is not None and ids in ((), (job_id,)):
        job_id, ids = None, (job_id,)
    if job_id is not None or (ids and batch):
        raise RequestError("The call names jobs in more than one way.", "two_selections")
    return JobFilter(job_ids=ids, batch=batch or "", active=not (ids or batch))


def _read_outputs(given: Sequence[dict[str, Any]]) -> dict[str, object]:
    outputs: dict[str, object] = {}
    for each in given:
        call_id = each.get("call_id")
        if not isinstance(call_id, str) or "output" not in each:
            raise value_error("outputs", '[{"call_id":"call_...","output":"..."}]', each)
        if call_id in outputs:
            raise RequestError("{call!r} is answered twice.", "answered_twice", call=call_id[:ECHOED_CHARS])
        outputs[call_id] = each["output"]
    return outputs


def _read_statuses(status: str | None) -> frozenset[Status]:
    if status is None:
        return frozenset()
    if status == "open":
        return ACTIVE
    return frozenset({Status(Choice([*Status, "open"]).check("status", status))})


async def _report_activity(ctx: Context, jobs: Engine, work: Awaitable[T], select: Callable[[], JobFilter | None]) -> T:
    """Await the work; every PROGRESS_S report to the host what the selected jobs do."""

    async def report_regularly() -> None:
        waited_s = 0.0
        activity = str(Status.PENDING)
        while True:
            await anyio.sleep(PROGRESS_S)
            waited_s += PROGRESS_S
            group = select()
            if group is not None:
                with suppress(AgentJobsError):  # the call itself reports a database that cannot be read
                    activity = answers.summarize_activity(await jobs.find_open(group)) or activity
            await ctx.report_progress(waited_s, message=activity)

    refusal: AgentJobsError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(report_regularly)
        try:
            return await work
        except AgentJobsError as error:  # the task group would wrap it into an ExceptionGroup
            refusal = error
        finally:
            tasks.cancel_scope.cancel()
    assert refusal is not None
    raise refusal
