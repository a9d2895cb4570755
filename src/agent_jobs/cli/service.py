"""`agent-jobs service`: have the system collect jobs, also when no host and no terminal is open."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.install import find_machine
from agent_jobs.cli.program import make_permanent, plan_program, remove_program
from agent_jobs.cli.service_manager import ServiceManager, ServiceState, find_manager
from agent_jobs.cli.session import Exit, convert_errors, json_option, read_settings
from agent_jobs.errors import ConfigError
from agent_jobs.files.atomic_file import PRIVATE_MODE, replace_file
from agent_jobs.install.hosts import KEY
from agent_jobs.install.machine import Launch, Machine
from agent_jobs.install.service_files import Service, build_collector_command, find_env_file_of
from agent_jobs.settings.configuration import load_settings
from agent_jobs.settings.env_file import add_env_file
from agent_jobs.settings.settings import VARIABLES, Settings
from agent_jobs.settings.values import SecretStr

#: Variables besides our own settings that the collector needs, and that a service manager does not set.
PASSED_ON = (
    "PATH", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR",
    *(name for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (proxy, proxy.lower())),
)  # fmt: skip
#: Settings that are a secret, or whose values may hold one although their type does not say so.
MAY_HOLD_SECRETS = (KEY, "AGENT_JOBS_ON_FINISH")
#: Lines of the log that `status` shows.
LOG_LINES = 5
STORE_KEY = "Store it with `agent-jobs key set`, then run `agent-jobs service install` again."


@click.group("service")
def service_command() -> None:
    """Collect jobs in the background, also when no host is open.

    Writes a systemd user unit on Linux and a launch agent on macOS. They run `agent-jobs work`.
    """


@service_command.command("install")
@click.option("--print", "print_only", is_flag=True, help="Only print the file; start nothing.")
def install_command(print_only: bool) -> None:
    """Start the collector now and at each login.

    The service gets the settings of this shell, but no secrets. It reads the key that `agent-jobs key set` stored, the
    settings file, and the file of `agent-jobs --env-file FILE service install`, which later calls remember. Run the
    command again after you changed variables of the shell or updated agent-jobs.

    Exit status: 0 done, or nothing to do; 1 refused, and nothing was written.
    """
    install_service(find_machine(), find_env_file(), print_only=print_only)


@service_command.command("status")
@json_option
def status_command(as_json: bool) -> None:
    """Show whether the collector runs.

    Shows the last lines of its log, too.

    Exit status: 0 it runs; 1 it does not.
    """
    show_service(find_machine(), as_json=as_json)


@service_command.command("remove")
def remove_command() -> None:
    """Stop the collector and remove its file. Jobs, settings and the key stay.

    A program that `agent-jobs install` or `service install` installed is removed, too, unless a host starts it.

    Exit status: 0 done, or nothing to do; 1 refused.
    """
    remove_service(find_machine())


def find_env_file() -> Path | None:
    """Return the file of --env-file as an absolute path."""
    named = click.get_current_context().find_root().params.get("env_file")
    if named:
        return Path(named).expanduser().absolute()
    return None


@convert_errors()
def install_service(machine: Machine, env_file: Path | None, *, print_only: bool = False) -> None:
    """Write the file of the service and start it.

    Raises:
        ConfigError: It could not work, or this system has no services for this user.
    """
    manager = find_manager(machine)
    if env_file is None and manager is not None:
        env_file = _read_earlier_env_file(manager.path)
    settings = read_settings()
    environment, left_out = select_environment(settings, machine.environ, env_file)
    _require_usable_key(settings, environment, env_file)
    program = plan_program(machine)
    if manager is None:
        raise ConfigError(_describe_windows_task(program.launch, env_file))
    if print_only:
        text = manager.render(_build_service(settings, program.launch, environment, env_file))
        return click.echo(text, nl=False)
    _require_manager(manager, program.launch, env_file)
    launch, notes = make_permanent(program, machine)
    text = manager.render(_build_service(settings, launch, environment, env_file))
    sentences = [*notes, *_start_service(manager, text), *_advise_on_variables(left_out), manager.find_limit()]
    return print_sentences("\n".join(filter(None, sentences)))


@convert_errors()
def show_service(machine: Machine, *, as_json: bool) -> None:
    """Print whether the service is installed and running, and the last lines of its log."""
    manager = find_manager(machine)
    if manager is None or not manager.path.is_file():
        _show_missing_service(as_json=as_json)
        raise SystemExit(Exit.REFUSED)
    state, lines = manager.read_state(), manager.read_log(LOG_LINES)
    if as_json:
        from agent_jobs.rendering import answers

        facts = answers.drop_missing({"pid": state.pid, "reason": state.reason})
        report = {"installed": True, "running": state.is_running, "file": str(manager.path), **facts, "log": lines}
        click.echo(json.dumps(report))
    else:
        print_sentences("\n".join(_describe_service(manager, state)))
        click.echo("\n".join(f"  {terminal.join_lines(line)}" for line in lines))
    raise SystemExit(Exit.DONE if state.is_running else Exit.REFUSED)


def _show_missing_service(*, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"installed": False, "running": False}))
    else:
        print_sentences("The collector is not installed. Install it with: agent-jobs service install")


@convert_errors()
def remove_service(machine: Machine) -> None:
    """Stop the service and remove its file, and the program if `install` installed it and nothing else starts it.

    Raises:
        ConfigError: The service manager refuses, or the file cannot be removed.
    """
    manager = find_manager(machine)
    if manager is None or not manager.path.is_file():
        return print_sentences("Nothing to do: the collector is not installed.")
    if manager.find_obstacle():  # no manager runs the service
        manager.path.unlink()
    else:
        manager.stop()
        manager.path.unlink()
        manager.forget()
    print_sentences(f"The collector was stopped, and {manager.path} was removed. Jobs, settings and the key stay.")
    for line in remove_program(plan_program(machine).launch.command, manager.path, machine, dry_run=False):
        print_sentences(line)
    return None


def _read_earlier_env_file(path: Path) -> Path | None:
    """Return the file of variables that the installed service reads, and read it here, too; None without one."""
    if not path.is_file():
        return None
    env_file = find_env_file_of(path.read_text())
    if env_file is None or not env_file.is_file():
        return None
    os.environ.update(add_env_file(os.environ, str(env_file)))
    return env_file


def select_environment(
    settings: Settings, environ: Mapping[str, str], env_file: Path | None
) -> tuple[dict[str, str], list[str]]:
    """Return the variables of this shell that the file of the service gets, and the names of those that stay out.

    Variables that the service reads from `env_file` are in neither.
    """
    in_file = _add_variables_of({}, env_file)
    selected: dict[str, str] = {}
    left_out: list[str] = []
    for name in dict.fromkeys((*PASSED_ON, *VARIABLES, *settings.secrets)):
        value = environ.get(name, "").strip()
        if value in ("", in_file.get(name)):
            continue
        if _may_be_secret(settings, name, value):
            left_out.append(name)
        else:
            selected[name] = _anchor_path(settings, name, value)
    return selected, left_out


def _add_variables_of(environment: Mapping[str, str], env_file: Path | None) -> Mapping[str, str]:
    """Return an environment with the variables of a file, if there is one."""
    if env_file is None:
        return environment
    return add_env_file(environment, str(env_file))


def _anchor_path(settings: Settings, name: str, value: str) -> str:
    """Return the value of a variable as it means the same in another folder."""
    path = _find_setting(settings, name)
    if isinstance(path, Path):
        return str(path.absolute())
    return value


def _find_setting(settings: Settings, name: str) -> object:
    """Return the value of the setting that a variable sets, None if it sets none."""
    if name in VARIABLES:
        return getattr(settings, VARIABLES[name].field)
    return None


def _may_be_secret(settings: Settings, name: str, value: str) -> bool:
    """Return True if a variable must not be in a file that other programs back up and show."""
    if name in (*MAY_HOLD_SECRETS, *settings.secrets) or isinstance(_find_setting(settings, name), SecretStr):
        return True
    if name == "AGENT_JOBS_NOTIFY":
        return ":" in value  # an address, or the topic that it takes to read the notices
    return "://" in value and ("@" in value or "?" in value)  # an address with a password or a key


def _require_usable_key(settings: Settings, environment: Mapping[str, str], env_file: Path | None) -> None:
    """Refuse a service that could not work, or would send the key to another address.

    Raises:
        ConfigError: It has no key, or an address of its own.
    """
    complete = {"HOME": os.environ.get("HOME", ""), **environment}
    found = load_settings(_add_variables_of(complete, env_file))
    again = "then run: agent-jobs --env-file FILE service install"
    if found.base_url != settings.base_url:
        raise ConfigError(
            "OPENAI_BASE_URL may hold a secret, so it is not written into the service's file. Put the line "
            f"OPENAI_BASE_URL=... into a file that only you can read, {again}"
        )
    if found.api_key is not None or found.stored_key is not None:
        return
    if settings.api_key is not None:
        raise ConfigError(f"The service cannot see the key, because only this shell has it. {STORE_KEY}")
    raise ConfigError(f"No API key is set. {STORE_KEY}")


def _build_service(
    settings: Settings, launch: Launch, environment: Mapping[str, str], env_file: Path | None
) -> Service:
    starts_programs = settings.toolbox is not None or bool(settings.on_finish)
    return Service(build_collector_command(launch, env_file), environment, is_confined=not starts_programs)


def _require_manager(manager: ServiceManager, launch: Launch, env_file: Path | None) -> None:
    """Refuse if this user has no service manager.

    Raises:
        ConfigError: The user has none; the sentence says what to run instead.
    """
    if obstacle := manager.find_obstacle():
        command = shlex.join(build_collector_command(launch, env_file))
        raise ConfigError(
            f"No service can be installed here ({obstacle.rstrip('.')}). Run the collector under a supervisor of "
            f"your own instead: {command}"
        )


def _start_service(manager: ServiceManager, text: str) -> Iterator[str]:
    """Write and start the service unless it runs from this file; yield sentences about what was done."""
    before = None
    if manager.path.is_file():
        before = manager.path.read_text()
    if text == before and (state := manager.read_state()).is_running:
        yield f"Nothing to do: the collector is installed and running{_format_pid(state)}."
    else:
        if text != before:
            manager.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(manager.path, text.encode(), mode=PRIVATE_MODE)
            yield f"Wrote {manager.path}."
        manager.start()
        state = manager.read_state()
        if state.is_running:
            yield f"The collector is running{_format_pid(state)}. It starts again at each login."
        else:
            yield f"The collector was started, but does not run ({state.reason}). Its log says why."
    yield f"Log: {manager.log_command}"


def _format_pid(state: ServiceState) -> str:
    if state.pid:
        return f" (pid {state.pid})"
    return ""


def _advise_on_variables(left_out: list[str]) -> Iterator[str]:
    names = ", ".join(name for name in left_out if name != KEY)
    if names:
        yield (
            f"The service does not get {names}, which may hold secrets. Set them with `agent-jobs config set`; or put "
            "them into a file that only you can read, then run: agent-jobs --env-file FILE service install"
        )


def _describe_service(manager: ServiceManager, state: ServiceState) -> Iterator[str]:
    if state.is_running:
        yield f"The collector is running{_format_pid(state)}."
    else:
        yield f"The collector is installed, but not running ({state.reason}). Start it with: agent-jobs service install"
    yield f"File: {manager.path}"
    yield f"Log: {manager.log_command}"
    if state.is_running and (limit := manager.find_limit()):
        yield limit


def _describe_windows_task(launch: Launch, env_file: Path | None) -> str:
    """Return the command with which a user of Windows starts the collector at each login."""
    command = " ".join(f'\\"{word}\\"' if " " in word else word for word in build_collector_command(launch, env_file))
    return (
        "This command writes no task for Windows. Create one with: "
        f'schtasks /Create /TN agent-jobs /SC ONLOGON /TR "{command}"'
    )
