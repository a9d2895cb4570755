"""Refuse what `config set` would write and nothing could use: the file is for hosts that show no warning."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent_jobs.cli.referenced_files import READERS, read_referenced_file
from agent_jobs.cli.wording import describe_error
from agent_jobs.errors import AgentJobsError, ConfigError, SettingWarning

#: Settings that are one word of another program.
WORDS = {"model": "gpt-6.1-sol", "org_id": "org-abc", "project_id": "proj_abc"}
FOLDERS = ("data_dir", "result_dir")
#: Characters that are no value by themselves.
SEPARATORS = f" \t\r\n,{os.pathsep}"
NOTHING_WRITTEN = "Nothing was written."


def refuse_empty(name: str, texts: Sequence[str]) -> None:
    """Check that there is a value.

    Raises:
        ConfigError: There is none.
    """
    if not "".join(texts).strip(SEPARATORS):
        raise ConfigError(f"{name} needs a value. `agent-jobs config unset {name}` removes the setting.")


def refuse_useless(name: str, text: str, warnings: Sequence[SettingWarning]) -> None:
    """Check that a text that a setting accepts can be used as it is.

    Args:
        name: The name of the setting in the file.
        text: The text of the user.
        warnings: The reader's remarks about it.

    Raises:
        ConfigError: It cannot.
    """
    if warnings:
        raise ConfigError(f"{describe_error(warnings[0])} {NOTHING_WRITTEN}")
    if not text.isprintable():
        raise ConfigError(f"{name} holds a line end or another control character. Write it on one line.")
    if name in CHECKS:
        CHECKS[name](name, text)


def _check_one_word(name: str, text: str) -> None:
    word = text.strip()
    if "://" in word:
        raise ConfigError(f"{name} accepts a name, and this is an address. `agent-jobs config set base_url` sets that.")
    if word.startswith("-") or len(word.split()) > 1:
        raise ConfigError(f"{name} accepts one word, such as {WORDS[name]}. {NOTHING_WRITTEN}")


def _check_folder(name: str, text: str) -> None:
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{name} names {path}, which is a file. Name a folder; it is created if it does not exist.")


def _check_setting_file(name: str, text: str) -> None:
    path = Path(text).expanduser()
    if path.is_dir():
        raise ConfigError(f"{name} names {path}, which is a folder. Name a file in it.")
    if not path.exists():
        raise ConfigError(f"{name} names {path}, which does not exist. Write that file first.")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"{name} names {path}, which you may not read. Change its permissions first.")
    try:
        read_referenced_file(name, path)
    except AgentJobsError as error:
        raise ConfigError(f"{describe_error(error)} {NOTHING_WRITTEN}") from None


#: By the name of a setting, what checks its text further.
CHECKS: Mapping[str, Callable[[str, str], None]] = {
    **dict.fromkeys(WORDS, _check_one_word),
    **dict.fromkeys(FOLDERS, _check_folder),
    **dict.fromkeys(READERS, _check_setting_file),
}
