"""A new user on a bare machine runs install for each host. Then the server starts as that host reads its file.

The package index does not have agent-jobs yet: the user's own uv.toml names the folder with the built wheel instead, so
that this version is installed as it will be from there.
"""

import json
import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hosts import script_prompt
from processes import Server
from test_package import wheel

from agent_jobs import __version__
from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.stored_keys import store_key

__all__ = ["wheel"]

#: `uv run` names itself in UV: what is on the PATH may be a script of pyenv, which takes longer than uvx.
UVX = shutil.which("uvx", path=os.pathsep.join((os.path.dirname(os.environ.get("UV", "")), os.environ["PATH"])))
KEY = "sk-the-users-own"
#: Variables that any user of this machine needs to reach a package index.
MACHINE = ("SSL_", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_PYTHON")
#: The PATH of an app that was started from a desktop.
DESKTOP_PATH = "/usr/bin:/bin"

pytestmark = pytest.mark.skipif(UVX is None, reason="the user has uv")


@dataclass(frozen=True)
class Reads:
    """The way in which a host reads its file, as its documentation describes it."""

    file: str
    servers: str
    reference: str | None = None  #: to a variable of the environment that the host was started in
    forwards: str | None = None  #: the key of the entry that lists such variables
    asks: str | None = None  #: what stands for an answer of the user


HOSTS = {
    "claude-desktop": Reads(".config/Claude/claude_desktop_config.json", "mcpServers"),
    "claude-code": Reads(".claude.json", "mcpServers", reference=r"\$\{(\w+)(?::-[^}]*)?\}"),
    "cursor": Reads(".cursor/mcp.json", "mcpServers", reference=r"\$\{env:(\w+)\}"),
    "vscode": Reads(".config/Code/User/mcp.json", "servers", asks=r"\$\{input:([\w-]+)\}"),
    "codex": Reads(".codex/config.toml", "mcp_servers", forwards="env_vars"),
}


@dataclass(frozen=True)
class User:
    """A home folder in which uv is set up, and the environment of a session."""

    home: Path
    environ: dict[str, str]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environ, cwd=self.home, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def read(self, host: Reads) -> dict[str, Any]:
        """Return the entry in the host's file, with the user's answers to the host's questions."""
        text = (self.home / host.file).read_text()
        document = tomllib.loads(text) if host.file.endswith(".toml") else json.loads(text)
        [entry] = document[host.servers].values()
        if host.asks:
            [question] = document["inputs"]
            assert question["password"] is True
            filled = re.sub(host.asks, lambda m: KEY if m[1] == question["id"] else "", json.dumps(entry))
            return json.loads(filled)
        return entry

    def build_environment(self, host: Reads, entry: dict[str, Any]) -> dict[str, str]:
        """Return the environment in which the host starts the server."""
        inherited = {name: self.environ[name] for name in self.environ if name != "OPENAI_API_KEY"}
        inherited |= {name: self.environ[name] for name in (entry[host.forwards] if host.forwards else ())}
        written: dict[str, str] = entry.get("env", {})
        if host.reference:
            pattern = host.reference
            written = {
                name: re.sub(pattern, lambda m: self.environ.get(m[1], ""), value) for name, value in written.items()
            }
        return inherited | written


@pytest.fixture
def user(tmp_path: Path, wheel: zipfile.ZipFile, upstream: RunningServer) -> User:
    assert wheel.filename is not None
    home = tmp_path / "home"
    (home / ".config/uv").mkdir(parents=True)
    (home / ".config/uv/uv.toml").write_text(f"find-links = [{json.dumps(str(Path(wheel.filename).parent))}]\n")
    kept = {
        name: value for name, value in os.environ.items() if name.startswith(MACHINE) or name.lower().endswith("_proxy")
    }
    return User(
        home,
        kept
        | {"UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache/uv")}
        | {"HOME": str(home), "PATH": DESKTOP_PATH, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url},
    )


@pytest.mark.parametrize("name", HOSTS)
def test_job_runs_through_the_entry_that_install_wrote(user: User, upstream: RunningServer, name: str) -> None:
    assert UVX is not None
    host, output = HOSTS[name], user.run(UVX, f"agent-jobs@{__version__}", "install", name)
    assert str(user.home / host.file) in output
    if name == "claude-desktop":
        assert "Next: Store your API key once, for all hosts: agent-jobs key set" in output
        store_key(str(user.home / ".config/agent-jobs/keys"), upstream.base_url, KEY, use_keyring=False)
    entry = user.read(host)
    assert (entry["command"], entry["args"]) == (str(user.home / ".local/bin/agent-jobs"), [])
    command, environ = [entry["command"], *entry["args"]], user.build_environment(host, entry)
    with subprocess.Popen(
        command, env=environ, cwd="/", text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            server = Server(process)
            assert server.initialize()["serverInfo"]["version"] == __version__
            job = server.call("agent_start", prompt=script_prompt("hello", {"duration_s": 1, "text": f"to {name}"}))
            assert server.call("agent_poll", job_id=job["job_id"])["output"] == f"to {name}"
            assert server.end() == 0
        finally:
            process.kill()
    assert (user.home / ".local/share/agent-jobs/jobs.db").is_file()
    assert upstream.emulator.counters()["creates"] == 1
    listed = json.loads(user.run(UVX, f"agent-jobs@{__version__}", "list", "--json"))
    assert listed["jobs"][0]["job_id"] == job["job_id"]
    user.run(UVX, f"agent-jobs@{__version__}", "uninstall", name)
    assert not os.path.lexists(entry["command"])
