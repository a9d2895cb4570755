"""Check the entries of this server in the hosts' configuration files."""

import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from agent_jobs import __version__
from agent_jobs.cli.checks.finding import Finding, State
from agent_jobs.cli.checks.remote_checks import RemoteEntry
from agent_jobs.cli.checks.variable_references import REFERENCE, resolve_references
from agent_jobs.cli.key_origin import mask_secret
from agent_jobs.cli.wording import describe_problem
from agent_jobs.errors import ConfigError
from agent_jobs.install.command import build_desktop_path
from agent_jobs.install.config_file import FileSnapshot, Scope, locate_file, read_snapshot
from agent_jobs.install.entry import read_entry, refuse_comments
from agent_jobs.install.hosts import HOSTS, KEY, KEY_FILE, SERVER, Entry, Host, find_disabling_values
from agent_jobs.install.local_scope import LocalScope, find_local_scope, list_or_empty
from agent_jobs.install.machine import Machine
from agent_jobs.mcp_server.wait_limits import find_wait_cap_s
from agent_jobs.settings.configuration import load_usable_settings
from agent_jobs.settings.settings import DEFAULT_BASE_URL, Settings
from agent_jobs.settings.stored_keys import format_set_command

WHAT = "host"
NOT_INSTALLED = "no host has agent-jobs yet; agent-jobs install HOST adds it"
#: The bits of a mode that let the file's group or other users read it.
OTHERS_BITS = 0o077
#: The bits of a mode that let the file's group or other users write it.
WRITABLE_BITS = 0o022
#: The option of `install` for each scope.
_SCOPE_OPTIONS: Mapping[Scope, str] = {"user": "", "project": " --scope project"}
#: Seconds by which a poll must end before its host gives up.
LIMIT_MARGIN_S = 10
REMOVE_LOCAL = f"claude mcp remove {SERVER} --scope local"
#: A version in the arguments of uvx, pipx or pip.
PIN = re.compile(rf"{SERVER}(?:@|==)(\d[\w.]*)")
#: Variables that hosts pass on and that lead the server to the user's settings file.
HOME_NAMES = ("USERPROFILE", "LOCALAPPDATA")
#: Finds a variable of the key in a sentence.
NAMES_KEY = re.compile(f"{KEY}|{KEY_FILE}")
#: A value for which the host asks the user.
ASKED = re.compile(r"\$\{input:[^}]*\}")


def check_settings_file(path: str) -> Iterator[Finding]:
    """Yield a problem if other users can write the settings file: it names commands that this program runs."""
    for each in (path, os.path.dirname(path)):
        mode = _read_mode(each)
        if mode & WRITABLE_BITS and not mode & stat.S_ISVTX:
            text = f"other users can change your settings: {each} has mode {mode:o}"
            yield Finding("settings", "problem", text, f"chmod go-w {shlex.quote(each)}")


def check_key_files(machine: Machine, own_files: Iterable[Path]) -> Iterator[Finding]:
    """Yield a warning for each file with a key that other users can read: our own files, and those that hosts name."""
    for path in dict.fromkeys([*own_files, *_find_key_files(machine)]):
        mode = _read_mode(path)
        if mode & OTHERS_BITS:
            text = f"other users can read the key in {path} (mode {mode:o})"
            yield Finding("key", "warning", text, f"chmod 600 {shlex.quote(str(path))}")


def _read_mode(path: str | Path) -> int:
    """Return the permissions of a file; none of a missing one, and none on Windows, where they mean nothing."""
    if sys.platform == "win32":
        return 0
    with suppress(OSError):
        return stat.S_IMODE(os.stat(path).st_mode)
    return 0


def _find_key_files(machine: Machine) -> Iterator[Path]:
    """Yield the key files that entries in hosts' files name."""
    for host in HOSTS.values():
        for scope in find_scopes(host, machine):
            with suppress(ConfigError):  # check_hosts reports it
                entry = read_entry(host, read_snapshot(locate_file(host, machine, scope)).text)
                if entry is None:
                    continue
                settings, _ = read_entry_settings(host, entry, machine)
                if settings.api_key_file is not None:
                    yield settings.api_key_file


