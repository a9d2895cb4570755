"""The figures of the source's style. `tests/unit/test_style.py` limits them and `scripts/style` prints them.

Each is counted with `ast` over the source, without the tests. Functions include methods and nested functions.

- `question docstrings`, %: docstrings of modules, classes and functions whose first word is What, Whether, How, Who,
  Where, When or Why, among all docstrings.
- `participle names`, %: functions whose first or only word is a past participle (`_told`, `settled`, `timed_out`),
  among all functions. A word is one if it ends in -ed and is not in `ED_WORDS`, or if it is in
  `IRREGULAR_PARTICIPLES`, also behind un-, re-, mis- or over-. `is_closed` and `find_listed` start with a verb and do
  not count; nor do forms that are also the infinitive (`read`, `put`, `set`, `cut`, `split`).
- `one-word private functions`, %: functions `_name` without a second underscore, among all functions `_name`,
  `_two_words`. Dunder methods are neither.
- `shared private names`: names of private functions, methods and classes that two or more modules define.
- `conditional expressions`, per 1,000 lines: `a if b else c`. A code line is a line with a token that is neither
  comment nor docstring.
- `nested conditional expressions`: conditional expressions anywhere inside another one.
- `branches`, per 100 lines: `if` and `elif`, `for`, `while`, `except`, conditional expression, each `and` and `or`,
  and each `for` of a comprehension. `else`, `finally`, `match` cases and the `if`s of comprehensions are not counted.
- `packed bodies`, %: functions whose body has at most 25 lines and whose complexity is over 8, among all functions. A
  body has no docstring; complexity is 1 plus its branches, those of functions inside it included. ruff's C901 counts
  neither boolean operators nor conditional expressions nor comprehensions, which is how lines get packed; so this is
  stricter.
- `complex functions`: functions whose complexity is over 10.
- `complex core functions`: those of them in engine, store and mcp_server.
- `longest __init__.py`, lines: blank lines included.
- `body length p90`, lines: nine of ten functions have a body of at most this length.
"""

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/agent_jobs"

#: The figures of 0.1.0, the commit 98c2fd0.
FIRST_FIGURES = {
    "question docstrings": 20.3,
    "participle names": 13.9,
    "one-word private functions": 76.6,
    "shared private names": 91,
    "conditional expressions": 41.2,
    "nested conditional expressions": 9,
    "branches": 26.1,
    "packed bodies": 5.6,
    "complex functions": 60,
    "complex core functions": 15,
    "longest __init__.py": 327,
    "body length p90": 15,
}

QUESTION_WORDS = {"What", "Whether", "How", "Who", "Where", "When", "Why"}
#: Words on -ed that are no participles.
ED_WORDS = {
    "bleed",
    "breed",
    "embed",
    "exceed",
    "feed",
    "indeed",
    "need",
    "proceed",
    "seed",
    "shed",
    "speed",
    "succeed",
}
#: Participles that do not end in -ed, without those that are also an infinitive (read, put, set) or a noun (bound).
IRREGULAR_PARTICIPLES = {
    "become", "been", "begun", "bent", "born", "bought", "broken", "brought", "built", "caught", "chosen",
    "dealt", "done", "drawn", "driven", "fallen", "felt", "fed", "forgotten", "fought", "found", "frozen",
    "given", "gone", "gotten", "grown", "heard", "held", "hidden", "kept", "known", "laid", "led", "left",
    "lent", "lost", "made", "meant", "met", "mistaken", "overridden", "paid", "proven", "said", "seen", "sent",
    "shaken", "shown", "slept", "sold", "spent", "spoken", "stolen", "stood", "stuck", "taken", "taught",
    "thought", "thrown", "told", "torn", "understood", "woken", "won", "worn", "written",
}  # fmt: skip
PREFIXES = ("un", "re", "mis", "over")

