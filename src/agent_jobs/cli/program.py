"""Install the program that a host's entry starts, and uninstall it again.

An entry that starts uvx asks PyPI at each start, and hosts that wait one second for tools give up before that.
"""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import click

from agent_jobs import __version__
from agent_jobs.errors import ConfigError
from agent_jobs.install.command import build_requirement, find_launch, find_program
from agent_jobs.install.config_file import Scope, locate_file, read_snapshot
from agent_jobs.install.entry import read_entry
from agent_jobs.install.hosts import HOSTS, SERVER
from agent_jobs.install.machine import Launch, Machine
from agent_jobs.install.service_files import locate_service_file, starts_program

INSTALL_LIMIT_S = 300.0  # a first installation downloads about 40 packages
QUERY_LIMIT_S = 30.0  # uv and pipx answer within seconds, on a busy machine too
#: Folders of environments that uv and pipx make for one run and delete when they clean up.
TEMPORARY_ENVIRONMENT = re.compile(r"(?:archive|environments|builds)-v\d+|\.tmp\w*|pipx[\\/](?:\.cache|cache)")
#: A file in the environment of a tool that `install` installed, so that `uninstall` removes no other tool.
MARK_NAME = "installed-by-agent-jobs-install"
#: Characters of an installer's error in a sentence.
REASON_CHARS = 200
#: The status of a command that could not be started, or did not end in time. No command ends with it.
NOT_RUN = 256


@dataclass(frozen=True)
class Installer:
    """Uv or pipx: the commands that install a program permanently."""

    name: str
    command: str
    install: tuple[str, ...]
    uninstall: tuple[str, ...]
    programs: tuple[str, ...]  #: prints the folder of the programs
    environments: tuple[str, ...]  #: prints the folder of their environments
    attempts: tuple[tuple[str, ...], ...] = ((),)  #: further options of each attempt to install

    @property
    def program(self) -> Path | None:
        """Return the path that our program has after an installation."""
        return self._find_below(self.programs, _executable_name())

    @property
    def environment(self) -> Path | None:
        """Return the folder of the environment that our program has after an installation."""
        return self._find_below(self.environments, SERVER)

    @property
    def mark(self) -> Path | None:
        """Return the file that exists if `install` installed the program."""
        return self._find_below(self.environments, f"{SERVER}/{MARK_NAME}")

    @property
    def install_line(self) -> str:
        """Return the command that a user can type to install the program."""
        return " ".join((self.name, *self.install, build_requirement()))

    @property
    def uninstall_line(self) -> str:
        """Return the command that a user can type to uninstall the program."""
        return " ".join((self.name, *self.uninstall, SERVER))

    def _find_below(self, question: tuple[str, ...], rest: str) -> Path | None:
        """Return a path below the folder that the installer prints, None if it prints none."""
        folder = _read_printed_text(self.command, *question).split("\n")[0].strip()
        if folder:
            return Path(folder) / rest
        return None


@dataclass(frozen=True)
class Program:
    """The command of an entry, with the installer that still has to install it, if any."""

    launch: Launch
    installer: Installer | None = None


def plan_program(machine: Machine) -> Program:
    """Return the permanent program for the entries of this machine, without installing it."""
    if own := find_own_script(machine):
        return Program(Launch(str(own), ()))
    installer = find_installer(machine)
    if installer and (program := installer.program):
        return Program(Launch(str(program), ()), installer)
    return Program(find_launch(machine))


def plan_printed_program(machine: Machine) -> Program:
    """Return a program that works without an installation; `installer` is set if a permanent one would start faster."""
    program = plan_program(machine)
    if program.installer is None or read_version(program.launch.command) == __version__:
        return Program(program.launch)
    return Program(find_launch(machine), program.installer)


def make_permanent(program: Program, machine: Machine) -> tuple[Launch, list[str]]:
    """Install the program if necessary; return the command to start, and sentences about the installation."""
    installer = program.installer
    if installer is None:
        return program.launch, []
    path = program.launch.command
    before = read_version(path)
    if before == __version__ and build_requirement().startswith(f"{SERVER}=="):
        return program.launch, []
    click.echo(f"Installing {SERVER} {__version__}: {installer.install_line} ...", err=True)
    reason = _install_program(installer, path)
    if reason:
        return _fall_back(installer, reason, machine)
    if before is None:
        _leave_mark(installer)
        return program.launch, [f"{SERVER} {__version__} is installed at {path} ({installer.install_line})."]
    if before == __version__:
        return program.launch, []
    return program.launch, [f"{path} was {SERVER} {before} and is {__version__} now ({installer.install_line})."]


def _fall_back(installer: Installer, reason: str, machine: Machine) -> tuple[Launch, list[str]]:
    """Return the command that works without the program, and why it was chosen."""
    fallback = find_launch(machine)
    return fallback, [
        f"{installer.install_line} failed ({reason}), so the entry starts {fallback.command} instead. That is slower "
        "at each start. Run this command again when the cause is fixed."
    ]


def _leave_mark(installer: Installer) -> None:
    """Note in the program's environment that `install` made it."""
    with suppress(OSError):
        if mark := installer.mark:
            mark.touch()


def remove_program(command: str, file: Path, machine: Machine, *, dry_run: bool) -> list[str]:
    """Uninstall the program that `install` installed if no other entry starts it; return a sentence about that.

    Args:
        command: The command of the entry that was removed.
        file: The host's file in which it was.
        machine: Where the hosts' files are.
        dry_run: True to say what would be done without doing it.
    """
    installer = _find_marked_installer(command, machine)
    if installer is None:
        return []
    others = [path for path in _find_files_that_start(command, machine) if path != file]
    if others:
        return [f"{command} stays, because {others[0]} starts it."]
    if dry_run:
        return [f"{command} would be removed ({installer.uninstall_line})."]
    done = _run_command(installer.command, *installer.uninstall, SERVER, limit_s=INSTALL_LIMIT_S)
    if done.returncode != 0:
        return [f"{command} could not be removed. Remove it with: {installer.uninstall_line}"]
    return [f"{command} was removed ({installer.uninstall_line})."]


