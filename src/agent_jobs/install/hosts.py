"""The hosts that start this server: where each keeps its servers, in which form, and how it hands over a secret.

Everything here is a value or a pure function of a `Machine`, so that any system can be described on any other.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

__all__ = [
    "HOSTS",
    "KEY",
    "KEY_FILE",
    "KEY_PATH",
    "SERVER",
    "Entry",
    "Host",
    "Launch",
    "Machine",
    "Place",
    "input_of",
    "switched_off",
]

SERVER = "agent-jobs"
KEY, KEY_FILE = "OPENAI_API_KEY", "AGENT_JOBS_API_KEY_FILE"
#: Where the key goes for hosts that know no other way than to write it down; the server expands the ~.
KEY_PATH = "~/.config/agent-jobs/openai-key"
INPUT = "agent-jobs-openai-key"

#: The tools that only read, as the server marks them.
READING = ("agent_poll", "agent_result", "agent_list")

#: What hosts write into an entry that a person switched off.
_OFF: Mapping[str, bool] = {"enabled": False, "disabled": True}

Format = Literal["json", "toml", "yaml"]
Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides where files are. `platform` is as in `sys.platform`, `folder` the project's."""

    platform: str
    home: Path
    environ: Mapping[str, str]
    folder: Path

    def set_to(self, name: str, otherwise: Path) -> Path:
        """The folder that a variable names, if it names one."""
        value = self.environ.get(name, "").strip()
        return Path(value) if value else otherwise

    @property
    def roaming(self) -> Path:
        """Windows' %APPDATA%."""
        return self.set_to("APPDATA", self.home / "AppData/Roaming")

    @property
    def config(self) -> Path:
        """Where applications keep what a person sets."""
        if self.platform == "win32":
            return self.roaming
        if self.platform == "darwin":
            return self.home / "Library/Application Support"
        return self.set_to("XDG_CONFIG_HOME", self.home / ".config")


@dataclass(frozen=True, slots=True)
class Launch:
    """The command that starts this server."""

    command: str
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A file that a host reads. `only_if` may hold a * and must exist, else the next place is taken."""

    path: Path
    only_if: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host: its entry, and where that goes.

    `user` is None where this program only prints the entry; then `where` says what to do with it. `secret` is the
    host's reference to the key, None where the host has no way of its own.
    """

    name: str
    title: str
    where: str
    after: str
    format: Format = "json"
    keys: tuple[str, ...] = ("mcpServers",)
    user: Callable[[Machine], tuple[Place, ...]] | None = None
    project: str | None = None
    secret: str | None = None
    ours: Callable[[Launch], Entry] = lambda launch: {"command": launch.command, "args": list(launch.args)}
    #: What stands in a new entry and is left alone in one that the person changed.
    first: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: What `--approve` adds: the model may call agent_start unasked. None where that is not in this file.
    approval: Mapping[str, Any] | None = None
    #: What a person may do besides, said after an installation.
    advice: tuple[str, ...] = ()
    env: str = "env"
    #: Whether the servers are a list of entries with names, where others have names with entries.
    is_listed: bool = False
    #: Whether the host itself asks for the key and keeps it.
    asks: bool = False
    #: The key of `first` that hands the key over, for hosts that forward variables by a list of names.
    forwards: str | None = None
    #: Whether the host reads JSON as the standard has it: one comment, and it sees none of its servers.
    strict: bool = False
    #: Whether its user's file has entries for single folders, too.
    has_local_scope: bool = False
    #: Started from a desktop, where programs and variables of a shell are not seen.
    desktop: bool = True
    #: After how long the host gives a tool call up; None where it is not known to.
    call_limit_s: float | None = 60.0
    #: How long the host waits for the tools of a server that it started, in seconds; None where it is not known.
    start_wait_s: float | None = None
    #: The key of an entry that sets another limit, and how long one of its unit is, in seconds.
    call_limit_key: tuple[str, float] | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """The keys that lead to our entry."""
        return (*self.keys, SERVER)

    def entry(
        self,
        launch: Launch,
        environment: Mapping[str, str],
        existing: Entry | None = None,
        *,
        approve: bool = False,
    ) -> Entry:
        """Our entry: the command is ours, what a person added or changed stays, what was passed now is set.

        Args:
            launch: The command that starts the server.
            environment: Variables that were passed for this entry.
            existing: The entry that is there.
            approve: Whether the model may call agent_start unasked.
        """
        entry = {**(existing or {}), **self.ours(launch)}
        variables = dict(entry.get(self.env, {}))
        if {KEY, KEY_FILE} & environment.keys():
            # The key comes another way from now on.
            references = {KEY: self.secret, KEY_FILE: KEY_PATH}
            variables = {name: value for name, value in variables.items() if references.get(name) != value}
            if self.forwards and entry.get(self.forwards) == self.first[self.forwards]:
                del entry[self.forwards]
        variables |= environment
        has_key = bool({KEY, KEY_FILE} & variables.keys())
        for name, value in self.first.items():
            if not (has_key and name == self.forwards):
                entry.setdefault(name, deepcopy(value))
        if approve and self.approval:
            entry = _merged(entry, self.approval)
        if not has_key and not self.forwards:
            variables |= {KEY: self.secret} if self.secret else {KEY_FILE: KEY_PATH}
        return {**entry, self.env: variables} if variables else entry

    def command_of(self, entry: Entry) -> Launch:
        """Return what an entry of this host starts; words that are no texts are passed over."""
        words: list[Any] = []
        for part in (entry.get("command", ""), entry.get("args", [])):  # some hosts have both in one list
            words += cast("list[Any]", part) if isinstance(part, list) else [part]
        command, *args = map(str, words or [""])
        return Launch(command, tuple(args))

    def is_reference(self, value: str) -> bool:
        """Whether the host fills in this value, instead of handing it on as it stands."""
        return self.fills_references and value.startswith(("$", "{env:"))

    @property
    def fills_references(self) -> bool:
        """Whether the host fills in variables that its file refers to; the others hand on `$NAME` as it stands."""
        return self.secret is not None

    @property
    def hands_key_over(self) -> bool:
        """Whether the host has a way of its own for the key, so that it need not be written down."""
        return self.secret is not None or self.forwards is not None


