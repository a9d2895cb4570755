"""Load the settings of the user: from the environment, then from the settings file, with the stored key."""

from collections.abc import Mapping
from dataclasses import replace

from agent_jobs.errors import ConfigError, SettingWarning
from agent_jobs.settings.config_folder import VARIABLE, find_config_file, find_key_folder
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.settings_file import SettingsFile, read_settings_file
from agent_jobs.settings.stored_keys import find_stored_key


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings. The environment takes precedence over the settings file, and over the stored key.

    Raises:
        ConfigError: A value cannot be used. The message names it, and what it accepts.
    """
    file = read_settings_file(find_config_file(environ))
    if file.refused:
        raise ConfigError(file.refused[0])
    added = file.list_added(environ)
    settings = Settings.from_env({**environ, **added}, file.label_variables(added))
    return _with_stored_key(_with_warnings(settings, file), environ)


def load_usable_settings(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Return the settings without the values that cannot be used, and a sentence for each of these."""
    file = read_settings_file(find_config_file(environ))
    added = file.list_added(environ)
    settings, more = Settings.from_env_leniently({**environ, **added}, file.label_variables(added))
    refused = [*file.refused, *more]
    settings = _with_warnings(settings, file)
    try:
        settings = _with_stored_key(settings, environ)
    except ConfigError as error:
        refused.append(str(error))
    return settings, refused


def _with_warnings(settings: Settings, file: SettingsFile) -> Settings:
    warnings = [*file.warnings, *settings.warnings]
    if settings.config is not None and not settings.config.exists():
        problem = "{name} names {path}, which does not exist."
        warnings.append(SettingWarning(problem, "missing_settings_file", name=VARIABLE, path=settings.config))
    return replace(settings, warnings=tuple(warnings))


def _with_stored_key(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Return the settings with the key that is stored for their endpoint, unless they have one."""
    if settings.api_key is not None:
        return settings
    stored = find_stored_key(find_key_folder(environ), settings.base_url)
    if stored is None:
        return settings
    return replace(settings, api_key=stored.secret, stored_key=stored)
