"""Offer the user's own tool servers to a model as functions.

A job reads the web and other people's texts. So it may use only tools that it names and that the user's file allows,
and a tool that changes data waits for a person unless that file says otherwise. Import this module late: it imports
the MCP client.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from mcp_types import Tool, ToolAnnotations
from pydantic_core import PydanticSerializationError, to_json

from agent_jobs.errors import AgentJobsError, Argument, ConfigError, RequestError, ToolServerError
from agent_jobs.toolbox.config import (
    ServerConfig,
    ToolServers,
    find_idle_globs,
    load_toolbox,
    matches_any,
    read_toolbox,
)
from agent_jobs.toolbox.connection import Connection
from agent_jobs.toolbox.functions import MAX_FUNCTIONS, build_function, build_function_name, is_function_of, prefix_of
from agent_jobs.toolbox.output import ToolOutput
from agent_jobs.validation import choice_error

__all__ = ["Policy", "ServerConfig", "ToolOutput", "ToolServers", "Toolbox", "load_toolbox", "read_toolbox"]

OPTION = Argument("options.toolbox")


@dataclass(frozen=True, slots=True)
class Policy:
    """The approval that a function needs, and whether its calls may be repeated.

    Args:
        asks: Whether a call waits for the approval of a person.
        read_only: Whether its server declares that it changes nothing.
        idempotent: Whether its server declares that a second call changes nothing more. A call whose answer was lost
            may be repeated if it is read-only or idempotent.
    """

    asks: bool
    read_only: bool
    idempotent: bool


class Toolbox:
    """The tool servers of this process. They are started when first needed, and stopped when `tasks` is cancelled.

    `names` are those of a job: `git` (all tools of a server), `git/log*` (some of them), `!git/push` (without these). A
    tool that a job does not name does not exist for it.
    """

    def __init__(
        self,
        servers: ToolServers,
        environ: Mapping[str, str],
        tasks: TaskGroup,
        *,
        concurrency: int = 4,
        start_timeout_s: float = 30.0,
    ) -> None:
        self._servers = servers
        self._connect = partial(Connection, environ=environ, tasks=tasks, start_timeout_s=start_timeout_s)
        self._connections = {name: self._connect(config) for name, config in servers.items()}
        self._slots = anyio.CapacityLimiter(concurrency)

    @property
    def warnings(self) -> tuple[ConfigError, ...]:
        """Return why no server can be used, if there is one."""
        if self._servers.broken is None:
            return ()
        return (self._servers.broken,)

    def check_names(self, names: Sequence[str]) -> None:
        """Refuse names of servers that do not exist or cannot be used; nothing is started.

        Raises:
            RequestError: There is no such server; the sentence names the nearest one.
            ConfigError: Its entry or the whole file cannot be used.
        """
        self._choose_servers(names)

    @staticmethod
    def has_function(name: str, names: Sequence[str]) -> bool:
        """Return True if a function of this name belongs to a server in `names`, even if that server is not here."""
        return is_function_of(name, names)

    async def list_functions(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the function tools for the body of POST /responses, by name; the servers list them again.

        Raises:
            RequestError: There is no such server or tool, or there are more tools than the API accepts.
            ToolServerError: A server cannot be started, or does not list its tools.
            ConfigError: A server's entry cannot be used, or names a variable that is not set.
        """
        chosen = self._choose_servers(names)
        listed = await _list_side_by_side(chosen)
        found: dict[str, Tool] = {}
        for choice in chosen:
            choice.refuse_idle_globs(listed[choice.server])
            found |= choice.select_functions(listed[choice.server])
        if len(found) > MAX_FUNCTIONS:
            raise RequestError(
                "{name} names {given} tools, and the API accepts {most}.",
                "too_many_functions",
                name=OPTION,
                given=len(found),
                most=MAX_FUNCTIONS,
                server=chosen[0].server,
            )
        return [
            build_function(name, _choose_description(tool), tool.input_schema) for name, tool in sorted(found.items())
        ]

    async def find_policy(self, name: str, names: Sequence[str]) -> Policy | None:
        """Return the policy of a function, None if the job has no such function.

        Raises:
            RequestError: `names` are wrong.
            ToolServerError: Its server cannot be started, or does not list its tools.
            ConfigError: Its server's entry cannot be used, or names a variable that is not set.
        """
        found = await self._find_tool(name, names)
        if found is None:
            return None
        connection, tool = found
        hints = _read_hints(tool)
        read_only = hints.read_only_hint is True
        asks = {"always": True, "ask": not read_only, "never": False}
        approval = connection.config.approval_of(tool.name)
        return Policy(asks[approval], read_only, hints.idempotent_hint is True)

    async def call(
        self,
        name: str,
        arguments: str,
        names: Sequence[str],
        before_calling: Callable[[], Awaitable[None]] = checkpoint,
    ) -> ToolOutput:
        """Call a function without checking its policy; a failure becomes an output that describes it.

        If this is cancelled, the call is cancelled at the server.

        Args:
            name: The function.
            arguments: Its arguments as the model wrote them, JSON.
            names: The job's tools.
            before_calling: Awaited once there is a slot for the call; if it raises, the tool is not called.
        """
        try:
            given = _read_call_arguments(arguments)
            found = await self._find_tool(name, names)
            if found is None:
                return ToolOutput(f"There is no function {name[:80]}.", failed=True)
            connection, tool = found
            if not arguments.strip() and tool.input_schema.get("required"):
                raise _arguments_error("The arguments are missing.")
            async with self._slots:
                await before_calling()
                return await connection.call(tool.name, given)
        except (ConfigError, RequestError, ToolServerError) as error:
            return ToolOutput(str(error), failed=True)

    async def _find_tool(self, name: str, names: Sequence[str]) -> tuple[Connection, Tool] | None:
        chosen = [choice for choice in self._choose_servers(names) if name.startswith(prefix_of(choice.server))]
        # Another process may have seen a newer list of tools.
        for fresh in (False, True):
            for choice in chosen:
                functions = choice.select_functions(await choice.connection.list_tools(fresh=fresh))
                if name in functions:
                    return choice.connection, functions[name]
        return None

    def _choose_servers(self, names: Sequence[str]) -> list["_Choice"]:
        chosen: dict[str, _Choice] = {}
        for name in names:
            server, glob = self._split_name(name.removeprefix("!"))
            choice = chosen.setdefault(server, _Choice(server, self._connections[server], [], []))
            if name.startswith("!"):
                choice.never.append(glob)
            else:
                choice.only.append(glob)
        return [choice for choice in chosen.values() if choice.only]

    def _split_name(self, name: str) -> tuple[str, str]:
        """Return the server in a name, and the glob of its tools."""
        server = _find_server_in(name, self._connections)
        if server is None and self._find_server_fault(name):
            self._read_again()
            server = _find_server_in(name, self._connections)
        if server is None:
            raise self._explain_unusable(name)
        return server, name[len(server) + 1 :] or "*"

    def _find_server_fault(self, name: str) -> str:
        """Return why the file, or the entry of the server in a name, cannot be used; empty if nothing is wrong."""
        if self._servers.broken:
            return str(self._servers.broken)
        server = _find_server_in(name, self._servers.refused)
        if server is None:
            return ""
        return self._servers.refused[server]

    def _read_again(self) -> None:
        """Read the file again, so that a correction by the user needs no restart."""
        self._servers = read_toolbox(self._servers.path)
        for name, config in self._servers.items():
            self._connections.setdefault(name, self._connect(config))

    def _explain_unusable(self, name: str) -> AgentJobsError:
        """Return the error for a name that no job can use."""
        if fault := self._find_server_fault(name):
            return ConfigError("{problem}", "wrong_tool_servers", problem=fault)
        if (off := _find_server_in(name, self._servers.off)) is not None:
            path = self._servers.path
            return RequestError(
                "{name}: {server} is switched off.", "tool_server_off", name=OPTION, server=off, path=path
            )
        if not self._connections:
            return RequestError("{name}: there are no tool servers.", "no_tool_servers", name=OPTION)
        problem = "{name}: there is no tool server {given!r}."
        return choice_error(problem, OPTION, name.partition("/")[0], sorted(self._connections))


