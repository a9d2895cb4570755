"""Store one API key for each endpoint: in the system's keyring, or in a file that only its owner can read.

A key is found by the scheme, host and port of the endpoint for which the user stored it, so it is sent to no other.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from agent_jobs.errors import ConfigError
from agent_jobs.files.text_file import BOM, explain_read_error
from agent_jobs.settings.key_mistakes import find_key_mistake
from agent_jobs.settings.secret_values import KEY_FILE_CHARS
from agent_jobs.settings.values import SecretStr, check_header
from agent_jobs.web_address import write_host

#: In the file in place of a key that is in the keyring, so that the keyring is asked only then.
IN_KEYRING = "keyring:agent-jobs"
KEYRING_SERVICE = "agent-jobs"
#: A keyring of lower priority is not recommended by its own package, for example because it is not encrypted.
MIN_KEYRING_PRIORITY = 1
USUAL_ENDPOINT = "api.openai.com"
DEFAULT_PORTS = {"https": 443, "http": 80}


class StoredKey(NamedTuple):
    """The key that is stored for an endpoint."""

    endpoint: str  #: as `name_endpoint` returns it
    path: Path
    secret: SecretStr | None  #: None if the keyring has it

    @property
    def is_in_keyring(self) -> bool:
        """Return True if the file only says that the keyring has the key."""
        return self.secret is None


def name_endpoint(base_url: str) -> str:
    """Return the endpoint of an address: its host, with what differs from HTTPS on its usual port."""
    parts = urlsplit(base_url)
    host = write_host((parts.hostname or "").rstrip("."))
    if parts.port not in (None, 0, DEFAULT_PORTS.get(parts.scheme)):
        host = f"{host}:{parts.port}"
    if parts.scheme == "https":
        return host
    return f"{parts.scheme}://{host}"


def find_stored_key(folder: str, base_url: str) -> StoredKey | None:
    """Return the key that is stored for the endpoint of this address, None without one.

    Raises:
        ConfigError: There is a file for it, which cannot be read or has no key. The sentence does not show its text.
    """
    endpoint = name_endpoint(base_url)
    path = os.path.join(folder, _name_key_file(endpoint))
    try:
        with open(path, "rb") as file:
            text = file.read(KEY_FILE_CHARS).decode().lstrip(BOM).strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _refuse_file(path, f"cannot be read ({explain_read_error(error)})", endpoint) from None
    if text == IN_KEYRING:
        return StoredKey(endpoint, Path(path), None)
    if not text:
        raise _refuse_file(path, "is empty", endpoint)
    mistake = find_key_mistake(text)
    if mistake is not None:
        raise _refuse_file(path, f"has no key: it {mistake.what}", endpoint)
    return StoredKey(endpoint, Path(path), SecretStr(check_header(f"The stored key {path}", text)))


def store_key(folder: str, base_url: str, key: str, *, use_keyring: bool) -> StoredKey:
    """Store the key for the endpoint of this address, in place of an earlier one.

    Args:
        folder: The folder of the stored keys.
        base_url: An address of the endpoint.
        key: The key, which was checked.
        use_keyring: Prefer the system's keyring, if there is one.

    Raises:
        ConfigError: It cannot be stored. The earlier key is unchanged.
    """
    from agent_jobs.files.private_file import lock_writers, write_private  # servers only read keys

    endpoint = name_endpoint(base_url)
    path = Path(folder, _name_key_file(endpoint))
    with lock_writers(path):
        if use_keyring and _write_to_keyring(endpoint, key):
            write_private(path, f"{IN_KEYRING}\n")
            return StoredKey(endpoint, path, None)
        was_in_keyring = _is_marked(path)
        write_private(path, f"{key}\n")
        if was_in_keyring:
            _delete_from_keyring(endpoint)
    return StoredKey(endpoint, path, SecretStr(key))


def delete_key(folder: str, base_url: str) -> Path | None:
    """Delete the key that is stored for the endpoint of this address; return its file, None if there was none.

    Raises:
        ConfigError: It cannot be deleted.
    """
    from agent_jobs.files.private_file import lock_writers  # servers only read keys

    endpoint = name_endpoint(base_url)
    path = Path(folder, _name_key_file(endpoint))
    if not os.path.lexists(path):
        return None
    with lock_writers(path):
        if _is_marked(path):
            _delete_from_keyring(endpoint)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                "{path} cannot be deleted ({cause}).", "key_not_deleted", path=path, cause=error.strerror
            ) from None
    return path


def list_endpoints(folder: str) -> list[str]:
    """Return the endpoints for which a key is stored."""
    return sorted(_read_file_name(path.name) for path in list_key_files(folder))


def list_key_files(folder: str) -> Iterator[Path]:
    """Yield the files of stored keys."""
    with suppress(OSError):
        yield from (Path(folder, name) for name in sorted(os.listdir(folder)) if not name.startswith("."))


def find_keyring() -> Any | None:
    """Return the module of the system's keyring if it is installed, and works here."""
    try:
        import keyring  # pyright: ignore[reportMissingImports]  # of the optional extra

        backend = keyring.get_keyring()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if backend.priority < MIN_KEYRING_PRIORITY:  # pyright: ignore[reportUnknownMemberType]
            return None
    except Exception:  # backends fail in ways of their own
        return None
    return keyring  # pyright: ignore[reportUnknownVariableType]