def _merged(entry: Entry, more: Mapping[str, Any]) -> Entry:
    """Return an entry with more in it, level by level."""
    merged = dict(entry)
    for name, value in more.items():
        old = merged.get(name)
        is_nested = isinstance(value, dict) and isinstance(old, dict)
        merged[name] = _merged(cast("Entry", old), cast("Entry", value)) if is_nested else deepcopy(cast("Any", value))
    return merged


def switched_off(entry: Entry | None) -> dict[str, bool]:
    """Return the values of an entry that keep a host from starting its server."""
    return {name: off for name, off in _OFF.items() if (entry or {}).get(name) is off}


def input_of(entry: Entry | None) -> Entry | None:
    """The question that VS Code asks for the key, if the entry refers to it."""
    variables: Mapping[str, Any] = (entry or {}).get("env", {})
    if variables.get(KEY) != f"${{input:{INPUT}}}":
        return None
    return {"id": INPUT, "type": "promptString", "description": "OpenAI API key", "password": True}


def _claude_desktop(machine: Machine) -> tuple[Place, ...]:
    file = "Claude/claude_desktop_config.json"
    classic = Place(machine.config / file)
    if machine.platform != "win32":
        return (classic,)
    # Installed as MSIX (the official installer does), it reads a folder of its own and never the classic one.
    roaming = machine.set_to("LOCALAPPDATA", machine.home / "AppData/Local") / "Packages/Claude_*/LocalCache/Roaming"
    return (Place(roaming / file, only_if=roaming), classic)


def _claude_code(machine: Machine) -> tuple[Place, ...]:
    return (Place(machine.set_to("CLAUDE_CONFIG_DIR", machine.home) / ".claude.json"),)


def _codex(machine: Machine) -> tuple[Place, ...]:
    return (Place(machine.set_to("CODEX_HOME", machine.home / ".codex") / "config.toml"),)


def _stdio(launch: Launch) -> Entry:
    return {"type": "stdio", "command": launch.command, "args": list(launch.args)}


def _goose(launch: Launch) -> Entry:
    return {"name": SERVER, "type": "stdio", "enabled": True, "cmd": launch.command, "args": list(launch.args)}


