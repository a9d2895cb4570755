"""`agent-jobs config set`, `unset` and `path`: change the settings file, and keep its comments and its order."""

import os
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from agent_jobs.cli.config_checks import refuse_empty, refuse_useless
from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.key_origin import find_env_file_variables
from agent_jobs.cli.session import convert_errors, json_option
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.errors import ConfigError, SettingWarning
from agent_jobs.files.private_file import lock_writers, write_private
from agent_jobs.files.text_file import explain_read_error, read_text
from agent_jobs.settings.config_folder import find_config_file
from agent_jobs.settings.settings import CONFIG, VARIABLES
from agent_jobs.settings.settings_file import NAMES, find_near_setting, find_setting, is_key_name, name_setting
from agent_jobs.settings.values import Written, drop_empty_variables, split_list

HEADER = "# Settings of agent-jobs for hosts and terminal. agent-jobs config --explain describes each.\n"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
#: The separator of the values of a setting that is a list in the file.
SEPARATORS = {"file_roots": os.pathsep, "secrets": ","}
#: Settings whose values may contain a secret, such as an address of Slack.
MAY_BE_SECRET = {"notify", "notify_secret", "on_finish"}
HIDDEN = "..."
PATH_START = "a path"  # of what a setting accepts
FOLDERS_START = "absolute folders"


class SettingName(click.ParamType[str]):
    """The name of a setting, as in the file or as its variable."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as the file has it; refuse another one with the nearest."""
        found = find_setting(value)
        if found is not None:
            return found
        if is_key_name(value):
            self.fail("The API key is not kept in the settings file. Store it with: agent-jobs key set", param, ctx)
        if name_setting(value.upper().replace("-", "_")) == name_setting(CONFIG):
            self.fail(f"The file cannot name itself. Set {CONFIG} in the environment.", param, ctx)
        near = find_near_setting(value)
        advice = "`agent-jobs config --explain` lists all."
        if near is not None:
            advice = f"Did you mean {near}?"
        self.fail(f"{value!r} is not a setting. {advice}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin with the typed text, with what they set."""
        return [
            CompletionItem(name, help=VARIABLES[variable].about)
            for name, variable in NAMES.items()
            if name.startswith(incomplete)
        ]


@click.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("name", type=SettingName(), metavar="NAME")
@click.argument("texts", nargs=-1, required=True, metavar="VALUE...")
@json_option
def set_command(name: str, texts: tuple[str, ...], as_json: bool) -> None:
    """Write a setting into the settings file, for hosts and terminal.

    NAME is a name of the file, such as max_wait_s, or a variable. A setting with several values takes them one after
    the other. Comments and order of the file stay.

    Exit status: 0 written; 1 refused, and nothing was written; 2 wrong arguments.
    """
    with convert_errors(), raise_on_ctrl_c():
        try:
            refuse_empty(name, texts)
            value = check_value(name, texts)
        except ConfigError as error:
            raise ConfigError(str(error).replace("Correct it or remove it.", "Nothing was written.")) from None
        path = write_setting(name, value)
    _report_change(name, value, path, as_json=as_json)


@click.command("unset")
@click.argument("name", metavar="NAME")
@json_option
def unset_command(name: str, as_json: bool) -> None:
    """Remove a setting from the settings file, also one that is misspelt there.

    Exit status: 0 removed, or it was not there; 1 refused.
    """
    path = Path(find_config_file(os.environ))
    removed: dict[str, None] = {}

    def remove(document: Any) -> None:
        for each in (name, find_setting(name)):
            if each is not None and each in document:
                del document[each]
                removed[each] = None

    with convert_errors(), raise_on_ctrl_c():
        if path.exists():
            edit_settings(path, remove)
    if as_json:
        return _print_json({"removed": list(removed), "file": str(path)})
    if not removed:
        return print_sentences(f"{name} is not set in {path}.")
    return print_sentences(f"Removed {', '.join(removed)} from {path}.")


@click.command("path")
def path_command() -> None:
    """Print the path of the settings file, which need not exist."""
    click.echo(find_config_file(os.environ))


def check_value(name: str, texts: Sequence[str]) -> Any:
    """Return the value as TOML has it.

    Raises:
        ConfigError: The setting does not accept it, or cannot use it.
    """
    variable = VARIABLES[NAMES[name]]
    reader = variable.reader
    parts = _split_values(name, texts)
    if reader.accepts.startswith((PATH_START, FOLDERS_START)):
        parts = [_make_path_absolute(part) for part in parts]
    text = parts[0]
    if len(parts) > 1:
        if reader.join is None:
            raise ConfigError(f"{name} accepts {reader.accepts}, and these are {len(texts)} values. Put it in quotes.")
        text = reader.join(parts)
    warnings: list[SettingWarning] = []
    value = reader.read(Written(name, text, variable.default, os.environ, warnings))
    refuse_useless(name, text, warnings)
    return _choose_toml_value(name, value, text, parts)


def _choose_toml_value(name: str, value: Any, text: str, parts: list[str]) -> Any:
    """Return the form in which the file has a value: a number or a switch by its type, several texts as a list."""
    match value:
        case bool():
            return value
        case int() | float() if NUMBER.fullmatch(text):
            return tomllib.loads(f"value = {text}")["value"]
        case _:
            if name in SEPARATORS or len(parts) > 1:
                return parts
            return text


def write_setting(name: str, value: Any) -> Path:
    """Put a checked value into the settings file; return its path.

    Raises:
        ConfigError: The file cannot be read or written. It is unchanged.
    """
    path = Path(find_config_file(os.environ))

    def put(document: Any) -> None:
        document[name] = value

    edit_settings(path, put)
    return path


def edit_settings(path: Path, change: Callable[[Any], None]) -> None:
    """Change the settings file as one of several writers; it is written in one step.

    Raises:
        ConfigError: It cannot be read or written, or its layout cannot be changed safely. It is unchanged.
    """
    import tomlkit

    with lock_writers(path):
        before = _read_before(path)
        try:
            document = tomlkit.parse(before)
            expected: dict[str, Any] = tomllib.loads(before)
        except ValueError as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"{path} is not valid TOML ({reason}). Correct it, then try again.") from None
        change(document)
        change(expected)
        after = tomlkit.dumps(document)  # pyright: ignore[reportUnknownMemberType]
        if tomllib.loads(after) != expected:
            raise ConfigError(f"The layout of {path} cannot be changed safely. Change it in an editor.")
        if after != before:
            write_private(path, after)


