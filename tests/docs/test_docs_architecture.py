"""docs/architecture.md shows the packages, modules and statuses of the source."""

import re
from itertools import pairwise
from pathlib import Path

from test_imports import ALLOWED, SHARED

import agent_jobs
from agent_jobs.jobs.status import TRANSITIONS, Status

PAGE = (Path(__file__).parents[2] / "docs/architecture.md").read_text()
HOUSE = Path(agent_jobs.__file__).parent


def section(heading: str) -> str:
    return PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_every_package_is_in_the_table_and_no_other() -> None:
    rows = [line for line in section("Packages").splitlines() if line.startswith("| `")]
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([\w/.]+)`", row.split("|")[1])}
    rooms = {path.name for path in HOUSE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert named == rooms - {"__init__.py", "__pycache__"}


def test_every_package_is_in_the_picture() -> None:
    picture = section("Packages").partition("```\n")[2].partition("```")[0]
    rooms = ALLOWED.keys() - {""}
    assert [room for room in rooms if not re.search(rf"\b{room}\b", picture)] == []
    floors = {
        room: number
        for number, line in enumerate(picture.splitlines())
        for room in re.findall(r"\w+", line.partition("   ")[0])
    }
    beside = {"emulator", "cli"}  # only the command line opens these two, which are in no layer
    wrong = [
        (above, below)
        for above in rooms - beside
        for below in ALLOWED[above] & rooms - SHARED
        if floors[below] < floors[above]
    ]
    assert wrong == [], "imports go down only"


def test_every_module_of_a_package_is_named() -> None:
    named = re.findall(r"^\| `([\w/]+\.py)` \|", section("Inside the packages"), re.M)
    modules = {path.relative_to(HOUSE).as_posix() for path in HOUSE.glob("*/*.py") if path.read_text()}
    assert {*named} == modules


def test_statuses_of_the_page_are_those_of_the_code() -> None:
    picture = section("A job's way through it").partition("```\n")[2].partition("```")[0]
    assert all(status in picture for status in Status)
    [path] = re.findall(r"^ pending -> (.*)$", picture, re.M)
    steps = ["pending", *path.split(" -> ")[:-1]]
    for before, after in pairwise(steps):
        assert Status(after) in TRANSITIONS[Status(before)]
