"""Every link of the pages has a target, and every page is reachable."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bench/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
#: Code on a page that names a file of this repository.
NAMED = re.compile(r"`((?:src|tests|docs|scripts|examples|packaging|bench)/[\w./-]+|test_\w+\.py)`")


def read_prose(page: Path) -> str:
    """Return the page without its code blocks."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.S)


def list_links(page: Path) -> list[str]:
    return [link for link in LINK.findall(read_prose(page)) if "://" not in link]


def list_anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", read_prose(page), re.M)
    texts = [LINK.sub(lambda found: found[0][1:].partition("]")[0], heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-") for text in texts}


def test_pages_have_links() -> None:
    assert sum(len(list_links(page)) for page in PAGES) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_and_anchor_exists(page: Path) -> None:
    for link in list_links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in list_anchors(target), link


def test_every_page_is_listed_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in list_links(index)}
    assert {page for page in PAGES if page.parent.name == "docs"} - {index} <= listed
    assert "docs/README.md" in list_links(ROOT / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_named_file_exists(page: Path) -> None:
    for name in NAMED.findall(page.read_text()):
        found = (ROOT / "tests").rglob(Path(name).name) if name.startswith("test_") else [ROOT / name]
        assert any(path.exists() for path in found), name


def test_names_in_extending_exist() -> None:
    page = read_prose(ROOT / "docs/extending.md")
    code = "\n".join(path.read_text() for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py"))
    files = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    for name in re.findall(r"`([A-Za-z_][\w.]*)(?:\([^`]*\))?`", page):
        if name.endswith(".py"):
            assert name in files, name
        elif not name.endswith((".md", ".toml")):
            assert re.search(rf"\b{name.rpartition('.')[2]}\b", code), name


def list_named_tests(text: str) -> list[tuple[str, str]]:
    """Return the tests that a text names, as file and function. A function without a file is in the file before it."""
    file, tests = "", list[tuple[str, str]]()
    for given, function in re.findall(r"`(?:(test_\w+\.py)(?:::)?)?(test_\w+)?`", text):
        file = given or file
        if file:
            tests.append((file, function))
    return tests


def test_every_row_about_an_attack_names_tests_that_exist() -> None:
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 25
    sources = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for row in rows:
        tests = list_named_tests(row)
        assert tests, row
        for file, function in tests:
            assert f"def {function}(" in sources[file] or not function, (file, function)
