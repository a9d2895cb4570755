"""The figures of the source's style may only improve; `scripts/style --list` prints them and the places."""

from pathlib import Path
from textwrap import dedent

import pytest
from style_figures import PACKAGE, Figure, Module, is_participle_name, measure, read_modules

#: Today's limit and the target of each figure. Lower the limit with every improvement; never raise it.
LIMITS: dict[str, tuple[float, float]] = {
    # figure: (limit, target)
    "question docstrings": (0.5, 2),
    "participle names": (0.5, 3),
    "one-word private functions": (0.5, 25),
    "shared private names": (2, 15),
    "conditional expressions": (3.2, 15),
    "nested conditional expressions": (0, 0),
    "branches": (17.5, 18),
    "packed bodies": (0.5, 1.5),
    "complex functions": (0, 15),
    "complex core functions": (0, 0),
    "longest __init__.py": (25, 25),
    "body length p90": (13, 22),
}


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    return measure(read_modules())


def test_every_figure_has_a_limit(figures: dict[str, Figure]) -> None:
    assert list(figures) == list(LIMITS)


@pytest.mark.parametrize("name", LIMITS)
def test_figure_stays_within_its_limit(figures: dict[str, Figure], name: str) -> None:
    limit, _ = LIMITS[name]
    figure = figures[name]
    worst = "\n".join(str(offender) for offender in figure.offenders[:20])
    assert figure.value <= limit, (
        f"{name}: {figure.value:.2f}, limit {limit}. Run scripts/style --list. The worst:\n{worst}"
    )


def _measure(source: str, path: str = "loop.py") -> dict[str, Figure]:
    return measure([Module(PACKAGE / path, dedent(source))])


@pytest.mark.parametrize(
    ("name", "source", "value"),
    [
        ("question docstrings", '"""How, in short."""', 100),
        ("question docstrings", '"""Whatever it is."""', 0),
        ("question docstrings", 'class A:\n    """What it is."""\n    def a(self):\n        """Return it."""', 50),
        ("question docstrings", 'A = 1\n"""What it is."""', 0),
        ("participle names", "def _told(): ...\ndef tell(): ...", 50),
        ("participle names", "class A:\n    async def settled(self): ...\n    b: int", 100),
        ("participle names", "def a():\n    def stored(): ...", 50),
        ("one-word private functions", "def _a(): ...\ndef _a_b(): ...\ndef a(): ...\ndef __a__(): ...", 50),
        ("one-word private functions", "class A:\n    def _a(self): ...\n    def __init__(self): ...", 100),
        ("conditional expressions", "a = 1 if b else 2", 1000),
        ("conditional expressions", '"""A."""\n# a\n\na = [\n    1 if b else 2,\n]\ntext = """\n\n"""', 1000 / 6),
        ("nested conditional expressions", "a = 1 if b else 2", 0),
        ("nested conditional expressions", "a = 1 if b else 2 if c else 3", 1),
        ("nested conditional expressions", "a = 1 if b else c(2 if d else 3 if e else 4)", 2),
        ("branches", "if a: b\nelif c: d\nelse: e", 200 / 3),
        ("branches", "for a in b: c\nwhile d: e\nf", 200 / 3),
        ("branches", "try: a\nexcept B: c\nelse: d\nfinally: e", 25),
        ("branches", "a = b and c and d or e", 300),
        ("branches", "a = [b for b in c for d in e if f]", 200),
        ("branches", "match a:\n    case 1: b\n    case 2: c\nwith d: e", 0),
        ("packed bodies", "def a(): return " + " or ".join("bcdefghi"), 0),
        ("packed bodies", "def a(): return " + " or ".join("bcdefghij"), 100),
        ("packed bodies", "def a():\n" + "    b\n" * 24 + "    return " + " or ".join("bcdefghij"), 100),
        ("packed bodies", "def a():\n" + "    b\n" * 25 + "    return " + " or ".join("bcdefghij"), 0),
        ("complex functions", "def a(): return " + " or ".join("bcdefghijk"), 0),
        ("complex functions", "def a(): return " + " or ".join("bcdefghijkl"), 1),
        ("complex functions", "def a():\n    def b(): return " + " or ".join("bcdefghijkl"), 2),
        ("longest __init__.py", "a\n\nb", 0),
        ("body length p90", 'def a():\n    """A.\n\n    b\n    """\n    c(\n        d\n    )', 3),
        ("body length p90", 'def a():\n    """A."""', 0),
        ("body length p90", "def a(): b\n" * 9 + "def a():\n    b\n    c", 2),
        ("body length p90", "def a(): b\n" * 10 + "def a():\n    b\n    c", 1),
    ],
)
def test_counter_counts(name: str, source: str, value: float) -> None:
    assert _measure(source)[name].value == pytest.approx(value)


@pytest.mark.parametrize(
    "name", ["_told", "asked", "_settled_jobs", "timed_out", "unsent", "_retold", "rewritten", "held_s"]
)
def test_participle_is_found(name: str) -> None:
    assert is_participle_name(name)


@pytest.mark.parametrize(
    "name",
    ["is_closed", "has_failed", "find_listed", "open", "read", "put", "need_key", "feed", "listen", "_token", "bound"],
)
def test_other_names_are_no_participles(name: str) -> None:
    assert not is_participle_name(name)


def test_private_name_counts_once_however_many_modules_share_it() -> None:
    sources = [
        "def _a(): ...\ndef _b(): ...\nclass _C: ...",
        "class D:\n    def _a(self): ...",
        "def _a(): ...\nclass _C: ...",
    ]
    modules = [Module(PACKAGE / f"{i}.py", source) for i, source in enumerate(sources)]
    shared = measure(modules)["shared private names"]
    assert shared.value == 2
    assert [str(offender).partition("/agent_jobs/")[2] for offender in shared.offenders][:3] == [
        "0.py:1 _a in 3 modules",
        "1.py:2 _a in 3 modules",
        "2.py:1 _a in 3 modules",
    ]
    assert measure(modules[:1])["shared private names"].value == 0
    assert measure(modules[:1], among=modules)["shared private names"].value == 2


@pytest.mark.parametrize(
    ("path", "value"),
    [("engine/step.py", 1), ("store/rows.py", 1), ("mcp_server/stdio.py", 1), ("app.py", 0), ("cli/store.py", 0)],
)
def test_complex_functions_of_the_core_are_counted_apart(path: str, value: int) -> None:
    assert _measure("def a(): return " + " or ".join("bcdefghijkl"), path)["complex core functions"].value == value


def test_longest_init_counts() -> None:
    modules = [
        Module(PACKAGE / package / "__init__.py", "a\n" * lines) for package, lines in [("a", 30), ("store", 26)]
    ]
    longest = measure(modules)["longest __init__.py"]
    assert longest.value == 30
    assert [Path(offender.path).parent.name for offender in longest.offenders] == ["a", "store"]


def test_offender_has_its_line_and_its_full_name() -> None:
    source = "class A:\n    def b(self):\n        return 1 if self else 2\n"
    (offender,) = _measure(source)["conditional expressions"].offenders
    assert str(offender) == "src/agent_jobs/loop.py:3 A.b"
