"""Measure and print one table; see README.md."""

import argparse
import os
import platform
from collections import Counter

import anyio

from bench import figures
from bench.modules import new_modules
from bench.peers import upstream

#: Rounds of spawns, starts and polls.
FULL, QUICK = (30, 200, 600), (2, 10, 50)
COLUMNS = "{:<44} {:>9} {:>9} {:>7}  {:<9} {:<5} {:>6}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures mean little")
    spawns, starts, polls = QUICK if parser.parse_args().quick else FULL

    print(_machine())
    print(COLUMNS.format("p50, measured in turns", "ours ms", "beside ms", "ratio", "target", "", "rounds"))
    _show(figures.startup(spawns))
    with upstream() as base_url:
        for kind in ("in memory", "stdio"):
            _show(anyio.run(figures.calls, kind, base_url, starts, polls))
    print("\nModules beyond `import mcp.server` and our own, by when they are first there:")
    for moment, modules in new_modules().items():
        packages = Counter(module.partition(".")[0] for module in modules)
        named = " ".join(package if count == 1 else f"{package}({count})" for package, count in packages.items())
        print(f"{moment:>12} {len(modules):3}  {named}")
    print(f"\nload at the end {os.getloadavg()[0]:.2f}")


def _show(measured: list[figures.Figure]) -> None:
    for figure in measured:
        row = (figure.what, f"{figure.p50:.2f}", f"{figure.p50 / figure.ratio:.2f}", f"{figure.ratio:.2f}x")
        print(COLUMNS.format(*row, figure.target, figure.verdict, len(figure.ours)), flush=True)


def _machine() -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {python}, {platform.system()}, load {os.getloadavg()[0]:.2f}"
    )


if __name__ == "__main__":
    main()
