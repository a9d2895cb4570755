"""The program that a host's entry starts: made permanent by `install`, and taken out again by `uninstall`.

An entry that starts uvx asks the package index at each start, which hosts that wait a second do not wait for.
"""

import os
import re
import subprocess
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from agent_jobs import __version__
from agent_jobs.errors import ConfigError
from agent_jobs.install.command import find_program, requirement
from agent_jobs.install.command import launch as uvx_launch
from agent_jobs.install.config_file import Scope, locate, read
from agent_jobs.install.entry import entry_in
from agent_jobs.install.hosts import HOSTS, SERVER, Launch, Machine

INSTALL_LIMIT_S = 300.0  # a first installation downloads some 40 packages
QUERY_LIMIT_S = 30.0
#: Folders of environments that uv and pipx make for one run and delete when they clean up.
TEMPORARY_ENVIRONMENT = re.compile(r"(?:archive|environments|builds)-v\d+|\.tmp\w*|pipx[\\/](?:\.cache|cache)")
#: Stands in the environment of a tool that `install` installed, so that `uninstall` takes out no other.
MARK = "installed-by-agent-jobs-install"
REASON_CHARS = 200


@dataclass(frozen=True)
class Installer:
    """Uv or pipx: the commands that install a program for good."""

    name: str
    command: str
    install: tuple[str, ...]
    uninstall: tuple[str, ...]
    programs: tuple[str, ...]  #: prints the folder of the programs
    environments: tuple[str, ...]  #: prints the folder of their environments

    @property
    def program(self) -> Path | None:
        """Where our program is, or would be."""
        return self._folder_below(self.programs, _executable_name())

    @property
    def mark(self) -> Path | None:
        """The file that says that `install` installed it."""
        return self._folder_below(self.environments, f"{SERVER}/{MARK}")

    @property
    def shown_install(self) -> str:
        """The command that a person may type."""
        return " ".join((self.name, *self.install, requirement()))

    @property
    def shown_uninstall(self) -> str:
        """The command that a person may type."""
        return " ".join((self.name, *self.uninstall, SERVER))

    def _folder_below(self, question: tuple[str, ...], rest: str) -> Path | None:
        done = _run(self.command, *question)
        lines = done.stdout.split("\n") if done is not None and done.returncode == 0 else [""]
        return Path(lines[0].strip()) / rest if lines[0].strip() else None


@dataclass(frozen=True)
class Program:
    """What an entry starts. `installer` still has to install it, unless it is None."""

    launch: Launch
    installer: Installer | None = None


def planned_program(machine: Machine) -> Program:
    """Return the permanent program for the entries of this machine, without installing anything."""
    if own := own_script():
        return Program(Launch(str(own), ()))
    installer = find_installer(machine)
    program = installer.program if installer else None
    if installer is None or program is None:
        return Program(uvx_launch(machine))
    return Program(Launch(str(program), ()), installer)


def printed_program(machine: Machine) -> Program:
    """Return what works without installing anything; `installer` is set if a permanent program would be quicker."""
    program = planned_program(machine)
    if program.installer is None or version_of(program.launch.command) == __version__:
        return Program(program.launch)
    return Program(uvx_launch(machine), program.installer)


def make_permanent(program: Program, machine: Machine) -> tuple[Launch, list[str]]:
    """Install the program if need be; return what to start, and sentences about what was done."""
    installer = program.installer
    if installer is None:
        return program.launch, []
    path = program.launch.command
    before = version_of(path)
    if before == __version__ and requirement().startswith(f"{SERVER}=="):
        return program.launch, []
    click.echo(f"Installing {SERVER} {__version__}: {installer.shown_install} ...", err=True)
    reason = _installed(installer)
    if reason is None and version_of(path) != __version__:
        reason = f"{path} is not there or does not start"
    if reason is not None:
        fallback = uvx_launch(machine)
        return fallback, [
            f"{installer.shown_install} failed ({reason}), so the entry starts {fallback.command} instead. That is "
            "slower at each start; run this again when the cause is gone."
        ]
    if before is None:
        with suppress(OSError):
            if mark := installer.mark:
                mark.touch()
        return program.launch, [f"{SERVER} {__version__} is installed at {path} ({installer.shown_install})."]
    if before == __version__:
        return program.launch, []
    return program.launch, [f"{path} was {SERVER} {before} and is {__version__} now ({installer.shown_install})."]


