"""Measure which lines and branches of our source the tests run, with SlipCover, in the test processes and their forks.

Where `TEST_COVERAGE` names a folder, each process that calls `measure` before it imports `agent_jobs` writes there at
its end what it ran. `python tests/support/measuring.py` adds that up, prints what was not run, and fails below the
limit. Processes that are killed are not measured, nor are new interpreters.

A report of SlipCover takes 0.2 s, too much for the end of each of a thousand forks. So they write only what SlipCover
saw, and one report is made of all.
"""

import atexit
import os
import pickle
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from measured_code import keep_code

#: The variable that names the folder: where it is unset, nothing is measured.
VARIABLE = "TEST_COVERAGE"
SOURCE = Path(__file__).parents[2] / "src/agent_jobs"
#: When SlipCover takes its probes out of what ran often: it would look through all objects of all modules and threads.
NEVER = -1

#: What measures this process, by the folder that it writes to.
_measuring: dict[Path, Any] = {}


def measure() -> None:
    """Have this process, and its forks, measure what they import from now on, if the tests are measured."""
    if _measuring or VARIABLE not in os.environ:
        return
    slipcover = import_module("slipcover")  # not every environment that the tests make has it
    keep_code()
    measuring = slipcover.Slipcover(branch=True, d_miss_threshold=NEVER)
    slipcover.ImportManager(measuring, slipcover.FileMatcher(sources=[SOURCE])).__enter__()
    _measuring[Path(os.environ[VARIABLE])] = measuring
    atexit.register(write)


def write() -> None:
    """Write what this process ran since it wrote last, or since the process that it is a fork of did."""
    for folder, measuring in _measuring.items():
        (folder / f"{os.getpid()}-{os.urandom(4).hex()}").write_bytes(pickle.dumps(measuring.newly_seen))
        measuring.signal_child_process()  # it forgets what it saw


def report(folder: Path) -> str:
    """Print what all processes together did not run; return a complaint if that is too much."""
    slipcover = import_module("slipcover")
    settings = import_module("slipcover.config").read_config()
    total = slipcover.Slipcover(branch=True, source=[str(SOURCE)], exclude_also=settings["exclude-also"])
    for written in folder.iterdir():
        for path, seen in pickle.loads(written.read_bytes()).items():
            total.all_seen[path].update(seen)
    coverage = total.get_coverage()
    slipcover.print_coverage(coverage, skip_covered=True, missing_width=80)
    reached, limit = coverage["summary"]["percent_covered"], settings["fail-under"]
    return "" if reached >= limit else f"{reached:.2f} % of the lines and branches ran, and it must be {limit} %."


if __name__ == "__main__":
    sys.exit(report(Path(os.environ[VARIABLE])) or 0)
