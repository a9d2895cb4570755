"""The tool servers that a user has: read from their file, their `${NAME}`s put in only when a server is started."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from os.path import expanduser
from pathlib import Path
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

from agent_jobs.errors import ConfigError
from agent_jobs.text_file import read_text

SETTING = "AGENT_JOBS_TOOLBOX"

Approval = Literal["ask", "always", "never"]
APPROVALS: tuple[str, ...] = get_args(Approval)

#: Keys that only other programs read; anything else that is not known could be a `deny` with a typing error.
IGNORED = frozenset({"autoApprove", "alwaysAllow", "description"})
HTTP = ("http", "streamable-http", "streamableHttp", "streamable_http")

_NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9@ ._/-]{0,39}")
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
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
        return matches(tool, self.allow) and not matches(tool, self.deny)

    def approval_of(self, tool: str) -> Approval:
        """What the user wants to be asked about a tool."""
        for glob, approval in self.approval:
            if fnmatchcase(tool, glob):
                return approval
        return "ask"

    def resolved(self, environ: Mapping[str, str]) -> tuple["ServerConfig", frozenset[str]]:
        """The server with each `${NAME}` and `${NAME:-default}` replaced, and the texts in it that are secret.

        Raises:
            ConfigError: A variable is not set.
        """
        secrets: set[str] = set()

        def put_in(where: str, text: str, *, secret: bool = False) -> str:
            def value_of(match: re.Match[str]) -> str:
                value = environ.get(match[1]) or match[2]
                if value is None:
                    raise ConfigError(
                        f"{SETTING}: {self.name}: {where} names ${{{match[1]}}}, which is not set: put {match[1]} "
                        "into the env of agent-jobs' own entry."
                    )
                if not value.startswith(("/", "~", ".")):  # a path is none, and stands in many an answer
                    secrets.add(value)
                return value

            put = _VARIABLE.sub(value_of, text)
            if secret:
                secrets.update((put, *put.split()))
            return put

        settled = replace(
            self,
            command=self.command and expanduser(put_in("command", self.command)),
            args=[put_in("args", each) for each in self.args],
            env={key: put_in(f"env.{key}", each, secret=_is_telling(key)) for key, each in self.env.items()},
            cwd=self.cwd and expanduser(put_in("cwd", self.cwd)),
            url=self.url and put_in("url", self.url),
            headers={key: put_in(f"headers.{key}", each, secret=True) for key, each in self.headers.items()},
        )
        return settled, frozenset(each for each in secrets if len(each) >= _SECRET_CHARS)


def load_toolbox(path: Path) -> Mapping[str, ServerConfig]:
    """The tool servers of a file in the `mcpServers` form that hosts use, by name; `disabled` ones are left out.

    Raises:
        ConfigError: The file cannot be read or used; the message names it, the server and the key.
    """
    try:
        written = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{SETTING}: {path} is not JSON: {error}.") from None
    except OSError as error:
        raise ConfigError(f"{SETTING}: cannot read {path}: {error.strerror or error}.") from None
    servers = cast("dict[str, Any]", written).get("mcpServers") if isinstance(written, dict) else None
    if not isinstance(servers, dict):
        raise ConfigError(f'{SETTING}: {path} needs an object "mcpServers" with a server under each name.')
    read: dict[str, ServerConfig] = {}
    for name, entry in cast("dict[str, Any]", servers).items():
        try:
            server = _server(name, entry)
        except _WrongError as error:
            raise ConfigError(f"{SETTING}: {path}: {name[:40]}: {error}") from None
        if server is not None:
            read[name] = server
    return read


def matches(name: str, globs: Sequence[str]) -> bool:
    """Whether one of the globs matches."""
    return any(fnmatchcase(name, glob) for glob in globs)


def nearest(name: str, names: Sequence[str]) -> str:
    """A hint for a name that does not exist: the nearest one, or all."""
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(sorted(names)[:40]) or '(none)'}."


class _WrongError(Exception):
    """What is wrong with an entry, as the rest of a sentence."""


def _server(name: str, entry: Any) -> ServerConfig | None:
    if not _NAME.fullmatch(name) or name == "none":
        raise _WrongError("a server's name takes up to 40 letters, digits, spaces, @ . _ / and -, and is not none.")
    if not isinstance(entry, dict):
        raise _WrongError('a server is an object like {"command": "uvx", "args": ["mcp-server-time"]}.')
    given = cast("dict[str, Any]", entry)
    for key in given.keys() - IGNORED:
        if key not in KEYS:
            raise _WrongError(f"there is no key {key[:40]!r}: {nearest(key, [*KEYS])}")
    read = {key: KEYS[key](key, value) for key, value in given.items() if key in KEYS}
    if read.pop("disabled", False):
        return None
    kind = read.pop("type", None)
    if ("command" in read) == ("url" in read):
        raise _WrongError("it needs either a command or a url.")
    if kind is not None and (kind == "stdio") != ("command" in read):
        raise _WrongError(f"type {kind!r} does not go with its {'command' if 'command' in read else 'url'}.")
    return ServerConfig(name=name, **read)


def _is_telling(name: str) -> bool:
    return _TELLING_NAME.search(name) is not None


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise _WrongError(f"{key} takes a text.")
    return value


def _texts(key: str, value: Any) -> Sequence[str]:
    each = cast("list[Any]", value) if isinstance(value, list) else None
    if each is None or not all(isinstance(item, str) and "\0" not in item for item in each):
        raise _WrongError(f"{key} takes a list of texts.")
    return tuple(each)


def _by_name(key: str, value: Any) -> Mapping[str, str]:
    pairs = cast("dict[str, Any]", value) if isinstance(value, dict) else None
    if pairs is None or not all(_is_pair(name, text) for name, text in pairs.items()):
        raise _WrongError(f'{key} takes texts by name, like {{"API_TOKEN": "${{API_TOKEN}}"}}.')
    return pairs


def _is_pair(name: str, text: Any) -> bool:
    return isinstance(text, str) and "\0" not in name + text and name != "" and "=" not in name


def _headers(key: str, value: Any) -> Mapping[str, str]:
    pairs = _by_name(key, value)
    if not all(
        re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) and text.isprintable() for name, text in pairs.items()
    ):
        raise _WrongError(f"{key} holds what no header can carry.")
    return pairs


def _url(key: str, value: Any) -> str:
    address = _text(key, value)
    try:
        parts = urlsplit(_VARIABLE.sub("8", address))  # whatever the variable brings, a port included
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits and not address.startswith("${"):
        raise _WrongError(f"{key} takes a web address like https://tools.example.org/mcp.")
    return address


def _kind(key: str, value: Any) -> str:
    if value == "sse":
        raise _WrongError("type sse is of the past: write the server's streamable HTTP address with type http.")
    if value not in ("stdio", *HTTP):
        raise _WrongError(f"{key} takes stdio or http.")
    return value


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongError(f"{key} takes true or false.")
    return value


def _seconds(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 3600:
        raise _WrongError(f"{key} takes seconds from 1 to 3600; without it 60 are used.")
    return float(value)


def _approval(key: str, value: Any) -> Sequence[tuple[str, Approval]]:
    pairs = cast("dict[str, Any]", value if isinstance(value, dict) else {"*": value})
    if not all(approval in APPROVALS for approval in pairs.values()):
        raise _WrongError(
            f'{key} takes {", ".join(APPROVALS)}, or one of them for each tool, like {{"git_*": "never"}}.'
        )
    return tuple(pairs.items())


KEYS: Mapping[str, Callable[[str, Any], Any]] = {
    "type": _kind,
    "command": _text,
    "args": _texts,
    "env": _by_name,
    "cwd": _text,
    "url": _url,
    "headers": _headers,
    "disabled": _flag,
    "allow": _texts,
    "deny": _texts,
    "approval": _approval,
    "timeout_s": _seconds,
}