def check_hosts(machine: Machine, ours: Settings) -> Iterator[Finding]:
    """Yield the findings of the hosts whose files name this server, for this user and in this folder.

    Args:
        machine: Where the files are, with the environment in which this command runs.
        ours: The settings of this terminal.
    """
    findings = [
        finding
        for host in HOSTS.values()
        for scope in find_scopes(host, machine)
        for finding in _check_file(host, machine, scope, ours)
    ]
    if not findings:
        yield Finding(
            WHAT,
            "ok",
            "no host has agent-jobs in its configuration; agent-jobs install HOST adds it",
            shown=NOT_INSTALLED,
        )
    yield from findings


def find_scopes(host: Host, machine: Machine) -> list[Scope]:
    """Return the scopes in which the host has files here."""
    files: dict[Scope, object] = {"user": host.user, "project": host.project}
    if os.path.realpath(machine.folder) == os.path.realpath(machine.home):
        del files["project"]  # in the home folder it is the user's
    return [scope for scope, file in files.items() if file is not None]


def _check_file(host: Host, machine: Machine, scope: Scope, ours: Settings) -> Iterator[Finding]:
    """Yield the findings of one file of a host."""
    where, text = host.title, ""
    try:
        path = locate_file(host, machine, scope)
        where = f"{host.title} ({path})"
        file = read_snapshot(path)
        text = file.text
        entry = read_entry(host, text)
        local = find_local_scope(host, text, machine) if scope == "user" else LocalScope()
    except ConfigError as error:
        fix = f"correct it, or move it away and run agent-jobs install {host.name}"
        yield Finding(WHAT, "problem" if SERVER in text else "warning", f"{where}: {error}", fix)
        return
    install = format_install_command(host, scope)
    places = (
        (entry, where, install),
        (local.entry, f"{where}, local scope of {local.project}", f"{REMOVE_LOCAL} && {install}"),
    )
    found = [_HostEntry.of(host, each, place, again, machine) for each, place, again in places if each is not None]
    if found:
        yield from _check_encoding(host, file, where, install)
    for each in found:
        yield from _check_entry(each, ours)
    if local.is_switched_off:
        text = f"{where} has {SERVER} switched off in this folder"
        yield Finding(WHAT, "warning", text, f"switch it on in {host.title} with /mcp")


def format_install_command(host: Host, scope: Scope) -> str:
    """Return the command that writes the host's entry again."""
    return f"{SERVER} install {host.name}{_SCOPE_OPTIONS[scope]}"


def _check_entry(found: "_HostEntry", ours: Settings) -> list[Finding]:
    """Return the finding of an entry: its fault, or that it is fine."""
    if found.is_remote:
        return list(found.check_remote())
    findings = list(found.find_mistakes(ours))
    if findings:
        return findings
    program = f"{SERVER} {found.pin}".rstrip()
    text = f"starts {program}; a poll waits up to {found.cap_s:g} s"
    shown = f"{found.host.title} starts {program}, and a poll waits up to {found.cap_s:g} s"
    return [replace(found.report("ok", text), shown=shown)]


def _check_encoding(host: Host, file: FileSnapshot, where: str, install: str) -> Iterator[Finding]:
    """Yield reasons why a host cannot read a file with this server's entry, although this program can."""
    try:
        refuse_comments(host, file.text)
    except ConfigError as error:
        yield Finding(WHAT, "problem", f"{where}: {error}", "remove them; a file that agent-jobs writes has none")
    if file.bom and host.format == "json":
        text = f"{where} begins with a byte order mark; many hosts cannot read such a file"
        yield Finding(WHAT, "warning", text, install)


def read_entry_settings(host: Host, entry: Entry, machine: Machine) -> tuple[Settings, list[str]]:
    """Return the settings of a server that the host starts, as far as they are known here, and what is wrong."""
    home = pick_variables(machine.environ, HOME_NAMES) | {"HOME": str(machine.home)}
    return load_usable_settings(home | build_environment(host, entry, machine.environ))


