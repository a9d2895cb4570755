"""What the written entry starts: a permanent program, installed by uv or pipx and taken out again.

The installers are scripts: what they do with the package index is theirs, and tests need no network.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent_jobs import __version__
from agent_jobs.cli.main import cli
from agent_jobs.install.config_file import locate
from agent_jobs.install.entry import entry_in
from agent_jobs.install.hosts import HOSTS, Launch, Machine

PINNED = f"agent-jobs=={__version__}"
#: What uv and pipx do with our package, in the folder that they are in. `{folder}/fails` has them fail.
PROGRAM = '#!/bin/sh\\necho "agent-jobs, version %s"\\n'
INSTALLER = """#!/bin/sh
here={folder}
echo "$(basename $0) $*" >> $here/log
put() {{
    if [ -f $here/fails ] || [ -f $here/fails-$1 ]; then printf 'error: first\\n\\nNo route to host.\\n' >&2; exit 2; fi
    mkdir -p $here/tools/agent-jobs $here/programs
    printf '{program}' "$(cat $here/version)" > $here/programs/agent-jobs
    chmod 755 $here/programs/agent-jobs
}}
case "$*" in
    "tool dir --bin" | *PIPX_BIN_DIR) echo $here/programs ;;
    "tool dir" | *PIPX_LOCAL_VENVS) echo $here/tools ;;
    "tool install"*"--offline") put offline ;;
    "tool install"* | "install"*) put online ;;
    "tool uninstall"* | "uninstall"*) rm -r $here/tools/agent-jobs $here/programs/agent-jobs ;;
    *) exit 2 ;;
