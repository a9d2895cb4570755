"""Texts and lists of any kind are read in pages that fit the limit."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_jobs.rendering.paging import count_json_bytes, cut_encoded_page, cut_page, select_page


def test_size_is_that_of_compact_json_in_utf_8():
    assert count_json_bytes("é\n") == len(b'"\xc3\xa9\\n"')
    assert count_json_bytes({"a": [1, "b"]}) == len('{"a":[1,"b"]}')


def pages_of(text: str, limit_bytes: int) -> list[str]:
    data, parts, offset = text.encode(), list[str](), 0
    while offset is not None:
        part, offset = cut_encoded_page(data, offset, limit_bytes)
        assert count_json_bytes(part) <= limit_bytes
        assert part or not text
        parts.append(part)
    assert "".join(parts).encode() == data
    return parts


#: Several code points that are shown as one character; a page may end between them.
CLUSTERS = [
    "👩\u200d👩\u200d👧\u200d👦",
    "👩🏽\u200d🚀",
    "🇩🇪",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "1\ufe0f\u20e3",
    "e\u0301\u0323",
    "ש\u05c1\u05b8",
    "\u1112\u1161\u11ab",
    "\r\n",
]
PIECES = ["\n", "\n\n", " ", ". ", '"', "\\", "\x00", "長い。", "é", "🎈", "של\u202e", "ال", "word", *CLUSTERS]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=400).map("".join)


@settings(max_examples=200, deadline=None)
@given(texts, st.integers(200, 5_000))
@example("", 200)
@example("\n" * 1_000, 200)
@example("\u0301" * 1_000, 200)
@example("🇩🇪" * 500 + "🇩", 200)
def test_pages_of_any_text_and_any_size_put_together_are_the_text(text: str, limit_bytes: int):
    pages_of(text, limit_bytes)


@given(texts, st.integers(-5, 60))
def test_smallest_pages_still_advance(text: str, limit_bytes: int):
    pages_of(text, max(8, limit_bytes))
    assert cut_page(text, 3, min(8, limit_bytes)) == cut_page(text, 3, 8)


@pytest.mark.parametrize("characters", [0, 61_000, 1_000_000])
@pytest.mark.parametrize("piece", [*PIECES, "Lorem ipsum dolor sit amet. "])
def test_long_texts_are_read_in_pages_that_are_at_least_half_full(piece: str, characters: int):
    text = (piece * (characters // len(piece) + 1))[:characters]
    limit_bytes = 24_000
    assert len(pages_of(text, limit_bytes)) <= 2 + 2 * count_json_bytes(text) / limit_bytes


def test_page_ends_after_a_paragraph_line_sentence_or_word_in_its_second_half():
    def cut(text: str) -> str:
        return cut_page(text + "z" * 200, 0, 102)[0]

    assert cut("x" * 60 + "\n\n" + "y" * 20 + "\n" + "y" * 10) == "x" * 60 + "\n\n"
    assert cut("x" * 20 + "\n\n" + "y" * 40 + "\n" + "y" * 10) == "x" * 20 + "\n\n" + "y" * 40 + "\n"
    assert cut("x" * 20 + "\n\n" + "y" * 40 + ". " + "y" * 10 + " y") == "x" * 20 + "\n\n" + "y" * 40 + ". "
    assert cut("x" * 60 + "\r\n\r\n" + "y" * 10 + "\r\n") == "x" * 60 + "\r\n\r\n"
    assert cut("長" * 25 + "。" + "長" * 5) == "長" * 25 + "。"
    assert cut("x" * 20 + ". " + "y" * 40 + " " + "y" * 10) == "x" * 20 + ". " + "y" * 40 + " "
    assert len(cut("x" * 42 + "\n\n" + "y" * 20)) > 90


def test_text_that_fits_is_not_cut_at_its_lines():
    assert cut_page("one\n\ntwo\nthree", 0, 100) == ("one\n\ntwo\nthree", None)


MIXED = 'a"é\n\n長🎈\x00👩‍🚀\u202eש'


@pytest.mark.parametrize("limit_bytes", [8, 13, 40, 1000])
@pytest.mark.parametrize("offset", range(-2, len(MIXED.encode()) + 3))
def test_page_from_the_middle_of_a_character_begins_with_that_character(offset: int, limit_bytes: int):
    starts = [len(MIXED[:count].encode()) for count in range(len(MIXED) + 1)]
    start = max([start for start in starts if start <= offset], default=0)
    part, after = cut_page(MIXED, offset, limit_bytes)
    assert MIXED.encode()[start:].startswith(part.encode())
    assert count_json_bytes(part) <= limit_bytes
    assert after == (None if start + len(part.encode()) == len(MIXED.encode()) else start + len(part.encode()))
    assert bool(part) == (start < len(MIXED.encode()))


def test_half_a_surrogate_pair_becomes_a_question_mark():
    assert cut_page("a\ud83d\nb", 0, 100) == ("a?\nb", None)


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.text(max_size=30)), max_size=40), st.integers(10, 300))
def test_entries_are_read_in_pages_too(entries: list[dict[str, Any]], limit_bytes: int):
    read, offset = list[dict[str, Any]](), 0
    while offset is not None:
        part, offset = select_page(entries, offset, limit_bytes)
        assert len(part) <= 1 or count_json_bytes(part) <= limit_bytes
        assert part or not entries
        read += part
    assert read == entries
    assert select_page(entries, len(entries) + 7, limit_bytes) == ([], None)
