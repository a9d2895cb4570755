"""Start a tool server when it is first needed, start it again after its end, and call it within limits."""

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import anyio
from anyio.abc import TaskGroup
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    Tool,
)
from pydantic import TypeAdapter, ValidationError

from agent_jobs import __version__
from agent_jobs.backoff import calculate_backoff_s
from agent_jobs.errors import AgentJobsError, ConfigError, ToolServerError
from agent_jobs.toolbox.answer_repair import repair_transport
from agent_jobs.toolbox.config import ServerConfig
from agent_jobs.toolbox.http_transport import HttpTransport
from agent_jobs.toolbox.output import ToolOutput, read_output
from agent_jobs.toolbox.stdio_transport import StdioTransport

MAX_TOOLS = 1_000  # of a server: no request could carry more of them
MAX_PAGES = 50  # of a list of tools: a server could name next pages endlessly
REASON_S = 2.0  # wait of a call for the reason why its server ended
BACKOFF_FIRST_S = 1.0  # before the third start of a server that keeps ending
BACKOFF_MAX_S = 60.0  # a job would wait longer for a start than a person for the job
WORDS_CHARS = 300  # of a server's own words in a tool answer

_ANSWER: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)
_Answer = TypeVar("_Answer")

logger = logging.getLogger(__name__)

for _logger in ("client", "mcp.client"):  # they log unreadable messages, which may be outputs
    logging.getLogger(_logger).setLevel(logging.CRITICAL)


class Connection:
    """The connection to one tool server."""

    def __init__(
        self, config: ServerConfig, environ: Mapping[str, str], tasks: TaskGroup, *, start_timeout_s: float
    ) -> None:
        self.config = config
        self._environ = environ
        self._tasks = tasks
        self._start_timeout_s = start_timeout_s
        self._run = _ServerRun()
        self._run.over.set()
        self._failures = 0
        self._not_before = 0.0
        self._skipped: set[str] = set()

    async def list_tools(self, *, fresh: bool = False) -> Mapping[str, Tool]:
        """Return the tools that the user allows, by name; with `fresh`, the server lists them again.

        Raises:
            ToolServerError: It cannot be started, or does not list its tools.
            ConfigError: Its entry names a variable that is not set.
        """
        run = await self._ensure_running()
        async with run.listing:
            if fresh or run.tools is None:
                listed = await self._ask_server(run, "list its tools", self._start_timeout_s, _list_all_tools)
                run.tools = {tool.name: tool for tool in reversed(listed) if self.config.allows(tool.name)}
                for glob in self.config.find_idle_rules([tool.name for tool in listed]):
                    self._log_skipped(f"deny or approval names {glob[:80]!r}, but the server has no such tool")
            return run.tools

    async def call(self, tool: str, arguments: dict[str, Any]) -> ToolOutput:
        """Call a tool; if this is cancelled, the call is cancelled at the server.

        Raises:
            ToolServerError: It does not answer.
            ConfigError: Its entry names a variable that is not set.
        """

        async def send_call(client: Client) -> CallToolResult | InputRequiredResult:
            params = CallToolRequestParams(name=tool, arguments=arguments)
            # Not `call_tool`, which withholds an answer that breaks the tool's output schema; a model can read it.
            return await client.session.send_request(CallToolRequest(params=params), _ANSWER)

        run = await self._ensure_running()
        answer = await self._ask_server(run, f"answer {tool}", self.config.timeout_s, send_call)
        self._failures = 0
        if isinstance(answer, InputRequiredResult):
            raise self._build_server_error(
                f"asks for input before {tool} can answer, which agent-jobs does not support"
            )
        return read_output(answer, run.mask)

    async def _ensure_running(self) -> "_ServerRun":
        """Return a run that is ready; start one if there is none.

        Raises:
            ToolServerError: It cannot be started.
            ConfigError: Its entry names a variable that is not set.
        """
        if self._run.gone.is_set():
            await self._run.over.wait()
        if self._run.over.is_set():
            self._refuse_early_start()
            self._run = _ServerRun()
            self._tasks.start_soon(self._run_server, self._run)
        run = self._run
        await run.ready.wait()
        if run.client is None:
            raise run.error or self._build_server_error("is being stopped")
        return run

    def _refuse_early_start(self) -> None:
        """Raise the error of the last run if the pause after it is not over."""
        pause_s = self._not_before - anyio.current_time()
        if pause_s > 0:
            raise ToolServerError(
                "{error}, and is started again in {pause_s} s at the soonest.",
                "tool_server_paused",
                error=self._run.error,
                pause_s=math.ceil(pause_s),
            )

    async def _run_server(self, run: "_ServerRun") -> None:
        """Start a server and keep it until it ends; a cancelled caller does not stop it."""
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + self._start_timeout_s) as scope:
                async with self._open_server_client(run) as client:
                    scope.deadline = math.inf
                    run.client = client
                    run.ready.set()
                    await run.gone.wait()
            reason = ""
            if scope.cancelled_caught:
                reason = f"it was not ready within {self._start_timeout_s:g} s"
            self._record_failure(run, reason)
        except ConfigError as error:
            run.error = error
        except Exception as error:
            self._record_failure(run, _describe_cause(error))
        finally:
            run.ready.set()
            run.over.set()

    @asynccontextmanager
    async def _open_server_client(self, run: "_ServerRun") -> AsyncGenerator[Client]:
        config, run.secrets = self.config.resolve(self._environ)
        if config.command is not None:
            transport = StdioTransport(config.command, config.args, config.env, config.cwd)
        else:
            transport = HttpTransport(config)
        run.gone, run.last_words = transport.gone, transport.last_words
        # Without callbacks the SDK refuses a server's requests for models, persons and folders.
        us = Implementation(name="agent-jobs", version=__version__)
        async with Client(
            repair_transport(transport.open_transport(), self._log_skipped), client_info=us, cache=None
        ) as client:
            yield client

    def _log_skipped(self, what: str) -> None:
        """Log a note about unused tools or rules once."""
        if what not in self._skipped:
            self._skipped.add(what)
            logger.warning("tool server %s: %s", self.config.name, what)

    def _record_failure(self, run: "_ServerRun", reason: str) -> None:
        self._failures += 1
        self._not_before = anyio.current_time()
        # A single failure may be an accident: the next use starts the server again at once.
        if self._failures > 1:
            self._not_before += calculate_backoff_s(self._failures - 1, first_s=BACKOFF_FIRST_S, most_s=BACKOFF_MAX_S)
        event = "cannot be started"
        if run.client is not None:
            event = "ended"
        run.error = self._build_server_error(event, run.explain_failure(reason))

    async def _ask_server(
        self, run: "_ServerRun", doing: str, limit_s: float, question: Callable[[Client], Awaitable[_Answer]]
    ) -> _Answer:
        """Return the server's answer; raise any failure as a ToolServerError of one sentence."""
        assert run.client is not None
        try:
            with anyio.fail_after(limit_s):
                return await question(run.client)
        except TimeoutError:
            raise self._build_server_error(f"did not {doing} within {limit_s:g} s") from None
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                with anyio.move_on_after(REASON_S):
                    await run.over.wait()
                raise run.error or self._build_server_error("ended", run.explain_failure()) from None
            if error.message == "Session terminated":
                run.gone.set()
            raise self._build_server_error(f"did not {doing}", run.explain_failure(error.message)) from None
        except ValidationError as error:
            raise self._build_server_error(
                f"did not {doing} in a form that the protocol defines", run.explain_failure(_describe_finding(error))
            ) from None

    def _build_server_error(self, event: str, words: str = "") -> ToolServerError:
        words = " ".join(words.split())[:WORDS_CHARS].rstrip(". ")
        if words:
            event = f"{event}: {words}"
        return ToolServerError(
            "Tool server {server} {event}.", "tool_server_failed", server=self.config.name, event=event
        )


