"""Read the settings file, `config.toml`, whose values apply to settings that the environment does not set."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, cast

from agent_jobs.errors import ConfigError, SettingWarning
from agent_jobs.files.text_file import explain_read_error, read_text
from agent_jobs.settings.secret_values import KEY_FILE
from agent_jobs.settings.settings import CONFIG, DEFAULT_BASE_URL, VARIABLES
from agent_jobs.settings.stored_keys import name_endpoint
from agent_jobs.settings.values import KEY, PATH_WORDS, SWITCH_VALUES, YES_OR_NO, drop_empty_variables
from agent_jobs.settings.variable_names import PREFIX, misnamed_warning, unknown_warning
from agent_jobs.text import nearest

BASE_URL = "OPENAI_BASE_URL"
#: Names, in the form of `squeeze_name`, that a user may give the key.
KEY_NAMES = {"APIKEY", "OPENAIAPIKEY", "OPENAIKEY", "KEY", "TOKEN", "APITOKEN", "SECRET", "SECRETKEY"}


#: The words for TOML's false and true, by what the setting accepts.
_SWITCH_WORDS = {YES_OR_NO: ("no", "yes"), SWITCH_VALUES: ("0", "1")}


def name_setting(variable: str) -> str:
    """Return the name of a variable's setting in the settings file."""
    return variable.removeprefix(PREFIX).removeprefix("OPENAI_").lower()


#: Each variable that the file can set, by its name there. Keys are stored apart, and the file cannot name itself.
NAMES: Mapping[str, str] = {name_setting(name): name for name in VARIABLES if name not in (KEY, CONFIG)}


class SettingsFile(NamedTuple):
    """The content of a settings file."""

    path: Path
    variables: Mapping[str, str] = {}  #: the values as the environment would have them
    warnings: tuple[SettingWarning, ...] = ()
    refused: tuple[str, ...] = ()  #: a sentence for each value that no setting has; or why the file cannot be read

    def list_added(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of this file that an environment does not set."""
        usable = drop_empty_variables(environ)
        added = {name: text for name, text in self.variables.items() if name not in usable}
        if KEY_FILE in added and not self._may_use_key_file(usable):
            del added[KEY_FILE]
        return added

    def label_variables(self, added: Iterable[str]) -> dict[str, str]:
        """Return the name of each variable of the file in a refusal."""
        return {variable: f"{name_setting(variable)} in {self.path}" for variable in added}

    def _may_use_key_file(self, usable: Mapping[str, str]) -> bool:
        """Return True unless the environment has a key, or another endpoint than the file's key."""
        ours = self.variables.get(BASE_URL, DEFAULT_BASE_URL)
        return KEY not in usable and _is_same_endpoint(usable.get(BASE_URL, ours), ours)


def read_settings_file(path: str) -> SettingsFile:
    """Return what the file says; nothing if there is no file. A name that is no setting becomes a warning."""
    try:
        text = read_text(Path(path))
    except FileNotFoundError:
        return SettingsFile(Path(path))
    except (OSError, ValueError) as error:
        reason = explain_read_error(error, "it is not UTF-8")
        fault = f"The settings file {path} cannot be read ({reason}). Correct it or move it away."
        return SettingsFile(Path(path), refused=(fault,))
    return parse_settings(text, Path(path))


def parse_settings(text: str, path: Path) -> SettingsFile:
    """Return what the text of a settings file says; see `read_settings_file`."""
    import tomllib  # most users have no such file

    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        fault = f'The settings file {path} is not valid TOML ({reason}). Write each setting as name = "value".'
        return SettingsFile(path, refused=(fault,))
    known: dict[str, str] = {}
    refused: list[str] = []
    for name in values.keys() & NAMES.keys():
        try:
            known[NAMES[name]] = format_value(name, values[name], path)
        except ConfigError as error:
            refused.append(str(error))
    warnings = tuple(_warn_of_unknown_names(values.keys() - NAMES.keys(), path))
    return SettingsFile(path, known, warnings, tuple(sorted(refused)))


def may_lack_address(refused: Iterable[str]) -> bool:
    """Return True if a refused setting may be the address, so that another one would be asked with the key."""
    starts = ("The settings file ", f"{name_setting(BASE_URL)} in ", BASE_URL)
    return any(sentence.startswith(starts) for sentence in refused)


def find_setting(written: str) -> str | None:
    """Return the name of the setting that a user wrote in another form, such as that of its variable."""
    name = name_setting(written.strip().upper().replace("-", "_"))
    if name in NAMES:
        return name
    return None


def find_near_setting(written: str) -> str | None:
    """Return the name of the setting that a user probably meant."""
    return find_setting(written) or nearest(name_setting(written.upper().replace("-", "_")), NAMES)


def is_key_name(written: str) -> bool:
    """Return True if a user means the API key by this name."""
    return written.upper().replace("-", "").replace("_", "").strip() in KEY_NAMES


def format_value(name: str, value: Any, path: Path) -> str:
    """Return a value of the file as the environment would have it.

    Raises:
        ConfigError: No setting has values of this form.
    """
    reader = VARIABLES[NAMES[name]].reader
    match value:
        case bool():
            return _format_switch(reader.accepts, is_on=value)
        case int() | float():
            return str(value)
        case str() if reader.accepts == PATH_WORDS:
            return _anchor_in_folder(value, path)
        case str():
            return value
        case _:
            if reader.join is not None and _is_list_of_texts(value):
                return reader.join(value)
    raise ConfigError(f"{name} in {path} accepts {reader.accepts}. Correct it or remove it.")


def _is_list_of_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(part, str) for part in cast("list[Any]", value))


def _format_switch(accepts: str, *, is_on: bool) -> str:
    """Return the word of a setting for TOML's true or false."""
    return _SWITCH_WORDS.get(accepts, ("false", "true"))[is_on]


def _anchor_in_folder(text: str, path: Path) -> str:
    """Return a path of the file as seen from everywhere: a host starts the server in a folder of its own."""
    if not text.strip() or text.startswith("~") or os.path.isabs(text):
        return text
    return str(path.parent / text)


def _warn_of_unknown_names(names: Iterable[str], path: Path) -> Iterator[SettingWarning]:
    """Yield a warning for each name that is no setting. No value is shown."""
    for name in sorted(names):
        if is_key_name(name):
            problem = "{path} holds an API key, which is not used."
            yield SettingWarning(problem, "key_in_settings_file", path=path, name=name)
            continue
        written, near = f"{name!r} in {path}", find_near_setting(name)
        if near is None:
            yield unknown_warning(written)
        else:
            yield misnamed_warning(written, near)


def _is_same_endpoint(one: str, other: str) -> bool:
    try:
        return name_endpoint(one) == name_endpoint(other)
    except ValueError:  # its own reader refuses it
        return False
