"""The user's own tool servers, offered to a model as functions.

A job reads the web and other people's text, so nothing is offered that the job does not name and the user's file does
not allow, and what changes something waits for a person unless that file says otherwise. Import this room late: it
brings the MCP client along.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup
from mcp_types import Tool
from pydantic_core import PydanticSerializationError, to_json

from agent_jobs.errors import AgentJobsError, ConfigError, RequestError, ToolServerError
from agent_jobs.text import suggest_name
from agent_jobs.toolbox.config import SETTING, ServerConfig, ToolServers, load_toolbox, matches_any, read_toolbox
from agent_jobs.toolbox.connection import Connection
from agent_jobs.toolbox.functions import MAX_FUNCTIONS, build_function, function_name, is_given, prefix_of
from agent_jobs.toolbox.output import ToolOutput

__all__ = ["Policy", "ServerConfig", "ToolOutput", "ToolServers", "Toolbox", "load_toolbox", "read_toolbox"]

OPTION = "options.toolbox"
CORRECT = "Ask the user to correct that; jobs that do not name it in options.toolbox can be started."


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be done with a function without asking.

    Args:
        asks: Whether a call waits until a person approves it.
        read_only: Whether its server says that it changes nothing.
        idempotent: Whether its server says that a second call changes nothing more; a call whose answer was lost may
            be repeated if either is so.
    """

    asks: bool
    read_only: bool
    idempotent: bool


