"""Find the command with which a host starts this server on this machine."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from agent_jobs import __version__
from agent_jobs.install.hosts import SERVER
from agent_jobs.install.machine import Launch, Machine

#: Folders into which uv installs itself. They are not on the PATH of desktop apps and of some shells.
UVX_FOLDERS = (".local/bin", ".cargo/bin", "/opt/homebrew/bin", "/usr/local/bin")
#: The PATH of an app that was started from a desktop, by `sys.platform`.
DESKTOP_PATHS = {"darwin": "/usr/bin:/bin:/usr/sbin:/sbin"}
LINUX_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PINNED = Launch("uvx", (f"{SERVER}@{__version__}",))


def find_launch(machine: Machine) -> Launch:
    """Return uvx by its absolute path with the version that runs now; without uvx, the installation that runs now."""
    found = find_program("uvx", machine)
    if found is None:
        return Launch(sys.executable, ("-m", "agent_jobs"))
    source = _find_source()
    if source is None:
        return Launch(found, PINNED.args)
    return Launch(found, ("--from", source, SERVER))


def build_requirement() -> str:
    """Return the requirement that gives an installer the version that runs now."""
    return _find_source() or f"{SERVER}=={__version__}"


def find_program(name: str, machine: Machine) -> str | None:
    """Return the absolute path of uv, uvx or pipx, also outside a shell's PATH."""
    if machine.platform == "win32":
        name = f"{name}.exe"
    folders = [*_find_uv_folder(machine.environ), *(machine.home / folder for folder in UVX_FOLDERS)]
    path = os.pathsep.join([machine.environ.get("PATH", ""), *map(str, folders)])
    found = shutil.which(name, path=path)
    if found is None:
        return None
    return os.path.abspath(found)


def build_desktop_path(machine: Machine) -> str:
    """Return the PATH of an app that was started from a desktop."""
    if machine.platform == "win32":
        return machine.environ.get("PATH", "")
    return DESKTOP_PATHS.get(machine.platform, LINUX_PATH)


def _find_uv_folder(environ: Mapping[str, str]) -> list[Path]:
    """Return the folder of the uv that runs this; uv sets the variable UV."""
    uv = environ.get("UV")
    if not uv:
        return []
    return [Path(uv).parent]


def _find_source() -> str | None:
    """Return the folder, file or address that this program was installed from, None if that was PyPI."""
    try:
        origin = json.loads(metadata.distribution(SERVER).read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        return None
    address = str(origin.get("url", ""))
    if repository := origin.get("vcs_info"):
        return f"{repository['vcs']}+{address}@{repository['commit_id']}"
    url = urlsplit(address)
    if url.scheme == "file":
        return url2pathname(url.path)
    return address or None
