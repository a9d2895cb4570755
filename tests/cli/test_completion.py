"""Completion in real shells on a terminal: the tests press a key, and check the line that the shell shows then.

A shell that is not installed on this machine is skipped.
"""

import os
import pty
import re
import select
import shutil
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from hosts import script_prompt
from terminals import ESCAPES, LIMIT_S, Terminal

from agent_jobs.cli.completion import Target, find_target, render_script
from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer

#: For each shell: its start without the user's own files, and the line that switches completion on, as in the help.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(agent-jobs completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -Uz compinit && compinit -u -D; eval "$(agent-jobs completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "agent-jobs completion fish | source"),
}
WORK = script_prompt("Compare \x1b[2Jtwo: things", {"duration_s": 0.2, "text": "done"})
#: Numbers that mark the output of each completed line.
MARKS = count(1)
TAB, BEGINNING, ENTER = "\t", "\x01", "\r"


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


@dataclass(frozen=True)
class Shell:
    """A shell on a terminal."""

    master: int

    def complete(self, line: str) -> str:
        """Press Tab after a line, and return the completed line."""
        mark = f"@{next(MARKS)}"
        self.press(f"{line}{TAB}{BEGINNING}echo {mark} {ENTER}")
        return self.wait_for_line(f"^{mark} (.*?) *$")

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def wait_for_line(self, pattern: str) -> str:
        """Wait for a line that matches the pattern, and return its first group."""
        seen, until = b"", time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            if select.select([self.master], [], [], 0.05)[0]:
                seen += os.read(self.master, 65536)
            text = re.sub(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)", "", seen.decode("utf-8", "replace"))
            lines = ESCAPES.sub("", text).replace("\r", "\n").splitlines()
            if found := next((match for line in lines if (match := re.search(pattern, line))), None):
                return found[1]
        raise AssertionError(f"the shell shows {seen!r}")


@contextmanager
def shell(name: str, terminal: Terminal) -> Generator[Shell]:
    command, switch_on = SHELLS[name]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process, master = pty.fork()
    if process == 0:  # pragma: no cover
        os.chdir(terminal.folder.parent)
        os.execvpe(command[0], command, terminal.environment(PATH=path, PS1="> ", COLUMNS="200"))
    try:
        started = Shell(master)
        started.press(f"{switch_on}{ENTER}echo rea''dy{ENTER}")
        started.wait_for_line("^(ready)")
        yield started
    finally:
        os.close(master)
        os.kill(process, 9)
        os.waitpid(process, 0)


