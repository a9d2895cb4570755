"""What the hosts' own files say of this server, and what of that is wrong."""

import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from agent_jobs import __version__
from agent_jobs.cli.config import masked
from agent_jobs.cli.finding import Finding, State
from agent_jobs.errors import ConfigError
from agent_jobs.install.command import desktop_path
from agent_jobs.install.config_file import FileSnapshot, Scope, locate, read
from agent_jobs.install.entry import entry_in, refuse_comments
from agent_jobs.install.hosts import HOSTS, KEY, KEY_FILE, SERVER, Entry, Host, Machine, find_disabling_values
from agent_jobs.install.local_scope import LocalScope, local_scope
from agent_jobs.mcp_server.pacing import wait_cap_s
from agent_jobs.settings import Settings

WHAT = "host"
#: The bits of a mode that let the file's group or others in.
OTHERS = 0o077
REMOVE_LOCAL = f"claude mcp remove {SERVER} --scope local"
#: A version in the arguments of uvx, pipx or pip.
PIN = re.compile(rf"{SERVER}(?:@|==)(\d[\w.]*)")
#: How hosts refer to a variable in an entry: `$NAME`, `${NAME}`, `${NAME:-otherwise}`, `${env:NAME}`, `{env:NAME}`.
REFERENCE = re.compile(r"\$(?:\{(?:env:)?(\w+)(?::-([^}]*))?\}|(\w+))|\{env:(\w+)\}")
ASKED = re.compile(r"\$\{input:[^}]*\}")


def key_file_findings(machine: Machine, ours: Iterable[Path]) -> Iterator[Finding]:
    """Return a warning for each file with a key in it that others can read: ours, and those that hosts name."""
    if sys.platform == "win32":
        return
    for path in dict.fromkeys([*ours, *_key_files_of_hosts(machine)]):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        if mode & OTHERS:
            text = f"others can read the key in {path} (mode {mode:o})"
            yield Finding("key", "warning", text, f"chmod 600 {shlex.quote(str(path))}")


def _key_files_of_hosts(machine: Machine) -> Iterator[Path]:
    for host in HOSTS.values():
        for scope in scopes_of(host, machine):
            with suppress(ConfigError):  # host_findings reports it
                entry = entry_in(host, read(locate(host, machine, scope)).text)
                path = settings_of(host, entry, machine.environ)[0].api_key_file if entry is not None else None
                if path is not None:
                    yield path


def host_findings(machine: Machine, ours: Settings) -> Iterator[Finding]:
    """What the files of the hosts say of us, for this person and in this folder; hosts that do not are passed over.

    Args:
        machine: Whose files are looked at, with the environment in which this command runs.
        ours: What is in force here.
    """
    found = [
        finding
        for host in HOSTS.values()
        for scope in scopes_of(host, machine)
        for finding in _looked_at(host, machine, scope, ours)
    ]
    if not found:
        yield Finding(WHAT, "ok", "no host's file names agent-jobs: agent-jobs install HOST puts it there")
    yield from found


def scopes_of(host: Host, machine: Machine) -> Iterator[Scope]:
    """Return the scopes in which files of the host are looked for."""
    if host.user is not None:
        yield "user"
    # In the home folder it would be the file of the user again.
    if host.project is not None and os.path.realpath(machine.folder) != os.path.realpath(machine.home):
        yield "project"


def _looked_at(host: Host, machine: Machine, scope: Scope, ours: Settings) -> Iterator[Finding]:
    where, text = host.title, ""
    try:
        path = locate(host, machine, scope)
        where = f"{host.title} ({path})"
        file = read(path)
        text = file.text
        entry = entry_in(host, text)
        local = local_scope(host, text, machine) if scope == "user" else LocalScope()
    except ConfigError as error:
        fix = f"correct it, or move it away and run agent-jobs install {host.name}"
        yield Finding(WHAT, "problem" if SERVER in text else "warning", f"{where}: {error}", fix)
        return
    command = f"agent-jobs install {host.name}{' --scope project' if scope == 'project' else ''}"
    if entry is not None or local.entry is not None:
        yield from _of_the_file(host, file, where, command)
    if entry is not None:
        yield from _of_the_entry(_Found.of(host, entry, where, command, machine), ours)
    if local.entry is not None:
        place, anew = f"{where}, local scope of {local.project}", f"{REMOVE_LOCAL} && {command}"
        yield from _of_the_entry(_Found.of(host, local.entry, place, anew, machine), ours)
    if local.is_switched_off:
        text = f"{where} has {SERVER} switched off in this folder"
        yield Finding(WHAT, "warning", text, f"switch it on in {host.title} with /mcp")


