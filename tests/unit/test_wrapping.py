"""The output of a command on a terminal is wrapped between words. Addresses and commands stay in one piece."""

import pytest

from agent_jobs.cli.display.wrapping import wrap_text

URL = "https://example.com/a/very/long/path/that/is/wider/than/the/terminal/itself?and=more"
COMMAND = "agent-jobs watch job_0123456789ab"


@pytest.mark.parametrize(
    ("text", "wrapped"),
    [
        ("short\n", "short\n"),
        ("Error: the first part of it and the second part\n", "Error: the first part of it and the\nsecond part\n"),
        (f"See {URL} for more of it\n", f"See\n{URL}\nfor more of it\n"),
        (f"It is still running. Resume with: {COMMAND}\n", f"It is still running. Resume with:\n{COMMAND}\n"),
        (f"It has not been sent. Use `{COMMAND}` then.\n", f"It has not been sent. Use\n`{COMMAND}`\nthen.\n"),
        ("Send the prompt again? You may pay twice. [y/N]: ", "Send the prompt again? You may pay\ntwice. [y/N]: "),
        ("There are none yet: run agent-jobs db upgrade.\n", "There are none yet: run\nagent-jobs db upgrade.\n"),
        ("a\n\na line that is wider than the forty columns\n", "a\n\na line that is wider than the forty\ncolumns\n"),
        *((text, text) for text in (
            "  an indented line that is wider than forty columns\n",
            "\x1b[2Aa drawn line that is wider than forty columns\n",
            "Sending... and a notice that is wider than forty\r",
        )),
    ],
)  # fmt: skip
def test_lines_end_between_words(text: str, wrapped: str):
    assert wrap_text(text, 40) == wrapped


def test_no_word_is_lost():
    text = f"Interrupted. Stopped  watching. Resume with: {COMMAND}, or `agent-jobs work`. See {URL}.\n"
    for width in (20, 40, 60, 80, 160):
        assert wrap_text(text, width).split() == text.split()