PACKED_BODY_LINES = 25  # the longest body that can be packed
PACKED_COMPLEXITY = 8  # a packed body has more
COMPLEXITY_MAX = 10  # ruff's default for C901
INIT_LINES = 25  # a longer __init__.py is listed
LONG_BODY_LINES = 22  # a longer body is listed
BRANCHES_PER_100 = 18  # a module with more is listed

#: The packages whose functions have to stay simple: a mistake there loses a job or a result.
CORE = {"engine", "store", "mcp_server"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension)
#: The nodes that a figure counts or names: a twentieth of all, which are gone through for each figure.
COUNTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.BoolOp, *BRANCHES)


@dataclass(frozen=True)
class Offender:
    """A place that makes a figure worse."""

    path: str
    line: int
    name: str
    weight: float = 1
    note: str = ""

    def __str__(self) -> str:
        """Return the place as `path:line name note`."""
        return f"{self.path}:{self.line} {self.name} {self.note}".rstrip()


@dataclass(frozen=True)
class Figure:
    """A figure's value, and its offenders from the worst on."""

    value: float
    offenders: tuple[Offender, ...]


class Module:
    """A module's syntax tree with the counts that several figures need."""

    def __init__(self, path: Path, text: str) -> None:
        self.inside = path.relative_to(PACKAGE).parts if path.is_relative_to(PACKAGE) else path.parts
        self.path = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
        self.text = text
        self.nodes = _list_with_owner(ast.parse(text), "", [])

    @cached_property
    def functions(self) -> list[tuple[Function, str]]:
        """Return every function with its qualified name."""
        return [(node, owner) for node, owner in self.nodes if isinstance(node, Function)]

    @cached_property
    def bodies(self) -> list[tuple[Offender, int, int]]:
        """Return every function as an offender, with its complexity and the lines of its body."""
        return [
            (self.offend(node.lineno, owner), count_complexity(node), count_body_lines(node))
            for node, owner in self.functions
        ]

    @cached_property
    def docstrings(self) -> list[tuple[ast.Constant, str]]:
        """Return every docstring with the name of what it documents."""
        found = ((_find_docstring(node), owner) for node, owner in self.nodes)
        return [(docstring, owner) for docstring, owner in found if docstring]

    @cached_property
    def code_lines(self) -> int:
        """Count the lines that are neither blank nor comment nor docstring."""
        blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in blank:
                lines.update(range(token.start[0], token.end[0] + 1))
        for docstring, _ in self.docstrings:
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
        return len(lines)

    def offend(self, line: int, name: str, weight: float = 1, note: str = "") -> Offender:
        """Return an offender in this module."""
        return Offender(self.path, line, name or "(module)", weight, note)


def read_modules(paths: Iterable[Path] = (PACKAGE,)) -> list[Module]:
    """Read the Python files that `paths` name, and those in the folders that they name."""
    files: set[Path] = set()
    for path in paths:
        files.update(path.resolve().rglob("*.py") if path.is_dir() else [path.resolve()])
    return [Module(file, file.read_text(encoding="utf-8")) for file in sorted(files)]


