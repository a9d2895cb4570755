"""docs/architecture.md shows the packages, modules and statuses of the source."""

import re
from itertools import pairwise
from pathlib import Path

from test_imports import ALLOWED, SHARED

import agent_jobs
from agent_jobs.jobs.status import TRANSITIONS, Status

PAGE = (Path(__file__).parents[2] / "docs/architecture.md").read_text()
SOURCE = Path(agent_jobs.__file__).parent


def read_section(heading: str) -> str:
    return PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_every_package_is_in_the_table_and_no_other() -> None:
    rows = [line for line in read_section("Packages").splitlines() if line.startswith("| `")]
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([\w/.]+)`", row.split("|")[1])}
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert named == packages - {"__init__.py", "__pycache__"}


def test_every_package_is_in_the_picture() -> None:
    picture = read_section("Packages").partition("```\n")[2].partition("```")[0]
    parts = ALLOWED.keys() - {""}
    assert [part for part in parts if not re.search(rf"\b{part}\b", picture)] == []
    layers = {
        part: number
        for number, line in enumerate(picture.splitlines())
        for part in re.findall(r"\w+", line.partition("   ")[0])
    }
    beside = {"emulator", "cli"}  # only the command line opens these two, which are in no layer
    wrong = [
        (above, below)
        for above in parts - beside
        for below in ALLOWED[above] & parts - SHARED
        if layers[below] < layers[above]
    ]
    assert wrong == [], "imports go down only"


def test_every_module_of_a_package_is_named() -> None:
    named = re.findall(r"^\| `([\w/]+\.py)` \|", read_section("Inside the packages"), re.M)
    modules = {path.relative_to(SOURCE).as_posix() for path in SOURCE.glob("*/**/*.py") if path.read_text()}
    assert {*named} == modules


def test_statuses_of_the_page_are_those_of_the_code() -> None:
    picture = read_section("A job's way through it").partition("```\n")[2].partition("```")[0]
    assert all(status in picture for status in Status)
    [path] = re.findall(r"^ pending -> (.*)$", picture, re.M)
    steps = ["pending", *path.split(" -> ")[:-1]]
    for before, after in pairwise(steps):
        assert Status(after) in TRANSITIONS[Status(before)]
