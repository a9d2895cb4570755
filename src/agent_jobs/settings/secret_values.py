"""Read settings that hold secrets or name them, and the files with secrets."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from agent_jobs.errors import ConfigError, SettingWarning
from agent_jobs.files.text_file import BOM, explain_read_error, open_text
from agent_jobs.settings.key_mistakes import find_key_mistake
from agent_jobs.settings.values import Reader, SecretStr, Written, check_header, split_list
from agent_jobs.web_address import split_address

KEY_FILE = "AGENT_JOBS_API_KEY_FILE"
KEY_FILE_CHARS = 8192  # longer than any key, so that a path of another file is found out early


def secret_names() -> Reader:
    """Return the reader of the names of secrets. One that is not set is empty, and refused where it is used."""
    accepts = "names of environment variables, separated by commas"

    def read(written: Written) -> Mapping[str, SecretStr]:
        names = split_list(written.text)
        if not names or not all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in names):
            written.refuse(accepts, "Write names there, never their values.")
        return {name: SecretStr(check_header(name, written.env.get(name, ""))) for name in names}

    return Reader(accepts, read, dict[str, SecretStr], join=",".join)


def api_key() -> Reader:
    """Return the reader of the key. It is None if a file with the key is set, or if the host filled nothing in."""
    accepts = "the key alone"

    def read(written: Written) -> SecretStr | None:
        if KEY_FILE in written.env:
            return None  # the key comes from the file
        mistake = find_key_mistake(written.text)
        if mistake is None:
            return SecretStr(check_header(written.name, written.text))
        if mistake.is_unset:
            problem = "{name} {fault}."
            written.warnings.append(SettingWarning(problem, "unfilled_key", name=written.name, fault=mistake.what))
            return None
        raise ConfigError(f"{written.name} accepts {accepts}, and this {mistake.what}. {mistake.fix}")

    return Reader(accepts, read)


def read_key_file(path: Path) -> SecretStr:
    """Return the key on the first line of a file.

    Raises:
        ConfigError: The file cannot be read, or its first line is no key. The sentence does not show the line.
    """
    line = _read_first_line(path)
    if not line:
        _refuse_key_file(path, "is empty. Put the key there.")
    if len(line) == KEY_FILE_CHARS:
        _refuse_key_file(path, "is longer than any key. Put the key there.")
    mistake = find_key_mistake(line)
    if mistake is None:
        return SecretStr(check_header(KEY_FILE, line))
    fix = "Put the key itself there." if mistake.is_unset else mistake.fix
    _refuse_key_file(path, f"{mistake.what}. {fix}")


def read_owner_key(folder: Path | None, key_ref: str, environ: Mapping[str, str]) -> str:
    """Return the key that a reference names: a file in a folder, or with `env:NAME` an environment variable.

    Raises:
        ConfigError: There is no such key.
    """
    kind, _, name = key_ref.rpartition(":")
    text = ""
    if kind == "env":
        text = environ.get(name, "").strip()
    elif folder is not None and key_ref == Path(key_ref).name and key_ref not in (".", ".."):
        with suppress(OSError, ConfigError):
            text = _read_first_line(folder / key_ref)
    if not text or find_key_mistake(text) is not None:
        raise ConfigError("The key {key_ref!r} of this owner is missing.", "owner_key_missing", key_ref=key_ref)
    return text


def _refuse_key_file(path: Path, fault: str) -> NoReturn:
    raise ConfigError(f"{KEY_FILE} names {path}, whose first line {fault}")


def _read_first_line(path: Path) -> str:
    """Return the first line of a file, at most `KEY_FILE_CHARS` of it."""
    try:
        with open_text(path) as file:
            line = file.readline(KEY_FILE_CHARS).lstrip(BOM).strip()
            if file.encoding != "utf-8" and not line.isascii():
                raise ValueError  # its first bytes were no mark
    except (OSError, ValueError) as error:
        reason = explain_read_error(error)
        raise ConfigError(f"{KEY_FILE} names {path}, which cannot be read ({reason}). Put the key there.") from None
    return line


def database_url() -> Reader:
    """Return the reader of the address of a PostgreSQL database. No refusal shows it: it may hold a password."""
    accepts = "the address of a PostgreSQL database, like postgresql://USER@HOST/NAME"

    def read(written: Written) -> SecretStr:
        parts = split_address(written.text)
        if parts.scheme not in ("postgresql", "postgres") or parts.port == 0 or not _has_clear_password(parts):
            written.refuse(accepts, "In a password, write / as %2F, @ as %40, : as %3A and # as %23.")
        return SecretStr(written.text)

    return Reader(accepts, read)


def _has_clear_password(parts: SplitResult) -> bool:
    """Return False if a password may have been read as part of the host, the path or the parameters."""
    return parts.netloc.count("@") <= 1 and "@" not in "".join(parts[2:])


def hide_database_password(url: SecretStr | None) -> str | None:
    """Return the address of a database without its password and parameters."""
    if url is None:
        return None
    parts = urlsplit(url.get_secret_value())
    user, at, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return f"{parts.scheme}://{name}{at}{host}{parts.path}"


def read_password_file(path: Path) -> str:
    """Return the first line of a file with the password of a database.

    Raises:
        ConfigError: The file cannot be read. The sentence does not show what is in it.
    """
    try:
        with open_text(path) as file:
            return file.readline(KEY_FILE_CHARS).lstrip(BOM).rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = explain_read_error(error)
        raise ConfigError(
            f"AGENT_JOBS_DATABASE_PASSWORD_FILE names {path}, which cannot be read ({reason}). Put the password there."
        ) from None
