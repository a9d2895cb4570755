"""The terminal captures of the pages: below each `$` line of a `console` block stands what that line shows.

    scripts/captures [PAGE]...

runs the lines of the pages that have any, in their order, and writes what they show. A test runs them too and compares,
but for ids, times, versions and paths. The API is the emulated one.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from machine import KEY, Machine, machine
from processes import serving
from terminals import screen

ROOT = Path(__file__).parents[2]
PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if "```console" in page.read_text()
]
BLOCK = re.compile(r"(?:<!-- capture ([\w-]+) -->\n)?```console\n(.*?)```", re.S)
JOB = re.compile(r"job_[0-9a-z]{12}")


@dataclass(frozen=True)
class Scene:
    """The way in which a named block is captured. It has its own machine unless it continues the block above."""

    before: Callable[[Machine], None] = lambda here: None
    columns: int = 80
    at: Sequence[str] = ()  #: Ctrl-C is pressed once all of these expressions match what is on the screen ...
    moment: bool = False  #: ... and the block shows that moment, not the end
    continues: bool = False


@dataclass(frozen=True)
class Act:
    """A part of a page whose blocks share a machine: all parts after each other are the page."""

    name: str  #: of its first block
    text: str


def split_into_acts(page: str) -> list[Act]:
    """Return the parts of a page that depend on none of the others."""
    starts = [found for found in BLOCK.finditer(page) if found[1] and not SCENES[found[1]].continues]
    names = ["beginning", *(found[1] for found in starts)]
    limits = [0, *(found.start() for found in starts), len(page)]
    acts = [Act(name, page[start:end]) for name, (start, end) in zip(names, pairwise(limits), strict=True)]
    return [act for act in acts if act.text]


def captured(part: str) -> str:
    """Return the page, or an act of it, with the current outputs; a block with the same output stays as it is."""
    return "".join(_capture_act(act) for act in split_into_acts(part))


def _capture_act(act: Act) -> str:
    def block(found: re.Match[str]) -> str:
        now = _block(here, found[1], found[2])
        return found[0] if comparable(now) == comparable(found[0]) else now

    if not BLOCK.search(act.text):
        return act.text
    with machine() as here:
        return BLOCK.sub(block, act.text)


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Return the commands in a block, each with the output below it."""
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
        line, _, shown = part.partition("\n")
        while line.endswith("\\"):
            more, _, shown = shown.partition("\n")
            line += f"\n{more}"
        yield line, shown


def _block(here: Machine, name: str | None, block: str) -> str:
    scene = SCENES[name] if name else Scene()
    scene.before(here)
    parts = [f"$ {line}\n{_run_line(here, scene, line, shown)}".rstrip("\n") for line, shown in commands(block)]
    mark = f"<!-- capture {name} -->\n" if name else ""
    return f"{mark}```console\n" + "\n\n".join(parts) + "\n```"


def _run_line(here: Machine, scene: Scene, line: str, before: str) -> str:
    def stop(seen: str) -> bool:
        shown = " ".join(screen(seen).split())
        return bool(scene.at) and all(re.search(text, shown) for text in scene.at)

    moment, end = here.type(line, columns=scene.columns, stop=stop)
    assert moment or not scene.at, f"{line} never showed {scene.at!r}:\n{end}"
    shown = moment if scene.moment else end
    # The page keeps the ids that it has.
    for there, real in zip(_ids(before), _ids(shown), strict=False):
        if there not in here.ids and real not in here.ids.values():
            here.ids.update({there: real, there[:10]: real[:10]})
    return here.format_for_page(shown)


def _ids(text: str) -> list[str]:
    return list(dict.fromkeys(JOB.findall(text)))


#: What is another each time, and what stands for it when pages are compared. White space counts once: a longer time or
#: path moves what stands behind it.
OTHERWISE: Sequence[tuple[str, str]] = (
    (r"job_[0-9a-z]{6,12}", "job_X"),
    (r"(resp|batch)_[0-9a-z]+", r"\1_X"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"\bpid \d+|\bprocess \d+|kill -9 \d+", "process N"),
    (r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d:\d\d)?( UTC| [+-]\d\d:\d\d)?", "DATE"),
    (r"\b\d+:\d\d(:\d\d)?\b", "TIME"),
    (r"\b\d+(\.\d+)?( ?s| KiB| MiB)\b", r"N\2"),
    (r"(job_X +TIME +(queued|in_progress).*\n)+", "CHANGES\n"),
    (r"(job_X +)searching( +TIME)", r"\1writing\2"),  # a poll may replace what the stream showed
    (r'("elapsed_s"|"age_s"):\d+', r"\1:N"),
    (r"\b\d+\.\d+\.\d+\b|\bschema \d+", "VERSION"),
    (r"━+", "━"),  # a longer time leaves a shorter bar
    (r"\w*…", "…"),
    (r"\s+", " "),
)


