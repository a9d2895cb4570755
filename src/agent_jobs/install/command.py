"""The command with which a host starts this server on this machine."""

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
from agent_jobs.install.hosts import SERVER, Launch, Machine

#: Where uv puts itself; apps that were started from a desktop, and some shells, have none of these on their PATH.
UVX_FOLDERS = (".local/bin", ".cargo/bin", "/opt/homebrew/bin", "/usr/local/bin")
#: What an app that was started from a desktop finds programs in.
DESKTOP_PATHS = {"darwin": "/usr/bin:/bin:/usr/sbin:/sbin"}
LINUX_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PINNED = Launch("uvx", (f"{SERVER}@{__version__}",))


def launch(machine: Machine) -> Launch:
    """Uvx by its absolute path, and the version that runs now; without uvx, the installation that runs now."""
    found = find_program("uvx", machine)
    if found is None:
        return Launch(sys.executable, ("-m", "agent_jobs"))
    source = _source()
    return Launch(found, ("--from", source, SERVER) if source else PINNED.args)


def requirement() -> str:
    """Return what an installer has to install to get what runs now."""
    return _source() or f"{SERVER}=={__version__}"


def find_program(name: str, machine: Machine) -> str | None:
    """Return the absolute path of uv, uvx or pipx, also where a shell's PATH does not lead."""
    name = f"{name}.exe" if machine.platform == "win32" else name
    folders = [*_beside_uv(machine.environ), *(machine.home / folder for folder in UVX_FOLDERS)]
    path = os.pathsep.join([machine.environ.get("PATH", ""), *map(str, folders)])
    found = shutil.which(name, path=path)
    return os.path.abspath(found) if found else None


def desktop_path(machine: Machine) -> str:
    """The PATH of an app that was started from a desktop."""
    if machine.platform == "win32":
        return machine.environ.get("PATH", "")
    return DESKTOP_PATHS.get(machine.platform, LINUX_PATH)


def _beside_uv(environ: Mapping[str, str]) -> list[Path]:
    """The folder of the uv that runs this, which says so itself."""
    return [Path(environ["UV"]).parent] if environ.get("UV") else []


def _source() -> str | None:
    """The folder, file or address that this program was installed from, None if that was the package index."""
    try:
        origin = json.loads(metadata.distribution(SERVER).read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        return None
    address = str(origin.get("url", ""))
    if repository := origin.get("vcs_info"):
        return f"{repository['vcs']}+{address}@{repository['commit_id']}"
    url = urlsplit(address)
    return url2pathname(url.path) if url.scheme == "file" else address or None