def build_environment(host: Host, entry: Entry, around: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the entry gives the server, with references resolved in the host's environment."""
    environment = pick_variables(around, ("PATH", *_list_forwarded(host, entry)))
    for name, value in entry.get(host.env, {}).items():
        if not host.fills_references:
            environment[name] = str(value)
        elif not ASKED.search(str(value)):
            environment[name] = resolve_references(str(value), around)
    return environment


def pick_variables(environ: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the variables with these names that are set."""
    return {name: environ[name] for name in names if name in environ}


@dataclass(frozen=True)
class _HostEntry:
    """An entry of this server in a host's file."""

    host: Host
    entry: Entry
    where: str
    install: str  #: the command that writes it again; variables may follow
    machine: Machine
    settings: Settings  #: of the server that the host starts
    refused: list[str]

    @classmethod
    def of(cls, host: Host, entry: Entry, where: str, install: str, machine: Machine) -> Self:
        """Return the entry with its settings."""
        return cls(host, entry, where, install, machine, *read_entry_settings(host, entry, machine))

    def report(self, state: State, text: str, fix: str = "") -> Finding:
        """Return a finding whose sentence begins with the host and its file."""
        return Finding(WHAT, state, f"{self.where} {text}", fix)

    @property
    def pin(self) -> str:
        """Return the version that the entry asks for; empty if it asks for none."""
        words = self.host.read_command(self.entry).args
        return next((pin[1] for word in words if (pin := PIN.fullmatch(word))), "")

    @property
    def cap_s(self) -> float:
        """Return the seconds that a poll of this host waits at most."""
        return self.settings.max_wait_s or find_wait_cap_s(self.host.name)

    @property
    def is_remote(self) -> bool:
        """Return True if the host connects to an address and starts no program of this machine."""
        return "url" in self.entry

    def check_remote(self) -> Iterator[Finding]:
        """Yield the findings of an entry with an address."""
        yield from self._check_switches("connect to it", f"switch it on in {self.host.title}, or remove that value")
        yield from RemoteEntry(self.host, self.entry, self.where, self.install, self.machine).check()

    def find_mistakes(self, ours: Settings) -> Iterator[Finding]:
        """Yield all that is wrong with an entry that starts a program."""
        yield from self._check_switches("start it", self.install)
        yield from self._check_command()
        yield from self._check_source()
        if self.pin and _sort_key(self.pin) < _sort_key(__version__):
            yield self.report("warning", f"starts agent-jobs {self.pin}, and this is {__version__}", self.install)
        yield from self._check_variables()
        if not any(map(NAMES_KEY.search, self.refused)):
            yield from self._check_key_value(ours)
        yield from self._compare_places(ours)
        yield from self._check_limit()

    def _check_switches(self, effect: str, fix: str) -> Iterator[Finding]:
        """Yield a finding if the entry is switched off, with what the host does not do then."""
        if off := format_switches(find_disabling_values(self.entry)):
            yield self.report("warning", f"is switched off ({off}), so the host does not {effect}", fix)

    def _check_variables(self) -> Iterator[Finding]:
        fix = f"correct it, or set another value: {self.install} --env NAME=VALUE"
        for sentence in self.refused:
            yield self.report("problem", f"has an invalid setting: {sentence}", fix)
        for warning in self.settings.warnings:
            text = f"has a setting without effect: {describe_problem(warning)}"
            yield self.report("warning", text, "correct it in the file")

    def _check_command(self) -> Iterator[Finding]:
        """Yield a finding if the host cannot start the command."""
        command = self.host.read_command(self.entry).command
        if not isinstance(self.entry.get("command"), str | list) or not command:
            yield self.report("problem", "names no command", self.install)
        elif shutil.which(command, path=self.machine.environ.get("PATH", "")) is None:
            yield self.report("problem", f"starts {command}, which does not exist here", self.install)
        elif self.host.desktop and shutil.which(command, path=build_desktop_path(self.machine)) is None:
            text = f"starts {command}, which an app started from a desktop does not find"
            yield self.report("warning", text, self.install)

    def _check_source(self) -> Iterator[Finding]:
        """Yield a finding if the command starts this program from a missing folder."""
        args = list(self.host.read_command(self.entry).args)
        if "--from" not in args[:-1]:
            return
        source = args[args.index("--from") + 1]
        if os.path.isabs(source) and not os.path.exists(source):
            yield self.report("problem", f"starts agent-jobs from {source}, which does not exist", self.install)

    def _check_key_value(self, ours: Settings) -> Iterator[Finding]:
        """Yield a finding if the server gets no key, or another one than this terminal."""
        value = str(self.entry.get(self.host.env, {}).get(KEY, ""))
        if ASKED.search(value):
            return  # only the host knows the key
        theirs = self.settings.api_key
        if not self.settings.has_key:
            fix = format_set_command(self.settings.base_url, DEFAULT_BASE_URL)
            yield self.report("warning", self._describe_missing_key(value), fix)
        elif theirs is not None and ours.api_key not in (None, theirs):
            keys = f"{mask_secret(theirs)} there, {mask_secret(ours.api_key)} here"
            text = f"uses another key than this terminal ({keys}); one may not be able to read the jobs of the other"
            fix = f"set the same {KEY} in both, or in neither and run agent-jobs key set"
            yield self.report("warning", text, fix)

    def _describe_missing_key(self, value: str) -> str:
        """Return why the server gets no key."""
        has_reference = self.host.fills_references and REFERENCE.search(value)
        if has_reference or KEY in _list_forwarded(self.host, self.entry):
            return f"takes {KEY} from the environment in which it is started; it is not set here, and none is stored"
        return f"gives the server no {KEY}, and none is stored"

    def _compare_places(self, ours: Settings) -> Iterator[Finding]:
        """Yield a finding if the host's jobs are not those that this terminal sees."""
        there, here = self.settings.data_path(), ours.data_path()
        if there != here:
            fix = f"{self.install} --env AGENT_JOBS_DATA_DIR={here}, or set that here"
            yield self.report("warning", f"keeps its jobs in {there}, this terminal in {here}", fix)
        if self.settings.base_url.rstrip("/") != ours.base_url.rstrip("/"):
            theirs, _, _ = self.settings.base_url.partition("?")
            mine, _, _ = ours.base_url.partition("?")
            fix = f"{self.install} --env OPENAI_BASE_URL={mine}, or set that here"
            yield self.report("warning", f"sends its jobs to {theirs}, this terminal to {mine}", fix)

    def _check_limit(self) -> Iterator[Finding]:
        """Yield a finding if the host gives up on a poll before the server answers it."""
        limit_s = self._find_call_limit()
        if self.cap_s < limit_s:
            return
        fix = f"{self.install} --env AGENT_JOBS_MAX_WAIT_S={max(1.0, limit_s - LIMIT_MARGIN_S):g}"
        if name := self.host.call_limit_key[0]:
            fix += f", or raise {name} in the file"
        text = f"gives up on a tool call after {limit_s:g} s, and a poll waits up to {self.cap_s:g} s"
        yield self.report("warning", text, fix)

    def _find_call_limit(self) -> float:
        """Return the seconds after which the host gives up on a tool call, infinite if unknown."""
        name, unit_s = self.host.call_limit_key
        value = self.entry.get(name)
        # Hosts that count in milliseconds ignore less than a second.
        if isinstance(value, int | float) and value * unit_s >= 1:
            return value * unit_s
        return self.host.call_limit_s


def format_switches(switches: Mapping[str, bool]) -> str:
    """Return what switches an entry off, as a file says it."""
    return ", ".join(f"{name}: {str(value).lower()}" for name, value in switches.items())


def _list_forwarded(host: Host, entry: Entry) -> list[str]:
    """Return the variables that the host forwards by their names."""
    return list(map(str, list_or_empty(entry.get(host.forwards))))


def _sort_key(version: str) -> list[tuple[int, int, str]]:
    """Return a version in a form that can be compared: numbers as numbers, a word such as rc before the end."""
    return [*map(_sort_key_of_part, re.findall(r"\d+|[a-z]+", version)), (0, 0, "")]


def _sort_key_of_part(part: str) -> tuple[int, int, str]:
    if part.isdigit():
        return (1, int(part), "")
    return (-1, 0, part)