class Toolbox:
    """The tool servers of this process. They are started when first needed, and stopped when `tasks` is cancelled.

    Every method that takes `names` takes what a job was given: `git` (all of a server's tools), `git/log*` (some of
    them), `!git/push` (but not these). Only what a job names exists for it.
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
    def warnings(self) -> tuple[str, ...]:
        """Return the sentence that says why no server can be used, if that is so."""
        return (self._servers.broken,) if self._servers.broken else ()

    def check(self, names: Sequence[str]) -> None:
        """Refuse names of servers that do not exist or cannot be used; nothing is started.

        Raises:
            RequestError: There is no such server; the sentence names the nearest one.
            ConfigError: Its entry or the whole file cannot be used.
        """
        self._choose_servers(names)

    @staticmethod
    def knows(name: str, names: Sequence[str]) -> bool:
        """Whether a function of this name is of a server in `names`, also where there is no such server here."""
        return is_given(name, names)

    async def functions(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """The function tools for the body of POST /responses, by name, listed anew.

        Raises:
            RequestError: There is no such server or tool, or there are more tools than the API takes.
            ToolServerError: A server cannot be started, or does not list its tools.
            ConfigError: A server's entry cannot be used, or names a variable that is not set.
        """
        chosen = self._choose_servers(names)
        listed = await _list_side_by_side(chosen)
        found = {
            function_name(choice.server, tool.name): tool
            for choice in chosen
            for tool in choice.select_tools(listed[choice.server])
        }
        if len(found) > MAX_FUNCTIONS:
            raise RequestError(
                f"{OPTION} brings {len(found)} tools, and the API takes {MAX_FUNCTIONS}: name fewer of them, "
                f'such as "{chosen[0].server}/get_*".'
            )
        return [
            build_function(name, _choose_description(tool), tool.input_schema) for name, tool in sorted(found.items())
        ]

    async def policy(self, name: str, names: Sequence[str]) -> Policy | None:
        """Whether a call of this function waits for a person; None if the job has no such function.

        Raises:
            RequestError: `names` are not right.
            ToolServerError: Its server cannot be started, or does not list its tools.
            ConfigError: Its server's entry cannot be used, or names a variable that is not set.
        """
        found = await self._find_tool(name, names)
        if found is None:
            return None
        connection, tool = found
        hints = tool.annotations
        read_only = hints is not None and hints.read_only_hint is True
        idempotent = hints is not None and hints.idempotent_hint is True
        approval = connection.config.approval_of(tool.name)
        return Policy(approval == "always" or (approval == "ask" and not read_only), read_only, idempotent)

    async def call(
        self,
        name: str,
        arguments: str,
        names: Sequence[str],
        before_calling: Callable[[], Awaitable[None]] | None = None,
    ) -> ToolOutput:
        """Call a function, whatever its policy; a failure of any kind is an output that says what it was.

        Cancelling this tells the server so.

        Args:
            name: The function.
            arguments: Its arguments as the model wrote them, JSON.
            names: What the job was given.
            before_calling: Awaited once there is a slot for the call; nothing is called where it raises.
        """
        try:
            given = _read_call_arguments(arguments)
            found = await self._find_tool(name, names)
            if found is None:
                return ToolOutput(f"There is no function {name[:80]}.", failed=True)
            connection, tool = found
            if not arguments.strip() and tool.input_schema.get("required"):
                raise RequestError("The arguments are missing: call again with a JSON object.")
            async with self._slots:
                if before_calling is not None:
                    await before_calling()
                return await connection.call(tool.name, given)
        except (ConfigError, RequestError, ToolServerError) as error:
            return ToolOutput(str(error), failed=True)

    async def _find_tool(self, name: str, names: Sequence[str]) -> tuple[Connection, Tool] | None:
        chosen = [choice for choice in self._choose_servers(names) if name.startswith(prefix_of(choice.server))]
        for fresh in (False, True):  # another process may have seen a newer list
            for choice in chosen:
                for tool in (await choice.connection.list_tools(fresh=fresh)).values():
                    if function_name(choice.server, tool.name) == name and choice.has(tool.name):
                        return choice.connection, tool
        return None

    def _choose_servers(self, names: Sequence[str]) -> list["_Choice"]:
        chosen: dict[str, _Choice] = {}
        for each in names:
            wanted = not each.startswith("!")
            server, glob = self._split_name(each.removeprefix("!"))
            choice = chosen.setdefault(server, _Choice(server, self._connections[server], [], []))
            (choice.only if wanted else choice.never).append(glob)
        return [choice for choice in chosen.values() if choice.only]

    def _split_name(self, name: str) -> tuple[str, str]:
        """The server in a name, and which of its tools."""
        server = _find_server_in(name, self._connections)
        if server is None and (self._servers.broken or _find_server_in(name, self._servers.refused) is not None):
            self._read_again()
            server = _find_server_in(name, self._connections)
        if server is not None:
            return server, name[len(server) + 1 :] or "*"
        raise self._explain_unusable(name)

    def _read_again(self) -> None:
        """Read the file again, so that what the user corrected needs no restart."""
        self._servers = read_toolbox(self._servers.path)
        for name, config in self._servers.items():
            self._connections.setdefault(name, self._connect(config))

    def _explain_unusable(self, name: str) -> AgentJobsError:
        """Return why a job cannot be given what it names."""
        servers = self._servers
        if servers.broken:
            return ConfigError(f"{servers.broken} {CORRECT}")
        if (refused := _find_server_in(name, servers.refused)) is not None:
            return ConfigError(f"{servers.refused[refused]} {CORRECT}")
        if (off := _find_server_in(name, servers.off)) is not None:
            return RequestError(f"{OPTION}: {off} is switched off: ask the user to switch it on in {servers.path}.")
        if not self._connections:
            return RequestError(f"{OPTION}: there are no tool servers: ask the user to set {SETTING}.")
        hint = suggest_name(name.partition("/")[0], sorted(self._connections))
        return RequestError(f"{OPTION}: there is no tool server {name[:40]!r}: {hint}")


@dataclass(frozen=True, slots=True)
class _Choice:
    """What a job was given of one server: globs over the names of its tools."""

    server: str
    connection: Connection
    only: list[str]
    never: list[str]

    def has(self, tool: str) -> bool:
        return matches_any(tool, self.only) and not matches_any(tool, self.never)

    def select_tools(self, tools: Mapping[str, Tool]) -> list[Tool]:
        """The tools that are meant.

        Raises:
            RequestError: A glob means none.
        """
        for glob in self.only:
            if glob != "*" and not any(matches_any(tool, [glob]) for tool in tools):
                raise RequestError(
                    f"{OPTION}: {self.server} has no tool {glob[:80]!r}: {suggest_name(glob, sorted(tools))}"
                )
        return [tool for tool in tools.values() if self.has(tool.name)]


async def _list_side_by_side(chosen: Sequence[_Choice]) -> Mapping[str, Mapping[str, Tool]]:
    """The tools of several servers, started side by side."""
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
    """Return the server of which a job names all tools or some."""
    return next((server for server in servers if name == server or name.startswith(f"{server}/")), None)


def _read_call_arguments(written: str) -> dict[str, Any]:
    try:
        arguments = json.loads(written.strip() or "{}")
        to_json(arguments, inf_nan_mode="strings")  # neither half a surrogate pair nor a depth that cannot be sent
    except (ValueError, RecursionError, PydanticSerializationError):
        raise RequestError("The arguments are not JSON: call again with a JSON object.") from None
    if not isinstance(arguments, dict):
        raise RequestError("The arguments are no JSON object: call again with one.")
    return cast("dict[str, Any]", arguments)


def _choose_description(tool: Tool) -> str:
    title = tool.title or (tool.annotations.title if tool.annotations is not None else None)
    return tool.description or title or tool.name
