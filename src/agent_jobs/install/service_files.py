"""The files that have systemd or launchd run `agent-jobs work` for one user. Pure."""

import plistlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent_jobs.install.hosts import SERVER
from agent_jobs.install.machine import Launch, Machine

UNIT = f"{SERVER}.service"
LABEL = f"{SERVER}.work"
RETRY_S = 30  # a provider or a disk that fails is often back within a minute
#: After this many failures in an hour, systemd stops restarting the program: the user has to fix the cause.
RETRIES_PER_HOUR = 20
STOP_S = 20  # the program itself ends within seconds
#: Characters that end a line or a word in a unit, with their escapes.
_ESCAPES = {"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\[\\\"ntr]|%%|\$\$")

_UNIT_TEXT = """\
# Written by `agent-jobs service install`, which replaces this file. Remove it with: agent-jobs service remove
[Unit]
Description=agent-jobs: collects the results of background jobs
StartLimitIntervalSec=3600
StartLimitBurst={retries}

[Service]
Type=exec
ExecStart={command}
{environment}Restart=on-failure
RestartSec={retry_s}
TimeoutStopSec={stop_s}
{hardening}
[Install]
WantedBy=default.target
"""


@dataclass(frozen=True, slots=True)
class Service:
    """The process that a service manager keeps running.

    Args:
        command: The absolute path of the program, and its arguments.
        environment: Its variables, without secrets.
        is_confined: True if it starts no programs of the user, which may need more rights than it has.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    is_confined: bool = True


def build_collector_command(launch: Launch, env_file: Path | None) -> tuple[str, ...]:
    """Return the command that collects jobs, from the one that starts the server."""
    options: tuple[str, ...] = ()
    if env_file is not None:
        options = ("--env-file", str(env_file))
    return (launch.command, *launch.args, *options, "work")


def locate_unit(machine: Machine) -> Path:
    """Return the path of the user's systemd unit."""
    return machine.find_folder("XDG_CONFIG_HOME", machine.home / ".config") / "systemd/user" / UNIT


def locate_agent(machine: Machine) -> Path:
    """Return the path of the user's launch agent."""
    return machine.home / "Library/LaunchAgents" / f"{LABEL}.plist"


def locate_agent_log(machine: Machine) -> Path:
    """Return the file into which launchd writes the log."""
    return machine.home / "Library/Logs" / SERVER / "work.log"


def locate_service_file(machine: Machine) -> Path | None:
    """Return the file of the service on this system, None if the system has no services that this program writes."""
    match machine.platform:
        case "win32":
            return None
        case "darwin":
            return locate_agent(machine)
        case _:
            return locate_unit(machine)


def render_unit(service: Service) -> str:
    """Return the text of a systemd unit."""
    variables = [
        f"Environment={_quote_word(f'{name}={value}')}\n" for name, value in sorted(service.environment.items())
    ]
    program, *arguments = service.command
    words = [_quote_program(program), *(_quote_word(word.replace("$", "$$")) for word in arguments)]
    hardening = ""
    if service.is_confined:
        hardening = "NoNewPrivileges=yes\nLockPersonality=yes\nRestrictRealtime=yes\nRestrictSUIDSGID=yes\n"
    return _UNIT_TEXT.format(
        command=" ".join(words),
        environment="".join(variables),
        hardening=hardening,
        retries=RETRIES_PER_HOUR,
        retry_s=RETRY_S,
        stop_s=STOP_S,
    )


def render_agent(service: Service, log: Path) -> str:
    """Return the text of a launch agent."""
    agent = {
        "Label": LABEL,
        "ProgramArguments": list(service.command),
        "EnvironmentVariables": dict(service.environment),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": RETRY_S,
        "ExitTimeOut": STOP_S,
        "ProcessType": "Background",
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
    }
    return plistlib.dumps(agent).decode()


def starts_program(text: str, program: str) -> bool:
    """Return True if the text of a service's file starts this program."""
    if text.startswith("<?xml"):
        arguments = re.search(r"<key>ProgramArguments</key>\s*<array>\s*<string>(.*?)</string>", text)
        return arguments is not None and arguments[1] == _escape_xml(program)
    return f"ExecStart={_quote_program(program)} " in text


def find_env_file_of(text: str) -> Path | None:
    """Return the file of variables that a service reads, from the text of the service's file; None without one."""
    if text.startswith("<?xml"):
        words = plistlib.loads(text.encode())["ProgramArguments"]
    else:
        line = next((line for line in text.splitlines() if line.startswith("ExecStart=")), "")
        words = [_unquote_word(word) for word in _QUOTED.findall(line)]
    if "--env-file" not in words[:-1]:
        return None
    return Path(words[words.index("--env-file") + 1])


def _unquote_word(word: str) -> str:
    """Return a word of a command from its text in a unit."""
    meanings = {escape: char for char, escape in _ESCAPES.items()} | {"$$": "$"}
    return _ESCAPED.sub(lambda found: meanings[found[0]], word)


def _escape_xml(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quote_program(program: str) -> str:
    """Return the words that start a program; systemd refuses quotes and backslashes in the first one."""
    if set(program) & set("\"'\\\n\t\r"):
        return "/usr/bin/env " + _quote_word(program.replace("$", "$$"))
    return _quote_word(program)


def _quote_word(text: str) -> str:
    """Return a word as a unit has to have it: quoted, and without specifiers."""
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'
