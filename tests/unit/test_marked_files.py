"""A byte order mark is accepted in every file of a user, and is never written into a file that hosts read."""

import codecs
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from agent_jobs.cli.batch_files import read_tasks
from agent_jobs.cli.checks.host_checks import check_hosts
from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer
from agent_jobs.install.config_file import Scope, locate_file
from agent_jobs.install.hosts import HOSTS
from agent_jobs.install.machine import Machine
from agent_jobs.pricing.prices import Prices
from agent_jobs.request.presets import load_presets
from agent_jobs.settings.env_file import add_env_file
from agent_jobs.settings.settings import Settings
from agent_jobs.toolbox.config import load_toolbox

MARKS: dict[str, Callable[[str], bytes]] = {
    "none": str.encode,
    "UTF-8": lambda text: codecs.BOM_UTF8 + text.encode(),
    "twice": lambda text: codecs.BOM_UTF8 * 2 + text.encode(),
    "Windows": lambda text: codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 of big ends": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
}
KEY = "sk-of-a-file"


def load_marked_presets(path: Path) -> Any:
    return load_presets(path)["mine"].description


def load_marked_prices(path: Path) -> Any:
    return list(Prices.load(path).own.models)


def load_marked_toolbox(path: Path) -> Any:
    return list(load_toolbox(path))


def load_marked_env_file(path: Path) -> Any:
    return add_env_file({}, str(path))


def load_marked_key_file(path: Path) -> Any:
    key = Settings.from_env({"AGENT_JOBS_API_KEY_FILE": str(path)}).api_key
    return key and key.get_secret_value()


def load_marked_batch(path: Path) -> Any:
    return [task.fields["prompt"] for task in read_tasks(path, "x")]


READERS: list[tuple[Callable[[Path], Any], str, Any]] = [
    (load_marked_presets, '[mine]\ndescription = "Grüße"\n', "Grüße"),
    (load_marked_prices, "[models.m]\ninput = 1\noutput = 2\n", ["m"]),
    (load_marked_toolbox, '{"mcpServers": {"clock": {"command": "x"}}}\n', ["clock"]),
    (load_marked_env_file, "AGENT_JOBS_MODEL=m\nB=2\n", {"AGENT_JOBS_MODEL": "m", "B": "2"}),
    (load_marked_key_file, f"{KEY}\n", KEY),
    (load_marked_batch, '"Grüße"\n{"prompt": "b"}\n', ["Grüße", "b"]),
]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize(("read", "text", "found"), READERS, ids=lambda each: getattr(each, "__name__", ""))
def test_file_of_the_user_is_read_with_every_byte_order_mark(
    tmp_path: Path, read: Callable[[Path], Any], text: str, found: Any, mark: str
):
    path = tmp_path / "file"
    path.write_bytes(MARKS[mark](text))
    assert read(path) == found


@pytest.mark.parametrize("mark", ["UTF-8", "UTF-16"])
def test_attached_file_and_stdin_come_without_their_mark(upstream: RunningServer, tmp_path: Path, mark: str):
    (tmp_path / "a.txt").write_bytes(MARKS[mark]("inside"))
    env = {"AGENT_JOBS_DATA_DIR": str(tmp_path), "OPENAI_API_KEY": "x", "OPENAI_BASE_URL": upstream.base_url}
    arguments = ["run", "--json", "--file", str(tmp_path / "a.txt"), "-"]
    result = CliRunner().invoke(cli, arguments, input=MARKS[mark]("Grüße"), env=env)
    assert result.exit_code == 0, result.output
    [entry] = [entry for entry in upstream.emulator.log() if entry.get("operation") == "create"]
    address = f"{upstream.base_url}/responses/{entry['response_id']}/input_items"
    [item] = httpx2.get(address, headers={"Authorization": "Bearer x"}).json()["data"]
    assert [part["text"] for part in item["content"]] == ["Grüße", '<file name="a.txt">\ninside\n</file>']


