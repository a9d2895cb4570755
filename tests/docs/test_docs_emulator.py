"""docs/emulator.md names every key of scripts and every field of faults."""

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from agent_jobs.emulator import faults, tool_items
from agent_jobs.emulator.faults import Fault
from agent_jobs.emulator.script import Script

PAGE = (Path(__file__).parents[2] / "docs/emulator.md").read_text()
OF_A_CALL = re.findall(r'call\.get\("(\w+)"', Path(tool_items.__file__).read_text())
SWITCHES: dict[str, Iterable[str]] = {
    "scripts": [field.name for field in fields(Script)],
    "faults": [field.name for field in fields(Fault)],
    "operations": get_args(faults.Operation),
    "drops": get_args(faults.Drop),
    "calls": OF_A_CALL,
}


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_page_names_every_switch(switches: Iterable[str]) -> None:
    named = {*re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", PAGE)))}
    assert sorted({*switches} - named) == []