def _read_before(path: Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        return HEADER
    except (OSError, ValueError) as error:
        reason = explain_read_error(error, "it is not UTF-8")
        raise ConfigError(f"{path} cannot be read ({reason}). Correct it, then try again.") from None


def _split_values(name: str, texts: Sequence[str]) -> list[str]:
    """Return the single values of a setting, from one text with separators or from several."""
    separator = SEPARATORS.get(name)
    if separator is None:
        return list(texts)
    return split_list(separator.join(texts), separator) or list(texts)


def _make_path_absolute(text: str) -> str:
    """Return a path as seen from everywhere: hosts start the server in a folder of its own."""
    if not text.strip() or text.startswith("~"):
        return text
    return os.path.abspath(text)


def _report_change(name: str, value: Any, path: Path, *, as_json: bool) -> None:
    variable = NAMES[name]
    is_overruled = variable in drop_empty_variables(os.environ)
    shown = _format_toml(name, value)
    if name in MAY_BE_SECRET:
        value = shown = HIDDEN
    if as_json:
        return _print_json({"name": name, "value": value, "file": str(path), "in_force": not is_overruled})
    click.echo(f"{name} = {shown}")
    print_sentences(f"Written to {path}. Hosts read it when they start the server again.")
    if is_overruled:
        origin = "the environment"
        if variable in find_env_file_variables():
            origin = "--env-file"
        print_sentences(f"Here {origin} sets {variable}, which takes precedence.")
    return None


def _format_toml(name: str, value: Any) -> str:
    """Return a value as the file has it."""
    import tomlkit

    text = tomlkit.dumps({name: value})  # pyright: ignore[reportUnknownMemberType]
    return text.partition("=")[2].strip()


def _print_json(answer: dict[str, Any]) -> None:
    from agent_jobs.rendering import answers

    click.echo(answers.format_json_line(answer))
