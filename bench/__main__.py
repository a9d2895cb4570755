"""Measure and print one table; see README.md."""

import argparse
import os
import platform
from collections import Counter
from collections.abc import Sequence
from statistics import median

import anyio

from bench import figures, following, listing, load, loop, page, queues, webhooks
from bench.modules import new_modules
from bench.peers import upstream

PARTS = ("startup", "calls", "following", "list", "loop", "webhooks", "page", "postgres", "modules")
#: Only by itself: it needs the dependency group `bench`, and minutes.
QUEUE = "queue"
#: Only by itself: it needs haproxy, and minutes.
LOAD = "load"
COLUMNS = "{:<44} {:<4} {:>9} {:>9} {:>7}  {:<9} {:<5} {:>6}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures mean little")
    named = f"of {', '.join(PARTS)}; without any, all; or {QUEUE} or {LOAD} by itself"
    parser.add_argument("parts", nargs="*", help=named)
    parser.add_argument("--jobs", type=int, default=1000, help="of the part load")
    parser.add_argument("--users", type=int, default=50, help="of the part load")
    parser.add_argument("--seconds", type=float, default=60, help="that a job of the part load takes")
    arguments = parser.parse_args()
    parts, quick = arguments.parts or PARTS, arguments.quick
    if unknown := set(parts).difference((*PARTS, QUEUE, LOAD)):
        parser.error(f"there is no part {', '.join(unknown)}")

    print(_machine())
    if QUEUE in parts:
        queues.compare(20 if quick else 200)
    elif LOAD in parts:
        load.show(load.Load(arguments.jobs, arguments.users, arguments.seconds))
    else:
        _run_parts(parts, quick)
    print(f"\nload at the end {os.getloadavg()[0]:.2f}")


def _run_parts(parts: Sequence[str], quick: bool) -> None:
    print(COLUMNS.format("p50, measured in turns", "", "ours", "beside", "ratio", "target", "", "rounds"))
    if "startup" in parts:
        _show(figures.measure_startup(2 if quick else 30))
    if "calls" in parts:
        with upstream() as base_url:
            for kind in ("in memory", "stdio"):
                _show(anyio.run(figures.measure_calls, kind, base_url, *((10, 50) if quick else (200, 600))))
    if "following" in parts:
        with upstream("bench.streams") as base_url:
            _show(anyio.run(following.cpu, base_url, *((1, 2_000, 25) if quick else (9, 20_000, 250))))
            _show(following.memory(base_url, *((1, 100) if quick else (3, 200))))
            _show(anyio.run(following.ends, base_url, 3 if quick else 20))
    for part, measure in (("loop", loop.measure_waiting), ("webhooks", webhooks.gets), ("page", page.measure)):
        if part in parts:
            _show(anyio.run(measure, quick))
    if "list" in parts:
        _show(anyio.run(listing.questions, *((2_000, 5) if quick else (100_000, 51))))
        _show(anyio.run(listing.searches, *((2_000, 5) if quick else (100_000, 21))))
    _show_postgres(parts, quick)
    if "modules" in parts:
        _show_modules()


def _show_postgres(parts: Sequence[str], quick: bool) -> None:
    if "postgres" not in parts:
        return
    from bench import postgres  # starts a server, by what the tests have

    with postgres.database() as url:
        _show(anyio.run(postgres.calls, url, *((100, 20) if quick else (1_000, 300))))
    with postgres.database() as url:
        _show(anyio.run(postgres.waiters, url, 5 if quick else 50))
    with postgres.database() as url:
        _show(anyio.run(postgres.take_over, url, 1 if quick else 5))
    with postgres.database() as url:
        _show(anyio.run(postgres.lateness, url, 20 if quick else 200))


def _show_modules() -> None:
    print("\nModules beyond `import mcp.server` and our own, by when they are first there:")
    for moment, modules in new_modules().items():
        packages = Counter(module.partition(".")[0] for module in modules)
        named = " ".join(package if count == 1 else f"{package}({count})" for package, count in packages.items())
        print(f"{moment:>12} {len(modules):3}  {named}")


def _show(measured: list[figures.Figure]) -> None:
    for figure in measured:
        beside = (f"{median(figure.beside):.2f}", f"{figure.ratio:.2f}x") if figure.beside else ("", "")
        row = (figure.what, figure.unit, f"{figure.p50:.2f}", *beside)
        print(COLUMNS.format(*row, figure.target, figure.verdict, len(figure.ours)), flush=True)


def _machine() -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {python}, {platform.system()}, load {os.getloadavg()[0]:.2f}"
    )


if __name__ == "__main__":
    main()
