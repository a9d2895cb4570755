"""`agent-jobs config`: show the settings, where they come from and what is wrong with them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click

from agent_jobs.cli import terminal
from agent_jobs.cli.choice import NamedGroup
from agent_jobs.cli.config_edit import SettingName, path_command, set_command, unset_command
from agent_jobs.cli.key_origin import find_env_file_variables, mask_secret
from agent_jobs.cli.session import Exit, Refusal, Session, convert_errors, json_option, run_in_session
from agent_jobs.cli.wording import describe_error
from agent_jobs.config_folder import find_config_file
from agent_jobs.configuration import load_usable_settings
from agent_jobs.errors import AgentJobsError, ConfigError
from agent_jobs.secret_values import hide_database_password
from agent_jobs.setting_values import KEY, SecretStr, drop_empty_variables
from agent_jobs.settings import SUBJECTS, VARIABLES, Settings, Variable
from agent_jobs.settings_file import NAMES, read_settings_file
from agent_jobs.wiring.workers import read_tool_servers

#: Columns of the longest origin, `environment`.
ORIGIN_COLUMNS = 11
#: Columns of an explanation that goes into a pipe.
PIPE_COLUMNS = 100
EXPLANATION_INDENT = " " * 4


class _Row(NamedTuple):
    """A setting as `config` shows it."""

    value: Any
    origin: str


def find_mistakes(settings: Settings, refused: list[str]) -> list[str]:
    """Return a sentence for each thing that is wrong with the settings.

    Args:
        settings: As far as they can be used.
        refused: The sentences for those that cannot.
    """
    mistakes = [*refused, *settings.warnings]
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
    broken = [servers.broken] if servers.broken else []
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
@click.option("--explain", is_flag=True, help="Describe each setting and the values that it accepts.")
@json_option
@click.pass_context
def config_command(context: click.Context, explain: bool, as_json: bool) -> None:
    """Show the settings and where they come from, or change the settings file.

    Of a secret only the last characters are shown. The environment takes precedence over --env-file, and that over the
    settings file, which hosts and terminal share.

    Exit status: 0 all settings are valid, 1 at least one is not, or has no effect.
    """
    if context.invoked_subcommand is not None:
        return
    settings, refused = load_usable_settings(os.environ)
    mistakes = find_mistakes(settings, refused)
    origins = dict(zip(VARIABLES, _find_origins(settings), strict=True))
    rows = {name: _Row(_show_value(settings, variable.field), origins[name]) for name, variable in VARIABLES.items()}
    if as_json:
        _write_rows_as_json(rows, mistakes, explain=explain)
    else:
        _write_rows(rows, mistakes, explain=explain)
    _leave_config(mistakes)


@config_command.command("get")
@click.argument("name", type=SettingName(), metavar="NAME")
@json_option
def get_command(name: str, as_json: bool) -> None:
    """Print the value of a setting that is in force, wherever it comes from.

    Exit status: 0 it has a value; 1 it has none, or the value is invalid; 2 wrong arguments.
    """
    variable = VARIABLES[NAMES[name]]
    settings, refused = load_usable_settings(os.environ)
    with convert_errors():
        for sentence in refused:
            if sentence.startswith((f"{name} in ", f"{variable.name} ", "The settings file ")):
                raise ConfigError(sentence)
    value = _show_value(settings, variable.field)
    origin = dict(zip(VARIABLES, _find_origins(settings), strict=True))[variable.name]
    if as_json:
        from agent_jobs.rendering import answers

        click.echo(answers.format_json_line({"name": name, "value": value, "from": origin}))
    elif value is not None:
        click.echo(_format_plain(value))
    else:
        click.echo(f"{name} is not set.", err=True)
        raise SystemExit(Exit.REFUSED)


for _command in (path_command, set_command, unset_command):
    config_command.add_command(_command)


def _format_plain(value: Any) -> str:
    """Return a value in the form in which `config set` accepts it."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _leave_config(mistakes: Sequence[str]) -> NoReturn:
    raise SystemExit(Exit.REFUSED if mistakes else Exit.DONE)


