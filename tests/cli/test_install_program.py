"""The written entry starts a permanent program, which uv or pipx installs and removes.

Scripts stand for the installers, so that no test needs the network.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent_jobs import __version__
from agent_jobs.cli.main import cli
from agent_jobs.install.config_file import locate_file
from agent_jobs.install.entry import read_entry
from agent_jobs.install.hosts import HOSTS
from agent_jobs.install.machine import Launch, Machine
from agent_jobs.install.service_files import Service, render_unit

PINNED = f"agent-jobs=={__version__}"
#: What uv and pipx do with our package, in the folder that they are in. `{folder}/fails` has them fail.
PROGRAM = '#!/bin/sh\\necho "agent-jobs, version %s"\\n'
INSTALLER = """#!/bin/sh
here={folder}
echo "$(basename $0) $*" >> $here/log
put() {{
    if [ -f $here/fails ] || [ -f $here/fails-$1 ]; then printf 'error: first\\n\\nNo route to host.\\n' >&2; exit 2; fi
    mkdir -p $here/tools/agent-jobs/bin $here/programs
    printf '{program}' "$(cat $here/version)" > $here/tools/agent-jobs/bin/agent-jobs
    chmod 755 $here/tools/agent-jobs/bin/agent-jobs
    ln -sf $here/tools/agent-jobs/bin/agent-jobs $here/programs/agent-jobs
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
    """A user who runs agent-jobs from a temporary environment, and the user's installers."""

    home: Path
    folder: Path

    def add_installers(self, *names: str) -> None:
        for name in names:
            file = self.folder / name
            file.write_text("#!/bin/sh\n" if name == "uvx" else INSTALLER.format(folder=self.folder, program=PROGRAM))
            file.chmod(0o755)

    @property
    def program(self) -> Path:
        return self.folder / "programs/agent-jobs"

    @property
    def script(self) -> Path:
        """Return the script in the tool's environment, to which `program` leads."""
        return self.folder / "tools/agent-jobs/bin/agent-jobs"

    @property
    def list_changes(self) -> list[str]:
        """Return the installations and removals, in order."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if "install" in line]

    def install_version_before(self, version: str) -> None:
        self.program.parent.mkdir()
        self.program.write_text(PROGRAM.replace("\\n", "\n") % version)
        self.program.chmod(0o755)
        (self.folder / "tools/agent-jobs").mkdir(parents=True)

    def run(self, *arguments: str, status: int = 0) -> Result:
        quick = ["--no-check"] if arguments[:1] == ("install",) else []
        result = CliRunner().invoke(cli, [*arguments, *quick])
        assert result.exit_code == status, (result.output, result.exception)
        return result

    def read_launch(self, host: str) -> Launch:
        machine = Machine("linux", self.home, {}, self.home)
        entry = read_entry(HOSTS[host], locate_file(HOSTS[host], machine, "user").read_text())
        assert entry is not None
        return HOSTS[host].read_command(entry)


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
    monkeypatch.setattr("agent_jobs.install.command._find_source", lambda: None)
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
def test_program_is_installed_and_removed_with_its_last_entry(
    tools: Tools, names: tuple[str, ...], command: str, undone: str
):
    tools.add_installers(*names)
    output = tools.run("install", "codex").stdout
    assert tools.list_changes == [command]
    assert f"is installed at {tools.program} ({command.removesuffix(' --offline')})." in output
    assert tools.read_launch("codex") == Launch(str(tools.program), ())
    assert tools.run("install", "codex").stdout.startswith("Nothing to do")
    assert "is installed" not in tools.run("install", "cursor").output
    assert f"stays, because {tools.home}/.cursor/mcp.json starts it" in tools.run("uninstall", "codex").stdout
    assert f"would be removed ({undone})" in tools.run("uninstall", "cursor", "--dry-run").stdout
    assert (tools.list_changes, tools.program.exists()) == ([command], True)
    assert f"{tools.program} was removed ({undone})." in tools.run("uninstall", "cursor").stdout
    assert (tools.list_changes, tools.program.exists()) == ([command, undone], False)


def test_installer_asks_pypi_without_a_cache(tools: Tools):
    tools.add_installers("uv", "uvx")
    (tools.folder / "fails-offline").touch()
    tools.run("install", "codex")
    assert tools.list_changes == [f"uv tool install {PINNED} --offline", f"uv tool install {PINNED}"]
    assert tools.read_launch("codex") == Launch(str(tools.program), ())


def test_uninstall_leaves_the_program_that_the_service_starts(tools: Tools):
    tools.add_installers("uv", "uvx")
    tools.run("install", "codex")
    unit = tools.home / ".config/systemd/user/agent-jobs.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(render_unit(Service((str(tools.program), "work"), {})))
    assert f"{tools.program} stays, because {unit} starts it." in tools.run("uninstall", "codex").stdout
    assert "was removed (uv tool uninstall agent-jobs)" in tools.run("service", "remove").stdout
    assert not tools.program.exists()


def test_program_of_pipx_is_removed_by_pipx_although_uv_puts_programs_there_too(tools: Tools):
    tools.add_installers("pipx")
    tools.run("install", "codex")
    tools.add_installers("uv", "uvx")
    uv = tools.folder / "uv"
    uv.write_text(uv.read_text().replace("$here/tools", "$here/environments-of-uv"))
    assert "was removed (pipx uninstall agent-jobs)" in tools.run("uninstall", "codex").stdout
    assert not tools.program.exists()


@pytest.mark.parametrize("names", [("uv", "uvx"), ("pipx", "uvx"), ("pipx",)])
def test_failed_installation_is_reported_and_the_entry_starts_uvx(tools: Tools, names: tuple[str, ...]):
    tools.add_installers(*names)
    (tools.folder / "fails").touch()
    output = tools.run("install", "codex").stdout
    assert f"{PINNED} failed (No route to host), so the entry starts" in output
    assert tools.read_launch("codex") == (
        Launch(str(tools.folder / "uvx"), (f"agent-jobs@{__version__}",))
        if "uvx" in names
        else Launch(sys.executable, ("-m", "agent_jobs"))
    )


def test_installation_that_does_not_finish_is_not_tried_again(tools: Tools, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent_jobs.cli.program.INSTALL_LIMIT_S", 0.0)
    tools.add_installers("uv", "uvx")
    output = tools.run("install", "codex").stdout
    assert "failed (it did not finish, or could not be started), so the entry starts" in output
    assert len(tools.list_changes) <= 1


def test_installed_program_of_another_version_is_not_used(tools: Tools):
    tools.add_installers("uv", "uvx")
    (tools.folder / "version").write_text("0.0.1")
    assert "does not exist or does not start" in tools.run("install", "codex").stdout
    assert tools.read_launch("codex").command == str(tools.folder / "uvx")


@pytest.mark.parametrize("version", ["0.0.1", __version__])
def test_tool_of_the_user_is_updated_and_never_removed(tools: Tools, version: str):
    tools.add_installers("uv", "uvx")
    tools.install_version_before(version)
    output = tools.run("install", "codex").stdout
    assert (f"was agent-jobs {version} and is {__version__} now" in output) == (version != __version__)
    assert len(tools.list_changes) == (version != __version__)
    tools.run("uninstall", "codex")
    assert tools.program.exists()


@pytest.mark.parametrize("arguments", [("--uvx",), ("--uvx", "--dry-run")])
def test_uvx_flag_writes_uvx(tools: Tools, arguments: tuple[str, ...]):
    tools.add_installers("uv", "uvx")
    tools.run("install", "codex", *arguments)
    assert tools.list_changes == []
    if "--dry-run" not in arguments:
        assert tools.read_launch("codex") == Launch(str(tools.folder / "uvx"), (f"agent-jobs@{__version__}",))


def test_dry_run_print_and_refusal_install_nothing(tools: Tools):
    tools.add_installers("uv", "uvx")
    assert f"{tools.program} would be installed" in tools.run("install", "cursor", "--dry-run").stdout
    printed = tools.run("install", "cursor", "--print")
    assert f"uv tool install {PINNED}, then this command again" in printed.stderr
    assert str(tools.folder / "uvx") in printed.stdout
    (tools.home / ".cursor").mkdir()
    (tools.home / ".cursor/mcp.json").write_text("{")
    tools.run("install", "cursor", status=1)
    assert tools.list_changes == []
    tools.install_version_before(__version__)
    assert str(tools.program) in tools.run("install", "cursor", "--print").stdout


def test_entry_starts_an_existing_permanent_installation(tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tools.add_installers("uv", "uvx")
    script = tmp_path / "venv/bin/agent-jobs"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert json.loads(tools.run("install", "cursor", "--json").stdout)["action"] == "installed"
    assert (tools.read_launch("cursor"), tools.list_changes) == (Launch(str(script), ()), [])


@pytest.mark.parametrize("installer", ["uv", "pipx", "neither, but PATH has the link"])
@pytest.mark.parametrize("way", ["uvx", "by its name", "python -m"])
def test_entry_keeps_its_path_however_install_is_called(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, installer: str, way: str
):
    tools.add_installers("pipx" if installer == "pipx" else "uv")
    tools.run("install", "codex")
    if installer.startswith("neither"):
        (tools.folder / "uv").unlink()
    environment = tools.script.parent.parent
    # Once the tool is installed, uvx runs it from the tool's environment, whose programs it puts first on PATH.
    folders = [tools.script.parent, tools.folder] + [tools.program.parent] * installer.startswith("neither")
    monkeypatch.setenv("PATH", ":".join(map(str, [*folders, "/usr/bin", "/bin"])))
    monkeypatch.setattr(sys, "prefix", str(environment))

    def find_scripts(_name: str) -> str:
        return str(tools.script.parent)

    monkeypatch.setattr("sysconfig.get_path", find_scripts)
    called = {"uvx": tools.script, "by its name": tools.program, "python -m": environment / "agent_jobs/__main__.py"}
    monkeypatch.setattr(sys, "argv", [str(called[way])])
    assert tools.run("install", "codex").stdout.startswith("Nothing to do")
    tools.run("install", "cursor")
    assert tools.read_launch("cursor") == tools.read_launch("codex") == Launch(str(tools.program), ())
    printed = json.loads(tools.run("install", "gemini", "--print").stdout)
    assert printed["mcpServers"]["agent-jobs"]["command"] == str(tools.program)
    shown = tools.run().stdout
    assert json.loads(shown[shown.index("\n{") :])["mcpServers"]["agent-jobs"]["command"] == str(tools.program)


def test_program_stays_while_another_entry_starts_it_by_another_path(tools: Tools):
    tools.add_installers("uv", "uvx")
    tools.run("install", "codex")
    tools.run("install", "cursor")
    file = tools.home / ".cursor/mcp.json"
    file.write_text(file.read_text().replace(str(tools.program), str(tools.script)))
    assert f"stays, because {file} starts it" in tools.run("uninstall", "codex").stdout
    assert "was removed (uv tool uninstall agent-jobs)" in tools.run("uninstall", "cursor").stdout
    assert not tools.program.exists()


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
def test_program_from_another_source_is_installed_from_there(
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
    tools.add_installers("uv", "uvx")
    tools.run("install", "codex")
    assert tools.list_changes == [f"uv tool install {taken_from} --offline"]
    tools.run("install", "codex", "--uvx")
    assert tools.read_launch("codex").args == ("--from", taken_from, "agent-jobs")
