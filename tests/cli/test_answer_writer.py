"""A terminal and a pipe show an answer while it is written: no text is lost, doubled or able to steer the terminal."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from terminals import ESCAPES

from agent_jobs.cli.display.answer_writer import (
    DIFFERENT,
    NEXT_TURN,
    SENT_AGAIN,
    PlainWriter,
    SilentWriter,
    TerminalWriter,
    find_unwritten_text,
)
from agent_jobs.cli.display.markdown_blocks import MarkdownBlocks
from agent_jobs.engine.live_text import LiveText
from agent_jobs.jobs.job import Job, Output, Turn
from agent_jobs.jobs.response import Failure
from agent_jobs.jobs.status import Status

ANSWER = """# Result

First paragraph with **bold** words and `code`, long enough that it has to be wrapped on a terminal of eighty columns.

- one
- two

  still two

| name | value |
|------|-------|
| a    | 1     |

```python
def answer():
    return "a line of code that is longer than the terminal is wide, and that must stay in one piece to be copied"
```

1. first

2. second

> A quotation.

The end."""


def running_job(number: int = 1) -> Job:
    turn = Turn(number=number, request={}, request_id="r", base_url="http://x/v1", response_id=f"resp_{number}")
    return Job(id="job_1", title="t", status=Status.IN_PROGRESS, created_at=0.0, turn=turn)


def finished_job(text: str, status: Status = Status.COMPLETED) -> Job:
    error = None if status is Status.COMPLETED else Failure("server_error", "No luck.")
    turn = running_job().turn
    output = Output(text) if text else None
    return Job(id="job_1", title="t", status=status, created_at=0.0, turn=turn, output=output, error=error)


class Following:
    """A text that grows, and the writer that prints it as it grows."""

    def __init__(self, writer: TerminalWriter | PlainWriter) -> None:
        self.writer = writer
        self.live = LiveText()
        self.turn = 1
        self.live.begin_stream(running_job())

    def write(self, *words: str) -> None:
        for each in words:
            self.live.add_words(0, each)
            self.writer.update(self.live, self.turn)

    def begin_again(self, *, turn: int) -> None:
        """Have another response write the answer."""
        self.turn = turn
        self.live.end_stream()
        again = running_job(turn)
        self.live.begin_stream(replace(again, turn=replace(again.turn, response_id="resp_again")))


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.fixture(params=["terminal", "pipe"])
def following(request: pytest.FixtureRequest) -> Following:
    if request.param == "terminal":
        return Following(TerminalWriter(is_streaming=True))
    return Following(PlainWriter(lambda: None, is_streaming=True))


@pytest.mark.parametrize("size", [1, 3, 7, 40, 10_000])
def test_streamed_markdown_is_the_same_however_it_is_cut(capsys: pytest.CaptureFixture[str], size: int):
    whole = TerminalWriter(is_streaming=False)
    whole.finish(finished_job(ANSWER), None)
    expected = capsys.readouterr().out
    following = Following(TerminalWriter(is_streaming=True))
    following.write(*cut(ANSWER, size))
    following.writer.finish(finished_job(ANSWER), None)
    assert capsys.readouterr().out == expected
    assert 'that must stay in one piece to be copied"\n' in expected
    assert "    return " in expected
    assert max(len(line) for line in expected.splitlines() if "return" not in line) <= 80


@pytest.mark.parametrize("size", [1, 50])
def test_pipe_gets_the_answer_byte_for_byte(capfdbinary: pytest.CaptureFixture[bytes], size: int):
    text = "é \x1b[31m 東京 \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16") + "\ttab\n\nend"
    following = Following(PlainWriter(lambda: None, is_streaming=True))
    following.write(*cut(text, size))
    following.writer.finish(finished_job(text), None)
    assert capfdbinary.readouterr().out == text.encode() + b"\n"


def test_silent_writer_prints_nothing(capsys: pytest.CaptureFixture[str]):
    writer = SilentWriter()
    live = LiveText()
    live.begin_stream(running_job())
    live.add_words(0, "One paragraph.\n\nTwo")
    writer.update(live, 1)
    assert writer.draw_growing(80) == []
    writer.finish(finished_job("One paragraph.\n\nTwo"), None)
    assert not writer.has_begun
    assert capsys.readouterr().out == ""


def test_half_a_character_waits_for_its_other_half(capfdbinary: pytest.CaptureFixture[bytes]):
    following = Following(PlainWriter(lambda: None, is_streaming=True))
    following.write("a\ud83d")
    assert capfdbinary.readouterr().out == b"a"


def test_finished_blocks_are_printed_before_the_end_and_the_growing_one_is_not(capsys: pytest.CaptureFixture[str]):
    following = Following(TerminalWriter(is_streaming=True))
    following.write("One paragraph.\n\n2")
    assert capsys.readouterr().out == "", "the list may continue"
    following.write("nd one", " that grows")
    assert capsys.readouterr().out == "One paragraph.\n"
    assert following.writer.draw_growing(80) == ["", "2nd one that grows"]


@pytest.mark.parametrize(
    ("turn", "note"), [(2, NEXT_TURN), (1, SENT_AGAIN)], ids=["another turn", "the same turn again"]
)
def test_text_that_is_not_the_answer_is_named(
    following: Following, capsys: pytest.CaptureFixture[str], turn: int, note: str
):
    following.write("I look it up.")
    following.begin_again(turn=turn)
    following.write("It is", " blue.")
    following.writer.finish(finished_job("It is blue."), None)
    shown = capsys.readouterr()
    assert note in shown.err
    assert shown.out.split() == ["I", "look", "it", "up.", "It", "is", "blue."]


@pytest.mark.parametrize("final", ["Quite another answer.", "One"], ids=["other", "shorter"])
def test_final_answer_that_differs_is_printed_in_full(
    following: Following, capsys: pytest.CaptureFixture[str], final: str
):
    following.write("One paragraph.\n\n", "Another one.\n\n", "And more")
    following.writer.finish(finished_job(final), None)
    shown = capsys.readouterr()
    assert DIFFERENT in shown.err
    assert shown.out.rstrip().endswith(final)


@pytest.mark.parametrize(
    ("kept", "status"),
    [
        ("", Status.FAILED),
        ("two three", Status.FAILED),  # the store keeps only the end of a text
        ("one two three", Status.INCOMPLETE),
        ("one two three", Status.CANCELLED),
    ],
)
def test_text_streamed_before_a_failure_is_shown_once(
    following: Following, capsys: pytest.CaptureFixture[str], kept: str, status: Status
):
    following.write("one ", "two ", "three")
    following.writer.finish(finished_job(kept, status), None)
    shown = capsys.readouterr()
    assert shown.out == "one two three\n"
    assert shown.err == ""


@pytest.mark.parametrize(
    ("written", "final", "rest"),
    [
        ("", "all", "all"),
        ("One", "One two", " two"),
        ("OneTwo", "One\n\nTwo three", " three"),
        ("One two", "One", None),
        ("Else", "One", None),
    ],
)
def test_rest_of_an_answer_ignores_blank_lines_between_messages(written: str, final: str, rest: str | None):
    assert find_unwritten_text(written, final) == rest


@pytest.mark.parametrize(
    "text",
    [
        "a\x1b[2Jb\x07c",
        "entity &#x202e;evil &#27;[2J",
        "[link\x1b[1m](https://x/\u202e\x1b]0;t\x07)",
        "```\n\x1b]0;title\x07code\u202e\n```",
        "| a\x1b[2J |\n|---|\n| b\x9b2J |",
        "![alt\x1b](https://img/\u2066x)",
        "<b>\x1b[31m</b>",
    ],
)
def test_answer_never_steers_the_terminal(capsys: pytest.CaptureFixture[str], text: str):
    writer = TerminalWriter(is_streaming=True)
    following = Following(writer)
    following.write(*cut(text, 4))
    growing = "\n".join(writer.draw_growing(80))
    writer.finish(finished_job(text), [cite(text, 0, 1, "Tit\x1b[2Jle\u202e")])
    shown = capsys.readouterr().out + growing
    assert not set(shown) & set("\x1b\x07\x9b\u202e\u2066")


def cite(text: str, start: int, end: int, title: str = "Title", url: str = "https://example.org/a?utm_source=x") -> Any:
    note = {"type": "url_citation", "start_index": start, "end_index": end, "url": url, "title": title}
    return {"type": "message", "content": [{"type": "output_text", "text": text, "annotations": [note]}]}


@pytest.mark.parametrize(
    ("text", "marked", "shown"),
    [
        ("The sky is blue. Grass is not.", "The sky is blue.", "The sky is blue.[1] Grass is not."),
        ("Blue ([nasa](https://example.org/a)). Next.", "([nasa](https://example.org/a))", "Blue [1]. Next."),
        ("It is bluest here.", "It is blu", "It is bluest[1] here."),
        ("None at all.", "", "None at all."),
    ],
    ids=["words", "link", "within a word", "listed only"],
)
def test_sources_are_numbered_where_they_are_cited_and_listed_at_the_end(
    capsys: pytest.CaptureFixture[str], text: str, marked: str, shown: str
):
    start = text.index(marked) if marked else -5
    writer = TerminalWriter(is_streaming=False)
    writer.finish(finished_job(text), [cite(text, start, start + len(marked))])
    assert capsys.readouterr().out == f"{shown}\n\nSources\n[1] Title\n    https://example.org/a\n"


def test_annotation_of_a_stream_numbers_its_block(capsys: pytest.CaptureFixture[str]):
    following = Following(TerminalWriter(is_streaming=True))
    following.write("Before.\n\nThe sky is blue.")
    note = cite("", 9, 25)["content"][0]["annotations"][0]
    following.live.add_note({"output_index": 0, "content_index": 0, "annotation": note})
    following.write("\n\nAfter.\n\nThe end comes.")
    assert capsys.readouterr().out == "Before.\n\nThe sky is blue.[1]\n\nAfter.\n"


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "```", "```\n", "- ", "1.", "|", "| a |\n|-", "[x]: http://y", "Title\n=", "\r\n\rx\r\n\r\ny", "\x00"],
)
def test_every_beginning_of_a_block_is_shown(text: str):
    blocks = MarkdownBlocks(40, has_colours=True)
    for end in range(len(text) + 1):
        blocks.render_growing(text[:end])
    assert all(text[block.begin : block.end] for block in blocks.split(text))


def test_wide_glyphs_and_long_words_fit_the_width():
    blocks = MarkdownBlocks(20, has_colours=True)
    lines: Sequence[str] = blocks.render_growing("東京" * 30 + " " + "x" * 70 + "\n\n- " + "京" * 30)
    assert max(cell_len(ESCAPES.sub("", line)) for line in lines) <= 20
    assert "京" * 5 in re.sub(r"[\s•]", "", "".join(ESCAPES.sub("", line) for line in lines))
    blocks.render_growing("".join("  " * depth + "- x\n" for depth in range(60)) + ">" * 200 + " x")