def _read_no_words() -> str:
    """Return the last words of a server that has not started: none."""
    return ""


class _ServerRun:
    """One run of a tool server. `gone` and `last_words` are those of its transport as soon as it has one."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.gone = anyio.Event()
        self.over = anyio.Event()
        self.last_words: Callable[[], str] = _read_no_words
        self.listing = anyio.Lock()
        self.client: Client | None = None
        self.tools: Mapping[str, Tool] | None = None
        self.error: AgentJobsError | None = None
        self.secrets: frozenset[str] = frozenset()

    def explain_failure(self, reason: str = "") -> str:
        """Return a reason and the last words of the server, without secrets."""
        return self.mask("; ".join(filter(None, (reason, self.last_words()))))

    def mask(self, text: str) -> str:
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        return text


async def _list_all_tools(client: Client) -> list[Tool]:
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None or len(tools) > MAX_TOOLS:
            break
    return tools[:MAX_TOOLS]


def _describe_cause(error: BaseException) -> str:
    """Return the reason of a failure, in the words of its first cause."""
    leaf = error
    while isinstance(leaf, BaseExceptionGroup):
        leaf = cast("BaseExceptionGroup[BaseException]", leaf).exceptions[0]
    match leaf:
        case FileNotFoundError():
            return f"there is no {leaf.filename}"
        case ValidationError():
            return _describe_finding(leaf)
        case MCPError() if leaf.code == CONNECTION_CLOSED:
            return ""  # its last words on stderr say more
        case _:
            return str(leaf) or type(leaf).__name__


def _describe_finding(error: ValidationError) -> str:
    """Return pydantic's first finding without the value, which may be private."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
