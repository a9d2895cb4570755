"""The numbers of sources stand where the text cites them, and break no Markdown."""

import pytest

from agent_jobs.rendering.citations import Citation, cite_output, insert_numbers

CODE = "Run this:\n\n```python\nprint(1)\n```\n\nDone."


def cite(text: str, cited: str) -> str:
    """Return the text with a citation after these words of it."""
    start = text.index(cited)
    return insert_numbers(text, [Citation(start, start + len(cited), 1)])


@pytest.mark.parametrize(
    ("text", "cited", "numbered"),
    [
        ("Solar is cheap. Wind too.", "Solar is cheap.", "Solar is cheap.\\[1\\] Wind too."),
        ("Cheap ([example](https://example.com/a)).", "([example](https://example.com/a))", "Cheap \\[1\\]."),
        (CODE, "print(1)", "Run this:\\[1\\]\n\n```python\nprint(1)\n```\n\nDone."),
        (CODE, "print(1)\n```", "Run this:\\[1\\]\n\n```python\nprint(1)\n```\n\nDone."),
        ("```\nnot closed", "not", "```\nnot closed"),
        ("Call `read_file(path)` here.", "read_file", "Call `read_file(path)`\\[1\\] here."),
        ("See [it](data:text/plain,x) now.", "data:text", "See [it](data:text/plain,x)\\[1\\] now."),
    ],
)
def test_number_follows_the_cited_text_outside_of_code_and_addresses(text: str, cited: str, numbered: str):
    assert cite(text, cited) == numbered


#: Marks as models write them, with and without an annotation.
MARKS = {
    "private characters": "\ue200cite\ue202turn0search1\ue202turn2news3\ue201",
    "the same, bare": "citeturn0search1turn2news3",
    "a file": "\u30104:0\u2020notes.pdf\u3011",
    "lines of a file": "\u301012\u2020L1-L3\u3011",
    "a number": "\u30101\u3011",
    "a file in square brackets": "[1\u2020source]",
    "names in square brackets": "[turn0search1, turn0view2]",
    "a reference of ChatGPT": ":contentReference[oaicite:0]{index=0}",
}


@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)
def test_mark_of_a_citation_becomes_its_number_or_is_left_out(mark: str) -> None:
    text = f"Wind is cheap {mark}. Solar too."
    start = text.index(mark)
    numbered = "Wind is cheap \\[1\\]. Solar too."
    assert insert_numbers(text, [Citation(start, start + len(mark), 1)]) == numbered
    assert insert_numbers(text, [Citation(start, start, 1, is_at_mark=True)]) == numbered
    assert insert_numbers(text, [Citation(9 + start, 9 + start, 1, is_at_mark=True)], begin=9) == numbered
    assert insert_numbers(text, []) == "Wind is cheap. Solar too."
    assert insert_numbers(f"`{mark}`", []) == f"`{mark}`"
    assert insert_numbers(f"```\n{mark}\n```", []) == f"```\n{mark}\n```"


@pytest.mark.parametrize(
    "text", ["\u3010\u91cd\u8981\u3011 read this", "cite the turn of 2019", "a[1] and [2]", "[turn left]"]
)
def test_text_that_is_like_a_mark_stays(text: str) -> None:
    assert insert_numbers(text, []) == text
    assert insert_numbers(text, [Citation(3, 3, 1, is_at_mark=True)]) == text


def test_unfinished_mark_is_not_shown() -> None:
    assert insert_numbers("Cheap \ue200cite\ue202tur", []) == "Cheap"
    assert insert_numbers("Cheap \u301012", []) == "Cheap"


def test_file_citation_is_numbered_where_its_mark_stands() -> None:
    words = "See the notes \u30104:0\u2020notes.pdf\u3011."
    note = {"type": "file_citation", "index": words.index("\u3010"), "file_id": "file-1", "filename": "notes.pdf"}
    output = [{"type": "message", "content": [{"type": "output_text", "text": words, "annotations": [note]}]}]
    places, [source] = cite_output(output)
    assert insert_numbers(words, places) == "See the notes \\[1\\]."
    assert source["filename"] == "notes.pdf"
