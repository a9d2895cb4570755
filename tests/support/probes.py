"""Measure which statements and branches of our source the tests run, in any process, at little cost.

A tracer slows all Python of its thread to half its speed, ours or not. Here each module of `agent_jobs` is compiled
with a probe before each statement: it sets a byte of a file that all processes map. A process that is killed counts,
too. `python tests/support/probes.py start` and `... finish` make the file, and turn it into data of coverage.py, which
knows the possible branches and reports. The names of a probe's byte and of its module are known from the source alone.

A statement counts as run where it begins. An exit of a line counts only where no other exit fits.
"""

import ast
import mmap
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

#: The variable that names the file of the bytes: where it is unset, nothing is measured.
VARIABLE = "TEST_PROBES"
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/agent_jobs"
#: Bytes of each module, more than the probes of any.
SLOT_BYTES = 4096
NAME = "_probes_"

_Compound = ast.If | ast.For | ast.AsyncFor | ast.While


@dataclass(frozen=True)
class Jump:
    """From a line into these lines, or to elsewhere than these."""

    line: int
    lines: range
    is_into: bool


@dataclass(frozen=True)
class Probe:
    """Set where the statements that begin in these lines run, after these jumps."""

    lines: Sequence[range]
    jumps: Sequence[Jump] = ()


@dataclass
class Inserter:
    """Insert the probes of a module."""

    first: int = 0  #: the module's first byte
    probes: list[Probe] = field(default_factory=list[Probe])

    def probe_module(self, tree: ast.Module) -> ast.Module:
        tree.body = self._probe_body(tree.body)
        # After what has to come first.
        at = sum(_comes_first(statement, number) for number, statement in enumerate(tree.body))
        [imported] = ast.parse(f"from probes import hits as {NAME}").body
        tree.body.insert(at, imported)
        return ast.fix_missing_locations(tree)

    def _probe_body(
        self, body: list[ast.stmt], jumps: Sequence[Jump] = (), lines: Sequence[range] = ()
    ) -> list[ast.stmt]:
        probed: list[ast.stmt] = []
        late: list[ast.stmt] = []
        for number, statement in enumerate(body):
            probe = self._make_probe(statement, Probe([_header_of(statement), *lines], jumps))
            jumps, lines = (), ()
            self._probe_statement(statement)
            if _comes_first(statement, number):
                probed.append(statement)
                late.append(probe)
                continue
            probed += [*late, probe, statement]
            late = []
        return [*probed, *late]

    def _probe_statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.If() | ast.For() | ast.AsyncFor() | ast.While():
                self._probe_branches(statement)
            case ast.Try() | ast.TryStar():
                self._probe_handlers(statement)
            case ast.Match():
                self._probe_cases(statement)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.With() | ast.AsyncWith():
                statement.body = self._probe_body(statement.body)
            case _:
                pass

    def _probe_branches(self, statement: _Compound) -> None:
        """Probe where a condition or an iterator goes."""
        lines = _lines_of(statement.body)
        elsewhere = [Jump(statement.lineno, lines, is_into=False)]
        statement.body = self._probe_body(statement.body, [Jump(statement.lineno, lines, is_into=True)])
        statement.orelse = self._probe_body(statement.orelse, elsewhere) or [
            self._make_probe(statement, Probe([], elsewhere))
        ]

    def _probe_handlers(self, statement: ast.Try | ast.TryStar) -> None:
        statement.body = self._probe_body(statement.body)
        tried: list[range] = []
        for handler in statement.handlers:
            tried.append(range(handler.lineno, _lines_of(handler.body).start))
            handler.body = self._probe_body(handler.body, lines=[*tried])
        statement.orelse = self._probe_body(statement.orelse)
        statement.finalbody = self._probe_body(statement.finalbody)

    def _probe_cases(self, statement: ast.Match) -> None:
        """Probe the bodies of the cases: before one runs, each pattern until there was tried."""
        tried, passed = list[range](), list[Jump]()
        for case in statement.cases:
            line = case.pattern.lineno
            lines = _lines_of(case.body)
            if tried:
                passed.append(Jump(tried[-1].start, range(line, line + 1), is_into=True))
            tried.append(range(line, line + 1))
            case.body = self._probe_body(case.body, [*passed, Jump(line, lines, is_into=True)], [*tried])
        last = statement.cases[-1]
        if not _is_irrefutable(last):
            jumps = [*passed, Jump(last.pattern.lineno, _lines_of(last.body), is_into=False)]
            otherwise = self._make_probe(statement, Probe(tried, jumps))
            statement.cases.append(ast.match_case(ast.copy_location(ast.MatchAs(), last.pattern), None, [otherwise]))

    def _make_probe(self, place: ast.stmt, probe: Probe) -> ast.stmt:
        """Return the statement that sets a byte; it has the line of a place, for tracebacks."""
        number = self.first + len(self.probes)
        assert len(self.probes) < SLOT_BYTES, "a module has more statements than bytes"
        self.probes.append(probe)
        target = ast.Subscript(ast.Name(NAME, ast.Load()), ast.Constant(number), ast.Store())
        set_byte = ast.copy_location(ast.Assign([target], ast.Constant(1)), place)
        set_byte.end_lineno = set_byte.lineno
        return set_byte