@dataclass(frozen=True, slots=True)
class _Choice:
    """A job's tools of one server, as globs over their names."""

    server: str
    connection: Connection
    only: list[str]
    never: list[str]

    def has(self, tool: str) -> bool:
        return matches_any(tool, self.only) and not matches_any(tool, self.never)

    def select_functions(self, tools: Mapping[str, Tool]) -> dict[str, Tool]:
        """Return the tools that match, by the names of their functions."""
        return {build_function_name(self.server, name): tool for name, tool in tools.items() if self.has(name)}

    def refuse_idle_globs(self, tools: Mapping[str, Tool]) -> None:
        """Refuse a glob that matches no tool; `*` means all tools, even if there are none.

        Raises:
            RequestError: There is such a glob.
        """
        for glob in find_idle_globs([glob for glob in self.only if glob != "*"], tools):
            problem = "{name}: {server} has no tool {given!r}."
            raise choice_error(problem, OPTION, glob, sorted(tools), server=self.server)


async def _list_side_by_side(chosen: Sequence[_Choice]) -> Mapping[str, Mapping[str, Tool]]:
    """Return the tools of several servers, started side by side."""
    listed: dict[str, Mapping[str, Tool]] = {}
    failed: list[AgentJobsError] = []

    async def gather(choice: _Choice) -> None:
        try:
            listed[choice.server] = await choice.connection.list_tools(fresh=True)
        except AgentJobsError as error:
            failed.append(error)

    async with anyio.create_task_group() as tasks:
        for choice in chosen:
            tasks.start_soon(gather, choice)
    if failed:
        raise failed[0]
    return listed


def _find_server_in(name: str, servers: Iterable[str]) -> str | None:
    """Return the server in a name that means all or some of its tools."""
    return next((server for server in servers if f"{name}/".startswith(f"{server}/")), None)


def _read_call_arguments(written: str) -> dict[str, Any]:
    try:
        arguments = json.loads(written.strip() or "{}")
        to_json(arguments, inf_nan_mode="strings")  # refuses half a surrogate pair, and a depth that cannot be sent
    except (ValueError, RecursionError, PydanticSerializationError):
        raise _arguments_error("The arguments are not JSON.") from None
    if not isinstance(arguments, dict):
        raise _arguments_error("The arguments are not a JSON object.")
    return cast("dict[str, Any]", arguments)


def _arguments_error(problem: str) -> RequestError:
    """Return the refusal of a call. Only the model of the job reads it, in the place of the call's output."""
    return RequestError(f"{problem} Call again with a JSON object.")


def _choose_description(tool: Tool) -> str:
    return tool.description or tool.title or _read_hints(tool).title or tool.name


def _read_hints(tool: Tool) -> ToolAnnotations:
    return tool.annotations or ToolAnnotations()
