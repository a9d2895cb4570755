"""The CPU of each test, with that of the processes that it starts: what a run costs on a machine however busy.

    TEST_CPU=/tmp/cpu.tsv pytest tests/engine && python tests/support/cpu_time.py /tmp/cpu.tsv

`conftest.py` appends a line for each test; run as a program, this prints the test files and the tests that take most.
A process that its test does not wait for is not counted.
"""

import resource
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import fork_server

SHOWN = 25  # files, and tests


@contextmanager
def measured(name: str, path: str) -> Generator[None]:
    """Append what a test took to a file."""
    before, began = _measure_cpu_s(), time.monotonic()
    yield
    spent_s, took_s = _measure_cpu_s() - before, time.monotonic() - began
    with open(path, "a") as lines:
        lines.write(f"{spent_s:.3f}\t{took_s:.3f}\t{name}\n")


def _measure_cpu_s() -> float:
    """Return the CPU seconds of this process, of those that it has waited for, and of forks."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) + fork_server.spent_s()


def _print_most(path: Path) -> None:
    rows = [line.split("\t", 2) for line in path.read_text().splitlines()]
    files, tests = Counter[str](), Counter[str]()  # in milliseconds
    for spent_s, _, name in rows:
        files[name.partition("::")[0]] += round(float(spent_s) * 1000)
        tests[name] += round(float(spent_s) * 1000)
    took_s = sum(float(took) for _, took, _ in rows)
    sys.stdout.write(f"{len(rows)} tests: {files.total() / 1000:.0f} s of CPU, {took_s:.0f} s one after the other\n")
    for counted in (files, tests):
        most = counted.most_common(SHOWN)
        sys.stdout.write("\n" + "".join(f"{spent_ms / 1000:7.1f}  {name}\n" for name, spent_ms in most))


if __name__ == "__main__":
    _print_most(Path(sys.argv[1]))