def _of_the_entry(found: "_Found", ours: Settings) -> list[Finding]:
    pin = f" {found.pin}" if found.pin else ""
    fine = found.finding("ok", f"starts agent-jobs{pin}; a poll waits up to {found.cap_s:g} s")
    return list(found.wrong(ours)) or [fine]


def _of_the_file(host: Host, file: FileSnapshot, where: str, command: str) -> Iterator[Finding]:
    """What keeps a host from reading a file that names us, though we can read it."""
    try:
        refuse_comments(host, file.text)
    except ConfigError as error:
        yield Finding(WHAT, "problem", f"{where}: {error}", "take them out; what this program writes has none")
    if file.bom and host.format == "json":
        yield Finding(
            WHAT, "warning", f"{where} begins with a byte order mark, with which many hosts read none", command
        )


def settings_of(host: Host, entry: Entry, around: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """What the server has in force there, and what cannot be used, as far as can be known from here."""
    return Settings.forgiving(environment_of(host, entry, around))


def environment_of(host: Host, entry: Entry, around: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the entry gives the server, its references filled in from those around the host."""
    env = {name: around[name] for name in ("PATH", *_forwarded(host, entry)) if name in around}
    for name, value in entry.get(host.env, {}).items():
        if not host.fills_references:
            env[name] = str(value)
        elif not ASKED.search(str(value)):
            env[name] = REFERENCE.sub(lambda m: around.get(m[1] or m[3] or m[4]) or m[2] or "", str(value))
    return env


@dataclass(frozen=True)
class _Found:
    """Our entry in a host's file."""

    host: Host
    entry: Entry
    where: str
    install: str  #: the command that writes it anew; variables may follow
    machine: Machine
    settings: Settings  #: in force there
    refused: list[str]

    @classmethod
    def of(cls, host: Host, entry: Entry, where: str, install: str, machine: Machine) -> Self:
        """An entry with the settings that are in force there."""
        return cls(host, entry, where, install, machine, *settings_of(host, entry, machine.environ))

    def finding(self, state: State, text: str, fix: str = "") -> Finding:
        return Finding(WHAT, state, f"{self.where} {text}", fix)

    @property
    def pin(self) -> str | None:
        """The version that the entry asks for."""
        words = self.host.command_of(self.entry).args
        return next((pin[1] for word in words if (pin := PIN.fullmatch(word))), None)

    @property
    def cap_s(self) -> float:
        """How long a poll by this host waits at most."""
        return self.settings.max_wait_s or wait_cap_s(self.host.name)

    def wrong(self, ours: Settings) -> Iterator[Finding]:
        """All that is wrong with the entry."""
        if off := written(find_disabling_values(self.entry)):
            yield self.finding("warning", f"is switched off ({off}), so the host does not start it", self.install)
        yield from self._command()
        if self.pin is not None and _ordered(self.pin) < _ordered(__version__):
            yield self.finding("warning", f"starts agent-jobs {self.pin}, and this is {__version__}", self.install)
        mend = f"correct that, or give it another value: {self.install} --env NAME=VALUE"
        for sentence in self.refused:
            yield self.finding("problem", f"sets what cannot be used: {sentence}", mend)
        for sentence in self.settings.warnings:
            yield self.finding("warning", f"sets what does nothing: {sentence}", "correct that in the file")
        if not any(name in sentence for name in (KEY, KEY_FILE) for sentence in self.refused):
            yield from self._key(ours)
        yield from self._places(ours)
        yield from self._limit()

    def _command(self) -> Iterator[Finding]:
        start = self.host.command_of(self.entry)
        command, args = start.command, list(start.args)
        if not isinstance(self.entry.get("command"), str | list) or not command:
            yield self.finding("problem", "names no command", self.install)
        elif shutil.which(command, path=self.machine.environ.get("PATH", "")) is None:
            yield self.finding("problem", f"starts {command}, which is no program that is here", self.install)
        elif self.host.desktop and shutil.which(command, path=desktop_path(self.machine)) is None:
            text = f"starts {command}, which an app that was started from a desktop does not find"
            yield self.finding("warning", text, self.install)
        source = args[args.index("--from") + 1 :][:1] if "--from" in args else []
        if source and os.path.isabs(source[0]) and not os.path.exists(source[0]):
            yield self.finding("problem", f"takes agent-jobs from {source[0]}, which is not there", self.install)

    def _key(self, ours: Settings) -> Iterator[Finding]:
        written = str(self.entry.get(self.host.env, {}).get(KEY, ""))
        theirs = self.settings.api_key
        if ASKED.search(written):
            return  # then only the host knows it
        if theirs is None:
            refers = self.host.fills_references and REFERENCE.search(written)
            taken = refers or KEY in _forwarded(self.host, self.entry)
            here = f"takes {KEY} from the environment it is started in, and here it is not set"
            fix = f"{self.install} --env {KEY_FILE}=PATH"
            yield self.finding("warning", here if taken else f"gives the server no {KEY}", fix)
        elif ours.api_key not in (None, theirs):
            keys = f"{masked(theirs)} there, {masked(ours.api_key)} here"
            text = f"uses another key than this terminal ({keys}): one may not be able to read the other's jobs"
            yield self.finding("warning", text, f"set the same {KEY} in both")

    def _places(self, ours: Settings) -> Iterator[Finding]:
        """Where the host's jobs are not those that this terminal sees."""
        there, here = self.settings.data_path(), ours.data_path()
        if there != here:
            fix = f"{self.install} --env AGENT_JOBS_DATA_DIR={here}, or set that here"
            yield self.finding("warning", f"keeps its jobs in {there}, this terminal in {here}", fix)
        if self.settings.base_url.rstrip("/") != ours.base_url.rstrip("/"):
            theirs, mine = (each.partition("?")[0] for each in (self.settings.base_url, ours.base_url))
            fix = f"{self.install} --env OPENAI_BASE_URL={mine}, or set that here"
            yield self.finding("warning", f"sends its jobs to {theirs}, this terminal to {mine}", fix)

    def _limit(self) -> Iterator[Finding]:
        """Where the host gives a poll up that the server still waits with."""
        limit_s, key = self.host.call_limit_s, self.host.call_limit_key
        set_to = self.entry.get(key[0]) if key else None
        # Less than a second is ignored by the host that counts in milliseconds.
        if key and isinstance(set_to, int | float) and set_to * key[1] >= 1:
            limit_s = set_to * key[1]
        if limit_s is None or self.cap_s < limit_s:
            return
        lower = f"{self.install} --env AGENT_JOBS_MAX_WAIT_S={max(1.0, limit_s - 10):g}"
        text = f"gives a tool call up after {limit_s:g} s, and a poll waits up to {self.cap_s:g} s"
        yield self.finding("warning", text, f"{lower}, or raise {key[0]} in the file" if key else lower)


def written(off: Mapping[str, bool]) -> str:
    """Return what switches an entry off as a file says it."""
    return ", ".join(f"{name}: {str(value).lower()}" for name, value in off.items())


def _forwarded(host: Host, entry: Entry) -> list[str]:
    """The variables that the host hands on by their names."""
    return _words(entry, host.forwards or "")


def _words(entry: Entry, key: str) -> list[str]:
    found: Any = entry.get(key, [])
    return list(map(str, found)) if isinstance(found, list) else []  # pyright: ignore[reportUnknownArgumentType]


def _ordered(version: str) -> list[tuple[int, int, str]]:
    """A version as something that can be compared: numbers as numbers, a word such as rc before none."""
    parts = re.findall(r"\d+|[a-z]+", version)
    return [(1, int(part), "") if part.isdigit() else (-1, 0, part) for part in parts] + [(0, 0, "")]
