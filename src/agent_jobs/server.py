"""The MCP face: the tools, their arguments and their answers."""

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar, cast

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field, ValidationError

from agent_jobs import __version__, render
from agent_jobs.engine import Engine
from agent_jobs.errors import AgentJobsError, ConfigError, JobNotFoundError, RequestError, StoreError
from agent_jobs.job import Job
from agent_jobs.request import EFFORTS, one_of

logger = logging.getLogger(__name__)

Answer = dict[str, Any]
T = TypeVar("T")

INSTRUCTIONS = (
    "Hands long work (research, hard reasoning, reviews) to a model that works in the background for minutes or hours. "
    "agent_start, then agent_poll with the job_id until status is completed, incomplete, failed, cancelled or expired. "
    "agent_poll waits on the server, so just call it again; 'in_progress' is normal and no error. "
    "Never start the same work twice: each job costs money, and a job survives restarts. "
    "If it takes long, end your turn, tell the user the job_id, and poll later. "
    "The job sees only its prompt: put all context in it."
)
PROGRESS_S = 10.0
#: So many waits without an end, and the model is told that it may leave; models lose patience after about five.
BARREN_WAITS = 6
#: Jobs whose pace is remembered; older ones are forgotten first.
PACED_JOBS = 256


def build_server(engine: Callable[[], Awaitable[Engine]], *, max_wait_s: float = 45.0) -> MCPServer:
    """The MCP server over an engine that may still be opening.

    Args:
        engine: Gives the engine or raises why there is none; called by every tool call.
        max_wait_s: No tool call waits longer: hosts cut at 60 s.
    """
    pace = _Pace()

    async def agent_start(
        ctx: Context,
        prompt: Annotated[str, Field(description="The whole task: the job sees nothing else")],
        model: str | None = None,
        effort: Annotated[
            str | None,
            Field(json_schema_extra={"enum": [*EFFORTS]}),
        ] = None,
        web_search: bool = False,
        wait_s: Annotated[float, Field(ge=0, description="Wait so long for the result")] = 5,
        options: Annotated[
            dict[str, Any] | None,
            Field(
                description="instructions, verbosity, max_output_tokens, max_tool_calls, service_tier, metadata, "
                "tools, key, allow_duplicate"
            ),
        ] = None,
        priority: Literal["normal", "high"] = "normal",
    ) -> Answer:
        """Start long work in the background; answers with a job_id within seconds. Costs money: never start the same
        work twice. Then agent_poll.
        """
        jobs = await engine()
        starting = jobs.start(
            prompt,
            model=model,
            effort=effort,
            web_search=web_search,
            options=options,
            priority=int(priority == "high"),
            wait_s=min(wait_s, max_wait_s),
        )
        started = await _telling(ctx, starting, wait_s)
        pace.answered(started.job, jobs.now(), waited=False)
        await jobs.delivered(started.job)
        return render.started(started.job, jobs.now(), duplicate=started.duplicate)

    async def agent_poll(
        ctx: Context,
        job_id: str,
        wait_s: Annotated[float, Field(ge=0)] = 45,
    ) -> Answer:
        """Wait until the job ends (the server does the waiting) and get its output. Still in_progress? Call again:
        that is no error.
        """
        jobs = await engine()
        wait_s = min(pace.held(job_id, wait_s, jobs.now()), max_wait_s)
        job = await _telling(ctx, jobs.poll(job_id, wait_s=wait_s), wait_s)
        advise = pace.answered(job, jobs.now(), waited=wait_s > 0)
        await jobs.delivered(job)
        return render.shown(job, jobs.now(), advise=advise)

    async def agent_result(job_id: str, offset: Annotated[int, Field(ge=0)] = 0) -> Answer:
        """Read on in an output that did not fit one answer."""
        job = await (await engine()).poll(job_id)
        if not job.terminal:
            raise RequestError(f"{job_id} is still {job.status}: agent_poll it until it ends.")
        return {"job_id": job.id, "offset": offset, **render.output(job, offset)}

    async def agent_cancel(job_id: str) -> Answer:
        """Stop a job, upstream too, so that it costs no more."""
        jobs = await engine()
        return render.shown(await jobs.cancel(job_id), jobs.now())

    return MCPServer(
        "agent-jobs",
        version=__version__,
        instructions=INSTRUCTIONS,
        log_level="WARNING",
        tools=[
            _JobTool.of(agent_start, ToolAnnotations(open_world_hint=True, destructive_hint=False)),
            _JobTool.of(agent_poll, ToolAnnotations(read_only_hint=True)),
            _JobTool.of(agent_result, ToolAnnotations(read_only_hint=True)),
            _JobTool.of(agent_cancel, ToolAnnotations(destructive_hint=True, idempotent_hint=True)),
        ],
    )