def comparable(page: str) -> str:
    """Return a page without the values that differ in each run."""
    for pattern, instead in OTHERWISE:
        page = re.sub(pattern, instead, page)
    return page


RUN_JOB = "job_t60wkdczjzz8"  #: of the capture "run"
CHECKPOINT, POINT = "What is a checkpoint?", "The point up to which the log is in the database."
RAFT = "Read the Raft paper and list its assumptions"
RECOVERY = "Compare how three databases recover from a crash"
RETRIES = "Which of our retries is not idempotent?"
PLAN = "Write the migration plan"
WEAKEST = "Which of them is the weakest?"
ASSUMED = (
    "Raft assumes that a majority of the servers is up, that messages may be lost but not forged, "
    "and that clocks drift little enough for elections."
)
FOLLOW_UP = "And which of them do we break?"
LOG = "The write-ahead log keeps what was promised; the checkpoint keeps it small. " * 8 + "That is all."


def _still(text: str, **script: Any) -> dict[str, Any]:
    """Script a run that writes this at once and then never ends: the emulator keeps back the second half."""
    return {"duration_s": 5, "text": text * 2, "chunk": len(text), "end": "never", **script}


#: A run that is not watched from its beginning, and has begun with nothing that is to be seen by then.
LATER = {"duration_s": 60}


def _asking(prompt: str, **script: Any) -> Callable[[Machine], None]:
    """Script the run of a prompt."""

    def prepare(here: Machine) -> None:
        here.scripts[prompt] = script

    return prepare


def _served(here: Machine) -> None:
    """Run a host's server, which works on the jobs."""
    server = here.beside.enter_context(serving(here.data, here.upstream.base_url, OPENAI_API_KEY=KEY))
    server.initialize()
    server.call("agent_list")
    here.scripts[PLAN] = _still(POINT, searches=2)


def _hosted(here: Machine) -> None:
    """Run a host's server, which continues a job that its assistant started."""
    with serving(here.data, here.upstream.base_url, OPENAI_API_KEY=KEY) as server:
        server.initialize()
        here.scripts[RECOVERY] = {"searches": 3}
        server.call("agent_start", prompt=RECOVERY, web_search=True, wait_s=30)
        server.call("agent_list")  # its query comes after the note that the result was delivered


def _own_presets(here: Machine) -> None:
    """Write a file of presets with a typing error."""
    (here.home / "work/mine.toml").write_text('[release_notes]\ndescription = "Release notes"\nefort = "medium"\n')


def _store_key(here: Machine) -> None:
    """Store the key of the provider's own address, as the page says before it installs."""
    stored = here.run("agent-jobs key set", stdin=f"{KEY}\n", OPENAI_BASE_URL="", OPENAI_API_KEY="")
    assert stored.returncode == 0, stored.stderr


def _installed(here: Machine) -> None:
    """Store the key, and have the entries send jobs where this shell does."""
    stored = here.run("agent-jobs key set", stdin=f"{KEY}\n")
    assert stored.returncode == 0, stored.stderr
    for host in ("claude-desktop", "claude-code", "cursor", "vscode"):
        installed = here.run(f"uvx agent-jobs install {host} --no-check --env OPENAI_BASE_URL={here.upstream.base_url}")
        assert installed.returncode == 0, installed.stderr


def _answered(here: Machine) -> None:
    """Make the job that the page showed with `run`."""
    here.scripts[CHECKPOINT] = {"text": POINT}
    ran = here.run(f"agent-jobs run '{CHECKPOINT}'")
    [answered] = set(JOB.findall(ran.stderr))
    here.ids[RUN_JOB] = answered


def _one(here: Machine) -> None:
    """Start one job, which writes."""
    here.start(RECOVERY, **_still(LOG, searches=3, **LATER))


