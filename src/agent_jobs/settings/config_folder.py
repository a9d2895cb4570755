"""Find the folder of the user's settings and keys. A host's first answer waits for it, so only `os` is imported."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing `typing` costs a fifth of the time to the server's first answer
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "AGENT_JOBS_CONFIG"
FILE_NAME = "config.toml"
PROGRAM = "agent-jobs"


def find_config_file(environ: Mapping[str, str]) -> str:
    """Return the path of the settings file, which need not exist.

    `AGENT_JOBS_CONFIG` names it. Without the variable it is in the user's configuration folder.
    """
    named = environ.get(VARIABLE, "").strip()
    if not named or named.startswith("${"):  # a reference that the host did not fill in
        return os.path.join(_find_user_folder(environ), PROGRAM, FILE_NAME)
    return _expand_home(named, environ)


def find_key_folder(environ: Mapping[str, str]) -> str:
    """Return the folder of the stored keys, which is beside the settings file."""
    return os.path.join(os.path.dirname(find_config_file(environ)), "keys")


def is_default_place(environ: Mapping[str, str]) -> bool:
    """Return True if a host that passes on nothing but the home folder finds the same settings file."""
    names = ("HOME", "USERPROFILE", "LOCALAPPDATA")
    bare = {name: environ[name] for name in names if name in environ}
    return find_config_file(environ) == find_config_file(bare)


def _find_user_folder(environ: Mapping[str, str]) -> str:
    if sys.platform == "win32":  # pragma: no cover
        local = environ.get("LOCALAPPDATA", "").strip()
        return local or _expand_home("~/AppData/Local", environ)
    folder = environ.get("XDG_CONFIG_HOME", "").strip()
    if os.path.isabs(folder):  # the specification ignores a relative one
        return folder
    return _expand_home("~/.config", environ)


def _expand_home(path: str, environ: Mapping[str, str]) -> str:
    """Return a path with the home folder of this environment, which may be a host's."""
    home = environ.get("HOME", "").strip()
    if home and (path == "~" or path.startswith("~/")) and sys.platform != "win32":
        return home + path[1:]
    return os.path.expanduser(path)