def measure(modules: Sequence[Module], among: Sequence[Module] = ()) -> dict[str, Figure]:
    """Return the figures of `modules` by name; private names are compared with those of `among`, too."""
    functions = sum(len(module.functions) for module in modules)
    docstrings = sum(len(module.docstrings) for module in modules)
    private = sum(is_private(node.name) for module in modules for node, _ in module.functions)
    lines = sum(module.code_lines for module in modules)
    branches = sum(_count_branch(node) for module in modules for node, _ in module.nodes)
    questions = _find_question_docstrings(modules)
    participles = _find_functions_named(modules, is_participle_name)
    one_word = _find_functions_named(modules, is_one_word)
    conditionals = list(_find_conditionals(modules))
    packed = list(_find_complex(modules, PACKED_COMPLEXITY, PACKED_BODY_LINES))
    inits = list(_find_inits(modules))
    shared = _find_shared_names(modules, among)
    complex_core = list(_find_complex([module for module in modules if is_core(module)], COMPLEXITY_MAX))
    return {
        "question docstrings": _as_share(questions, docstrings, 100),
        "participle names": _as_share(participles, functions, 100),
        "one-word private functions": _as_share(one_word, private, 100),
        "shared private names": Figure(len({offender.name for offender in shared}), tuple(shared)),
        "conditional expressions": _as_share(conditionals, lines, 1000),
        "nested conditional expressions": _as_count(_find_nested_conditionals(modules)),
        "branches": Figure(_divide(branches, lines, 100), _sort(_find_branching_modules(modules))),
        "packed bodies": _as_share(packed, functions, 100),
        "complex functions": _as_count(_find_complex(modules, COMPLEXITY_MAX)),
        "complex core functions": _as_count(complex_core),
        "longest __init__.py": Figure(
            max((init.weight for init in inits), default=0), _sort(_select_long_inits(inits))
        ),
        "body length p90": Figure(_measure_p90(modules), _sort(_find_long_bodies(modules))),
    }


def is_private(name: str) -> bool:
    """Return True for `_name`, not for `name` and `__name__`."""
    return name.startswith("_") and not name.startswith("__")


def is_one_word(name: str) -> bool:
    """Return True for `_name`, not for `_two_words`."""
    return is_private(name) and "_" not in name.strip("_")


def is_participle_name(name: str) -> bool:
    """Return True if the first or only word of a function's name is a past participle."""
    return is_participle(name.strip("_").split("_")[0])


def is_participle(word: str) -> bool:
    """Return True for past participles that are not also the infinitive."""
    if word.endswith("ed") and len(word) > 3:
        return word not in ED_WORDS
    stems = [word.removeprefix(prefix) for prefix in PREFIXES]
    return not IRREGULAR_PARTICIPLES.isdisjoint([word, *stems])


def is_core(module: Module) -> bool:
    """Return True if the module stands in one of the core packages."""
    return module.inside[0] in CORE


def count_complexity(function: Function) -> int:
    """Return 1 plus the branches in a function's body."""
    return 1 + sum(_count_branch(node) for statement in function.body for node in ast.walk(statement))


def count_body_lines(function: Function) -> int:
    """Count the lines from a function's first statement to its last, without its docstring."""
    body = function.body[1:] if _find_docstring(function) else function.body
    if not body:
        return 0
    return (function.end_lineno or body[-1].lineno) - body[0].lineno + 1


def _list_with_owner(node: ast.AST, owner: str, listed: list[tuple[ast.AST, str]]) -> list[tuple[ast.AST, str]]:
    """List each counted node with the qualified name of the class or function it stands in or is."""
    if isinstance(node, Function | ast.ClassDef):
        owner = f"{owner}.{node.name}".lstrip(".")
    if isinstance(node, COUNTED):
        listed.append((node, owner))
    for child in ast.iter_child_nodes(node):
        _list_with_owner(child, owner, listed)
    return listed


def _find_docstring(node: ast.AST) -> ast.Constant | None:
    if not isinstance(node, ast.Module | ast.ClassDef | Function) or not node.body:
        return None
    first = node.body[0]
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
        return None
    return first.value if isinstance(first.value.value, str) else None


def _count_branch(node: ast.AST) -> int:
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    return int(isinstance(node, BRANCHES))


def _find_question_docstrings(modules: Sequence[Module]) -> list[Offender]:
    offenders: list[Offender] = []
    for module in modules:
        for docstring, owner in module.docstrings:
            words = str(docstring.value).split() or [""]
            if words[0].rstrip(",.:;?") in QUESTION_WORDS:
                offenders.append(module.offend(docstring.lineno, owner, note=f'"{" ".join(words[:6])}"'))
    return offenders


def _find_functions_named(modules: Sequence[Module], is_bad: Callable[[str], bool]) -> list[Offender]:
    return [
        module.offend(node.lineno, owner) for module in modules for node, owner in module.functions if is_bad(node.name)
    ]


