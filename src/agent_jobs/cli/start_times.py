"""How long the hosts' entries take until their tools are listed, and how long each host waits for that."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath

from agent_jobs import __version__
from agent_jobs.cli.finding import Finding
from agent_jobs.cli.host_checks import scopes_of
from agent_jobs.cli.program import version_of
from agent_jobs.cli.selftest import MODERN, SelfTestError, start_own, start_server
from agent_jobs.cli.trial import host_environment
from agent_jobs.errors import ConfigError
from agent_jobs.install.config_file import locate, read
from agent_jobs.install.entry import entry_in
from agent_jobs.install.hosts import SERVER, Entry, Host, Launch, Machine

WHAT = "start"


@dataclass(frozen=True)
class _Written:
    """An entry in a host's file."""

    host: Host
    entry: Entry
    install: str  #: the command that writes it again

    @property
    def start(self) -> Launch:
        return self.host.command_of(self.entry)

    @property
    def is_by_uvx(self) -> bool:
        name = PurePath(self.start.command).name
        return name.removesuffix(".exe") in ("uvx", "uv", "pipx")


def start_findings(machine: Machine, hosts: Iterable[Host]) -> Iterator[Finding]:
    """Start each entry's command once; say how long it took, and how long its host waits."""
    written = [each for host in hosts for each in _entries_of(host, machine)]
    measured = {each.start: _measure(each, machine) for each in {each.start: each for each in written}.values()}
    own_s = _measure_own() if any(each.is_by_uvx for each in written) else None
    for each in written:
        listed_s = measured[each.start]
        if listed_s is not None:  # what does not start is named as the host's
            yield _finding(each, listed_s, own_s)


def _finding(each: _Written, listed_s: float, own_s: float | None) -> Finding:
    wait_s = each.host.start_wait_s
    patience = f"{wait_s:g} s" if wait_s else "an unknown time"
    took = f"{each.host.title} waits {patience} for tools; {each.start.command} listed them after {listed_s:.1f} s"
    if each.is_by_uvx:
        direct = f", and started directly it takes {own_s:.1f} s" if own_s is not None else ""
        return Finding(WHAT, "warning", took + direct, f"{each.install}, which writes a program that starts directly")
    name = PurePath(each.start.command).name.removesuffix(".exe")
    version = version_of(each.start.command) if name == SERVER else None
    if version not in (None, __version__):
        text = f"{each.start.command} is {SERVER} {version}, and this is {__version__}"
        return Finding(WHAT, "warning", text, each.install)
    return Finding(WHAT, "ok", took)


def _entries_of(host: Host, machine: Machine) -> Iterator[_Written]:
    for scope in scopes_of(host, machine):
        with suppress(ConfigError):  # host_findings reports it
            entry = entry_in(host, read(locate(host, machine, scope)).text)
            if entry is not None:
                option = " --scope project" if scope == "project" else ""
                yield _Written(host, entry, f"{SERVER} install {host.name}{option}")


def _measure(each: _Written, machine: Machine) -> float | None:
    environment = host_environment(each.host, each.entry, machine)
    try:
        return start_server([each.start.command, *each.start.args], environment).listed_s
    except SelfTestError:
        return None


def _measure_own() -> float | None:
    try:
        return start_own(MODERN).listed_s
    except SelfTestError:
        return None
