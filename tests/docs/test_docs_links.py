"""Every link of the pages leads somewhere, and every page can be reached."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bench/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
#: What a page names as code that is a file of this repository.
NAMED = re.compile(r"`((?:src|tests|docs|scripts|examples|packaging|bench)/[\w./-]+|test_\w+\.py)`")


def prose(page: Path) -> str:
    """The page without what stands in code blocks."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.S)


def links(page: Path) -> list[str]:
    return [link for link in LINK.findall(prose(page)) if "://" not in link]


def anchors(page: Path) -> set[str]:
    """The anchors that a code host gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    texts = [LINK.sub(lambda found: found[0][1:].partition("]")[0], heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-") for text in texts}


def test_there_are_links() -> None:
    assert sum(len(links(page)) for page in PAGES) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_and_anchor_leads_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_listed_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert {page for page in PAGES if page.parent.name == "docs"} - {index} <= listed
    assert "docs/README.md" in links(ROOT / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_is_there(page: Path) -> None:
    for name in NAMED.findall(page.read_text()):
        found = (ROOT / "tests").rglob(Path(name).name) if name.startswith("test_") else [ROOT / name]
        assert any(path.exists() for path in found), name


def test_what_extending_names_is_there() -> None:
    page = prose(ROOT / "docs/extending.md")
    code = "\n".join(path.read_text() for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py"))
    files = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    for name in re.findall(r"`([A-Za-z_][\w.]*)(?:\([^`]*\))?`", page):
        if name.endswith(".py"):
            assert name in files, name
        elif not name.endswith((".md", ".toml")):
            assert re.search(rf"\b{name.rpartition('.')[2]}\b", code), name
