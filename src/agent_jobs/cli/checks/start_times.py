"""Measure how long the servers in the hosts' files take to list their tools."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath

from agent_jobs import __version__
from agent_jobs.cli.checks.entry_trial import build_host_environment
from agent_jobs.cli.checks.finding import Finding
from agent_jobs.cli.checks.host_checks import find_scopes, format_install_command
from agent_jobs.cli.checks.selftest import MODERN, SelfTestError, StartedServer, start_server, start_this_installation
from agent_jobs.cli.program import read_version
from agent_jobs.errors import ConfigError
from agent_jobs.install.config_file import locate_file, read_snapshot
from agent_jobs.install.entry import read_entry
from agent_jobs.install.hosts import SERVER, Entry, Host
from agent_jobs.install.machine import Launch, Machine

WHAT = "start"
#: Programs that download or unpack another program before they start it.
RUNNERS = ("uvx", "uv", "pipx")


@dataclass(frozen=True)
class _StartEntry:
    """An entry in a host's file."""

    host: Host
    entry: Entry
    install: str  #: the command that writes it again

    @property
    def start(self) -> Launch:
        """Return the command of the entry."""
        return self.host.read_command(self.entry)

    @property
    def program(self) -> str:
        """Return the name of the program that the command starts."""
        return PurePath(self.start.command).name.removesuffix(".exe")

    @property
    def is_by_uvx(self) -> bool:
        """Return True if the command starts a program that starts this server."""
        return self.program in RUNNERS


def check_start_times(machine: Machine, hosts: Iterable[Host]) -> Iterator[Finding]:
    """Start the command of each entry once; report the time that it took and the time that its host waits."""
    entries = list(_find_entries(machine, hosts))
    # Several hosts may start the same command.
    by_start = {each.start: each for each in entries}
    measured = {start: _measure_start(partial(_start_entry, each, machine)) for start, each in by_start.items()}
    own_s = None
    if any(each.is_by_uvx for each in entries):
        own_s = _measure_start(partial(start_this_installation, MODERN))
    for each in entries:
        listed_s = measured[each.start]
        if listed_s is not None:  # check_hosts reports a command that does not start
            yield _report_start(each, listed_s, own_s)


def starts_uvx(machine: Machine, hosts: Iterable[Host]) -> bool:
    """Return True if the entry of one of these hosts starts uvx."""
    return any(each.program == "uvx" for each in _find_entries(machine, hosts))


def _report_start(each: _StartEntry, listed_s: float, own_s: float | None) -> Finding:
    text = f"{_describe_patience(each.host)}; {each.start.command} listed them after {listed_s:.1f} s"
    if each.is_by_uvx:
        if own_s is not None:
            text += f", and started directly it takes {own_s:.1f} s"
        return Finding(WHAT, "warning", text, f"{each.install}, which writes a program that starts directly")
    version = None
    if each.program == SERVER:
        version = read_version(each.start.command)
    if version not in (None, __version__):
        text = f"{each.start.command} is {SERVER} {version}, and this is {__version__}"
        return Finding(WHAT, "warning", text, each.install)
    shown = f"{each.host.title} has the tools after {listed_s:.1f} s"
    if each.host.start_wait_s:
        shown += f", and waits {each.host.start_wait_s:g} s for them"
    return Finding(WHAT, "ok", text, shown=shown)


def _describe_patience(host: Host) -> str:
    if host.start_wait_s:
        return f"{host.title} waits {host.start_wait_s:g} s for tools"
    return f"{host.title} waits an unknown time for tools"


def _find_entries(machine: Machine, hosts: Iterable[Host]) -> Iterator[_StartEntry]:
    for host in hosts:
        for scope in find_scopes(host, machine):
            with suppress(ConfigError):  # check_hosts reports it
                entry = read_entry(host, read_snapshot(locate_file(host, machine, scope)).text)
                if entry is not None and "url" not in entry:  # the host starts no program there
                    yield _StartEntry(host, entry, format_install_command(host, scope))


def _start_entry(each: _StartEntry, machine: Machine) -> StartedServer:
    environment = build_host_environment(each.host, each.entry, machine)
    return start_server([each.start.command, *each.start.args], environment)


def _measure_start(start: Callable[[], StartedServer]) -> float | None:
    """Return the seconds until a server listed its tools, None if it did not."""
    try:
        return start().listed_s
    except SelfTestError:
        return None
