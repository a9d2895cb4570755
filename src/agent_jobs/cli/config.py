"""`agent-jobs config`: what is in force, where it comes from, and what in it is wrong."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from agent_jobs.app import tool_servers
from agent_jobs.cli import terminal
from agent_jobs.cli.session import Exit, Refusal, Session, call, json_option
from agent_jobs.env_file import with_env_file
from agent_jobs.errors import AgentJobsError
from agent_jobs.settings import SUBJECTS, VARIABLES, SecretStr, Settings, Variable


def masked(secret: SecretStr | None) -> str | None:
    """The last four characters of a secret, where that gives little away."""
    if secret is None:
        return None
    text = secret.get_secret_value()
    return f"...{text[-4:]}" if len(text) >= 16 else "(set)" if text else "(empty)"


def mistakes(settings: Settings, refused: list[str]) -> list[str]:
    """What is wrong with the settings, in the words in which the tools tell it."""
    closed = opening(replace(settings, log_level="error"))  # the log would say it a second time
    broken, odd = toolbox_mistakes(settings)
    return [*refused, *settings.warnings, *([str(closed)] if closed else []), *broken, *odd]


def toolbox_mistakes(settings: Settings) -> tuple[Sequence[str], Sequence[str]]:
    """Return why the file of tool servers cannot be used, and what of one that can is not used."""
    servers = tool_servers(settings)
    if servers is None:
        return (), ()
    return [servers.broken] if servers.broken else [], servers.warnings


def opening(settings: Settings) -> AgentJobsError | None:
    """Why no engine can be opened with these settings: a file that one names, the database; None where it can."""

    async def opened(session: Session) -> None:
        pass

    try:
        call(opened, role="acts", settings=settings)
    except Refusal as refusal:
        return refusal.error
    return None


@click.command("config")
@click.option("--explain", is_flag=True, help="Say what each setting does and takes.")
@json_option
def config_command(explain: bool, as_json: bool) -> None:
    """Show what is set, and where it comes from.

    Of secrets only the end is shown.

    Exit status: 0 all of it can be used, 1 something cannot, or is not as it was meant.
    """
    settings, refused = Settings.forgiving(os.environ)
    wrong = mistakes(settings, refused)
    origins = dict(zip(VARIABLES, _origins(settings), strict=True))
    rows = {name: (_shown(settings, variable.field), origins[name]) for name, variable in VARIABLES.items()}
    if as_json:
        from agent_jobs.rendering import answers

        told = {name: {"value": value, "from": origin} for name, (value, origin) in rows.items()}
        if explain:
            told = {name: {**row, **_words(VARIABLES[name])} for name, row in told.items()}
        click.echo(answers.json_line({"settings": told, "mistakes": wrong}))
    else:
        width = max(len(name) for name in rows)
        lines = {
            name: f"{name:<{width}}  {origin:<11}  {terminal.line('' if value is None else str(value))}".rstrip()
            for name, (value, origin) in rows.items()
        }
        click.echo("\n".join(_explained(lines) if explain else lines.values()))
        for sentence in wrong:
            click.echo(f"\n{terminal.line(sentence)}", err=True)
    raise SystemExit(Exit.REFUSED if wrong else Exit.DONE)


def _words(variable: Variable) -> dict[str, str]:
    """What can be said of a setting, for programs."""
    more = {"docs": f"docs/{variable.page}"} if variable.page else {}
    return {"about": variable.about, "takes": variable.accepts, **more}


def _explained(lines: Mapping[str, str]) -> Iterator[str]:
    """Each setting's line by its subject, with what it does and takes below it."""
    width = terminal.columns() or 100
    for number, (subject, variables) in enumerate(SUBJECTS.items()):
        yield f"{chr(10) * bool(number)}{subject}\n"
        for name, variable in variables.items():
            yield lines[name]
            words = terminal.wrapped(f"{variable.about} Accepts {variable.accepts}.", width - 4)
            yield from (f"    {each}" for each in words)


def _origins(settings: Settings) -> Iterator[str]:
    """Where each variable has its value from."""
    env_file = click.get_current_context().find_root().params.get("env_file")
    written = with_env_file({}, env_file) if env_file else {}
    for name in VARIABLES:
        value = os.environ.get(name, "")
        if name == "OPENAI_API_KEY" and settings.api_key_file is not None:
            yield "key file"
        elif not value.strip():
            yield "default"
        else:
            yield "env file" if written.get(name) == value else "environment"


def _shown(settings: Settings, field: str) -> Any:
    value = getattr(settings, field)
    match field:
        case "data_dir":
            value = settings.data_path()
        case "model" if value is None:
            from agent_jobs.request.models import models

            value = models()["default"]
        case "secrets":
            return ", ".join(f"{name} {masked(secret)}" for name, secret in value.items()) or None
        case "file_roots":
            return os.pathsep.join(map(str, value)) or None
        case "base_url":
            return bare(value)
        case "on_finish":  # arguments may be addresses with a secret in them
            return " ".join([*value[:1], *["..."] * bool(value[1:])]) or None
        case _:
            pass
    if isinstance(value, SecretStr):
        return masked(value)
    return str(value) if isinstance(value, Path) else value


def bare(url: str) -> str:
    """An address without its query, in which a key may stand."""
    address, query, _ = url.partition("?")
    return address + ("?..." if query else "")
