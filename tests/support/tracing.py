"""Which tests are measured for coverage: those that may cover what no other test covers.

Measuring doubles the CPU of a test, and most of what a test runs was run by many before it. So these run unmeasured:
properties, whose examples are run by tables as well; all but the first rows of a table; tests marked `untraced`; and
the emulator beside a test that is not about the emulator. The coverage that is reported is a lower bound.
`TRACE_ALL_TESTS=1` measures every test.
"""

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal
from fork_server import COVERAGE

#: How many rows of a table are measured, for each kind of store.
TRACED_ROWS = 8
#: Rows of these are each about another branch.
OF_VARIED_ROWS = ("tests/unit/", "tests/emulator/", "tests/cli/", "tests/team_server/", "tests/page/")

untraced_key = pytest.StashKey[bool]()


def mark_untraced(items: Sequence[pytest.Item]) -> None:
    """Note which tests run unmeasured."""
    late = find_late_rows(item.nodeid for item in items)
    for item in items:
        is_marked = any(item.get_closest_marker(name) is not None for name in ("hypothesis", "untraced"))
        item.stash[untraced_key] = is_marked or item.nodeid in late


def find_late_rows(nodeids: Iterable[str]) -> set[str]:
    """Return the tests that are later rows of a table whose rows are expensive."""
    rows, late = Counter[tuple[str, bool]](), set[str]()
    for nodeid in nodeids:
        table = (nodeid.partition("[")[0], "postgres" in nodeid)
        rows[table] += 1
        if rows[table] > TRACED_ROWS and not nodeid.startswith(OF_VARIED_ROWS):
            late.add(nodeid)
    return late


def is_untraced(item: pytest.Item) -> bool:
    return item.stash.get(untraced_key, False) and not _traces_all()


def traces_emulator(nodeid: str) -> bool:
    return nodeid.startswith("tests/emulator/") or _traces_all()


@contextmanager
def untraced() -> Generator[None]:
    """Measure neither this thread, nor those that it starts meanwhile, nor processes."""
    of_processes = {name: value for name, value in os.environ.items() if name.startswith(COVERAGE)}
    for name in of_processes:
        del os.environ[name]
    try:
        with untraced_threads():
            yield
    finally:
        os.environ.update(of_processes)


@contextmanager
def untraced_threads() -> Generator[None]:
    """Measure neither this thread nor those that it starts meanwhile."""
    tracer, of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        threading.settrace(of_threads)  # pyright: ignore[reportArgumentType]
        sys.settrace(tracer)


def untraced_portal(
    start: Callable[..., AbstractContextManager[BlockingPortal]],
) -> Callable[..., AbstractContextManager[BlockingPortal]]:
    """Have what starts an event loop in a thread leave that thread unmeasured."""

    @contextmanager
    def start_untraced(*arguments: Any, **options: Any) -> Generator[BlockingPortal]:
        with start(*arguments, **options) as portal:
            portal.call(sys.settrace, None)
            yield portal

    return start_untraced


def _traces_all() -> bool:
    return bool(os.environ.get("TRACE_ALL_TESTS"))