class _JobTool(Tool):
    """A tool that answers with a mapping, as compact JSON and as structured content, and refuses in sentences."""

    @classmethod
    def of(cls, fn: Callable[..., Awaitable[Answer]], annotations: ToolAnnotations) -> "_JobTool":
        description = " ".join((fn.__doc__ or "").split())
        tool = cls.from_function(fn, description=description, annotations=annotations, structured_output=False)
        tool.parameters = _lean(tool.parameters)
        return cast(_JobTool, tool)

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> CallToolResult:
        """Check the arguments, run the tool, and put its answer or its refusal into words."""
        try:
            for name in arguments:  # the SDK would drop what it does not know
                one_of(self.name, name, self.parameters["properties"])
            values = self.fn_metadata.validate_arguments(arguments)
            if self.context_kwarg is not None:
                values[self.context_kwarg] = context
            return _result(await self.fn(**values))
        except ValidationError as error:
            return _refused(RequestError(_sentence(error)))
        except AgentJobsError as error:
            return _refused(error)
        except Exception:
            logger.exception("%s failed", self.name)
            return _refused(AgentJobsError("agent-jobs failed; its log says why. Jobs go on: agent_poll finds them."))


class _Pace:
    """How a model polls: what was hinted to it last, and how often it waited for nothing."""

    def __init__(self) -> None:
        self._hinted: dict[str, tuple[float, float]] = {}
        self._barren: dict[str, int] = {}

    def held(self, job_id: str, wait_s: float, now: float) -> float:
        """How long to wait for a poll: one that comes in the first half of its hint is held until the hint."""
        at, hint_s = self._hinted.get(job_id, (0.0, 0.0))
        left_s = at + hint_s - now
        return max(wait_s, left_s) if left_s > hint_s / 2 else wait_s

    def answered(self, job: Job, now: float, *, waited: bool) -> bool:
        """Take note of an answer; returns whether it is time to advise the model to leave."""
        barren = self._barren.pop(job.id, 0) + waited
        self._hinted.pop(job.id, None)
        if job.terminal:
            return False
        self._barren[job.id] = barren
        self._hinted[job.id] = (now, job.next_poll_ms(now) / 1000)
        for remembered in (self._barren, self._hinted):
            if len(remembered) > PACED_JOBS:
                del remembered[next(iter(remembered))]
        return barren >= BARREN_WAITS


async def _telling(ctx: Context, work: Awaitable[T], wait_s: float) -> T:
    """Await the work, and tell a host that gave a progress token every ten seconds that the wait is alive."""
    if wait_s < PROGRESS_S:
        return await work

    async def tell() -> None:
        waited_s = 0.0
        while True:
            await anyio.sleep(PROGRESS_S)
            waited_s += PROGRESS_S
            await ctx.report_progress(waited_s, message="working")

    refusal: AgentJobsError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell)
        try:
            return await work
        except AgentJobsError as error:  # would leave the group as a group
            refusal = error
        finally:
            tasks.cancel_scope.cancel()
    assert refusal is not None
    raise refusal


def _result(answer: Answer) -> CallToolResult:
    # Some hosts read only the text, some only the structure: both carry the same.
    return CallToolResult(content=[TextContent(type="text", text=render.dumps(answer))], structured_content=answer)


_CODES: dict[type[AgentJobsError], str] = {
    JobNotFoundError: "job_not_found",
    RequestError: "bad_request",
    ConfigError: "config",
    StoreError: "storage",
}


def _refused(error: AgentJobsError) -> CallToolResult:
    result = _result({"error": {"code": _CODES.get(type(error), "internal"), "message": str(error)}})
    result.is_error = True
    return result


def _sentence(error: ValidationError) -> str:
    """Pydantic's findings without its links and without the rejected values, which are the user's."""
    findings = [f"{'.'.join(map(str, found['loc']))}: {found['msg'].lower()}" for found in error.errors()]
    return f"Change the arguments and call again: {'; '.join(findings)}."


def _lean(schema: Any) -> Any:
    """A JSON schema without what no model needs: titles, null alternatives and null defaults."""
    if isinstance(schema, list):
        return [_lean(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    lean: dict[str, Any] = {}
    for name, value in cast("dict[str, Any]", schema).items():
        if name == "properties":
            lean[name] = {key: _lean(each) for key, each in value.items()}
        elif name == "anyOf":
            kept = [_lean(each) for each in value if each != {"type": "null"}]
            lean |= kept[0] if len(kept) == 1 else {name: kept}
        elif name != "title" and not (name == "default" and value is None):
            lean[name] = _lean(value)
    if lean.get("additionalProperties") is True:
        del lean["additionalProperties"]
    return lean
