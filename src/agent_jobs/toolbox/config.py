"""Read the user's tool servers from a file, and fill in their `${NAME}`s when a server is started."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from os.path import expanduser
from pathlib import Path
from typing import Any

from agent_jobs.errors import ConfigError
from agent_jobs.toolbox.jsonc import Members, read_jsonc, read_members
from agent_jobs.toolbox.server_entry import KEYS, VARIABLE, Approval, WrongEntryError, read_entry

__all__ = ["KEYS", "SETTING", "ServerConfig", "ToolServers", "load_toolbox", "matches_any", "read_toolbox"]

SETTING = "AGENT_JOBS_TOOLBOX"

#: The keys under which hosts keep their servers in a file; the first object that exists counts.
CONTAINERS = (("mcpServers",), ("servers",), ("mcp", "servers"), ("context_servers",), ("mcp_servers",), ("mcp",))

_TELLING_NAME = re.compile("key|token|secret|passw|credential|auth", re.IGNORECASE)
_SECRET_CHARS = 6  # a shorter string is no secret, and occurs in other words
_NAME_CHARS = 40  # of a name in a sentence: a wrong name may be of any length


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """A tool server as the user configured it.

    Args:
        name: The name that a job uses for it.
        command: The program of a stdio server; there is either this or `url`.
        allow: Globs over the names of its tools; a tool that none of them matches does not exist for a job.
        deny: Globs for tools that do not exist in spite of `allow`.
        approval: Globs with the approval that the tools need; the first match counts: `ask` (a tool that
            declares itself read-only runs, the others wait for a person), `always` (all wait), `never` (all run).
        timeout_s: The time limit of one call.
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
        """Return True if jobs may use this tool."""
        return matches_any(tool, self.allow) and not matches_any(tool, self.deny)

    def approval_of(self, tool: str) -> Approval:
        """Return the approval that the user requires for a tool."""
        for glob, approval in self.approval:
            if fnmatchcase(tool, glob):
                return approval
        return "ask"

    def find_idle_rules(self, tools: Collection[str]) -> Sequence[str]:
        """Return the globs that restrict tools and match none of these: such a glob may have a typing error."""
        globs = [*self.deny, *(glob for glob, approval in self.approval if approval != "never")]
        return find_idle_globs(globs, tools)

    def resolve(self, environ: Mapping[str, str]) -> tuple["ServerConfig", frozenset[str]]:
        """Return the server with each `${NAME}` and `${NAME:-default}` replaced, and the secret strings in it.

        Raises:
            ConfigError: A variable is not set.
        """
        values = _Variables(self.name, environ)
        resolved = replace(
            self,
            command=self.command and expanduser(values.fill_in("command", self.command)),
            args=[values.fill_in("args", each) for each in self.args],
            env=values.fill_in_env(self.env),
            cwd=self.cwd and expanduser(values.fill_in("cwd", self.cwd)),
            url=self.url and values.fill_in("url", self.url),
            headers={key: values.fill_in_secret(f"headers.{key}", each) for key, each in self.headers.items()},
        )
        return resolved, values.secrets()


class _Variables:
    """The values of the variables that a server's entry names, and the secrets among them."""

    def __init__(self, server: str, environ: Mapping[str, str]) -> None:
        self._server = server
        self._environ = environ
        self._values: set[str] = set()

    def secrets(self) -> frozenset[str]:
        """Return the values that may be secret and are long enough to be recognized in an answer."""
        return frozenset(each for each in self._values if len(each) >= _SECRET_CHARS)

    def fill_in(self, where: str, text: str) -> str:
        """Return a text with the values of its variables.

        Raises:
            ConfigError: A variable is not set.
        """
        return VARIABLE.sub(lambda found: self._look_up(where, found[1], found[2]), text)

    def fill_in_secret(self, where: str, text: str) -> str:
        """Return a text with the values of its variables; all of it is secret."""
        filled = self.fill_in(where, text)
        self._values.update((filled, *filled.split()))
        return filled

    def fill_in_env(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return environment variables with their values; those with a telling name are secret."""
        filled: dict[str, str] = {}
        for key, text in env.items():
            fill_in = self.fill_in
            if _is_telling_name(key):
                fill_in = self.fill_in_secret
            filled[key] = fill_in(f"env.{key}", text)
        return filled

    def _look_up(self, where: str, name: str, default: str | None) -> str:
        value = self._environ.get(name) or default
        if not value and name == "userHome":  # the name that editors give to it
            value = expanduser("~")
        if value is None:
            raise ConfigError(
                "{setting}: {server}: {where} names ${{{secret}}}, which is not set.",
                "unset_secret",
                setting=SETTING,
                server=self._server,
                where=where,
                secret=name,
            )
        if not value.startswith(("/", "~", ".")):  # a path is no secret, and occurs in many answers
            self._values.add(value)
        return value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToolServers(Mapping[str, ServerConfig]):
    """The usable servers of a file by name, and what is wrong with the others.

    Args:
        path: The file.
        usable: The servers.
        off: The names of the servers that the user switched off.
        refused: A sentence for each that cannot be used, by its name.
        notes: A sentence for each server with an unused key.
        broken: Why the file cannot be used at all.
    """

    path: Path
    usable: Mapping[str, ServerConfig] = field(default_factory=dict[str, ServerConfig])
    off: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: Sequence[str] = ()
    broken: ConfigError | None = None

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
    servers = _find_servers(_read_file(path))
    if servers is None:
        raise _file_error(path, 'needs an object "mcpServers" with a server under each name')
    usable: dict[str, ServerConfig] = {}
    refused: dict[str, str] = {}
    off: set[str] = set()
    notes: list[str] = []
    for name, written in servers.items():
        about = f"{SETTING}: {path}: {_shorten_name(name)}:"
        try:
            if name in servers.repeated:
                raise WrongEntryError("there is more than one server of this name.")
            entry = read_entry(name, written)
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


def _read_file(path: Path) -> Any:
    try:
        return read_jsonc(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _file_error(path, f"is not JSON: {error}") from None
    except OSError as error:
        raise _file_error(path, f"cannot be read: {error.strerror}") from None


def _file_error(path: Path, fault: str) -> ConfigError:
    return ConfigError("{setting}: {path} {fault}.", "wrong_entry_file", setting=SETTING, path=path, fault=fault)


def _shorten_name(name: str) -> str:
    if name.isprintable():
        return name[:_NAME_CHARS]
    return ascii(name[:_NAME_CHARS])


def read_toolbox(path: Path) -> ToolServers:
    """Read the tool servers of a file; a file that cannot be used is `broken` and has none."""
    try:
        return load_toolbox(path)
    except ConfigError as error:
        return ToolServers(path=path, broken=error)


def matches_any(name: str, globs: Sequence[str]) -> bool:
    """Return True if one of the globs matches."""
    return any(fnmatchcase(name, glob) for glob in globs)


def find_idle_globs(globs: Sequence[str], names: Collection[str]) -> list[str]:
    """Return the globs that match none of the names."""
    return [glob for glob in globs if not any(fnmatchcase(name, glob) for name in names)]


def _find_servers(written: Any) -> Members | None:
    """Return the object with a server under each name; None if there is none."""
    for keys in CONTAINERS:
        found = written
        for key in keys:
            found = read_members(found).get(key)
        if isinstance(found, Members):
            return found
    return None


def _is_telling_name(name: str) -> bool:
    return _TELLING_NAME.search(name) is not None
