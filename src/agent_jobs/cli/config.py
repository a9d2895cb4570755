"""`agent-jobs config`: show the settings, where they come from and what is wrong with them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click

from agent_jobs.cli.choice import NamedGroup
from agent_jobs.cli.config_edit import SettingName, path_command, set_command, unset_command
from agent_jobs.cli.config_page import SettingRow, write_page
from agent_jobs.cli.key_origin import find_env_file_variables, mask_secret
from agent_jobs.cli.session import Exit, Refusal, Session, create_refusal, json_option, run_in_session
from agent_jobs.cli.wording import describe_error
from agent_jobs.errors import AgentJobsError, ConfigError
from agent_jobs.settings.config_folder import find_config_file
from agent_jobs.settings.configuration import load_usable_settings
from agent_jobs.settings.declaration import Variable
from agent_jobs.settings.secret_values import hide_database_password
from agent_jobs.settings.settings import VARIABLES, Settings
from agent_jobs.settings.settings_file import NAMES, name_setting, read_settings_file
from agent_jobs.settings.values import KEY, SecretStr, drop_empty_variables
from agent_jobs.wiring.workers import read_tool_servers


def find_mistakes(settings: Settings, refused: list[str]) -> list[str]:
    """Return a sentence for each thing that is wrong with the settings.

    Args:
        settings: As far as they can be used.
        refused: The sentences for those that cannot.
    """
    mistakes = [*refused, *map(describe_error, settings.warnings)]
    error = try_open(replace(settings, log_level="error"))  # the log would repeat the error
    if error is not None:
        mistakes.append(describe_error(error))
    broken, odd = find_toolbox_mistakes(settings)
    return [*mistakes, *broken, *odd]


def find_toolbox_mistakes(settings: Settings) -> tuple[Sequence[str], Sequence[str]]:
    """Return why the file of tool servers cannot be used, and which parts of a usable one are ignored."""
    servers = read_tool_servers(settings)
    if servers is None:
        return (), ()
    broken = [describe_error(servers.broken)] if servers.broken else []
    return broken, servers.warnings


def try_open(settings: Settings) -> AgentJobsError | None:
    """Return why no engine can be opened with these settings, None if one can."""

    async def do_nothing(session: Session) -> None:
        pass

    try:
        run_in_session(do_nothing, role="acts", settings=settings)
    except Refusal as refusal:
        return refusal.error
    return None


@click.group("config", cls=NamedGroup, invoke_without_command=True)
@click.option("--all", "is_full", is_flag=True, help="Show the settings that have their defaults, too.")
@click.option("--explain", is_flag=True, help="Describe each setting and the values that it accepts.")
@json_option
@click.pass_context
def config_command(context: click.Context, is_full: bool, explain: bool, as_json: bool) -> None:
    """Show the settings and where they come from, or change the settings file.

    A terminal shows what is set and what matters first, a pipe and --json all settings. Of a secret
    only the last characters are shown. The environment takes precedence over --env-file, and that over the
    settings file, which hosts and terminal share.

    Exit status: 0 all settings are valid, 1 at least one is not, or has no effect.
    """
    if context.invoked_subcommand is not None:
        return
    settings, refused = load_usable_settings(os.environ)
    mistakes = find_mistakes(settings, refused)
    origins = _find_origins(settings)
    rows = {
        name: SettingRow(
            _show_value(settings, variable.field), origins[name], bool(_find_setting_refusal(name, refused))
        )
        for name, variable in VARIABLES.items()
    }
    if as_json:
        _write_rows_as_json(rows, mistakes, explain=explain)
    else:
        write_page(rows, mistakes, is_full=is_full, is_explained=explain)
    _leave_config(mistakes)


@config_command.command("get")
@click.argument("name", type=SettingName(), metavar="NAME")
@json_option
def get_command(name: str, as_json: bool) -> None:
    """Print the effective value of a setting.

    Exit status: 0 it has a value; 1 it has none, or the value is invalid; 2 wrong arguments.
    """
    variable = VARIABLES[NAMES[name]]
    settings, refused = load_usable_settings(os.environ)
    if refusal := _find_setting_refusal(variable.name, refused, "The settings file "):
        raise create_refusal(ConfigError(refusal))
    value = _show_value(settings, variable.field)
    if as_json:
        from agent_jobs.rendering import answers

        origin = _find_origins(settings)[variable.name]
        click.echo(answers.format_json_line({"name": name, "value": value, "from": origin}))
    elif value is not None:
        click.echo(_format_plain(value))
    else:
        click.echo(f"{name} is not set.", err=True)
        raise SystemExit(Exit.REFUSED)


for _command in (path_command, set_command, unset_command):
    config_command.add_command(_command)


def _find_setting_refusal(variable: str, refused: Sequence[str], *starts: str) -> str:
    """Return the first sentence that refuses this variable, or begins with one of `starts`; empty if there is none."""
    all_starts = (f"{variable} ", f"{name_setting(variable)} in ", *starts)
    return next((sentence for sentence in refused if sentence.startswith(all_starts)), "")


def _format_plain(value: Any) -> str:
    """Return a value in the form in which `config set` accepts it."""
    match value:
        case bool():
            return str(int(value))
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _leave_config(mistakes: Sequence[str]) -> NoReturn:
    raise SystemExit(Exit.REFUSED if mistakes else Exit.DONE)


def _write_rows_as_json(rows: Mapping[str, SettingRow], mistakes: Sequence[str], *, explain: bool) -> None:
    from agent_jobs.rendering import answers

    settings: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        settings[name] = {"value": row.value, "from": row.origin}
        if explain:
            settings[name] |= _describe_variable(VARIABLES[name])
    click.echo(answers.format_json_line({"settings": settings, "mistakes": mistakes}))


def _describe_variable(variable: Variable) -> dict[str, str]:
    """Return the description of a setting for programs."""
    description = {"about": variable.about, "takes": variable.accepts}
    if variable.page:
        description["docs"] = f"docs/{variable.page}"
    return description


def _find_origins(settings: Settings) -> dict[str, str]:
    """Return the source of each variable's value.

    A later source takes precedence: default, environment, --env-file, settings file, stored key, key file.
    """
    usable = drop_empty_variables(os.environ)
    unchanged = dict(find_env_file_variables().items() & os.environ.items())
    origins = dict.fromkeys(VARIABLES, "default")
    origins |= dict.fromkeys(usable, "environment")
    origins |= dict.fromkeys(usable.keys() & unchanged.keys(), "env file")
    origins |= dict.fromkeys(read_settings_file(find_config_file(os.environ)).list_added(os.environ), "config file")
    if settings.stored_key is not None:
        origins[KEY] = "stored"
    if settings.api_key_file is not None:
        origins[KEY] = "key file"
    return origins


def _show_value(settings: Settings, field: str) -> Any:
    """Return the value of a setting as `config` shows it."""
    value = _find_setting_value(settings, field)
    match value:
        case SecretStr():
            return mask_secret(value)
        case Path():
            return str(value)
        case _:
            return value


def _find_setting_value(settings: Settings, field: str) -> Any:
    """Return the value of a setting, or its default."""
    value = getattr(settings, field)
    match field:
        case "api_key" if settings.stored_key is not None and value is None:
            return "(in the keyring)"
        case "config":
            return find_config_file(os.environ)
        case "data_dir":
            return settings.data_path()
        case "model" if value is None:
            from agent_jobs.request.models import load_models

            return load_models()["default"]
        case _:
            return _format_several(field, value)


def _format_several(field: str, value: Any) -> Any:
    """Return a value of several parts as one text, without what may be secret in it; others as they are."""
    match field:
        case "base_url":
            return hide_query(value)
        case "database_url" | "database_listen_url":
            return hide_database_password(value)
        case "on_finish":
            return _hide_arguments(value)
        case "file_roots":
            text = os.pathsep.join(map(str, value))
        case "secrets":
            text = ", ".join(f"{name} {mask_secret(secret)}" for name, secret in value.items())
        case "notify" | "notify_events" | "callback_hosts" | "toolbox_owners":
            text = ", ".join(sorted(map(str, value)))
        case _:
            return value
    return text or None


def _hide_arguments(command: Sequence[str]) -> str | None:
    """Return a command without its arguments, which may be addresses with a secret in them."""
    match command:
        case []:
            return None
        case [program]:
            return program
        case _:
            return f"{command[0]} ..."


def hide_query(url: str) -> str:
    """Return an address without its query, which may hold a key."""
    address, query, _ = url.partition("?")
    if query:
        return f"{address}?..."
    return address