def _several(here: Machine) -> None:
    """Three jobs, one of which fails soon."""
    here.start(RAFT, **_still(POINT, searches=1, **LATER))
    here.start(RETRIES, duration_s=60, end="failed", error_message="The model produced invalid content.")
    here.start(PLAN, **_still(POINT, searches=2, **LATER))


def _a_day(here: Machine) -> None:
    """Make the jobs of a day: one that continues another, one that failed."""
    (here.home / "work/prices.toml").write_text('[models."gpt-6.1-sol"]\ninput = 5\noutput = 300\n')
    prices = {"AGENT_JOBS_PRICES": "prices.toml"}
    failing = {"duration_s": 10, "end": "failed", "error_message": "The model produced invalid content."}
    here.scripts.update({RAFT: {"searches": 2, "text": ASSUMED}, FOLLOW_UP: {}, RETRIES: failing, PLAN: {}})
    ran = here.run(f"agent-jobs run '{RAFT}' --web-search", **prices)
    [raft] = JOB.findall(ran.stderr.splitlines()[-1])
    here.run(f"agent-jobs run '{FOLLOW_UP}' --previous {raft} --no-web-search", **prices)
    here.run(f"agent-jobs run '{RETRIES}'", **prices)
    here.run(f"agent-jobs start --wait '{PLAN}'", **prices)


def _questions(here: Machine) -> None:
    """Script a follow-up and a second try."""
    here.scripts[WEAKEST] = {"text": "That clocks drift little: a paused process breaks it."}
    here.scripts[RETRIES] = {"text": "The one in billing: after a timeout it charges again."}


def _night(here: Machine) -> None:
    """Write a file of prompts."""
    prompts = [f"Summarise chapter {n}" for n in range(1, 25)]
    here.scripts.update({prompt: {"text": f"What {prompt[10:]} says, in a sentence."} for prompt in prompts})
    (here.home / "work/night.jsonl").write_text("".join(f"{json.dumps(prompt)}\n" for prompt in prompts))


SCENES: dict[str, Scene] = {
    "doctor-hosts": Scene(_installed),
    "install-with-key": Scene(_store_key),
    "first-run": Scene(_asking(CHECKPOINT, text=POINT)),
    "first-list": Scene(_hosted, continues=True),
    "preset-mistake": Scene(_own_presets),
    "unconfirmed": Scene(_asking(RECOVERY, faults=[{"on": "create", "status": 500, "after_accept": True}])),
    "run-moment": Scene(_asking(CHECKPOINT, **_still(POINT)), at=[r"in the database\. writing"], moment=True),
    "run-moment-160": Scene(
        _asking(RECOVERY, **_still(LOG, searches=3)), columns=160, at=[r"That is all\. \w+ \S+ 3 searches"], moment=True
    ),
    "run": Scene(_asking(CHECKPOINT, text=POINT)),
    "result": Scene(_answered),
    "dry-run": Scene(columns=100),
    "start": Scene(_served),
    "watch": Scene(_one, at=["That is all."]),
    "watch-160": Scene(_one, columns=160, at=["That is all."]),
    "watch-piped": Scene(_one, at=["searches; writing"]),
    "watch-several": Scene(_several, at=["failed", "1 search Read", "2 searches Write"]),
    "list": Scene(_a_day),
    "list-160": Scene(columns=160, continues=True),
    "list-60": Scene(columns=60, continues=True),
    "search": Scene(continues=True),
    "show": Scene(continues=True),
    "logs": Scene(continues=True),
    "stats": Scene(continues=True),
    "ask": Scene(_questions, continues=True),
    "retry": Scene(continues=True),
    "export": Scene(continues=True),
    "delete": Scene(continues=True),
    "batch": Scene(_night, continues=True),
    "doctor": Scene(continues=True),
    "doctor-160": Scene(columns=160, continues=True),
}


def main(names: Sequence[str]) -> None:
    """Write the captures of the pages that are named, or of all."""
    for page in [ROOT / name for name in names] or PAGES:
        text = page.read_text()
        new = captured(text)
        if comparable(new) != comparable(text):
            page.write_text(new)
            sys.stderr.write(f"{page.relative_to(ROOT)} shows something else now: look at the difference.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