def read_keyring(endpoint: str) -> SecretStr:
    """Return the key that the keyring has for an endpoint. It may wait for the user to unlock the keyring.

    Raises:
        ConfigError: The keyring cannot be read here, or no longer has the key.
    """
    keyring = find_keyring()
    key: str | None = None
    if keyring is not None:
        with suppress(Exception):  # backends fail in ways of their own
            key = keyring.get_password(KEYRING_SERVICE, endpoint)
    if not key:
        raise refuse_keyring(endpoint)
    return SecretStr(key)


def refuse_keyring(endpoint: str) -> ConfigError:
    """Return the error of a keyring that has the key but does not give it."""
    return ConfigError(
        "The key for {endpoint} is in the system's keyring, which cannot be read from here.",
        "keyring_locked",
        endpoint=endpoint,
        command=f"agent-jobs key set --file{_format_endpoint_option(endpoint)}",
    )


def format_set_command(base_url: str, default_url: str) -> str:
    """Return the command that stores a key for the endpoint of this address."""
    if name_endpoint(base_url) == name_endpoint(default_url):
        return "agent-jobs key set"
    return f"agent-jobs key set --endpoint {base_url.partition('?')[0]}"


def _write_to_keyring(endpoint: str, key: str) -> bool:
    """Return True if the keyring took the key, and gives it back."""
    keyring = find_keyring()
    if keyring is None:
        return False
    try:
        keyring.set_password(KEYRING_SERVICE, endpoint, key)
        return keyring.get_password(KEYRING_SERVICE, endpoint) == key
    except Exception:  # backends fail in ways of their own
        return False


def _delete_from_keyring(endpoint: str) -> None:
    keyring = find_keyring()
    if keyring is not None:
        with suppress(Exception):  # another program may have deleted it
            keyring.delete_password(KEYRING_SERVICE, endpoint)


def _is_marked(path: Path) -> bool:
    """Return True if the file says that the keyring has the key."""
    with suppress(OSError):
        return path.read_bytes().strip() == IN_KEYRING.encode()
    return False


def _name_key_file(endpoint: str) -> str:
    """Return the name of the file for an endpoint: a valid name on every system, and no other endpoint's."""
    parts = endpoint.replace("://", ":").split(":")
    return "_".join(quote(part, safe="").replace("_", "%5F") for part in parts)


def _read_file_name(name: str) -> str:
    """Return the endpoint whose file has this name."""
    scheme, separator, rest = name.partition("_")
    if separator and scheme == "http":
        name = f"http://{rest}"
    return unquote(name.replace("_", ":"))


def _refuse_file(path: str, fault: str, endpoint: str) -> ConfigError:
    command = f"agent-jobs key set{_format_endpoint_option(endpoint)}"
    return ConfigError("The stored key {path} {fault}.", "stored_key_unusable", path=path, fault=fault, command=command)


def _format_endpoint_option(endpoint: str) -> str:
    """Return the option of `key set` that names an endpoint, empty for the usual one."""
    if endpoint == USUAL_ENDPOINT:
        return ""
    return f" --endpoint {endpoint}"
