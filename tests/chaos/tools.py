"""The tool servers that jobs call while their server is killed, and what is on record of each call."""

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
#: How long a call takes.
SECONDS = (0, 0.15, 0.3)
#: What the diff program puts out.
DIFFERENCE = "it differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that the model makes."""

    number: int
    name: str
    arguments: Json
    repeatable: bool  #: its tool says that it reads, or is idempotent
    noted: bool = True  #: it leaves a line when it begins and when it ends

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class Tools(Protocol):
    """Tool servers, and their record."""

    log: Path  #: a line when a call begins and when it ends, the call's number last

    def __init__(self, home: Path) -> None: ...

    def servers(self) -> Json:
        """The entries of the toolbox's file."""
        ...

    def call(self, number: int, pick: Random) -> Call:
        """A call that is drawn, and all that is made ready for it."""
        ...

    def made(self, call: Call) -> int:
        """How often a call that is not repeatable took effect."""
        ...

    def success(self, call: Call) -> str:
        """What a call says that took effect; of a repeatable one, a part of it."""
        ...


def noted(log: Path, what: str) -> Counter[int]:
    """How often each call began, or ended."""
    lines = log.read_text().splitlines()
    return Counter(int(line.rpartition(" ")[2]) for line in lines if line.startswith(what))


class Ours:
    """The ledger: what it writes down is all that it does."""

    def __init__(self, home: Path) -> None:
        self.log = home / "ledger"
        self.log.touch()

    def servers(self) -> Json:
        return {"ledger": {"command": sys.executable, "args": ["-S", str(LEDGER), str(self.log)], "approval": "never"}}

    def call(self, number: int, pick: Random) -> Call:
        arguments = {"n": number, "seconds": pick.choice(SECONDS)}
        name = pick.choice(("write", "write", "read"))
        return Call(number=number, name=f"ledger__{name}", arguments=arguments, repeatable=name == "read")

    def made(self, call: Call) -> int:
        return noted(self.log, "end")[call.number]

    def success(self, call: Call) -> str:
        return f"{call.name.removeprefix('ledger__')} {call.number}"


class ThirdParty:
    """mcp-server-git and mcp-server-time; the record is git's own.

    A call has a repository to itself: the server that a kill leaves behind ends its calls while the next one begins,
    and two of them in one repository would mix their commits up, which is no matter of ours. What users have in their
    repositories, hooks and a diff program, makes a call last and notes it.
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
                return self._commit(number, seconds)
            case "diff":
                return self._diff(number, seconds)
            case _:
                arguments = {"source_timezone": "UTC", "target_timezone": "Asia/Tokyo", "time": f"12:{number:02}"}
                return Call(number=number, name="time__convert_time", arguments=arguments, repeatable=True, noted=False)

    def _commit(self, number: int, seconds: float) -> Call:
        repository = make_repository(self._repository(number))
        git(repository, "add", "note.txt")
        self._hook(repository, "pre-commit", f"{self._note('begin', number)}; sleep {seconds}")
        # So that there is always something to commit: a call that is made twice is committed twice.
        change = "echo again >> note.txt; git add note.txt"
        self._hook(repository, "post-commit", f"{change}; {self._note('end', number)}")
        arguments = {"repo_path": str(repository), "message": f"call {number}"}
        return Call(number=number, name="git__git_commit", arguments=arguments, repeatable=False)

    def _diff(self, number: int, seconds: float) -> Call:
        repository = make_repository(self._repository(number))
        git(repository, "add", "note.txt")
        (repository / "note.txt").write_text("another note")
        show = f"{self._note('begin', number)}; sleep {seconds}; {self._note('end', number)}; echo {DIFFERENCE} #"
        git(repository, "config", "diff.external", show)
        arguments = {"repo_path": str(repository)}
        return Call(number=number, name="git__git_diff_unstaged", arguments=arguments, repeatable=True)

    def made(self, call: Call) -> int:
        subjects = git(self._repository(call.number), "log", "--all", "--reflog", "--format=%s")
        return subjects.splitlines().count(call.arguments["message"])

    def success(self, call: Call) -> str:
        if call.name == "time__convert_time":
            return call.arguments["target_timezone"]
        if call.name == "git__git_diff_unstaged":
            return DIFFERENCE
        commits = git(self._repository(call.number), "rev-list", "--all").split()
        return f"Changes committed successfully with hash {' '.join(commits)}"

    def _repository(self, number: int) -> Path:
        return self._home / str(number)

    def _note(self, what: str, number: int) -> str:
        return f"echo {what} {number} >> {shlex.quote(str(self.log))}"

    @staticmethod
    def _hook(repository: Path, name: str, command: str) -> None:
        hook = repository / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\n{command}\n")
        hook.chmod(0o755)