def _in_one_list(launch: Launch) -> Entry:
    return {"type": "local", "command": [launch.command, *launch.args], "enabled": True}


def _copilot(launch: Launch) -> Entry:
    return {"type": "local", "command": launch.command, "args": list(launch.args)}


def _first_there(folder: Path, *names: str) -> tuple[Place, ...]:
    """The file that exists of several names that a host reads, else the last."""
    paths = [folder / name for name in names]
    return (*(Place(path, only_if=path) for path in paths[:-1]), Place(paths[-1]))


def _xdg(machine: Machine) -> Path:
    """Where programs of the terminal keep their settings, on each system."""
    return machine.set_to("XDG_CONFIG_HOME", machine.home / ".config")


_ALL = (
    Host(
        name="claude-desktop",
        title="Claude Desktop",
        where="Settings > Developer > Edit Config",
        after="Quit Claude Desktop (not only its window) and start it again.",
        user=_claude_desktop,
        strict=True,
    ),
    Host(
        name="claude-code",
        title="Claude Code",
        where="~/.claude.json, or .mcp.json in a project",
        after="Start a new session of Claude Code; /mcp shows the server.",
        start_wait_s=3.0,
        user=_claude_code,
        project=".mcp.json",
        strict=True,
        has_local_scope=True,
        desktop=False,
        call_limit_s=None,  # it gives up after 28 hours
        call_limit_key=("timeout", 0.001),
        secret="${OPENAI_API_KEY:-}",  # without the default Claude Code refuses the whole file when it is not set
        ours=_stdio,
        first={"alwaysLoad": True},  # without it the tools are found by a search, a turn later
    ),
    Host(
        name="cursor",
        title="Cursor",
        where="~/.cursor/mcp.json, or .cursor/mcp.json in a project",
        after="Start Cursor again, then look at Settings > MCP.",
        user=lambda machine: (Place(machine.home / ".cursor/mcp.json"),),
        project=".cursor/mcp.json",
        secret="${env:OPENAI_API_KEY}",
    ),
    Host(
        name="vscode",
        title="VS Code",
        where="MCP: Open User Configuration, or .vscode/mcp.json in a project",
        after="Run MCP: List Servers in VS Code and start it; VS Code asks for the key once and keeps it.",
        keys=("servers",),
        user=lambda machine: (Place(machine.config / "Code/User/mcp.json"),),
        project=".vscode/mcp.json",
        call_limit_s=None,
        secret=f"${{input:{INPUT}}}",
        asks=True,
        ours=_stdio,
    ),
    Host(
        name="codex",
        title="Codex",
        where="~/.codex/config.toml, or .codex/config.toml in a trusted project",
        after="Start Codex again; /mcp shows the server.",
        start_wait_s=1.0,
        format="toml",
        keys=("mcp_servers",),
        user=_codex,
        project=".codex/config.toml",
        desktop=False,
        call_limit_s=300.0,
        call_limit_key=("tool_timeout_sec", 1.0),
        # Earlier versions gave 10 s and 60 s; a first start downloads, and a poll waits up to 240 s.
        first={
            "env_vars": [KEY],
            "startup_timeout_sec": 60,
            "tool_timeout_sec": 300,
            "tools": {tool: {"approval_mode": "approve"} for tool in READING},
        },
        forwards="env_vars",
        approval={"tools": {"agent_start": {"approval_mode": "approve"}}},
        advice=(
            "Codex waits 1 s for the tools at its start. If they are missing in the first turn, put "
            "mcp_optional_startup_grace_ms = 5000 at the top of its config.toml, above the first table.",
        ),
    ),
    Host(
        name="opencode",
        title="OpenCode",
        where="~/.config/opencode/opencode.json, or opencode.json in a project",
        after="Start OpenCode again; opencode mcp list shows the server.",
        keys=("mcp",),
        user=lambda machine: _first_there(_xdg(machine) / "opencode", "opencode.jsonc", "opencode.json"),
        project="opencode.json",
        secret="{env:OPENAI_API_KEY}",
        ours=_in_one_list,
        env="environment",
        desktop=False,
        call_limit_s=None,  # progress keeps a call alive
        start_wait_s=5.0,
    ),
    Host(
        name="kilo",
        title="Kilo",
        where="~/.config/kilo/kilo.jsonc, or .kilo/kilo.jsonc in a project",
        after="Start Kilo again; kilo mcp list shows the server.",
        keys=("mcp",),
        user=lambda machine: _first_there(_xdg(machine) / "kilo", "kilo.json", "kilo.jsonc"),
        project=".kilo/kilo.jsonc",
        secret="{env:OPENAI_API_KEY}",
        ours=_in_one_list,
        env="environment",
        desktop=False,
        call_limit_s=None,
        start_wait_s=5.0,
    ),
    Host(
        name="qwen",
        title="Qwen Code",
        where="~/.qwen/settings.json, or .qwen/settings.json in a project",
        after="Start Qwen Code again; /mcp shows the server.",
        user=lambda machine: (Place(machine.home / ".qwen/settings.json"),),
        project=".qwen/settings.json",
        secret="$OPENAI_API_KEY",
        first={"alwaysLoadTools": True},  # without it the model finds the tools by a search, a turn later
        desktop=False,
        call_limit_s=600.0,
        call_limit_key=("timeout", 0.001),
    ),
    Host(
        name="copilot-cli",
        title="Copilot CLI",
        where="~/.copilot/mcp-config.json",
        after="Start Copilot CLI again; /mcp show lists the server.",
        user=lambda machine: (Place(machine.set_to("COPILOT_HOME", machine.home / ".copilot") / "mcp-config.json"),),
        ours=_copilot,
        first={"tools": ["*"]},
        desktop=False,
        call_limit_key=("timeout", 0.001),
    ),
    Host(
        name="gemini",
        title="Gemini CLI",
        where="~/.gemini/settings.json, or .gemini/settings.json in a project",
        after="Start Gemini CLI again; /mcp shows the server.",
        start_wait_s=5.0,
        secret="$OPENAI_API_KEY",
    ),
    Host(
        name="antigravity",
        title="Antigravity",
        where="~/.gemini/config/mcp_config.json (some versions: ~/.gemini/antigravity/mcp_config.json)",
        after="Start Antigravity again.",
    ),
    Host(
        name="windsurf",
        title="Windsurf (Cascade)",
        where="~/.codeium/windsurf/mcp_config.json",
        after="Press refresh in the MCP panel.",
        secret="${env:OPENAI_API_KEY}",
    ),
    Host(
        name="devin",
        title="Devin Desktop",
        where="~/.config/devin/mcp_config.json (Windows: %APPDATA%\\devin\\mcp_config.json)",
        after="Start Devin Desktop again.",
        secret="${env:OPENAI_API_KEY}",
    ),
    Host(
        name="zed",
        title="Zed",
        where="zed: open settings file",
        after="Zed starts the server by itself; look at the agent panel's settings.",
        keys=("context_servers",),
    ),
    Host(
        name="goose",
        title="Goose",
        where="~/.config/goose/config.yaml (Windows: %APPDATA%\\Block\\goose\\config\\config.yaml)",
        after="Start a new session of Goose; it keeps the key in its keyring.",
        format="yaml",
        keys=("extensions",),
        ours=_goose,
        first={"timeout": 300, "env_keys": [KEY]},
        forwards="env_keys",
        env="envs",
        asks=True,
    ),
    Host(
        name="cline",
        title="Cline",
        where="MCP Servers > Configure, which opens cline_mcp_settings.json",
        after="Cline starts the server by itself.",
        start_wait_s=2.9,
    ),
    Host(
        name="roo",
        title="Roo Code",
        where="MCP Servers > Edit Global MCP, or .roo/mcp.json in a project",
        after="Roo starts the server by itself.",
    ),
    Host(
        name="continue",
        title="Continue",
        where="~/.continue/config.yaml",
        after="Continue starts the server by itself.",
        format="yaml",
        is_listed=True,
    ),
    Host(
        name="lm-studio",
        title="LM Studio",
        where="Program > Install > Edit mcp.json",
        after="LM Studio loads the server by itself.",
    ),
)

#: Every host by its name, in the order in which they are shown.
HOSTS: Mapping[str, Host] = {host.name: host for host in _ALL}
