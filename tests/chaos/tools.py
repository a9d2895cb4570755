"""Prepare the tool servers that jobs call while their own server is killed, and read their record of each call."""

import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

from peer.servers import git, git_server, make_repository, time_server

Json = dict[str, Any]

LEDGER = Path(__file__).resolve().parents[1] / "support" / "ledger.py"
#: Seconds that a call takes, one of these.
SECONDS = (0, 0.15, 0.3)
#: The output of the diff program.
DIFFERENCE = "it differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that the model makes."""

    number: int
    name: str
    arguments: Json
    is_repeatable: bool  #: its tool says that it only reads, or is idempotent
    is_noted: bool = True  #: the record has a line for its begin and one for its end

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class Tools(Protocol):
    """Tool servers, and their record."""

    log: Path  #: a line for the begin of each call and one for its end, with the call's number last

    def __init__(self, home: Path) -> None: ...

    def servers(self) -> Json:
        """Return the entries of the toolbox's file."""
        ...

    def call(self, number: int, pick: Random) -> Call:
        """Draw a call, and prepare all that it needs."""
        ...

    def count_effects(self, call: Call) -> int:
        """Count how often a call that is not repeatable took effect."""
        ...

    def describe_success(self, call: Call) -> str:
        """Return the answer of a call that took effect; of a repeatable one, a part of the answer."""
        ...


def count_noted(log: Path, what: str) -> Counter[int]:
    """Count the lines of each call that begin with `begin` or with `end`."""
    lines = log.read_text().splitlines()
    return Counter(int(line.rpartition(" ")[2]) for line in lines if line.startswith(what))


class Ours:
    """Our own tool server, the ledger: its only effect is the record that it writes."""

    def __init__(self, home: Path) -> None:
        self.log = home / "ledger"
        self.log.touch()

    def servers(self) -> Json:
        return {"ledger": {"command": sys.executable, "args": ["-S", str(LEDGER), str(self.log)], "approval": "never"}}

    def call(self, number: int, pick: Random) -> Call:
        arguments = {"n": number, "seconds": pick.choice(SECONDS)}
        name = pick.choice(("write", "write", "read"))
        return Call(number=number, name=f"ledger__{name}", arguments=arguments, is_repeatable=name == "read")

    def count_effects(self, call: Call) -> int:
        return count_noted(self.log, "end")[call.number]

    def describe_success(self, call: Call) -> str:
        return f"{call.name.removeprefix('ledger__')} {call.number}"


class ThirdParty:
    """mcp-server-git and mcp-server-time; the record is git's own.

    Each call has its own repository. A tool server outlives the kill of our server and finishes its calls while the
    next one begins: in one repository, the commits of both would mix, which is not what is tested here. Hooks and a
    diff program, which users have in their repositories, too, make a call last and write the record.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self.log = home / "hooks.log"
        self.log.touch()

    def servers(self) -> Json:
        return {"git": git_server(approval="never"), "time": time_server()}

    def call(self, number: int, pick: Random) -> Call:
        seconds = pick.choice(SECONDS)
        match pick.choice(("commit", "commit", "diff", "time")):
            case "commit":
                return self._prepare_commit(number, seconds)
            case "diff":
                return self._prepare_diff(number, seconds)
            case _:
                arguments = {"source_timezone": "UTC", "target_timezone": "Asia/Tokyo", "time": f"12:{number:02}"}
                return Call(
                    number=number, name="time__convert_time", arguments=arguments, is_repeatable=True, is_noted=False
                )

    def _prepare_commit(self, number: int, seconds: float) -> Call:
        repository = make_repository(self._find_repository(number))
        git(repository, "add", "note.txt")
        self._write_hook(repository, "pre-commit", f"{self._write_note_command('begin', number)}; sleep {seconds}")
        # There is always something to commit, so a call that is made twice is committed twice.
        change = "echo again >> note.txt; git add note.txt"
        self._write_hook(repository, "post-commit", f"{change}; {self._write_note_command('end', number)}")
        arguments = {"repo_path": str(repository), "message": f"call {number}"}
        return Call(number=number, name="git__git_commit", arguments=arguments, is_repeatable=False)

    def _prepare_diff(self, number: int, seconds: float) -> Call:
        repository = make_repository(self._find_repository(number))
        git(repository, "add", "note.txt")
        (repository / "note.txt").write_text("another note")
        begin, end = self._write_note_command("begin", number), self._write_note_command("end", number)
        show = f"{begin}; sleep {seconds}; {end}; echo {DIFFERENCE} #"
        git(repository, "config", "diff.external", show)
        arguments = {"repo_path": str(repository)}
        return Call(number=number, name="git__git_diff_unstaged", arguments=arguments, is_repeatable=True)

    def count_effects(self, call: Call) -> int:
        subjects = git(self._find_repository(call.number), "log", "--all", "--reflog", "--format=%s")
        return subjects.splitlines().count(call.arguments["message"])

    def describe_success(self, call: Call) -> str:
        if call.name == "time__convert_time":
            return call.arguments["target_timezone"]
        if call.name == "git__git_diff_unstaged":
            return DIFFERENCE
        commits = git(self._find_repository(call.number), "rev-list", "--all").split()
        return f"Changes committed successfully with hash {' '.join(commits)}"

    def _find_repository(self, number: int) -> Path:
        return self._home / str(number)

    def _write_note_command(self, what: str, number: int) -> str:
        return f"echo {what} {number} >> {shlex.quote(str(self.log))}"

    @staticmethod
    def _write_hook(repository: Path, name: str, command: str) -> None:
        hook = repository / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\n{command}\n")
        hook.chmod(0o755)
