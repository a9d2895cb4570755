"""The numbers of sources stand where the text cites them, and break no Markdown."""

import pytest

from agent_jobs.rendering.citations import Citation, insert_numbers

CODE = "Run this:\n\n```python\nprint(1)\n```\n\nDone."


def cite(text: str, cited: str) -> str:
    """Return the text with a number behind these words of it."""
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
def test_number_stands_behind_the_cited_words_and_in_no_code_or_address(text: str, cited: str, numbered: str):
    assert cite(text, cited) == numbered