@pytest.mark.parametrize("name", SHELLS)
def test_shell_completes_commands_presets_and_jobs(terminal: Terminal, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    terminal.pipe("run", WORK)
    job_id = terminal.pipe("list").stdout.splitlines()[1].split()[0]
    with shell(name, terminal) as started:
        assert started.complete("agent-jobs wa") == "agent-jobs watch"
        assert started.complete("agent-jobs install clin") == "agent-jobs install cline"
        assert started.complete("agent-jobs run --preset dee") == "agent-jobs run --preset deep_research"
        assert started.complete("agent-jobs show job_") == f"agent-jobs show {job_id}"


def test_installed_completion_works_in_a_new_bash_and_is_installed_once(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_file, script = tmp_path / ".bashrc", tmp_path / ".config/agent-jobs/completion.bash"
    start_file.write_bytes(b"# no line feed at the end: \xff")
    done = terminal.pipe("completion", "install", SHELL="/usr/local/bin/bash")
    assert done.returncode == 0, done.stderr
    assert all(str(path) in done.stdout for path in (start_file, script))
    assert "To undo it: rm" in done.stdout
    written = start_file.read_bytes()
    assert written.startswith(b"# no line feed at the end: \xff\n[ -r ")
    again = terminal.pipe("completion", "install", "bash")
    assert "Nothing to do" in again.stdout
    assert start_file.read_bytes() == written
    monkeypatch.setitem(SHELLS, "bash", (["bash", "--noprofile", "--rcfile", str(start_file), "-i"], ":"))
    with shell("bash", terminal) as started:
        assert started.complete("agent-jobs wa") == "agent-jobs watch"


@pytest.mark.parametrize(
    ("shell_name", "script", "start_file"),
    [
        ("bash", ".config/agent-jobs/completion.bash", ".bashrc"),
        ("zsh", ".config/agent-jobs/completion.zsh", ".zshrc"),
        ("fish", ".config/fish/completions/agent-jobs.fish", None),
    ],
)
def test_completion_is_installed_where_each_shell_reads_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shell_name: str,
    script: str,
    start_file: str | None,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    cli.main(["completion", "install", shell_name], standalone_mode=False)
    assert (tmp_path / script).read_text().strip() == render_script(shell_name).strip()
    files = {path.name for path in tmp_path.iterdir()} - {".config"}
    assert files == ({start_file} if start_file else set())
    if start_file:
        assert str(tmp_path / script) in (tmp_path / start_file).read_text()
    capsys.readouterr()
    cli.main(["completion", "show", shell_name], standalone_mode=False)
    shown = capsys.readouterr().out
    cli.main(["completion", shell_name], standalone_mode=False)
    assert capsys.readouterr().out == shown == render_script(shell_name) + "\n"


def test_files_of_a_shell_follow_its_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = {"XDG_CONFIG_HOME": "/config", "ZDOTDIR": "/zsh"}
    assert find_target("zsh", environ) == Target(Path("/config/agent-jobs/completion.zsh"), Path("/zsh/.zshrc"))
    assert find_target("fish", environ) == Target(Path("/config/fish/completions/agent-jobs.fish"))


@pytest.mark.parametrize(("shell_path", "words"), [("/bin/tcsh", "(tcsh) is not supported"), ("", "$SHELL is not set")])
def test_unknown_shell_is_refused_with_the_names_of_those_that_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell_path: str, words: str
) -> None:
    monkeypatch.setenv("SHELL", shell_path)
    with pytest.raises(SystemExit) as left:
        cli.main(["completion", "install"], prog_name="agent-jobs")
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert "agent-jobs completion install bash|zsh|fish" in error


def test_models_efforts_and_batches_are_offered(terminal: Terminal) -> None:
    terminal.pipe("run", WORK, "--batch", "night")
    models = list_completions(terminal, "agent-jobs run --model gpt-6.", AGENT_JOBS_MODEL="gpt-6.2-sol")
    assert next(iter(models.items())) == ("gpt-6.2-sol", "the default")
    assert {"gpt-6.1-sol", "gpt-6.2-astra"} <= models.keys()
    assert list(list_completions(terminal, "agent-jobs run --effort m")) == ["minimal", "medium", "max"]
    assert list(list_completions(terminal, "agent-jobs run --model gpt-6.1-sol --effort m")) == ["medium", "max"]
    for line in ("agent-jobs list --batch ", "agent-jobs cancel --batch ni", "agent-jobs run --batch n"):
        assert list(list_completions(terminal, line)) == ["night"]


def list_completions(terminal: Terminal, line: str, **environment: str) -> dict[str, str]:
    """Return the completions that zsh gets for a line, with their descriptions."""
    words = {"_AGENT_JOBS_COMPLETE": "zsh_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    lines = terminal.pipe(**words, **environment).stdout.splitlines()
    return dict(zip(lines[1::3], lines[2::3], strict=True))


def test_presets_of_the_user_are_offered_and_a_broken_file_hides_no_built_in_one(
    terminal: Terminal, tmp_path: Path
) -> None:
    file = tmp_path / "presets.toml"
    file.write_text('[minutes]\ndescription = "Minutes of a meeting."\n')
    line = "agent-jobs run --preset "
    built_in = list_completions(terminal, line)
    assert {"deep_research", "think", "review", "quick"} <= built_in.keys()
    assert list_completions(terminal, line, AGENT_JOBS_PRESETS=str(file)) == {
        **built_in,
        "minutes": "Minutes of a meeting.",
    }
    file.write_text("[minutes")
    assert list_completions(terminal, line, AGENT_JOBS_PRESETS=str(file)) == built_in


def test_title_cannot_move_the_cursor_in_a_completion(terminal: Terminal) -> None:
    terminal.pipe("run", WORK)
    [title] = list_completions(terminal, "agent-jobs show ").values()
    assert title.startswith("Compare")
    assert "\x1b" not in title
