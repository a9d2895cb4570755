"""Say that no API key is set, and which command sets one. Pure."""

from agent_jobs.errors import ConfigError
from agent_jobs.settings.settings import DEFAULT_BASE_URL, Settings
from agent_jobs.settings.stored_keys import format_set_command, name_endpoint


def missing_key_error(settings: Settings) -> ConfigError:
    """Return the error that no key is set for the endpoint, with the command that sets one."""
    command = format_set_command(settings.base_url, DEFAULT_BASE_URL)
    endpoint = ""
    if command != format_set_command(DEFAULT_BASE_URL, DEFAULT_BASE_URL):
        endpoint = f" for {name_endpoint(settings.base_url)}"
    problem = " ".join((f"No API key is set{endpoint}.", *map(str, settings.warnings)))
    return ConfigError("{problem}", "no_key", problem=problem, command=command)
