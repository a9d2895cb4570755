"""Run real hosts on this checkout: does a host's first request have our tools, and does it bring a long job's result?

Each host is installed from its registry into a cache, and runs in a home of its own. Its model is a script, its
upstream the emulator, its keys are made up; all of that is on loopback. It takes minutes, so CI does not run it.
"""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from .catalogue import HOSTS
from .runs import HostError, Run, install_agent_jobs, open_home

QUICK_S = 1.0  # a job whose host is only asked for its first request
COLUMNS = "{:<14} {:<9} {:>10} {:>7} {:>9} {:>9}   {:<40} {}"


def main() -> int:
    """Print a row for each host; return 1 if one of them misses."""
    parser = argparse.ArgumentParser(
        prog="scripts/hosts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hosts", nargs="*", metavar="HOST", help=f"of {', '.join(HOSTS)}; without any, all")
    parser.add_argument("--starts", type=int, default=10, help="runs of each host with a quick job (10)")
    parser.add_argument("--seconds", type=float, default=100, help="how long the long job takes; 0 for none (100)")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache/agent-jobs-hosts", help="where hosts are kept"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.hosts).difference(HOSTS):
        parser.error(f"there is no host {', '.join(sorted(unknown))}")

    cache = arguments.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    agent_jobs = install_agent_jobs(cache)
    print(f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}, load {os.getloadavg()[0]:.2f}")
    long_job = f"a job of {arguments.seconds:.0f} s"
    print(COLUMNS.format("host", "version", "tools in", "turns", "result", "one", "", ""))
    print(COLUMNS.format("", "", "request 1", "", "read", "POST", long_job, "load"))
    verdicts = [_try_host(name, cache, agent_jobs, arguments) for name in arguments.hosts or HOSTS]
    return 0 if all(verdicts) else 1


def _try_host(name: str, cache: Path, agent_jobs: Path, arguments: argparse.Namespace) -> bool:
    """Print the row of one host; return True if every run of it was good."""
    host = HOSTS[name]
    durations = [QUICK_S] * arguments.starts + [arguments.seconds] * (arguments.seconds > 0)
    load = os.getloadavg()[0]
    try:
        with open_home(name, host, cache, agent_jobs) as home:
            runs = [home.run(number, seconds) for number, seconds in enumerate(durations, start=1)]
            refused = dict(home.model.refused)
    except HostError as error:
        print(f"{name:<14} {host.version:<9} {error}", flush=True)
        return False
    quick = runs[: arguments.starts]
    cells = (
        _share(quick, [run.has_tools_at_once for run in quick]),
        _span([run.turns for run in quick]),
        _share(quick, [run.is_result_read for run in quick]),
        _share(quick, [run.posts == 1 for run in quick]),
    )
    print(
        COLUMNS.format(name, host.version, *cells, _describe_long(runs[arguments.starts :]), f"{load:.1f}"), flush=True
    )
    if refused:
        print(f"  asked for and not reached: {', '.join(refused)}")
    for number, run in enumerate(runs, start=1):
        if not run.is_good:
            print(f"  run {number}: {_describe_miss(run)}. It printed:\n    " + run.output.replace("\n", "\n    "))
    return all(run.is_good for run in runs)


def _share(runs: Sequence[Run], facts: Sequence[bool]) -> str:
    return f"{sum(facts)} of {len(runs)}"


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers, default=0), max(numbers, default=0)
    return str(low) if low == high else f"{low}-{high}"


def _describe_long(runs: Sequence[Run]) -> str:
    if not runs:
        return "not run"
    [run] = runs
    read = "read" if run.is_result_read else "NOT READ"
    return f"{read}, {run.turns} turns, {run.lost_calls} lost, {run.posts} POST, {run.seconds:.0f} s"


def _describe_miss(run: Run) -> str:
    if not run.turns:
        return "its model was never asked"
    missing = f"without {', '.join(run.missing_at_first)} in the first request, " if run.missing_at_first else ""
    read = "result read" if run.is_result_read else "result not read"
    return f"{missing}{read}, {run.posts} POSTs, {run.turns} turns, {run.lost_calls} calls lost"


sys.exit(main())
