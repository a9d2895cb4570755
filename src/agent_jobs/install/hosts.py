"""The catalogue of hosts: the file, the form of an entry and the way to hand over a secret of each.

Everything here is a value or a pure function of a `Machine`, so any system can be described on any other.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal, cast

from agent_jobs.install.machine import HostFile, Launch, Machine

__all__ = [
    "HOSTS",
    "KEY",
    "KEY_FILE",
    "KEY_PATH",
    "SERVER",
    "Entry",
    "Host",
    "find_disabling_values",
    "find_input",
]

SERVER = "agent-jobs"
KEY = "OPENAI_API_KEY"
KEY_FILE = "AGENT_JOBS_API_KEY_FILE"
#: The file of the key that entries of an earlier version named; the server expands the ~.
KEY_PATH = "~/.config/agent-jobs/openai-key"
INPUT = "agent-jobs-openai-key"  # the id of the question that VS Code asks for the key

#: The tools that only read, as the server marks them.
READING = ("agent_poll", "agent_result", "agent_list")

#: Values that a host writes into an entry when a person disables it.
_DISABLING: Mapping[str, bool] = {"enabled": False, "disabled": True}

Format = Literal["json", "toml", "yaml"]
Entry = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host: its entry, and where that goes.

    `user` is None if this program only prints the entry; then `where` names the place for it. `secret` is the
    host's reference to the key, or None if the host has no way of its own.
    """

    name: str
    title: str
    where: str
    after: str
    format: Format = "json"
    keys: tuple[str, ...] = ("mcpServers",)
    user: Callable[[Machine], tuple[HostFile, ...]] | None = None
    project: str | None = None
    secret: str | None = None
    ours: Callable[[Launch], Entry] = lambda launch: {"command": launch.command, "args": list(launch.args)}
    #: Defaults of a new entry; values that the user changed stay.
    first: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: Values that `--approve` adds, so that the model may call agent_start unasked. None if the file has no approvals.
    approval: Mapping[str, Any] | None = None
    #: Optional steps for the user, printed after an installation.
    advice: tuple[str, ...] = ()
    env: str = "env"
    #: True if the servers are a list of entries with names; other hosts map names to entries.
    is_listed: bool = False
    #: True if the host itself asks for the key and keeps it.
    asks: bool = False
    #: The key of `first` that hands the key over, for hosts that forward variables by a list of names; empty otherwise.
    forwards: str = ""
    #: True if the host reads only standard JSON: one comment hides all its servers.
    strict: bool = False
    #: True if the user's file also has entries for single folders.
    has_local_scope: bool = False
    #: True if the host is started from a desktop, so that it does not see programs and variables of a shell.
    desktop: bool = True
    #: Seconds after which the host gives up a tool call; infinite if no limit is known.
    call_limit_s: float = 60.0
    #: Seconds that the host waits for the tools of a server that it started; None if it is not known.
    start_wait_s: float | None = None
    #: The key of an entry that sets another limit, and the seconds in one of its units; empty if there is none.
    call_limit_key: tuple[str, float] = ("", 1.0)

    @property
    def path(self) -> tuple[str, ...]:
        """Return the keys that lead to our entry."""
        return (*self.keys, SERVER)

    def entry(
        self,
        launch: Launch,
        environment: Mapping[str, str],
        existing: Entry | None = None,
        *,
        approve: bool = False,
        has_stored_key: bool = False,
    ) -> Entry:
        """Return our entry: our command, the user's additions and changes, and the variables that were passed now.

        Args:
            launch: The command that starts the server.
            environment: Variables that were passed for this entry.
            existing: The entry that is in the file.
            approve: Allow the model to call agent_start unasked.
            has_stored_key: The server finds a stored key, so the entry needs no reference to one.
        """
        entry = {**(existing or {}), **self.ours(launch)}
        variables = dict(entry.get(self.env, {}))
        if has_stored_key or _has_key(environment):
            self._drop_references(entry, variables)
        variables |= environment
        has_key = has_stored_key or _has_key(variables)
        self._add_defaults(entry, has_key=has_key)
        if approve and self.approval:
            entry = _merge_deeply(entry, self.approval)
        if not has_key:
            variables |= self._refer_to_key()
        self._set_variables(entry, variables)
        return entry

    def read_command(self, entry: Entry) -> Launch:
        """Return the command that an entry of this host starts."""
        words: list[Any] = []
        for part in (entry.get("command", ""), entry.get("args", [])):  # some hosts have both in one list
            if isinstance(part, list):
                words += cast("list[Any]", part)
            else:
                words.append(part)
        command, *args = map(str, words or [""])
        return Launch(command, tuple(args))

    def is_reference(self, value: str) -> bool:
        """Return True if the host fills in this value, instead of handing it on unchanged."""
        return self.fills_references and value.startswith(("$", "{env:"))

    @property
    def fills_references(self) -> bool:
        """Return True if the host fills in variables that its file refers to; the others hand on `$NAME` unchanged."""
        return self.secret is not None

    @property
    def hands_key_over(self) -> bool:
        """Return True if the host has a way of its own for the key, so that no file needs to hold it."""
        return self.secret is not None or self.forwards != ""

    def _set_variables(self, entry: Entry, variables: Entry) -> None:
        if variables:
            entry[self.env] = variables
        elif entry.get(self.env):
            del entry[self.env]

    def _drop_references(self, entry: Entry, variables: Entry) -> None:
        """Drop references to the key, because the host gets the key in another way from now on."""
        for name, reference in ((KEY, self.secret), (KEY_FILE, KEY_PATH)):
            if variables.get(name, "") == reference:
                del variables[name]
        if self.forwards and entry.get(self.forwards) == self.first[self.forwards]:
            del entry[self.forwards]

    def _add_defaults(self, entry: Entry, *, has_key: bool) -> None:
        for name, value in self.first.items():
            if has_key and name == self.forwards:
                continue
            entry.setdefault(name, deepcopy(value))

    def _refer_to_key(self) -> dict[str, str]:
        """Return the variables by which the host hands the key over, if it has a way of its own."""
        if self.forwards or not self.secret:
            return {}
        return {KEY: self.secret}


