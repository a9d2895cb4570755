"""Probes see the statements and branches that the tracer of coverage.py sees."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import probes
import pytest
from coverage import Coverage, CoverageData

CALLED = """
    '''A docstring.'''
    from __future__ import annotations

    import contextlib


    def branch(given, other=None):
        '''Another docstring.'''
        if given == 1:
            return (
                other
            )
        elif given == 2:
            pass
        elif given == 3:
            given = other
        else:
            given += 1
        if given: given = 2
        return [each for each in range(given or 0) if each]


    def loop(given):
        for each in given:
            if each == 2:
                break
            if each == 3:
                continue
            given = [
                each
            ]
        else:
            given = []
        while given:
            given = given[1:]
        for _ in given:
            pass
        while True:
            if not given:
                return given


    def match(given):
        match given:
            case 1:
                given = 2
            case [first, *_] if first:
                return first
            case str(text) | bytes(text):
                return text
        match given:
            case {"a": 1}:
                return 1
            case (
                dict()
                | None
            ):
                given = 3
            case other:
                given = other
        return given


    def attempt(given):
        with contextlib.suppress(KeyError), contextlib.nullcontext():
            try:
                given = 1 / given
                given = {}[given]
            except ZeroDivisionError:
                return 0
            except TypeError as error:
                if given:
                    raise ValueError from error
            else:
                given = 2
            finally:
                given = 3
        try:
            return given
        finally:
            given = 4


    class Thing:
        kept = 1

        @property
        @staticmethod
        def read():
            async def wait(things):
                async with things as entered:
                    async for each in entered:
                        yield each
            return lambda: wait


    def document():
        '''Only this.'''


    def declare():
        global kept
        kept = 1
        def inner():
            nonlocal_value = 1
            return nonlocal_value
        return inner


    """
CALLS = [
    "document()",
    "branch(1)",
    "branch(2); branch(3)",
    "branch(3, 0); branch(4)",
    "loop([1, 2])",
    "loop([1, 3]); loop([])",
    "match(1); match('a')",
    "match([1]); match([0]); match({'a': 1})",
    "match(None)",
    "attempt(0)",
    "attempt(1); attempt('')",
    "with contextlib.suppress(ValueError): attempt('a')",
    "declare()()",
]


@pytest.mark.parametrize("calls", [*CALLS, "\n".join(CALLS), ""])
def test_probes_find_the_lines_and_branches_that_a_tracer_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: str
) -> None:
    source = tmp_path / "source.py"
    source.write_text(dedent(CALLED) + calls + "\n")
    bytes_set = bytearray(probes.SLOT_BYTES)
    monkeypatch.setattr(probes, "hits", bytes_set)
    inserted = probes.Inserter().probe_module(probes.ast.parse(source.read_bytes()))
    exec(compile(inserted, source, "exec", dont_inherit=True), {"__name__": "source"})
    data = CoverageData(str(tmp_path / "data"))
    data.add_arcs({str(source): [*probes.find_arcs(source, bytes_set)]})
    data.write()
    by_probes = Coverage(data_file=str(tmp_path / "data"), config_file=False)
    by_probes.load()
    by_tracer = Coverage(data_file=str(tmp_path / "other"), config_file=False, branch=True, include=[str(source)])
    by_tracer.start()
    try:
        exec(compile(source.read_text(), source, "exec", dont_inherit=True), {"__name__": "source"})
    finally:
        by_tracer.stop()
    assert missed(by_probes, source) == missed(by_tracer, source)


def missed(coverage: Coverage, source: Path) -> Any:
    """Return the lines and the branches that did not run."""
    analysis = coverage._analyze(str(source))  # pyright: ignore[reportPrivateUsage]
    return sorted(analysis.missing), dict(analysis.missing_branch_arcs())


def test_what_needs_more_bytes_than_a_module_has_is_refused() -> None:
    long = probes.ast.parse("pass\n" * (probes.SLOT_BYTES + 1))
    with pytest.raises(AssertionError, match="more statements than bytes"):
        probes.Inserter().probe_module(long)