def _find_shared_names(modules: Sequence[Module], among: Sequence[Module]) -> list[Offender]:
    """Return each definition in `modules` of a private name that another module defines; most shared names first."""
    everywhere = {module.path: module for module in (*among, *modules)}.values()
    paths: dict[str, set[str]] = defaultdict(set)
    for module in everywhere:
        for node in _find_private_definitions(module):
            paths[node.name].add(module.path)
    offenders = {
        (module.path, node.name): module.offend(
            node.lineno, node.name, len(paths[node.name]), f"in {len(paths[node.name])} modules"
        )
        for module in modules
        for node in _find_private_definitions(module)
        if len(paths[node.name]) > 1
    }
    return sorted(offenders.values(), key=lambda offender: (-offender.weight, offender.name))


def _find_private_definitions(module: Module) -> Iterator[Function | ast.ClassDef]:
    for node, _ in module.nodes:
        if isinstance(node, Function | ast.ClassDef) and is_private(node.name):
            yield node


def _find_conditionals(modules: Sequence[Module]) -> Iterator[Offender]:
    for module in modules:
        for node, owner in module.nodes:
            if isinstance(node, ast.IfExp):
                yield module.offend(node.lineno, owner)


def _find_nested_conditionals(modules: Sequence[Module]) -> Iterator[Offender]:
    for module in modules:
        inner = {
            id(child)
            for node, _ in module.nodes
            if isinstance(node, ast.IfExp)
            for child in ast.walk(node)
            if child is not node and isinstance(child, ast.IfExp)
        }
        for node, owner in module.nodes:
            if isinstance(node, ast.IfExp) and id(node) in inner:
                yield module.offend(node.lineno, owner)


def _find_branching_modules(modules: Sequence[Module]) -> Iterator[Offender]:
    for module in modules:
        branches = sum(_count_branch(node) for node, _ in module.nodes)
        density = _divide(branches, module.code_lines, 100)
        if density > BRANCHES_PER_100:
            yield module.offend(1, "", density, f"{density:.0f} per 100 lines")


def _find_complex(modules: Sequence[Module], complexity_max: int, lines_max: int | None = None) -> Iterator[Offender]:
    """Yield the functions of more than `complexity_max` whose body has at most `lines_max` lines."""
    for module in modules:
        for offender, complexity, lines in module.bodies:
            if complexity > complexity_max and (lines_max is None or lines <= lines_max):
                yield replace(offender, weight=complexity, note=f"complexity {complexity}")


def _find_inits(modules: Sequence[Module]) -> Iterator[Offender]:
    for module in modules:
        if module.inside[-1] == "__init__.py":
            lines = len(module.text.splitlines())
            yield module.offend(1, "", lines, f"{lines} lines")


def _select_long_inits(inits: Iterable[Offender]) -> Iterator[Offender]:
    return (init for init in inits if init.weight > INIT_LINES)


def _find_long_bodies(modules: Sequence[Module]) -> Iterator[Offender]:
    for module in modules:
        for offender, _, lines in module.bodies:
            if lines > LONG_BODY_LINES:
                yield replace(offender, weight=lines, note=f"{lines} lines")


def _measure_p90(modules: Sequence[Module]) -> int:
    lengths = sorted(lines for module in modules for _, _, lines in module.bodies)
    return lengths[len(lengths) * 9 // 10] if lengths else 0


def _as_share(offenders: Sequence[Offender], total: int, scale: int) -> Figure:
    return Figure(_divide(len(offenders), total, scale), _sort(offenders))


def _as_count(offenders: Iterable[Offender]) -> Figure:
    ordered = _sort(offenders)
    return Figure(len(ordered), ordered)


def _sort(offenders: Iterable[Offender]) -> tuple[Offender, ...]:
    return tuple(sorted(offenders, key=lambda offender: -offender.weight))


def _divide(part: int, total: int, scale: int) -> float:
    return scale * part / total if total else 0
