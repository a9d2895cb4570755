"""What the environment says, read once and handed down as values."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from pydantic import SecretStr

from agent_jobs.errors import ConfigError
from agent_jobs.job import Mode

DEFAULT_BASE_URL = "https://api.openai.com/v1"
AUTH_STYLES = ("auto", "bearer", "api-key")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a person can set. `None` means that the program chooses or does without."""

    api_key: SecretStr | None = None
    base_url: str = DEFAULT_BASE_URL
    organization: str | None = None
    project: str | None = None
    auth: str = "auto"
    model: str | None = None
    data_dir: Path | None = None
    file_roots: tuple[Path, ...] = ()
    max_wait_s: float = 45.0
    start_timeout_s: float = 120.0
    follow: int = 200
    max_concurrent: int = 10
    job_timeout_s: float = 10_800.0
    mode: Mode | Literal["auto"] = "auto"
    resubmit: str = "never"
    retention_days: float = 30.0
    log_level: str = "warning"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings from environment variables; an empty one counts as not set.

        Raises:
            ConfigError: A value cannot be used; the message names the variable and what it takes.
        """
        env = {name: value.strip() for name, value in environ.items() if value.strip()}
        key = _header(env, "OPENAI_API_KEY")
        return cls(
            api_key=SecretStr(key) if key else None,
            base_url=_url(env, "OPENAI_BASE_URL", DEFAULT_BASE_URL),
            organization=_header(env, "OPENAI_ORG_ID"),
            project=_header(env, "OPENAI_PROJECT_ID"),
            auth=_one_of(env, "AGENT_JOBS_AUTH", AUTH_STYLES, "auto"),
            model=env.get("AGENT_JOBS_MODEL"),
            data_dir=_folder(env, "AGENT_JOBS_DATA_DIR"),
            file_roots=_folders(env, "AGENT_JOBS_FILE_ROOTS"),
            max_wait_s=_seconds(env, "AGENT_JOBS_MAX_WAIT_S", 45.0, 1.0, 3600.0),
            start_timeout_s=_seconds(env, "AGENT_JOBS_START_TIMEOUT_S", 120.0, 1.0, 900.0),
            max_concurrent=_whole(env, "AGENT_JOBS_MAX_CONCURRENT", 10),
            job_timeout_s=_seconds(env, "AGENT_JOBS_JOB_TIMEOUT_S", 10_800.0, 1.0, 7 * 86_400.0),
            mode=cast("Mode", _one_of(env, "AGENT_JOBS_MODE", ("auto", *get_args(Mode)), "auto")),
            resubmit=_one_of(env, "AGENT_JOBS_RESUBMIT", ("never", "once"), "never"),
            retention_days=_seconds(env, "AGENT_JOBS_RETENTION_DAYS", 30.0, 1.0, 3650.0, unit="days"),
            follow=_follow(env, "AGENT_JOBS_FOLLOW", 200),
            log_level=_one_of(env, "AGENT_JOBS_LOG_LEVEL", LOG_LEVELS, "warning"),
        )

    def data_path(self) -> Path:
        """The folder of the database, the locks and the log."""
        if self.data_dir is not None:
            return self.data_dir
        import platformdirs  # not needed to answer `initialize`

        return Path(platformdirs.user_data_dir("agent-jobs", appauthor=False))


def _header(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name)
    if value is not None and not (value.isascii() and value.isprintable()):
        raise ConfigError(
            f"{name} holds characters that no header can carry: copy it again, without what is around it."
        )
    return value


def _folder(env: Mapping[str, str], name: str) -> Path | None:
    try:
        return Path(env[name]).expanduser() if name in env else None
    except RuntimeError:
        raise ConfigError(f"{name} begins with a home folder that does not exist: write the whole path.") from None


def _folders(env: Mapping[str, str], name: str) -> tuple[Path, ...]:
    """Absolute folders that exist, each once, in their order."""
    written = [part.strip() for part in env.get(name, "").split(os.pathsep) if part.strip()]
    folders = [folder for part in written if (folder := _folder({name: part}, name))]
    for folder in folders:
        if not folder.is_absolute():
            raise ConfigError(f"{name} takes folders from / on, with {os.pathsep!r} between them: one is not absolute.")
        if not os.path.isdir(folder):
            raise ConfigError(f"{name} names {folder}, which is no folder: set it to folders that exist.")
    return tuple(dict.fromkeys(folders))


def _url(env: Mapping[str, str], name: str, default: str) -> str:
    url = env.get(name, default)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"{name} is not a web address: set it to something like {DEFAULT_BASE_URL}.")
    return url


def _seconds(
    env: Mapping[str, str], name: str, default: float, least: float, most: float, unit: str = "seconds"
) -> float:
    try:
        seconds = float(env.get(name, default))
    except ValueError:
        seconds = -1.0
    if not least <= seconds <= most:
        raise ConfigError(f"{name} takes {unit} from {least:g} to {most:g}; without it {default:g} are used.")
    return seconds


def _follow(env: Mapping[str, str], name: str, default: int) -> int:
    value = env.get(name, "auto").lower()
    if value in ("auto", "never"):
        return default if value == "auto" else 0
    try:
        return _whole(env, name, default, least=0)
    except ConfigError:
        raise ConfigError(f"{name} takes auto, never, or how many streams to read at once, up to 9999.") from None


def _whole(env: Mapping[str, str], name: str, default: int, least: int = 1) -> int:
    value = env.get(name, str(default))
    if not (value.isascii() and value.isdecimal() and least <= int(value[:5]) <= 9999):
        raise ConfigError(f"{name} takes a whole number from {least} to 9999; without it {default} is used.")
    return int(value)


def _one_of(env: Mapping[str, str], name: str, values: tuple[str, ...], default: str) -> str:
    value = env.get(name, default).lower()
    if value not in values:
        raise ConfigError(f"{name} takes one of {', '.join(values)}.")
    return value
