"""Jobs whose servers are killed between and inside the calls of their tools, again and again; by seed.

    PYTHONPATH=tests:tests/support python -m chaos.calls --kills 50 --tools third-party --upstream peer

The tool servers' own record is the proof: a call that changes something took effect at most once, and where its
outcome was lost with the process that made it, the model was told so.
"""

import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from processes import Server, serving

from agent_jobs.emulator.server import run_emulator
from agent_jobs.engine.tool_loop import UNKNOWN
from peer.environment import upstream as peer

from .tools import SECONDS, Call, Ours, ThirdParty, Tools, noted

Json = dict[str, Any]

SPEED = 20.0
#: A kill comes after so many begins and ends of calls, and so long after the last of them, at most. With one alone, a
#: call that is made again would be killed again each time.
LINES, AFTER_S = 4, max(SECONDS)
#: Where no more begin or end within this time, none is left.
STALL_S = 10.0
LIMIT_S = 60.0


@contextmanager
def emulator() -> Generator[str]:
    with run_emulator(time_scale=SPEED) as upstream:
        yield upstream.base_url


@contextmanager
def agent_server() -> Generator[str]:
    with peer() as upstream:
        yield upstream.base_url


TOOLS: dict[str, Callable[[Path], Tools]] = {"ours": Ours, "third-party": ThirdParty}
UPSTREAMS = {"emulator": emulator, "peer": agent_server}


@dataclass(slots=True)
class Run:
    """One job: the calls of its model, what was told of each, how it ended, and the kills that it lived through."""

    tools: Tools
    calls: Sequence[Call]
    kills: int = 0
    inside: int = 0  #: of them while a call was under way
    end: Json = field(default_factory=dict[str, Any])
    told: dict[int, str] = field(default_factory=dict[int, str])
    begun: Counter[int] = field(default_factory=Counter[int])  #: how often, by the servers' own record
    violations: list[str] = field(default_factory=list[str])

    @property
    def unknown(self) -> int:
        """How many outcomes were told as unknown."""
        return sum(told.startswith(UNKNOWN) for told in self.told.values())

    @property
    def repeated(self) -> int:
        """How many calls began more than once."""
        return sum(count > 1 for count in self.begun.values())

    def judged(self) -> "Run":
        """The run with what is wrong about it."""
        if (self.end["status"], self.end.get("output")) != ("completed", "the end"):
            self.violations.append(f"it ended {self.end}")
        self.begun = noted(self.tools.log, "begin")
        for call in self.calls:
            self.violations += (f"{call} {wrong}" for wrong in self._wrong(call))
        return self

    def _wrong(self, call: Call) -> Iterator[str]:
        told = self.told.get(call.number)
        if told is None:
            yield "was never answered"
        elif call.repeatable:
            if self.tools.success(call) not in told:
                yield f"was told as {told!r}"
        else:
            begun, made = self.begun[call.number], self.tools.made(call)
            if max(begun, made) > 1:
                yield f"began {begun} times and took effect {made} times"
            if not told.startswith(UNKNOWN) and (made, told) != (1, self.tools.success(call)):
                yield f"took effect {made} times, and the model was told {told!r}"


def runs(folder: Path, *, seed: int, kills: int, tools: str = "ours", upstream: str = "emulator") -> Iterator[Run]:
    """Jobs one after the other, until so many servers were killed."""
    pick = random.Random(f"calls {seed}")
    with UPSTREAMS[upstream]() as base_url:
        while kills > 0:
            home = Path(tempfile.mkdtemp(dir=folder))
            run = _run(home, base_url, TOOLS[tools](home), pick, kills)
            kills -= run.kills
            yield run.judged()


def _run(home: Path, base_url: str, tools: Tools, pick: random.Random, kills: int) -> Run:
    turns = _turns(tools, pick)
    run = Run(tools, [call for turn in turns for call in turn])
    (home / "tools.json").write_text(json.dumps({"mcpServers": tools.servers()}))
    # A POST whose answer died with its process is sent again: a turn that nobody reads calls nothing.
    ours = {"AGENT_JOBS_TOOLBOX": str(home / "tools.json"), "AGENT_JOBS_RESUBMIT": "once"}
    job_id = ""
    while True:
        with serving(home / "data", base_url, **ours) as server:
            server.initialize()
            job_id = job_id or _started(server, turns, [*tools.servers()])
            if run.kills == kills or not _killed(server, run, pick):
                _end(run, server, job_id)
                return run


