"""Jobs whose servers are killed between and inside the calls of their tools, again and again; by seed.

    PYTHONPATH=tests python -m chaos.calls --kills 50

What a tool server wrote down itself is the proof: a call that changes something was made at most once, and where its
outcome was lost with the process that made it, the model was told so.
"""

import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from agent_jobs.emulator import running
from agent_jobs.loop import UNKNOWN
from processes import Server, serving

Json = dict[str, Any]

SPEED = 20.0
LEDGER = Path(__file__).resolve().parents[1] / "ledger.py"
#: A kill comes so long after a line of the tool server, or after a start, at most: calls take up to so long.
AFTER_S = 0.3
LIMIT_S = 60.0


@dataclass(slots=True)
class Run:
    """One job: what its tool server wrote down, what its model was told of each call, and how it ended."""

    end: Json
    begun: Counter[str]
    ended: Counter[str]
    told: dict[str, str]
    kills: int
    violations: list[str] = field(default_factory=list[str])

    def judged(self) -> "Run":
        """The run with what is wrong about it."""
        if (self.end["status"], self.end.get("output")) != ("completed", "the end"):
            self.violations.append(f"it ended {self.end}")
        for call, told in self.told.items():
            if not call.startswith("write"):
                continue
            if self.begun[call] > 1:
                self.violations.append(f"{call} was made {self.begun[call]} times")
            if told != call and not told.startswith(UNKNOWN):
                self.violations.append(f"of {call} the model was told {told!r}")
            if told == call and self.ended[call] != 1:
                self.violations.append(f"{call} ended {self.ended[call]} times, and the model was told that it did")
        return self


def runs(folder: Path, *, seed: int, kills: int) -> Iterator[Run]:
    """Jobs one after the other, until so many servers were killed."""
    pick = random.Random(f"calls {seed}")
    with running(time_scale=SPEED) as upstream:
        while kills > 0:
            run = _run(folder, upstream.base_url, pick, kills)
            kills -= run.kills
            yield run.judged()


def _run(folder: Path, base_url: str, pick: random.Random, kills: int) -> Run:
    home = Path(tempfile.mkdtemp(dir=folder))
    log = home / "ledger"
    log.touch()
    entry = {"command": sys.executable, "args": ["-S", str(LEDGER), str(log)], "approval": "never"}
    (home / "tools.json").write_text(json.dumps({"mcpServers": {"ledger": entry}}))
    script = _script(pick)
    prompt = f"work [emulate {json.dumps(script)}]"
    killed, job_id, calls = 0, "", sum(len(turn.get("function_calls", ())) for turn in script["turns"])
    while True:
        # A POST whose answer died with its process is sent again: a turn that nobody reads calls nothing.
        ours = {"AGENT_JOBS_TOOLBOX": str(home / "tools.json"), "AGENT_JOBS_RESUBMIT": "once"}
        with serving(home / "data", base_url, **ours) as server:
            server.initialize()
            if not job_id:
                job_id = server.call("agent_start", prompt=prompt, options={"toolbox": ["ledger"]}, wait_s=0)["job_id"]
            if killed < kills and len(_lines(log, "begin")) < calls:
                killed += _lived(server, log, pick)
                continue
            return _ended(server, job_id, log, killed)


def _script(pick: random.Random) -> Json:
    """Turns with calls side by side, some of which take a while."""
    number, turns = 0, list[Json]()
    for _ in range(pick.randint(4, 8)):
        calls: list[Json] = []
        for _ in range(pick.randint(1, 4)):
            number += 1
            seconds = pick.choice((0, AFTER_S / 2, AFTER_S))
            name = pick.choice(("write", "write", "read"))
            calls.append({"name": f"ledger__{name}", "arguments": {"n": number, "seconds": seconds}})
        turns.append({"function_calls": calls})
    return {"duration_s": 1, "reasoning": 0, "turns": [*turns, {"text": "the end"}]}


def _lived(server: Server, log: Path, pick: random.Random) -> int:
    """Let the server come to its next call or end and a little further; then kill it."""
    length, give_up_at = log.stat().st_size, time.monotonic() + 2.0
    while log.stat().st_size == length and time.monotonic() < give_up_at:
        time.sleep(0.002)
    time.sleep(pick.uniform(0, AFTER_S))
    server.process.kill()
    server.process.wait()
    return 1


def _ended(server: Server, job_id: str, log: Path, kills: int) -> Run:
    give_up_at = time.monotonic() + LIMIT_S
    end = server.call("agent_poll", job_id=job_id, wait_s=10)
    while "next_poll_ms" in end and time.monotonic() < give_up_at:
        end = server.call("agent_poll", job_id=job_id, wait_s=10)
    return Run(
        end,
        _lines(log, "begin"),
        _lines(log, "end"),
        _told(server, job_id) if "next_poll_ms" not in end else {},
        kills,
    )


def _lines(log: Path, what: str) -> Counter[str]:
    """How often the tool server wrote that of each call."""
    return Counter(line.removeprefix(f"{what} ") for line in log.read_text().splitlines() if line.startswith(what))


def _told(server: Server, job_id: str) -> dict[str, str]:
    """What the model was told, by call."""
    told: dict[str, str] = {}
    offset: int | None = 0
    while offset is not None:
        page = server.call("agent_result", job_id=job_id, part="items", max_bytes=100_000, offset=offset)
        for item in page["items"]:
            if "output" in item:
                name = re.sub("^ledger__", "", item["name"])
                told[f"{name} {json.loads(item['arguments'])['n']}"] = str(item["output"])
        offset = page.get("next_offset")
    return told


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--kills", type=click.IntRange(min=1), default=50, show_default=True)
def main(seed: int, kills: int) -> None:
    """Kill servers between and inside calls; exit 1 if a call was made twice or a job lost."""
    began, wrong, killed, unknown = time.monotonic(), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for run in runs(Path(folder), seed=seed, kills=kills):
            wrong += len(run.violations)
            killed += run.kills
            unknown += sum(told.startswith(UNKNOWN) for told in run.told.values())
            for violation in run.violations:
                click.echo(violation)
    click.echo(f"{killed} kills, {unknown} outcomes unknown, {wrong} wrong, {time.monotonic() - began:.0f} s")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