def _has_key(variables: Mapping[str, Any]) -> bool:
    return KEY in variables or KEY_FILE in variables


def _merge_deeply(entry: Entry, additions: Mapping[str, Any]) -> Entry:
    """Return an entry with the additions in it, level by level."""
    merged = dict(entry)
    for name, value in additions.items():
        old = merged.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[name] = _merge_deeply(cast("Entry", old), cast("Entry", value))
            continue
        merged[name] = deepcopy(cast("Any", value))
    return merged


def find_disabling_values(entry: Entry | None) -> dict[str, bool]:
    """Return the values of an entry that keep a host from starting its server."""
    values = entry or {}
    return {name: value for name, value in _DISABLING.items() if values.get(name) is value}


def find_input(entry: Entry | None) -> Entry | None:
    """Return the question that VS Code asks for the key, if the entry refers to it."""
    variables: Mapping[str, Any] = (entry or {}).get("env", {})
    if variables.get(KEY) != f"${{input:{INPUT}}}":
        return None
    return {"id": INPUT, "type": "promptString", "description": "OpenAI API key", "password": True}


def _find_claude_desktop_files(machine: Machine) -> tuple[HostFile, ...]:
    file = "Claude/claude_desktop_config.json"
    classic = HostFile(machine.config / file)
    if machine.platform != "win32":
        return (classic,)
    # The official installer installs an MSIX package, which reads a folder of its own and never the classic one.
    roaming = (
        machine.find_folder("LOCALAPPDATA", machine.home / "AppData/Local") / "Packages/Claude_*/LocalCache/Roaming"
    )
    return (HostFile(roaming / file, only_if=roaming), classic)


def _find_claude_code_files(machine: Machine) -> tuple[HostFile, ...]:
    return (HostFile(machine.find_folder("CLAUDE_CONFIG_DIR", machine.home) / ".claude.json"),)


def _find_codex_files(machine: Machine) -> tuple[HostFile, ...]:
    return (HostFile(machine.find_folder("CODEX_HOME", machine.home / ".codex") / "config.toml"),)


def _stdio_entry(launch: Launch) -> Entry:
    return {"type": "stdio", "command": launch.command, "args": list(launch.args)}


def _goose_entry(launch: Launch) -> Entry:
    return {"name": SERVER, "type": "stdio", "enabled": True, "cmd": launch.command, "args": list(launch.args)}


def _one_list_entry(launch: Launch) -> Entry:
    return {"type": "local", "command": [launch.command, *launch.args], "enabled": True}


def _copilot_entry(launch: Launch) -> Entry:
    return {"type": "local", "command": launch.command, "args": list(launch.args)}


