"""Talk to systemd or launchd about the service of `agent-jobs service`."""

import getpass
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent_jobs.errors import ConfigError
from agent_jobs.install.machine import Machine
from agent_jobs.install.service_files import (
    LABEL,
    STOP_S,
    UNIT,
    Service,
    locate_agent,
    locate_agent_log,
    locate_unit,
    render_agent,
    render_unit,
)

#: Seconds for one call. Stopping waits for the process itself.
CALL_LIMIT_S = STOP_S + 10.0
#: launchd needs a moment after it unloaded an agent before it loads another one of that name.
LOAD_RETRIES = 4
LOAD_RETRY_S = 1.0
#: The end of a log file that is read for its last lines.
LOG_TAIL_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The state of the service, as its manager reports it."""

    is_running: bool
    pid: int | None = None
    reason: str = ""  #: why it is not running, in the manager's word


class ServiceManager(Protocol):
    """The part of systemd or launchd that this program needs."""

    path: Path  #: the file of the service
    log_command: str  #: prints the log

    def find_obstacle(self) -> str:
        """Return why this user has no services here, an empty string if the user has."""
        ...

    def render(self, service: Service) -> str:
        """Return the text of the file."""
        ...

    def start(self) -> None:
        """Start the service from its file, now and at each login; a running one is started again.

        Raises:
            ConfigError: The manager refuses.
        """
        ...

    def stop(self) -> None:
        """Stop the service and start it no more; the file is still there."""
        ...

    def forget(self) -> None:
        """Note that the file is gone."""
        ...

    def read_state(self) -> ServiceState:
        """Return whether the service runs."""
        ...

    def read_log(self, lines: int) -> list[str]:
        """Return the last lines of the log."""
        ...

    def find_limit(self) -> str:
        """Return what ends the service although the user wants it to run, empty if nothing does."""
        ...


def find_manager(machine: Machine) -> ServiceManager | None:
    """Return the service manager of this system, None if this program knows none there."""
    if machine.platform == "win32":
        return None
    if machine.platform == "darwin":
        return Launchd(machine)
    return Systemd(machine)


class Systemd:
    """The user's instance of systemd."""

    log_command = f"journalctl --user -u {UNIT} -f"

    def __init__(self, machine: Machine) -> None:
        self.path = locate_unit(machine)

    def find_obstacle(self) -> str:
        """Return why there is no instance for this user, an empty string if there is one."""
        if shutil.which("systemctl") is None:
            return "this system has no systemctl"
        done = _call_manager("systemctl", "--user", "show-environment")
        if done.status == 0:
            return ""
        return f"systemctl --user: {done.error}"

    def render(self, service: Service) -> str:
        """Return the text of the unit."""
        return render_unit(service)

    def start(self) -> None:
        """Read the unit, and start it now and at each login."""
        _require_success(_call_manager("systemctl", "--user", "daemon-reload"))
        _require_success(_call_manager("systemctl", "--user", "enable", UNIT))
        _call_manager("systemctl", "--user", "reset-failed", UNIT)
        _require_success(_call_manager("systemctl", "--user", "restart", UNIT))

    def stop(self) -> None:
        """Stop the unit and start it no more."""
        _require_success(_call_manager("systemctl", "--user", "disable", "--now", UNIT))

    def forget(self) -> None:
        """Have systemd forget the unit whose file is gone."""
        _call_manager("systemctl", "--user", "daemon-reload")
        _call_manager("systemctl", "--user", "reset-failed", UNIT)

    def read_state(self) -> ServiceState:
        """Return what systemd says of the unit."""
        done = _call_manager("systemctl", "--user", "show", UNIT, "--property=ActiveState,SubState,MainPID,Result")
        facts = dict(re.findall(r"^(\w+)=(.*)$", done.output, re.M))
        if facts.get("ActiveState") == "active":
            return ServiceState(True, int(facts.get("MainPID") or 0) or None)
        reason = facts.get("Result", "")
        if reason in ("", "success"):
            reason = facts.get("SubState") or "unknown"
        return ServiceState(False, None, reason)

    def read_log(self, lines: int) -> list[str]:
        """Return the last lines of the unit in the journal."""
        done = _call_manager("journalctl", "--user", "-u", UNIT, "-n", str(lines), "-o", "cat", "--no-pager", "--quiet")
        if done.status == 0:
            return done.output.splitlines()[-lines:]
        return []

    def find_limit(self) -> str:
        """Return that it ends with the user's last session, unless the user lingers."""
        if shutil.which("loginctl") is None:
            return ""
        done = _call_manager("loginctl", "show-user", getpass.getuser(), "--property=Linger")
        if done.output.strip() != "Linger=no":
            return ""
        return "It stops when you log out. Keep it running with: loginctl enable-linger"


class Launchd:
    """The launchd of the user's session."""

    def __init__(self, machine: Machine) -> None:
        self.path = locate_agent(machine)
        self._log = locate_agent_log(machine)
        self._domain = f"gui/{os.getuid()}"
        self.log_command = f"tail -f {self._log}"

    def find_obstacle(self) -> str:
        """Return why launchd cannot be asked, an empty string if it can."""
        if shutil.which("launchctl"):
            return ""
        return "this system has no launchctl"

    def render(self, service: Service) -> str:
        """Return the text of the agent's file."""
        return render_agent(service, self._log)

    def start(self) -> None:
        """Load the agent, which starts it now and at each login."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self.stop()
        _call_manager("launchctl", "enable", f"{self._domain}/{LABEL}")
        for _ in range(LOAD_RETRIES):
            if self._load_agent().status == 0:
                return
            time.sleep(LOAD_RETRY_S)
        _require_success(self._load_agent())

    def _load_agent(self) -> "_Done":
        return _call_manager("launchctl", "bootstrap", self._domain, str(self.path))

    def stop(self) -> None:
        """Unload the agent; one that is not loaded is no error."""
        _call_manager("launchctl", "bootout", f"{self._domain}/{LABEL}")

    def forget(self) -> None:
        """Do nothing: launchd reads the folder at the next login."""

    def read_state(self) -> ServiceState:
        """Return what launchd says of the agent."""
        done = _call_manager("launchctl", "print", f"{self._domain}/{LABEL}")
        if done.status != 0:
            return ServiceState(False, None, "not loaded")
        facts = dict(re.findall(r"^\t(state|pid|last exit code) = (.*)$", done.output, re.M))
        if facts.get("state") == "running":
            return ServiceState(True, int(facts.get("pid", 0)) or None)
        return ServiceState(False, None, f"last exit code {facts.get('last exit code', 'unknown')}")

    def read_log(self, lines: int) -> list[str]:
        """Return the last lines of the log file."""
        with suppress(OSError), self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-lines:]
        return []

    def find_limit(self) -> str:
        """Return nothing: launchd ends agents at the logout, and has no other kind for a user."""
        return ""


@dataclass(frozen=True, slots=True)
class _Done:
    """A command that ended, or could not be run."""

    command: Sequence[str]
    status: int
    output: str
    error: str


def _call_manager(*command: str) -> _Done:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=CALL_LIMIT_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return _Done(command, 1, "", str(error))
    first, _, _ = done.stderr.strip().partition("\n")
    return _Done(command, done.returncode, done.stdout, first.rstrip() or f"status {done.returncode}")


def _require_success(done: _Done) -> None:
    """Refuse to continue after a command that failed.

    Raises:
        ConfigError: It failed; the sentence has its own words.
    """
    if done.status != 0:
        raise ConfigError(f"{' '.join(done.command)} failed: {done.error.rstrip('.')}. Fix that, then try again.")
