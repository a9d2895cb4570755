"""Which tests are measured for coverage, and that the others run without the tracer."""

import os
import sys
import threading

import pytest
from fork_server import COVERAGE
from hypothesis import given
from hypothesis import strategies as st
from tracing import TRACED_ROWS, find_late_rows, is_untraced, untraced


def find_tracers() -> list[object]:
    seen: list[object] = [sys.gettrace(), threading.gettrace()]
    thread = threading.Thread(target=lambda: seen.append(sys.gettrace()))
    thread.start()
    thread.join()
    return [*seen, *sorted(name for name in os.environ if name.startswith(COVERAGE))]


def test_nothing_is_measured_meanwhile_and_afterwards_everything_again() -> None:
    before = find_tracers()
    with pytest.raises(ZeroDivisionError), untraced():
        assert find_tracers() == [None, None, None]
        raise ZeroDivisionError
    assert find_tracers()[:2] == before[:2]
    assert find_tracers()[3:] == before[3:]


def test_first_rows_of_a_table_are_measured_for_each_kind_of_store() -> None:
    rows = [f"tests/store/test_x.py::test_y[{kind}-{row}]" for row in range(5) for kind in ("sqlite", "postgres")]
    assert find_late_rows(rows) == set(rows[2 * TRACED_ROWS :])
    assert find_late_rows(f"tests/unit/test_x.py::test_y[{row}]" for row in range(99)) == set()


@pytest.mark.untraced
def test_a_marked_test_is_not_measured(request: pytest.FixtureRequest) -> None:
    assert is_untraced(request.node) != bool(os.environ.get("TRACE_ALL_TESTS"))


@given(st.booleans())
def test_a_property_is_not_measured(value: bool) -> None:
    assert sys.gettrace() is None or os.environ.get("TRACE_ALL_TESTS")