def remove_program(command: str, file: Path, machine: Machine, *, dry_run: bool) -> list[str]:
    """Uninstall the program that `install` installed if no other entry starts it; return what was done.

    Args:
        command: What the entry started that was taken out.
        file: The host's file that it was in.
        machine: Whose files of hosts are looked at.
        dry_run: Whether only to say it.
    """
    installer = next((each for each in _installers(machine) if str(each.program) == command), None)
    mark = installer.mark if installer else None
    if installer is None or mark is None or not mark.is_file():
        return []
    others = [path for path in _files_that_start(command, machine) if path != file]
    if others:
        return [f"{command} stays, since {others[0]} starts it."]
    if dry_run:
        return [f"{command} would be removed ({installer.shown_uninstall})."]
    done = _run(installer.command, *installer.uninstall, SERVER, limit_s=INSTALL_LIMIT_S)
    if done is None or done.returncode != 0:
        return [f"{command} is still there: {installer.shown_uninstall} removes it."]
    return [f"{command} was removed ({installer.shown_uninstall})."]


def _files_that_start(command: str, machine: Machine) -> list[Path]:
    """Return the files of hosts whose entry starts this program, for this person and in this folder."""
    found: list[Path] = []
    scopes: tuple[Scope, ...] = ("user", "project")
    for host in HOSTS.values():
        for scope in scopes:
            with suppress(ConfigError):
                path = locate(host, machine, scope)
                entry = entry_in(host, read(path).text)
                if entry is not None and host.command_of(entry).command == command:
                    found.append(path)
    return found


def own_script() -> Path | None:
    """Return the script of this environment, None if the environment is temporary or has none."""
    if TEMPORARY_ENVIRONMENT.search(sys.prefix):
        return None
    name = _executable_name()
    called = Path(os.path.abspath(sys.argv[0]))
    for path in (called, Path(sysconfig.get_path("scripts")) / name):
        if path.name == name and os.access(path, os.X_OK) and path.is_file():
            return path
    return None


def version_of(program: str) -> str | None:
    """Return the version that a program of ours says it is, None if it does not start."""
    if not os.path.isfile(program):
        return None
    done = _run(program, "--version")
    found = re.search(r"version (\S+)", done.stdout) if done is not None and done.returncode == 0 else None
    return found[1] if found else None


def find_installer(machine: Machine) -> Installer | None:
    """Return uv, else pipx, None if neither is here."""
    return next(iter(_installers(machine)), None)


def _installers(machine: Machine) -> list[Installer]:
    found: list[Installer] = []
    if uv := find_program("uv", machine):
        found.append(
            Installer("uv", uv, ("tool", "install"), ("tool", "uninstall"), ("tool", "dir", "--bin"), ("tool", "dir"))
        )
    if pipx := find_program("pipx", machine):
        value = ("environment", "--value")
        found.append(
            Installer(
                "pipx", pipx, ("install", "--force"), ("uninstall",), (*value, "PIPX_BIN_DIR"),
                (*value, "PIPX_LOCAL_VENVS"),
            )
        )  # fmt: skip
    return found


def _installed(installer: Installer) -> str | None:
    """Install; return why it failed, None if it did not."""
    attempts: tuple[tuple[str, ...], ...] = ((),)
    if installer.name == "uv":
        # What runs now is in uv's cache: without the network it takes a fifth of the time, and it is what was tried.
        attempts = (("--offline",), ())
    reason = ""
    for options in attempts:
        done = _run(installer.command, *installer.install, requirement(), *options, limit_s=INSTALL_LIMIT_S)
        if done is None:
            return "it did not end, or could not be started"
        if done.returncode == 0:
            return None
        reason = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "")
    return reason[:REASON_CHARS].rstrip(".") or "it said nothing"


def _run(*command: str, limit_s: float = QUERY_LIMIT_S) -> "subprocess.CompletedProcess[str] | None":
    """Run a command to its end; None if it cannot be run."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=limit_s,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None


def _executable_name() -> str:
    return f"{SERVER}.exe" if sys.platform == "win32" else SERVER