def _find_marked_installer(command: str, machine: Machine) -> Installer | None:
    """Return the installer with which `install` made this program, None if it did not."""
    for installer in _find_installers(machine):
        program, mark = installer.program, installer.mark
        # uv and pipx put programs into the same folder, so only the mark tells which of them made this one.
        if program and mark and _is_same_path(program, command) and mark.is_file():
            return installer
    return None


def _find_files_that_start(command: str, machine: Machine) -> Iterator[Path]:
    """Yield the files that start this program: the hosts', for this user and in this folder, and the service's."""
    scopes: tuple[Scope, ...] = ("user", "project")
    for host, scope in product(HOSTS.values(), scopes):
        with suppress(ConfigError):
            path = locate_file(host, machine, scope)
            entry = read_entry(host, read_snapshot(path).text)
            if entry is not None and _is_same_path(host.read_command(entry).command, command):
                yield path
    service = locate_service_file(machine)
    if service is not None and service.is_file():
        text = service.read_text()
        if any(starts_program(text, path) for path in (command, os.path.realpath(command))):
            yield service


def find_own_script(machine: Machine) -> Path | None:
    """Return the script that starts this environment, None if the environment is temporary or has none.

    Of several paths it is always the same one, however this process was started, so that entries do not change.
    """
    if TEMPORARY_ENVIRONMENT.search(sys.prefix):
        return None
    name = _executable_name()
    own_path = Path(os.path.abspath(sys.argv[0]))
    for path in (own_path, Path(sysconfig.get_path("scripts")) / name):
        if path.name == name and path.is_file() and os.access(path, os.X_OK):
            return _find_tool_program(machine) or _find_link_on_path(path, machine) or path
    return None


def _find_tool_program(machine: Machine) -> Path | None:
    """Return the program that uv or pipx made for this environment, None if it is not the environment of a tool."""
    if Path(sys.prefix).name != SERVER:  # pipx needs a second to answer
        return None
    for installer in _find_installers(machine):
        environment, program = installer.environment, installer.program
        if environment is not None and _is_same_path(environment, sys.prefix) and program and program.is_file():
            return program
    return None


def _find_link_on_path(script: Path, machine: Machine) -> Path | None:
    """Return the first link to a script in the folders of PATH; uvx puts the environment's own folder there, too."""
    for folder in machine.environ.get("PATH", "").split(os.pathsep):
        path = Path(folder) / script.name
        is_public = path.is_absolute() and not path.is_relative_to(sys.prefix)
        if is_public and path.is_symlink() and _is_same_path(path, script):
            return path
    return None


def _is_same_path(one: str | Path, other: str | Path) -> bool:
    """Return True if two paths lead to the same file or folder; it need not exist."""
    return os.path.realpath(one) == os.path.realpath(other)


def read_version(program: str) -> str | None:
    """Return the version that a program of ours prints, None if it does not start."""
    if not os.path.isfile(program):
        return None
    found = re.search(r"version (\S+)", _read_printed_text(program, "--version"))
    if found:
        return found[1]
    return None


def find_installer(machine: Machine) -> Installer | None:
    """Return uv, else pipx, None if neither is installed."""
    return next(_find_installers(machine), None)


def _find_installers(machine: Machine) -> Iterator[Installer]:
    if uv := find_program("uv", machine):
        yield Installer(
            name="uv",
            command=uv,
            install=("tool", "install"),
            uninstall=("tool", "uninstall"),
            programs=("tool", "dir", "--bin"),
            environments=("tool", "dir"),
            # The running program is in uv's cache. Installing from there needs a fifth of the time,
            # and installs the version that the user has just tried.
            attempts=(("--offline",), ()),
        )
    if pipx := find_program("pipx", machine):
        yield Installer(
            name="pipx",
            command=pipx,
            install=("install", "--force"),
            uninstall=("uninstall",),
            programs=("environment", "--value", "PIPX_BIN_DIR"),
            environments=("environment", "--value", "PIPX_LOCAL_VENVS"),
        )


def _install_program(installer: Installer, path: str) -> str:
    """Install the program; return why it cannot be used, an empty string if it can."""
    reason = _run_installer(installer)
    if not reason and read_version(path) != __version__:
        return f"{path} does not exist or does not start"
    return reason


def _run_installer(installer: Installer) -> str:
    """Install; return why it failed, an empty string if it did not."""
    reason = ""
    for options in installer.attempts:
        done = _run_command(
            installer.command, *installer.install, build_requirement(), *options, limit_s=INSTALL_LIMIT_S
        )
        if done.returncode == 0:
            return ""
        reason = done.stderr.rstrip().rpartition("\n")[2].strip()
        if done.returncode == NOT_RUN:
            break
    return reason[:REASON_CHARS].rstrip(".") or "it printed no reason"


def _read_printed_text(*command: str) -> str:
    """Return what a command prints, an empty string if it fails."""
    done = _run_command(*command)
    if done.returncode != 0:
        return ""
    return done.stdout


def _run_command(*command: str, limit_s: float = QUERY_LIMIT_S) -> "subprocess.CompletedProcess[str]":
    """Run a command until it ends. The status of one that cannot be run is `NOT_RUN`."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=limit_s,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return subprocess.CompletedProcess(command, NOT_RUN, "", "it did not finish, or could not be started")


def _executable_name() -> str:
    if sys.platform == "win32":
        return f"{SERVER}.exe"
    return SERVER
