"""The terminals on the pages show what a real terminal shows."""

import sys
from difflib import unified_diff
from pathlib import Path

import pytest
from captures import BLOCK, PAGES, SCENES, Act, captured, comparable, split_into_acts
from terminals import screen


@pytest.mark.skipif(sys.platform != "linux", reason="the pages show a Linux machine")
@pytest.mark.parametrize(
    ("page", "act"),
    [
        pytest.param(page, act, id=f"{page.name}-{act.name}")
        for page in PAGES
        for act in split_into_acts(page.read_text())
        if BLOCK.search(act.text)
    ],
)
def test_every_command_of_a_page_shows_what_is_below_it(page: Path, act: Act):
    shown = captured(act.text)
    before, now = ([comparable(line) for line in each.splitlines()] for each in (act.text, shown))
    difference = "\n".join(unified_diff(before, now, page.name, "the terminal", lineterm=""))
    assert comparable(shown) == comparable(act.text), f"check this difference, and run scripts/captures:\n{difference}"


def test_acts_of_a_page_cover_the_whole_page():
    for page in PAGES:
        assert "".join(act.text for act in split_into_acts(page.read_text())) == page.read_text()


def test_every_scene_is_captured_on_a_page():
    text = "".join(page.read_text() for page in PAGES)
    assert [name for name in SCENES if f"<!-- capture {name} -->" not in text] == []


def test_changing_parts_are_not_compared_and_all_others_are():
    assert comparable("job_0123456789bc  0:07  12.0 KiB, 3s") == comparable("job_zzzzzzzzzzzz 10:01\n1.2 KiB, 40s")
    assert comparable("completed  83 tokens") != comparable("completed  84 tokens")


def test_screen_shows_overwritten_text():
    assert screen("one\r\ntwo\r\n\x1b[1A\x1b[2K\x1b[1A\r\x1b[2Know\x1b[32m!\x1b[0m\r\n\x1b[?25h") == "now!"
    assert screen("ab\rc") == "cb"
    with pytest.raises(AssertionError):
        screen("a\x1b[1K")
