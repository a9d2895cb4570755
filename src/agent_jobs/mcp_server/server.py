"""Build the MCP server over an engine: its tools, prompts and resources."""

import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from mcp.server import MCPServer
from mcp.server.extension import Extension
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
from pydantic import AnyUrl

from agent_jobs import __version__
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, RequestError
from agent_jobs.mcp_server.job_card import CARD_TOOL, CARD_URI, JobCard, declares_apps
from agent_jobs.mcp_server.tool_adapter import JobTool, describe_error
from agent_jobs.mcp_server.tools import Tools
from agent_jobs.request.presets import Preset, load_our_presets

if TYPE_CHECKING:
    from agent_jobs.mcp_server.tasks import TasksExtension

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


def build_server(
    engine: Callable[[], Awaitable[Engine]],
    *,
    max_wait_s: float | None = None,
    may_approve: bool = False,
    has_tasks: bool = True,
    is_structured: bool = False,
    card_key: str = "",
    extensions: Sequence[Extension] = (),
) -> MCPServer:
    """Return the MCP server over an engine that may still be opening.

    Args:
        engine: Gives the engine or raises why there is none; called by every tool call.
        max_wait_s: No tool call waits longer. None goes by the client's name, because hosts cut calls at different
            times. A client that cancels a waiting call gets earlier answers from then on.
        may_approve: Whether the host's model may approve calls; otherwise the user does.
        has_tasks: Whether requests that declare native tasks are answered with tasks.
        is_structured: Whether answers are repeated as structured content, for programs that read only that.
        card_key: Shows that a call comes from the job card. All processes that serve the same host need the same one;
            without one, each has its own.
        extensions: More extensions of the protocol.
    """
    tasks: TasksExtension | None = None
    if has_tasks:
        tasks = _create_tasks_extension(engine, may_approve=may_approve, is_structured=is_structured)
    tools = Tools(engine, max_wait_s, may_approve=may_approve, tasks=tasks)
    tool = partial(JobTool.from_method, is_structured=is_structured)
    server = AgentJobsServer(
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
        JobCard(engine, card_key),
        extensions,
    )
    server.resource("job://{job_id}", name="job", mime_type="application/json", description="The state of a job")(
        tools.read_job
    )
    server.resource(
        "job://{job_id}/result", name="text", mime_type="text/markdown", description="The full output of a job"
    )(tools.read_output)
    return server


def _create_tasks_extension(
    engine: Callable[[], Awaitable[Engine]], *, may_approve: bool, is_structured: bool
) -> "TasksExtension":
    from agent_jobs.mcp_server.tasks import TasksExtension  # not needed if tasks are switched off

    return TasksExtension(engine, may_approve=may_approve, is_structured=is_structured)


class AgentJobsServer(MCPServer):
    """The server with the presets as prompts, which hosts show as commands."""

    def __init__(
        self,
        engine: Callable[[], Awaitable[Engine]],
        tools: list[JobTool],
        tasks: "TasksExtension | None",
        card: JobCard,
        more: Sequence[Extension] = (),
    ) -> None:
        extensions: list[Extension] = [*more]
        if tasks is not None:
            extensions.append(tasks)
        with _hide_rich():
            super().__init__(
                "agent-jobs",
                version=__version__,
                instructions=INSTRUCTIONS,
                log_level="WARNING",
                tools=[*tools],
                extensions=extensions,
                middleware=[card.offer],
            )
        self._engine = engine
        self._card = card

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Run a tool; that of the card only for a client that shows cards."""
        if name == CARD_TOOL and context is not None and declares_apps(context.client_capabilities):
            return await self._card.answer(arguments)
        return await super().call_tool(name, arguments, context)

    async def list_prompts(self) -> list[Prompt]:
        """Return the presets, each with the task as its one argument."""
        task = PromptArgument(name="task", description="What the job is to do", required=True)
        return [
            Prompt(name=name, description=preset.description, arguments=[task])
            for name, preset in (await self._load_presets()).items()
        ]

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context | None = None
    ) -> GetPromptResult:
        """Return the prompt that asks a host's model to start a job with this preset."""
        presets = await self._load_presets()
        task = (arguments or {}).get("task")
        if name not in presets or not isinstance(task, str) or not task.strip():
            raise MCPError(INVALID_PARAMS, f"Prompts are {', '.join(presets)}; each accepts a task.")
        text = TextContent(type="text", text=presets[name].fill_in_task(task))
        return GetPromptResult(
            description=presets[name].description, messages=[PromptMessage(role="user", content=text)]
        )

    async def read_resource(
        self, uri: AnyUrl | str, context: Context | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """Return a resource, or raise our own error: the SDK would log it together with the job's title."""
        if str(uri) == CARD_URI:
            return [self._card.read_html()]
        try:
            return await super().read_resource(uri, context)
        except UnexpectedResourceError as error:
            cause = error.__cause__
            if isinstance(cause, RequestError):
                raise MCPError(INVALID_PARAMS, describe_error(cause)) from None
            if isinstance(cause, AgentJobsError):
                raise MCPError(INTERNAL_ERROR, describe_error(cause)) from None
            raise

    async def _load_presets(self) -> Mapping[str, Preset]:
        try:
            return (await self._engine()).presets
        except AgentJobsError:  # the tools report the cause
            return load_our_presets()


@contextmanager
def _hide_rich() -> Generator[None]:
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