def test_files_that_were_joined_have_a_mark_before_a_later_line(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(codecs.BOM_UTF8 + b'"a"\n' + codecs.BOM_UTF8 + b'"b"\n')
    assert load_marked_batch(path) == ["a", "b"]
    path.write_bytes(codecs.BOM_UTF8 + b"A=1\r\n" + codecs.BOM_UTF8 + b"B=2\r\n")
    assert load_marked_env_file(path) == {"A": "1", "B": "2"}


# --- hosts


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a user without any configuration, in a project folder."""
    for name in ("XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home/project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home/project")
    return Machine("linux", tmp_path / "home", {"PATH": "/usr/bin:/bin", "OPENAI_API_KEY": KEY}, Path.cwd())


def run(*arguments: str, status: int = 0) -> Result:
    # test_install_trial.py tests the start of the written command.
    quick = ["--no-check"] if arguments[0] == "install" else []
    result = CliRunner().invoke(cli, [*arguments, *quick])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def file_of(machine: Machine, host: str, scope: Scope = "user") -> Path:
    path = locate_file(HOSTS[host], machine, scope)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def doctor(machine: Machine) -> list[tuple[str, str, str]]:
    findings = check_hosts(machine, Settings.from_env_leniently(machine.environ)[0])
    return [(each.state, each.text, each.fix) for each in findings]


def change(path: Path, keys: tuple[str, ...], value: Any) -> None:
    """Set one value of a JSON file."""
    document = json.loads(path.read_text())
    holder = document
    for key in keys[:-1]:
        holder = holder.setdefault(key, {})
    holder[keys[-1]] = value
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("host", ["claude-desktop", "claude-code", "cursor", "vscode"])
@pytest.mark.parametrize("text", ["", "{}", '{"theme": "café"}'])
def test_install_removes_the_mark_even_if_nothing_else_changes(machine: Machine, host: str, text: str):
    path = file_of(machine, host)
    path.write_bytes(codecs.BOM_UTF8 + text.encode())
    assert "byte order mark" in run("install", host).stdout
    ours = path.read_bytes()
    assert HOSTS[host].path[-1] in json.loads(ours)[HOSTS[host].keys[0]]
    path.write_bytes(codecs.BOM_UTF8 + ours)
    assert any("byte order mark" in warning and "install" in fix for _, warning, fix in doctor(machine))
    assert "would be removed" in run("install", host, "--dry-run").stdout
    assert path.read_bytes() == codecs.BOM_UTF8 + ours
    run("install", host)
    assert path.read_bytes() == ours
    assert "Nothing to do" in run("install", host).stdout


@pytest.mark.parametrize(
    "text", ['{"a": 1} // mine\n', '{\n  /* mine */\n  "a": 1\n}', '{"a": 1,\n}', '{"mcpServers": {"x": {},}}']
)
@pytest.mark.parametrize(
    ("host", "scope"), [("claude-desktop", "user"), ("claude-code", "user"), ("claude-code", "project")]
)
def test_comments_are_refused_where_the_host_reads_plain_json(machine: Machine, host: str, scope: Scope, text: str):
    path = file_of(machine, host, scope)
    path.write_text(text)
    refused = run("install", host, "--scope", scope, status=1)
    assert str(path) in refused.stderr
    assert "plain JSON" in refused.stderr
    assert "Line " in refused.stderr
    assert path.read_text() == text
    assert [each.name for each in path.parent.iterdir() if each.is_file()] == [path.name]


def test_comments_stay_where_the_host_reads_them(machine: Machine):
    for host in ("vscode", "cursor"):
        file_of(machine, host).write_text("{\n  // mine\n}\n")
        run("install", host)
        assert "// mine" in file_of(machine, host).read_text()


def test_doctor_names_comments_that_hide_our_entry(machine: Machine):
    run("install", "claude-code")
    path = file_of(machine, "claude-code")
    path.write_text(f"// mine\n{path.read_text()}")
    state, text, _ = next(each for each in doctor(machine) if "plain JSON" in each[1])
    assert state == "problem"
    assert "Line 1 " in text
    run("uninstall", "claude-code")
    assert path.read_text().startswith("// mine\n")


@pytest.mark.parametrize(
    ("host", "scope"), [("codex", "user"), ("codex", "project"), ("cursor", "user"), ("claude-code", "project")]
)
@pytest.mark.parametrize(("name", "off"), [("enabled", False), ("disabled", True)])
def test_entry_that_is_switched_off_is_named_and_switched_on(
    machine: Machine, host: str, scope: Scope, name: str, off: bool
):
    arguments = ("install", host, "--scope", scope)
    run(*arguments)
    path = file_of(machine, host, scope)
    if host == "codex":
        path.write_text(path.read_text() + f"{name} = {str(off).lower()} # mine\n")
    else:
        change(path, (*HOSTS[host].path, name), off)
    before = path.read_text()
    setting = f"{name}: {str(off).lower()}"
    assert any(state == "warning" and "switched off" in text and setting in text for state, text, _ in doctor(machine))
    dry = run(*arguments, "--dry-run").stdout
    assert f"switched off ({setting}) and would be switched on" in dry
    assert path.read_text() == before
    shown = run(*arguments).stdout
    assert "Nothing to do" not in shown
    assert f"was switched off ({setting}) and is on now" in shown
    assert path.read_text() == before.replace(
        f"{name} = {str(off).lower()}" if host == "codex" else f'"{name}": {str(off).lower()}',
        f"{name} = {str(not off).lower()}" if host == "codex" else f'"{name}": {str(not off).lower()}',
    )
    assert "switched off" not in str(doctor(machine))
    assert "Nothing to do" in run(*arguments).stdout


README_ENTRY = {"type": "stdio", "command": "sh", "args": ["agent-jobs"], "env": {"OPENAI_API_KEY": KEY}}


@pytest.mark.parametrize("where", ["here", "repository", "link"])
def test_doctor_sees_what_claude_mcp_add_writes(machine: Machine, where: str):
    project = machine.folder
    key = str(project)
    if where == "repository":
        (project / ".git").mkdir()
        (project / "src").mkdir()
        machine = replace(machine, folder=project / "src")
    if where == "link":
        (machine.home / "link").symlink_to(project)
        key = str(machine.home / "link")
    path = file_of(machine, "claude-code")
    document = {"projects": {"/elsewhere": {}, key: {"mcpServers": {"agent-jobs": README_ENTRY}}}}
    path.write_text(json.dumps(document))
    [(state, text, _)] = doctor(machine)
    assert state == "ok", text
    assert f"local scope of {key}" in text
    change(path, ("projects", key, "mcpServers", "agent-jobs", "command"), "no-such-program")
    [(state, text, fix)] = doctor(machine)
    assert (state, fix) == (
        "problem", "claude mcp remove agent-jobs --scope local && agent-jobs install claude-code",
    )  # fmt: skip


def test_local_scope_of_another_folder_is_ignored(machine: Machine):
    path = file_of(machine, "claude-code")
    path.write_text(json.dumps({"projects": {str(machine.home): {"mcpServers": {"agent-jobs": README_ENTRY}}}}))
    assert "no host has agent-jobs in its configuration" in doctor(machine)[0][1]
    at_home = replace(machine, folder=machine.home)
    assert "local scope" in doctor(at_home)[0][1]


@pytest.mark.parametrize(
    "projects", [[], {"HERE": 1}, {"HERE": {"mcpServers": []}}, {"HERE": {"disabledMcpServers": 1}}]
)
def test_projects_in_an_unknown_form_are_skipped(machine: Machine, projects: Any):
    written = json.dumps({"projects": projects}).replace("HERE", str(machine.folder))
    file_of(machine, "claude-code").write_text(written)
    assert "no host has agent-jobs in its configuration" in doctor(machine)[0][1]


def test_install_and_uninstall_name_the_local_entry_that_overrides_theirs(machine: Machine):
    run("install", "claude-code")
    path = file_of(machine, "claude-code")
    change(path, ("projects", str(machine.folder), "mcpServers", "agent-jobs"), README_ENTRY)
    for arguments in (("install", "claude-code"), ("install", "claude-code", "--scope", "project")):
        assert "claude mcp remove agent-jobs --scope local" in run(*arguments).stdout
    assert "is still there" in run("uninstall", "claude-code").stdout
    assert json.loads(path.read_text())["projects"][str(machine.folder)]["mcpServers"]["agent-jobs"] == README_ENTRY


@pytest.mark.parametrize("name", ["disabledMcpServers", "disabledMcpjsonServers"])
def test_list_that_switches_us_off_in_this_folder_is_named(machine: Machine, name: str):
    run("install", "claude-code")
    change(file_of(machine, "claude-code"), ("projects", str(machine.folder), name), ["other", "agent-jobs"])
    assert any("switched off in this folder" in text and "/mcp" in fix for _, text, fix in doctor(machine))
    assert "/mcp" in run("install", "claude-code").stdout