def _first_existing(folder: Path, *names: str) -> tuple[HostFile, ...]:
    """Return the files of several names that a host reads: the first that exists counts, else the last."""
    paths = [folder / name for name in names]
    return (*(HostFile(path, only_if=path) for path in paths[:-1]), HostFile(paths[-1]))


def _xdg_config(machine: Machine) -> Path:
    """Return the folder in which programs of the terminal keep their settings, on each system."""
    return machine.find_folder("XDG_CONFIG_HOME", machine.home / ".config")


_ALL = (
    Host(
        name="claude-desktop",
        title="Claude Desktop",
        where="Settings > Developer > Edit Config",
        after="Quit Claude Desktop (not only its window) and start it again.",
        user=_find_claude_desktop_files,
        strict=True,
    ),
    Host(
        name="claude-code",
        title="Claude Code",
        where="~/.claude.json, or .mcp.json in a project",
        after="Start a new session of Claude Code; /mcp shows the server.",
        start_wait_s=3.0,
        user=_find_claude_code_files,
        project=".mcp.json",
        strict=True,
        has_local_scope=True,
        desktop=False,
        call_limit_s=inf,  # it gives up after 28 hours
        call_limit_key=("timeout", 0.001),
        secret="${OPENAI_API_KEY:-}",  # without the default Claude Code refuses the whole file when it is not set
        ours=_stdio_entry,
        first={"alwaysLoad": True},  # without it the tools are found by a search, a turn later
    ),
    Host(
        name="cursor",
        title="Cursor",
        where="~/.cursor/mcp.json, or .cursor/mcp.json in a project",
        after="Start Cursor again, then open Settings > MCP.",
        user=lambda machine: (HostFile(machine.home / ".cursor/mcp.json"),),
        project=".cursor/mcp.json",
        secret="${env:OPENAI_API_KEY}",
    ),
    Host(
        name="vscode",
        title="VS Code",
        where="MCP: Open User Configuration, or .vscode/mcp.json in a project",
        after="Run MCP: List Servers in VS Code and start it; VS Code asks for the key once and keeps it.",
        keys=("servers",),
        user=lambda machine: (HostFile(machine.config / "Code/User/mcp.json"),),
        project=".vscode/mcp.json",
        call_limit_s=inf,
        secret=f"${{input:{INPUT}}}",
        asks=True,
        ours=_stdio_entry,
    ),
    Host(
        name="codex",
        title="Codex",
        where="~/.codex/config.toml, or .codex/config.toml in a trusted project",
        after="Start Codex again; /mcp shows the server.",
        start_wait_s=1.0,
        format="toml",
        keys=("mcp_servers",),
        user=_find_codex_files,
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
        user=lambda machine: _first_existing(_xdg_config(machine) / "opencode", "opencode.jsonc", "opencode.json"),
        project="opencode.json",
        secret="{env:OPENAI_API_KEY}",
        ours=_one_list_entry,
        env="environment",
        desktop=False,
        call_limit_s=inf,  # progress keeps a call alive
        start_wait_s=5.0,
    ),
    Host(
        name="kilo",
        title="Kilo",
        where="~/.config/kilo/kilo.jsonc, or .kilo/kilo.jsonc in a project",
        after="Start Kilo again; kilo mcp list shows the server.",
        keys=("mcp",),
        user=lambda machine: _first_existing(_xdg_config(machine) / "kilo", "kilo.json", "kilo.jsonc"),
        project=".kilo/kilo.jsonc",
        secret="{env:OPENAI_API_KEY}",
        ours=_one_list_entry,
        env="environment",
        desktop=False,
        call_limit_s=inf,
        start_wait_s=5.0,
    ),
    Host(
        name="qwen",
        title="Qwen Code",
        where="~/.qwen/settings.json, or .qwen/settings.json in a project",
        after="Start Qwen Code again; /mcp shows the server.",
        user=lambda machine: (HostFile(machine.home / ".qwen/settings.json"),),
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
        user=lambda machine: (
            HostFile(machine.find_folder("COPILOT_HOME", machine.home / ".copilot") / "mcp-config.json"),
        ),
        ours=_copilot_entry,
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
        after="Zed starts the server by itself; the agent panel's settings show it.",
        keys=("context_servers",),
    ),
    Host(
        name="goose",
        title="Goose",
        where="~/.config/goose/config.yaml (Windows: %APPDATA%\\Block\\goose\\config\\config.yaml)",
        after="Start a new session of Goose; it keeps the key in its keyring.",
        format="yaml",
        keys=("extensions",),
        ours=_goose_entry,
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
