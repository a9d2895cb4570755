"""The tool servers that a user has: read from their file, their `${NAME}`s put in only when a server is started."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from os.path import expanduser
from pathlib import Path
from typing import Any, cast

from agent_jobs.errors import ConfigError
from agent_jobs.toolbox.entry import KEYS, VARIABLE, Approval, WrongEntryError, read_entry
from agent_jobs.toolbox.jsonc import read_jsonc

__all__ = ["KEYS", "SETTING", "ServerConfig", "ToolServers", "load_toolbox", "matches_any", "read_toolbox"]

SETTING = "AGENT_JOBS_TOOLBOX"

#: Where hosts keep their servers in a file: the first of these objects that is there.
CONTAINERS = (("mcpServers",), ("servers",), ("mcp", "servers"), ("context_servers",), ("mcp_servers",), ("mcp",))

_TELLING_NAME = re.compile("key|token|secret|passw|credential|auth", re.IGNORECASE)
_SECRET_CHARS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """A tool server as the user wrote it.

    Args:
        name: What a job calls it.
        command: The program of a stdio server; it is this or `url`.
        allow: Globs over the names of its tools; what none of them matches does not exist.
        deny: Globs that take tools away again.
        approval: Globs and what holds for the tools they match, the first one first: `ask` (a tool that declares itself
            read-only runs, the others wait for a person), `always` (all wait), `never` (all run).
        timeout_s: How long one call may take.
    """

    name: str
    command: str | None = None
    args: Sequence[str] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    cwd: str | None = None
    url: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    allow: Sequence[str] = ("*",)
    deny: Sequence[str] = ()
    approval: Sequence[tuple[str, Approval]] = ()
    timeout_s: float = 60.0

    def allows(self, tool: str) -> bool:
        """Whether the user lets any job see this tool."""
        return matches_any(tool, self.allow) and not matches_any(tool, self.deny)

    def approval_of(self, tool: str) -> Approval:
        """What the user wants to be asked about a tool."""
        for glob, approval in self.approval:
            if fnmatchcase(tool, glob):
                return approval
        return "ask"

    def find_idle_rules(self, tools: Sequence[str]) -> Sequence[str]:
        """Return the globs that hold tools back and match none of these: one may have a typing error."""
        globs = [*self.deny, *(glob for glob, approval in self.approval if approval != "never")]
        return [glob for glob in globs if not any(fnmatchcase(tool, glob) for tool in tools)]

    def resolve(self, environ: Mapping[str, str]) -> tuple["ServerConfig", frozenset[str]]:
        """The server with each `${NAME}` and `${NAME:-default}` replaced, and the texts in it that are secret.

        Raises:
            ConfigError: A variable is not set.
        """
        secrets: set[str] = set()

        def put_in(where: str, text: str, *, secret: bool = False) -> str:
            def value_of(match: re.Match[str]) -> str:
                value = environ.get(match[1]) or match[2]
                if match[1] == "userHome":  # what editors call it
                    value = value or expanduser("~")
                if value is None:
                    raise ConfigError(
                        f"{SETTING}: {self.name}: {where} names ${{{match[1]}}}, which is not set: put {match[1]} "
                        "into the env of agent-jobs' own entry."
                    )
                if not value.startswith(("/", "~", ".")):  # a path is none, and stands in many an answer
                    secrets.add(value)
                return value

            put = VARIABLE.sub(value_of, text)
            if secret:
                secrets.update((put, *put.split()))
            return put

        settled = replace(
            self,
            command=self.command and expanduser(put_in("command", self.command)),
            args=[put_in("args", each) for each in self.args],
            env={key: put_in(f"env.{key}", each, secret=_is_telling_name(key)) for key, each in self.env.items()},
            cwd=self.cwd and expanduser(put_in("cwd", self.cwd)),
            url=self.url and put_in("url", self.url),
            headers={key: put_in(f"headers.{key}", each, secret=True) for key, each in self.headers.items()},
        )
        return settled, frozenset(each for each in secrets if len(each) >= _SECRET_CHARS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToolServers(Mapping[str, ServerConfig]):
    """The servers of a file that can be used, by name, and what was found about the others.

    Args:
        path: The file.
        usable: The servers.
        off: The names of those that the user switched off.
        refused: A sentence for each that cannot be used, by its name.
        notes: A sentence for each of which something is not used.
        broken: Why the file cannot be used at all.
    """

    path: Path
    usable: Mapping[str, ServerConfig] = field(default_factory=dict[str, ServerConfig])
    off: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: Sequence[str] = ()
    broken: str = ""

    def __getitem__(self, name: str) -> ServerConfig:
        return self.usable[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.usable)

    def __len__(self) -> int:
        return len(self.usable)

    @property
    def warnings(self) -> Sequence[str]:
        """Return a sentence for each server that cannot be used or only in part."""
        return [*self.refused.values(), *self.notes]


def load_toolbox(path: Path) -> ToolServers:
    """Read the tool servers of a file in one of the forms that hosts use.

    Raises:
        ConfigError: The file cannot be read, or has no servers in it; the message names it.
    """
    try:
        written = read_jsonc(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{SETTING}: {path} is not JSON: {error}.") from None
    except OSError as error:
        raise ConfigError(f"{SETTING}: cannot read {path}: {error.strerror or error}.") from None
    servers = _find_servers(written)
    if servers is None:
        raise ConfigError(f'{SETTING}: {path} needs an object "mcpServers" with a server under each name.')
    usable: dict[str, ServerConfig] = {}
    refused: dict[str, str] = {}
    off: set[str] = set()
    notes: list[str] = []
    for name, written_entry in servers.items():
        about = f"{SETTING}: {path}: {name[:40] if name.isprintable() else ascii(name[:40])}:"
        try:
            if name in getattr(servers, "repeated", ()):
                raise WrongEntryError("there is more than one server of this name.")
            entry = read_entry(name, written_entry)
        except WrongEntryError as error:
            refused[name] = f"{about} {error}"
            continue
        if entry.fields is None:
            off.add(name)
            continue
        usable[name] = ServerConfig(name=name, **entry.fields)
        if entry.notes:
            notes.append(f"{about} {'; '.join(entry.notes)}.")
    return ToolServers(path=path, usable=usable, off=frozenset(off), refused=refused, notes=notes)


def read_toolbox(path: Path) -> ToolServers:
    """Read the tool servers of a file; one that cannot be used is `broken` and has none."""
    try:
        return load_toolbox(path)
    except ConfigError as error:
        return ToolServers(path=path, broken=str(error))


def matches_any(name: str, globs: Sequence[str]) -> bool:
    """Whether one of the globs matches."""
    return any(fnmatchcase(name, glob) for glob in globs)


def _find_servers(written: Any) -> dict[str, Any] | None:
    """Return the object with a server under each name; None where there is none."""
    for keys in CONTAINERS:
        found = written
        for key in keys:
            found = cast("dict[str, Any]", found).get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return cast("dict[str, Any]", found)
    return None


def _is_telling_name(name: str) -> bool:
    return _TELLING_NAME.search(name) is not None
