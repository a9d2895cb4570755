"""`agent-jobs config`: show the settings, where they come from and what is wrong with them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click

from agent_jobs.app import tool_servers
from agent_jobs.cli import terminal
from agent_jobs.cli.session import Exit, Refusal, Session, call, json_option
from agent_jobs.cli.wording import describe_error
from agent_jobs.env_file import with_env_file
from agent_jobs.errors import AgentJobsError
from agent_jobs.setting_values import SecretStr
from agent_jobs.settings import SUBJECTS, VARIABLES, Settings, Variable

#: Characters of a secret that are shown.
SHOWN_SECRET_CHARS = 4
#: Of a shorter secret nothing is shown, because its end would be too much of it.
MIN_SHOWN_SECRET_CHARS = 16
#: Columns of the longest origin, `environment`.
ORIGIN_COLUMNS = 11
#: Columns of an explanation that goes into a pipe.
PIPE_COLUMNS = 100
EXPLANATION_INDENT = " " * 4


class _Row(NamedTuple):
    """A setting as `config` shows it."""

    value: Any
    origin: str


def mask_secret(secret: SecretStr | None) -> str | None:
    """Return the last characters of a secret; of a short one only that it is set."""
    if secret is None:
        return None
    text = secret.get_secret_value()
    if not text:
        return "(empty)"
    if len(text) < MIN_SHOWN_SECRET_CHARS:
        return "(set)"
    return f"...{text[-SHOWN_SECRET_CHARS:]}"


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
    servers = tool_servers(settings)
    if servers is None:
        return (), ()
    broken = [servers.broken] if servers.broken else []
    return broken, servers.warnings


def try_open(settings: Settings) -> AgentJobsError | None:
    """Return why no engine can be opened with these settings, None if one can."""

    async def do_nothing(session: Session) -> None:
        pass

    try:
        call(do_nothing, role="acts", settings=settings)
    except Refusal as refusal:
        return refusal.error
    return None


@click.command("config")
@click.option("--explain", is_flag=True, help="Describe each setting and the values that it accepts.")
@json_option
def config_command(explain: bool, as_json: bool) -> None:
    """Show the settings and where they come from.

    Of a secret only the last characters are shown.

    Exit status: 0 all settings are valid, 1 at least one is not, or has no effect.
    """
    settings, refused = Settings.forgiving(os.environ)
    mistakes = find_mistakes(settings, refused)
    origins = dict(zip(VARIABLES, _find_origins(settings), strict=True))
    rows = {name: _Row(_show_value(settings, variable.field), origins[name]) for name, variable in VARIABLES.items()}
    if as_json:
        _write_rows_as_json(rows, mistakes, explain=explain)
    else:
        _write_rows(rows, mistakes, explain=explain)
    _leave_config(mistakes)


def _leave_config(mistakes: Sequence[str]) -> NoReturn:
    raise SystemExit(Exit.REFUSED if mistakes else Exit.DONE)


def _write_rows_as_json(rows: Mapping[str, _Row], mistakes: Sequence[str], *, explain: bool) -> None:
    from agent_jobs.rendering import answers

    settings: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        settings[name] = {"value": row.value, "from": row.origin}
        if explain:
            settings[name] |= _describe_variable(VARIABLES[name])
    click.echo(answers.json_line({"settings": settings, "mistakes": mistakes}))


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
    env_file = click.get_current_context().find_root().params.get("env_file")
    in_file = with_env_file({}, env_file) if env_file else {}
    for name in VARIABLES:
        value = os.environ.get(name, "")
        if name == "OPENAI_API_KEY" and settings.api_key_file is not None:
            yield "key file"
        elif not value.strip():
            yield "default"
        elif in_file.get(name) == value:
            yield "env file"
        else:
            yield "environment"


def _show_value(settings: Settings, field: str) -> Any:
    """Return the value of a setting as `config` shows it."""
    value = getattr(settings, field)
    match field:
        case "data_dir":
            value = settings.data_path()
        case "model" if value is None:
            from agent_jobs.request.models import models

            value = models()["default"]
        case "secrets":
            return ", ".join(f"{name} {mask_secret(secret)}" for name, secret in value.items()) or None
        case "file_roots":
            return os.pathsep.join(map(str, value)) or None
        case "base_url":
            return hide_query(value)
        case "on_finish":
            return _hide_arguments(value)
        case _:
            pass
    if isinstance(value, SecretStr):
        return mask_secret(value)
    return str(value) if isinstance(value, Path) else value


def _hide_arguments(command: Sequence[str]) -> str | None:
    """Return a command without its arguments, which may be addresses with a secret in them."""
    if not command:
        return None
    return command[0] if len(command) == 1 else f"{command[0]} ..."


def hide_query(url: str) -> str:
    """Return an address without its query, which may hold a key."""
    address, query, _ = url.partition("?")
    return f"{address}?..." if query else address
