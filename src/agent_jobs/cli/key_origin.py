"""Find the key that is used, and where it comes from, without showing more than its end."""

import os
from pathlib import Path
from typing import Literal, NamedTuple

import click

from agent_jobs.settings.config_folder import find_key_folder
from agent_jobs.settings.configuration import load_usable_settings
from agent_jobs.settings.env_file import add_env_file
from agent_jobs.settings.secret_values import KEY_FILE
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.stored_keys import StoredKey, find_stored_key, name_endpoint, read_keyring
from agent_jobs.settings.values import KEY, SecretStr

#: Characters of a secret that are shown.
SHOWN_SECRET_CHARS = 4
#: Of a shorter secret nothing is shown, because its end would be too much of it.
MIN_SHOWN_SECRET_CHARS = 16

Origin = Literal["environment", "env file", "key file", "keyring", "file"]


class KeyInUse(NamedTuple):
    """A key with its origin."""

    secret: SecretStr
    origin: Origin
    where: str  #: continues a sentence after "from"

    @property
    def is_stored(self) -> bool:
        """Return True if `agent-jobs key set` stored it."""
        return self.origin in ("keyring", "file")


def mask_secret(secret: SecretStr) -> str:
    """Return the last characters of a secret; of a short one only that it is set."""
    text = secret.get_secret_value()
    if not text:
        return "(empty)"
    if not _can_show_end(secret):
        return "(set)"
    return f"...{text[-SHOWN_SECRET_CHARS:]}"


def name_key(secret: SecretStr) -> str:
    """Return the name of a key in a sentence: its end, or that it is too short to show one."""
    if _can_show_end(secret):
        return mask_secret(secret)
    return "a short key"


def add_key_end(words: str, secret: SecretStr) -> str:
    """Return words for a key, followed by its end if that may be shown."""
    if _can_show_end(secret):
        return f"{words}, {mask_secret(secret)}"
    return words


def find_key_in_use(base_url: str) -> KeyInUse | None:
    """Return the key that this terminal uses at this address.

    Raises:
        ConfigError: The key is stored, but cannot be read.
    """
    settings, _ = load_usable_settings({**os.environ, "OPENAI_BASE_URL": base_url})
    return find_key_of_settings(settings)


def find_key_of_settings(settings: Settings) -> KeyInUse | None:
    """Return the key that a process with these settings uses.

    Raises:
        ConfigError: The key is stored, but cannot be read.
    """
    if settings.stored_key is not None:
        return read_stored_key(settings.stored_key)
    if settings.api_key is None:
        return None
    return find_own_key(settings, settings.api_key)


def find_own_key(settings: Settings, secret: SecretStr) -> KeyInUse:
    """Return the key that the settings themselves have, with its origin."""
    if settings.api_key_file is not None:
        return KeyInUse(secret, "key file", f"{settings.api_key_file}, which {KEY_FILE} names")
    if find_env_file_variables().get(KEY, "").strip() == secret.get_secret_value():
        return KeyInUse(secret, "env file", f"{KEY} in {find_env_file()}")
    return KeyInUse(secret, "environment", f"{KEY} in the environment")


def find_other_key(base_url: str, used: KeyInUse | None) -> KeyInUse | None:
    """Return the stored key if it differs from the one that is used instead.

    Raises:
        ConfigError: It cannot be read.
    """
    if used is None or used.is_stored:
        return None
    stored = find_stored_key(find_key_folder(os.environ), base_url)
    if stored is None:
        return None
    other = read_stored_key(stored)
    if other.secret == used.secret:
        return None
    return other


def read_stored_key(stored: StoredKey) -> KeyInUse:
    """Return a stored key with its origin.

    Raises:
        ConfigError: The keyring that has it cannot be read.
    """
    if stored.secret is not None:
        return KeyInUse(stored.secret, "file", str(stored.path))
    return KeyInUse(read_keyring(stored.endpoint), "keyring", f"the system's keyring, for {stored.endpoint}")


def describe_stored_key(stored: StoredKey) -> str:
    """Return the place of a stored key."""
    if stored.is_in_keyring:
        return "the system's keyring"
    return f"{stored.path}, which only you can read"


def find_env_file() -> Path | None:
    """Return the file that --env-file names. Call it in the thread of a command."""
    path = click.get_current_context().find_root().params.get("env_file")
    if not path:
        return None
    return Path(path).absolute()


def find_env_file_variables() -> dict[str, str]:
    """Return the variables of the file that --env-file names."""
    path = find_env_file()
    if path is None:
        return {}
    return add_env_file({}, str(path))


def is_same_endpoint(one: str, other: str) -> bool:
    """Return True if two addresses have one endpoint, so that they share a key."""
    return name_endpoint(one) == name_endpoint(other)


def _can_show_end(secret: SecretStr) -> bool:
    return len(secret.get_secret_value()) >= MIN_SHOWN_SECRET_CHARS
