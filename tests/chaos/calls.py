"""Run jobs whose servers are killed again and again, between and inside the calls of their tools; by seed.

    PYTHONPATH=tests:tests/support python -m chaos.calls --kills 50 --tools third-party --upstream peer

The tool servers' own record is the proof: a call that changes something took effect at most once. If its outcome was
lost with the process that made it, the model was told that it is unknown.
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

from .tools import SECONDS, Call, Ours, ThirdParty, Tools, count_noted

Json = dict[str, Any]

SPEED = 20.0
#: Begins and ends of calls before a kill, at most. With one alone, a repeated call would be killed again each time.
LINES = 4
#: Seconds from the last of them to the kill, at most.
AFTER_S = max(SECONDS)
#: Seconds without a begin or an end after which no call is left.
STALL_S = 10.0
#: Seconds in which a job finishes once its server is no longer killed.
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
    """One job: the calls of its model, the outcomes that were reported, its end, and the kills that it survived."""

    tools: Tools
    calls: Sequence[Call]
    kills: int = 0
    kills_inside_calls: int = 0  #: kills while a call was running
    end: Json = field(default_factory=dict[str, Any])
    outcomes: dict[int, str] = field(default_factory=dict[int, str])
    begun: Counter[int] = field(default_factory=Counter[int])  #: begins of each call, by the servers' own record
    violations: list[str] = field(default_factory=list[str])

    @property
    def unknown(self) -> int:
        """Count the outcomes that were reported as unknown."""
        return sum(outcome.startswith(UNKNOWN) for outcome in self.outcomes.values())

    @property
    def repeated(self) -> int:
        """Count the calls that began more than once."""
        return sum(count > 1 for count in self.begun.values())

    def judge(self) -> "Run":
        """Add the violations of the run to it, and return it."""
        if (self.end["status"], self.end.get("output")) != ("completed", "the end"):
            self.violations.append(f"it ended {self.end}")
        self.begun = count_noted(self.tools.log, "begin")
        for call in self.calls:
            self.violations += (f"{call} {wrong}" for wrong in self._find_faults(call))
        return self

    def _find_faults(self, call: Call) -> Iterator[str]:
        outcome = self.outcomes.get(call.number)
        if outcome is None:
            yield "was never answered"
        elif call.is_repeatable:
            if self.tools.describe_success(call) not in outcome:
                yield f"was reported as {outcome!r}"
        else:
            begun, made = self.begun[call.number], self.tools.count_effects(call)
            if max(begun, made) > 1:
                yield f"began {begun} times and took effect {made} times"
            if not outcome.startswith(UNKNOWN) and (made, outcome) != (1, self.tools.describe_success(call)):
                yield f"took effect {made} times, and the model was told {outcome!r}"


def run_jobs(folder: Path, *, seed: int, kills: int, tools: str = "ours", upstream: str = "emulator") -> Iterator[Run]:
    """Run jobs one after the other until `kills` servers were killed."""
    pick = random.Random(f"calls {seed}")
    with UPSTREAMS[upstream]() as base_url:
        while kills > 0:
            home = Path(tempfile.mkdtemp(dir=folder))
            run = _run_job(home, base_url, TOOLS[tools](home), pick, kills)
            kills -= run.kills
            yield run.judge()


def _run_job(home: Path, base_url: str, tools: Tools, pick: random.Random, kills: int) -> Run:
    turns = _draw_turns(tools, pick)
    run = Run(tools, [call for turn in turns for call in turn])
    (home / "tools.json").write_text(json.dumps({"mcpServers": tools.servers()}))
    # A process can die before it reads the answer of its POST. Then the request is sent again, and the first turn calls
    # nothing.
    ours = {"AGENT_JOBS_TOOLBOX": str(home / "tools.json"), "AGENT_JOBS_RESUBMIT": "once"}
    job_id = ""
    while True:
        with serving(home / "data", base_url, **ours) as server:
            server.initialize()
            job_id = job_id or _start_job(server, turns, [*tools.servers()])
            if run.kills == kills or not _kill_during_calls(server, run, pick):
                _wait_for_end(run, server, job_id)
                return run


def _draw_turns(tools: Tools, pick: random.Random) -> list[list[Call]]:
    """Draw turns with simultaneous calls, some of which take a while."""
    turns: list[list[Call]] = []
    for _ in range(pick.randint(4, 8)):
        first = sum(map(len, turns)) + 1
        turns.append([tools.call(number, pick) for number in range(first, first + pick.randint(1, 4))])
    return turns


def _start_job(server: Server, turns: Sequence[Sequence[Call]], servers: Sequence[str]) -> str:
    calls = [[{"name": call.name, "arguments": call.arguments} for call in turn] for turn in turns]
    script = {"duration_s": 1, "reasoning": 0, "turns": [*({"function_calls": c} for c in calls), {"text": "the end"}]}
    prompt = f"work [emulate {json.dumps(script)}]"
    return server.call("agent_start", prompt=prompt, options={"toolbox": servers}, wait_s=0)["job_id"]


def _kill_during_calls(server: Server, run: Run, pick: random.Random) -> bool:
    """Let calls begin and end and a moment pass, then kill the server; return False if no call was left."""
    log = run.tools.log
    lines, give_up_at = _count_lines(log) + pick.randint(1, LINES), time.monotonic() + STALL_S
    while _count_lines(log) < lines:
        ended = count_noted(log, "end")
        if all(ended[call.number] for call in run.calls if call.is_noted) or time.monotonic() > give_up_at:
            return False
        time.sleep(0.005)
    time.sleep(pick.uniform(0, AFTER_S))
    server.process.kill()
    server.process.wait()
    run.kills += 1
    run.kills_inside_calls += count_noted(log, "begin") != count_noted(log, "end")
    return True


def _count_lines(log: Path) -> int:
    return log.read_text().count("\n")


def _wait_for_end(run: Run, server: Server, job_id: str) -> None:
    give_up_at = time.monotonic() + LIMIT_S
    run.end = server.call("agent_poll", job_id=job_id, wait_s=10)
    while "next_poll_ms" in run.end and time.monotonic() < give_up_at:
        run.end = server.call("agent_poll", job_id=job_id, wait_s=10)
    if "next_poll_ms" not in run.end:
        run.outcomes = _read_outcomes(server, job_id, run.calls)


def _read_outcomes(server: Server, job_id: str, calls: Sequence[Call]) -> dict[int, str]:
    """Return the outcomes that the model was told, by the number of the call."""
    numbers = {(call.name, json.dumps(call.arguments)): call.number for call in calls}
    outcomes: dict[int, str] = {}
    offset: int | None = 0
    while offset is not None:
        page = server.call("agent_result", job_id=job_id, part="items", max_bytes=100_000, offset=offset)
        for item in page["items"]:
            if "output" in item:
                outcomes[numbers[item["name"], json.dumps(json.loads(item["arguments"]))]] = str(item["output"])
        offset = page.get("next_offset")
    return outcomes


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--kills", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--tools", type=click.Choice([*TOOLS]), default="ours", show_default=True)
@click.option("--upstream", type=click.Choice([*UPSTREAMS]), default="emulator", show_default=True)
def main(seed: int, kills: int, tools: str, upstream: str) -> None:
    """Kill servers between and inside calls; exit 1 if a call was made twice or a job lost."""
    began, runs = time.monotonic(), list[Run]()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for run in run_jobs(Path(folder), seed=seed, kills=kills, tools=tools, upstream=upstream):
            runs.append(run)
            for violation in run.violations:
                click.echo(violation)
    click.echo(f"{_summarize(runs)}, {time.monotonic() - began:.0f} s")
    sys.exit(any(run.violations for run in runs))


def _summarize(runs: Sequence[Run]) -> str:
    def count(what: Callable[[Run], int]) -> int:
        return sum(map(what, runs))

    return (
        f"{count(lambda run: run.kills)} kills, {count(lambda run: run.kills_inside_calls)} during a call; "
        f"{len(runs)} jobs, {count(lambda run: len(run.calls))} calls, {count(lambda run: run.repeated)} made again, "
        f"{count(lambda run: run.unknown)} outcomes unknown, {count(lambda run: len(run.violations))} wrong"
    )


if __name__ == "__main__":
    main()