esac
"""


@dataclass(frozen=True)
class Tools:
    """A person who runs agent-jobs from a temporary environment, and the installers they have."""

    home: Path
    folder: Path

    def have(self, *names: str) -> None:
        for name in names:
            file = self.folder / name
            file.write_text("#!/bin/sh\n" if name == "uvx" else INSTALLER.format(folder=self.folder, program=PROGRAM))
            file.chmod(0o755)

    @property
    def program(self) -> Path:
        return self.folder / "programs/agent-jobs"

    @property
    def changes(self) -> list[str]:
        """What was installed and removed, in order."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if "install" in line]

    def installed_before(self, version: str) -> None:
        self.program.parent.mkdir()
        self.program.write_text(PROGRAM.replace("\\n", "\n") % version)
        self.program.chmod(0o755)
        (self.folder / "tools/agent-jobs").mkdir(parents=True)

    def run(self, *arguments: str, status: int = 0) -> Result:
        quick = ["--no-check"] if arguments[0] == "install" else []
        result = CliRunner().invoke(cli, [*arguments, *quick])
        assert result.exit_code == status, (result.output, result.exception)
        return result

    def started_by(self, host: str) -> Launch:
        machine = Machine("linux", self.home, {}, self.home)
        entry = entry_in(HOSTS[host], locate(HOSTS[host], machine, "user").read_text())
        assert entry is not None
        return HOSTS[host].command_of(entry)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    for name in ("XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME", "UV"):
        monkeypatch.delenv(name, raising=False)
    tools = Tools(tmp_path / "home", tmp_path / "bin")
    tools.home.mkdir()
    tools.folder.mkdir()
    (tools.folder / "version").write_text(__version__)
    monkeypatch.chdir(tools.home)
    monkeypatch.setenv("HOME", str(tools.home))
    monkeypatch.setenv("PATH", f"{tools.folder}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "cache/uv/archive-v0/abc"))
    monkeypatch.setattr("agent_jobs.install.command._source", lambda: None)
    monkeypatch.setattr("agent_jobs.install.command.UVX_FOLDERS", ())
    return tools


@pytest.mark.parametrize(
    ("names", "command", "undone"),
    [
        (("uv", "uvx"), f"uv tool install {PINNED} --offline", "uv tool uninstall agent-jobs"),
        (("pipx",), f"pipx install --force {PINNED}", "pipx uninstall agent-jobs"),
        (("uv", "uvx", "pipx"), f"uv tool install {PINNED} --offline", "uv tool uninstall agent-jobs"),
    ],
)
def test_the_program_is_installed_for_good_and_goes_with_the_last_entry(
    tools: Tools, names: tuple[str, ...], command: str, undone: str
):
    tools.have(*names)
    said = tools.run("install", "codex").stdout
    assert tools.changes == [command]
    assert f"is installed at {tools.program} ({command.removesuffix(' --offline')})." in said
    assert tools.started_by("codex") == Launch(str(tools.program), ())
    assert tools.run("install", "codex").stdout.startswith("Nothing to do")
    assert "is installed" not in tools.run("install", "cursor").output
    assert f"stays, because {tools.home}/.cursor/mcp.json starts it" in tools.run("uninstall", "codex").stdout
    assert f"would be removed ({undone})" in tools.run("uninstall", "cursor", "--dry-run").stdout
    assert (tools.changes, tools.program.exists()) == ([command], True)
    assert f"{tools.program} was removed ({undone})." in tools.run("uninstall", "cursor").stdout
    assert (tools.changes, tools.program.exists()) == ([command, undone], False)


def test_without_the_network_cache_the_index_is_asked(tools: Tools):
    tools.have("uv", "uvx")
    (tools.folder / "fails-offline").touch()
    tools.run("install", "codex")
    assert tools.changes == [f"uv tool install {PINNED} --offline", f"uv tool install {PINNED}"]
    assert tools.started_by("codex") == Launch(str(tools.program), ())


@pytest.mark.parametrize("names", [("uv", "uvx"), ("pipx", "uvx"), ("pipx",)])
def test_a_failed_installation_is_said_in_a_sentence_and_the_entry_works(tools: Tools, names: tuple[str, ...]):
    tools.have(*names)
    (tools.folder / "fails").touch()
    said = tools.run("install", "codex").stdout
    assert f"{PINNED} failed (No route to host), so the entry starts" in said
    assert tools.started_by("codex") == (
        Launch(str(tools.folder / "uvx"), (f"agent-jobs@{__version__}",))
        if "uvx" in names
        else Launch(sys.executable, ("-m", "agent_jobs"))
    )


def test_a_program_of_another_version_than_was_asked_for_is_not_trusted(tools: Tools):
    tools.have("uv", "uvx")
    (tools.folder / "version").write_text("0.0.1")
    assert "does not exist or does not start" in tools.run("install", "codex").stdout
    assert tools.started_by("codex").command == str(tools.folder / "uvx")


@pytest.mark.parametrize("version", ["0.0.1", __version__])
def test_a_tool_of_the_user_s_own_is_brought_up_to_date_and_never_removed(tools: Tools, version: str):
    tools.have("uv", "uvx")
    tools.installed_before(version)
    said = tools.run("install", "codex").stdout
    assert (f"was agent-jobs {version} and is {__version__} now" in said) == (version != __version__)
    assert len(tools.changes) == (version != __version__)
    tools.run("uninstall", "codex")
    assert tools.program.exists()


@pytest.mark.parametrize("arguments", [("--uvx",), ("--uvx", "--dry-run")])
def test_uvx_is_written_where_it_is_asked_for(tools: Tools, arguments: tuple[str, ...]):
    tools.have("uv", "uvx")
    tools.run("install", "codex", *arguments)
    assert tools.changes == []
    if "--dry-run" not in arguments:
        assert tools.started_by("codex") == Launch(str(tools.folder / "uvx"), (f"agent-jobs@{__version__}",))


def test_nothing_is_installed_by_a_dry_run_a_printed_entry_or_a_refusal(tools: Tools):
    tools.have("uv", "uvx")
    assert f"{tools.program} would be installed" in tools.run("install", "cursor", "--dry-run").stdout
    printed = tools.run("install", "cursor", "--print")
    assert f"uv tool install {PINNED}, then this command again" in printed.stderr
    assert str(tools.folder / "uvx") in printed.stdout
    (tools.home / ".cursor").mkdir()
    (tools.home / ".cursor/mcp.json").write_text("{")
    tools.run("install", "cursor", status=1)
    assert tools.changes == []
    tools.installed_before(__version__)
    assert str(tools.program) in tools.run("install", "cursor", "--print").stdout


def test_an_installation_that_is_permanent_is_what_the_entry_starts(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tools.have("uv", "uvx")
    script = tmp_path / "venv/bin/agent-jobs"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert json.loads(tools.run("install", "cursor", "--json").stdout)["action"] == "installed"
    assert (tools.started_by("cursor"), tools.changes) == (Launch(str(script), ()), [])


@pytest.mark.parametrize(
    ("origin", "taken_from"),
    [
        ({"url": "file:///home/me/clone", "dir_info": {}}, "/home/me/clone"),
        ({"url": "file:///tmp/agent_jobs-0.1.0-py3-none-any.whl"}, "/tmp/agent_jobs-0.1.0-py3-none-any.whl"),
        (
            {"url": "https://git.example/a.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            "git+https://git.example/a.git@c0ffee",
        ),
        ({"url": "https://files.example/agent_jobs-0.1.0.tar.gz"}, "https://files.example/agent_jobs-0.1.0.tar.gz"),
    ],
)
def test_what_was_not_taken_from_the_index_is_installed_from_where_it_came(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, origin: dict[str, object], taken_from: str
):
    monkeypatch.undo()
    distribution = tools.folder / f"site/agent_jobs-{__version__}.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text(f"Metadata-Version: 2.4\nName: agent-jobs\nVersion: {__version__}\n")
    (distribution / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(sys, "path", [str(distribution.parent), *sys.path])
    monkeypatch.chdir(tools.home)
    monkeypatch.setenv("HOME", str(tools.home))
    monkeypatch.setenv("PATH", f"{tools.folder}:/usr/bin:/bin")
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.delenv("CODEX_HOME", raising=False)
    monkeypatch.setattr(sys, "prefix", "/cache/archive-v0/x")
    tools.have("uv", "uvx")
    tools.run("install", "codex")
    assert tools.changes == [f"uv tool install {taken_from} --offline"]
    tools.run("install", "codex", "--uvx")
    assert tools.started_by("codex").args == ("--from", taken_from, "agent-jobs")
