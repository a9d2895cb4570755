"""A tool server that is started when it is first needed, started again when it ended, and asked within limits."""

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
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
from agent_jobs.backoff import exponential
from agent_jobs.errors import AgentJobsError, ConfigError, ToolServerError
from agent_jobs.toolbox.config import ServerConfig
from agent_jobs.toolbox.http_transport import Remote
from agent_jobs.toolbox.output import ToolOutput, read_output
from agent_jobs.toolbox.repair import repair_transport
from agent_jobs.toolbox.stdio_transport import Child

#: A list of tools goes no further: no request could carry more of them.
MAX_TOOLS, MAX_PAGES = 1_000, 50
#: How long a call waits to learn why its server ended.
REASON_S = 2.0
BACKOFF_FIRST_S = 1.0  # before the third start of a server that keeps ending
BACKOFF_MAX_S = 60.0  # a job would wait longer for a start than a person for the job
WORDS_CHARS = 300

_ANSWER: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)
_Answer = TypeVar("_Answer")

logger = logging.getLogger(__name__)

for _logger in ("client", "mcp.client"):  # they log what they cannot read, which may be an output
    logging.getLogger(_logger).setLevel(logging.CRITICAL)


class Connection:
    """The way to one tool server."""

    def __init__(
        self, config: ServerConfig, environ: Mapping[str, str], tasks: TaskGroup, *, start_timeout_s: float
    ) -> None:
        self.config = config
        self._environ = environ
        self._tasks = tasks
        self._start_timeout_s = start_timeout_s
        self._run: _ServerRun | None = None
        self._failures = 0
        self._not_before = 0.0
        self._skipped: set[str] = set()

    async def list_tools(self, *, fresh: bool = False) -> Mapping[str, Tool]:
        """The tools that the user allows, by name; asked for anew if `fresh`.

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
                    self._log_skipped(f"deny or approval names {glob[:80]!r}, and it has no such tool")
            return run.tools

    async def call(self, tool: str, arguments: dict[str, Any]) -> ToolOutput:
        """Call a tool. Cancelling this tells the server so.

        Raises:
            ToolServerError: There is no answer.
            ConfigError: Its entry names a variable that is not set.
        """

        async def question(client: Client) -> CallToolResult | InputRequiredResult:
            params = CallToolRequestParams(name=tool, arguments=arguments)
            # Not by `call_tool`: it withholds what does not keep to the tool's output schema, and no one here minds.
            return await client.session.send_request(CallToolRequest(params=params), _ANSWER)

        run = await self._ensure_running()
        answer = await self._ask_server(run, f"answer {tool}", self.config.timeout_s, question)
        self._failures = 0
        if isinstance(answer, InputRequiredResult):
            raise self._build_error(f"asks somebody something before {tool} can answer, which nobody here can")
        return read_output(answer, run.mask)

    async def _ensure_running(self) -> "_ServerRun":
        """A run that is ready; one is started if there is none."""
        if self._run is not None and self._run.is_gone():
            await self._run.over.wait()
        if self._run is None or self._run.over.is_set():
            pause_s = self._not_before - anyio.current_time()
            if pause_s > 0 and self._run is not None and self._run.error is not None:
                raise ToolServerError(
                    f"{self._run.error} It is started again in {math.ceil(pause_s)} s at the soonest."
                )
            self._run = _ServerRun()
            self._tasks.start_soon(self._run_server, self._run)
        run = self._run
        await run.ready.wait()
        if run.client is None:
            raise run.error or self._build_error("is being stopped")
        return run

    async def _run_server(self, run: "_ServerRun") -> None:
        """One run from its start to its end; nobody who waits for it takes it along when cancelled."""
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + self._start_timeout_s) as scope:
                async with self._open_server_client(run) as client:
                    scope.deadline = math.inf
                    run.client = client
                    run.ready.set()
                    await run.wait_until_gone()
            why = f"it was not ready within {self._start_timeout_s:g} s" if scope.cancelled_caught else ""
            self._record_failure(run, why)
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
            run.wire = Child(config.command, config.args, config.env, config.cwd)
        else:
            run.wire = Remote(config)
        # Without callbacks the SDK refuses what a server asks of us: models, persons, folders.
        us = Implementation(name="agent-jobs", version=__version__)
        async with Client(
            repair_transport(run.wire.open_transport(), self._log_skipped), client_info=us, cache=None
        ) as client:
            yield client

    def _log_skipped(self, what: str) -> None:
        """Write once to the log what of the server's list, or of the rules for it, comes to nothing."""
        if what not in self._skipped:
            self._skipped.add(what)
            logger.warning("tool server %s: %s", self.config.name, what)

    def _record_failure(self, run: "_ServerRun", why: str) -> None:
        self._failures += 1
        self._not_before = anyio.current_time()
        # A single failure may be an accident: the next use starts the server again at once.
        if self._failures > 1:
            self._not_before += exponential(self._failures - 1, first_s=BACKOFF_FIRST_S, most_s=BACKOFF_MAX_S)
        run.error = self._build_error("ended" if run.client is not None else "cannot be started", run, why)

    async def _ask_server(
        self, run: "_ServerRun", doing: str, limit_s: float, question: Callable[[Client], Awaitable[_Answer]]
    ) -> _Answer:
        """What the server answers in time; whatever else happens is one sentence."""
        assert run.client is not None
        try:
            with anyio.fail_after(limit_s):
                return await question(run.client)
        except TimeoutError:
            raise self._build_error(f"did not {doing} within {limit_s:g} s") from None
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                with anyio.move_on_after(REASON_S):
                    await run.over.wait()
                raise run.error or self._build_error("ended", run) from None
            if error.message == "Session terminated":
                run.end()
            raise self._build_error(f"did not {doing}", run, error.message) from None
        except ValidationError as error:
            raise self._build_error(
                f"did not {doing} in a form that the protocol knows", run, _describe_finding(error)
            ) from None

    def _build_error(self, what: str, run: "_ServerRun | None" = None, why: str = "") -> ToolServerError:
        words = "; ".join(filter(None, (why, run.last_words() if run is not None else "")))
        words = " ".join((run.mask(words) if run is not None else words).split())[:WORDS_CHARS].rstrip(". ")
        return ToolServerError(f"Tool server {self.config.name} {what}{': ' if words else ''}{words}.")


class _ServerRun:
    """One run of a tool server."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.over = anyio.Event()
        self.listing = anyio.Lock()
        self.client: Client | None = None
        self.tools: Mapping[str, Tool] | None = None
        self.wire: Child | Remote | None = None
        self.error: AgentJobsError | None = None
        self.secrets: frozenset[str] = frozenset()

    def is_gone(self) -> bool:
        return self.wire is not None and self.wire.gone.is_set()

    async def wait_until_gone(self) -> None:
        assert self.wire is not None
        await self.wire.gone.wait()

    def end(self) -> None:
        if self.wire is not None:
            self.wire.gone.set()

    def last_words(self) -> str:
        return self.wire.last_words() if self.wire is not None else ""

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
    """Why something failed, in the words of what failed first."""
    leaf = next(_list_leaves(error))
    if isinstance(leaf, FileNotFoundError):
        return f"there is no {leaf.filename}"
    if isinstance(leaf, ValidationError):
        return _describe_finding(leaf)
    if isinstance(leaf, MCPError) and leaf.code == CONNECTION_CLOSED:
        return ""  # what it said itself tells more
    return str(leaf) or type(leaf).__name__


def _list_leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _list_leaves(each)
    else:
        yield error


def _describe_finding(error: ValidationError) -> str:
    """What pydantic found first, without the value, which is somebody's."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
