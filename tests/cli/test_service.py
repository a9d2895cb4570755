"""`service` has systemd or launchd run the collector. Here scripts stand for both, and record their arguments."""

import json
import os
import plistlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent_jobs.cli.main import cli
from agent_jobs.cli.service import install_service, remove_service, show_service
from agent_jobs.cli.session import Refusal
from agent_jobs.install.machine import Machine
from agent_jobs.install.service_files import Service, find_env_file_of, render_agent, render_unit, starts_program

KEY = "sk-secret-0123456789abcdef"
#: Records its arguments. It fails if `{folder}/refuses` exists; `{folder}/runs` exists while the service runs.
FAKE = """#!/bin/sh
here={folder}
echo "$(basename $0) $*" >> $here/calls
if [ -f $here/refuses ]; then echo 'Failed to connect to bus: No medium found' >&2; exit 1; fi
case "$*" in
    *" restart "* | bootstrap*) if [ ! -f $here/fails ]; then touch $here/runs; fi ;;
    *" disable "* | bootout*) rm -f $here/runs ;;
    *" show "*)
        if [ -f $here/runs ]; then printf 'MainPID=4711\\nResult=success\\nActiveState=active\\nSubState=running\\n'
        else printf 'MainPID=0\\nResult=exit-code\\nActiveState=failed\\nSubState=failed\\n'; fi ;;
    print*)
        [ -f $here/runs ] || exit 113
        printf 'gui/501/agent-jobs.work = {{\\n\\tstate = running\\n\\n\\tpid = 4711\\n}}\\n' ;;
    *Linger) echo Linger=no ;;
    *journal* | *-n*) printf 'job_1: in_progress\\njob_1: completed after 0:07\\n' ;;
esac
"""