def _comes_first(statement: ast.stmt, number: int) -> bool:
    """Return True for a docstring, or what looks like one, and for an import from the future."""
    match statement:
        case ast.Expr(ast.Constant(str())):
            return number == 0
        case ast.ImportFrom("__future__"):
            return True
        case _:
            return False


def _is_irrefutable(case: ast.match_case) -> bool:
    """Return True if whatever comes to a case matches."""
    pattern = case.pattern
    while isinstance(pattern, ast.MatchOr):
        pattern = pattern.patterns[-1]
    while isinstance(pattern, ast.MatchAs) and pattern.pattern is not None:
        pattern = pattern.pattern
    return case.guard is None and isinstance(pattern, ast.MatchAs)


def _lines_of(body: Sequence[ast.stmt]) -> range:
    return range(_start_of(body[0]), (body[-1].end_lineno or 0) + 1)


def _start_of(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _header_of(statement: ast.stmt) -> range:
    """Return the lines of a statement before the statements in it."""
    match statement:
        case ast.Match():
            end = statement.cases[0].pattern.lineno
        case _:
            body: list[ast.stmt] = getattr(statement, "body", [])
            end = _start_of(body[0]) if body else (statement.end_lineno or 0) + 1
    return range(_start_of(statement), max(end, _start_of(statement) + 1))


@cache
def _slots() -> dict[Path, int]:
    """Return the first byte of each module."""
    return {path: number * SLOT_BYTES for number, path in enumerate(sorted(SOURCE.rglob("*.py")))}


class ProbedLoader(SourceFileLoader):
    """Compile modules with probes, and keep the bytecode beside that without."""

    def source_to_code(self, data: Any, path: Any, *more: Any, **options: Any) -> Any:
        probed = Inserter(_slots()[Path(path)]).probe_module(ast.parse(data, path))
        return compile(probed, path, "exec", dont_inherit=True)

    def get_data(self, path: str) -> bytes:
        return super().get_data(_name_bytecode(path))

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        super().set_data(_name_bytecode(path), data, _mode=_mode)


def _name_bytecode(path: str) -> str:
    return path.removesuffix(".pyc") + f".probed-{_version():08x}.pyc" if path.endswith(".pyc") else path


@cache
def _version() -> int:
    """Return what bytecode depends on beside its source: this file, and the numbers of the modules."""
    return zlib.crc32("\n".join([Path(__file__).read_text(), *map(str, _slots())]).encode())


class ProbedFinder(MetaPathFinder):
    """Find the modules of our source, and have them compiled with probes."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != SOURCE.name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin and Path(spec.origin) in _slots():
            spec.loader = ProbedLoader(fullname, spec.origin)
        return spec


#: The bytes of all modules, which probes set.
hits: "mmap.mmap | bytearray" = bytearray()


def measure() -> None:
    """Have this process, and its forks, measure what they import from now on, if the tests are measured."""
    global hits
    path = os.environ.get(VARIABLE)
    if not path or any(isinstance(finder, ProbedFinder) for finder in sys.meta_path):
        return
    with open(path, "r+b") as file:
        hits = mmap.mmap(file.fileno(), 0)
    sys.meta_path.insert(0, ProbedFinder())


def start(path: Path) -> None:
    """Make the file of the bytes, all unset, and compile all modules once."""
    path.write_bytes(bytes(SLOT_BYTES * len(_slots())))
    for source in _slots():
        ProbedLoader("", str(source)).get_code("")


def finish(path: Path) -> None:
    """Write what was run as coverage.py does."""
    from coverage import CoverageData

    data = CoverageData(str(ROOT / ".coverage"))
    bytes_set = path.read_bytes()
    data.add_arcs({str(source): [*find_arcs(source, bytes_set[first:])] for source, first in _slots().items()})
    data.write()


def find_arcs(source: Path, bytes_set: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of lines that follow each other; a statement that just runs is one of a line with itself."""
    from coverage.parser import PythonParser

    inserter = Inserter()
    inserter.probe_module(ast.parse(source.read_bytes()))
    parser = PythonParser(filename=str(source))
    parser.parse_source()
    exits: dict[int, list[int]] = {}
    for line, to in parser.arcs():
        exits.setdefault(line, []).append(to)
    for probe, is_set in zip(inserter.probes, bytes_set, strict=False):
        if is_set:
            yield from ((line, line) for line in parser.first_lines(line for lines in probe.lines for line in lines))
            for jump in probe.jumps:
                line, lines = parser.first_line(jump.line), parser.first_lines(jump.lines)
                if len(possible := [to for to in exits.get(line, ()) if (to in lines) == jump.is_into]) == 1:
                    yield line, possible[0]


if __name__ == "__main__":
    {"start": start, "finish": finish}[sys.argv[1]](Path(os.environ[VARIABLE]).absolute())
