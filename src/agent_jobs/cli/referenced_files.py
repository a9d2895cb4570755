"""Check that the files named by settings can be used."""

from collections.abc import Callable, Mapping
from pathlib import Path

from agent_jobs.settings.secret_values import read_key_file, read_password_file


def read_referenced_file(name: str, path: Path) -> None:
    """Read the file of a setting, by the name of the setting in the settings file; nothing if it names no file.

    Raises:
        ConfigError: The file cannot be used.
    """
    if name in READERS:
        READERS[name](path)


def _read_presets_file(path: Path) -> object:
    from agent_jobs.request.presets import load_presets

    return load_presets(path)


def _read_prices_file(path: Path) -> object:
    from agent_jobs.pricing.price_file import read_table

    return read_table(path)


def _read_toolbox_file(path: Path) -> object:
    from agent_jobs.toolbox.config import load_toolbox

    return load_toolbox(path)


#: By the name of a setting, what reads its file.
READERS: Mapping[str, Callable[[Path], object]] = {
    "api_key_file": read_key_file,
    "database_password_file": read_password_file,
    "presets": _read_presets_file,
    "prices": _read_prices_file,
    "toolbox": _read_toolbox_file,
}