def _turns(tools: Tools, pick: random.Random) -> list[list[Call]]:
    """Turns with calls side by side, some of which take a while."""
    turns: list[list[Call]] = []
    for _ in range(pick.randint(4, 8)):
        first = sum(map(len, turns)) + 1
        turns.append([tools.call(number, pick) for number in range(first, first + pick.randint(1, 4))])
    return turns


def _started(server: Server, turns: Sequence[Sequence[Call]], servers: Sequence[str]) -> str:
    calls = [[{"name": call.name, "arguments": call.arguments} for call in turn] for turn in turns]
    script = {"duration_s": 1, "reasoning": 0, "turns": [*({"function_calls": c} for c in calls), {"text": "the end"}]}
    prompt = f"work [emulate {json.dumps(script)}]"
    return server.call("agent_start", prompt=prompt, options={"toolbox": servers}, wait_s=0)["job_id"]


def _killed(server: Server, run: Run, pick: random.Random) -> bool:
    """Let calls begin and end and a moment pass, then kill the server; False where no call was left to do so."""
    log = run.tools.log
    lines, give_up_at = _length(log) + pick.randint(1, LINES), time.monotonic() + STALL_S
    while _length(log) < lines:
        ended = noted(log, "end")
        if all(ended[call.number] for call in run.calls if call.noted) or time.monotonic() > give_up_at:
            return False
        time.sleep(0.005)
    time.sleep(pick.uniform(0, AFTER_S))
    server.process.kill()
    server.process.wait()
    run.kills += 1
    run.inside += noted(log, "begin") != noted(log, "end")
    return True


def _length(log: Path) -> int:
    return log.read_text().count("\n")


def _end(run: Run, server: Server, job_id: str) -> None:
    give_up_at = time.monotonic() + LIMIT_S
    run.end = server.call("agent_poll", job_id=job_id, wait_s=10)
    while "next_poll_ms" in run.end and time.monotonic() < give_up_at:
        run.end = server.call("agent_poll", job_id=job_id, wait_s=10)
    if "next_poll_ms" not in run.end:
        run.told = _told(server, job_id, run.calls)


def _told(server: Server, job_id: str, calls: Sequence[Call]) -> dict[int, str]:
    """What the model was told, by call."""
    numbers = {(call.name, json.dumps(call.arguments)): call.number for call in calls}
    told: dict[int, str] = {}
    offset: int | None = 0
    while offset is not None:
        page = server.call("agent_result", job_id=job_id, part="items", max_bytes=100_000, offset=offset)
        for item in page["items"]:
            if "output" in item:
                told[numbers[item["name"], json.dumps(json.loads(item["arguments"]))]] = str(item["output"])
        offset = page.get("next_offset")
    return told


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--kills", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--tools", type=click.Choice([*TOOLS]), default="ours", show_default=True)
@click.option("--upstream", type=click.Choice([*UPSTREAMS]), default="emulator", show_default=True)
def main(seed: int, kills: int, tools: str, upstream: str) -> None:
    """Kill servers between and inside calls; exit 1 if a call was made twice or a job lost."""
    began, lived = time.monotonic(), list[Run]()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for run in runs(Path(folder), seed=seed, kills=kills, tools=tools, upstream=upstream):
            lived.append(run)
            for violation in run.violations:
                click.echo(violation)
    click.echo(f"{_summary(lived)}, {time.monotonic() - began:.0f} s")
    sys.exit(any(run.violations for run in lived))


def _summary(lived: Sequence[Run]) -> str:
    def count(what: Callable[[Run], int]) -> int:
        return sum(map(what, lived))

    return (
        f"{count(lambda run: run.kills)} kills, {count(lambda run: run.inside)} while a call was under way; "
        f"{len(lived)} jobs, {count(lambda run: len(run.calls))} calls, {count(lambda run: run.repeated)} made again, "
        f"{count(lambda run: run.unknown)} outcomes unknown, {count(lambda run: len(run.violations))} wrong"
    )


if __name__ == "__main__":
    main()