def _write_rows_as_json(rows: Mapping[str, _Row], mistakes: Sequence[str], *, explain: bool) -> None:
    from agent_jobs.rendering import answers

    settings: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        settings[name] = {"value": row.value, "from": row.origin}
        if explain:
            settings[name] |= _describe_variable(VARIABLES[name])
    click.echo(answers.format_json_line({"settings": settings, "mistakes": mistakes}))


def _write_rows(rows: Mapping[str, _Row], mistakes: Sequence[str], *, explain: bool) -> None:
    name_columns = max(len(name) for name in rows)
    lines: dict[str, str] = {}
    for name, row in rows.items():
        value = "" if row.value is None else terminal.join_lines(str(row.value))
        lines[name] = f"{name:<{name_columns}}  {row.origin:<{ORIGIN_COLUMNS}}  {value}".rstrip()
    click.echo("\n".join(_explain_lines(lines) if explain else lines.values()))
    for sentence in mistakes:
        click.echo(f"\n{terminal.join_lines(sentence)}", err=True)


def _describe_variable(variable: Variable) -> dict[str, str]:
    """Return the description of a setting for programs."""
    description = {"about": variable.about, "takes": variable.accepts}
    if variable.page:
        description["docs"] = f"docs/{variable.page}"
    return description


def _explain_lines(lines: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of the settings by subject, each with its description below."""
    width = (terminal.find_width() or PIPE_COLUMNS) - len(EXPLANATION_INDENT)
    for number, (subject, variables) in enumerate(SUBJECTS.items()):
        if number:
            yield ""
        yield subject
        yield ""
        for name, variable in variables.items():
            yield lines[name]
            for line in terminal.wrap_lines(f"{variable.about} Accepts {variable.accepts}.", width):
                yield EXPLANATION_INDENT + line


def _find_origins(settings: Settings) -> Iterator[str]:
    """Yield where each variable's value comes from."""
    in_env_file = find_env_file_variables()
    usable = drop_empty_variables(os.environ)
    in_file = read_settings_file(find_config_file(os.environ)).list_added(os.environ)
    for name in VARIABLES:
        if name == KEY and settings.api_key_file is not None:
            yield "key file"
        elif name == KEY and settings.stored_key is not None:
            yield "stored"
        elif name in in_file:
            yield "config file"
        elif name not in usable:
            yield "default"
        elif in_env_file.get(name) == os.environ[name]:
            yield "env file"
        else:
            yield "environment"


def _show_value(settings: Settings, field: str) -> Any:
    """Return the value of a setting as `config` shows it."""
    value = _find_setting_value(settings, field)
    if isinstance(value, SecretStr):
        return mask_secret(value)
    if isinstance(value, Path):
        return str(value)
    return value


def _find_setting_value(settings: Settings, field: str) -> Any:
    """Return the value of a setting, or what is in force without it."""
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
        case "secrets":
            return ", ".join(f"{name} {mask_secret(secret)}" for name, secret in value.items()) or None
        case "file_roots":
            return os.pathsep.join(map(str, value)) or None
        case "base_url":
            return hide_query(value)
        case "database_url" | "database_listen_url":
            value = hide_database_password(value)
        case "on_finish":
            value = _hide_arguments(value)
        case "notify" | "notify_events" | "callback_hosts":
            return ", ".join(sorted(map(str, value))) or None
        case _:
            pass
    return value


def _hide_arguments(command: Sequence[str]) -> str | None:
    """Return a command without its arguments, which may be addresses with a secret in them."""
    if not command:
        return None
    if len(command) == 1:
        return command[0]
    return f"{command[0]} ..."


def hide_query(url: str) -> str:
    """Return an address without its query, which may hold a key."""
    address, query, _ = url.partition("?")
    if query:
        return f"{address}?..."
    return address