@dataclass(frozen=True)
class Computer:
    """A home folder, and a folder of scripts that stand for the programs of the system."""

    home: Path
    programs: Path

    def add_programs(self, *names: str) -> None:
        for name in names:
            (self.programs / name).write_text(FAKE.format(folder=self.programs))
            (self.programs / name).chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """Return the calls of the programs so far, and clear the record."""
        log = self.programs / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    @property
    def unit(self) -> Path:
        return self.home / ".config/systemd/user/agent-jobs.service"

    def run(self, *arguments: str, status: int = 0) -> Result:
        before = dict(os.environ)
        try:
            result = CliRunner().invoke(cli, arguments)
        finally:  # --env-file changed the environment of this process
            os.environ.clear()
            os.environ.update(before)
        assert result.exit_code == status, (result.output, result.exception)
        return result

    def write_key(self, name: str = "service.env") -> Path:
        file = self.home / name
        file.write_text(f"OPENAI_API_KEY={KEY}\n")
        return file


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Computer:
    computer = Computer(tmp_path / "home", tmp_path / "bin")
    for folder in (computer.home, computer.programs):
        folder.mkdir()
    program = computer.programs / "agent-jobs"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in [name for name in os.environ if name.startswith(("AGENT_JOBS_", "OPENAI_", "XDG_", "SSL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(computer.home))
    monkeypatch.setenv("PATH", f"{computer.programs}:/usr/bin:/bin")
    # The program that runs is the one in our folder, as after `uv tool install`.
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.chdir(computer.home)
    computer.add_programs("systemctl", "journalctl", "loginctl", "launchctl")
    return computer


def test_install_writes_and_starts_a_unit_and_reports_it(computer: Computer) -> None:
    file = computer.write_key()
    output = computer.run("--env-file", str(file), "service", "install").stdout
    assert output.splitlines() == [
        f"Wrote {computer.unit}.",
        "The collector is running (pid 4711). It starts again at each login.",
        "Log: journalctl --user -u agent-jobs.service -f",
        "It stops when you log out. Keep it running with: loginctl enable-linger",
    ]
    text = computer.unit.read_text()
    assert f'ExecStart="{computer.programs}/agent-jobs" "--env-file" "{file}" "work"\n' in text
    assert KEY not in text
    assert computer.unit.stat().st_mode & 0o777 == 0o600
    manager_calls = [call.removeprefix("systemctl --user ") for call in computer.calls if call.startswith("systemctl")]
    assert [call.partition(" ")[0] for call in manager_calls] == [
        "show-environment", "daemon-reload", "enable", "reset-failed", "restart", "show",
    ]  # fmt: skip


def test_second_install_changes_nothing_and_new_settings_start_it_again(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = ("--env-file", str(computer.write_key()), "service", "install")
    computer.run(*install)
    before = computer.unit.stat().st_mtime_ns
    assert computer.calls
    assert computer.run(*install).stdout.startswith("Nothing to do: the collector is installed and running (pid 4711).")
    assert computer.unit.stat().st_mtime_ns == before
    assert not [call for call in computer.calls if "restart" in call]
    monkeypatch.setenv("AGENT_JOBS_DATA_DIR", str(computer.home / "jobs"))
    assert computer.run(*install).stdout.startswith("Wrote ")
    assert [call for call in computer.calls if "restart" in call]
    assert f'Environment="AGENT_JOBS_DATA_DIR={computer.home}/jobs"\n' in computer.unit.read_text()
    assert list(computer.unit.parent.iterdir()) == [computer.unit]


def test_later_install_reads_the_same_env_file(computer: Computer) -> None:
    file = computer.write_key('of "ada" $HOME\\n 100%.env')
    computer.run("--env-file", str(file), "service", "install")
    text = computer.unit.read_text()
    assert computer.run("service", "install").stdout.startswith("Nothing to do")
    assert computer.unit.read_text() == text
    other = computer.write_key("other.env")
    computer.run("--env-file", str(other), "service", "install")
    assert f'"--env-file" "{other}"' in computer.unit.read_text()
    other.unlink()
    assert "No API key is set." in computer.run("service", "install", status=1).stderr


def test_stopped_service_is_started_by_install(computer: Computer) -> None:
    install = ("--env-file", str(computer.write_key()), "service", "install")
    computer.run(*install)
    (computer.programs / "runs").unlink()
    assert "The collector is running (pid 4711)" in computer.run(*install).stdout
    (computer.programs / "runs").unlink()
    (computer.programs / "fails").touch()
    assert "does not run (exit-code). Its log says why." in computer.run(*install).stdout


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("AGENT_JOBS_PRESETS", "presets of mine.toml", 'Environment="AGENT_JOBS_PRESETS={home}/presets of mine.toml"'),
        ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1", 'Environment="OPENAI_BASE_URL=http://127.0.0.1:9/v1"'),
        ("AGENT_JOBS_NOTIFY", "desktop", 'Environment="AGENT_JOBS_NOTIFY=desktop"'),
        ("HTTPS_PROXY", "http://proxy:3128", 'Environment="HTTPS_PROXY=http://proxy:3128"'),
        ("AGENT_JOBS_MODEL", 'a "b" \\ 100%', 'Environment="AGENT_JOBS_MODEL=a \\"b\\" \\\\ 100%%"'),
    ],
)
def test_service_gets_the_settings_of_the_shell(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    monkeypatch.setenv(name, value)
    computer.run("--env-file", str(computer.write_key()), "service", "install")
    assert line.format(home=computer.home) in computer.unit.read_text().splitlines()


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"AGENT_JOBS_ON_FINISH": "true https://hooks.example/T0/secret"}, "AGENT_JOBS_ON_FINISH"),
        ({"AGENT_JOBS_SECRETS": "TOKEN", "TOKEN": "secret-value"}, "TOKEN"),
        ({"AGENT_JOBS_NOTIFY": "desktop,slack:https://hooks.example/T0"}, "AGENT_JOBS_NOTIFY"),
        ({"AGENT_JOBS_NOTIFY_SECRET": f"whsec_{'T0T0' * 10}"}, "AGENT_JOBS_NOTIFY_SECRET"),
        ({"HTTPS_PROXY": "http://ada:secret@proxy:3128"}, "HTTPS_PROXY"),
    ],
)
def test_possible_secret_is_not_written_but_reported(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    output = computer.run("--env-file", str(computer.write_key()), "service", "install").stdout
    assert f"The service does not get {named}, which may hold secrets." in output
    assert "secret-value" not in computer.unit.read_text()
    assert "secret@" not in computer.unit.read_text()
    assert "T0" not in computer.unit.read_text()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "No API key is set."),
        ({"OPENAI_API_KEY": KEY}, "The service cannot see the key, because only this shell has it."),
        (
            {"AGENT_JOBS_API_KEY_FILE": "{home}/key", "OPENAI_BASE_URL": "https://api.example/v1?code=s3cret"},
            "OPENAI_BASE_URL may hold a secret, so it is not written into the service's file.",
        ),
    ],
    ids=["no key", "key of the shell", "address with a key"],
)
def test_service_that_could_not_work_is_refused_with_the_fix(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    (computer.home / "key").write_text(KEY)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(home=computer.home))
    refused = computer.run("service", "install", status=1)
    assert message in refused.stderr
    assert "agent-jobs --env-file FILE service install" in refused.stderr or "agent-jobs key set" in refused.stderr
    assert not computer.unit.exists()
    assert not [call for call in computer.calls if "enable" in call]


def test_stored_key_and_the_settings_file_are_enough(computer: Computer) -> None:
    folder = computer.home / ".config/agent-jobs"
    (folder / "keys").mkdir(parents=True)
    (folder / "keys/api.openai.com").write_text(KEY)
    (folder / "config.toml").write_text('notify = ["desktop", "ntfy:s3cret"]\nnotify_events = ["budget"]\n')
    output = computer.run("service", "install").stdout
    assert "The collector is running" in output
    assert "does not get" not in output
    assert "AGENT_JOBS_NOTIFY" not in computer.unit.read_text()
    assert "ntfy at ntfy.sh" in computer.run("notify").stdout


def test_key_file_is_enough(computer: Computer, monkeypatch: pytest.MonkeyPatch) -> None:
    (computer.home / "key").write_text(KEY)
    monkeypatch.setenv("AGENT_JOBS_API_KEY_FILE", str(computer.home / "key"))
    computer.run("service", "install")
    assert f'Environment="AGENT_JOBS_API_KEY_FILE={computer.home}/key"' in computer.unit.read_text()
    assert KEY not in computer.unit.read_text()


@pytest.mark.parametrize("reason", ["no systemctl", "no bus"])
def test_missing_systemd_is_reported_with_an_alternative(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "no systemctl":
        (computer.programs / "systemctl").unlink()
        monkeypatch.setenv("PATH", str(computer.programs))
    else:
        (computer.programs / "refuses").touch()
    file = computer.write_key("my service.env")
    refused = computer.run("--env-file", str(file), "service", "install", status=1)
    assert "No service can be installed here" in refused.stderr
    assert f"under a supervisor of your own instead: {computer.programs}/agent-jobs --env-file '{file}' work" in (
        refused.stderr
    )
    assert not computer.unit.exists()


def test_status_shows_the_state_and_the_last_lines(computer: Computer) -> None:
    assert "agent-jobs service install" in computer.run("service", "status", status=1).stdout
    assert json.loads(computer.run("service", "status", "--json", status=1).stdout)["installed"] is False
    computer.run("--env-file", str(computer.write_key()), "service", "install")
    output = computer.run("service", "status").stdout.splitlines()
    assert output[0] == "The collector is running (pid 4711)."
    assert "  job_1: completed after 0:07" in output
    (computer.programs / "runs").unlink()
    output = computer.run("service", "status", status=1).stdout
    assert output.startswith("The collector is installed, but not running (exit-code).")
    found = json.loads(computer.run("service", "status", "--json", status=1).stdout)
    assert (found["installed"], found["running"], found["reason"]) == (True, False, "exit-code")


@pytest.mark.parametrize("refuses", [False, True], ids=["running", "without a bus"])
def test_remove_undoes_the_whole_installation(computer: Computer, refuses: bool) -> None:
    file = computer.write_key()
    computer.run("--env-file", str(file), "service", "install")
    if refuses:
        (computer.programs / "refuses").touch()
    assert computer.calls
    computer.run("service", "remove")
    assert not computer.unit.exists()
    assert file.exists()
    calls = computer.calls
    assert ("systemctl --user disable --now agent-jobs.service" in calls) is not refuses
    assert computer.run("service", "remove").stdout == "Nothing to do: the collector is not installed.\n"


def test_print_writes_and_starts_nothing(computer: Computer) -> None:
    text = computer.run("--env-file", str(computer.write_key()), "service", "install", "--print").stdout
    assert text.startswith("# Written by `agent-jobs service install`")
    assert not computer.unit.exists()
    assert computer.calls == []


def test_launch_agent_is_written_loaded_and_removed(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (computer.home / "key").write_text(KEY)
    monkeypatch.setenv("AGENT_JOBS_API_KEY_FILE", str(computer.home / "key"))
    mac = Machine("darwin", computer.home, os.environ, computer.home)
    install_service(mac, None)
    file = computer.home / "Library/LaunchAgents/agent-jobs.work.plist"
    agent = plistlib.loads(file.read_bytes())
    assert agent["ProgramArguments"] == [f"{computer.programs}/agent-jobs", "work"]
    assert agent["EnvironmentVariables"]["AGENT_JOBS_API_KEY_FILE"] == f"{computer.home}/key"
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert Path(agent["StandardErrorPath"]).parent.is_dir()
    assert f"launchctl bootstrap gui/{os.getuid()} {file}" in computer.calls
    assert starts_program(file.read_text(), f"{computer.programs}/agent-jobs")
    assert find_env_file_of(file.read_text()) is None
    reading = Service(("/a & b/agent-jobs", "--env-file", "/<c>", "work"), {})
    assert find_env_file_of(render_agent(reading, Path("/log"))) == Path("/<c>")
    assert starts_program(render_agent(reading, Path("/log")), "/a & b/agent-jobs")
    Path(agent["StandardErrorPath"]).write_text("job_1: queued\n")
    with pytest.raises(SystemExit) as left:
        show_service(mac, as_json=False)
    assert left.value.code == 0
    assert "The collector is running (pid 4711)." in capsys.readouterr().out
    remove_service(mac)
    assert not file.exists()
    assert f"launchctl bootout gui/{os.getuid()}/agent-jobs.work" in computer.calls


def test_windows_gets_the_command_of_a_task(computer: Computer, monkeypatch: pytest.MonkeyPatch) -> None:
    (computer.home / "key").write_text(KEY)
    monkeypatch.setenv("AGENT_JOBS_API_KEY_FILE", str(computer.home / "key"))
    with pytest.raises(Refusal, match="schtasks /Create"):
        install_service(Machine("win32", computer.home, os.environ, computer.home), None)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize(
    "name", ["agent-jobs", "of ada/agent-jobs", "o'brien/agent-jobs", '$HOME "é" \\b %h/agent-jobs']
)
@pytest.mark.parametrize("is_confined", [True, False], ids=["confined", "free"])
def test_systemd_accepts_the_unit(tmp_path: Path, name: str, is_confined: bool) -> None:
    program = tmp_path / name
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    env_file = Path('/a $HOME "b" \\n %h')
    environment = {"A": 'x "y" \\ %h $Z é\nb', "PATH": "/usr/bin:/bin"}
    unit = tmp_path / "agent-jobs.service"
    unit.write_text(
        render_unit(Service((str(program), "--env-file", str(env_file), "work"), environment, is_confined=is_confined))
    )
    assert starts_program(unit.read_text(), str(program))
    assert find_env_file_of(unit.read_text()) == env_file
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(unit)], capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run"},  # units name sockets there
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
